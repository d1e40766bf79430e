//! A second opinion on names, beside the witness of the log: what mounts asked and were
//! told of a directory must fit some order in which each request takes effect at one
//! moment between its question and its answer (linearizability, Herlihy and Wing 1990).
//! Nothing is known here of logs, records and leaders.
//!
//! The order is searched for (Wing and Gong 1993, with the memory of Lowe 2017) over
//! short windows: whenever no living request of a directory is under way, what was asked
//! since the last such moment is judged, starting from every state that may have been.
//! Changes must fit one order; of reads only those of one mount at a time must fit it
//! too, as a mount may answer from its cache until a change is pushed to it, so that two
//! mounts may see an unanswered change in different order. A request that only may have
//! changed something (it may have opened what was there, or renamed an object to itself)
//! is a read as well, to everybody but its own mount: what it found need not have been
//! pushed to others.
//!
//! Invariant: nothing right is refused. Where this judge can't know (a window is too
//! long, an answer tells too little, a name was never told of) it takes anything.

use crate::model::bytes::MountId;
use antler_core::attributes::RenameMode;
use antler_core::client::request::{FileReply, FileRequest};
use antler_core::errno::Errno;
use antler_core::ids::InodeId;
use std::collections::{BTreeMap, BTreeSet};

/// Requests of one window at most, and states that the search may visit.
const WINDOW_MAX: usize = 48;
const VISITS_MAX: usize = 4000;
/// Requests without an answer for good that one directory remembers, and states in which
/// a window may end; beyond, the directory is unknown.
const LOST_MAX: usize = 6;
const ENDS_MAX: usize = 64;

type Name = Vec<u8>;

/// What a name is: a name that is not in the map may be anything.
type Names = BTreeMap<Name, Option<InodeId>>;

/// What a request must have found and did, as far as its answer tells.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Effect {
    /// The name was that.
    Read(Name, Option<InodeId>),
    /// The name was something.
    Exists(Name),
    /// The name was nothing and is that now (`None`: something).
    Make(Name, Option<InodeId>),
    /// The name was something, or nothing, and is that now.
    Put(Name, InodeId),
    /// The name was something and is nothing now.
    Remove(Name),
    /// The first name was something that the second is now (exchanged: the other way
    /// round too).
    Move(Name, Name, bool),
    /// The name is anything now: another directory was concerned too.
    Blur(Name),
}

impl Effect {
    /// The states that may be behind it; none if it can't take effect here. `own`: it is
    /// seen by the mount that asked.
    fn outcomes(&self, names: &Names, own: bool) -> Vec<Names> {
        let changed = self.apply(names);
        let unchanged = (!own && self.is_open()).then(|| names.clone());
        changed.into_iter().chain(unchanged).collect()
    }

    /// The state behind it; `None` if it can't take effect here.
    fn apply(&self, names: &Names) -> Option<Names> {
        let is =
            |name: &Name, wanted: bool| names.get(name).is_none_or(|at| at.is_some() == wanted);
        let mut after = names.clone();
        match self {
            Self::Read(name, told) => {
                let fits = names.get(name).is_none_or(|at| at == told);
                after.insert(name.clone(), *told);
                fits.then_some(after)
            }
            Self::Exists(name) => is(name, true).then_some(after),
            Self::Make(name, inode) => {
                match inode {
                    Some(inode) => after.insert(name.clone(), Some(*inode)),
                    None => after.remove(name),
                };
                is(name, false).then_some(after)
            }
            Self::Put(name, inode) => {
                // An object that was there already is opened, not another.
                let fits = names
                    .get(name)
                    .is_none_or(|at| at.is_none_or(|at| at == *inode));
                after.insert(name.clone(), Some(*inode));
                fits.then_some(after)
            }
            Self::Remove(name) => {
                after.insert(name.clone(), None);
                is(name, true).then_some(after)
            }
            Self::Move(from, to, _) if from == to => is(from, true).then_some(after),
            Self::Move(from, to, exchange) => {
                moved(&mut after, from, to, *exchange);
                (is(from, true) && (!exchange || is(to, true))).then_some(after)
            }
            Self::Blur(name) => {
                after.remove(name);
                Some(after)
            }
        }
    }

