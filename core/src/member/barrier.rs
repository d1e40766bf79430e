//! When a leader may answer a read: after a round of heartbeats that proves that
//! it still leads, or within the lease that such a round gives, stamped at the
//! round's start.
//!
//! Owns the rounds, the lease and who waits; the heartbeats are Raft's ReadIndex,
//! and the promise that a follower which heard one neither votes nor campaigns
//! for an election timeout is kept by `super` (`mute_until`). Invariant: the lease
//! ends before any member that vouched for it may help another one to lead, on
//! every clock within the stated drift. A leader that has begun to hand its reign
//! over takes no lease any more: then only rounds begun after a read count.

use super::event::Barrier;
use crate::ids::Term;
use crate::time::{Duration, Instant};

/// Barriers of one member.
#[derive(Debug)]
pub(super) struct Barriers {
    duration: Duration,
    lease_until: Instant,
    /// No lease in this term any more.
    handing_over: bool,
    next_round: u64,
    under_way: Option<Round>,
    waiting: Vec<(u64, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct Round {
    number: u64,
    began: Instant,
}

/// What is to be done next.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Released {
    /// These barriers pass.
    pub(super) tickets: Vec<u64>,
}

impl Barriers {
    /// Nothing is known yet; a round vouches for `duration`.
    pub(super) fn new(duration: Duration) -> Self {
        Self {
            duration,
            lease_until: Instant(0),
            handing_over: false,
            next_round: 1,
            under_way: None,
            waiting: Vec::new(),
        }
    }

    /// A leader whose term has begun is asked.
    pub(super) fn ask(&mut self, now: Instant, ticket: u64) -> Barrier {
        if now < self.lease_until {
            return Barrier::Pass;
        }
        self.wait(ticket);
        Barrier::Wait
    }

    /// A leader is asked whose term has not begun yet (or whose lease is over).
    pub(super) fn wait(&mut self, ticket: u64) {
        self.waiting.push((ticket, self.next_round));
    }

    /// Whether a round should begin: somebody waits, or the lease that was used is
    /// half over (`used`).
    pub(super) fn wants_round(&self, now: Instant, used: bool) -> bool {
        let half_over = now + self.duration / 2 >= self.lease_until;
        self.under_way.is_none()
            && (!self.waiting.is_empty() || (used && half_over && !self.handing_over))
    }

    /// Begins a round: its context for Raft.
    pub(super) fn begin(&mut self, now: Instant, term: Term) -> Vec<u8> {
        let number = self.next_round;
        self.next_round += 1;
        self.under_way = Some(Round { number, began: now });
        context(term, number)
    }

    /// A quorum answered a round.
    pub(super) fn on_answered(&mut self, now: Instant, term: Term, answer: &[u8]) -> Released {
        let answered = |round: &mut Round| answer == context(term, round.number);
        let Some(round) = self.under_way.take_if(answered) else {
            return Released::default();
        };
        if !self.handing_over {
            self.lease_until = self.lease_until.max(round.began + self.duration);
        }
        let vouched = now < self.lease_until;
        let passes = |needed: u64| vouched || needed <= round.number;
        let tickets = self
            .waiting
            .iter()
            .filter(|(_, needed)| passes(*needed))
            .map(|(it, _)| *it)
            .collect();
        self.waiting.retain(|(_, needed)| !passes(*needed));
        Released { tickets }
    }

    /// The reign is being handed over.
    pub(super) fn hand_over(&mut self) {
        self.handing_over = true;
        self.lease_until = Instant(0);
    }

    /// Another term, or another role: nothing vouches for it. Who waited is dropped.
    pub(super) fn reset(&mut self) -> Vec<u64> {
        self.lease_until = Instant(0);
        self.handing_over = false;
        self.under_way = None;
        std::mem::take(&mut self.waiting)
            .into_iter()
            .map(|(ticket, _)| ticket)
            .collect()
    }

    /// Everybody who waits passes: the group has no other voter.
    pub(super) fn release_all(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.waiting)
            .into_iter()
            .map(|(ticket, _)| ticket)
            .collect()
    }
}

fn context(term: Term, round: u64) -> Vec<u8> {
    let mut bytes = term.0.to_le_bytes().to_vec();
    bytes.extend(round.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_millis(900);

    fn at(millis: u64) -> Instant {
        Instant(0) + Duration::from_millis(millis)
    }

    #[test]
    fn a_lease_counts_from_the_start_of_its_round() {
        let mut barriers = Barriers::new(LEASE);
        assert_eq!(barriers.ask(at(0), 1), Barrier::Wait);
        let context = barriers.begin(at(10), Term(3));
        assert_eq!(
            barriers.on_answered(at(500), Term(3), &context).tickets,
            [1]
        );
        assert_eq!(barriers.ask(at(909), 2), Barrier::Pass);
        assert_eq!(barriers.ask(at(910), 3), Barrier::Wait);
    }

    #[test]
    fn who_asks_during_a_round_passes_only_by_its_lease() {
        let mut barriers = Barriers::new(LEASE);
        let slow = barriers.begin(at(0), Term(3));
        assert_eq!(barriers.ask(at(100), 1), Barrier::Wait);
        assert_eq!(
            barriers.on_answered(at(1000), Term(3), &slow).tickets,
            [] as [u64; 0]
        );
        let next = barriers.begin(at(1000), Term(3));
        assert_eq!(barriers.on_answered(at(5000), Term(3), &next).tickets, [1]);
    }

    #[test]
    fn a_reign_that_is_handed_over_has_no_lease() {
        let mut barriers = Barriers::new(LEASE);
        let first = barriers.begin(at(0), Term(3));
        barriers.on_answered(at(1), Term(3), &first);
        barriers.hand_over();
        assert_eq!(barriers.ask(at(2), 1), Barrier::Wait);
        let second = barriers.begin(at(2), Term(3));
        assert_eq!(barriers.ask(at(3), 2), Barrier::Wait);
        assert_eq!(barriers.on_answered(at(4), Term(3), &second).tickets, [1]);
    }

    #[test]
    fn answers_of_another_term_count_for_nothing() {
        let mut barriers = Barriers::new(LEASE);
        let old = barriers.begin(at(0), Term(3));
        assert_eq!(barriers.reset(), [] as [u64; 0]);
        barriers.wait(1);
        assert_eq!(
            barriers.on_answered(at(1), Term(4), &old).tickets,
            [] as [u64; 0]
        );
        assert_eq!(barriers.reset(), [1]);
    }
}
