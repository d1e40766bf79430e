//! Between a chunkserver and every member of the masters' group: the server
//! reports what it holds to all of them, and obeys the leader of the newest term.

use crate::chunk::stripe::Stripe;
use crate::ids::{
    Address, BootId, ChunkVersion, DiskId, Epoch, Incarnation, PartId, ServerId, Term,
};
use crate::wire::client_master::{DiskStatus, LocatedCopy};
use minicbor::{Decode, Encode};

/// From a chunkserver to a member.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum ChunkToMaster {
    /// The first message of every link. The report of every part follows.
    #[n(0)]
    Register {
        /// Who.
        #[n(0)]
        server: ServerId,
        /// Which life.
        #[n(1)]
        boot: BootId,
        /// Where its data port is.
        #[n(2)]
        address: Address,
        /// Where it stands and what it is.
        #[n(3)]
        labels: Vec<(String, String)>,
        /// Its disks.
        #[n(4)]
        disks: Vec<DiskStatus>,
        /// The newest life of the cluster that it has seen.
        #[n(5)]
        incarnation: Incarnation,
    },
    /// Parts that it holds, in batches; after the last one it is registered.
    #[n(1)]
    Report {
        /// Some of them.
        #[n(0)]
        parts: Vec<PartReport>,
        /// These were the last ones.
        #[n(1)]
        last: bool,
    },
    /// I live. Every heartbeat.
    #[n(2)]
    Alive {
        /// Its disks.
        #[n(0)]
        disks: Vec<DiskStatus>,
        /// Operations under way and waiting.
        #[n(1)]
        load: u32,
        /// The server's own clock when it sent this, above 0: comes back in `Heard`.
        #[n(2)]
        sent: u64,
    },
    /// Parts came (by a command or a writer), were found bad, or are still there
    /// though the leader wanted them gone.
    #[n(3)]
    Gained {
        /// Which.
        #[n(0)]
        parts: Vec<PartReport>,
    },
    /// Parts went: deleted, or on a disk that failed.
    #[n(4)]
    Lost {
        /// Which.
        #[n(0)]
        parts: Vec<PartId>,
    },
    /// A command's end.
    #[n(5)]
    CommandDone {
        /// Which.
        #[n(0)]
        command: u64,
        /// How it went.
        #[n(1)]
        result: CommandResult,
    },
    /// It stops gracefully and means to be back.
    #[n(6)]
    Leaving,
}

/// One part on a chunkserver.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct PartReport {
    /// Which.
    #[n(0)]
    pub part: PartId,
    /// Its version.
    #[n(1)]
    pub version: ChunkVersion,
    /// The newest epoch that it has seen.
    #[n(2)]
    pub epoch: Epoch,
    /// On which disk.
    #[n(3)]
    pub disk: DiskId,
    /// A unit of it was found bad: it is no copy any more, but it is there.
    #[n(4)]
    #[cbor(default)]
    pub bad: bool,
    /// Its disk failed and takes no more writes, but all that was acknowledged of the
    /// part is on it and may still be read: no copy, but better than none.
    #[n(5)]
    #[cbor(default)]
    pub suspect: bool,
}

/// From a member to a chunkserver.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum MasterToChunk {
    /// Registered, or heard: sent after the report, in answer to every `Alive`, and
    /// when the keys change.
    #[n(0)]
    Heard {
        /// The member's term.
        #[n(0)]
        term: Term,
        /// The member leads: the serve lease counts from when the `Alive` was sent
        /// that `heard` names.
        #[n(1)]
        leader: bool,
        /// The life of the cluster.
        #[n(2)]
        incarnation: Incarnation,
        /// Keys of capabilities, newest first: `(generation, key)`.
        #[n(3)]
        keys: Vec<CapabilityKey>,
        /// What the newest `Alive` of this link carried; 0 before the first.
        #[n(4)]
        heard: u64,
    },
    /// It may not register: another cluster's life, a server id in use elsewhere.
    #[n(1)]
    Refused {
        /// Why, for the log.
        #[n(0)]
        reason: String,
    },
    /// Do this, once, and say `CommandDone`. Ignored from an older term.
    #[n(2)]
    Command {
        /// Returned with the result.
        #[n(0)]
        command: u64,
        /// The leader's term.
        #[n(1)]
        term: Term,
        /// What.
        #[n(2)]
        body: Command,
    },
}