    fn is_read(&self) -> bool {
        matches!(self, Self::Read(..) | Self::Exists(_))
    }

    /// Whether its answer leaves open if anything was changed.
    fn is_open(&self) -> bool {
        matches!(self, Self::Put(..) | Self::Move(..))
    }
}

/// Renames. Where both are names of one object nothing happens, so that the old name is
/// known to be gone only if both were known.
fn moved(names: &mut Names, from: &Name, to: &Name, exchange: bool) {
    let (source, target) = (names.get(from).copied(), names.get(to).copied());
    let old = match (source, target) {
        (_, target) if exchange => target,
        (Some(source), Some(target)) if source == target => return,
        (Some(_), Some(_)) => Some(None),
        _ => None,
    };
    for (name, value) in [(from, old), (to, source)] {
        match value {
            Some(value) => names.insert(name.clone(), value),
            None => names.remove(name),
        };
    }
}

/// A request with its interval, in the order of questions and answers.
#[derive(Clone, Debug)]
struct Call {
    mount: MountId,
    asked: u64,
    /// `u64::MAX`: it was never answered, and may have taken effect, or may yet.
    answered: u64,
    effect: Effect,
}

/// A state in which a directory may be, and which of the lost calls took effect already.
type Branch = (Names, BTreeSet<u64>);

/// One directory.
#[derive(Debug)]
struct Directory {
    branches: Vec<Branch>,
    /// Calls of this window.
    calls: Vec<Call>,
    /// Calls that were never answered, by number.
    lost: BTreeMap<u64, Call>,
    under_way: usize,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            branches: vec![Branch::default()],
            calls: Vec::new(),
            lost: BTreeMap::new(),
            under_way: 0,
        }
    }
}

struct Asked {
    mount: MountId,
    at: u64,
    body: FileRequest,
}

/// See the module's doc.
#[derive(Default)]
pub(crate) struct LinearJudge {
    clock: u64,
    directories: BTreeMap<InodeId, Directory>,
    begun: BTreeMap<u64, Asked>,
    /// Under which names directories were told of, and names that might be removed: a
    /// directory that may be gone answers ENOENT for any name.
    known_as: BTreeMap<InodeId, BTreeSet<(InodeId, Name)>>,
    removable: BTreeSet<(InodeId, Name)>,
    /// Requests judged.
    pub(crate) judged: u64,
    /// Requests of windows that were too long to be judged.
    pub(crate) skipped: u64,
}

impl LinearJudge {
    /// A mount is asked.
    pub(crate) fn on_asked(&mut self, operation: u64, mount: MountId, body: &FileRequest) {
        let touched = touched(body);
        if touched.is_empty() {
            return;
        }
        for (parent, name) in touched {
            self.directories.entry(parent).or_default().under_way += 1;
            if matches!(body, FileRequest::Rmdir { .. } | FileRequest::Rename { .. }) {
                self.removable.insert((parent, name));
            }
        }
        self.clock += 1;
        let asked = Asked {
            mount,
            at: self.clock,
            body: body.clone(),
        };
        self.begun.insert(operation, asked);
    }

    /// A mount answers.
    ///
    /// # Errors
    /// When no order explains what was told.
    pub(crate) fn on_answered(
        &mut self,
        operation: u64,
        result: &Result<FileReply, Errno>,
    ) -> Result<(), String> {
        let Some(asked) = self.begun.remove(&operation) else {
            return Ok(());
        };
        self.note_directory(&asked.body, result);
        let lost = result.as_ref().is_err_and(|errno| !is_definite(*errno));
        self.end(
            &asked,
            |judge| match lost {
                true => effects_if_done(&asked.body),
                false => judge.effects(&asked.body, result),
            },
            lost,
        )
    }

