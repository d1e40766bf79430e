//! What a client is told at its start, and the bounds that it keeps. The bounds
//! are fields so that a simulation can make them tiny.

use crate::ids::Address;
use crate::limits;
use crate::time::Duration;
use crate::version::FeatureLevel;

/// How a client is set up.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The masters, in the order in which they are tried first.
    pub masters: Vec<Address>,
    /// Shown to operators: host and mount point.
    pub name: String,
    /// Drawn at random once per mount; names its sessions.
    pub nonce: u64,
    /// Where the client is (`dc`, `rack`, ...).
    pub labels: Vec<(String, String)>,
    /// After how long a request that gets nowhere fails; `None`: never.
    pub retry_for: Option<Duration>,
    /// The bounds.
    pub limits: Limits,
    /// The version that it is built as.
    pub speaks: FeatureLevel,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            masters: Vec::new(),
            name: String::new(),
            nonce: 0,
            labels: Vec::new(),
            retry_for: None,
            limits: Limits::default(),
            speaks: FeatureLevel::NEWEST,
        }
    }
}

/// The client's bounds.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Mutations unanswered at once; the master refuses more than its own window.
    pub session_window: u64,
    /// Bytes written but not acknowledged by every copy; more writes wait.
    pub write_window_bytes: u64,
    /// Bytes kept until they are durable; at half of it the client syncs by itself,
    /// at this mark writes wait.
    pub unsynced_bytes_max: u64,
    /// Bytes of one read or write of a chunk; a multiple of UNIT_SIZE, at most CHUNK_IO_MAX.
    pub piece_bytes: u32,
    /// Bytes read ahead of a sequential reader.
    pub read_ahead_bytes: u64,
    /// Bytes read ahead for all handles together.
    pub read_cache_bytes: u64,
    /// Attributes cached.
    pub attributes_max: usize,
    /// Names cached.
    pub dentries_max: usize,
    /// Locations of chunks cached.
    pub locations_max: usize,
    /// Chunks closed unsynced that are remembered, so that a later fsync or rename can
    /// still sync them. Of more, the leader is asked which it has synced by itself; those
    /// are forgotten, and what is too many of the others is synced.
    pub unsettled_max: usize,
    /// Chunks located by one question, at most 64.
    pub locate_count: u32,
    /// How often the leader is told that the client lives.
    pub heartbeat: Duration,
    /// How long the kernel may keep a name or attributes, at most.
    pub kernel_validity: Duration,
    /// After how long without an answer a read goes to another copy too.
    pub hedge_delay: Duration,
    /// How long written bytes wait for neighbours before they are sent.
    pub write_delay: Duration,
    /// How long acknowledged writes of an open file wait before they are committed.
    pub commit_delay: Duration,
    /// After how long without writes a lease is given back.
    pub lease_idle: Duration,
    /// How long closed inodes and unused leases are gathered into one message.
    pub batch_delay: Duration,
    /// After how long a link that does not come up, or a master that does not
    /// answer, is given up for the next.
    pub master_timeout: Duration,
    /// After how long a chunkserver that does not answer counts as failed.
    pub chunk_timeout: Duration,
    /// The first pause before something is tried again; it doubles.
    pub backoff_min: Duration,
    /// The longest pause before something is tried again.
    pub backoff_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            session_window: limits::SESSION_WINDOW,
            write_window_bytes: limits::WRITE_WINDOW_BYTES as u64,
            unsynced_bytes_max: limits::UNSYNCED_BYTES_MAX as u64,
            piece_bytes: u32::try_from(limits::CHUNK_IO_MAX).expect("a chunk has 32-bit offsets"),
            read_ahead_bytes: limits::READ_AHEAD_BYTES,
            read_cache_bytes: 16 * limits::READ_AHEAD_BYTES,
            attributes_max: 128 << 10,
            dentries_max: 128 << 10,
            locations_max: 16 << 10,
            unsettled_max: 64 << 10,
            locate_count: 16,
            heartbeat: limits::HEARTBEAT,
            kernel_validity: Duration::from_secs(1),
            hedge_delay: limits::HEDGE_DELAY,
            write_delay: Duration::from_millis(50),
            commit_delay: Duration::from_secs(1),
            lease_idle: Duration::from_secs(1),
            batch_delay: Duration::from_millis(50),
            master_timeout: Duration::from_secs(2),
            chunk_timeout: Duration::from_secs(10),
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_secs(1),
        }
    }
}

impl Limits {
    /// # Panics
    /// When the bounds contradict each other.
    pub(super) fn check(&self) {
        let unit = u32::try_from(limits::UNIT_SIZE).expect("a unit is small");
        let largest = u32::try_from(limits::CHUNK_IO_MAX).expect("a chunk has 32-bit offsets");
        assert!(
            self.piece_bytes >= unit && self.piece_bytes <= largest,
            "a piece is one request"
        );
        assert!(
            self.piece_bytes.is_multiple_of(unit),
            "a piece has whole units"
        );
        assert!(
            self.session_window >= 1 && self.session_window <= limits::SESSION_WINDOW,
            "the master refuses more"
        );
        assert!(
            self.write_window_bytes <= self.unsynced_bytes_max,
            "what is in flight is not synced"
        );
        assert!((1..=64).contains(&self.locate_count), "1..=64 chunks");
    }
}
