//! What follows an answer of the leader.

use super::request::{ClientRequest, Handle};
use super::unsettled::Owed;
use super::write::Place;
use crate::attributes::{AttributeChange, Credentials, RenameMode};
use crate::ids::{ChunkId, InodeId};

/// How a file is to be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct OpenFlags {
    pub(super) read: bool,
    pub(super) write: bool,
    pub(super) truncate: bool,
}

/// A lease that is being given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ending {
    pub(super) inode: InodeId,
    pub(super) index: u32,
    pub(super) chunk: ChunkId,
    /// It was said to be synced.
    pub(super) synced: bool,
}

/// What to do with an answer.
#[derive(Debug)]
pub(super) enum Then {
    Lookup {
        operation: u64,
        parent: InodeId,
        name: Vec<u8>,
    },
    /// GetAttributes.
    Attributes {
        operation: u64,
    },
    /// Attributes that a request needs first.
    Again {
        request: Box<ClientRequest>,
    },
    Changed {
        operation: u64,
        inode: InodeId,
    },
    Made {
        operation: u64,
        parent: InodeId,
        name: Vec<u8>,
    },
    Created {
        operation: u64,
        parent: InodeId,
        name: Vec<u8>,
        credentials: Credentials,
        flags: OpenFlags,
    },
    Opened {
        operation: u64,
        inode: InodeId,
        credentials: Credentials,
        flags: OpenFlags,
    },
    Removed {
        operation: u64,
        parent: InodeId,
        name: Vec<u8>,
    },
    Renamed {
        operation: u64,
        from: (InodeId, Vec<u8>),
        to: (InodeId, Vec<u8>),
        mode: RenameMode,
    },
    Linked {
        operation: u64,
        parent: InodeId,
        name: Vec<u8>,
    },
    Listed {
        operation: u64,
        inode: InodeId,
    },
    Bytes {
        operation: u64,
    },
    FileSystem {
        operation: u64,
    },
    Told {
        operation: u64,
    },
    /// An extended attribute or the storage class was set or removed.
    AttributeChanged {
        operation: u64,
        inode: InodeId,
    },
    /// A truncation that holds the file alone. The operation is `None` once its
    /// caller was told that it takes too long.
    Truncated {
        inode: InodeId,
        operation: Option<u64>,
        change: AttributeChange,
        opened: Option<Handle>,
    },
    /// A fallocate; `alone` if it holds the file alone.
    Allocated {
        inode: InodeId,
        operation: Option<u64>,
        offset: u64,
        length: u64,
        alone: bool,
    },
    Lease {
        inode: InodeId,
        index: u32,
    },
    Committed {
        inode: InodeId,
    },
    Released {
        leases: Vec<Ending>,
    },
    Located {
        inode: InodeId,
        index: u32,
    },
    /// What was closed unsynced and the leader was asked about.
    Unsettled {
        asked: Vec<(Place, Owed)>,
    },
    /// Nobody waits.
    Reported,
    /// The caller was told an error already.
    Abandoned,
}

impl Then {
    /// Its failure to end is somebody else's to judge: no time limit of its own.
    pub(super) fn is_patient(&self) -> bool {
        matches!(
            self,
            Self::Lease { .. }
                | Self::Committed { .. }
                | Self::Released { .. }
                | Self::Unsettled { .. }
                | Self::Reported
        )
    }

    /// EAGAIN means to ask the same again after a pause.
    pub(super) fn rests(&self) -> bool {
        !matches!(
            self,
            Self::Lease { .. } | Self::Reported | Self::Abandoned | Self::Told { .. }
        )
    }

    /// The caller of an operation that holds a file alone: it may be told early, but
    /// the file stays held until the leader answered.
    pub(super) fn exclusive_caller(&mut self) -> Option<&mut Option<u64>> {
        match self {
            Self::Truncated { operation, .. }
            | Self::Allocated {
                operation,
                alone: true,
                ..
            } => Some(operation),
            _ => None,
        }
    }

    /// It is about leases, which end with the session.
    pub(super) fn ends_with_session(&self) -> bool {
        matches!(
            self,
            Self::Lease { .. } | Self::Committed { .. } | Self::Released { .. } | Self::Abandoned
        )
    }
}
