//! Between the members of the masters' group: Raft's messages, in an encoding
//! of our own, and images for members that fell behind the log.

use crate::ids::{LogPosition, MemberId};
use bytes::Bytes;
use minicbor::{Decode, Encode};

/// From one member to another.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum PeerMessage {
    /// A message of Raft, encoded by `member::raft_codec`, in the data.
    #[n(0)]
    Raft {
        /// Who sends it.
        #[n(0)]
        from: MemberId,
        /// The encoded message.
        #[cbor(skip)]
        data: Bytes,
    },
    /// Asks for a piece of the image at `position`; sent again after any break, it
    /// goes on where the receiver stands.
    #[n(1)]
    ImageWanted {
        /// Which image.
        #[n(0)]
        position: LogPosition,
        /// From which byte.
        #[n(1)]
        offset: u64,
    },
    /// A piece of an image.
    #[n(2)]
    ImagePiece {
        /// Which image; another one than asked for when that is gone: begin anew.
        #[n(0)]
        position: LogPosition,
        /// Where the piece goes.
        #[n(1)]
        offset: u64,
        /// The whole image's length.
        #[n(2)]
        total: u64,
        /// The bytes.
        #[cbor(skip)]
        data: Bytes,
    },
}
