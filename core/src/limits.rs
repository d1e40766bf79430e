//! Every bound in the system, with the argument beside the relation.

use crate::time::Duration;

/// Bytes of a checksummed unit: the granularity at which a small write costs.
pub const UNIT_SIZE: usize = 4 << 10;
/// Bytes of a block.
pub const BLOCK_SIZE: usize = 64 << 10;
/// Bytes of a chunk.
pub const CHUNK_SIZE: u64 = 64 << 20;
/// Units in a block.
pub const UNITS_PER_BLOCK: usize = BLOCK_SIZE / UNIT_SIZE;
/// Blocks in a chunk.
pub const BLOCKS_PER_CHUNK: u32 = 1024;
/// The largest file: 2^48 bytes, 4 Mi chunks.
pub const FILE_SIZE_MAX: u64 = 1 << 48;

const _: () = assert!(
    BLOCK_SIZE.is_multiple_of(UNIT_SIZE) && UNITS_PER_BLOCK <= 16,
    "16 bits tell a block's units"
);
const _: () = assert!(
    CHUNK_SIZE == BLOCK_SIZE as u64 * BLOCKS_PER_CHUNK as u64,
    "blocks fill a chunk"
);

/// Bytes of a name in a directory (POSIX NAME_MAX).
pub const NAME_MAX: usize = 255;
/// Bytes of a symlink's target (PATH_MAX less the NUL).
pub const SYMLINK_MAX: usize = 4095;
/// Bytes of an extended attribute's name and value, and attributes of one inode (xattr(7)).
pub const XATTR_NAME_MAX: usize = 255;
/// Bytes of one extended attribute's value.
pub const XATTR_VALUE_MAX: usize = 64 << 10;
/// Extended attributes of one inode.
pub const XATTRS_MAX: usize = 256;
/// Hard links to one inode.
pub const LINK_MAX: u32 = 65_000;
/// Copies of a chunk.
pub const COPIES_MAX: u8 = 9;
/// Parts of a chunk: 32 with data and 8 with parity.
pub const PARTS_MAX: u8 = 40;

/// Bytes of a frame's body (its bulk data apart).
pub const FRAME_BODY_MAX: usize = 1 << 20;
/// Bytes of the bulk data behind a body.
pub const FRAME_DATA_MAX: usize = 4 << 20;
/// Bytes of data in one read or write of a chunk.
pub const CHUNK_IO_MAX: usize = 1 << 20;
const _: () = assert!(CHUNK_IO_MAX <= FRAME_DATA_MAX, "one request fits a frame");

/// Requests of one session that the master remembers or has under way. A
/// client never has more unanswered; a request beyond is answered EAGAIN.
pub const SESSION_WINDOW: u64 = 1024;
/// Questions and heartbeats that wait at a leader until it knows that it leads still. A
/// question beyond is answered EAGAIN; a heartbeat beyond is not answered, and another
/// one follows soon.
pub const QUESTIONS_MAX: usize = 64 << 10;
/// Bytes of log entries that one append carries to the disk.
pub const LOG_BATCH_MAX: usize = 1 << 20;
/// Records proposed as one log entry.
pub const ENTRY_RECORDS_MAX: usize = 512;
/// Bytes of log entries that a leader has proposed and that are not committed; a
/// proposal beyond is dropped, and whoever waits for it told.
pub const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;
const _: () = assert!(
    LOG_BATCH_MAX + FRAME_BODY_MAX < FRAME_DATA_MAX,
    "an entry that the last record of its group made longest still fits a frame"
);
/// Messages with log entries on their way to one follower.
pub const FOLLOWER_INFLIGHT_MAX: usize = 32;
/// Bytes of a log segment (pre-zeroed).
pub const LOG_SEGMENT_SIZE: u64 = 16 << 20;
/// Bytes of log after the last image that make the next image due.
pub const IMAGE_LOG_BYTES: u64 = 64 << 20;
/// Bytes of an image that one message carries to a member that fell behind.
pub const IMAGE_PIECE_SIZE: usize = 1 << 20;

