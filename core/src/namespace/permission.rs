//! Who may do what: the permission bits of POSIX, judged by the caller's
//! credentials.
//!
//! Owns the rules that several operations share; each operation names the rules
//! that it needs, in the order of Linux, so that the same error wins.

use super::inode::Inode;
use crate::attributes::Credentials;
use crate::errno::Errno;

/// Permission bits of one class, as in a mode.
pub(crate) const READ: u16 = 4;
pub(crate) const WRITE: u16 = 2;
pub(crate) const EXECUTE: u16 = 1;
/// The bits above the classes.
pub(crate) const SETUID: u16 = 0o4000;
pub(crate) const SETGID: u16 = 0o2000;
pub(crate) const STICKY: u16 = 0o1000;
/// Execution by the group: with it setgid means what it says.
pub(crate) const GROUP_EXECUTE: u16 = 0o010;

impl Inode {
    /// Whether the caller has these permissions (path_resolution(7)): the superuser
    /// has all but the execution of what nobody may execute.
    pub(crate) fn permits(&self, who: &Credentials, want: u16) -> bool {
        if who.is_root() {
            return want & EXECUTE == 0 || self.is_directory() || self.mode & 0o111 != 0;
        }
        let class = if who.uid == self.uid {
            self.mode >> 6
        } else if who.in_group(self.gid) {
            self.mode >> 3
        } else {
            self.mode
        };
        class & want == want
    }

    /// EACCES unless the caller has these permissions.
    pub(crate) fn demand(&self, who: &Credentials, want: u16) -> Result<(), Errno> {
        self.permits(who, want).then_some(()).ok_or(Errno::EACCES)
    }

    /// Whether the caller may act as the owner.
    pub(crate) fn is_owned(&self, who: &Credentials) -> bool {
        who.is_root() || who.uid == self.uid
    }

    /// EPERM unless the caller may act as the owner.
    pub(crate) fn demand_owner(&self, who: &Credentials) -> Result<(), Errno> {
        self.is_owned(who).then_some(()).ok_or(Errno::EPERM)
    }

    /// Whether an entry for `victim` may be taken out of this directory: in a sticky
    /// one only the owner of either may.
    pub(crate) fn demand_delete(&self, who: &Credentials, victim: &Self) -> Result<(), Errno> {
        self.demand(who, WRITE | EXECUTE)?;
        let sticky = self.mode & STICKY != 0 && !self.is_owned(who) && who.uid != victim.uid;
        if sticky { Err(Errno::EPERM) } else { Ok(()) }
    }

    /// A change of content or owner by `who` takes the setuid bit away, and setgid
    /// where the group may execute or `who` is not in it (Linux does the same).
    pub(crate) fn drop_privileges(&mut self, who: &Credentials) {
        if self.is_directory() {
            return;
        }
        self.mode &= !SETUID;
        if self.mode & GROUP_EXECUTE != 0 || !(who.is_root() || who.in_group(self.gid)) {
            self.mode &= !SETGID;
        }
    }
}
