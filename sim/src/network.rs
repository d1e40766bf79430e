//! The simulated network: nodes joined by ordered pairs, connections over them.
//!
//! A connection is a FIFO each way. It delays, it stalls while its pair is cut,
//! and it breaks visibly (`Closed` at both ends, possibly much later at one of
//! them); it never loses, repeats or reorders a message silently. Between connections
//! nothing is promised: what was sent on one that its sender takes for broken may
//! arrive behind what came on the next one ([`Network::strand`]). Owns latency,
//! bandwidth, cuts and clogs; leaves who listens where, and identities, to the world.

use antler_core::ids::LinkId;
use antler_core::rng::Rng;
use antler_core::wire::Message;
use std::collections::{BTreeMap, VecDeque};

/// Simulated time: nanoseconds since the world began.
pub type Nanos = u64;

const MILLISECOND: Nanos = 1_000_000;
const SECOND: Nanos = 1_000_000_000;
/// What a message takes on the wire besides its bulk data.
const MESSAGE_OVERHEAD: u64 = 200;

/// A node's place in the world's list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeIndex(pub usize);

/// The quantities of one run's network, drawn.
#[derive(Clone, Copy, Debug)]
pub struct NetworkSpeed {
    /// One way within a datacentre.
    pub latency: Nanos,
    /// One way between datacentres.
    pub between: Nanos,
    /// At most added to each message.
    pub jitter: Nanos,
    /// Bytes a second of an ordered pair.
    pub bandwidth: u64,
    /// How many in a thousand messages are delayed by a retransmission.
    pub retransmits: u64,
}

/// What lies between two datacentres.
#[derive(Clone, Copy, Debug)]
pub struct LinkSpeed {
    /// One way.
    pub latency: Nanos,
    /// Bytes a second of each ordered pair.
    pub bandwidth: u64,
}

/// Something of the network that is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NetworkEvent {
    /// The first exchange has reached the other end for the last time.
    Arrive(usize),
    /// The next item of a lane (towards `side`) arrives.
    Deliver(usize, usize),
    /// A side learns that the connection broke; the second number tells whether
    /// that still holds.
    Broken(usize, usize, u32),
    /// A side learns that the connection broke, which the other side does not know yet.
    Stranded(usize, usize),
}

/// What a node learns from the network.
#[derive(Debug)]
pub enum Delivery {
    /// Somebody connected.
    Accepted,
    /// A link that it asked for is up.
    Connected,
    /// A message came.
    Message(Message),
    /// A link is down.
    Closed(&'static str),
}

/// To whom a delivery goes, on which link, from where.
#[derive(Debug)]
pub struct Delivered {
    /// Who learns it.
    pub node: NodeIndex,
    /// On which of its links.
    pub link: LinkId,
    /// Who is at the other end.
    pub peer: NodeIndex,
    /// What.
    pub what: Delivery,
}

/// How a node answers somebody who connects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Door {
    /// The wanted role listens.
    Open,
    /// Nobody listens there, or another role does.
    Refused,
    /// The machine is off, or paused.
    Silent,
}

#[derive(Debug)]
enum Item {
    Connected,
    Message(Message),
    Closed,
}

#[derive(Clone, Copy, Debug)]
struct End {
    node: NodeIndex,
    link: LinkId,
    open: bool,
}

#[derive(Debug)]
struct Connection {
    /// The one that connected, then the other.
    ends: [End; 2],
    /// Towards `ends[0]`, towards `ends[1]`.
    lanes: [Lane; 2],
    established: bool,
    /// Counts stalls that ended well: what was scheduled before is void.
    healed: u32,
    breaking: bool,
    broken: bool,
}

#[derive(Debug, Default)]
struct Lane {
    items: VecDeque<Item>,
    /// When the last item was to arrive: later ones are not earlier.
    last: Nanos,
    /// Items whose arrival fell into a cut.
    stalled: usize,
    /// Nothing arrives before: its sender took the connection for broken.
    held_until: Nanos,
}