/// Chunks in one message of a chunkserver's report or of a command.
pub const REPORT_BATCH: usize = 4096;
/// Chunks of each server that one question about stopping it looks at.
pub const STOP_LOOKS_MAX: usize = 1 << 16;
/// Chunks that one explanation tells of, so that it fits a frame.
pub const EXPLAIN_MAX: usize = 32;
/// Commands under way at one chunkserver.
pub const COMMANDS_INFLIGHT_MAX: usize = 64;
/// Copies being made at once on one chunkserver, as source or target: many small ones
/// share each sync of the target's disk.
pub const REPAIR_INFLIGHT_MAX: usize = 32;
/// Of these, copies of chunks with more than `REPAIR_BULK_BYTES`.
pub const REPAIR_BULK_MAX: usize = 2;
/// Clients' operations beside repair, and as many without, of which a chunkserver judges how
/// much repair may take.
pub const REPAIR_SAMPLES: u32 = 128;
/// Bytes from which on a chunk's copy is bound by bandwidth instead of by round trips.
pub const REPAIR_BULK_BYTES: u32 = 1 << 20;
/// Chunks at rest that are converted at once.
pub const CONVERSIONS_MAX: usize = 16;
const _: () = assert!(
    REPAIR_INFLIGHT_MAX < COMMANDS_INFLIGHT_MAX && REPAIR_BULK_MAX <= REPAIR_INFLIGHT_MAX,
    "repair leaves room for the commands that writers wait for"
);
/// Operations that a chunkserver has under way on one disk; more wait in its queue.
pub const DISK_INFLIGHT_MAX: usize = 64;
/// Operations that wait at a chunkserver; a request beyond is answered `Busy`.
pub const CHUNKSERVER_QUEUE_MAX: usize = 16 << 10;

/// Bytes written but not yet acknowledged by every copy, per mount.
pub const WRITE_WINDOW_BYTES: usize = 32 << 20;
/// Bytes acknowledged but not yet synced that the client keeps to resend; at
/// this mark it syncs by itself.
pub const UNSYNCED_BYTES_MAX: usize = 64 << 20;
const _: () = assert!(
    WRITE_WINDOW_BYTES <= UNSYNCED_BYTES_MAX,
    "what is in flight is not synced"
);
/// Bytes of read-ahead per open file.
pub const READ_AHEAD_BYTES: u64 = 4 << 20;

/// For how long a session may answer from its cache after it last heard the leader.
pub const CACHE_LEASE: Duration = Duration::from_secs(2);
/// How often a client and a chunkserver tell the leader that they live.
pub const HEARTBEAT: Duration = Duration::from_millis(500);
/// After how long unheard a session ends; its orphans and locks go.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(120);
/// For how long a chunkserver serves after it last heard the leader.
pub const SERVE_LEASE: Duration = Duration::from_secs(5);
/// After how long unheard a chunkserver counts as gone, while its link is up.
pub const SERVER_TIMEOUT: Duration = Duration::from_secs(3);
/// Copies move to a server that uses so much less of its space, in percent.
pub const BALANCE_PERCENT: u8 = 10;
/// Copies that move at once from or to a server, so that they are all as full.
pub const BALANCE_INFLIGHT_MAX: usize = 2;
/// For how long a chunk stays on disk after nobody refers to it.
pub const DELETE_GRACE: Duration = Duration::from_secs(60);
/// For how long a file is left alone before its chunks are converted to parts.
pub const CONVERT_AFTER: Duration = Duration::from_secs(30);
/// For how long a server that left gracefully may be away before repair starts.
pub const RESTART_GRACE: Duration = Duration::from_secs(60);
/// How far two clocks may drift apart over one expiry, in parts per thousand:
/// an expiry is widened by it on the side that must be later.
pub const DRIFT_PER_MILLE: u32 = 50;
/// A Raft follower campaigns after this much silence (randomised up to twice).
pub const ELECTION_TIMEOUT: Duration = Duration::from_millis(1000);
/// Raft's tick.
pub const RAFT_TICK: Duration = Duration::from_millis(50);
/// How often an idle dirty copy is committed by its chunkserver by itself.
pub const COMMIT_INTERVAL: Duration = Duration::from_secs(5);
/// After how long without an answer the next server of a chain, or the source of a
/// copy, counts as unreachable.
pub const CHAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// After how long without an answer a read is also sent to another copy.
pub const HEDGE_DELAY: Duration = Duration::from_millis(200);

const _: () = assert!(
    HEARTBEAT.as_millis() * 3 < CACHE_LEASE.as_millis(),
    "three heartbeats may be lost"
);
const _: () = assert!(
    CACHE_LEASE.as_millis() < SESSION_TIMEOUT.as_millis(),
    "a cache lapses before its session"
);
