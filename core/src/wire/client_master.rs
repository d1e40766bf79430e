//! Between a client and the masters. Owns the messages; the frame is in the
//! parent module, the meaning of mutations in `namespace::record`.

use crate::attributes::{Attributes, Credentials, DirectoryEntry};
use crate::chunk::stripe::Stripe;
use crate::errno::Errno;
use crate::ids::{
    Address, BootId, ChunkId, ChunkVersion, DiskId, Epoch, InodeId, LogPosition, PartId, RequestId,
    ServerId, SessionId, Term,
};
use crate::namespace::record::{ClassPattern, Loss, Mutation};
use crate::placement::StorageClass;
use crate::time::Timestamp;
use crate::version::FeatureLevel;
use crate::vfs::Space;
use crate::wire::capability::Capability;
use minicbor::{Decode, Encode};

/// From a client to a master.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum ClientToMaster {
    /// The first message of every link to a master. Without `resume` it asks for a
    /// new session. On a new link the client has dropped every cached entry first.
    #[n(0)]
    Hello {
        /// Shown to operators: host and mount point.
        #[n(0)]
        name: String,
        /// Drawn once per mount, so that a resent Hello gets the same session.
        #[n(1)]
        nonce: u64,
        /// The session to go on with.
        #[n(2)]
        resume: Option<SessionId>,
        /// Every inode that the client has open (the leader keeps that in soft state).
        #[n(3)]
        opens: Vec<InodeId>,
        /// Where the client is (`dc`, `rack`, ...), for the choice of near copies, and what
        /// it prefers to that: see [`crate::placement::nearness`].
        #[n(4)]
        labels: Vec<(String, String)>,
        /// Creates of regular files that were sent and not seen answered: whatever they
        /// brought is open too. Absent from older clients.
        #[cbor(n(5), default)]
        creating: Vec<RequestId>,
    },
    /// A change. Executed exactly once; the same request may be sent again.
    #[n(1)]
    Mutate {
        /// Numbered per session from 1, without gaps in the order of first sending.
        #[n(0)]
        request: RequestId,
        /// The oldest request not seen answered (this one at most).
        #[n(1)]
        oldest: RequestId,
        /// On whose behalf.
        #[n(2)]
        credentials: Credentials,
        /// What is asked.
        #[n(3)]
        mutation: Mutation,
    },
    /// A question. May be asked again freely; numbered per link, apart from mutations.
    #[n(2)]
    Ask {
        /// Returned with the answer.
        #[n(0)]
        question: RequestId,
        /// On whose behalf.
        #[n(1)]
        credentials: Credentials,
        /// What is asked.
        #[n(2)]
        query: Query,
    },
    /// The last handles of these inodes were closed.
    #[n(3)]
    Closed {
        /// Which.
        #[n(0)]
        inodes: Vec<InodeId>,
    },
    /// I live. Sent every heartbeat; the cache lease counts from when it was sent.
    #[n(4)]
    Alive {
        /// Returned with the answer: the client's own clock.
        #[n(0)]
        echo: u64,
    },
    /// What a push named is out of the caches (the kernel's included).
    #[n(5)]
    PushDone {
        /// Which push.
        #[n(0)]
        push: u64,
    },
    /// A lease that was recalled can't be given back yet or is not held: tells the
    /// leader not to wait for it. (A held one ends by `Release` or `CommitWrite`.)
    #[n(6)]
    NotHeld {
        /// Which lease.
        #[n(0)]
        chunk: ChunkId,
        /// Of which epoch.
        #[n(1)]
        epoch: Epoch,
    },
    /// The mount ends: the session may end at once.
    #[n(7)]
    Goodbye,
}

