//! Questions: answered by the leader behind a read barrier, so that no answer is
//! older than what was acknowledged before the question came.
//!
//! Owns questions that wait for the barrier; notes what the asker may cache.

use super::Master;
use super::clients::{Greeting, Heartbeat};
use crate::attributes::{Attributes, Credentials};
use crate::errno::Errno;
use crate::ids::{
    BootId, ChunkId, ChunkVersion, Epoch, InodeId, LinkId, PartId, RequestId, ServerId, SessionId,
};
use crate::limits::{CHUNK_SIZE, QUESTIONS_MAX, REPORT_BATCH};
use crate::machine::Level;
use crate::member::Barrier;
use crate::namespace::record::LeaseGrant;
use crate::namespace::{Chunk, LeaseState};
use crate::version::FeatureLevel;
use crate::vfs::Space;
use crate::wire::capability::{Capability, Grant, Right};
use crate::wire::client_master::{
    Answer, FileSystem, LeasedChunk, LocatedChunk, LocatedCopy, MasterToClient, Query,
};
use std::collections::BTreeMap;

/// Chunks that one `Locate` tells of.
const LOCATE_MAX: u32 = 64;
/// Names in one answer: with attributes of about 100 bytes each they fit a frame.
const ENTRIES_MAX: u32 = 2000;

#[derive(Clone, Debug)]
struct Question {
    link: LinkId,
    session: Option<SessionId>,
    id: RequestId,
    credentials: Credentials,
    query: Query,
}

/// Questions that wait for the barrier, and hellos that wait for their session.
#[derive(Clone, Debug, Default)]
pub(super) struct Questions {
    waiting: BTreeMap<u64, Question>,
    beats: BTreeMap<u64, Heartbeat>,
    /// Opens of what a record in the log may remove.
    opening: Vec<Question>,
    greetings: BTreeMap<LinkId, Greeting>,
}

impl Questions {
    pub(super) fn greet(&mut self, link: LinkId, greeting: Greeting) {
        self.greetings.insert(link, greeting);
    }

    pub(super) fn greeted(&mut self, link: LinkId) -> Option<Greeting> {
        self.greetings.remove(&link)
    }

    pub(super) fn drop_link(&mut self, link: LinkId) {
        self.greetings.remove(&link);
    }

    /// There is no room for one more that waits.
    pub(super) fn are_full(&self) -> bool {
        self.waiting.len() + self.beats.len() + self.opening.len() >= QUESTIONS_MAX
    }

    /// A heartbeat waits for the barrier.
    pub(super) fn beat(&mut self, ticket: u64, beat: Heartbeat) {
        self.beats.insert(ticket, beat);
    }

    /// The barrier came to nothing. Returns whose link waited for it.
    pub(super) fn forget(&mut self, ticket: u64) -> Option<LinkId> {
        let beat = self.beats.remove(&ticket).map(|beat| beat.link());
        let question = self.waiting.remove(&ticket).map(|question| question.link);
        beat.or(question)
    }
}

impl Master {
    pub(super) fn on_question(
        &mut self,
        link: LinkId,
        session: Option<SessionId>,
        id: RequestId,
        credentials: Credentials,
        query: Query,
    ) {
        if self.questions.are_full() {
            return self.tell_answer(link, id, Err(Errno::EAGAIN));
        }
        let question = Question {
            link,
            session,
            id,
            credentials,
            query,
        };
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        match self.member.barrier(self.now, ticket) {
            Barrier::Pass => self.answer_question(question),
            Barrier::Wait => {
                self.questions.waiting.insert(ticket, question);
            }
            Barrier::NotLeader => self.send_away(link),
        }
    }

    pub(super) fn on_read_ready(&mut self, ticket: u64) {
        if let Some(question) = self.questions.waiting.remove(&ticket) {
            self.answer_question(question);
        } else if let Some(beat) = self.questions.beats.remove(&ticket) {
            self.answer_alive(beat);
        }
    }

