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
/// Bits of a name's hash in its cookie; the module's own tests take few, so that
/// names collide.
const HASH_BITS: u32 = if cfg!(test) { 4 } else { 47 };
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
        self.seek(parent, name).ok()
    }

    /// The entry of a name, or the cookie that the name would get: the least free one
    /// of its hash. `Err(None)` when 65,536 names of the directory have that hash.
    pub(crate) fn seek(&self, parent: InodeId, name: &[u8]) -> Result<Found, Option<u64>> {
        let first = self.first_cookie(name);
        let (mut from, mut free) = (first, first);
        let same = |cookie: u64| cookie >> COUNT_BITS == first >> COUNT_BITS;
        while let Some((&(directory, cookie), dentry)) = self.dentries.first_from(&(parent, from)) {
            if directory != parent || !same(cookie) {
                break;
            }
            let inode = dentry.inode;
            if dentry.name.bytes() == name {
                return Ok(Found { cookie, inode });
            }
            free += u64::from(cookie == free);
            from = cookie + 1;
        }
        Err(same(free).then_some(free))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const ROOT: InodeId = InodeId::ROOT;

    fn add(state: &mut State, name: &str, inode: u64) -> u64 {
        let cookie = state.seek(ROOT, name.as_bytes());
        let cookie = cookie.expect_err("the name is new").expect("there is room");
        let dentry = Dentry {
            inode: InodeId(inode),
            name: Name::new(name.as_bytes()),
        };
        state.dentries.add((ROOT, cookie), dentry);
        cookie
    }

    #[test]
    fn names_of_one_hash_take_the_next_count_and_keep_it() {
        let mut state = State::default();
        let names: Vec<String> = (0..500).map(|n| format!("name-{n}")).collect();
        let mut cookies = BTreeMap::new();
        for (name, inode) in names.iter().zip(1..) {
            cookies.insert(add(&mut state, name, inode), name.clone());
        }
        assert_eq!(cookies.len(), 500, "cookies are unique");
        assert!(cookies.keys().all(|&cookie| cookie >= COOKIE_MIN));
        for (cookie, name) in cookies.iter().step_by(2) {
            state
                .dentries
                .remove(&(ROOT, *cookie))
                .expect("it is there");
            assert_eq!(state.find(ROOT, name.as_bytes()), None);
        }
        for (cookie, name) in cookies.iter().skip(1).step_by(2) {
            let found = state.find(ROOT, name.as_bytes()).expect("it stayed");
            assert_eq!(found.cookie, *cookie, "behind a gap, too");
        }
        let gap = add(&mut state, "another", 1000);
        assert!(
            cookies.contains_key(&gap),
            "the least free count is taken again"
        );
    }

    #[test]
    fn a_hash_that_is_full_takes_no_name() {
        let mut state = State::default();
        let first = state.first_cookie(b"x");
        for count in 0..1 << COUNT_BITS {
            let name = Name::new(format!("other-{count}").as_bytes());
            let inode = InodeId(2);
            state
                .dentries
                .add((ROOT, first + count), Dentry { inode, name });
        }
        assert_eq!(state.seek(ROOT, b"x"), Err(None));
        assert!(
            state
                .seek(InodeId(2), b"x")
                .is_err_and(|free| free == Some(first))
        );
    }
}