/// From a master to a client.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum MasterToClient {
    /// The session stands.
    #[n(0)]
    Welcome {
        /// Its id.
        #[n(0)]
        session: SessionId,
        /// The leader's term.
        #[n(1)]
        term: Term,
        /// For how long after an `Alive` was sent its answer lets the cache be used, in
        /// milliseconds on the client's clock (drift is taken off already).
        #[n(2)]
        cache_lease_millis: u32,
        /// The masters, for the next time.
        #[n(3)]
        masters: Vec<Address>,
    },
    /// Ask another one; close the link.
    #[n(1)]
    NotLeader {
        /// Whom, if known.
        #[n(0)]
        leader: Option<Address>,
    },
    /// The session to resume is gone: unsynced writes and open orphans are lost.
    #[n(2)]
    SessionEnded,
    /// A mutation's or a question's answer.
    #[n(3)]
    Answer {
        /// Whether `id` numbers a mutation of the session or a question of the link.
        #[n(0)]
        mutation: bool,
        /// Which one.
        #[n(1)]
        id: RequestId,
        /// The answer.
        #[n(2)]
        result: Result<Answer, Errno>,
        /// The directories whose names a mutation changed, and the one that it made, as
        /// they are when it is answered.
        #[n(3)]
        #[cbor(default)]
        around: Vec<AroundDirectory>,
    },
    /// Heard.
    #[n(4)]
    AliveToo {
        /// What `Alive` carried.
        #[n(0)]
        echo: u64,
    },
    /// Drop this from every cache, then say `PushDone`.
    #[n(5)]
    Push {
        /// Numbers pushes of the link.
        #[n(0)]
        push: u64,
        /// What changed.
        #[n(1)]
        stale: Vec<Stale>,
    },
    /// Somebody else needs these leases, or repair does: write out, then give back by
    /// `Release` or `CommitWrite`.
    #[n(6)]
    Recall {
        /// Which.
        #[n(0)]
        leases: Vec<(InodeId, ChunkId, Epoch)>,
    },
}

/// A directory as it was when an answer left: a later change is pushed behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct AroundDirectory {
    /// The directory.
    #[n(0)]
    pub attributes: Attributes,
    /// It has no names: whatever is looked up in it is absent.
    #[n(1)]
    pub empty: bool,
}

/// Something that a client may have cached and that is no longer so.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Stale {
    /// The attributes, data and chunk locations of an inode.
    #[n(0)]
    Inode(#[n(0)] InodeId),
    /// A name in a directory (also that it is not there).
    #[n(1)]
    Dentry {
        /// The directory.
        #[n(0)]
        parent: InodeId,
        /// The name.
        #[cbor(n(1), with = "minicbor::bytes")]
        name: Vec<u8>,
    },
    /// Everything.
    #[n(2)]
    All,
}