#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    busy_until: Nanos,
    cuts: u32,
    clogged_until: Nanos,
}

#[derive(Debug)]
struct Node {
    datacentre: u64,
    links: BTreeMap<LinkId, (usize, usize)>,
    /// Even numbers for the links that it accepts.
    next_link: u64,
}

/// All nodes and connections.
#[derive(Debug)]
pub struct Network {
    speed: NetworkSpeed,
    /// What lies between two datacentres, the lower first, where it is not as usual.
    links: BTreeMap<(u64, u64), LinkSpeed>,
    rng: Rng,
    nodes: Vec<Node>,
    pairs: Vec<Pair>,
    connections: Vec<Option<Box<Connection>>>,
    due: VecDeque<(Nanos, NetworkEvent)>,
}

impl Network {
    /// A network of nodes, each in a datacentre.
    #[must_use]
    pub fn new(speed: NetworkSpeed, datacentres: &[u64], seed: u64) -> Self {
        let node = |&datacentre| Node {
            datacentre,
            links: BTreeMap::new(),
            next_link: 2,
        };
        Self {
            speed,
            links: BTreeMap::new(),
            rng: Rng::new(seed),
            nodes: datacentres.iter().map(node).collect(),
            pairs: vec![Pair::default(); datacentres.len() * datacentres.len()],
            connections: Vec::new(),
            due: VecDeque::new(),
        }
    }

    /// The next of what has become due, to be put on the world's heap.
    pub fn next_due(&mut self) -> Option<(Nanos, NetworkEvent)> {
        self.due.pop_front()
    }

    /// A node asks for a link to another (`None`: the address leads nowhere).
    pub fn connect(&mut self, now: Nanos, from: NodeIndex, link: LinkId, to: Option<NodeIndex>) {
        let number = self.connections.len();
        let end = |node, link| End {
            node,
            link,
            open: true,
        };
        let target = to.unwrap_or(from);
        self.connections.push(Some(Box::new(Connection {
            ends: [end(from, link), end(target, LinkId(0))],
            lanes: [Lane::default(), Lane::default()],
            established: false,
            healed: 0,
            breaking: false,
            broken: false,
        })));
        self.nodes[from.0].links.insert(link, (number, 0));
        let legs = 2 * self.link(from, target).latency + self.link(target, from).latency;
        let event = match to {
            Some(_) => NetworkEvent::Arrive(number),
            None => NetworkEvent::Broken(number, 0, 0),
        };
        self.due.push_back((now + legs, event));
    }

    /// The connection under a link of a node, the same for both ends.
    #[must_use]
    pub fn connection(&self, node: NodeIndex, link: LinkId) -> Option<usize> {
        self.nodes[node.0]
            .links
            .get(&link)
            .map(|(number, _)| *number)
    }

    /// Who is at the other end of a link.
    #[must_use]
    pub fn peer(&self, node: NodeIndex, link: LinkId) -> Option<NodeIndex> {
        let &(number, side) = self.nodes[node.0].links.get(&link)?;
        let connection = self.connections[number].as_ref()?;
        Some(connection.ends[1 - side].node)
    }

    /// Sends on an open link. On any other the message is dropped.
    pub fn send(&mut self, now: Nanos, from: NodeIndex, link: LinkId, message: Message) {
        let Some(&(number, side)) = self.nodes[from.0].links.get(&link) else {
            return;
        };
        let Some(connection) = &self.connections[number] else {
            return;
        };
        if connection.established && !connection.broken && connection.ends[1 - side].open {
            let size = MESSAGE_OVERHEAD + message.data().len() as u64;
            self.enqueue(now, number, 1 - side, Item::Message(message), size);
        }
    }

