//! What must hold of the state as a whole: asserted between inputs, and asked of
//! an image before it is used.
//!
//! Owns how the tables must agree with each other; that a table agrees with
//! itself (pages, digest, bytes) is `table`'s.

use super::chunks::{CHUNKS_MAX, Extent};
use super::inode::{Content, Inode, allocated};
use super::state::{LeaseState, State};
use crate::ids::{InodeId, SessionId};
use crate::limits::{CHUNK_SIZE, SESSION_WINDOW};
use crate::version::FeatureLevel;

/// What is wrong, if anything.
type Verdict = Result<(), String>;

fn hold(holds: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(otherwise()) }
}

impl State {
    /// Asserts what must hold between records; `whole` also what takes time in
    /// proportion to the state.
    ///
    /// # Panics
    /// When it does not hold: a bug.
    pub fn check_invariants(&self, whole: bool) {
        if whole {
            self.check_tables();
        }
        let verdict = if whole {
            self.agree()
        } else {
            self.agree_in_size()
        };
        if let Err(wrong) = verdict {
            panic!("{wrong}");
        }
    }

    fn check_tables(&self) {
        self.inodes.check();
        self.dentries.check();
        self.extents.check();
        self.chunks.check();
        self.leases.check();
        self.xattrs.check();
        self.sessions.check();
        self.replies.check();
        self.orphans.check();
        self.members.check();
        self.lost.check();
        self.nonces.check();
        self.kept.check();
        self.held.check();
        self.classes.check();
        self.servers.check();
        self.losses.check();
        self.stripes.check();
        self.archived.check();
        self.patterns.check();
        self.users.check();
    }

    /// What can be asked in O(1).
    fn agree_in_size(&self) -> Verdict {
        let (founded, root) = (self.is_founded(), self.inodes.get(&InodeId::ROOT));
        hold(founded == root.is_some_and(Inode::is_directory), || {
            "no root directory".to_owned()
        })?;
        hold(self.nonces.len() == self.sessions.len(), || {
            "nonces and sessions".to_owned()
        })?;
        hold(self.kept.len() == self.orphans.len(), || {
            "orphans by session".to_owned()
        })?;
        hold(self.held.len() <= self.leases.len(), || {
            "more holders than leases".to_owned()
        })?;
        hold(self.leases.len() <= self.chunks.len(), || {
            "more leases than chunks".to_owned()
        })?;
        hold(self.extents.len() <= self.chunks.len(), || {
            "more extents than chunks".to_owned()
        })
    }

    /// Whether all tables agree with each other.
    fn agree(&self) -> Verdict {
        self.agree_on_names()?;
        self.agree_but_names()
    }

    /// The same but for names, which take as long to check as an image to load: of
    /// what is loaded the digest says that it is what was written.
    pub(crate) fn agree_but_names(&self) -> Verdict {
        self.agree_in_size()?;
        self.agree_on_level()?;
        self.agree_on_patterns()?;
        self.agree_on_counters()?;
        self.agree_on_chunks()?;
        self.agree_on_leases()?;
        self.agree_on_sessions()?;
        self.agree_on_orphans()
    }

    /// Nothing of a higher level than the state's own is in it.
    fn agree_on_level(&self) -> Verdict {
        let level = self.feature_level();
        let classless = self.classes.len() + self.servers.len() == 0;
        hold(classless || level >= FeatureLevel::CLASSES, || {
            format!("there are storage classes or labels at feature level {level}")
        })?;
        let codes = self.classes().any(|(_, _, class)| class.has_codes());
        let codeless = self.stripes.len() + self.archived.len() == 0 && !codes;
        hold(codeless || level >= FeatureLevel::CODES, || {
            format!("there are erasure codes at feature level {level}")
        })?;
        let hosts = self.classes().any(|(_, _, class)| class.has_hosts());
        hold(!hosts || level >= FeatureLevel::HOSTS, || {
            format!("there are classes of hosts at feature level {level}")
        })?;
        let patternless = self.patterns.len() == 0;
        hold(patternless || level >= FeatureLevel::PATTERNS, || {
            format!("there are patterns at feature level {level}")
        })
    }