/// What a client may ask without changing anything.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Query {
    /// A name in a directory. Answer: `Entry`; ENOENT may be cached too.
    #[n(0)]
    Lookup {
        /// The directory.
        #[n(0)]
        parent: InodeId,
        /// The name.
        #[cbor(n(1), with = "minicbor::bytes")]
        name: Vec<u8>,
    },
    /// Answer: `Entry`.
    #[n(1)]
    Attributes {
        /// Of what.
        #[n(0)]
        inode: InodeId,
    },
    /// Names after `cookie` (0 from the start) in the order of cookies, without `.`
    /// and `..`. Answer: `Entries`.
    #[n(2)]
    ReadDirectory {
        /// The directory.
        #[n(0)]
        inode: InodeId,
        /// Where to go on.
        #[n(1)]
        cookie: u64,
        /// How many at most.
        #[n(2)]
        most: u32,
    },
    /// Answer: `Bytes`.
    #[n(3)]
    ReadLink {
        /// The symlink.
        #[n(0)]
        inode: InodeId,
    },
    /// Answer: `Bytes`; ENODATA.
    #[n(4)]
    Xattr {
        /// Of what.
        #[n(0)]
        inode: InodeId,
        /// Which.
        #[cbor(n(1), with = "minicbor::bytes")]
        name: Vec<u8>,
    },
    /// The names, each ended by a NUL (listxattr(2)). Answer: `Bytes`.
    #[n(5)]
    Xattrs {
        /// Of what.
        #[n(0)]
        inode: InodeId,
    },
    /// Answer: `FileSystem`.
    #[n(6)]
    StatFs,
    /// Opens a regular file: checks permission, registers the handle with the leader,
    /// and brings the first chunk along. Answer: `Opened`.
    #[n(7)]
    Open {
        /// Which.
        #[n(0)]
        inode: InodeId,
        /// For reading.
        #[n(1)]
        read: bool,
        /// For writing.
        #[n(2)]
        write: bool,
    },
    /// Where chunks are. Answer: `Located` with as many as asked, holes too.
    #[n(8)]
    Locate {
        /// Of which file.
        #[n(0)]
        inode: InodeId,
        /// The first one.
        #[n(1)]
        index: u32,
        /// How many, 1..=64.
        #[n(2)]
        count: u32,
    },
    /// Follows a path from the root, symlinks not followed. Answer: `Entry`.
    #[n(9)]
    Path {
        /// `/`-separated.
        #[cbor(n(0), with = "minicbor::bytes")]
        path: Vec<u8>,
    },
    /// A copy that a read found bad. Answer: `Done`.
    #[n(10)]
    BadCopy {
        /// Which.
        #[n(0)]
        part: PartId,
        /// Of which version.
        #[n(1)]
        version: ChunkVersion,
        /// Whose.
        #[n(2)]
        server: ServerId,
    },
    /// For operators. Answer: `Status`.
    #[n(11)]
    Status,
    /// For operators. Answer: `Info`.
    #[n(12)]
    Info {
        /// Of which inode.
        #[n(0)]
        inode: InodeId,
        /// Explained, some chunks from this index on. A leader that knows nothing of that
        /// skips it, and explains nothing.
        #[n(1)]
        explain: Option<u32>,
    },
    /// For operators: quarantined chunks are released for deletion. Answer: `Done`.
    #[n(13)]
    ReleaseQuarantine,
    /// For operators: what a change of a storage class would move. Answer: `Plan`;
    /// ENOENT when there is no such class.
    #[n(14)]
    PlanClass {
        /// Its name.
        #[n(0)]
        name: String,
        /// What it is to become.
        #[n(1)]
        class: StorageClass,
    },
    /// Of chunks that were given back unsynced, each with the version of its lease, the
    /// first `REPORT_BATCH`. Answer: `Unsettled`.
    #[n(15)]
    Unsettled {
        /// Which.
        #[n(0)]
        chunks: Vec<(ChunkId, ChunkVersion)>,
    },
    /// What of the chunks on some chunkservers could not be read, or not spared a further
    /// loss, while those are stopped, looking at `STOP_LOOKS_MAX` chunks of each from one
    /// on. Answer: `Stop`.
    #[n(16)]
    Stop {
        /// Which.
        #[n(0)]
        servers: Vec<ServerId>,
        /// From which chunk on.
        #[n(1)]
        from: ChunkId,
    },
    /// For operators: a chunkserver is to read its disks once, beginning now. Answer: `Done`,
    /// once it is told; ENOENT when there is no such server or disk, ENXIO when it is away,
    /// EPERM for others than root.
    #[n(17)]
    Scrub {
        /// Which server.
        #[n(0)]
        server: ServerId,
        /// Which disk; all of them if none is named.
        #[n(1)]
        disk: Option<DiskId>,
        /// Bytes a second of each disk, at most.
        #[n(2)]
        rate: u64,
    },
}