    /// A mount is gone: what it asked may have taken effect, or may yet.
    ///
    /// # Errors
    /// When what others were told meanwhile does not fit any order.
    pub(crate) fn lose_mount(&mut self, mount: MountId) -> Result<(), String> {
        let gone = |asked: &Asked| asked.mount == mount;
        let operations = self.begun.iter().filter(|(_, asked)| gone(asked));
        let operations: Vec<u64> = operations.map(|(operation, _)| *operation).collect();
        for operation in operations {
            let asked = self.begun.remove(&operation).expect("it was just seen");
            self.end(&asked, |_| effects_if_done(&asked.body), true)?;
        }
        Ok(())
    }

    fn end(
        &mut self,
        asked: &Asked,
        effects: impl FnOnce(&Self) -> Vec<(InodeId, Effect)>,
        lost: bool,
    ) -> Result<(), String> {
        self.clock += 1;
        for (parent, effect) in effects(self) {
            let call = Call {
                mount: asked.mount,
                asked: asked.at,
                answered: if lost { u64::MAX } else { self.clock },
                effect,
            };
            let directory = self.directories.entry(parent).or_default();
            match lost {
                true if call.effect.is_read() => {}
                true => {
                    self.clock += 1;
                    directory.lost.insert(self.clock, call);
                }
                false => directory.calls.push(call),
            }
        }
        for (parent, _) in touched(&asked.body) {
            let directory = self.directories.entry(parent).or_default();
            directory.under_way -= 1;
            if directory.under_way == 0 {
                let (judged, found) = directory.judge();
                match judged {
                    Ok(count) => self.judged += count,
                    Err(count) => self.skipped += count,
                }
                found.map_err(|how| format!("in {parent}, {how}"))?;
            }
        }
        Ok(())
    }

    fn note_directory(&mut self, body: &FileRequest, result: &Result<FileReply, Errno>) {
        if let (
            FileRequest::Lookup { parent, name } | FileRequest::Make { parent, name, .. },
            Ok(FileReply::Entry(told, _)),
        ) = (body, result)
        {
            let known = self.known_as.entry(told.inode).or_default();
            known.insert((*parent, name.clone()));
        }
    }

    /// Whether nothing that was ever asked could have removed a directory.
    fn is_there(&self, directory: InodeId) -> bool {
        let known = self.known_as.get(&directory);
        let stays = |known: &BTreeSet<_>| known.is_disjoint(&self.removable);
        directory == InodeId::ROOT || known.is_some_and(stays)
    }

    /// What an answer tells of the directories concerned.
    fn effects(
        &self,
        body: &FileRequest,
        result: &Result<FileReply, Errno>,
    ) -> Vec<(InodeId, Effect)> {
        match (body, result) {
            (FileRequest::Lookup { parent, name }, Ok(FileReply::Absent(_))) => {
                vec![(*parent, Effect::Read(name.clone(), None))]
            }
            (FileRequest::Lookup { parent, name }, Ok(FileReply::Entry(told, _))) => {
                vec![(*parent, Effect::Read(name.clone(), Some(told.inode)))]
            }
            (
                FileRequest::Make { parent, name, .. } | FileRequest::Link { parent, name, .. },
                Ok(FileReply::Entry(told, _)),
            )
            | (
                FileRequest::Create {
                    parent,
                    name,
                    exclusive: true,
                    ..
                },
                Ok(FileReply::Opened {
                    attributes: told, ..
                }),
            ) => vec![(*parent, Effect::Make(name.clone(), Some(told.inode)))],
            (
                FileRequest::Create { parent, name, .. },
                Ok(FileReply::Opened {
                    attributes: told, ..
                }),
            ) => vec![(*parent, Effect::Put(name.clone(), told.inode))],
            (_, Ok(FileReply::Done)) => effects_if_done(body),
            (
                FileRequest::Make { parent, name, .. }
                | FileRequest::Link { parent, name, .. }
                | FileRequest::Create {
                    parent,
                    name,
                    exclusive: true,
                    ..
                },
                Err(Errno::EEXIST),
            ) => vec![(*parent, Effect::Exists(name.clone()))],
            (
                FileRequest::Unlink { parent, name } | FileRequest::Rmdir { parent, name },
                Err(Errno::ENOENT),
            ) if self.is_there(*parent) => vec![(*parent, Effect::Read(name.clone(), None))],
            _ => Vec::new(),
        }
    }
}

