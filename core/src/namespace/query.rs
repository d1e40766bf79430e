//! Questions to the state: nothing here changes anything.
//!
//! Where credentials are given, permissions are checked here; elsewhere the
//! caller did, or the kernel.

use super::dentry::check_name;
use super::inode::Content;
use super::permission::{READ, WRITE};
use super::state::State;
use crate::attributes::{Attributes, Credentials, DirectoryEntry, FileKind};
use crate::errno::Errno;
use crate::ids::{ChunkId, Incarnation, InodeId, LogPosition, SessionId};
use crate::namespace::state::Derived;

/// How much there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Objects, orphans included.
    pub inodes: u64,
    /// Chunks.
    pub chunks: u64,
}

/// What is known of a chunk id that a chunkserver reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChunkOrigin {
    /// It is in the table.
    Known,
    /// It was given and is gone: nobody needs its copies.
    Deleted,
    /// It lies in a lost range or was never given: its copies are quarantined.
    Unknown,
}

impl State {
    /// Whether the first record of a cluster was applied.
    #[must_use]
    pub fn is_founded(&self) -> bool {
        self.scalars.incarnation > Incarnation(0)
    }

    /// The last position of the log that was applied.
    #[must_use]
    pub fn applied(&self) -> LogPosition {
        self.scalars.applied
    }