/// The good answers to mutations and questions.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Answer {
    /// Nothing more to say.
    #[n(0)]
    Done,
    /// The object as it is.
    #[n(1)]
    Entry(#[n(0)] Attributes),
    /// An object made or found by `Create`.
    #[n(2)]
    Created {
        /// As it is.
        #[n(0)]
        attributes: Attributes,
        /// It was there before.
        #[n(1)]
        existed: bool,
        /// The lease of its first chunk, if one was given.
        #[n(2)]
        lease: Option<Box<LeasedChunk>>,
    },
    /// A write lease.
    #[n(3)]
    Lease(#[n(0)] Box<LeasedChunk>),
    /// Names, and whether there are no more behind them.
    #[n(4)]
    Entries {
        /// In the order of their cookies.
        #[n(0)]
        entries: Vec<DirectoryEntry>,
        /// The directory ends here.
        #[n(1)]
        end: bool,
    },
    /// A target, an attribute, names of attributes.
    #[n(5)]
    Bytes(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// statfs(2).
    #[n(6)]
    FileSystem(#[n(0)] FileSystem),
    /// An open file.
    #[n(7)]
    Opened {
        /// As it is.
        #[n(0)]
        attributes: Attributes,
        /// Its first chunk, unless the file is empty.
        #[n(1)]
        first: Option<Box<LocatedChunk>>,
    },
    /// Chunks from the index asked for on.
    #[n(8)]
    Located(#[n(0)] Vec<LocatedChunk>),
    /// The cluster.
    #[n(9)]
    Status(#[n(0)] Box<Status>),
    /// A file.
    #[n(10)]
    Info(#[n(0)] Box<FileInfo>),
    /// Leases were given back.
    #[n(11)]
    Released {
        /// Chunks whose lease was not held any more: what was acknowledged under it
        /// and not synced is to be written again.
        #[n(0)]
        void: Vec<ChunkId>,
    },
    /// What a change would do.
    #[n(12)]
    Plan(#[n(0)] ClassPlan),
    /// Of the chunks asked about, those of which something that was acknowledged under
    /// that version is not durable yet, or may be lost.
    #[n(13)]
    Unsettled(#[n(0)] Vec<ChunkId>),
    /// What would come of stopping servers.
    #[n(14)]
    Stop(#[n(0)] Box<StopPlan>),
}

/// What would come of the chunks on some servers if those were stopped, as copies lie now.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct StopPlan {
    /// Chunks looked at: those with a copy on one of the servers.
    #[n(0)]
    pub chunks: u64,
    /// Of them, those without any copy elsewhere that could be read, with one there.
    #[n(1)]
    pub unavailable: u64,
    /// Those left with one copy, of more: the next loss would make them unavailable.
    #[n(2)]
    pub endangered: u64,
    /// Those left with fewer copies than wanted, the endangered ones apart.
    #[n(3)]
    pub under_goal: u64,
    /// Some of the files that the unavailable and endangered ones belong to.
    #[n(4)]
    pub examples: Vec<InodeId>,
    /// Where to look on, unless that was all.
    #[n(5)]
    pub next: Option<ChunkId>,
}

/// What a change of a storage class would do, as copies lie now.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct ClassPlan {
    /// Chunks looked at that are of the class.
    #[n(0)]
    pub chunks: u64,
    /// There are more chunks than are looked at for a plan.
    #[n(1)]
    pub more: bool,
    /// Chunks of the class of which a copy would have to be made.
    #[n(2)]
    pub moving: u64,
    /// Copies that would have to be made.
    #[n(3)]
    pub copies: u64,
    /// Bytes of those copies.
    #[n(4)]
    pub bytes: u64,
    /// Chunks with a copy where the change does not permit one.
    #[n(5)]
    pub outside: u64,
    /// What the servers that are there could not meet.
    #[n(6)]
    pub unmet: Vec<String>,
}

/// One copy that a client may use.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct LocatedCopy {
    /// Whose.
    #[n(0)]
    pub server: ServerId,
    /// Which life of it: an acknowledgement counts for this one.
    #[n(1)]
    pub boot: BootId,
    /// Where it listens.
    #[n(2)]
    pub address: Address,
    /// The right to use it.
    #[n(3)]
    pub capability: Capability,
}

/// Where one chunk of a file is, for reading.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct LocatedChunk {
    /// Which chunk of the file.
    #[n(0)]
    pub index: u32,
    /// `None`: a hole, reads as zeros.
    #[n(1)]
    pub chunk: Option<ChunkId>,
    /// Bytes from here on read as zeros.
    #[n(2)]
    pub valid: u32,
    /// Its copies, nearest first; empty when none can be read now (try again later).
    #[n(3)]
    pub copies: Vec<LocatedCopy>,
    /// In which parts it lies: then `copies` are those of them that can be read.
    #[n(4)]
    pub stripe: Option<Stripe>,
}

/// A write lease with all that the writer needs.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct LeasedChunk {
    /// Which chunk of the file.
    #[n(0)]
    pub index: u32,
    /// The chunk.
    #[n(1)]
    pub chunk: ChunkId,
    /// Its version under this lease.
    #[n(2)]
    pub version: ChunkVersion,
    /// The lease's epoch.
    #[n(3)]
    pub epoch: Epoch,
    /// How far it holds real content.
    #[n(4)]
    pub valid: u32,
    /// Its copies in chain order.
    #[n(5)]
    pub copies: Vec<LocatedCopy>,
    /// What of the chunk may have been lost before: whoever wrote under an older lease
    /// and did not sync learns here whether the copies still hold it.
    #[n(6)]
    pub lost: Option<Loss>,
    /// The holder numbers its syncs, and tells how many there were when it gives it back.
    #[n(7)]
    #[cbor(default)]
    pub counts: bool,
}

/// statfs(2) of the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct FileSystem {
    /// Bytes on disks, of one copy at the root's number of copies.
    #[n(0)]
    pub space: Space,
    /// Inodes in use.
    #[n(1)]
    pub inodes: u64,
    /// Chunks in use.
    #[n(2)]
    pub chunks: u64,
}

/// What `antler status` shows.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Status {
    /// The cluster's name and life.
    #[n(0)]
    pub cluster: String,
    /// The Raft group.
    #[n(1)]
    pub members: Vec<MemberStatus>,
    /// The chunkservers.
    #[n(2)]
    pub servers: Vec<ServerStatus>,
    /// Chunks by health.
    #[n(3)]
    pub health: Health,
    /// Copies being made now.
    #[n(4)]
    pub repairs_running: u64,
    /// Chunks that wait for repair.
    #[n(5)]
    pub repairs_waiting: u64,
    /// Objects in the namespace.
    #[n(6)]
    pub inodes: u64,
    /// Bytes that the leader's tables take.
    #[n(7)]
    pub metadata_bytes: u64,
    /// Sessions.
    #[n(8)]
    pub sessions: Vec<SessionStatus>,
    /// Copies of unknown chunks that wait for an operator.
    #[n(9)]
    pub quarantined: u64,
    /// Chunks whose lease is open, closing or being reconciled.
    #[n(10)]
    pub leased: u64,
    /// The last position applied.
    #[n(11)]
    pub applied: LogPosition,
    /// The storage classes that are not built in.
    #[n(12)]
    #[cbor(default)]
    pub classes: Vec<ClassStatus>,
    /// What the cluster may use.
    #[n(13)]
    #[cbor(default)]
    pub level: LevelStatus,
    /// Copies and parts that move to emptier servers.
    #[n(14)]
    #[cbor(default)]
    pub balancing: u64,
}

/// The cluster's feature level.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct LevelStatus {
    /// The present one.
    #[n(0)]
    pub level: FeatureLevel,
    /// The newest one that the leader knows.
    #[n(1)]
    pub newest: FeatureLevel,
    /// Who keeps it from being raised to that one.
    #[n(2)]
    pub held_back: Vec<HeldBack>,
}

/// A node that keeps the feature level from being raised.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct HeldBack {
    /// `master`, `metalogger`, `chunkserver`.
    #[n(0)]
    pub role: String,
    /// The member's or the server's number.
    #[n(1)]
    pub id: u64,
    /// Where it listens.
    #[n(2)]
    pub address: Address,
    /// The newest level that it knows; absent when that is not known, as it is away.
    #[n(3)]
    pub knows: Option<FeatureLevel>,
}

