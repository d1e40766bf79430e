//! How much of a server repair takes while clients use it.
//!
//! Owns the measure: for how long clients' operations take here beside repair, against those
//! of a time without any, and the share that follows. Leaves to `replicate` and `sourcing`
//! what a share means. Only what is done on this server's disks is measured, so that a slow
//! link or a slow server further down a chain slows no repair here. Servers that share a disk
//! or a processor slow each other's clients, though: what was measured between two steps of a
//! repair says little of how it is without, and counts only while repair is at its least.
//!
//! Invariant: the share is 1 to SHARES; repair never ceases, whatever clients feel.

use super::ChunkServer;
use crate::marks::Mark;
use crate::time::{Duration, Instant};

/// Shares are of so many.
pub(super) const SHARES: u32 = 16;

/// Before anything was measured: three times as long at rest as at work.
const FIRST: u32 = 4;

/// Of so many operations beside repair as are judged together, so many that take too long are
/// by chance.
const SLOW_BY_CHANCE: u32 = 2;

/// How long a server must have had no part in a repair to be without one.
const QUIET: Duration = Duration::from_secs(10);

/// When so many are kept each counts half, so that what was long ago fades.
const SAMPLES_KEPT: u32 = 4096;

/// What takes no longer than that is not told from nothing, by who asks over a network.
const UNFELT: u64 = 1000;

/// Four to each doubling, from 4 microseconds to two hours.
const BUCKETS: usize = 4 * 32;

/// How long operations took: a histogram of microseconds, its steps a quarter of a doubling.
#[derive(Clone, Debug)]
struct Latencies {
    counts: [u32; BUCKETS],
    total: u32,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            counts: [0; BUCKETS],
            total: 0,
        }
    }
}

impl Latencies {
    fn note(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.counts[bucket_of(micros)] += 1;
        self.total += 1;
        if self.total >= SAMPLES_KEPT {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
    }

    /// What 99 of 100 took no longer than, in microseconds, to a quarter of a doubling.
    fn p99(&self) -> u64 {
        let mut above = self.total / 100;
        for (bucket, count) in self.counts.iter().enumerate().rev() {
            if *count > above {
                return least_of(bucket);
            }
            above -= count;
        }
        0
    }
}

fn bucket_of(micros: u64) -> usize {
    let micros = micros.max(4);
    let doubling = micros.ilog2() as usize;
    let quarter = (micros >> (doubling - 2)) as usize - 4;
    (4 * (doubling - 2) + quarter).min(BUCKETS - 1)
}

/// The least that a bucket counts.
fn least_of(bucket: usize) -> u64 {
    ((bucket % 4 + 4) as u64) << (bucket / 4)
}

/// An operation that a client waits for began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    at: Instant,
    /// Some step of a repair was under way.
    beside: bool,
}

/// What an operation took its time beside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Company {
    /// No repair for long.
    Nobody,
    /// Repair, but no step of it just then.
    Pauses,
    /// A step of a repair.
    Repair,
}

/// The measure and what follows from it.
#[derive(Debug)]
pub(super) struct Pace {
    /// Of operations with no repair beside them.
    alone: Latencies,
    /// Operations with some, since the share was judged last, and those that took too long.
    beside: u32,
    slow: u32,
    /// When a step of a repair was under way last.
    repaired: Option<Instant>,
    share: u32,
    /// How much longer they may take beside repair, in percent.
    bound: u32,
    /// So many of either kind are compared at least.
    samples: u32,
}

impl Pace {
    /// `bound` in percent: at 200 they take twice as long at most.
    pub(super) fn new(bound: u32, samples: u32) -> Self {
        assert!(bound >= 100, "repair makes nothing faster");
        Self {
            alone: Latencies::default(),
            beside: 0,
            slow: 0,
            repaired: None,
            share: FIRST,
            bound,
            samples,
        }
    }

    /// How much of the server repair takes now, of SHARES.
    pub(super) fn share(&self) -> u32 {
        self.share
    }

    fn note(&mut self, took: Duration, company: Company) {
        match company {
            Company::Nobody => self.alone.note(took),
            // Of a server that was never without repair nothing better is known.
            Company::Pauses if self.share == 1 || self.alone.total < self.samples => {
                self.alone.note(took);
            }
            Company::Pauses => {}
            Company::Repair => self.judge(took),
        }
    }

    /// A little more when clients feel little of it; half, and at once, when they feel more
    /// than they are to.
    fn judge(&mut self, took: Duration) {
        if self.alone.total < self.samples {
            return;
        }
        let most = self.alone.p99().max(UNFELT) * u64::from(self.bound) / 100;
        self.beside += 1;
        self.slow += u32::from(took > Duration::from_micros(most));
        if self.slow > SLOW_BY_CHANCE {
            self.share = (self.share / 2).max(1);
        } else if self.beside >= self.samples {
            let more = u32::from(self.slow < SLOW_BY_CHANCE) * (self.share / 4).max(1);
            self.share = (self.share + more).min(SHARES);
        } else {
            return;
        }
        (self.beside, self.slow) = (0, 0);
    }
}

