//! One writer's word (P4) and nothing stale as fresh (P6), seen on the wire and at
//! the disks: a lease epoch of a chunk is used by one mount only, a server that
//! saw an epoch writes nothing of an older one, and no read is answered from a
//! copy that is behind a write acknowledged before the read was asked.

use crate::model::bytes::MountId;
use crate::network::Nanos;
use antler_core::ids::{ChunkId, ChunkVersion, Epoch, PartId, RequestId};
use antler_core::machine::Role;
use antler_core::wire::capability::{Capability, Right};
use antler_core::wire::chunk_master::{ChunkToMaster, Command, CommandResult, MasterToChunk};
use antler_core::wire::client_chunk::{ChunkReply, ChunkReplyBody, ChunkRequest, ChunkRequestBody};
use std::collections::BTreeMap;

/// Who sends a message, and the other end of its link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub(crate) from: usize,
    pub(crate) role: Role,
    /// The mount, if a client sends.
    pub(crate) mount: MountId,
    /// Names the link, whichever end sends: the connection's number.
    pub(crate) connection: usize,
}

#[derive(Clone, Debug)]
struct Request {
    capability: Capability,
    at: Nanos,
    by_client: bool,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Read,
    Change,
    Other,
}

/// See the module's doc.
#[derive(Default)]
pub(crate) struct LeasesJudge {
    holders: BTreeMap<(ChunkId, Epoch), MountId>,
    requests: BTreeMap<(usize, RequestId), Request>,
    /// Versions of which a write was acknowledged, and when first.
    acknowledged: BTreeMap<ChunkId, Vec<(ChunkVersion, Nanos)>>,
    /// The newest epoch that a node's disks wrote or were fenced at: (node, part).
    newest: BTreeMap<(usize, PartId), Epoch>,
    /// The same for fences, which survive the death of the process.
    fenced: BTreeMap<(usize, PartId), Epoch>,
    fences: BTreeMap<(usize, u64), PartId>,
    /// Reads whose version was judged.
    pub(crate) judged: u64,
}

/// What happened that scenarios can wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Seen {
    WriteAcknowledged,
    WriteForwarded,
    LeaseGranted,
    MutationAnswered,
    RepairBegun,
    FsyncAnswered,
    LogSync,
    DiskSync,
    Nothing,
}

impl LeasesJudge {
    /// A request to a chunkserver is sent.
    ///
    /// # Errors
    /// When another mount uses the same lease.
    pub(crate) fn on_request(
        &mut self,
        now: Nanos,
        route: Route,
        request: &ChunkRequest,
    ) -> Result<Seen, String> {
        let kind = match &request.body {
            ChunkRequestBody::Read { .. } => Kind::Read,
            ChunkRequestBody::Write { .. } | ChunkRequestBody::Zero { .. } => Kind::Change,
            _ => Kind::Other,
        };
        let by_client = route.role == Role::Client;
        let capability = request.capability.clone();
        let (chunk, epoch) = (capability.part.chunk, capability.epoch);
        if by_client && kind == Kind::Change && capability.right == Right::Write {
            let holder = *self.holders.entry((chunk, epoch)).or_insert(route.mount);
            if holder != route.mount {
                return Err(format!(
                    "mounts {holder} and {} both write {chunk} under epoch {epoch}",
                    route.mount
                ));
            }
        }
        let tracked = Request {
            capability,
            at: now,
            by_client,
            kind,
        };
        self.requests
            .insert((route.connection, request.request), tracked);
        Ok(match (by_client, kind) {
            (false, Kind::Change) => Seen::WriteForwarded,
            _ => Seen::Nothing,
        })
    }

    /// A chunkserver answers.
    ///
    /// # Errors
    /// When it serves what is stale.
    pub(crate) fn on_reply(
        &mut self,
        now: Nanos,
        route: Route,
        reply: &ChunkReply,
    ) -> Result<Seen, String> {
        let key = (route.connection, reply.request);
        let Some(request) = self.requests.remove(&key) else {
            return Ok(Seen::Nothing);
        };
        let chunk = request.capability.part.chunk;
        match (&reply.result, request.kind) {
            (Ok(ChunkReplyBody::Done { .. }), Kind::Change) if request.by_client => {
                let versions = self.acknowledged.entry(chunk).or_default();
                let version = request.capability.version;
                if versions.iter().all(|(known, _)| *known != version) {
                    versions.push((version, now));
                }
                Ok(Seen::WriteAcknowledged)
            }
            (Ok(ChunkReplyBody::Read { version, .. }), Kind::Read) if request.by_client => {
                self.judged += 1;
                self.judge_read(chunk, *version, request.at)?;
                Ok(Seen::Nothing)
            }
            _ => Ok(Seen::Nothing),
        }
    }

    fn judge_read(&self, chunk: ChunkId, read: ChunkVersion, asked: Nanos) -> Result<(), String> {
        let versions = self.acknowledged.get(&chunk).map_or(&[][..], Vec::as_slice);
        let newer = versions
            .iter()
            .find(|(version, at)| *version > read && *at < asked);
        match newer {
            None => Ok(()),
            Some((newer, at)) => Err(format!(
                "{chunk} was read at {read}, asked at {:.6}s, though a write at {newer} was \
                 acknowledged at {:.6}s",
                asked as f64 / 1e9,
                *at as f64 / 1e9
            )),
        }
    }

    /// A master commands: remembers which part a fence is about.
    pub(crate) fn on_command(&mut self, connection: usize, message: &MasterToChunk) -> Seen {
        let MasterToChunk::Command { command, body, .. } = message else {
            return Seen::Nothing;
        };
        match body {
            Command::Fence { part, .. } => {
                self.fences.insert((connection, *command), *part);
                Seen::Nothing
            }
            Command::Replicate { .. } | Command::Build { .. } => Seen::RepairBegun,
            _ => Seen::Nothing,
        }
    }

    /// A chunkserver says how a command went: from a fence on, older writers are refused.
    pub(crate) fn on_command_done(&mut self, route: Route, message: &ChunkToMaster) {
        let ChunkToMaster::CommandDone { command, result } = message else {
            return;
        };
        let Some(part) = self.fences.remove(&(route.connection, *command)) else {
            return;
        };
        if let CommandResult::Parts(states) = result
            && let Some(Some(state)) = states.first()
        {
            let fenced = self.fenced.entry((route.from, part)).or_default();
            *fenced = (*fenced).max(state.epoch);
        }
    }

    /// A disk is to write under an epoch.
    ///
    /// # Errors
    /// When the node saw a newer one.
    pub(crate) fn on_writing(
        &mut self,
        node: usize,
        part: PartId,
        epoch: Epoch,
    ) -> Result<(), String> {
        let newest = self.newest.get(&(node, part)).copied().unwrap_or_default();
        let newest = newest.max(self.fenced.get(&(node, part)).copied().unwrap_or_default());
        if epoch < newest {
            return Err(format!(
                "node {node} writes {part} under {epoch} though it saw {newest}"
            ));
        }
        self.newest.insert((node, part), epoch);
        Ok(())
    }

    /// A chunkserver died: what it wrote and had not synced may be forgotten, the
    /// epochs included; capabilities of that life are refused by the next.
    pub(crate) fn lose_server(&mut self, node: usize) {
        self.newest.retain(|(of, _), _| *of != node);
    }
}
