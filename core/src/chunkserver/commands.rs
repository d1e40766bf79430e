//! The leader's commands: each is done once and has one answer.
//!
//! Invariant: what a `Fence` answers is durable; a command with several parts is
//! answered when all of them ended.

use super::ChunkServer;
use super::disks::Issued;
use super::parts::{PartOp, PartResult, Then};
use crate::chunk::operation::{DiskError, DiskReply, DiskRequest, StoredPart};
use crate::ids::{ChunkVersion, DiskId, Epoch, LinkId, PartId};
use crate::limits::{COMMANDS_INFLIGHT_MAX, REPORT_BATCH};
use crate::marks::Mark;
use crate::wire::chunk_master::{ChunkToMaster, Command, CommandResult, PartState};
use std::collections::BTreeMap;

/// A command under way.
#[derive(Debug)]
struct Running {
    link: LinkId,
    command: u64,
    kind: Kind,
    states: Vec<Option<PartState>>,
    left: usize,
    /// Parts to delete that ended, whatever became of them.
    deleted: Vec<PartId>,
    /// Why nobody knows what a part is like that was asked for.
    unknown: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Answers what each part is like.
    Parts,
    /// That and its digest.
    Digest,
    /// Answers nothing, and tells the other members what went.
    Delete,
}

/// The commands under way.
#[derive(Debug, Default)]
pub(super) struct Commands {
    table: BTreeMap<u64, Running>,
    next: u64,
}

impl ChunkServer {
    pub(super) fn on_command(&mut self, link: LinkId, command: u64, body: Command) {
        if self.commands.table.len() >= COMMANDS_INFLIGHT_MAX * 2 {
            // A leader of an earlier term may have left some behind.
            return self.fail_command(link, command, "too many commands");
        }
        match body {
            Command::SyncParts { parts } => self.sync_parts(link, command, parts),
            Command::Fence { part, epoch } => {
                // At once: what waits in the queue is of the past already.
                self.parts.fence(part, epoch);
                if self.parts.at(part).is_none() {
                    self.marks.reach(Mark::AbsentFenced);
                }
                let op = PartOp::Commit {
                    version: ChunkVersion(0),
                    epoch,
                    create: false,
                    guarded: false,
                };
                self.command_parts(link, command, Kind::Digest, vec![(part, op)]);
            }
            Command::SetVersion {
                part,
                epoch,
                version,
            } => {
                let op = PartOp::Commit {
                    version,
                    epoch,
                    create: true,
                    guarded: true,
                };
                self.command_parts(link, command, Kind::Parts, vec![(part, op)]);
            }
            Command::Replicate {
                part,
                version,
                epoch,
                sources,
            } => self.replicate(link, command, part, (version, epoch), sources),
            Command::Build {
                part,
                version,
                epoch,
                stripe,
                from,
                sources,
            } => self.build(
                (link, command),
                part,
                (version, epoch),
                (stripe, from),
                sources,
            ),
            Command::Delete { parts } => {
                let ops = parts
                    .into_iter()
                    .map(|(part, most)| (part, PartOp::Delete { most }));
                self.command_parts(link, command, Kind::Delete, ops.collect());
            }
            Command::Scrub { disk, rate } => self.order_scrub(link, command, disk, rate),
        }
    }

    fn order_scrub(&mut self, link: LinkId, command: u64, disk: Option<DiskId>, rate: u64) {
        let mut disks = self.disks.working();
        disks.retain(|one| disk.is_none_or(|wanted| wanted == *one));
        if disks.is_empty() {
            return self.fail_command(link, command, "there is no such disk");
        }
        for disk in disks {
            self.scrub.order(disk, rate, self.now);
        }
        self.command_parts(link, command, Kind::Parts, Vec::new());
    }

    fn sync_parts(
        &mut self,
        link: LinkId,
        command: u64,
        parts: Vec<(PartId, ChunkVersion, Epoch)>,
    ) {
        let op = |(part, version, epoch)| {
            let op = PartOp::Commit {
                version,
                epoch,
                create: false,
                guarded: true,
            };
            (part, op)
        };
        let ops = parts.into_iter().map(op).collect();
        self.command_parts(link, command, Kind::Parts, ops);
    }

    fn command_parts(
        &mut self,
        link: LinkId,
        command: u64,
        kind: Kind,
        ops: Vec<(PartId, PartOp)>,
    ) {
        if ops.len() > REPORT_BATCH {
            return self.fail_command(link, command, "too many parts in one command");
        }
        let key = self.commands.next;
        self.commands.next += 1;
        let running = Running {
            link,
            command,
            kind,
            states: vec![None; ops.len()],
            // One more, so that it does not end before all have begun.
            left: ops.len() + 1,
            deleted: Vec::new(),
            unknown: None,
        };
        self.commands.table.insert(key, running);
        self.hold_commits();
        for (at, (part, op)) in ops.into_iter().enumerate() {
            if kind == Kind::Delete {
                self.parts.condemn(part, true);
            }
            self.change(part, op, Then::Command(key, at));
        }
        self.release_commits();
        self.end_one(key);
    }