impl ChunkServer {
    /// A client's operation begins here.
    pub(super) fn begin_foreground(&self) -> Begun {
        Begun {
            at: self.now,
            beside: self.is_repairing(),
        }
    }

    /// A step of a repair begins or ends here.
    pub(super) fn note_repair(&mut self) {
        self.pace.repaired = Some(self.now);
    }

    /// It ended.
    pub(super) fn end_foreground(&mut self, begun: Begun) {
        let repaired = self.pace.repaired;
        let is_quiet = repaired.is_none_or(|at| self.now.since(at) > QUIET);
        let company = match begun.beside || self.is_repairing() {
            true => Company::Repair,
            // Some began and ended meanwhile.
            false if repaired.is_some_and(|at| at >= begun.at) => Company::Repair,
            false if is_quiet => Company::Nobody,
            false => Company::Pauses,
        };
        let before = self.pace.share();
        self.pace.note(self.now.since(begun.at), company);
        if self.pace.share() < before {
            self.marks.reach(Mark::RepairSlowed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SAMPLES: u32 = 128;

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// The share behind so many operations of a length beside repair.
    fn share_after(pace: &mut Pace, operations: u32, took: Duration) -> u32 {
        (0..operations).for_each(|_| pace.note(took, Company::Repair));
        pace.share()
    }

    fn used_to(took: Duration) -> Pace {
        let mut pace = Pace::new(200, SAMPLES);
        (0..SAMPLES).for_each(|_| pace.note(took, Company::Nobody));
        pace
    }

    #[test]
    fn repair_takes_less_while_clients_wait_longer_than_the_bound() {
        let mut pace = used_to(millis(4));
        assert_eq!(share_after(&mut pace, 20 * SAMPLES, millis(11)), 1);
        assert_eq!(share_after(&mut pace, 20 * SAMPLES, millis(5)), SHARES);
    }

    #[test]
    fn a_few_slow_operations_are_enough_to_make_room_and_one_is_chance() {
        let mut pace = used_to(millis(4));
        let before = pace.share();
        assert_eq!(share_after(&mut pace, 1, millis(11)), before);
        assert_eq!(share_after(&mut pace, SAMPLES - 1, millis(4)), before + 1);
        assert_eq!(share_after(&mut pace, 3, millis(11)), before / 2);
    }

    #[test]
    fn what_it_is_like_between_steps_counts_only_while_repair_is_at_its_least() {
        let mut pace = used_to(millis(4));
        (0..20 * SAMPLES).for_each(|_| pace.note(millis(50), Company::Pauses));
        assert_eq!(share_after(&mut pace, 20 * SAMPLES, millis(11)), 1);
        // The work of today takes longer than that of before.
        (0..20 * SAMPLES).for_each(|_| pace.note(millis(50), Company::Pauses));
        assert_eq!(share_after(&mut pace, 40 * SAMPLES, millis(60)), SHARES);
    }

    #[test]
    fn a_server_that_was_never_without_repair_makes_room_as_well() {
        let mut pace = Pace::new(200, SAMPLES);
        (0..SAMPLES).for_each(|_| pace.note(millis(4), Company::Pauses));
        assert_eq!(share_after(&mut pace, 20 * SAMPLES, millis(11)), 1);
    }

    #[test]
    fn nothing_changes_before_enough_was_measured() {
        let mut pace = Pace::new(200, SAMPLES);
        assert_eq!(share_after(&mut pace, 10 * SAMPLES, millis(900)), FIRST);
    }

    #[test]
    fn what_nobody_feels_slows_nothing() {
        let mut pace = used_to(Duration::from_micros(20));
        let took = Duration::from_micros(900);
        assert_eq!(share_after(&mut pace, 20 * SAMPLES, took), SHARES);
    }

    proptest! {
        #[test]
        fn the_99th_percentile_is_right_to_a_quarter_of_a_doubling(
            micros in prop::collection::vec(1u64..10_000_000, 100..1000)
        ) {
            let mut latencies = Latencies::default();
            micros.iter().for_each(|one| latencies.note(Duration::from_micros(*one)));
            let mut sorted = micros;
            sorted.sort_unstable();
            let exact = sorted[sorted.len() - 1 - sorted.len() / 100].max(4);
            let told = latencies.p99();
            prop_assert!(told <= exact && exact < told + told.div_ceil(4) + 1, "{told} for {exact}");
        }
    }
}