    /// A node ends a link; the other end learns it behind what is under way.
    pub fn close(&mut self, now: Nanos, node: NodeIndex, link: LinkId) {
        let Some((number, side)) = self.nodes[node.0].links.remove(&link) else {
            return;
        };
        let Some(connection) = self.connections[number].as_mut() else {
            return;
        };
        connection.ends[side].open = false;
        let tell = connection.established && connection.ends[1 - side].open && !connection.broken;
        if tell {
            self.enqueue(now, number, 1 - side, Item::Closed, 0);
        } else if !connection.ends[1 - side].open || !connection.established {
            self.forget(number);
        }
    }

    /// A node's process ends. When its machine lost power, others learn it only by
    /// their own timeouts; otherwise its kernel tells them, behind a part of what was
    /// under way.
    pub fn end_process(&mut self, now: Nanos, node: NodeIndex, power_lost: bool) {
        for (_, (number, side)) in std::mem::take(&mut self.nodes[node.0].links) {
            let kept = self.rng.word();
            let patience = self.rng.between(MILLISECOND * 100, SECOND * 8);
            let Some(connection) = self.connections[number].as_mut() else {
                continue;
            };
            connection.ends[side].open = false;
            if !connection.established || !connection.ends[1 - side].open {
                self.forget(number);
            } else if power_lost {
                connection.lanes[1 - side].items.clear();
                connection.broken = true;
                let event = NetworkEvent::Broken(number, 1 - side, connection.healed);
                self.due.push_back((now + patience, event));
            } else if !connection.broken {
                let lane = &mut connection.lanes[1 - side];
                let length = lane.items.len() as u64 + 1;
                lane.items.truncate((kept % length) as usize);
                self.enqueue(now, number, 1 - side, Item::Closed, 0);
            }
        }
    }

    /// Carries out what was due. `door` tells how a node answers a connection.
    pub fn handle(
        &mut self,
        now: Nanos,
        event: NetworkEvent,
        door: impl Fn(NodeIndex) -> Door,
    ) -> Option<Delivered> {
        match event {
            NetworkEvent::Arrive(number) => self.arrive(now, number, door),
            NetworkEvent::Deliver(number, side) => self.deliver(now, number, side),
            NetworkEvent::Broken(number, side, healed) => self.broken(number, side, healed),
            NetworkEvent::Stranded(number, side) => self.stranded(number, side),
        }
    }

    fn arrive(
        &mut self,
        now: Nanos,
        number: usize,
        door: impl Fn(NodeIndex) -> Door,
    ) -> Option<Delivered> {
        let connection = self.connections[number].as_ref()?;
        let [from, to] = connection.ends.map(|end| end.node);
        let cut = self.is_cut(from, to) || self.is_cut(to, from);
        match if cut { Door::Silent } else { door(to) } {
            Door::Silent => {
                let patience = self.rng.between(SECOND, 4 * SECOND);
                self.break_at(now + patience, number, 0);
                None
            }
            Door::Refused => {
                let back = self.link(to, from).latency;
                self.break_at(now + back, number, 0);
                None
            }
            Door::Open => Some(self.accept(now, number)),
        }
    }

    fn accept(&mut self, now: Nanos, number: usize) -> Delivered {
        let connection = self.connections[number].as_mut().expect("it just arrived");
        let [from, to] = connection.ends.map(|end| end.node);
        let node = &mut self.nodes[to.0];
        let link = LinkId(node.next_link);
        node.next_link += 2;
        node.links.insert(link, (number, 1));
        connection.ends[1].link = link;
        connection.established = true;
        self.enqueue(now, number, 0, Item::Connected, 0);
        Delivered {
            node: to,
            link,
            peer: from,
            what: Delivery::Accepted,
        }
    }