/// Chunks by health; each chunk counts once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Health {
    /// No current copy can be reached.
    #[n(0)]
    pub missing: u64,
    /// One copy left of several wanted.
    #[n(1)]
    pub endangered: u64,
    /// Fewer copies than wanted, but more than one.
    #[n(2)]
    pub under_goal: u64,
    /// As many as wanted.
    #[n(3)]
    pub at_goal: u64,
    /// More than wanted.
    #[n(4)]
    pub over_goal: u64,
    /// With a copy where a hard term of its storage class does not permit one.
    #[n(5)]
    #[cbor(default)]
    pub outside: u64,
    /// As many as wanted, but not all where soft terms want them.
    #[n(6)]
    #[cbor(default)]
    pub misplaced: u64,
    /// In whole copies where the storage class wants parts, or the other way round.
    #[n(7)]
    #[cbor(default)]
    pub unshaped: u64,
    /// As many as wanted, some of them on servers that are drained.
    #[n(8)]
    #[cbor(default)]
    pub draining: u64,
    /// Fewer than wanted only while a server in maintenance is away.
    #[n(9)]
    #[cbor(default)]
    pub awaited: u64,
}

/// A storage class.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct ClassStatus {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// What it says.
    #[n(1)]
    pub class: StorageClass,
    /// Files and directories of it.
    #[n(2)]
    pub users: u64,
    /// What of it the servers that are there can't meet now.
    #[n(3)]
    pub unmet: Vec<String>,
}

