//! The bounds of the machines that a scenario may make tiny, so that full queues,
//! full segments and evicted caches become common.
//!
//! Owns their names, their defaults (what every simulated machine gets) and the
//! range that each may be drawn from. What they bound is told where core keeps them:
//! `client::Limits`, `chunkserver::Limits`, `MemberConfig`, `MasterConfig`, `Tuning`.

use super::{Bytes, Count, Range};
use antler_core::limits as core;
use antler_core::rng::Rng;
use serde::{Deserialize, Serialize};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $name:ident: $unit:ident = $usual:expr, $least:expr, $most:expr;)*) => {
        /// The bounds of a scenario.
        #[derive(Clone, Copy, Debug, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Limits { $($(#[doc = $doc])+ pub $name: $unit,)* }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $unit::only($usual),)* }
            }
        }

        /// The bounds of a run.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct LimitsPlan { $($(#[doc = $doc])+ pub $name: u64,)* }

        impl Default for LimitsPlan {
            fn default() -> Self {
                Self { $($name: $usual,)* }
            }
        }

        impl Limits {
            /// # Errors
            /// When a range leaves what a machine can work with.
            pub(super) fn check(&self) -> Result<(), String> {
                $(within(stringify!($name), self.$name.range, $least, $most)?;)*
                Ok(())
            }

            /// Draws the bounds of a run.
            #[must_use]
            pub fn draw(&self, rng: &mut Rng) -> LimitsPlan {
                LimitsPlan { $($name: self.$name.draw(rng),)* }.fit()
            }
        }

        impl LimitsPlan {
            /// Those that are not as usual.
            #[must_use]
            pub fn unusual(&self) -> Vec<(&'static str, u64)> {
                let usual = Self::default();
                let all = [$((stringify!($name), self.$name, usual.$name),)*];
                let differing = all.into_iter().filter(|(_, here, usual)| here != usual);
                differing.map(|(name, here, _)| (name, here)).collect()
            }

            /// The same, with the named one as usual.
            #[must_use]
            pub fn with_usual(mut self, name: &str) -> Self {
                let usual = Self::default();
                match name {
                    $(stringify!($name) => self.$name = usual.$name,)*
                    _ => {}
                }
                self
            }

            /// The same, each within what a machine can work with.
            fn clamped(self) -> Self {
                Self { $($name: self.$name.clamp($least, $most),)* }
            }
        }
    };
}