    fn agree_on_patterns(&self) -> Verdict {
        for (inode, patterns) in self.patterns.iter() {
            let is_directory = self.inodes.get(inode).is_some_and(Inode::is_directory);
            let known = patterns.classes().all(|class| self.has_class(class));
            hold(is_directory && known, || format!("the patterns of {inode}"))?;
        }
        Ok(())
    }

    fn agree_on_counters(&self) -> Verdict {
        let last_inode = self.inodes.iter().last().map(|(inode, _)| *inode);
        hold(last_inode <= Some(self.scalars.last_inode), || {
            "an inode was never given".to_owned()
        })?;
        let last_chunk = self.chunks.iter().last().map(|(chunk, _)| *chunk);
        hold(last_chunk <= Some(self.scalars.last_chunk), || {
            "a chunk was never given".to_owned()
        })?;
        let last_session = self.sessions.iter().last().map(|(session, _)| *session);
        hold(last_session <= Some(self.scalars.last_session), || {
            "a session was never given".to_owned()
        })
    }

    /// Directories count their entries and subdirectories, objects their names, and
    /// each directory has one name, where it says.
    fn agree_on_names(&self) -> Verdict {
        let mut named = Vec::with_capacity(self.dentries.len());
        let mut below = Below::default();
        for (&(parent, cookie), dentry) in self.dentries.iter() {
            let fits = cookie >> 16 == self.first_cookie(dentry.name.bytes()) >> 16;
            hold(fits, || {
                format!("{:?} in {parent} has a wrong cookie", dentry.name)
            })?;
            let object = self.inodes.get(&dentry.inode);
            let object = object.ok_or_else(|| format!("{:?} in {parent} dangles", dentry.name))?;
            let moved = object.is_directory() && object.parent != parent;
            hold(!moved, || format!("{} is not in {parent}", dentry.inode))?;
            if below.directory != parent {
                self.agree_on_directory(&below)?;
                below = Below {
                    directory: parent,
                    ..Below::default()
                };
            }
            below.entries += 1;
            below.directories += u32::from(object.is_directory());
            named.push(dentry.inode);
        }
        self.agree_on_directory(&below)?;
        named.sort_unstable();
        self.agree_on_links(&named)
    }

    fn agree_on_directory(&self, below: &Below) -> Verdict {
        let directory = match self.inodes.get(&below.directory) {
            Some(directory) if directory.is_directory() => directory,
            _ => {
                return hold(below.entries == 0, || {
                    format!("names in {}", below.directory)
                });
            }
        };
        let fits = directory.size == below.entries && directory.nlink == 2 + below.directories;
        hold(fits, || {
            format!("{} miscounts its entries", below.directory)
        })
    }

    /// `named`: what each dentry names, sorted.
    fn agree_on_links(&self, named: &[InodeId]) -> Verdict {
        let mut named = named;
        for (inode, object) in self.inodes.iter() {
            let names = named.partition_point(|have| have <= inode);
            let (own, rest) = named.split_at(names);
            named = rest;
            let fits = if *inode == InodeId::ROOT {
                own.is_empty()
            } else if object.is_directory() {
                own.len() == usize::from(object.nlink > 0)
            } else {
                own.len() == object.nlink as usize
            };
            hold(fits, || {
                format!("{inode} has {} names, {} links", own.len(), object.nlink)
            })?;
            let bare = object.is_directory() && object.size == 0 && object.nlink > 2;
            hold(!bare, || format!("{inode} has links but no entries"))?;
        }
        Ok(())
    }

    fn agree_on_chunks(&self) -> Verdict {
        let mut found = 0;
        let mut extents = self.extents.iter().peekable();
        for (inode, file) in self.inodes.iter() {
            hold(self.has_class(file.class), || {
                format!("{inode} is of no {}", file.class)
            })?;
            match file.content {
                Content::One { chunk, valid } => {
                    self.agree_on_extent(*inode, file, 0, Extent { chunk, valid })?;
                    found += 1;
                }
                Content::Many {
                    allocated: bytes,
                    chunks,
                } => {
                    let (mut sum, mut count) = (0, 0);
                    while let Some(((_, index), extent)) =
                        extents.next_if(|((owner, _), _)| owner == inode)
                    {
                        self.agree_on_extent(*inode, file, *index, *extent)?;
                        sum += allocated(extent.valid);
                        count += 1;
                    }
                    let fits = (sum, count) == (bytes, chunks);
                    hold(fits, || format!("{inode} miscounts its chunks"))?;
                    found += count as usize;
                }
                _ => {}
            }
        }
        hold(extents.next().is_none(), || {
            "an extent has no file".to_owned()
        })?;
        hold(found == self.chunks.len(), || {
            "a chunk has no file".to_owned()
        })
    }

