//! What a member must know before it starts: who it is, who else there is, and
//! the knobs that the simulator turns. Checked once; nothing here changes later
//! (the membership does, by records: `super::peers`).

use crate::ids::{Address, MemberId};
use crate::limits::{
    DRIFT_PER_MILLE, ELECTION_TIMEOUT, FOLLOWER_INFLIGHT_MAX, IMAGE_LOG_BYTES, IMAGE_PIECE_SIZE,
    LOG_BATCH_MAX, RAFT_TICK, UNCOMMITTED_BYTES_MAX,
};
use crate::time::Duration;
use crate::version::FeatureLevel;

/// A member of the group as configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberInfo {
    /// Its number, never 0.
    pub member: MemberId,
    /// Where it listens.
    pub address: Address,
    /// A master votes, a metalogger does not.
    pub voter: bool,
}

/// How a member runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberConfig {
    /// Which member this is.
    pub member: MemberId,
    /// Everybody, itself included.
    pub members: Vec<MemberInfo>,
    /// Raft's tick.
    pub tick: Duration,
    /// Ticks of silence after which a follower campaigns, randomised up to twice.
    pub election_ticks: usize,
    /// Ticks between two heartbeats of a leader.
    pub heartbeat_ticks: usize,
    /// Bytes of log after the last image that make the next one due.
    pub image_log_bytes: u64,
    /// Bytes of an image in one message, at most `IMAGE_PIECE_SIZE`.
    pub image_piece_size: usize,
    /// Bytes of log entries that a leader proposes at once, and that one message
    /// carries (one entry may be longer), at most `LOG_BATCH_MAX` and what may be
    /// uncommitted.
    pub log_batch_max: usize,
    /// Bytes of log entries that a leader has proposed and that are not committed, at
    /// most `UNCOMMITTED_BYTES_MAX`.
    pub uncommitted_bytes_max: u64,
    /// Messages with log entries on their way to one follower, at most
    /// `FOLLOWER_INFLIGHT_MAX`.
    pub follower_inflight_max: usize,
    /// The version that it is built as: it goes no further in a log, and begins on no
    /// image, of a feature level above.
    pub speaks: FeatureLevel,
}

impl MemberConfig {
    /// The configuration of `member` in a group of `members`, with the limits of
    /// `limits.rs`.
    #[must_use]
    pub fn new(member: MemberId, members: Vec<MemberInfo>) -> Self {
        let ticks = ELECTION_TIMEOUT.as_nanos() / RAFT_TICK.as_nanos();
        Self {
            member,
            members,
            tick: RAFT_TICK,
            election_ticks: usize::try_from(ticks).expect("a constant of a few ticks"),
            heartbeat_ticks: 2,
            image_log_bytes: IMAGE_LOG_BYTES,
            image_piece_size: IMAGE_PIECE_SIZE,
            log_batch_max: LOG_BATCH_MAX,
            uncommitted_bytes_max: UNCOMMITTED_BYTES_MAX,
            follower_inflight_max: FOLLOWER_INFLIGHT_MAX,
            speaks: FeatureLevel::NEWEST,
        }
    }

    /// The shortest silence after which anybody campaigns or votes.
    #[must_use]
    pub fn election_timeout(&self) -> Duration {
        self.tick * u32::try_from(self.election_ticks).expect("a few ticks")
    }

    /// For how long a stamped round vouches for a leader, counted on the leader's
    /// clock from the round's start: the election timeout less the drift of two
    /// clocks over it.
    #[must_use]
    pub(super) fn lease_duration(&self) -> Duration {
        self.election_timeout() * (1000 - DRIFT_PER_MILLE) / 1000
    }

    /// # Panics
    /// When the configuration contradicts itself: it is checked where it is read.
    pub(super) fn assert_valid(&self) {
        assert!(
            self.members.iter().all(|info| info.member.0 != 0),
            "members count from 1"
        );
        assert!(self.heartbeat_ticks > 0, "a leader must be heard");
        assert!(
            self.election_ticks > 2 * self.heartbeat_ticks,
            "a lost heartbeat must not cost an election"
        );
        assert!(
            (1..=IMAGE_PIECE_SIZE).contains(&self.image_piece_size),
            "a piece fits a frame"
        );
        assert!(
            (1..=LOG_BATCH_MAX).contains(&self.log_batch_max)
                && (1..=UNCOMMITTED_BYTES_MAX).contains(&self.uncommitted_bytes_max)
                && (1..=FOLLOWER_INFLIGHT_MAX).contains(&self.follower_inflight_max),
            "what is under way is bounded, and not by nothing"
        );
        assert!(
            self.log_batch_max as u64 <= self.uncommitted_bytes_max,
            "Raft takes one message's entries"
        );
    }
}