/// The names that a request is about, each with its directory; a directory twice if two
/// of its names are.
fn touched(body: &FileRequest) -> Vec<(InodeId, Name)> {
    match body {
        FileRequest::Lookup { parent, name }
        | FileRequest::Make { parent, name, .. }
        | FileRequest::Create { parent, name, .. }
        | FileRequest::Unlink { parent, name }
        | FileRequest::Rmdir { parent, name }
        | FileRequest::Link { parent, name, .. } => vec![(*parent, name.clone())],
        FileRequest::Rename {
            parent,
            name,
            new_parent,
            new_name,
            ..
        } => {
            vec![(*parent, name.clone()), (*new_parent, new_name.clone())]
        }
        _ => Vec::new(),
    }
}

/// What a request does if it is carried out, with what its answer would tell left open.
fn effects_if_done(body: &FileRequest) -> Vec<(InodeId, Effect)> {
    match body {
        FileRequest::Make { parent, name, .. } | FileRequest::Link { parent, name, .. } => {
            vec![(*parent, Effect::Make(name.clone(), None))]
        }
        // It may have found the object there: then it changes nothing.
        FileRequest::Create { parent, name, .. } => vec![(*parent, Effect::Blur(name.clone()))],
        FileRequest::Unlink { parent, name } | FileRequest::Rmdir { parent, name } => {
            vec![(*parent, Effect::Remove(name.clone()))]
        }
        FileRequest::Rename {
            parent,
            name,
            new_parent,
            new_name,
            mode,
        } => {
            let exchange = matches!(mode, RenameMode::Exchange);
            let (from, to) = (name.clone(), new_name.clone());
            match parent == new_parent {
                true => vec![(*parent, Effect::Move(from, to, exchange))],
                false => vec![
                    (*parent, Effect::Blur(from)),
                    (*new_parent, Effect::Blur(to)),
                ],
            }
        }
        _ => Vec::new(),
    }
}

/// Whether an error is the outcome of a request that was judged, and changed nothing.
/// After any other it may have been carried out, by a session that ended.
fn is_definite(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EEXIST
            | Errno::ENOENT
            | Errno::ENOTEMPTY
            | Errno::ENOTDIR
            | Errno::EISDIR
            | Errno::EINVAL
            | Errno::EPERM
            | Errno::EACCES
            | Errno::EMLINK
            | Errno::ENAMETOOLONG
            | Errno::ELOOP
    )
}

impl Directory {
    /// Judges the window that ends now: how many calls were judged, or (in the error)
    /// were not; and what is wrong.
    fn judge(&mut self) -> (Result<u64, u64>, Result<(), String>) {
        let calls = std::mem::take(&mut self.calls);
        let count = calls.len() as u64;
        if calls.is_empty() {
            return (Ok(0), Ok(()));
        }
        if self.lost.len() > LOST_MAX || calls.len() > WINDOW_MAX {
            self.forget();
            return (Err(count), Ok(()));
        }
        match self.ends(&calls) {
            None => {
                self.forget();
                (Err(count), Ok(()))
            }
            Some(ends) if ends.is_empty() => {
                let shown: Vec<String> = calls.iter().map(describe).collect();
                let how = format!("no order explains what was told: {}", shown.join("; "));
                (Ok(count), Err(how))
            }
            Some(ends) => {
                self.branches = ends.into_iter().collect();
                let mut done = self.branches.iter().map(|(_, done)| done);
                let first = done.next().cloned().unwrap_or_default();
                let by_all = done.fold(first, |all, done| &all & done);
                self.lost.retain(|number, _| !by_all.contains(number));
                (Ok(count), Ok(()))
            }
        }
    }