    fn deliver(&mut self, now: Nanos, number: usize, side: usize) -> Option<Delivered> {
        let connection = self.connections[number].as_mut()?;
        let [to, from] = [connection.ends[side], connection.ends[1 - side]];
        if connection.broken {
            return None;
        }
        if self.is_cut(from.node, to.node) {
            self.stall(now, number, side);
            return None;
        }
        let connection = self.connections[number].as_mut()?;
        let held_until = connection.lanes[side].held_until;
        if now < held_until {
            let event = NetworkEvent::Deliver(number, side);
            self.due.push_back((held_until, event));
            return None;
        }
        let what = match connection.lanes[side].items.pop_front()? {
            _ if !to.open => return None,
            Item::Connected => Delivery::Connected,
            Item::Message(message) => Delivery::Message(message),
            Item::Closed => {
                self.nodes[to.node.0].links.remove(&to.link);
                self.forget(number);
                Delivery::Closed("closed by the other end")
            }
        };
        Some(Delivered {
            node: to.node,
            link: to.link,
            peer: from.node,
            what,
        })
    }

    /// An arrival fell into a cut. If that lasts, both ends give the connection up,
    /// each in its own time.
    fn stall(&mut self, now: Nanos, number: usize, side: usize) {
        let sender = self.rng.between(SECOND / 2, 6 * SECOND);
        let receiver = self.rng.between(SECOND / 2, 15 * SECOND);
        let connection = self.connections[number].as_mut().expect("it was just seen");
        connection.lanes[side].stalled += 1;
        if !std::mem::replace(&mut connection.breaking, true) {
            self.break_at(now + sender, number, 1 - side);
            self.break_at(now + receiver, number, side);
        }
    }

    fn break_at(&mut self, when: Nanos, number: usize, side: usize) {
        let healed = self.connections[number].as_ref().map_or(0, |c| c.healed);
        self.due
            .push_back((when, NetworkEvent::Broken(number, side, healed)));
    }

    fn broken(&mut self, number: usize, side: usize, healed: u32) -> Option<Delivered> {
        let connection = self.connections[number].as_mut()?;
        if connection.healed != healed {
            return None;
        }
        connection.broken = true;
        for lane in &mut connection.lanes {
            lane.items.clear();
        }
        let end = connection.ends[side];
        connection.ends[side].open = false;
        let peer = connection.ends[1 - side];
        let other_knows = !peer.open || !connection.established;
        if other_knows {
            self.forget(number);
        }
        end.open.then(|| {
            self.nodes[end.node.0].links.remove(&end.link);
            Delivered {
                node: end.node,
                link: end.link,
                peer: peer.node,
                what: Delivery::Closed("timed out"),
            }
        })
    }

    fn forget(&mut self, number: usize) {
        self.connections[number] = None;
    }

    fn enqueue(&mut self, now: Nanos, number: usize, side: usize, item: Item, size: u64) {
        let connection = self.connections[number]
            .as_ref()
            .expect("an open link has one");
        let from = connection.ends[1 - side].node;
        let to = connection.ends[side].node;
        let arrival = self.arrival(now, from, to, size);
        let connection = self.connections[number].as_mut().expect("it was just seen");
        let lane = &mut connection.lanes[side];
        lane.last = lane.last.max(arrival);
        lane.items.push_back(item);
        self.due
            .push_back((lane.last, NetworkEvent::Deliver(number, side)));
    }

    /// When something sent now arrives, and the pair is busy until it is on its way.
    fn arrival(&mut self, now: Nanos, from: NodeIndex, to: NodeIndex, size: u64) -> Nanos {
        let LinkSpeed { latency, bandwidth } = self.link(from, to);
        let jitter = self.rng.below(self.speed.jitter + 1);
        let late = self.rng.below(1000) < self.speed.retransmits;
        let pair = self.pair_mut(from, to);
        let start = pair.busy_until.max(now).max(pair.clogged_until);
        pair.busy_until = start + size * SECOND / bandwidth;
        let delay = if late { 200 * MILLISECOND } else { 0 };
        pair.busy_until + latency + jitter + delay
    }

    /// Between two datacentres it is not as usual.
    pub fn set_link(&mut self, (one, other): (u64, u64), speed: LinkSpeed) {
        self.links.insert((one.min(other), one.max(other)), speed);
    }

