//! Extended attributes (xattr(7)).
//!
//! Owns the table and who may see and set what: `user.` on files and directories
//! by their permission bits, `trusted.` by the superuser alone, `security.` set
//! by the superuser and read by all. `system.` (ACLs) is not supported.

use super::apply::Step;
use super::digest;
use super::inode::Inode;
use super::name::Name;
use super::permission::{READ, STICKY, WRITE};
use super::record::{Outcome, Reply};
use super::state::State;
use super::table::Entity;
use crate::attributes::{Credentials, FileKind, XattrMode};
use crate::errno::Errno;
use crate::ids::InodeId;
use crate::limits::{XATTR_NAME_MAX, XATTR_VALUE_MAX, XATTRS_MAX};
use minicbor::{Decode, Encode};

/// File capabilities: a write takes them away, as it does setuid.
const CAPABILITY: &[u8] = b"security.capability";

/// The value of an attribute.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(transparent)]
pub(crate) struct XattrValue(#[n(0)] pub(crate) Name);

impl Entity<(InodeId, Name)> for XattrValue {
    fn hash(&self, (inode, name): &(InodeId, Name)) -> u64 {
        let name = digest::bytes(6, name.bytes());
        digest::words(6, &[inode.0, name, digest::bytes(6, self.0.bytes())])
    }

    fn heap(&self, (_, name): &(InodeId, Name)) -> usize {
        name.heap() + self.0.heap()
    }
}

/// Whose an attribute is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Space {
    User,
    Trusted,
    Security,
}

fn space(name: &[u8]) -> Result<Space, Errno> {
    let (space, rest) = if let Some(rest) = name.strip_prefix(b"user.") {
        (Space::User, rest)
    } else if let Some(rest) = name.strip_prefix(b"trusted.") {
        (Space::Trusted, rest)
    } else if let Some(rest) = name.strip_prefix(b"security.") {
        (Space::Security, rest)
    } else {
        return Err(Errno::EOPNOTSUPP);
    };
    if name.len() > XATTR_NAME_MAX {
        return Err(Errno::ERANGE);
    }
    let bad = rest.is_empty() || rest.contains(&0);
    if bad { Err(Errno::EINVAL) } else { Ok(space) }
}

/// What getxattr(2) says of an attribute that is not there, where that depends on
/// neither the object nor who asks; `None` where it does.
#[must_use]
pub fn absent_xattr(name: &[u8]) -> Option<Errno> {
    match space(name) {
        Ok(Space::Security) => Some(Errno::ENODATA),
        Ok(Space::User | Space::Trusted) => None,
        Err(errno) => Some(errno),
    }
}

impl Inode {
    fn demand_xattr_write(&self, who: &Credentials, name: &[u8]) -> Result<(), Errno> {
        let has_user = matches!(self.kind, FileKind::Regular | FileKind::Directory);
        match space(name)? {
            Space::User if !has_user => Err(Errno::EPERM),
            Space::User if self.is_directory() && self.mode & STICKY != 0 => self.demand_owner(who),
            Space::User => self.demand(who, WRITE),
            Space::Trusted | Space::Security if who.is_root() => Ok(()),
            Space::Trusted | Space::Security => Err(Errno::EPERM),
        }
    }

    fn demand_xattr_read(&self, who: &Credentials, name: &[u8]) -> Result<(), Errno> {
        let has_user = matches!(self.kind, FileKind::Regular | FileKind::Directory);
        match space(name)? {
            Space::User if !has_user => Err(Errno::ENODATA),
            Space::User => self.demand(who, READ),
            Space::Trusted if !who.is_root() => Err(Errno::ENODATA),
            Space::Trusted | Space::Security => Ok(()),
        }
    }
}

