//! The judges: one property each, and none of them trusts a machine. They see
//! what programs ask and are answered, every message, every entry that goes into
//! a log, and the disks as a power cut would leave them.

pub(crate) mod bytes;
pub(crate) mod copies;
pub(crate) mod disks;
pub(crate) mod drained;
pub(crate) mod durable;
pub(crate) mod leases;
pub(crate) mod linear;
pub(crate) mod members;
pub(crate) mod names;
pub(crate) mod residency;

use antler_core::errno::Errno;
use antler_core::ids::{RequestId, SessionId};
use antler_core::member::Member;
use antler_core::member::entry_codec::decode_entry;
use antler_core::namespace::record::{ClientRecord, Record};
use antler_core::namespace::{Remembered, State};
use antler_core::wire::Message;
use antler_core::wire::client_master::{Answer, MasterToClient};
use bytes::{BytesJudge, Synced};
use disks::{DiskReader, Disks};
use durable::{DurableJudge, Look};
use leases::{LeasesJudge, Route, Seen};
use linear::LinearJudge;
use members::MembersJudge;
use names::NamesJudge;
use residency::ResidencyJudge;
use std::collections::BTreeMap;

use crate::network::Nanos;
use crate::plan::Plan;

/// What the judge of residency watches over.
const LAW: &str = "P9: placement is a law";

/// A promise that was broken: which one, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Broken {
    /// The promise.
    pub(crate) promise: &'static str,
    /// What happened.
    pub(crate) how: String,
}

/// All judges of one run.
pub(crate) struct Judges {
    pub(crate) bytes: BytesJudge,
    pub(crate) members: MembersJudge,
    pub(crate) leases: LeasesJudge,
    pub(crate) durable: DurableJudge,
    pub(crate) names: NamesJudge,
    pub(crate) linear: LinearJudge,
    pub(crate) residency: ResidencyJudge,
    pub(crate) reader: DiskReader,
    /// The session of a link, by connection.
    sessions: BTreeMap<usize, SessionId>,
    broken: Option<Broken>,
}

