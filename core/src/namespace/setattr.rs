//! chmod, chown, truncate, utimensat and the number of copies.
//!
//! Owns the rules of who may change which attribute and what else changes with
//! it. Judges the whole change, then acts: either all of it happens or nothing.

use super::apply::Step;
use super::inode::{Inode, Moment};
use super::permission::{SETGID, SETUID, WRITE};
use super::record::Outcome;
use super::state::State;
use crate::attributes::{AttributeChange, Credentials, FileKind, TimeChange};
use crate::errno::Errno;
use crate::ids::InodeId;
use crate::limits::{COPIES_MAX, FILE_SIZE_MAX};
use crate::placement::ClassId;

impl State {
    /// `Mutation::SetAttributes`.
    pub(crate) fn set_attributes(
        &mut self,
        step: &mut Step<'_>,
        inode: InodeId,
        change: &AttributeChange,
    ) -> Outcome {
        let object = self.inode(inode)?;
        object.judge_owner(step.who, change)?;
        object.judge_mode(step.who, change)?;
        object.judge_size(step.who, change)?;
        object.judge_times(step.who, change)?;
        if let Some(size) = change.size {
            self.resize(step, inode, size);
        }
        let given_away = change.uid.is_some() || change.gid.is_some();
        if given_away || (change.size.is_some() && !step.who.is_root()) {
            self.drop_capability(inode);
        }
        let (who, now) = (step.who, step.now);
        self.change_inode(step, inode, |object| object.take_change(who, now, change));
        self.entry(inode)
    }

    /// `Mutation::SetCopies`.
    pub(crate) fn set_copies(
        &mut self,
        step: &mut Step<'_>,
        inode: InodeId,
        copies: u8,
    ) -> Outcome {
        let object = self.inode(inode)?;
        object.demand_owner(step.who)?;
        if !(1..=COPIES_MAX).contains(&copies) {
            return Err(Errno::EINVAL);
        }
        self.reclass(step, inode, ClassId::copies(copies))
    }
}

impl Inode {
    /// chown(2): only the superuser gives an object away; its owner may give it to
    /// another of its own groups.
    fn judge_owner(&self, who: &Credentials, change: &AttributeChange) -> Result<(), Errno> {
        if who.is_root() || (change.uid.is_none() && change.gid.is_none()) {
            return Ok(());
        }
        let uid_kept = change.uid.is_none_or(|uid| uid == self.uid);
        let gid_fits = change
            .gid
            .is_none_or(|gid| gid == self.gid || who.in_group(gid));
        if who.uid == self.uid && uid_kept && gid_fits {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    /// chmod(2): the owner. Whoever may write may take setuid and setgid away: a
    /// kernel does that in the name of a writer.
    fn judge_mode(&self, who: &Credentials, change: &AttributeChange) -> Result<(), Errno> {
        let Some(mode) = change.mode else {
            return Ok(());
        };
        let (had, wanted) = (u32::from(self.mode), mode & 0o7777);
        let privileges = u32::from(SETUID | SETGID);
        let drops_only = wanted | privileges == had | privileges && wanted & !had == 0;
        if self.is_owned(who) || (drops_only && self.permits(who, WRITE)) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    fn judge_size(&self, who: &Credentials, change: &AttributeChange) -> Result<(), Errno> {
        let Some(size) = change.size else {
            return Ok(());
        };
        match self.kind {
            FileKind::Regular if size > FILE_SIZE_MAX => Err(Errno::EFBIG),
            FileKind::Regular if change.by_handle => Ok(()),
            FileKind::Regular => self.demand(who, WRITE),
            FileKind::Directory => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    /// utimensat(2): a given time is the owner's to set (EPERM); the present may also
    /// be set by whoever may write (EACCES).
    fn judge_times(&self, who: &Credentials, change: &AttributeChange) -> Result<(), Errno> {
        let times = [change.atime, change.mtime];
        let is_bad =
            |time: &TimeChange| matches!(time, TimeChange::Set(t) if t.nanos > 999_999_999);
        if times.iter().any(is_bad) {
            return Err(Errno::EINVAL);
        }
        if times.iter().any(|time| matches!(time, TimeChange::Set(_))) {
            return self.demand_owner(who);
        }
        let touches = times.contains(&TimeChange::Now);
        let resizes = change.size.is_some() && change.by_handle;
        if !touches || resizes || self.is_owned(who) {
            return Ok(());
        }
        self.demand(who, WRITE)
    }

    /// Carries out a change that was judged; the size is set already.
    fn take_change(&mut self, who: &Credentials, now: Moment, change: &AttributeChange) {
        self.ctime = now;
        if change.size.is_some() && !who.is_root() {
            self.drop_privileges(who);
        }
        if change.uid.is_some() || change.gid.is_some() {
            self.uid = change.uid.unwrap_or(self.uid);
            self.gid = change.gid.unwrap_or(self.gid);
            self.drop_privileges(who);
        }
        if let Some(mode) = change.mode {
            self.mode = (mode & 0o7777) as u16;
            if !who.is_root() && !who.in_group(self.gid) {
                self.mode &= !SETGID;
            }
        }
        set_time(&mut self.atime, change.atime, now);
        set_time(&mut self.mtime, change.mtime, now);
    }
}

fn set_time(time: &mut Moment, change: TimeChange, now: Moment) {
    match change {
        TimeChange::Keep => {}
        TimeChange::Now => *time = now,
        TimeChange::Set(given) => *time = given.into(),
    }
}