impl State {
    /// An attribute's value.
    ///
    /// # Errors
    /// ENODATA when it is not there or not to be seen; EACCES; EOPNOTSUPP for
    /// another namespace; ESTALE when the inode is gone.
    pub fn xattr(&self, inode: InodeId, name: &[u8], who: &Credentials) -> Result<Vec<u8>, Errno> {
        self.inode(inode)?.demand_xattr_read(who, name)?;
        let value = self.xattrs.get(&(inode, Name::new(name)));
        value
            .map(|value| value.0.bytes().to_vec())
            .ok_or(Errno::ENODATA)
    }

    /// The names of all attributes, each ended by a NUL.
    ///
    /// # Errors
    /// ESTALE when the inode is gone.
    pub fn xattrs(&self, inode: InodeId) -> Result<Vec<u8>, Errno> {
        self.visible_xattrs(inode, &Credentials::default())
    }

    /// The names of the attributes that the caller may see, each ended by a NUL:
    /// `trusted.` ones are for the superuser.
    ///
    /// # Errors
    /// ESTALE when the inode is gone.
    pub fn visible_xattrs(&self, inode: InodeId, who: &Credentials) -> Result<Vec<u8>, Errno> {
        self.inode(inode)?;
        let mut names = Vec::new();
        for name in self.xattr_names(inode) {
            if who.is_root() || !name.bytes().starts_with(b"trusted.") {
                names.extend_from_slice(name.bytes());
                names.push(0);
            }
        }
        Ok(names)
    }

    /// Whether an inode has any.
    pub(super) fn has_xattrs(&self, inode: InodeId) -> bool {
        self.xattrs.len() > 0 && self.xattr_names(inode).next().is_some()
    }

    fn xattr_names(&self, inode: InodeId) -> impl Iterator<Item = &Name> {
        let entries = self.xattrs.range(&(inode, Name::new(b"")));
        let own = entries.take_while(move |((owner, _), _)| *owner == inode);
        own.map(|((_, name), _)| name)
    }

    /// `Mutation::SetXattr`.
    pub(crate) fn set_xattr(
        &mut self,
        step: &mut Step<'_>,
        inode: InodeId,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Outcome {
        self.inode(inode)?.demand_xattr_write(step.who, name)?;
        if value.len() > XATTR_VALUE_MAX {
            return Err(Errno::ERANGE);
        }
        let key = (inode, Name::new(name));
        let has = self.xattrs.has(&key);
        match mode {
            XattrMode::Create if has => return Err(Errno::EEXIST),
            XattrMode::Replace if !has => return Err(Errno::ENODATA),
            _ if !has && self.xattr_names(inode).count() >= XATTRS_MAX => {
                return Err(Errno::ENOSPC);
            }
            _ => {}
        }
        self.xattrs.insert(key, XattrValue(Name::new(value)));
        Ok(self.touch(step, inode))
    }

    /// `Mutation::RemoveXattr`. Whoever may write may take file capabilities away: a
    /// kernel does that in the name of a writer.
    pub(crate) fn remove_xattr(
        &mut self,
        step: &mut Step<'_>,
        inode: InodeId,
        name: &[u8],
    ) -> Outcome {
        let object = self.inode(inode)?;
        if name != CAPABILITY || !object.permits(step.who, WRITE) {
            object.demand_xattr_write(step.who, name)?;
        }
        let gone = self.xattrs.remove(&(inode, Name::new(name)));
        gone.ok_or(Errno::ENODATA)?;
        Ok(self.touch(step, inode))
    }

    fn touch(&mut self, step: &mut Step<'_>, inode: InodeId) -> Reply {
        let now = step.now;
        self.change_inode(step, inode, |object| object.ctime = now);
        Reply::Done
    }

    /// Takes file capabilities away.
    pub(crate) fn drop_capability(&mut self, inode: InodeId) {
        if self.xattrs.len() > 0 {
            self.xattrs.remove(&(inode, Name::new(CAPABILITY)));
        }
    }

    /// Takes every attribute of an inode away.
    pub(crate) fn drop_xattrs(&mut self, inode: InodeId) {
        let names: Vec<Name> = self.xattr_names(inode).cloned().collect();
        for name in names {
            self.xattrs.remove(&(inode, name));
        }
    }
}