    fn agree_on_extent(&self, inode: InodeId, file: &Inode, index: u32, extent: Extent) -> Verdict {
        let chunk = self.chunks.get(&extent.chunk);
        let chunk = chunk.ok_or_else(|| format!("{inode} names {}", extent.chunk))?;
        let placed = (chunk.inode, chunk.index, chunk.class) == (inode, index, file.class)
            && chunk.references == 1;
        hold(placed, || {
            format!("{} is not at {inode} {index}", extent.chunk)
        })?;
        let end = u64::from(index) * CHUNK_SIZE + u64::from(extent.valid);
        let within = index < CHUNKS_MAX && (extent.valid == 0 || end <= file.size);
        hold(file.is_regular() && within, || {
            format!("{} is valid beyond {inode}", extent.chunk)
        })
    }

    fn agree_on_leases(&self) -> Verdict {
        let mut holders = 0;
        for (id, lease) in self.leases.iter() {
            let chunk = self
                .chunks
                .get(id)
                .ok_or_else(|| format!("a lease of no chunk {id}"))?;
            let fits = !lease.copies().is_empty() && lease.base() < Some(chunk.version);
            hold(fits && *lease != LeaseState::Settled, || {
                format!("the lease of {id}")
            })?;
            if let Some(session) = lease.holder() {
                let known = self.sessions.has(&session) && self.held.has(&(session, *id));
                hold(known, || format!("{session} holds {id}"))?;
                holders += 1;
            }
        }
        for (id, loss) in self.losses.iter() {
            let chunk = self.chunks.get(id);
            let fits = chunk.is_some_and(|chunk| loss.up_to <= chunk.version);
            hold(fits, || format!("the losses of {id}"))?;
        }
        for (inode, _) in self.archived.iter() {
            hold(self.inodes.has(inode), || format!("{inode} is archived"))?;
        }
        for (id, coded) in self.stripes.iter() {
            let fits = coded.stripe.is_sound() && self.chunks.has(id) && !self.leases.has(id);
            hold(fits, || format!("the parts of {id}"))?;
        }
        hold(holders == self.held.len(), || {
            "leases by session".to_owned()
        })
    }

    fn agree_on_sessions(&self) -> Verdict {
        for (session, known) in self.sessions.iter() {
            hold(self.find_session(known.nonce) == Some(*session), || {
                format!("{session}")
            })?;
        }
        for ((session, request), _) in self.replies.iter() {
            let known = self.sessions.get(session).is_some_and(|known| {
                known.oldest <= *request && request.0 - known.oldest.0 < SESSION_WINDOW
            });
            hold(known, || format!("{session} has a reply of {request}"))?;
        }
        Ok(())
    }

    fn agree_on_orphans(&self) -> Verdict {
        for ((inode, session), _) in self.orphans.iter() {
            let orphan = self
                .inodes
                .get(inode)
                .is_some_and(|object| object.nlink == 0);
            let kept = self.sessions.has(session) && self.kept.has(&(*session, *inode));
            hold(orphan && kept, || format!("{session} keeps {inode}"))?;
        }
        for ((inode, _), _) in self.xattrs.iter() {
            hold(self.inodes.has(inode), || {
                format!("an attribute of no inode {inode}")
            })?;
        }
        for (inode, _) in self.inodes.iter().filter(|(_, object)| object.nlink == 0) {
            let next = self.orphans.first_from(&(*inode, SessionId(0)));
            let kept = next.is_some_and(|((kept, _), _)| kept == inode);
            hold(kept, || format!("nobody keeps {inode}"))?;
        }
        Ok(())
    }
}

/// What was found in one directory.
#[derive(Default)]
struct Below {
    directory: InodeId,
    entries: u64,
    directories: u32,
}