    /// Opens that waited for a record are looked at again.
    pub(super) fn retry_opens(&mut self) {
        for question in std::mem::take(&mut self.questions.opening) {
            self.answer_question(question);
        }
    }

    fn answer_question(&mut self, question: Question) {
        if let Query::Open { inode, .. } = question.query
            && self.mutations.is_removing(inode)
        {
            return self.questions.opening.push(question);
        }
        let Question {
            link,
            session,
            id,
            credentials,
            query,
        } = question;
        if !self.guests.contains_key(&link) {
            return;
        }
        let result = self.answer(session, &credentials, query);
        if let Ok(answer) = &result
            && self.partless.contains(&link)
        {
            self.restore_for_readers(answer);
        }
        self.tell_answer(link, id, result);
    }

    fn tell_answer(&mut self, link: LinkId, id: RequestId, result: Result<Answer, Errno>) {
        self.tell_client(
            link,
            MasterToClient::Answer {
                mutation: false,
                id,
                result,
                around: Vec::new(),
            },
        );
    }

    fn answer(
        &mut self,
        session: Option<SessionId>,
        who: &Credentials,
        query: Query,
    ) -> Result<Answer, Errno> {
        match query {
            Query::Lookup { parent, name } => self.answer_lookup(session, parent, &name, who),
            Query::Attributes { inode } => {
                let attributes = self.member.state().attributes(inode)?;
                self.cache_for(session, inode);
                Ok(Answer::Entry(attributes))
            }
            Query::ReadDirectory {
                inode,
                cookie,
                most,
            } => self.answer_directory(session, inode, cookie, most),
            Query::ReadLink { inode } => Ok(Answer::Bytes(self.member.state().read_link(inode)?)),
            Query::Xattr { inode, name } => {
                Ok(Answer::Bytes(self.member.state().xattr(inode, &name, who)?))
            }
            Query::Xattrs { inode } => Ok(Answer::Bytes(self.member.state().xattrs(inode)?)),
            Query::StatFs => Ok(Answer::FileSystem(self.file_system())),
            Query::Open { inode, read, write } => {
                self.answer_open(session, inode, (read, write), who)
            }
            Query::Locate {
                inode,
                index,
                count,
            } => self.answer_locate(session, inode, index, count),
            Query::Path { path } => Ok(Answer::Entry(self.member.state().path(&path)?)),
            Query::BadCopy {
                part,
                version,
                server,
            } => {
                self.on_bad_copy(part, version, server);
                Ok(Answer::Done)
            }
            Query::Status => Ok(Answer::Status(Box::new(self.status()))),
            Query::Info { inode, explain } => {
                Ok(Answer::Info(Box::new(self.info(inode, explain)?)))
            }
            Query::Unsettled { chunks } => Ok(Answer::Unsettled(self.unsettled(chunks))),
            Query::Stop { servers, from } => {
                Ok(Answer::Stop(Box::new(self.stop_plan(&servers, from))))
            }
            Query::PlanClass { name, class } => Ok(Answer::Plan(self.plan(&name, &class)?)),
            Query::ReleaseQuarantine => {
                self.release_quarantine();
                Ok(Answer::Done)
            }
            Query::Scrub { server, disk, rate } => {
                self.order_scrub(who, server, disk, rate)?;
                Ok(Answer::Done)
            }
        }
    }

    fn cache_for(&mut self, session: Option<SessionId>, inode: InodeId) {
        if let Some(session) = session {
            self.sessions.cache(session, inode);
        }
    }

    fn answer_lookup(
        &mut self,
        session: Option<SessionId>,
        parent: InodeId,
        name: &[u8],
        who: &Credentials,
    ) -> Result<Answer, Errno> {
        let found = self.member.state().lookup(parent, name, who);
        // A name that is not there may be cached too.
        if matches!(found, Ok(_) | Err(Errno::ENOENT)) {
            self.cache_for(session, parent);
        }
        let attributes: Attributes = found?;
        self.cache_for(session, attributes.inode);
        Ok(Answer::Entry(attributes))
    }

