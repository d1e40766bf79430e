//! To a chunkserver's data port, from clients and from other chunkservers (the
//! chain, and copies made by repair), and back. Every request carries a
//! capability; bulk data travels behind the body.

use crate::ids::{BootId, ChunkVersion, RequestId, ServerId};
use crate::wire::capability::Capability;
use crate::wire::client_master::LocatedCopy;
use bytes::Bytes;
use minicbor::{Decode, Encode};

/// A request to a chunkserver. Numbered per link by the sender.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct ChunkRequest {
    /// Returned with the reply.
    #[n(0)]
    pub request: RequestId,
    /// The right to do it, on this server and in this life of it.
    #[n(1)]
    pub capability: Capability,
    /// The rest of the chain, in order, for `Write` and `Sync`.
    #[n(2)]
    pub chain: Vec<LocatedCopy>,
    /// What to do.
    #[n(3)]
    pub body: ChunkRequestBody,
    /// The how-manieth sync under the lease it is, from 1, if it syncs; 0 where that is not
    /// counted.
    #[n(4)]
    #[cbor(default)]
    pub syncs: u32,
    /// The data of a `Write`.
    #[cbor(skip)]
    pub data: Bytes,
}

/// What a chunkserver is asked.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum ChunkRequestBody {
    /// Returns whole units: `offset` and `length` are multiples of UNIT_SIZE,
    /// `length` at most CHUNK_IO_MAX, within the chunk.
    #[n(0)]
    Read {
        /// From where in the chunk.
        #[n(0)]
        offset: u32,
        /// How much.
        #[n(1)]
        length: u32,
    },
    /// Writes the request's data at `offset` (any alignment), at every copy of the
    /// chain; the reply means that every copy has it (not yet durable). The first
    /// write under a lease makes the copy if it is not there.
    #[n(1)]
    Write {
        /// Where in the chunk.
        #[n(0)]
        offset: u32,
        /// CRC-32 of each piece of the data, cut at unit boundaries of the chunk: the
        /// first and last piece may be shorter than a unit.
        #[n(1)]
        checksums: Vec<u32>,
        /// First drop everything from this byte on (it reads as zeros then): the
        /// lease's `valid`, sent with the first write under the lease. What is durable there
        /// is gone for good when the reply comes, though nothing else need be durable yet.
        #[n(2)]
        drop_from: Option<u32>,
        /// The data and all before it is durable at every copy when the reply comes.
        #[n(3)]
        sync: bool,
    },
    /// Makes a range read as zeros, at every copy of the chain. A range of no bytes changes
    /// nothing: the reply tells the lives of the copies.
    #[n(2)]
    Zero {
        /// From where in the chunk.
        #[n(0)]
        offset: u32,
        /// How much.
        #[n(1)]
        length: u32,
    },
    /// Makes everything acknowledged so far durable, with the capability's version,
    /// at every copy of the chain. Makes the copy (empty) if it is not there.
    #[n(3)]
    Sync,
    /// Which units are present. For SEEK_DATA and SEEK_HOLE.
    #[n(4)]
    Map,
}

/// A reply of a chunkserver.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct ChunkReply {
    /// Which request.
    #[n(0)]
    pub request: RequestId,
    /// How it went.
    #[n(1)]
    pub result: Result<ChunkReplyBody, ChunkError>,
    /// The data of a `Read`.
    #[cbor(skip)]
    pub data: Bytes,
}

/// The good replies.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum ChunkReplyBody {
    /// The data follows: as much as asked for, absent units as zeros.
    #[n(0)]
    Read {
        /// CRC-32 of each unit.
        #[n(0)]
        checksums: Vec<u32>,
        /// One bit a unit, least significant first: set when the unit is present.
        #[cbor(n(1), with = "minicbor::bytes")]
        present: Vec<u8>,
        /// The copy's version.
        #[n(2)]
        version: ChunkVersion,
    },
    /// Done at every copy of the chain.
    #[n(1)]
    Done {
        /// This server's life and those behind it in the chain.
        #[n(0)]
        boots: Vec<BootId>,
    },
    /// The present units: as in `Read`, for the whole chunk up to the last present one.
    #[n(2)]
    Map {
        /// One bit a unit.
        #[cbor(n(0), with = "minicbor::bytes")]
        present: Vec<u8>,
    },
}

/// Why a chunkserver did not do it, and which server of the chain it was.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct ChunkError {
    /// Whose fault.
    #[n(0)]
    pub server: ServerId,
    /// What.
    #[n(1)]
    pub kind: ChunkErrorKind,
}

/// Why a chunkserver did not do it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(index_only)]
pub enum ChunkErrorKind {
    /// The capability is forged, expired, for another life or server, or lacks the right:
    /// ask the master again.
    #[n(0)]
    Refused,
    /// A newer epoch was seen: the lease is over.
    #[n(1)]
    Fenced,
    /// The copy is older than the capability's version: ask the master again.
    #[n(2)]
    Version,
    /// There is no such copy here.
    #[n(3)]
    NotFound,
    /// A unit's checksum is wrong: read another copy.
    #[n(4)]
    Corrupt,
    /// The disk failed.
    #[n(5)]
    Medium,
    /// No space.
    #[n(6)]
    Full,
    /// Too much under way, or not registered with the leader, or the link was one to an
    /// earlier life: try again later.
    #[n(7)]
    Busy,
    /// The next server of the chain can't be reached.
    #[n(8)]
    Unreachable,
    /// The request makes no sense (lengths, ranges).
    #[n(9)]
    Invalid,
}

impl ChunkErrorKind {
    /// What the loss of a link to the life `linked`, if it came up, is to a request for
    /// the life `meant` of the same server.
    ///
    /// A server that lost power may leave a link half open. That it breaks in the end says
    /// nothing of the life that is there now: a mount that blamed one such copy after the
    /// other would go on with a last one, whatever that is like. Nor did anybody take the
    /// request, as its capability is good for that life only: it may be sent again as it is.
    #[must_use]
    pub fn of_lost_link(linked: Option<BootId>, meant: BootId) -> Self {
        match linked {
            Some(linked) if linked != meant => Self::Busy,
            Some(_) | None => Self::Unreachable,
        }
    }
}
