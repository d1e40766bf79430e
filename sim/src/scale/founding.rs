//! How the cluster came to be: where the copies of each chunk lie, and the state that
//! says so.
//!
//! The state is what the log's records make of an empty one, record by record: files are
//! created, their chunks leased to a writer on the servers that hold the copies,
//! committed and settled. Only the log itself is left out: the records are applied at
//! once, then an image of the state is written to the master's disk, and the master
//! recovers from that as after any restart. Invariant: where copies lie is a function of
//! the seed and the chunk, so that judge and servers need not ask each other.

use super::spec::{ScalePlan, Spread};
use antler_core::attributes::{Credentials, FileKind};
use antler_core::hash::mix;
use antler_core::ids::{BootId, ChunkId, InodeId, LogPosition, RequestId, ServerId, SessionId};
use antler_core::limits::CHUNK_SIZE;
use antler_core::namespace::State;
use antler_core::namespace::record::{
    Choice, ClientRecord, LeaseEnd, LeaseGrant, Mutation, Record, RecordBody, Reply, WrittenExtent,
};
use antler_core::time::Timestamp;
use antler_core::version::FeatureLevel;

/// Files of one directory.
const FILES_PER_DIRECTORY: u32 = 1000;
/// When all that was written, in seconds since 1970.
pub(super) const WRITTEN: i64 = 1_750_000_000;

/// The chunk's name in the cluster.
pub(super) fn chunk_id(chunk: u32) -> ChunkId {
    ChunkId(u64::from(chunk) + 1)
}

/// A chunk by its name in the cluster; `None` for one that was never made.
pub(super) fn chunk_of(id: ChunkId, plan: &ScalePlan) -> Option<u32> {
    let number = u32::try_from(id.0.checked_sub(1)?).ok()?;
    (number < plan.chunks).then_some(number)
}

/// The server's name in the cluster.
pub(super) fn server_id(server: u16) -> ServerId {
    ServerId(u64::from(server) + 1)
}

/// A server by its name in the cluster.
pub(super) fn server_of(id: ServerId) -> u16 {
    u16::try_from(id.0 - 1).expect("servers are few")
}

/// The life that a server lives.
pub(super) fn boot_of(server: u16, seed: u64) -> BootId {
    BootId(mix(seed ^ (u64::from(server) << 40)) | 1)
}

/// The disk on which a copy lies that a chunk began with.
pub(super) fn first_disk(plan: &ScalePlan, chunk: u32, server: u16) -> u8 {
    let lot = mix(plan.seed ^ 0x6469_736b ^ (u64::from(server) << 40) ^ u64::from(chunk));
    (lot % u64::from(plan.disks)) as u8
}

/// The servers that hold the copies that a chunk began with.
pub(super) fn first_servers(plan: &ScalePlan, chunk: u32, servers: &mut Vec<u16>) {
    servers.clear();
    let mut lot = mix(plan.seed ^ 0x706c_6163 ^ (u64::from(chunk) << 16));
    while servers.len() < plan.copies {
        lot = mix(lot);
        let server = (lot % u64::from(plan.servers)) as u16;
        let shares = |other: &u16| match plan.spread {
            Spread::Rack => plan.rack_of(*other) == plan.rack_of(server),
            Spread::Server => *other == server,
        };
        if !servers.iter().any(shares) {
            servers.push(server);
        }
    }
}

/// Applies records one after the other, each at its own position.
struct Writer<'a> {
    plan: &'a ScalePlan,
    state: State,
    position: LogPosition,
    session: SessionId,
    request: u64,
}

/// The state of a cluster with all its chunks.
pub(super) fn state_of(plan: &ScalePlan, secret: &[u8]) -> State {
    let mut writer = Writer {
        plan,
        state: State::default(),
        position: LogPosition(0),
        session: SessionId(0),
        request: 0,
    };
    writer.apply(RecordBody::Found {
        capability_secret: secret.to_vec(),
        copies: plan.copies as u8,
        level: FeatureLevel::NEWEST,
    });
    writer.begin_session();
    let mut directory = InodeId::ROOT;
    let mut chunk = 0;
    let mut file = 0;
    while chunk < plan.chunks {
        if file % FILES_PER_DIRECTORY == 0 {
            let name = format!("d{}", file / FILES_PER_DIRECTORY);
            directory = writer.create(InodeId::ROOT, &name, None).0;
        }
        let count = plan.chunks_per_file.min(plan.chunks - chunk);
        writer.write_file(directory, &format!("f{file}"), chunk, count);
        chunk += count;
        file += 1;
    }
    let session = writer.session;
    writer.apply(RecordBody::EndSession { session });
    writer.state
}

