//! renameat2(2): one name becomes another, replaces it, or changes places with it.
//!
//! Judges the whole, then acts. Invariant: no directory ever lies below itself.

use super::apply::Step;
use super::dentry::{Found, check_name};
use super::permission::WRITE;
use super::record::{Outcome, Reply};
use super::state::State;
use crate::attributes::RenameMode;
use crate::errno::Errno;
use crate::ids::InodeId;

/// Both ends of a rename.
#[derive(Clone, Copy)]
pub(crate) struct Route<'a> {
    pub(crate) parent: InodeId,
    pub(crate) name: &'a [u8],
    pub(crate) new_parent: InodeId,
    pub(crate) new_name: &'a [u8],
}

impl Route<'_> {
    /// The way that the other object of an exchange goes.
    fn back(self) -> Self {
        Self {
            parent: self.new_parent,
            name: self.new_name,
            new_parent: self.parent,
            new_name: self.name,
        }
    }
}

impl State {
    /// `Mutation::Rename`.
    pub(crate) fn rename(
        &mut self,
        step: &mut Step<'_>,
        route: Route<'_>,
        mode: RenameMode,
    ) -> Outcome {
        self.searchable(route.parent, step.who)?;
        let room = self.searchable(route.new_parent, step.who)?;
        if room.nlink == 0 {
            return Err(Errno::ENOENT);
        }
        check_name(route.name)?;
        check_name(route.new_name)?;
        let source = self.find(route.parent, route.name).ok_or(Errno::ENOENT)?;
        let slot = self.seek(route.new_parent, route.new_name);
        let target = slot.ok();
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err(Errno::EEXIST),
            (RenameMode::Exchange, None) => return Err(Errno::ENOENT),
            _ => {}
        }
        self.refuse_cycles(route, mode, source, target)?;
        if target.is_some_and(|target| target.inode == source.inode) {
            return Ok(Reply::Done);
        }
        match slot {
            Ok(target) if mode == RenameMode::Exchange => {
                self.exchange(step, route, source, target)
            }
            Ok(target) => self.replace(step, route, source, target),
            Err(free) => self.move_name(step, route, source, free),
        }
    }

    /// EINVAL when a directory would come to lie below itself.
    fn refuse_cycles(
        &self,
        route: Route<'_>,
        mode: RenameMode,
        source: Found,
        target: Option<Found>,
    ) -> Result<(), Errno> {
        if route.parent == route.new_parent {
            return Ok(());
        }
        let below = |inode, parent| Ok(self.is_directory(inode)? && self.lies_in(parent, inode)?);
        if below(source.inode, route.new_parent)? {
            return Err(Errno::EINVAL);
        }
        match target {
            Some(target) if mode == RenameMode::Exchange && below(target.inode, route.parent)? => {
                Err(Errno::EINVAL)
            }
            _ => Ok(()),
        }
    }

    fn is_directory(&self, inode: InodeId) -> Result<bool, Errno> {
        Ok(self.inode(inode)?.is_directory())
    }

    /// Whether a directory is `above` or lies below it.
    fn lies_in(&self, mut directory: InodeId, above: InodeId) -> Result<bool, Errno> {
        while directory != above {
            if directory == InodeId::ROOT {
                return Ok(false);
            }
            directory = self.inode(directory)?.parent;
        }
        Ok(true)
    }

    /// A directory that gets another parent is written to: its `..` changes.
    fn demand_move(&self, step: &Step<'_>, route: Route<'_>, moved: Found) -> Result<(), Errno> {
        let object = self.inode(moved.inode)?;
        if object.is_directory() && route.parent != route.new_parent {
            object.demand(step.who, WRITE)?;
        }
        Ok(())
    }

    /// EXDEV when the object may not come to lie there by being renamed.
    fn judge_move(&self, route: Route<'_>, moved: Found) -> Result<(), Errno> {
        if route.parent == route.new_parent {
            return Ok(());
        }
        self.judge_residence(self.inode(moved.inode)?, route.new_parent, route.new_name)
    }

    /// EMLINK when a directory has no room for one more below it.
    fn demand_link(&self, parent: InodeId) -> Result<(), Errno> {
        let full = self.inode(parent)?.nlink == u32::MAX;
        if full { Err(Errno::EMLINK) } else { Ok(()) }
    }

    fn move_name(
        &mut self,
        step: &mut Step<'_>,
        route: Route<'_>,
        source: Found,
        free: Option<u64>,
    ) -> Outcome {
        let object = self.inode(source.inode)?;
        self.directory(route.parent)?
            .demand_delete(step.who, object)?;
        Self::demand_room(self.directory(route.new_parent)?, step.who)?;
        self.demand_move(step, route, source)?;
        if object.is_directory() && route.parent != route.new_parent {
            self.demand_link(route.new_parent)?;
        }
        let cookie = free.ok_or(Errno::ENOSPC)?;
        self.judge_move(route, source)?;
        let is_directory = object.is_directory();
        self.remove_dentry(step, route.parent, source);
        self.add_dentry(step, route.new_parent, cookie, route.new_name, source.inode);
        self.settle_in(step, source.inode, route.new_parent);
        if is_directory {
            self.move_link(step, route.parent, route.new_parent);
        }
        Ok(Reply::Done)
    }

    fn replace(
        &mut self,
        step: &mut Step<'_>,
        route: Route<'_>,
        source: Found,
        target: Found,
    ) -> Outcome {
        let (object, victim) = (self.inode(source.inode)?, self.inode(target.inode)?);
        self.directory(route.parent)?
            .demand_delete(step.who, object)?;
        self.directory(route.new_parent)?
            .demand_delete(step.who, victim)?;
        match (object.is_directory(), victim.is_directory()) {
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            _ => {}
        }
        self.demand_move(step, route, source)?;
        if victim.is_directory() && victim.size > 0 {
            return Err(Errno::ENOTEMPTY);
        }
        self.judge_move(route, source)?;
        let is_directory = object.is_directory();
        self.remove_dentry(step, route.parent, source);
        self.repoint_dentry(step, route.new_parent, target, source.inode);
        self.settle_in(step, source.inode, route.new_parent);
        if is_directory {
            // One directory below the old parent less; below the new one as many as before.
            self.change_inode(step, route.parent, |parent| parent.nlink -= 1);
        }
        self.drop_link(step, target.inode);
        Ok(Reply::Done)
    }

    fn exchange(
        &mut self,
        step: &mut Step<'_>,
        route: Route<'_>,
        source: Found,
        target: Found,
    ) -> Outcome {
        let (one, other) = (self.inode(source.inode)?, self.inode(target.inode)?);
        self.directory(route.parent)?.demand_delete(step.who, one)?;
        self.directory(route.new_parent)?
            .demand_delete(step.who, other)?;
        self.demand_move(step, route, source)?;
        self.demand_move(step, route, target)?;
        let (one, other) = (one.is_directory(), other.is_directory());
        self.judge_move(route, source)?;
        self.judge_move(route.back(), target)?;
        if one != other {
            self.demand_link(if one { route.new_parent } else { route.parent })?;
        }
        self.repoint_dentry(step, route.parent, source, target.inode);
        self.repoint_dentry(step, route.new_parent, target, source.inode);
        self.settle_in(step, source.inode, route.new_parent);
        self.settle_in(step, target.inode, route.parent);
        match (one, other) {
            (true, false) => self.move_link(step, route.parent, route.new_parent),
            (false, true) => self.move_link(step, route.new_parent, route.parent),
            _ => {}
        }
        Ok(Reply::Done)
    }

    /// An object has a name in this directory now.
    fn settle_in(&mut self, step: &mut Step<'_>, inode: InodeId, parent: InodeId) {
        let now = step.now;
        self.change_inode(step, inode, |object| {
            object.parent = parent;
            object.ctime = now;
        });
    }

    /// A directory went from below one to below another.
    fn move_link(&mut self, step: &mut Step<'_>, from: InodeId, to: InodeId) {
        if from != to {
            self.change_inode(step, from, |parent| parent.nlink -= 1);
            self.change_inode(step, to, |parent| parent.nlink += 1);
        }
    }
}
