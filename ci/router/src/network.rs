//! What happens to a packet: the pure part of the router.
//!
//! Owns for each ordered pair of nodes what holds now and when its last packet is
//! due. Invariant: packets of one pair are due in the order in which they came.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Bytes that wait for a pair's bandwidth, at most; what comes then is lost.
const QUEUE_MAX: Duration = Duration::from_millis(500);

/// Where a node is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) site: String,
    pub(crate) address: Ipv4Addr,
}

/// How far nodes are apart when nothing else is said, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) between: f64,
    pub(crate) within: f64,
    pub(crate) jitter: f64,
}

/// What holds for packets from one node to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Path {
    pub(crate) delay: Duration,
    /// Added at random, at most.
    pub(crate) jitter: Duration,
    /// How many of a hundred packets are lost.
    pub(crate) loss: f64,
    /// Bytes a second; 0 for no bound.
    pub(crate) rate: u64,
    pub(crate) is_cut: bool,
}

#[derive(Clone, Copy, Debug)]
struct Pair {
    path: Path,
    /// When the wire is free again.
    free: Duration,
    /// When the newest packet is due.
    due: Duration,
    passed: Passed,
}

/// What went from one node to another, headers of IP included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

/// What became of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) forwarded: u64,
    pub(crate) bytes: u64,
    pub(crate) lost: u64,
    pub(crate) cut: u64,
    /// Lost since more came than the bandwidth allows.
    pub(crate) overflowed: u64,
    /// For nobody here.
    pub(crate) stray: u64,
}

/// All nodes and pairs.
#[derive(Debug)]
pub(crate) struct Network {
    places: Vec<Place>,
    spread: Spread,
    pairs: BTreeMap<(usize, usize), Pair>,
    random: u64,
    pub(crate) counts: Counts,
}

impl Network {
    pub(crate) fn new(places: Vec<Place>, spread: Spread, seed: u64) -> Self {
        let mut network = Self {
            places,
            spread,
            pairs: BTreeMap::new(),
            random: seed,
            counts: Counts::default(),
        };
        let count = network.places.len();
        for pair in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
            let path = network.path_at_first(pair);
            let at_first = Pair {
                path,
                free: Duration::ZERO,
                due: Duration::ZERO,
                passed: Passed::default(),
            };
            network.pairs.insert(pair, at_first);
        }
        network
    }

    /// What holds for a pair when nothing else is said.
    fn path_at_first(&self, (from, to): (usize, usize)) -> Path {
        let apart = self.places[from].site != self.places[to].site;
        let delay = if apart {
            self.spread.between
        } else {
            self.spread.within
        };
        Path {
            delay: milliseconds(delay),
            jitter: milliseconds(self.spread.jitter),
            loss: 0.0,
            rate: 0,
            is_cut: false,
        }
    }

    /// To whom a packet of `from` goes and when, if at all.
    pub(crate) fn route(
        &mut self,
        now: Duration,
        from: usize,
        packet: &[u8],
    ) -> Option<(Duration, usize)> {
        let Some(to) = destination(packet).and_then(|address| self.node_at(address)) else {
            self.counts.stray += 1;
            return None;
        };
        let Pair {
            path, free, due, ..
        } = self.pairs[&(from, to)];
        if path.is_cut {
            self.counts.cut += 1;
            return None;
        }
        if path.loss > 0.0 && self.fraction() * 100.0 < path.loss {
            self.counts.lost += 1;
            return None;
        }
        let begins = now.max(free);
        if begins - now > QUEUE_MAX {
            self.counts.overflowed += 1;
            return None;
        }
        let sent = begins + transmission(packet.len(), path.rate);
        let arrives = sent + path.delay + path.jitter.mul_f64(self.fraction());
        let pair = self.pairs.get_mut(&(from, to)).expect("it was just there");
        pair.free = sent;
        pair.due = due.max(arrives);
        pair.passed.packets += 1;
        pair.passed.bytes += packet.len() as u64;
        self.counts.forwarded += 1;
        self.counts.bytes += packet.len() as u64;
        Some((pair.due, to))
    }

    fn node_at(&self, address: Ipv4Addr) -> Option<usize> {
        self.places
            .iter()
            .position(|place| place.address == address)
    }

    /// The nodes that a word names: a name, `@SITE`, or `all`.
    pub(crate) fn named(&self, word: &str) -> Result<Vec<usize>, String> {
        let site = word.strip_prefix('@');
        let is_named = |place: &Place| match site {
            Some(site) => place.site == site,
            None => word == "all" || place.name == word,
        };
        let numbers = 0..self.places.len();
        let found: Vec<usize> = numbers.filter(|&at| is_named(&self.places[at])).collect();
        match found.is_empty() {
            true => Err(format!("no node is called {word:?}")),
            false => Ok(found),
        }
    }

    /// Changes what holds for packets from one of `from` to one of `to`.
    pub(crate) fn change(&mut self, from: &[usize], to: &[usize], change: impl Fn(&mut Path)) {
        for (&from, &to) in from
            .iter()
            .flat_map(|from| to.iter().map(move |to| (from, to)))
        {
            if from != to {
                let pair = self
                    .pairs
                    .get_mut(&(from, to))
                    .expect("all pairs are there");
                change(&mut pair.path);
            }
        }
    }

    /// What passed so far from one of `from` to one of `to`.
    pub(crate) fn passed(&self, from: &[usize], to: &[usize]) -> Passed {
        let mut sum = Passed::default();
        for (&(one, other), pair) in &self.pairs {
            if from.contains(&one) && to.contains(&other) {
                sum.packets += pair.passed.packets;
                sum.bytes += pair.passed.bytes;
            }
        }
        sum
    }

    /// Everything is as at first; what passed is counted on.
    pub(crate) fn heal(&mut self) {
        let numbers: Vec<(usize, usize)> = self.pairs.keys().copied().collect();
        for number in numbers {
            let path = self.path_at_first(number);
            self.pairs.get_mut(&number).expect("it was just there").path = path;
        }
    }

    /// A random number from 0 up to 1 (splitmix64).
    fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.random;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// How long a packet takes to be sent.
