//! Dentries: the names in directories, and the order in which they are read.
//!
//! Owns the table of names; what happens to inodes when names come and go is in
//! `names` and `rename`. A dentry's key is its directory and a 63-bit cookie:
//! 47 bits of the name's hash and a 16-bit count among names with an equal hash.
//! Invariant: an entry keeps its cookie for as long as it is there, whatever else
//! happens in the directory; no cookie is below COOKIE_MIN; a directory's `size`
//! counts its entries.

use super::apply::Step;
use super::digest;
use super::inode::Inode;
use super::name::Name;
use super::permission::EXECUTE;
use super::state::{Change, State};
use super::table::Entity;
use crate::attributes::Credentials;
use crate::errno::Errno;
use crate::ids::InodeId;
use crate::limits::NAME_MAX;
use minicbor::{Decode, Encode};

/// Bits of a cookie that count names of an equal hash.
const COUNT_BITS: u32 = 16;
const HASH_BITS: u32 = 47;
/// The least cookie of an entry: smaller ones are free for `.` and `..`.
pub const COOKIE_MIN: u64 = 1 << COUNT_BITS;

/// A name in a directory.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct Dentry {
    #[n(0)]
    pub(crate) inode: InodeId,
    #[n(1)]
    pub(crate) name: Name,
}

impl Entity<(InodeId, u64)> for Dentry {
    fn hash(&self, (parent, cookie): &(InodeId, u64)) -> u64 {
        let name = digest::bytes(2, self.name.bytes());
        digest::words(2, &[parent.0, *cookie, self.inode.0, name])
    }

    fn heap(&self, _: &(InodeId, u64)) -> usize {
        self.name.heap()
    }
}

/// A name that was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub(crate) cookie: u64,
    pub(crate) inode: InodeId,
}

/// Whether a name may stand in a directory.
pub(crate) fn check_name(name: &[u8]) -> Result<(), Errno> {
    match name {
        b"" => Err(Errno::ENOENT),
        b"." | b".." => Err(Errno::EINVAL),
        _ if name.len() > NAME_MAX => Err(Errno::ENAMETOOLONG),
        _ if name.iter().any(|&byte| byte == b'/' || byte == 0) => Err(Errno::EINVAL),
        _ => Ok(()),
    }
}

impl State {
    /// The first cookie of the names with this one's hash.
    pub(crate) fn first_cookie(&self, name: &[u8]) -> u64 {
        let hash = digest::bytes(self.scalars.name_seed, name) >> (u64::BITS - HASH_BITS);
        hash.max(1) << COUNT_BITS
    }

    /// The entry of a name.
    pub(crate) fn find(&self, parent: InodeId, name: &[u8]) -> Option<Found> {
        let first = self.first_cookie(name);
        let mut from = first;
        loop {
            let (&(directory, cookie), dentry) = self.dentries.first_from(&(parent, from))?;
            if directory != parent || cookie >> COUNT_BITS != first >> COUNT_BITS {
                return None;
            }
            let inode = dentry.inode;
            if dentry.name.bytes() == name {
                return Some(Found { cookie, inode });
            }
            from = cookie + 1;
        }
    }

    /// The cookie that a new name gets: the least free one of its hash. ENOSPC when
    /// 65,536 names of the directory have that hash.
    pub(crate) fn free_cookie(&self, parent: InodeId, name: &[u8]) -> Result<u64, Errno> {
        let first = self.first_cookie(name);
        let taken = self.dentries.range(&(parent, first));
        let mut free = first;
        for (&(directory, cookie), _) in taken {
            if directory != parent || cookie != free {
                break;
            }
            free += 1;
        }
        let same = free >> COUNT_BITS == first >> COUNT_BITS;
        same.then_some(free).ok_or(Errno::ENOSPC)
    }

    /// A directory in which the caller may look names up.
    pub(crate) fn searchable(&self, inode: InodeId, who: &Credentials) -> Result<&Inode, Errno> {
        let directory = self.directory(inode)?;
        directory.demand(who, EXECUTE)?;
        Ok(directory)
    }

    /// Puts a name in, at a cookie that is free.
    pub(crate) fn add_dentry(
        &mut self,
        step: &mut Step<'_>,
        parent: InodeId,
        cookie: u64,
        name: &[u8],
        inode: InodeId,
    ) {
        let dentry = Dentry {
            inode,
            name: Name::new(name),
        };
        self.dentries.add((parent, cookie), dentry);
        self.note_names(step, parent, name, |directory| directory.size += 1);
    }

    /// Takes a name out.
    pub(crate) fn remove_dentry(&mut self, step: &mut Step<'_>, parent: InodeId, found: Found) {
        let gone = self.dentries.remove(&(parent, found.cookie));
        let gone = gone.expect("a name that was found is there");
        self.note_names(step, parent, gone.name.bytes(), |directory| {
            directory.size -= 1
        });
    }

    /// Lets a name stand for another object.
    pub(crate) fn repoint_dentry(
        &mut self,
        step: &mut Step<'_>,
        parent: InodeId,
        found: Found,
        inode: InodeId,
    ) {
        let name = self.dentries.update(&(parent, found.cookie), |dentry| {
            dentry.inode = inode;
            dentry.name.clone()
        });
        self.note_names(step, parent, name.bytes(), |_| {});
    }

    fn note_names(
        &mut self,
        step: &mut Step<'_>,
        parent: InodeId,
        name: &[u8],
        count: impl FnOnce(&mut Inode),
    ) {
        let now = step.now;
        let name = name.to_vec();
        step.changed(Change::Dentry { parent, name });
        self.change_inode(step, parent, |directory| {
            count(directory);
            directory.modified(now);
        });
    }
}
