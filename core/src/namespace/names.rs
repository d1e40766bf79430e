//! Making and removing names: create, link, unlink, rmdir.
//!
//! Judges each whole, then acts: nothing is changed before everything that can
//! fail was asked. The order of the questions is Linux's, so that the same error
//! wins. Renames are in `rename`.

use super::apply::Step;
use super::chunks::Extent;
use super::class::Counting;
use super::dentry::check_name;
use super::inode::{Content, Inode};
use super::name::Name;
use super::permission::{EXECUTE, GROUP_EXECUTE, SETGID, WRITE};
use super::record::{LeaseGrant, Outcome, Reply};
use super::state::State;
use crate::attributes::{Credentials, FileKind};
use crate::errno::Errno;
use crate::ids::{ChunkId, InodeId};
use crate::limits::{LINK_MAX, SYMLINK_MAX};
use crate::placement::ClassId;

/// What `Create` is to make.
pub(crate) struct Blueprint<'a> {
    pub(crate) kind: FileKind,
    pub(crate) mode: u32,
    pub(crate) device: u64,
    pub(crate) target: &'a [u8],
    pub(crate) exclusive: bool,
    pub(crate) write: bool,
}

impl Blueprint<'_> {
    /// The maker is going to write.
    fn wants_chunk(&self) -> bool {
        self.write && self.kind == FileKind::Regular
    }

    fn check(&self, who: &Credentials) -> Result<(), Errno> {
        match self.kind {
            FileKind::Symlink if self.target.is_empty() => Err(Errno::ENOENT),
            FileKind::Symlink if self.target.len() > SYMLINK_MAX => Err(Errno::ENAMETOOLONG),
            FileKind::CharDevice | FileKind::BlockDevice if !who.is_root() => Err(Errno::EPERM),
            _ => Ok(()),
        }
    }

    /// The mode of the new object and its group: a setgid directory hands on its
    /// group, and to directories the bit; a file does not get setgid for a group
    /// that its maker is not in.
    fn ownership(&self, directory: &Inode, who: &Credentials) -> (u16, u32) {
        let inherits = directory.mode & SETGID != 0;
        let gid = if inherits { directory.gid } else { who.gid };
        let mode = (self.mode & 0o7777) as u16;
        let mode = match self.kind {
            FileKind::Symlink => 0o777,
            FileKind::Directory => mode & 0o1777 | if inherits { SETGID } else { 0 },
            _ if inherits && !who.is_root() && !who.in_group(gid) && mode & GROUP_EXECUTE != 0 => {
                mode & !SETGID
            }
            _ => mode,
        };
        (mode, gid)
    }

    fn content(&self) -> (u64, Content) {
        match self.kind {
            FileKind::Symlink => {
                let target = Box::new(Name::new(self.target));
                (self.target.len() as u64, Content::Target(target))
            }
            FileKind::CharDevice | FileKind::BlockDevice => (0, Content::Device(self.device)),
            _ => (0, Content::Nothing),
        }
    }
}

impl State {
    /// A directory in which names may be looked up and made.
    fn living(&self, parent: InodeId, name: &[u8], who: &Credentials) -> Result<&Inode, Errno> {
        let directory = self.searchable(parent, who)?;
        check_name(name)?;
        Ok(directory)
    }

    /// What a new name in the directory needs.
    pub(crate) fn demand_room(directory: &Inode, who: &Credentials) -> Result<(), Errno> {
        if directory.nlink == 0 {
            return Err(Errno::ENOENT);
        }
        directory.demand(who, WRITE | EXECUTE)
    }

    /// `Mutation::Create`.
    pub(crate) fn create(
        &mut self,
        step: &mut Step<'_>,
        parent: InodeId,
        name: &[u8],
        new: &Blueprint<'_>,
    ) -> Outcome {
        let directory = self.living(parent, name, step.who)?;
        let cookie = match self.seek(parent, name) {
            Ok(found) => return self.found(found.inode, new),
            Err(cookie) => cookie,
        };
        Self::demand_room(directory, step.who)?;
        new.check(step.who)?;
        if new.kind == FileKind::Directory && directory.nlink == u32::MAX {
            return Err(Errno::EMLINK);
        }
        let cookie = cookie.ok_or(Errno::ENOSPC)?;
        let by_name = self.class_by_name(parent, name, new.kind);
        let class = by_name.unwrap_or(directory.class);
        if new.wants_chunk() {
            // A law that can't be met is told to who makes the file, not to who closes it.
            self.judge_new_copies(class, &step.choice.copies)?;
        }
        let object = Self::draw(step, parent, (directory, class), new);
        let inode = self.add_inode(object);
        self.add_dentry(step, parent, cookie, name, inode);
        if new.kind == FileKind::Directory {
            self.change_inode(step, parent, |directory| directory.nlink += 1);
            self.inherit_patterns(parent, inode);
        }
        let lease = self.first_lease(step, inode, new);
        let attributes = self.attributes(inode)?;
        Ok(Reply::Created {
            attributes,
            existed: false,
            lease,
        })
    }