    fn link(&self, from: NodeIndex, to: NodeIndex) -> LinkSpeed {
        let one = self.nodes[from.0].datacentre;
        let other = self.nodes[to.0].datacentre;
        let usual = |latency| LinkSpeed {
            latency,
            bandwidth: self.speed.bandwidth,
        };
        if one == other {
            return usual(self.speed.latency);
        }
        let known = self.links.get(&(one.min(other), one.max(other)));
        known.copied().unwrap_or_else(|| usual(self.speed.between))
    }

    fn pair_mut(&mut self, from: NodeIndex, to: NodeIndex) -> &mut Pair {
        &mut self.pairs[from.0 * self.nodes.len() + to.0]
    }

    fn is_cut(&self, from: NodeIndex, to: NodeIndex) -> bool {
        self.pairs[from.0 * self.nodes.len() + to.0].cuts > 0
    }

    /// Stops messages of one node to another; cuts add up.
    pub fn cut(&mut self, from: NodeIndex, to: NodeIndex) {
        self.pair_mut(from, to).cuts += 1;
    }

    /// Ends one cut. What waited goes on, unless its connection was given up.
    pub fn heal(&mut self, now: Nanos, from: NodeIndex, to: NodeIndex) {
        let pair = self.pair_mut(from, to);
        pair.cuts = pair.cuts.saturating_sub(1);
        if pair.cuts == 0 {
            self.resume(now, from, to);
        }
    }

    fn resume(&mut self, now: Nanos, from: NodeIndex, to: NodeIndex) {
        let latency = self.link(from, to).latency;
        for (number, slot) in self.connections.iter_mut().enumerate() {
            let Some(connection) = slot else { continue };
            let side = match connection.ends.map(|end| end.node) {
                [a, b] if (a, b) == (to, from) => 0,
                [a, b] if (a, b) == (from, to) => 1,
                _ => continue,
            };
            let lane = &mut connection.lanes[side];
            if connection.broken || lane.stalled == 0 {
                continue;
            }
            lane.last = lane.last.max(now + latency);
            for _ in 0..std::mem::take(&mut lane.stalled) {
                let event = NetworkEvent::Deliver(number, side);
                self.due.push_back((lane.last, event));
            }
            if connection.lanes.iter().all(|lane| lane.stalled == 0) {
                connection.breaking = false;
                connection.healed += 1;
            }
        }
    }

    /// A node is in another datacentre from now on.
    pub fn move_node(&mut self, node: NodeIndex, datacentre: u64) {
        self.nodes[node.0].datacentre = datacentre;
    }

    /// Holds messages of one node to another back until then.
    pub fn clog(&mut self, from: NodeIndex, to: NodeIndex, until: Nanos) {
        let pair = self.pair_mut(from, to);
        pair.clogged_until = pair.clogged_until.max(until);
    }

    /// Breaks every connection of one node to another, but only for the first: what it
    /// had sent is still on its way and arrives up to `late` from now, each connection's
    /// in its own time, whatever new ones bring meanwhile. Behind it the other end learns
    /// that the connection is gone. What was on its way back is lost.
    pub fn strand(&mut self, now: Nanos, from: NodeIndex, to: NodeIndex, late: Nanos) {
        for number in 0..self.connections.len() {
            let Some(connection) = &self.connections[number] else {
                continue;
            };
            let side = match connection.ends.map(|end| end.node) {
                [a, b] if (a, b) == (from, to) => 0,
                [a, b] if (a, b) == (to, from) => 1,
                _ => continue,
            };
            let are_open = connection.ends.iter().all(|end| end.open);
            if !connection.established || connection.broken || !are_open {
                continue;
            }
            self.enqueue(now, number, 1 - side, Item::Closed, 0);
            let held_until = now + self.rng.between(0, late);
            let connection = self.connections[number].as_mut().expect("it was just seen");
            connection.lanes[1 - side].held_until = held_until;
            self.due
                .push_back((now, NetworkEvent::Stranded(number, side)));
        }
    }