/// A member of the Raft group.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct MemberStatus {
    /// Its number.
    #[n(0)]
    pub member: u64,
    /// Where it listens.
    #[n(1)]
    pub address: Address,
    /// `leader`, `follower`, `metalogger`.
    #[n(2)]
    pub role: String,
    /// The leader hears it.
    #[n(3)]
    pub alive: bool,
    /// Up to where its log is known to match.
    #[n(4)]
    pub matched: LogPosition,
}

/// A chunkserver.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct ServerStatus {
    /// Which.
    #[n(0)]
    pub server: ServerId,
    /// Where it listens.
    #[n(1)]
    pub address: Address,
    /// The leader hears it.
    #[n(2)]
    pub alive: bool,
    /// Where it stands.
    #[n(3)]
    pub labels: Vec<(String, String)>,
    /// Its disks.
    #[n(4)]
    pub disks: Vec<DiskStatus>,
    /// Copies on it.
    #[n(5)]
    pub copies: u64,
    /// It is drained, and so many chunks still are there; `None`: it is not.
    #[n(6)]
    pub draining: Option<u64>,
    /// It is in maintenance for so many seconds more; `None`: it is not.
    #[n(7)]
    pub maintenance: Option<u32>,
}

/// A disk of a chunkserver.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct DiskStatus {
    /// Which.
    #[n(0)]
    pub disk: DiskId,
    /// The folder, as configured.
    #[n(1)]
    pub path: String,
    /// Its space.
    #[n(2)]
    pub space: Space,
    /// Copies on it.
    #[n(3)]
    pub copies: u64,
    /// Why it takes nothing any more; empty while it works.
    #[n(4)]
    pub failed: String,
    /// How far it is scrubbed, if it is.
    #[n(5)]
    #[cbor(default)]
    pub scrub: Option<ScrubStatus>,
    /// How many copies are left, if it is being emptied.
    #[n(6)]
    #[cbor(default)]
    pub draining: Option<u64>,
    /// Bytes that may be in use before nothing new is placed there; `None`, of a server of a
    /// version that does not tell: all.
    #[n(7)]
    #[cbor(default)]
    pub most: Option<u64>,
    /// Why it is thought to be failing, and emptied; empty of one that is trusted.
    #[n(8)]
    #[cbor(default)]
    pub suspected: String,
}

/// How a disk is read to find what is bad.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct ScrubStatus {
    /// At most so many bytes a second.
    #[n(0)]
    pub rate: u64,
    /// Bytes that were checked in this round (of the last one, until the next begins).
    #[n(1)]
    pub bytes: u64,
    /// Of a thousand copies on the disk, how many.
    #[n(2)]
    pub per_mille: u32,
    /// Bad copies that it found since the server started.
    #[n(3)]
    pub findings: u64,
    /// When the last whole round ended, if one did since the server started.
    #[n(4)]
    pub ended: Option<Timestamp>,
}