    fn found(&self, inode: InodeId, new: &Blueprint<'_>) -> Outcome {
        if new.exclusive || new.kind != FileKind::Regular {
            return Err(Errno::EEXIST);
        }
        Ok(Reply::Created {
            attributes: self.attributes(inode)?,
            existed: true,
            lease: None,
        })
    }

    fn draw(
        step: &Step<'_>,
        parent: InodeId,
        (directory, class): (&Inode, ClassId),
        new: &Blueprint<'_>,
    ) -> Inode {
        let (mode, gid) = new.ownership(directory, step.who);
        let (size, content) = new.content();
        Inode {
            size,
            change: 0,
            parent,
            atime: step.now,
            mtime: step.now,
            ctime: step.now,
            nlink: if new.kind == FileKind::Directory {
                2
            } else {
                1
            },
            uid: step.who.uid,
            gid,
            mode,
            kind: new.kind,
            class,
            content,
        }
    }

    fn add_inode(&mut self, object: Inode) -> InodeId {
        let inode = self.scalars.last_inode.next();
        self.scalars.last_inode = inode;
        self.count_user(object.class, Counting::Up);
        self.inodes.add(inode, object);
        inode
    }

    fn first_lease(
        &mut self,
        step: &mut Step<'_>,
        inode: InodeId,
        new: &Blueprint<'_>,
    ) -> Option<LeaseGrant> {
        if !new.wants_chunk() || step.choice.copies.is_empty() {
            return None;
        }
        let grant = self.allocate_leased(step, inode, 0);
        Some(grant.expect("copies were chosen and judged for a new chunk"))
    }

    /// `Mutation::Link`.
    pub(crate) fn link(
        &mut self,
        step: &mut Step<'_>,
        inode: InodeId,
        parent: InodeId,
        name: &[u8],
    ) -> Outcome {
        let object = self.inode(inode)?;
        let directory = self.living(parent, name, step.who)?;
        let Err(cookie) = self.seek(parent, name) else {
            return Err(Errno::EEXIST);
        };
        Self::demand_room(directory, step.who)?;
        if object.is_directory() {
            return Err(Errno::EPERM);
        }
        match object.nlink {
            0 => return Err(Errno::ENOENT),
            LINK_MAX.. => return Err(Errno::EMLINK),
            _ => {}
        }
        let cookie = cookie.ok_or(Errno::ENOSPC)?;
        self.judge_residence(object, parent, name)?;
        self.add_dentry(step, parent, cookie, name, inode);
        let now = step.now;
        self.change_inode(step, inode, |object| {
            object.nlink += 1;
            object.ctime = now;
        });
        self.entry(inode)
    }

    /// `Mutation::Unlink`.
    pub(crate) fn unlink(&mut self, step: &mut Step<'_>, parent: InodeId, name: &[u8]) -> Outcome {
        let directory = self.living(parent, name, step.who)?;
        let found = self.find(parent, name).ok_or(Errno::ENOENT)?;
        let victim = self.inode(found.inode)?;
        directory.demand_delete(step.who, victim)?;
        if victim.is_directory() {
            return Err(Errno::EISDIR);
        }
        self.remove_dentry(step, parent, found);
        self.drop_link(step, found.inode);
        Ok(Reply::Done)
    }

    /// `Mutation::Rmdir`.
    pub(crate) fn rmdir(&mut self, step: &mut Step<'_>, parent: InodeId, name: &[u8]) -> Outcome {
        let directory = self.living(parent, name, step.who)?;
        let found = self.find(parent, name).ok_or(Errno::ENOENT)?;
        let victim = self.inode(found.inode)?;
        directory.demand_delete(step.who, victim)?;
        if !victim.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        if victim.size > 0 {
            return Err(Errno::ENOTEMPTY);
        }
        self.remove_dentry(step, parent, found);
        self.change_inode(step, parent, |directory| directory.nlink -= 1);
        self.drop_link(step, found.inode);
        Ok(Reply::Done)
    }

    /// Makes the root directory.
    pub(crate) fn found_root(&mut self, step: &Step<'_>, copies: u8) {
        let root = Inode {
            size: 0,
            change: 0,
            parent: InodeId::ROOT,
            atime: step.now,
            mtime: step.now,
            ctime: step.now,
            nlink: 2,
            uid: 0,
            gid: 0,
            mode: 0o755,
            kind: FileKind::Directory,
            class: ClassId::copies(copies),
            content: Content::Nothing,
        };
        let root = self.add_inode(root);
        assert_eq!(root, InodeId::ROOT, "the first inode is the root directory");
    }

    /// A new chunk of a file under a lease for the caller. ENOSPC when the leader had
    /// no server to offer.
    pub(crate) fn allocate_leased(
        &mut self,
        step: &mut Step<'_>,
        inode: InodeId,
        index: u32,
    ) -> Result<LeaseGrant, Errno> {
        if step.choice.copies.is_empty() {
            return Err(Errno::ENOSPC);
        }
        self.judge_new_copies(self.inode(inode)?.class, &step.choice.copies)?;
        let chunk: ChunkId = self.add_chunk(step, inode, index);
        let extent = Extent { chunk, valid: 0 };
        self.put_extent(inode, index, extent);
        self.grant(step, chunk, extent)
    }
}