    fn answer_directory(
        &mut self,
        session: Option<SessionId>,
        inode: InodeId,
        cookie: u64,
        most: u32,
    ) -> Result<Answer, Errno> {
        let most = usize::try_from(most.clamp(1, ENTRIES_MAX)).expect("small");
        let (entries, end) = self.member.state().read_directory(inode, cookie, most)?;
        self.cache_for(session, inode);
        for entry in &entries {
            self.cache_for(session, entry.attributes.inode);
        }
        Ok(Answer::Entries { entries, end })
    }

    fn answer_open(
        &mut self,
        session: Option<SessionId>,
        inode: InodeId,
        (read, write): (bool, bool),
        who: &Credentials,
    ) -> Result<Answer, Errno> {
        let state = self.member.state();
        let attributes = state.check_open(inode, read, write, who)?;
        // One that it closed meanwhile it may keep until a record says so.
        let keeps =
            |session| state.is_orphan_of(inode, session) && self.sessions.has_open(session, inode);
        if attributes.nlink == 0 && !session.is_some_and(keeps) {
            // Its last name went since the caller looked it up: it lasts only as long as
            // the sessions that had it open then.
            return Err(Errno::ESTALE);
        }
        if let Some(session) = session {
            self.sessions.note_open(session, inode);
        }
        self.cache_for(session, inode);
        let first = match (read, attributes.size) {
            (true, 1..) => Some(Box::new(self.locate(session, inode, 0)?)),
            _ => None,
        };
        Ok(Answer::Opened { attributes, first })
    }

    fn answer_locate(
        &mut self,
        session: Option<SessionId>,
        inode: InodeId,
        index: u32,
        count: u32,
    ) -> Result<Answer, Errno> {
        let last = index.saturating_add(count.clamp(1, LOCATE_MAX));
        let located = (index..last)
            .map(|at| self.locate(session, inode, at))
            .collect::<Result<_, _>>()?;
        self.cache_for(session, inode);
        Ok(Answer::Located(located))
    }

    fn locate(
        &self,
        session: Option<SessionId>,
        inode: InodeId,
        index: u32,
    ) -> Result<LocatedChunk, Errno> {
        let Some((id, valid)) = self.member.state().chunk_at(inode, index)? else {
            return Ok(LocatedChunk {
                index,
                chunk: None,
                valid: 0,
                copies: Vec::new(),
                stripe: None,
            });
        };
        let chunk = self
            .member
            .state()
            .chunk(id)
            .expect("a file's chunk is in the table");
        if let Some(stripe) = chunk.stripe {
            return Ok(LocatedChunk {
                index,
                chunk: Some(id),
                valid,
                copies: self.located_parts(id, &chunk, stripe),
                stripe: Some(stripe),
            });
        }
        let mut readable = self.readable_copies(id, &chunk);
        if let Some(session) = session {
            let mut order: Vec<(ServerId, BootId)> =
                readable.iter().map(|copy| (copy.0, copy.1)).collect();
            self.near_first(session, &mut order);
            let place = |server| order.iter().position(|(other, _)| *other == server);
            readable.sort_by_key(|copy| place(copy.0));
        }
        let copies = readable.into_iter().filter_map(|(server, boot, version)| {
            self.located(server, boot, grant(id, version, chunk.epoch, Right::Read))
        });
        Ok(LocatedChunk {
            index,
            chunk: Some(id),
            valid,
            copies: copies.collect(),
            stripe: None,
        })
    }

    /// Copies that may be read now, each with the least version that it must have:
    /// under a lease a copy of the write set is raised only by the first write.
    fn readable_copies(&self, id: ChunkId, chunk: &Chunk) -> Vec<(ServerId, BootId, ChunkVersion)> {
        match &chunk.lease {
            LeaseState::Settled => {
                let readable = self.servers.readable(id, chunk.version).into_iter();
                let named = readable.filter_map(|copy| {
                    Some((
                        copy.server,
                        self.servers.get(copy.server)?.boot,
                        copy.version,
                    ))
                });
                named.collect()
            }
            LeaseState::Open { base, copies, .. } | LeaseState::Closing { base, copies, .. } => {
                let alive = copies
                    .iter()
                    .filter(|(server, boot)| self.servers.lives(*server, *boot));
                alive
                    .map(|(server, boot)| (*server, *boot, *base))
                    .collect()
            }
            LeaseState::Broken { .. } | LeaseState::Reconciling { .. } => Vec::new(),
        }
    }