    /// One part of a command ended, but for its digest.
    pub(super) fn on_command_part(
        &mut self,
        key: u64,
        at: usize,
        part: PartId,
        result: PartResult,
    ) {
        let kind = self.commands.table[&key].kind;
        match (kind, result) {
            (Kind::Delete, _) => {
                let running = self.commands.table.get_mut(&key).expect("it is under way");
                running.deleted.push(part);
                self.parts.condemn(part, false);
            }
            (Kind::Digest, Ok(Some(_))) => {
                let disk = self.parts.made(part).map(|info| info.disk);
                if let Some(disk) = disk {
                    let issued = Issued::Digest {
                        command: key,
                        at,
                        part,
                    };
                    return self.operate(disk, DiskRequest::Digest { part }, issued);
                }
            }
            (Kind::Digest, Ok(None)) if !self.is_surely_absent(part) => {
                self.note_unknown(key, "a disk failed that may have had the part");
            }
            (Kind::Digest, Err(_)) => self.note_unknown(key, "the part could not be fenced"),
            (Kind::Parts, Ok(Some(stored))) => self.note_state(key, at, stored, 0),
            // A newer epoch was seen, or the like: what the part is like tells it.
            (_, Err(super::parts::PartError::Fenced)) => {
                if let Some(info) = self.parts.made(part).copied() {
                    let stored = StoredPart {
                        part,
                        version: info.version,
                        epoch: info.epoch,
                    };
                    self.note_state(key, at, stored, 0);
                }
            }
            (_, Ok(None) | Err(_)) => {}
        }
        self.end_one(key);
    }

    pub(super) fn on_digest(
        &mut self,
        disk: DiskId,
        key: u64,
        at: usize,
        part: PartId,
        result: Result<DiskReply, DiskError>,
    ) {
        match result {
            Ok(DiskReply::Digest(stored, digest)) => self.note_state(key, at, stored, digest),
            Ok(other) => panic!("a digest was answered by {other:?}"),
            Err(error) => {
                self.on_disk_error(disk, part, &error);
                self.note_unknown(key, "the part could not be read");
            }
        }
        self.end_one(key);
    }

    /// Whether a part that is not here was never durable here, for all that is known.
    fn is_surely_absent(&self, part: PartId) -> bool {
        !self.parts.was_lost(part) && !self.disks.any_failed()
    }

    fn note_unknown(&mut self, key: u64, why: &'static str) {
        let running = self.commands.table.get_mut(&key).expect("it is under way");
        running.unknown = Some(why);
    }

    fn note_state(&mut self, key: u64, at: usize, stored: StoredPart, digest: u64) {
        // Queued fences count: nothing older is taken from now on.
        let seen = self
            .parts
            .at(stored.part)
            .map_or(stored.epoch, |info| info.epoch);
        let state = PartState {
            version: stored.version,
            epoch: stored.epoch.max(seen),
            digest,
            boot: self.config.boot,
        };
        let running = self.commands.table.get_mut(&key).expect("it is under way");
        running.states[at] = Some(state);
    }

    fn end_one(&mut self, key: u64) {
        let running = self.commands.table.get_mut(&key).expect("it is under way");
        running.left -= 1;
        if running.left > 0 {
            return;
        }
        let running = self.commands.table.remove(&key).expect("it was just seen");
        if let Some(reason) = running.unknown {
            return self.fail_command(running.link, running.command, reason);
        }
        let states = match running.kind {
            Kind::Delete => {
                self.tell_deleted(&running.deleted);
                Vec::new()
            }
            Kind::Parts | Kind::Digest => running.states,
        };
        self.end_command(running.link, running.command, CommandResult::Parts(states));
    }

    /// Every member learns what went, and what is still there: a leader that thinks
    /// less of a part than it is must not forget it.
    fn tell_deleted(&mut self, parts: &[PartId]) {
        let (left, gone) = parts
            .iter()
            .partition::<Vec<PartId>, _>(|part| self.parts.made(**part).is_some());
        if !gone.is_empty() {
            self.say_lost(gone);
        }
        let left: Vec<_> = left
            .into_iter()
            .filter_map(|part| self.parts.report(part))
            .collect();
        if !left.is_empty() {
            self.say_gained(left);
        }
    }

    pub(super) fn end_command(&mut self, link: LinkId, command: u64, result: CommandResult) {
        self.answer_member(link, ChunkToMaster::CommandDone { command, result });
    }

    pub(super) fn fail_command(&mut self, link: LinkId, command: u64, reason: &str) {
        let result = CommandResult::Failed {
            reason: reason.to_owned(),
            bad_source: None,
        };
        self.end_command(link, command, result);
    }
}