    /// The life of the cluster; 0 before it was founded.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.scalars.incarnation
    }

    /// The secret that capabilities are keyed with.
    #[must_use]
    pub fn capability_secret(&self) -> &[u8] {
        &self.scalars.capability_secret
    }

    /// The object of a name. `.` and `..` are known too.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, EACCES, ENAMETOOLONG; ESTALE when the directory is gone.
    pub fn lookup(
        &self,
        parent: InodeId,
        name: &[u8],
        who: &Credentials,
    ) -> Result<Attributes, Errno> {
        let directory = self.searchable(parent, who)?;
        let inode = match name {
            b"." => parent,
            b".." => directory.parent,
            _ => self.named(parent, name)?,
        };
        self.attributes(inode)
    }

    fn named(&self, parent: InodeId, name: &[u8]) -> Result<InodeId, Errno> {
        check_name(name)?;
        let found = self.find(parent, name).ok_or(Errno::ENOENT)?;
        Ok(found.inode)
    }

    /// What stat(2) tells.
    ///
    /// # Errors
    /// ESTALE when the inode is gone.
    pub fn attributes(&self, inode: InodeId) -> Result<Attributes, Errno> {
        let object = self.inode(inode)?;
        Ok(object.attributes(inode, !self.has_xattrs(inode)))
    }

    /// A directory's attributes, and whether it has no names; `None` when it is none (any
    /// more).
    #[must_use]
    pub fn directory_now(&self, inode: InodeId) -> Option<(Attributes, bool)> {
        let directory = self.directory(inode).ok()?;
        Some((self.attributes(inode).ok()?, directory.size == 0))
    }

    /// At most `most` names of a directory behind a cookie (0: from the first on), and
    /// whether there are none behind them.
    ///
    /// # Errors
    /// ENOTDIR; ESTALE when the directory is gone.
    pub fn read_directory(
        &self,
        inode: InodeId,
        cookie: u64,
        most: usize,
    ) -> Result<(Vec<DirectoryEntry>, bool), Errno> {
        self.directory(inode)?;
        let from = (inode, cookie.saturating_add(1));
        let own = self
            .dentries
            .range(&from)
            .take_while(|((parent, _), _)| *parent == inode);
        let mut entries = Vec::new();
        for ((_, cookie), dentry) in own {
            if entries.len() == most {
                return Ok((entries, false));
            }
            entries.push(DirectoryEntry {
                name: dentry.name.bytes().to_vec(),
                cookie: *cookie,
                attributes: self.attributes(dentry.inode)?,
            });
        }
        Ok((entries, true))
    }

    /// A symlink's target.
    ///
    /// # Errors
    /// EINVAL when it is no symlink; ESTALE when it is gone.
    pub fn read_link(&self, inode: InodeId) -> Result<Vec<u8>, Errno> {
        match &self.inode(inode)?.content {
            Content::Target(target) => Ok(target.bytes().to_vec()),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Follows a `/`-separated path from the root, symlinks not followed and
    /// permissions not asked: for operators.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, ENAMETOOLONG.
    pub fn path(&self, path: &[u8]) -> Result<Attributes, Errno> {
        let root = Credentials::default();
        let mut at = self.attributes(InodeId::ROOT)?;
        for name in path
            .split(|&byte| byte == b'/')
            .filter(|name| !name.is_empty())
        {
            at = self.lookup(at.inode, name, &root)?;
        }
        Ok(at)
    }

    /// Whether the caller may open an object so.
    ///
    /// # Errors
    /// EACCES; EISDIR for writing to a directory; ELOOP for a symlink; ESTALE when it
    /// is gone.
    pub fn check_open(
        &self,
        inode: InodeId,
        read: bool,
        write: bool,
        who: &Credentials,
    ) -> Result<Attributes, Errno> {
        let object = self.inode(inode)?;
        match object.kind {
            FileKind::Symlink => return Err(Errno::ELOOP),
            FileKind::Directory if write => return Err(Errno::EISDIR),
            _ => {}
        }
        let want = if read { READ } else { 0 } | if write { WRITE } else { 0 };
        object.demand(who, want)?;
        self.attributes(inode)
    }

    /// The chunk at an index of a file, and how far it is valid; `None` for a hole.
    ///
    /// # Errors
    /// EISDIR or EINVAL when it is no regular file; ESTALE when it is gone.
    pub fn chunk_at(&self, inode: InodeId, index: u32) -> Result<Option<(ChunkId, u32)>, Errno> {
        let file = self.regular(inode)?;
        let extent = self.extent(file, inode, index);
        Ok(extent.map(|extent| (extent.chunk, extent.valid)))
    }

    /// Every chunk of a file: its index, its id, how far it is valid.
    ///
    /// # Errors
    /// EISDIR or EINVAL when it is no regular file; ESTALE when it is gone.
    pub fn chunks_of(&self, inode: InodeId) -> Result<Vec<(u32, ChunkId, u32)>, Errno> {
        self.regular(inode)?;
        let extents = self.extents_of(inode);
        Ok(extents
            .map(|(index, extent)| (index, extent.chunk, extent.valid))
            .collect())
    }

    /// At most `most` chunk ids from one on, in order: for scans.
    #[must_use]
    pub fn chunks_from(&self, from: ChunkId, most: usize) -> Vec<ChunkId> {
        self.chunks
            .range(&from)
            .take(most)
            .map(|(chunk, _)| *chunk)
            .collect()
    }

    /// Every chunk that is not settled.
    pub fn leased(&self) -> impl Iterator<Item = ChunkId> + '_ {
        self.leases.iter().map(|(chunk, _)| *chunk)
    }

    /// Every session with its name.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, &str)> + '_ {
        let named = |name| std::str::from_utf8(name).expect("a session's name was text");
        (self.sessions.iter()).map(move |(session, known)| (*session, named(known.name.bytes())))
    }

    /// Whether a session stands.
    #[must_use]
    pub fn has_session(&self, session: SessionId) -> bool {
        self.sessions.has(&session)
    }

    /// The session that was begun with a nonce, while it stands.
    #[must_use]
    pub fn find_session(&self, nonce: u64) -> Option<SessionId> {
        self.nonces.get(&nonce).map(|Derived(session)| *session)
    }

    /// What a name stands for, with its links: for the choice of who has it open,
    /// before it is unlinked or replaced.
    #[must_use]
    pub fn unlink_target(&self, parent: InodeId, name: &[u8]) -> Option<(InodeId, u32)> {
        let inode = self.find(parent, name)?.inode;
        Some((inode, self.inodes.get(&inode)?.nlink))
    }

    /// What is known of a chunk id.
    #[must_use]
    pub fn chunk_is_lost_range(&self, chunk: ChunkId) -> ChunkOrigin {
        if self.chunks.has(&chunk) {
            return ChunkOrigin::Known;
        }
        let lost = self
            .lost
            .iter()
            .any(|(from, before)| (*from..*before).contains(&chunk));
        if lost || chunk > self.scalars.last_chunk {
            ChunkOrigin::Unknown
        } else {
            ChunkOrigin::Deleted
        }
    }

    /// How much there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            inodes: self.inodes.len() as u64,
            chunks: self.chunks.len() as u64,
        }
    }

    /// The members of the Raft group with their addresses.
    pub fn members(&self) -> impl Iterator<Item = (u64, &str)> + '_ {
        let text = |address| std::str::from_utf8(address).expect("an address was text");
        (self.members.iter()).map(move |(member, address)| (*member, text(address.bytes())))
    }
}