impl Writer<'_> {
    fn apply(&mut self, body: RecordBody) -> antler_core::namespace::Applied {
        self.position = self.position.next();
        let time = Timestamp {
            seconds: WRITTEN,
            nanos: 0,
        };
        self.state.apply(self.position, &Record { time, body })
    }

    fn begin_session(&mut self) {
        let (name, nonce) = ("writer".to_owned(), 1);
        let applied = self.apply(RecordBody::BeginSession { name, nonce });
        match applied.outcome {
            Some(Ok(Reply::Session(session))) => self.session = session,
            other => panic!("a session can begin: {other:?}"),
        }
    }

    fn ask(&mut self, mutation: Mutation, copies: Vec<(ServerId, BootId)>) -> Reply {
        self.request += 1;
        let request = RequestId(self.request);
        let applied = self.apply(RecordBody::Client(ClientRecord {
            session: self.session,
            request,
            oldest: request,
            credentials: Credentials::default(),
            mutation,
            choice: Choice {
                copies,
                open_by: Vec::new(),
            },
        }));
        match applied.outcome {
            Some(Ok(reply)) => reply,
            other => panic!("what founds the cluster is allowed: {other:?}"),
        }
    }

    /// The servers of a chunk, in their lives.
    fn copies_of(&self, chunk: u32) -> Vec<(ServerId, BootId)> {
        let mut servers = Vec::new();
        first_servers(self.plan, chunk, &mut servers);
        let seed = self.plan.seed;
        let named = servers.iter();
        named
            .map(|server| (server_id(*server), boot_of(*server, seed)))
            .collect()
    }

    /// Makes a directory, or a file with a first chunk.
    fn create(
        &mut self,
        parent: InodeId,
        name: &str,
        first: Option<u32>,
    ) -> (InodeId, Option<LeaseGrant>) {
        let mutation = Mutation::Create {
            parent,
            name: name.as_bytes().to_vec(),
            kind: match first {
                Some(_) => FileKind::Regular,
                None => FileKind::Directory,
            },
            mode: 0o755,
            device: 0,
            target: Vec::new(),
            exclusive: true,
            write: first.is_some(),
        };
        let copies = first.map_or_else(Vec::new, |chunk| self.copies_of(chunk));
        match self.ask(mutation, copies) {
            Reply::Created {
                attributes, lease, ..
            } => (attributes.inode, lease),
            other => panic!("an object was made: {other:?}"),
        }
    }

    /// A file of whole chunks, written, synced and closed.
    fn write_file(&mut self, directory: InodeId, name: &str, first: u32, count: u32) {
        let (inode, lease) = self.create(directory, name, Some(first));
        let mut grants = vec![lease.expect("servers were chosen")];
        for index in 1..count {
            let copies = self.copies_of(first + index);
            let failed = Vec::new();
            let mutation = Mutation::Lease {
                inode,
                index,
                failed,
            };
            match self.ask(mutation, copies) {
                Reply::Lease(grant) => grants.push(grant),
                other => panic!("a lease was asked for: {other:?}"),
            }
        }
        assert!(
            grants
                .iter()
                .zip(first..)
                .all(|(g, c)| g.chunk == chunk_id(c)),
            "chunks are numbered as they are made"
        );
        let valid = u32::try_from(self.plan.chunk_size).expect("at most a chunk");
        let extents = grants.iter().map(|grant| WrittenExtent {
            index: grant.index,
            chunk: grant.chunk,
            valid,
            fences: grant.epoch.fences(grant.version),
            synced: false,
        });
        let release = grants.iter().map(|grant| LeaseEnd {
            chunk: grant.chunk,
            epoch: grant.epoch,
            synced: true,
            syncs: 0,
        });
        let mutation = Mutation::CommitWrite {
            inode,
            size: u64::from(count - 1) * CHUNK_SIZE + self.plan.chunk_size,
            extents: extents.collect(),
            release: release.collect(),
            unchanged: false,
        };
        self.ask(mutation, Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::parse;
    use super::*;

    #[test]
    fn every_chunk_is_made_settled_and_known_by_its_number() {
        let text = "# shows\n[scale]\nracks = 5\nservers = 20\nchunks = 1003\n";
        let scenario = parse("s.toml", text).expect("valid");
        let plan = ScalePlan::draw(&scenario, 1).expect("it fits");
        let state = state_of(&plan, &[7; 32]);
        state.check_invariants(true);
        assert_eq!(state.counts().chunks, 1003);
        assert_eq!(state.leased().count(), 0);
        let mut servers = Vec::new();
        first_servers(&plan, 1002, &mut servers);
        let racks: std::collections::BTreeSet<u16> =
            servers.iter().map(|server| plan.rack_of(*server)).collect();
        assert_eq!((servers.len(), racks.len()), (3, 3));
        assert!(state.chunk(chunk_id(1002)).is_some());
        assert_eq!(chunk_of(ChunkId(1004), &plan), None);
    }
}