limits! {
    // Members.
    /// Bytes of a segment of a member's log.
    log_segment: Bytes = 256 * KIB, 16 * KIB, core::LOG_SEGMENT_SIZE;
    /// Bytes of an image in one message.
    image_piece: Bytes = 16 * KIB, 64, core::IMAGE_PIECE_SIZE as u64;
    /// Bytes of entries that a leader proposes at once and one message carries.
    log_batch: Bytes = core::LOG_BATCH_MAX as u64, 64, core::LOG_BATCH_MAX as u64;
    /// Bytes of entries proposed and not committed.
    uncommitted: Bytes = core::UNCOMMITTED_BYTES_MAX, KIB, core::UNCOMMITTED_BYTES_MAX;
    /// Messages with entries on their way to one follower.
    follower_inflight: Count = core::FOLLOWER_INFLIGHT_MAX as u64, 1, core::FOLLOWER_INFLIGHT_MAX as u64;
    /// Commands of the leader under way at one chunkserver.
    commands: Count = core::COMMANDS_INFLIGHT_MAX as u64, 1, core::COMMANDS_INFLIGHT_MAX as u64;
    /// Copies made at once on one chunkserver.
    repairs: Count = core::REPAIR_INFLIGHT_MAX as u64, 1, core::REPAIR_INFLIGHT_MAX as u64;
    // Chunkservers.
    /// Operations that wait at a chunkserver.
    chunkserver_queue: Count = core::CHUNKSERVER_QUEUE_MAX as u64, 4, core::CHUNKSERVER_QUEUE_MAX as u64;
    /// Operations under way on one disk.
    disk_inflight: Count = core::DISK_INFLIGHT_MAX as u64, 1, core::DISK_INFLIGHT_MAX as u64;
    /// Bytes of a segment of a disk's journal.
    disk_segment: Bytes = MIB, 512 * KIB, 16 * MIB;
    /// Slots in one file of a disk.
    disk_slots: Count = 256, 4, 65536;
    /// Bytes of a disk's journal after which a checkpoint is due.
    disk_checkpoint: Bytes = MIB, 64 * KIB, 64 * MIB;
    /// Bytes up to which a write stays in memory until the commit.
    small_write: Bytes = 128 * KIB, 0, 128 * KIB;
    /// Bytes of small writes that one part keeps in memory.
    part_memory: Bytes = 256 * KIB, 0, 256 * KIB;
    /// Bytes of small writes that one disk keeps in memory.
    disk_memory: Bytes = 64 * MIB, 64 * KIB, 64 * MIB;
    /// Bytes of small writes that a commit embeds in the journal.
    embed: Bytes = MIB, 4 * KIB, MIB;
    // Mounts.
    /// Mutations unanswered at once.
    session_window: Count = core::SESSION_WINDOW, 1, core::SESSION_WINDOW;
    /// Bytes written and not acknowledged by every copy (no more than `unsynced`).
    write_window: Bytes = core::WRITE_WINDOW_BYTES as u64, 4 * KIB, core::WRITE_WINDOW_BYTES as u64;
    /// Bytes kept until they are durable.
    unsynced: Bytes = core::UNSYNCED_BYTES_MAX as u64, 8 * KIB, core::UNSYNCED_BYTES_MAX as u64;
    /// Bytes of one read or write of a chunk, rounded down to whole units.
    piece: Bytes = core::CHUNK_IO_MAX as u64, 4 * KIB, core::CHUNK_IO_MAX as u64;
    /// Bytes read ahead of a sequential reader.
    read_ahead: Bytes = core::READ_AHEAD_BYTES, 0, core::READ_AHEAD_BYTES;
    /// Bytes read ahead for all handles together.
    read_cache: Bytes = 16 * core::READ_AHEAD_BYTES, 0, 16 * core::READ_AHEAD_BYTES;
    /// Attributes cached by a mount.
    attributes: Count = 128 * KIB, 1, 128 * KIB;
    /// Names cached by a mount.
    dentries: Count = 128 * KIB, 1, 128 * KIB;
    /// Locations of chunks cached by a mount.
    locations: Count = 16 * KIB, 1, 16 * KIB;
    /// Files closed unsynced that a mount remembers.
    unsettled: Count = 64 * KIB, 1, 64 * KIB;
    /// Chunks located by one question.
    locate: Count = 16, 1, 64;
    // Last, so that seeds go on drawing the others as they did.
    /// Operations by which a chunkserver judges how much repair may take.
    repair_samples: Count = core::REPAIR_SAMPLES as u64, 1, core::REPAIR_SAMPLES as u64;
    /// Percent of its space that a server uses more than one that its copies move to.
    balance: Count = core::BALANCE_PERCENT as u64, 0, 100;
}

fn within(name: &str, range: Range, least: u64, most: u64) -> Result<(), String> {
    match least <= range.low && range.high <= most {
        true => Ok(()),
        false => Err(format!("`{name}` is between {least} and {most}")),
    }
}

impl LimitsPlan {
    /// Bounds that contradict no other, also when a plan was edited by hand.
    #[must_use]
    pub fn fit(self) -> Self {
        let mut limits = self.clamped();
        limits.write_window = limits.write_window.min(limits.unsynced);
        limits.log_batch = limits.log_batch.min(limits.uncommitted);
        limits.piece &= !4095;
        limits.disk_segment &= !511;
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_limits_contradict_nothing_and_nothing_of_them_is_told() {
        let usual = Limits::default();
        assert_eq!(usual.check(), Ok(()));
        let drawn = usual.draw(&mut Rng::new(1));
        assert_eq!(drawn, LimitsPlan::default());
        assert!(drawn.unusual().is_empty());
    }

    #[test]
    fn what_a_machine_can_not_work_with_is_refused_or_made_to_fit() {
        let limits = Limits {
            session_window: Count::between(0, 4),
            ..Limits::default()
        };
        assert!(
            limits
                .check()
                .is_err_and(|error| error.contains("session_window"))
        );
        let limits = LimitsPlan {
            write_window: 64 * KIB,
            log_batch: 64 * KIB,
            uncommitted: 4 * KIB,
            unsynced: 0,
            piece: 5000,
            ..LimitsPlan::default()
        };
        let fit = limits.fit();
        assert_eq!(fit.log_batch, 4 * KIB);
        assert_eq!(
            (fit.write_window, fit.unsynced, fit.piece),
            (8192, 8192, 4096)
        );
    }
}
