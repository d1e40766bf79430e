//! What is said between processes: one enum per direction, and the frame that
//! carries it (drawn in docs/formats.md).
//!
//! ```text
//! 0   4   magic "ANT1"
//! 4   1   kind: which enum the body holds
//! 5   3   zero
//! 8   4   length of the body, at most FRAME_BODY_MAX
//! 12  4   length of the bulk data, at most FRAME_DATA_MAX
//! 16  4   CRC-32 of the body
//! 20  4   CRC-32 of the 20 bytes before
//! 24  ..  the body: CBOR with numbered fields, unknown ones skipped
//! ..  ..  the bulk data (carries checksums of its own where it is content)
//! ```
//!
//! Lengths are checked before anything is allocated. Leaves connections and the
//! first exchange's sockets to the drivers; the exchange itself is in `hello`.

pub mod capability;
pub mod chunk_master;
pub mod client_chunk;
pub mod client_master;
pub mod hello;
pub mod master_peer;
mod version;

use crate::limits::{FRAME_BODY_MAX, FRAME_DATA_MAX};
use crate::version::FeatureLevel;
use bytes::Bytes;
use chunk_master::{ChunkToMaster, MasterToChunk};
use client_chunk::{ChunkReply, ChunkRequest};
use client_master::{ClientToMaster, MasterToClient};
use master_peer::PeerMessage;

/// Bytes of a frame's header.
pub const HEADER_SIZE: usize = 24;
const MAGIC: [u8; 4] = *b"ANT1";

/// Anything that one process says to another after the first exchange.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// Client to master.
    ClientToMaster(ClientToMaster),
    /// Master to client.
    MasterToClient(MasterToClient),
    /// Client or chunkserver to chunkserver.
    ChunkRequest(ChunkRequest),
    /// Chunkserver to client or chunkserver.
    ChunkReply(ChunkReply),
    /// Chunkserver to master.
    ChunkToMaster(ChunkToMaster),
    /// Master to chunkserver.
    MasterToChunk(MasterToChunk),
    /// Member to member.
    Peer(PeerMessage),
}

/// A fault of the peer: its link is closed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WireError {
    /// The frame does not begin as a frame does.
    #[error("not an Antler frame")]
    Magic,
    /// The header's checksum is wrong.
    #[error("the frame's header is damaged")]
    Header,
    /// A length is beyond its bound.
    #[error("a frame of {body} + {data} bytes is beyond the bounds")]
    Length {
        /// Of the body.
        body: usize,
        /// Of the data.
        data: usize,
    },
    /// The body's checksum is wrong.
    #[error("the frame's body is damaged")]
    Checksum,
    /// The kind is not known.
    #[error("unknown kind of frame {0}")]
    Kind(u8),
    /// The body holds what the link's version has no words for.
    #[error("a message of version {since} on a link of version {version}")]
    Version {
        /// What it came with.
        since: FeatureLevel,
        /// What is spoken.
        version: FeatureLevel,
    },
    /// The body does not decode.
    #[error("the frame's body does not decode: {0}")]
    Body(String),
}

/// A checked header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Which enum the body holds.
    pub kind: u8,
    /// Bytes of the body.
    pub body: usize,
    /// Bytes of the data behind it.
    pub data: usize,
    checksum: u32,
}

impl Header {
    /// Reads and checks a header, its lengths included.
    ///
    /// # Errors
    /// When it is not a header, is damaged, or names lengths beyond the bounds.
    pub fn decode(bytes: &[u8; HEADER_SIZE]) -> Result<Self, WireError> {
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if bytes[..4] != MAGIC {
            return Err(WireError::Magic);
        }
        if crc32fast::hash(&bytes[..20]) != word(20) {
            return Err(WireError::Header);
        }
        let header = Self {
            kind: bytes[4],
            body: word(8) as usize,
            data: word(12) as usize,
            checksum: word(16),
        };
        if header.body > FRAME_BODY_MAX || header.data > FRAME_DATA_MAX {
            return Err(WireError::Length {
                body: header.body,
                data: header.data,
            });
        }
        Ok(header)
    }
}