    /// A copy with the right to use it.
    pub(super) fn located(
        &self,
        server: ServerId,
        boot: BootId,
        grant: Grant,
    ) -> Option<LocatedCopy> {
        let address = self.servers.get(server)?.address.clone();
        let capability = Capability::mint(self.keys.newest()?, server, boot, grant);
        Some(LocatedCopy {
            server,
            boot,
            address,
            capability,
        })
    }

    /// A lease as its writer needs it; `None` while one of its copies is unknown here: a
    /// writer that knew only the others would take their word for the word of all.
    pub(super) fn leased_chunk(&self, lease: &LeaseGrant) -> Option<LeasedChunk> {
        let grant = grant(lease.chunk, lease.version, lease.epoch, Right::Write);
        let level = self.member.state().feature_level();
        let copies = lease
            .copies
            .iter()
            .map(|(server, boot)| self.located(*server, *boot, grant));
        Some(LeasedChunk {
            index: lease.index,
            chunk: lease.chunk,
            version: lease.version,
            epoch: lease.epoch,
            valid: lease.valid,
            copies: copies.collect::<Option<_>>()?,
            lost: lease.lost,
            counts: level >= FeatureLevel::COUNTS && lease.version.counts_syncs(),
        })
    }

    /// Which chunks hold something that is not durable; those beyond the bound too, since
    /// nothing is said of them.
    fn unsettled(&self, chunks: Vec<(ChunkId, ChunkVersion)>) -> Vec<ChunkId> {
        let state = self.member.state();
        let asked = chunks.into_iter().enumerate();
        let open = asked.filter(|(number, (chunk, version))| {
            *number >= REPORT_BATCH || !state.is_settled(*chunk, *version)
        });
        open.map(|(_, (chunk, _))| chunk).collect()
    }

    fn file_system(&self) -> FileSystem {
        let state = self.member.state();
        let copies = state
            .attributes(InodeId::ROOT)
            .map_or(1, |root| u64::from(root.copies.max(1)));
        let alive = self.servers.table.values().filter(|one| one.is_alive());
        let disks = alive
            .flat_map(|one| &one.disks)
            .filter(|disk| disk.failed.is_empty());
        let (total, free) = disks.fold((0u64, 0u64), |(total, free), disk| {
            (
                total.saturating_add(disk.space.total),
                free.saturating_add(disk.space.free),
            )
        });
        let counts = state.counts();
        let space = Space {
            total: total / copies,
            free: free / copies,
        };
        FileSystem {
            space,
            inodes: counts.inodes,
            chunks: counts.chunks,
        }
    }

    /// A client read damage: the copy is not counted any more, unless it is the last.
    fn on_bad_copy(&mut self, part: PartId, version: ChunkVersion, server: ServerId) {
        let Some(chunk) = self.member.state().chunk(part.chunk) else {
            return;
        };
        if part.part > 0 {
            return self.doubt_part(server, part.chunk);
        }
        let current = self.servers.current(part.chunk, chunk.version);
        let others = current
            .filter(|copy| copy.server != server && self.servers.is_alive(copy.server))
            .count();
        if version <= chunk.version && others > 0 {
            self.log(
                Level::Warn,
                format!("{server} holds a bad copy of {part}: replacing it"),
            );
            self.servers.mark_bad(server, part);
        }
    }
}

fn grant(chunk: ChunkId, version: ChunkVersion, epoch: Epoch, right: Right) -> Grant {
    Grant {
        part: PartId::whole(chunk),
        version,
        epoch,
        right,
    }
}

const _: () = assert!(
    CHUNK_SIZE <= u32::MAX as u64,
    "offsets in a chunk have 32 bits"
);