impl Judges {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            bytes: BytesJudge::new(plan.seed, plan.errors, plan.cluster.copies),
            members: MembersJudge::default(),
            leases: LeasesJudge::default(),
            durable: DurableJudge::new(plan.seed ^ 0xd15c, 3),
            names: NamesJudge::default(),
            linear: LinearJudge::default(),
            residency: ResidencyJudge::new(plan.has_classes(), plan.within()),
            reader: DiskReader::default(),
            sessions: BTreeMap::new(),
            broken: None,
        }
    }

    /// The first promise that was broken.
    pub(crate) fn broken(&self) -> Option<&Broken> {
        self.broken.as_ref()
    }

    /// Takes a judge's finding in.
    pub(crate) fn judge<T>(
        &mut self,
        promise: &'static str,
        found: Result<T, String>,
    ) -> Option<T> {
        match found {
            Ok(value) => Some(value),
            Err(how) => {
                self.broken.get_or_insert(Broken { promise, how });
                None
            }
        }
    }

    /// A message is sent: what scenarios may wait for is told.
    pub(crate) fn on_message(
        &mut self,
        now: Nanos,
        route: Route,
        message: &Message,
        disks: &Disks,
    ) -> Seen {
        let found = self.residency.look(now, disks, &mut self.reader);
        self.judge(LAW, found);
        match message {
            Message::ChunkRequest(request) => {
                let found = self.leases.on_request(now, route, request);
                self.judge("P4: one lease holder", found)
                    .unwrap_or(Seen::Nothing)
            }
            Message::ChunkReply(reply) => {
                let found = self.leases.on_reply(now, route, reply);
                self.judge("P6: stale is never served", found)
                    .unwrap_or(Seen::Nothing)
            }
            Message::MasterToChunk(message) => {
                let found = self.residency.on_command(route.connection, message);
                self.judge(LAW, found);
                self.leases.on_command(route.connection, message)
            }
            Message::ChunkToMaster(message) => {
                self.residency.on_server_says(route.connection, message);
                self.leases.on_command_done(route, message);
                Seen::Nothing
            }
            Message::MasterToClient(message) => self.on_master_says(now, route, message, disks),
            Message::ClientToMaster(_) | Message::Peer(_) => Seen::Nothing,
        }
    }

    fn on_master_says(
        &mut self,
        now: Nanos,
        route: Route,
        message: &MasterToClient,
        disks: &Disks,
    ) -> Seen {
        match message {
            MasterToClient::Welcome { session, .. } => {
                self.sessions.insert(route.connection, *session);
                Seen::Nothing
            }
            MasterToClient::Answer {
                mutation: true,
                id,
                result,
                ..
            } => {
                let granted = matches!(result, Ok(Answer::Lease(_)));
                if let Ok(
                    Answer::Lease(lease)
                    | Answer::Created {
                        lease: Some(lease), ..
                    },
                ) = result
                {
                    self.bytes.note_write_set(lease.copies.len());
                }
                self.on_mutation_answered(now, route, *id, result, disks);
                if granted {
                    Seen::LeaseGranted
                } else {
                    Seen::MutationAnswered
                }
            }
            _ => Seen::Nothing,
        }
    }

    /// A message is handed to a process.
    pub(crate) fn on_delivered(&mut self, connection: Option<usize>, message: &Message) {
        let Message::MasterToClient(MasterToClient::Answer {
            mutation: true, id, ..
        }) = message
        else {
            return;
        };
        let session = connection.and_then(|connection| self.sessions.get(&connection));
        if let Some(&session) = session {
            self.names.on_mutation_told(session, *id);
        }
    }

    fn on_mutation_answered(
        &mut self,
        now: Nanos,
        route: Route,
        request: RequestId,
        result: &Result<Answer, Errno>,
        disks: &Disks,
    ) {
        let Some(&session) = self.sessions.get(&route.connection) else {
            let how = format!("a mutation is answered on a link without a session ({request})");
            self.judge::<()>("P5: exactly once", Err(how));
            return;
        };
        let found = self.durable.on_mutation_answered(
            now,
            (session, request),
            result.is_ok(),
            &self.members,
            disks,
            &mut self.reader,
        );
        self.judge("P1: acknowledged metadata is durable", found);
        if let Ok(answer) = result {
            let found = self.residency.on_answer(answer);
            self.judge(LAW, found);
        }
        let found = self.names.on_mutation_answered(session, request, result);
        self.judge("P5: exactly once, as POSIX says", found);
    }

    /// A member handled an input.
    pub(crate) fn on_member(&mut self, node: usize, member: &Member) {
        let found = self.members.on_progress(node, member);
        self.judge("equal members", found);
        while let Some(entry) = self.members.next_committed() {
            let position = entry.position;
            let records = match entry.kind {
                0 => decode_entry(&entry.data).map_err(|error| error.to_string()),
                _ => Ok(Vec::new()),
            };
            let records = self.judge("equal members", records).unwrap_or_default();
            for record in &records {
                self.judge_level(record);
                self.durable.on_record(position, record);
                self.residency.apply(position, record);
                self.names
                    .apply(position, record, |client| refused(member, client));
            }
        }
    }

    /// No leader logs what older members, which the level still allows, could not read.
    fn judge_level(&mut self, record: &Record) {
        let (since, level) = (record.body.since(), self.names.level());
        if since > level {
            let how = format!("a record of level {since} is logged at level {level}");
            self.judge::<()>("records of the cluster's level", Err(how));
        }
    }

    /// A fsync was answered as done.
    pub(crate) fn on_synced(&mut self, now: Nanos, synced: Synced, state: &State, disks: &Disks) {
        let Some(file) = self.bytes.file(synced.file) else {
            return;
        };
        let mut look = Look {
            now,
            state,
            disks,
            reader: &mut self.reader,
        };
        let seed = self.bytes.seed();
        let found = self.durable.on_synced(synced.file, file, seed, &mut look);
        self.judge("P2: fsync is durable", found);
    }
}

/// Whether a member's table refused a request; `None` if it does not remember.
fn refused(member: &Member, client: &ClientRecord) -> Option<bool> {
    match member.state().remembered(client.session, client.request) {
        Remembered::Reply(outcome) => Some(outcome.is_err()),
        _ => None,
    }
}