    /// From now on every name may be anything, and each of the lost calls may have taken
    /// effect or not.
    fn forget(&mut self) {
        self.branches = vec![Branch::default()];
    }

    /// The branches in which the window may end that fit all changes, and for each mount
    /// its reads; `None`: that takes too long to find out.
    fn ends(&self, calls: &[Call]) -> Option<BTreeSet<Branch>> {
        let changes: Vec<&Call> = calls.iter().filter(|call| !call.effect.is_read()).collect();
        let sees = |call: &&Call| call.effect.is_read() || call.effect.is_open();
        let mounts: BTreeSet<MountId> = calls.iter().filter(sees).map(|c| c.mount).collect();
        let mut ends = self.search(&changes, None)?;
        for mount in mounts {
            let own = |call: &&Call| !call.effect.is_read() || call.mount == mount;
            let seen = self.search(&calls.iter().filter(own).collect::<Vec<_>>(), Some(mount))?;
            ends = meet(&ends, &seen);
        }
        (ends.len() <= ENDS_MAX).then_some(ends)
    }

    /// Every branch in which some order of these calls ends, as a mount sees them; of the
    /// lost calls any may take effect in between.
    fn search(&self, calls: &[&Call], by: Option<MountId>) -> Option<BTreeSet<Branch>> {
        let mut ends = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut open: Vec<(u64, Branch)> = self.branches.iter().map(|b| (0, b.clone())).collect();
        let all = (1u64 << calls.len()) - 1;
        while let Some((done, branch)) = open.pop() {
            if !seen.insert((done, branch.clone())) {
                continue;
            }
            if seen.len() > VISITS_MAX {
                return None;
            }
            if done == all {
                ends.insert(branch.clone());
            }
            // Nothing that was asked after the first unfinished answer can come before it.
            let undone = || (0..calls.len()).filter(|at| done & 1 << at == 0);
            let first = undone()
                .map(|at| calls[at].answered)
                .min()
                .unwrap_or(u64::MAX);
            for at in undone().filter(|at| calls[*at].asked < first) {
                let own = by == Some(calls[at].mount);
                for names in calls[at].effect.outcomes(&branch.0, own) {
                    open.push((done | 1 << at, (names, branch.1.clone())));
                }
            }
            for (number, call) in &self.lost {
                let may = !branch.1.contains(number) && call.asked < first;
                if let Some(names) = call.effect.apply(&branch.0).filter(|_| may) {
                    let mut taken = branch.1.clone();
                    taken.insert(*number);
                    open.push((done, (names, taken)));
                }
            }
        }
        Some(ends)
    }
}

/// The branches that two sets agree on: names of which one knows nothing are as the
/// other knows them.
fn meet(left: &BTreeSet<Branch>, right: &BTreeSet<Branch>) -> BTreeSet<Branch> {
    let mut both = BTreeSet::new();
    for (names, done) in left {
        for (other, also) in right.iter().filter(|(_, also)| also == done) {
            let mut merged = names.clone();
            let agree = other
                .iter()
                .all(|(name, value)| *merged.entry(name.clone()).or_insert(*value) == *value);
            if agree {
                both.insert((merged, also.clone()));
            }
        }
    }
    both
}

fn describe(call: &Call) -> String {
    format!(
        "mount {} {}..{} {:?}",
        call.mount, call.asked, call.answered, call.effect
    )
}

#[cfg(test)]
mod tests;
