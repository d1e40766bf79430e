//! Placement is a law (P9): no copy is placed where the class of its chunk permits
//! none, not for an instant.
//!
//! Follows the log with a state of its own, and keeps for every chunk the servers
//! that were ever permitted while it was there: what an operator has since forbidden
//! may still be on its way out. Looks at every grant and every command to copy as it
//! is sent, and at the disks, through recovery's decoder, every so often: a copy that
//! was placed stays for at least a second. Only runs with storage classes are followed.

use super::disks::{DiskReader, Disks};
use crate::network::Nanos;
use antler_core::ids::{ChunkId, LogPosition, ServerId};
use antler_core::namespace::record::Record;
use antler_core::namespace::{Change, State};
use antler_core::placement::Labels;
use antler_core::placement::label::Expression;
use antler_core::wire::chunk_master::{ChunkToMaster, Command, MasterToChunk};
use antler_core::wire::client_master::{Answer, LeasedChunk};
use std::collections::{BTreeMap, BTreeSet};

/// The pause between two looks at the disks.
const LOOK_EVERY: Nanos = 50_000_000;

/// See the module's doc.
#[derive(Default)]
pub(crate) struct ResidencyJudge {
    state: Option<State>,
    permitted: BTreeMap<ChunkId, BTreeSet<ServerId>>,
    /// The server of a connection to a master.
    servers: BTreeMap<usize, ServerId>,
    known: BTreeSet<ServerId>,
    looked: Nanos,
    /// Where copies may lie, whatever the classes say.
    within: Option<Expression>,
    /// Copies that were judged.
    pub(crate) judged: u64,
}

impl ResidencyJudge {
    pub(crate) fn new(follows: bool, within: Option<Expression>) -> Self {
        Self {
            state: follows.then(State::default),
            within,
            ..Self::default()
        }
    }

    /// The next record of the log.
    pub(crate) fn apply(&mut self, position: LogPosition, record: &Record) {
        let Some(state) = &mut self.state else { return };
        for change in state.apply(position, record).changes {
            match change {
                Change::ChunkMade(chunk) | Change::Copies(chunk) => self.permit(&[chunk]),
                Change::Class(_) | Change::Labels(_) => {
                    let chunks = self.chunks();
                    self.permit(&chunks);
                }
                _ => {}
            }
        }
    }

    fn chunks(&self) -> Vec<ChunkId> {
        let state = self.state.as_ref();
        state.map_or_else(Vec::new, |state| state.chunks_from(ChunkId(0), usize::MAX))
    }

    /// Adds the servers that are permitted now.
    fn permit(&mut self, chunks: &[ChunkId]) {
        let Some(state) = &self.state else { return };
        let labels = |server| labels_of(state, server);
        for &chunk in chunks {
            let Some(class) = state.chunk(chunk).map(|one| state.class(one.class)) else {
                continue;
            };
            let permitted = self.permitted.entry(chunk).or_default();
            let servers = self.known.iter().copied();
            permitted.extend(servers.filter(|server| class.permits(&labels(*server))));
        }
    }

    fn judge(&mut self, chunk: ChunkId, server: ServerId, what: &str) -> Result<(), String> {
        self.judged += 1;
        if let (Some(within), Some(state)) = (&self.within, &self.state) {
            let labels = labels_of(state, server);
            if !labels.is_empty() && !within.matches(&labels) {
                return Err(format!(
                    "{what}: {chunk} is on {server} with {labels:?}, and copies are to stay within \
                     `{within}`"
                ));
            }
        }
        match self.permitted.get(&chunk) {
            Some(permitted) if !permitted.contains(&server) => Err(format!(
                "{what}: {chunk} was never permitted on {server}, but on {permitted:?}"
            )),
            _ => Ok(()),
        }
    }

    /// A chunkserver says something on a link to a master.
    pub(crate) fn on_server_says(&mut self, connection: usize, message: &ChunkToMaster) {
        if let ChunkToMaster::Register { server, .. } = message {
            self.servers.insert(connection, *server);
            if self.state.is_some() && self.known.insert(*server) {
                let chunks = self.chunks();
                self.permit(&chunks);
            }
        }
    }

    /// A master tells a chunkserver something.
    ///
    /// # Errors
    /// When it is to make a copy that is against the law.
    pub(crate) fn on_command(
        &mut self,
        connection: usize,
        message: &MasterToChunk,
    ) -> Result<(), String> {
        let (MasterToChunk::Command { body, .. }, Some(&server)) =
            (message, self.servers.get(&connection))
        else {
            return Ok(());
        };
        match body {
            Command::Replicate { part, .. } | Command::Build { part, .. } => {
                self.judge(part.chunk, server, "a copy is commanded")
            }
            _ => Ok(()),
        }
    }

    /// A master answers a mutation.
    ///
    /// # Errors
    /// When it grants a lease on a copy that is against the law.
    pub(crate) fn on_answer(&mut self, answer: &Answer) -> Result<(), String> {
        match answer {
            Answer::Lease(lease) => self.judge_lease(lease),
            Answer::Created {
                lease: Some(lease), ..
            } => self.judge_lease(lease),
            _ => Ok(()),
        }
    }

    fn judge_lease(&mut self, lease: &LeasedChunk) -> Result<(), String> {
        for copy in &lease.copies {
            self.judge(lease.chunk, copy.server, "a lease is granted")?;
        }
        Ok(())
    }

    /// Looks at the disks, if that is due.
    ///
    /// # Errors
    /// The first copy that is against the law.
    pub(crate) fn look(
        &mut self,
        now: Nanos,
        disks: &Disks,
        reader: &mut DiskReader,
    ) -> Result<(), String> {
        if self.state.is_none() || now < self.looked + LOOK_EVERY {
            return Ok(());
        }
        self.looked = now;
        for disk in disks.servers.iter().filter(|disk| disk.is_trusted()) {
            for stored in reader.parts(now, disk).unwrap_or_default() {
                self.judge(stored.part.chunk, disk.server, "a copy is on a disk")?;
            }
        }
        Ok(())
    }
}

/// The labels of a server that hold, as far as the log knows them.
fn labels_of(state: &State, server: ServerId) -> Labels {
    let known = state.server_labels(server);
    known.map_or_else(Labels::new, |known| known.over(&known.configured))
}