/// A session.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct SessionStatus {
    /// Which.
    #[n(0)]
    pub session: SessionId,
    /// Its host and mount point.
    #[n(1)]
    pub name: String,
    /// The leader hears it.
    #[n(2)]
    pub alive: bool,
}

/// What `antler info` shows.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct FileInfo {
    /// The object.
    #[n(0)]
    pub attributes: Attributes,
    /// Its chunks.
    #[n(1)]
    pub chunks: Vec<ChunkInfo>,
    /// The name of its storage class.
    #[n(2)]
    #[cbor(default)]
    pub class: String,
    /// What that class says, where the chunks are explained.
    #[n(3)]
    pub policy: Option<String>,
    /// The index from which to ask on, where not all chunks were explained.
    #[n(4)]
    pub next: Option<u32>,
    /// The patterns of a directory.
    #[n(5)]
    #[cbor(default)]
    pub patterns: Vec<ClassPattern>,
}

/// Why a chunk is as it is, for operators.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Explanation {
    /// Its health, in the words of docs/operating.md.
    #[n(0)]
    pub health: String,
    /// What it survives further; `None`: it can't be read now.
    #[n(1)]
    pub survives: Option<Survival>,
    /// What is under way or waited for, a sentence each.
    #[n(2)]
    pub pending: Vec<String>,
}

/// How many of a kind may be lost at once, whichever they are, so that a chunk can still
/// be read: as its copies lie now, nothing repaired meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Survival {
    /// Servers.
    #[n(0)]
    pub servers: u8,
    /// Racks; `None` where no server that has it is labelled with one.
    #[n(1)]
    pub racks: Option<u8>,
    /// Datacentres; likewise.
    #[n(2)]
    pub datacentres: Option<u8>,
}

/// One chunk of a file, for operators.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct ChunkInfo {
    /// Which chunk of the file.
    #[n(0)]
    pub index: u32,
    /// The chunk.
    #[n(1)]
    pub chunk: ChunkId,
    /// Its version.
    #[n(2)]
    pub version: ChunkVersion,
    /// The newest epoch of its leases.
    #[n(3)]
    pub epoch: Epoch,
    /// How far it holds real content.
    #[n(4)]
    pub valid: u32,
    /// `settled`, `open`, `closing`, `broken` or `reconciling`.
    #[n(5)]
    pub lease: String,
    /// Copies wanted, or parts.
    #[n(6)]
    pub wanted: u8,
    /// Each known copy.
    #[n(7)]
    pub copies: Vec<CopyInfo>,
    /// In which parts it lies; `None`: in copies.
    #[n(8)]
    pub stripe: Option<Stripe>,
    /// Why it is so, if that was asked.
    #[n(9)]
    pub explained: Option<Explanation>,
}

/// One copy, for operators.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct CopyInfo {
    /// Whose.
    #[n(0)]
    pub server: ServerId,
    /// Where it listens.
    #[n(1)]
    pub address: Address,
    /// Its version.
    #[n(2)]
    pub version: ChunkVersion,
    /// `current`, `stale`, `doubtful`, `bad`, `suspect` or `away`; where it is explained
    /// also `being made`.
    #[n(3)]
    pub state: String,
    /// Where the server stands.
    #[n(4)]
    pub labels: Vec<(String, String)>,
    /// Which part of an erasure code it is, from 1; 0 for a whole copy.
    #[n(5)]
    #[cbor(default)]
    pub part: u8,
    /// What it is there for, where that was asked: a term of the policy, `spread`,
    /// `surplus`, `outside` or `drained`; `None` for what does not count towards the goal.
    #[n(6)]
    pub fills: Option<String>,
    /// The folder of its disk, where that was asked and is known.
    #[n(7)]
    pub disk: Option<String>,
}
