//! Commands to chunkservers: numbered, at most `commands_inflight_max` under way at
//! one server, the rest in its queue; each has one end, be it the server's answer,
//! the loss of its link, or time.

use super::Master;
use super::convert::Made;
use super::servers::Copy;
use crate::ids::{ChunkId, Epoch, ServerId};
use crate::machine::Level;
use crate::time::{Duration, Instant};
use crate::wire::Message;
use crate::wire::chunk_master::{Command, CommandResult, MasterToChunk};
use std::collections::{BTreeMap, VecDeque};

/// After this long without an answer a command counts as failed. Making a copy of a
/// chunk at 2 MB/s takes half of it.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a command was sent: whom its end concerns.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// Closing chunks are made durable, in the order of the command.
    Settle(Vec<(ChunkId, Epoch)>),
    /// A reconciliation asks what a copy is like.
    Fence(ChunkId),
    /// A reconciliation makes a copy equal.
    Equalize(ChunkId),
    /// A copy or a part is made.
    Repair(ChunkId),
    /// One of the parts, or of the copies, that a chunk is to lie in is made.
    Convert(Made),
    /// These copies go; they are not in the table of copies any more.
    Delete(Vec<(ChunkId, Copy)>),
    /// An operator ordered a scrub.
    Scrub,
}

#[derive(Clone, Debug)]
struct Sent {
    server: ServerId,
    purpose: Purpose,
    since: Instant,
}

/// Commands under way and waiting.
#[derive(Clone, Debug, Default)]
pub(super) struct Commands {
    next: u64,
    sent: BTreeMap<u64, Sent>,
    queues: BTreeMap<ServerId, VecDeque<(Purpose, Command)>>,
    inflight: BTreeMap<ServerId, usize>,
}

impl Master {
    /// Sends a command, now or when the server has room.
    pub(super) fn command(&mut self, server: ServerId, purpose: Purpose, command: Command) {
        self.commands
            .queues
            .entry(server)
            .or_default()
            .push_back((purpose, command));
        self.pump_commands(server);
    }

    fn pump_commands(&mut self, server: ServerId) {
        let Some(link) = self.servers.get(server).and_then(|one| one.link) else {
            return self.fail_commands(server, "it is gone");
        };
        let most = self.config.commands_inflight_max;
        while self.commands.inflight.get(&server).copied().unwrap_or(0) < most {
            let next = self
                .commands
                .queues
                .get_mut(&server)
                .and_then(VecDeque::pop_front);
            let Some((purpose, body)) = next else { return };
            self.commands.next += 1;
            let command = self.commands.next;
            self.commands.sent.insert(
                command,
                Sent {
                    server,
                    purpose,
                    since: self.now.mono,
                },
            );
            *self.commands.inflight.entry(server).or_default() += 1;
            let term = self.member.term();
            self.send(
                link,
                Message::MasterToChunk(MasterToChunk::Command {
                    command,
                    term,
                    body,
                }),
            );
        }
    }

    pub(super) fn on_command_done(
        &mut self,
        server: ServerId,
        command: u64,
        result: CommandResult,
    ) {
        // An answer that came too late, or to another reign's command, is no news.
        if self
            .commands
            .sent
            .get(&command)
            .is_some_and(|sent| sent.server == server)
        {
            self.end_command(command, result);
            self.pump_commands(server);
        }
    }

    fn end_command(&mut self, command: u64, result: CommandResult) {
        let sent = self
            .commands
            .sent
            .remove(&command)
            .expect("the caller looked");
        let count = self
            .commands
            .inflight
            .get_mut(&sent.server)
            .expect("what was sent is counted");
        *count -= 1;
        self.on_command_result(sent.server, sent.purpose, result);
    }

    fn on_command_result(&mut self, server: ServerId, purpose: Purpose, result: CommandResult) {
        match purpose {
            Purpose::Settle(chunks) => self.on_synced(server, &chunks, result),
            Purpose::Fence(chunk) => self.on_fenced(server, chunk, result),
            Purpose::Equalize(chunk) => self.on_equalized(server, chunk, &result),
            Purpose::Repair(chunk) => self.on_repaired(server, chunk, result),
            Purpose::Convert(made) => self.on_made(server, made, result),
            Purpose::Delete(copies) => {
                let failed = matches!(result, CommandResult::Failed { .. });
                self.on_delete_ended(copies, failed);
            }
            Purpose::Scrub => {
                if let CommandResult::Failed { reason, .. } = result {
                    let text = format!("{server} does not scrub as ordered: {reason}");
                    self.log(Level::Warn, text);
                }
            }
        }
    }

    /// The reign is over: nobody learns how commands end.
    pub(super) fn drop_commands(&mut self) {
        let commands = std::mem::take(&mut self.commands);
        let sent = commands.sent.into_values().map(|sent| sent.purpose);
        let queued = commands.queues.into_values().flatten();
        for purpose in sent.chain(queued.map(|(purpose, _)| purpose)) {
            if let Purpose::Delete(copies) = purpose {
                self.on_delete_ended(copies, true);
            }
        }
    }

    /// The server can't answer: everything sent to it or waiting for it failed.
    pub(super) fn fail_commands(&mut self, server: ServerId, reason: &str) {
        let failed = || CommandResult::Failed {
            reason: reason.to_owned(),
            bad_source: None,
        };
        let sent = self
            .commands
            .sent
            .iter()
            .filter(|(_, sent)| sent.server == server);
        let sent: Vec<u64> = sent.map(|(command, _)| *command).collect();
        let queued = self.commands.queues.remove(&server).unwrap_or_default();
        for command in sent {
            // The end of one may lead back here and end the others.
            if self.commands.sent.contains_key(&command) {
                self.end_command(command, failed());
            }
        }
        for (purpose, _) in queued {
            self.on_command_result(server, purpose, failed());
        }
    }

    pub(super) fn expire_commands(&mut self) {
        let now = self.now.mono;
        let late = self
            .commands
            .sent
            .iter()
            .filter(|(_, sent)| now.since(sent.since) > COMMAND_TIMEOUT);
        let late: Vec<(u64, ServerId)> = late
            .map(|(command, sent)| (*command, sent.server))
            .collect();
        for (command, server) in late {
            let reason = "it did not answer in time".to_owned();
            let failed = CommandResult::Failed {
                reason,
                bad_source: None,
            };
            if self.commands.sent.contains_key(&command) {
                self.end_command(command, failed);
                self.pump_commands(server);
            }
        }
    }
}