    fn stranded(&mut self, number: usize, side: usize) -> Option<Delivered> {
        let connection = self.connections[number].as_mut()?;
        let [end, peer] = [connection.ends[side], connection.ends[1 - side]];
        let knew = !std::mem::replace(&mut connection.ends[side].open, false);
        (!knew).then(|| {
            self.nodes[end.node.0].links.remove(&end.link);
            Delivered {
                node: end.node,
                link: end.link,
                peer: peer.node,
                what: Delivery::Closed("reset"),
            }
        })
    }

    /// Ends every cut and clog.
    pub fn heal_all(&mut self, now: Nanos) {
        let count = self.nodes.len();
        for from in (0..count).map(NodeIndex) {
            for to in (0..count).map(NodeIndex) {
                let pair = self.pair_mut(from, to);
                pair.clogged_until = 0;
                if std::mem::take(&mut pair.cuts) > 0 {
                    self.resume(now, from, to);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use antler_core::wire::client_master::ClientToMaster;

    const A: NodeIndex = NodeIndex(0);
    const B: NodeIndex = NodeIndex(1);

    fn message(echo: u64) -> Message {
        Message::ClientToMaster(ClientToMaster::Alive { echo })
    }

    /// A network of two nodes with a heap of its own.
    struct Pair {
        network: Network,
        heap: BTreeMap<(Nanos, u64), NetworkEvent>,
        now: Nanos,
        count: u64,
        door: Door,
    }

    impl Pair {
        fn new() -> Self {
            let speed = NetworkSpeed {
                latency: 100_000,
                between: 10 * MILLISECOND,
                jitter: 50_000,
                bandwidth: 1 << 30,
                retransmits: 20,
            };
            Self {
                network: Network::new(speed, &[1, 1], 7),
                heap: BTreeMap::new(),
                now: 0,
                count: 0,
                door: Door::Open,
            }
        }

        /// Everything that is delivered until nothing is due before `until`.
        fn run(&mut self, until: Nanos) -> Vec<Delivered> {
            let mut delivered = Vec::new();
            loop {
                while let Some((when, event)) = self.network.next_due() {
                    self.heap.insert((when, self.count), event);
                    self.count += 1;
                }
                match self.heap.first_entry() {
                    Some(entry) if entry.key().0 <= until => {
                        let ((when, _), event) = entry.remove_entry();
                        self.now = when;
                        let door = self.door;
                        delivered.extend(self.network.handle(when, event, |_| door));
                    }
                    _ => break,
                }
            }
            self.now = until;
            delivered
        }

        fn connected() -> (Self, LinkId) {
            let mut pair = Self::new();
            pair.network.connect(0, A, LinkId(1), Some(B));
            let delivered = pair.run(SECOND);
            assert_eq!(delivered.len(), 2);
            assert!(matches!(delivered[0].what, Delivery::Accepted));
            assert!(matches!(delivered[1].what, Delivery::Connected));
            assert_eq!((delivered[1].node, delivered[1].link), (A, LinkId(1)));
            let link = delivered[0].link;
            (pair, link)
        }
    }

    fn echoes(delivered: &[Delivered]) -> Vec<u64> {
        delivered
            .iter()
            .filter_map(|delivered| match delivered.what {
                Delivery::Message(Message::ClientToMaster(ClientToMaster::Alive { echo })) => {
                    Some(echo)
                }
                _ => None,
            })
            .collect()
    }

    #[test]
    fn messages_keep_their_order_whatever_delays_them() {
        let (mut pair, _) = Pair::connected();
        for echo in 0..200 {
            pair.network.send(pair.now, A, LinkId(1), message(echo));
        }
        let delivered = pair.run(10 * SECOND);
        assert_eq!(echoes(&delivered), (0..200).collect::<Vec<_>>());
    }

    #[test]
    fn a_short_cut_only_delays_and_a_long_one_breaks_both_ends() {
        let (mut pair, link) = Pair::connected();
        pair.network.cut(A, B);
        pair.network.send(pair.now, A, LinkId(1), message(1));
        pair.network.send(pair.now, B, link, message(2));
        assert_eq!(
            echoes(&pair.run(SECOND + SECOND / 4)),
            [2],
            "the other direction works"
        );
        pair.network.heal(pair.now, A, B);
        assert_eq!(echoes(&pair.run(30 * SECOND)), [1]);
        pair.network.cut(A, B);
        pair.network.send(pair.now, A, LinkId(1), message(3));
        let delivered = pair.run(60 * SECOND);
        let closed: Vec<NodeIndex> = delivered.iter().map(|d| d.node).collect();
        assert_eq!(delivered.len(), 2, "{delivered:?}");
        assert!(closed.contains(&A) && closed.contains(&B));
        pair.network.heal(pair.now, A, B);
        assert!(
            pair.run(120 * SECOND).is_empty(),
            "what was given up never arrives"
        );
    }

    #[test]
    fn what_is_stranded_arrives_behind_what_came_on_the_next_connection() {
        let mut behind = 0;
        for echo in 0..20 {
            let (mut pair, link) = Pair::connected();
            pair.network.send(pair.now, A, LinkId(1), message(echo));
            pair.network
                .strand(pair.now, A, B, 10 * SECOND + echo * MILLISECOND);
            pair.network.connect(pair.now, A, LinkId(3), Some(B));
            let delivered = pair.run(pair.now + SECOND / 100);
            assert!(matches!(delivered[0].what, Delivery::Closed(_)) && delivered[0].node == A);
            pair.network.send(pair.now, B, link, message(100));
            pair.network.send(pair.now, A, LinkId(3), message(200));
            let delivered = pair.run(20 * SECOND);
            let mut seen = echoes(&delivered);
            behind += usize::from(seen == [200, echo]);
            seen.sort_unstable();
            assert_eq!(seen, [echo, 200], "once each, and nothing comes back");
            let last = delivered.iter().rfind(|one| one.link == link);
            assert!(matches!(
                last.expect("it is told").what,
                Delivery::Closed(_)
            ));
        }
        assert!(behind > 0);
    }

    #[test]
    fn a_close_comes_behind_what_was_sent() {
        let (mut pair, link) = Pair::connected();
        pair.network.send(pair.now, A, LinkId(1), message(1));
        pair.network.close(pair.now, A, LinkId(1));
        pair.network.send(pair.now, B, link, message(2));
        let delivered = pair.run(10 * SECOND);
        assert_eq!(delivered.len(), 2, "{delivered:?}");
        assert_eq!(echoes(&delivered), [1]);
        assert!(matches!(delivered[1].what, Delivery::Closed(_)));
        assert_eq!(delivered[1].node, B);
    }

    #[test]
    fn nobody_at_the_door_is_told_to_the_one_who_connects() {
        for door in [Door::Refused, Door::Silent] {
            let mut pair = Pair::new();
            pair.door = door;
            pair.network.connect(0, A, LinkId(1), Some(B));
            let delivered = pair.run(10 * SECOND);
            assert_eq!(delivered.len(), 1, "{door:?}");
            assert!(matches!(delivered[0].what, Delivery::Closed(_)));
        }
    }

    #[test]
    fn the_end_of_a_process_is_noticed() {
        for power_lost in [false, true] {
            let (mut pair, _) = Pair::connected();
            pair.network.send(pair.now, A, LinkId(1), message(1));
            pair.network.end_process(pair.now, A, power_lost);
            let delivered = pair.run(30 * SECOND);
            let last = delivered.last().expect("it is told");
            assert!(matches!(last.what, Delivery::Closed(_)) && last.node == B);
        }
    }
}