fn transmission(bytes: usize, rate: u64) -> Duration {
    match rate {
        0 => Duration::ZERO,
        rate => Duration::from_nanos(bytes as u64 * 1_000_000_000 / rate),
    }
}

/// The destination of an IPv4 packet.
fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let is_ipv4 = packet.len() >= 20 && packet[0] >> 4 == 4;
    let address: Option<[u8; 4]> = packet.get(16..20)?.try_into().ok();
    address.filter(|_| is_ipv4).map(Ipv4Addr::from)
}

/// A time that was told in milliseconds; it is checked to be one.
pub(crate) fn milliseconds(number: f64) -> Duration {
    Duration::from_secs_f64(number.max(0.0) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPREAD: Spread = Spread {
        between: 10.0,
        within: 1.0,
        jitter: 0.0,
    };

    fn three(spread: Spread) -> Network {
        let place = |name: &str, site: &str, last| Place {
            name: name.into(),
            site: site.into(),
            address: Ipv4Addr::new(10, 0, 0, last),
        };
        let places = vec![
            place("a", "west", 1),
            place("b", "west", 2),
            place("c", "east", 3),
        ];
        Network::new(places, spread, 7)
    }

    fn packet(to: u8, length: usize) -> Vec<u8> {
        let mut packet = vec![0; length];
        packet[0] = 0x45;
        packet[16..20].copy_from_slice(&[10, 0, 0, to]);
        packet
    }

    #[test]
    fn sites_are_further_apart_than_neighbours() {
        let mut network = three(SPREAD);
        let now = Duration::from_secs(5);
        let near = network.route(now, 0, &packet(2, 20));
        let far = network.route(now, 0, &packet(3, 20));
        assert_eq!(near, Some((now + Duration::from_millis(1), 1)));
        assert_eq!(far, Some((now + Duration::from_millis(10), 2)));
        assert_eq!(network.route(now, 0, &packet(9, 20)), None);
        assert_eq!(network.route(now, 0, b"short"), None);
        assert_eq!((network.counts.forwarded, network.counts.stray), (2, 2));
    }

    #[test]
    fn a_cut_in_one_direction_leaves_the_other() {
        let mut network = three(SPREAD);
        network.change(&[0], &[2], |path| path.is_cut = true);
        assert_eq!(network.route(Duration::ZERO, 0, &packet(3, 20)), None);
        assert!(network.route(Duration::ZERO, 2, &packet(1, 20)).is_some());
        network.heal();
        assert!(network.route(Duration::ZERO, 0, &packet(3, 20)).is_some());
        assert_eq!(network.counts.cut, 1);
    }

    #[test]
    fn packets_of_a_pair_keep_their_order_under_jitter() {
        let mut network = three(Spread {
            jitter: 50.0,
            ..SPREAD
        });
        let mut last = Duration::ZERO;
        for step in 0..1000 {
            let now = Duration::from_micros(step * 10);
            let (due, _) = network.route(now, 0, &packet(3, 20)).expect("no loss");
            assert!(due >= last && due >= now + Duration::from_millis(10));
            last = due;
        }
    }

    #[test]
    fn loss_takes_about_its_share_and_bandwidth_bounds() {
        let mut network = three(SPREAD);
        network.change(&[0], &[1], |path| path.loss = 20.0);
        for _ in 0..1000 {
            network.route(Duration::ZERO, 0, &packet(2, 20));
        }
        assert!(
            (150..250).contains(&network.counts.lost),
            "{:?}",
            network.counts
        );
        network.heal();
        network.change(&[0], &[1], |path| path.rate = 1000);
        let sent = (0..20).filter_map(|_| network.route(Duration::ZERO, 0, &packet(2, 100)));
        let last = sent.last().expect("some go").0;
        // A second's worth is 10 packets; what would wait for over half a second is lost.
        assert_eq!(last, Duration::from_millis(601));
        assert_eq!(network.counts.overflowed, 14);
    }

    #[test]
    fn what_passes_is_counted_for_each_direction_of_each_pair() {
        let mut network = three(SPREAD);
        network.route(Duration::ZERO, 0, &packet(3, 100));
        network.route(Duration::ZERO, 1, &packet(3, 50));
        network.route(Duration::ZERO, 0, &packet(2, 20));
        network.change(&[2], &[0], |path| path.is_cut = true);
        network.route(Duration::ZERO, 2, &packet(1, 30));
        let passed = |packets, bytes| Passed { packets, bytes };
        assert_eq!(network.passed(&[0], &[2]), passed(1, 100));
        assert_eq!(network.passed(&[0, 1], &[2]), passed(2, 150));
        assert_eq!(network.passed(&[2], &[0, 1]), passed(0, 0));
        network.heal();
        assert_eq!(network.passed(&[0], &[1]), passed(1, 20));
    }

    #[test]
    fn words_name_nodes_and_sites() {
        let network = three(SPREAD);
        assert_eq!(network.named("b"), Ok(vec![1]));
        assert_eq!(network.named("@west"), Ok(vec![0, 1]));
        assert_eq!(network.named("all"), Ok(vec![0, 1, 2]));
        assert!(network.named("d").is_err());
    }
}