impl Message {
    /// The header and body, and the data to send behind them.
    ///
    /// # Panics
    /// When the body or data is beyond its bound: senders cut before.
    #[must_use]
    pub fn encode(&self) -> (Vec<u8>, Bytes) {
        let mut frame = Vec::new();
        let data = self.encode_into(&mut frame);
        (frame, data)
    }

    /// Appends the header and body to `buffer`, so that many frames share one, and
    /// returns the data to send behind them.
    ///
    /// # Panics
    /// When the body or data is beyond its bound: senders cut before.
    #[must_use]
    pub fn encode_into(&self, buffer: &mut Vec<u8>) -> Bytes {
        let start = buffer.len();
        buffer.resize(start + HEADER_SIZE, 0);
        let kind = match self {
            Self::ClientToMaster(m) => put(buffer, m, 1),
            Self::MasterToClient(m) => put(buffer, m, 2),
            Self::ChunkRequest(m) => put(buffer, m, 3),
            Self::ChunkReply(m) => put(buffer, m, 4),
            Self::ChunkToMaster(m) => put(buffer, m, 5),
            Self::MasterToChunk(m) => put(buffer, m, 6),
            Self::Peer(m) => put(buffer, m, 7),
        };
        let data = self.data();
        seal(&mut buffer[start..], kind, data.len());
        data
    }

    /// Decodes a body and attaches the data behind it.
    ///
    /// # Errors
    /// When the body is damaged, of an unknown kind, or does not decode.
    pub fn decode(header: Header, body: &[u8], data: Bytes) -> Result<Self, WireError> {
        if crc32fast::hash(body) != header.checksum {
            return Err(WireError::Checksum);
        }
        let mut message = match header.kind {
            1 => Self::ClientToMaster(parse(body)?),
            2 => Self::MasterToClient(parse(body)?),
            3 => Self::ChunkRequest(parse(body)?),
            4 => Self::ChunkReply(parse(body)?),
            5 => Self::ChunkToMaster(parse(body)?),
            6 => Self::MasterToChunk(parse(body)?),
            7 => Self::Peer(parse(body)?),
            kind => return Err(WireError::Kind(kind)),
        };
        message.attach(data);
        Ok(message)
    }

    /// The bulk data that travels behind the body; empty for most.
    #[must_use]
    pub fn data(&self) -> Bytes {
        match self {
            Self::ChunkRequest(ChunkRequest { data, .. })
            | Self::ChunkReply(ChunkReply { data, .. })
            | Self::Peer(PeerMessage::Raft { data, .. } | PeerMessage::ImagePiece { data, .. }) => {
                data.clone()
            }
            _ => Bytes::new(),
        }
    }

    fn attach(&mut self, bulk: Bytes) {
        match self {
            Self::ChunkRequest(ChunkRequest { data, .. })
            | Self::ChunkReply(ChunkReply { data, .. })
            | Self::Peer(PeerMessage::Raft { data, .. } | PeerMessage::ImagePiece { data, .. }) => {
                *data = bulk
            }
            _ => {}
        }
    }
}

fn put<M: minicbor::Encode<()>>(frame: &mut Vec<u8>, message: &M, kind: u8) -> u8 {
    minicbor::encode(message, frame).expect("writing to memory does not fail");
    kind
}

fn parse<'b, M: minicbor::Decode<'b, ()>>(body: &'b [u8]) -> Result<M, WireError> {
    minicbor::decode(body).map_err(|error| WireError::Body(error.to_string()))
}

fn seal(frame: &mut [u8], kind: u8, data: usize) {
    let body = frame.len() - HEADER_SIZE;
    assert!(
        body <= FRAME_BODY_MAX && data <= FRAME_DATA_MAX,
        "a sender cuts before the bound"
    );
    let checksum = crc32fast::hash(&frame[HEADER_SIZE..]);
    frame[..4].copy_from_slice(&MAGIC);
    frame[4] = kind;
    frame[8..12].copy_from_slice(&u32::try_from(body).expect("within the bound").to_le_bytes());
    frame[12..16].copy_from_slice(&u32::try_from(data).expect("within the bound").to_le_bytes());
    frame[16..20].copy_from_slice(&checksum.to_le_bytes());
    let own = crc32fast::hash(&frame[..20]);
    frame[20..24].copy_from_slice(&own.to_le_bytes());
}
