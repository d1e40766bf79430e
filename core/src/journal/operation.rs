//! What a member of the masters' group asks of its storage, and what comes back.
//! Log operations and image operations run beside each other.

use crate::ids::{LogPosition, Term, Token};
use crate::namespace::State;
use bytes::Bytes;

/// A storage operation of a member.
#[derive(Debug)]
pub enum JournalOperation {
    /// Appends to the log (cutting off what is at or behind the first entry's
    /// position) and stores the hard state, all durable at the completion.
    Append {
        /// Returned with the completion.
        token: Token,
        /// In order, without gaps; may be empty.
        entries: Vec<LogEntry>,
        /// Stored if given.
        hard: Option<HardState>,
    },
    /// Forgets the log up to and including a position that an image covers.
    /// Completes as `Done`.
    Shorten {
        /// Returned with the completion.
        token: Token,
        /// The last position to forget.
        upto: LogPosition,
    },
    /// Empties the log: it continues behind an image that was just installed.
    Restart {
        /// Returned with the completion.
        token: Token,
        /// The image's position.
        position: LogPosition,
        /// The term of that position.
        term: Term,
        /// The hard state to keep.
        hard: HardState,
    },
    /// Writes an image from a clone of the state; older images go after it is durable.
    WriteImage {
        /// Returned with the completion.
        token: Token,
        /// What it covers.
        meta: ImageMeta,
        /// The clone.
        state: Box<State>,
    },
    /// Reads a piece of an image. Completes as `Piece`.
    ReadImage {
        /// Returned with the completion.
        token: Token,
        /// Of which image, so that a slow receiver can finish the one it began; of
        /// the newest when that one is gone.
        position: LogPosition,
        /// From which byte.
        offset: u64,
        /// How much at most.
        length: usize,
    },
    /// Stores a piece of an image that is being received (from offset 0 on it begins
    /// anew). When the last byte is there it is checked, loaded and made durable:
    /// completes as `Installed`, before that as `Done`.
    ReceiveImage {
        /// Returned with the completion.
        token: Token,
        /// Which image.
        position: LogPosition,
        /// Where the piece goes.
        offset: u64,
        /// The image's length.
        total: u64,
        /// The piece.
        data: Bytes,
    },
}

impl JournalOperation {
    /// Whether it concerns images; the others concern the log.
    #[must_use]
    pub fn is_image(&self) -> bool {
        matches!(
            self,
            Self::WriteImage { .. } | Self::ReadImage { .. } | Self::ReceiveImage { .. }
        )
    }

    /// Ties it to its completion.
    #[must_use]
    pub fn token(&self) -> Token {
        match *self {
            Self::Append { token, .. }
            | Self::Shorten { token, .. }
            | Self::Restart { token, .. }
            | Self::WriteImage { token, .. }
            | Self::ReadImage { token, .. }
            | Self::ReceiveImage { token, .. } => token,
        }
    }
}

/// How a storage operation ended. A failure is the medium's: the member stops.
#[derive(Debug)]
pub struct JournalCompletion {
    /// Which operation.
    pub token: Token,
    /// The result.
    pub result: Result<JournalReply, JournalError>,
}

/// The good replies.
#[derive(Debug)]
pub enum JournalReply {
    /// It is durable.
    Done,
    /// A piece of an image.
    Piece {
        /// Which image.
        meta: ImageMeta,
        /// The image's length.
        total: u64,
        /// The bytes.
        data: Bytes,
    },
    /// A received image is in use.
    Installed {
        /// What it covers.
        meta: ImageMeta,
        /// The state, loaded.
        state: Box<State>,
    },
}

/// Why storage did not do it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JournalError {
    /// The medium failed.
    #[error("the medium failed: {0}")]
    Medium(String),
    /// No space for an image: nothing changed, the log stays as it is.
    #[error("no space for an image")]
    Full,
    /// A received image is damaged: it is dropped; ask for it again.
    #[error("the image is damaged: {0}")]
    Damaged(String),
    /// There is no image.
    #[error("there is no image")]
    NoImage,
}

/// One entry of the replicated log as it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogEntry {
    /// Where.
    pub position: LogPosition,
    /// The term in which it was proposed.
    pub term: Term,
    /// Raft's type of entry: 0 normal, 1 or 2 a change of membership.
    pub kind: u8,
    /// Records (`member::entry_codec`), or Raft's change of membership.
    pub data: Bytes,
}

/// What Raft must not forget.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HardState {
    /// The newest term seen.
    pub term: Term,
    /// For whom it voted in that term; 0 for nobody.
    pub vote: u64,
    /// Up to where the log is known to be committed.
    pub commit: LogPosition,
}

/// What an image covers, and who was in the group then.
#[derive(Clone, PartialEq, Eq, Debug, Default, minicbor::Encode, minicbor::Decode)]
pub struct ImageMeta {
    /// The last position applied.
    #[n(0)]
    pub position: LogPosition,
    /// Its term.
    #[n(1)]
    pub term: Term,
    /// Voters' member numbers.
    #[n(2)]
    pub voters: Vec<u64>,
    /// Learners' member numbers.
    #[n(3)]
    pub learners: Vec<u64>,
}