/// A key that capabilities of one generation are made with.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct CapabilityKey {
    /// Which generation.
    #[n(0)]
    pub generation: u64,
    /// 32 bytes.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub key: Vec<u8>,
}

/// What the leader has a chunkserver do.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Command {
    /// Makes these parts durable with this version, if no newer epoch was seen.
    /// Result: `Parts`, in order.
    #[n(0)]
    SyncParts {
        /// Each with the version and epoch of the lease that ended.
        #[n(0)]
        parts: Vec<(PartId, ChunkVersion, Epoch)>,
    },
    /// Refuses writers below `epoch` from now on, durably (of a part that is not there:
    /// as long as the server lives), and tells what the part is like. Result: `Parts`
    /// with one, `None` if the part was never durable here; `Failed` if that is not
    /// known, as a disk failed or the part can't be read.
    #[n(1)]
    Fence {
        /// Which.
        #[n(0)]
        part: PartId,
        /// The new epoch.
        #[n(1)]
        epoch: Epoch,
    },
    /// Makes the part durable and raises its version; a part that is not there is made,
    /// empty. Result: `Parts` with one.
    #[n(2)]
    SetVersion {
        /// Which.
        #[n(0)]
        part: PartId,
        /// Ignored if a newer one was seen.
        #[n(1)]
        epoch: Epoch,
        /// The new version.
        #[n(2)]
        version: ChunkVersion,
    },
    /// Makes this part equal to another server's: reads it whole, then durably takes
    /// its content with this version and epoch, replacing what is here. Result:
    /// `Parts` with one.
    #[n(3)]
    Replicate {
        /// Which.
        #[n(0)]
        part: PartId,
        /// The version that it gets.
        #[n(1)]
        version: ChunkVersion,
        /// The epoch that it gets.
        #[n(2)]
        epoch: Epoch,
        /// From where, best first; capabilities to read are in them.
        #[n(3)]
        sources: Vec<LocatedCopy>,
    },
    /// Removes parts whose version is at most the given one. Result: `Parts` of none.
    #[n(4)]
    Delete {
        /// Which.
        #[n(0)]
        parts: Vec<(PartId, ChunkVersion)>,
    },
    /// Makes a part of an erasure code, or a whole copy of the chunk, of others: reads
    /// what it takes of the sources, durably keeps what comes of it with this version and
    /// epoch, replacing what is here, and reads it back. Result: `Parts` with one.
    #[n(5)]
    Build {
        /// What is made: a part of `stripe`, or a whole copy.
        #[n(0)]
        part: PartId,
        /// The version that it gets.
        #[n(1)]
        version: ChunkVersion,
        /// The epoch that it gets.
        #[n(2)]
        epoch: Epoch,
        /// In which parts the chunk lies, or is to lie.
        #[n(3)]
        stripe: Stripe,
        /// Of what version the sources are. One of another version is none.
        #[n(4)]
        from: ChunkVersion,
        /// Whole copies, or parts of the stripe, best first; capabilities to read are in
        /// them.
        #[n(5)]
        sources: Vec<LocatedCopy>,
    },
    /// Reads every part of a disk once, beginning now, and tells what is bad as a scrub
    /// does. Result: `Parts` of none, at once; `Failed` if there is no such disk.
    #[n(6)]
    Scrub {
        /// Which disk; all of them if none is named.
        #[n(0)]
        disk: Option<DiskId>,
        /// Bytes a second of each, at most.
        #[n(1)]
        rate: u64,
    },
}

/// How a command went.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum CommandResult {
    /// What the parts are like now; `None` for one that is not there or that failed.
    #[n(0)]
    Parts(#[n(0)] Vec<Option<PartState>>),
    /// It could not be done.
    #[n(1)]
    Failed {
        /// Why, for the log.
        #[n(0)]
        reason: String,
        /// The source that was found bad, if that was it.
        #[n(1)]
        bad_source: Option<ServerId>,
    },
}

/// A part as the leader needs to know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct PartState {
    /// Its version.
    #[n(0)]
    pub version: ChunkVersion,
    /// The newest epoch seen.
    #[n(1)]
    pub epoch: Epoch,
    /// A digest of its content: which units are present and their checksums
    /// (0 where the command does not ask for it).
    #[n(2)]
    pub digest: u64,
    /// The server's life.
    #[n(3)]
    pub boot: BootId,
}
