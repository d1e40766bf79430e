//! Bytes on their way: what goes from a disk over two network cards to another disk
//! gets, of each of them, an equal share.
//!
//! Owns paces and ends; what is carried and why is the fleet's. Invariant: a transfer's
//! pace is the least of its shares now, and its end is announced anew whenever that
//! changes.

use crate::network::Nanos;
use antler_core::hash::Digest;

const SECOND: u128 = 1_000_000_000;

/// A place that all bytes of a transfer pass: a disk, or a direction of a network card.
struct Narrow {
    speed: u64,
    flows: Vec<u32>,
}

struct Flow {
    along: [usize; 4],
    left: u64,
    /// Bytes a second.
    pace: u64,
    since: Nanos,
    /// Names its pace.
    paces: u32,
}

/// A disk of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Spindle {
    pub(super) server: u16,
    pub(super) disk: u8,
}

/// All transfers.
pub(super) struct Transfers {
    narrows: Vec<Narrow>,
    flows: Vec<Option<Flow>>,
    free: Vec<u32>,
    /// Counts the changes of pace, over all transfers: an end that was announced for
    /// one that is over means no other.
    paces: u32,
    disks: usize,
    /// Ends that are to be announced: when, which, at which pace.
    due: Vec<(Nanos, u32, u32)>,
}

impl Transfers {
    pub(super) fn new(servers: u16, disks: u8, disk_speed: u64, network: u64) -> Self {
        let mut narrows = Vec::new();
        for _ in 0..servers {
            for place in 0..usize::from(disks) + 2 {
                let is_disk = place < usize::from(disks);
                narrows.push(Narrow {
                    speed: if is_disk { disk_speed } else { network },
                    flows: Vec::new(),
                });
            }
        }
        Self {
            narrows,
            flows: Vec::new(),
            free: Vec::new(),
            paces: 0,
            disks: usize::from(disks),
            due: Vec::new(),
        }
    }

    /// Begins to carry bytes; its number.
    pub(super) fn begin(&mut self, now: Nanos, from: Spindle, to: Spindle, bytes: u64) -> u32 {
        let base = |server: u16| usize::from(server) * (self.disks + 2);
        let along = [
            base(from.server) + usize::from(from.disk),
            base(from.server) + self.disks,
            base(to.server) + self.disks + 1,
            base(to.server) + usize::from(to.disk),
        ];
        let flow = Flow {
            along,
            left: bytes,
            pace: 0,
            since: now,
            paces: 0,
        };
        let number = self.free.pop().unwrap_or_else(|| {
            self.flows.push(None);
            (self.flows.len() - 1) as u32
        });
        self.flows[number as usize] = Some(flow);
        for place in along {
            self.narrows[place].flows.push(number);
        }
        self.pace_anew(now, along);
        number
    }

    /// Whether a transfer ends now, as was announced.
    pub(super) fn has_ended(&self, flow: u32, pace: u32) -> bool {
        let known = self.flows.get(flow as usize).and_then(Option::as_ref);
        known.is_some_and(|known| known.paces == pace)
    }

    /// A transfer is over, whether it came to its end or not.
    pub(super) fn end(&mut self, now: Nanos, flow: u32) {
        let gone = self.flows[flow as usize].take().expect("it is under way");
        self.free.push(flow);
        for place in gone.along {
            self.narrows[place].flows.retain(|other| *other != flow);
        }
        self.pace_anew(now, gone.along);
    }

    /// The ends to announce since the last call.
    pub(super) fn take_due(&mut self) -> Vec<(Nanos, u32, u32)> {
        std::mem::take(&mut self.due)
    }

    pub(super) fn under_way(&self) -> usize {
        self.flows.len() - self.free.len()
    }

    pub(super) fn digest(&self, digest: &mut Digest) {
        digest.word(self.under_way() as u64);
    }

    fn pace_anew(&mut self, now: Nanos, along: [usize; 4]) {
        let mut touched: Vec<u32> = Vec::new();
        for place in along {
            touched.extend(&self.narrows[place].flows);
        }
        touched.sort_unstable();
        touched.dedup();
        for number in touched {
            let share = |place: &usize| {
                let narrow = &self.narrows[*place];
                narrow.speed / narrow.flows.len() as u64
            };
            let flow = self.flows[number as usize]
                .as_ref()
                .expect("it is under way");
            let pace = flow.along.iter().map(share).min();
            let pace = pace.expect("there are four places").max(1);
            self.set_pace(now, number, pace);
        }
    }

    fn set_pace(&mut self, now: Nanos, number: u32, pace: u64) {
        let flow = self.flows[number as usize]
            .as_mut()
            .expect("it is under way");
        if flow.pace == pace {
            return;
        }
        self.paces = self.paces.wrapping_add(1);
        let carried = u128::from(flow.pace) * u128::from(now - flow.since) / SECOND;
        flow.left = flow
            .left
            .saturating_sub(u64::try_from(carried).unwrap_or(u64::MAX));
        (flow.pace, flow.since) = (pace, now);
        flow.paces = self.paces;
        let takes = (u128::from(flow.left) * SECOND).div_ceil(u128::from(pace));
        let ends = now + u64::try_from(takes).expect("it ends within years");
        self.due.push((ends, number, flow.paces));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last_due(transfers: &mut Transfers, flow: u32) -> Nanos {
        let due = transfers.take_due();
        let own = due.iter().rfind(|(_, number, _)| *number == flow);
        own.expect("its pace changed").0
    }

    #[test]
    fn two_that_share_a_disk_take_twice_as_long_and_then_speed_up() {
        let mut all = Transfers::new(3, 2, 100, 1000);
        let at = |server, disk| Spindle { server, disk };
        let first = all.begin(0, at(0, 0), at(1, 0), 1000);
        assert_eq!(last_due(&mut all, first), 10_000_000_000);
        let second = all.begin(5_000_000_000, at(0, 0), at(2, 0), 1000);
        // 500 bytes are left at 50 a second.
        assert_eq!(last_due(&mut all, first), 15_000_000_000);
        all.end(15_000_000_000, first);
        // 500 of the second's bytes went at 50, the rest goes at 100.
        assert_eq!(last_due(&mut all, second), 20_000_000_000);
        assert_eq!(all.under_way(), 1);
    }

    #[test]
    fn the_network_bounds_what_many_disks_give() {
        let mut all = Transfers::new(3, 2, 100, 120);
        let at = |server, disk| Spindle { server, disk };
        all.begin(0, at(0, 0), at(1, 0), 600);
        let second = all.begin(0, at(0, 1), at(2, 0), 600);
        assert_eq!(last_due(&mut all, second), 10_000_000_000);
    }
}
