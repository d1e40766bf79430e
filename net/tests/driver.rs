//! Two drivers and a machine that only passes on: connections, order, refusals,
//! bounds, and garbage on a port.

use antler_core::hash::Digest;
use antler_core::ids::{Address, ClusterId, Incarnation, LinkId, MemberId};
use antler_core::machine::{Effect, Input, LinkAllocator, Machine, Role};
use antler_core::time::{Instant, Now};
use antler_core::version::FeatureLevel;
use antler_core::wire::Message;
use antler_core::wire::hello::ClusterKey;
use antler_core::wire::master_peer::PeerMessage;
use antler_net::driver::{Driver, Parts};
use antler_net::identity::{Credential, Identity, Says};
use antler_net::listener::Listener;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use tokio::runtime::Handle;

/// Does what it is asked and tells what happens.
#[derive(Default)]
struct Relay {
    effects: VecDeque<Effect<(), Event>>,
    links: LinkAllocator,
    wake_at: Option<Instant>,
}

#[derive(Debug)]
enum Order {
    Connect(String, Role),
    Send(LinkId, Vec<Message>),
    Close(LinkId),
    WakeIn(Duration),
    Stop,
}

#[derive(PartialEq, Debug)]
enum Event {
    Up(LinkId, Role, u64),
    Down(LinkId, String),
    Got(LinkId, Message),
    Woken,
}

impl Machine for Relay {
    type Operation = ();
    type Completion = ();
    type Request = Order;
    type Answer = Event;

    fn handle(&mut self, now: Now, input: Input<(), Order>) {
        let event = match input {
            Input::Accepted { link, peer } | Input::Connected { link, peer } => {
                Event::Up(link, peer.role, peer.id)
            }
            Input::Closed { link, reason } => Event::Down(link, reason),
            Input::Message { link, message } => Event::Got(link, message),
            Input::Timeout => {
                assert!(now.mono >= self.wake_at.take().expect("asked for"));
                Event::Woken
            }
            Input::Completed(()) => return,
            Input::Request(order) => return self.obey(now, order),
        };
        self.effects.push_back(Effect::Answer(event));
    }

    fn poll_effect(&mut self) -> Option<Effect<(), Event>> {
        self.effects.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.wake_at
    }

    fn digest(&self, _: &mut Digest) {}

    fn check_invariants(&self, _: bool) {}
}

impl Relay {
    fn obey(&mut self, now: Now, order: Order) {
        match order {
            Order::Connect(address, role) => self.effects.push_back(Effect::Connect {
                link: self.links.allocate(),
                address: Address(address),
                role,
            }),
            Order::Send(link, messages) => self.effects.extend(
                messages
                    .into_iter()
                    .map(|message| Effect::Send { link, message }),
            ),
            Order::Close(link) => self.effects.push_back(Effect::Close {
                link,
                reason: "asked".into(),
            }),
            Order::WakeIn(wait) => self.wake_at = Some(now.mono + wait),
            Order::Stop => self.effects.push_back(Effect::Stop {
                graceful: true,
                reason: "asked".into(),
            }),
        }
    }
}

struct Node {
    driver: Driver<Relay>,
    events: Receiver<Event>,
    runtime: Handle,
    _end: tokio::sync::oneshot::Sender<()>,
    address: String,
}

fn credential(cluster: u64, key: u8) -> Credential {
    Credential {
        cluster: ClusterId(cluster),
        key: ClusterKey([key; 32]),
    }
}

fn node(role: Role, id: u64) -> Node {
    node_with(role, id, credential(1, 1))
}

fn node_with(role: Role, id: u64, credential: Credential) -> Node {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let handle = runtime.handle().clone();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || runtime.block_on(ended));
    let (events, received): (Sender<Event>, _) = channel();
    let driver = Driver::start(Parts {
        machine: Relay::default(),
        identity: Identity::new(credential, role, id),
        incarnation: Incarnation(1),
        storage: Box::new(|()| {}),
        answers: Box::new(move |answers, _| {
            for event in answers {
                let _ = events.send(event);
            }
        }),
        runtime: handle.clone(),
    });
    let listener = handle
        .block_on(Listener::bind("127.0.0.1:0"))
        .expect("a port");
    let address = listener.address().expect("known").to_string();
    handle.spawn(listener.run(driver.clone()));
    Node {
        driver,
        events: received,
        runtime: handle,
        _end: end,
        address,
    }
}

impl Node {
    fn order(&self, order: Order) {
        self.driver.feed(Input::Request(order));
    }

    fn event(&self) -> Event {
        self.events
            .recv_timeout(Duration::from_secs(20))
            .expect("something happens")
    }

    fn up(&self) -> LinkId {
        match self.event() {
            Event::Up(link, _, _) => link,
            other => panic!("a link comes up first: {other:?}"),
        }
    }

    fn down(&self) -> String {
        match self.event() {
            Event::Down(_, reason) => reason,
            other => panic!("the link goes down: {other:?}"),
        }
    }
}

fn message(number: u64, size: usize) -> Message {
    let mut data = vec![0; size];
    for (at, byte) in data.iter_mut().enumerate() {
        *byte = (at as u64 * 31 + number) as u8;
    }
    Message::Peer(PeerMessage::Raft {
        from: MemberId(number),
        data: Bytes::from(data),
    })
}

#[test]
fn messages_of_every_size_arrive_in_order_both_ways() {
    let (left, right) = (node(Role::Client, 0), node(Role::Master, 1));
    left.order(Order::Connect(right.address.clone(), Role::Master));
    assert_eq!(left.event(), Event::Up(LinkId(1), Role::Master, 1));
    assert_eq!(right.event(), Event::Up(LinkId(2), Role::Client, 0));
    let sizes = [
        0, 1, 100, 2047, 2048, 2049, 15_000, 16_384, 65_536, 70_000, 1_048_576, 4_194_304, 3,
    ];
    let script: Vec<usize> = sizes.iter().cycle().take(200).copied().collect();
    let messages = || {
        (0..)
            .zip(&script)
            .map(|(number, size)| message(number, *size))
    };
    for piece in messages().collect::<Vec<_>>().chunks(7) {
        left.order(Order::Send(LinkId(1), piece.to_vec()));
        right.order(Order::Send(LinkId(2), piece.to_vec()));
    }
    for expected in messages() {
        assert!(matches!(right.event(), Event::Got(LinkId(2), got) if got == expected));
        assert!(matches!(left.event(), Event::Got(LinkId(1), got) if got == expected));
    }
}

#[test]
fn a_closed_link_is_told_at_the_other_end_after_what_was_sent() {
    let (left, right) = (node(Role::Client, 0), node(Role::Master, 1));
    left.order(Order::Connect(right.address.clone(), Role::Master));
    let (there, here) = (left.up(), right.up());
    let last = message(5, 3_000_000);
    right.order(Order::Send(here, vec![last.clone()]));
    right.order(Order::Close(here));
    assert_eq!(left.event(), Event::Got(there, last));
    assert_eq!(left.down(), "the other end closed the connection");
    // Nothing follows at the end that closed it, and sending is harmless.
    right.order(Order::Send(here, vec![message(1, 1)]));
    right.order(Order::WakeIn(Duration::from_millis(20)));
    assert_eq!(right.event(), Event::Woken);
}

#[test]
fn a_link_that_cannot_be_made_is_told_once() {
    let lonely = node(Role::Client, 0);
    lonely.order(Order::Connect("127.0.0.1:1".into(), Role::Master));
    assert!(lonely.down().contains("refused"));
    let (address, reason) = lonely.driver.complaints().unreachable().remove(0);
    assert_eq!(address, "127.0.0.1:1");
    assert!(reason.contains("refused"), "{reason}");
}

#[test]
fn strangers_are_refused_with_the_reason() {
    let master = node(Role::Master, 1);
    let cases = [
        (credential(1, 9), Role::Master, "wrong cluster key"),
        (credential(2, 1), Role::Master, "wrong cluster: "),
        (
            credential(1, 1),
            Role::ChunkServer,
            "wrong role: a chunkserver is wanted",
        ),
    ];
    for (credential, wanted, reason) in cases {
        let stranger = node_with(Role::Client, 0, credential);
        stranger.order(Order::Connect(master.address.clone(), wanted));
        let told = stranger.down();
        assert!(told.contains(reason), "{told}");
    }
    assert!(master.events.try_recv().is_err(), "the machine saw nothing");
}

#[test]
fn garbage_on_the_port_is_answered_and_touches_nothing() {
    let master = node(Role::Master, 1);
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 5000],
        b"ANTH\xff\xff\0\0....",
    ] {
        let mut stream = std::net::TcpStream::connect(&master.address).expect("connects");
        stream.write_all(garbage).expect("sent");
        let mut answer = Vec::new();
        // A reset is an end, too: there were more bytes than the daemon read.
        let _ = stream.read_to_end(&mut answer);
        if garbage.len() < 100 {
            assert!(answer.starts_with(b"ANTH"), "a refusal comes back");
        }
    }
    assert!(master.events.try_recv().is_err(), "the machine saw nothing");
    let friend = node(Role::Client, 0);
    friend.order(Order::Connect(master.address, Role::Master));
    friend.up();
}

#[test]
fn garbage_behind_the_exchange_closes_the_link() {
    let master = node(Role::Master, 1);
    let identity = Identity::new(credential(1, 1), Role::Client, 0);
    let says = Says {
        incarnation: Incarnation(1),
        speaks: FeatureLevel::NEWEST,
    };
    let mut hello = identity.connect(says, Role::Master);
    let mut stream = std::net::TcpStream::connect(&master.address).expect("connects");
    let agreed = loop {
        if let Some(bytes) = hello.poll_transmit() {
            stream.write_all(&bytes).expect("sent");
        }
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        hello.receive(&byte);
        if let Some(outcome) = hello.poll_outcome() {
            break outcome.expect("agreed");
        }
    };
    assert_eq!(agreed.peer.id, 1);
    master.up();
    stream.write_all(&[7; 24]).expect("sent");
    assert!(master.down().contains("not an Antler frame"));
}

#[test]
fn a_peer_that_does_not_read_loses_its_link() {
    let master = node(Role::Master, 1);
    let client = node(Role::Client, 0);
    client.order(Order::Connect(master.address.clone(), Role::Master));
    let here = master.up();
    client.up();
    // The client's only runtime thread sleeps, so it reads nothing.
    client
        .runtime
        .spawn(async { std::thread::sleep(Duration::from_secs(3)) });
    std::thread::sleep(Duration::from_millis(100));
    let big = message(1, 4 << 20);
    for _ in 0..100 {
        master.order(Order::Send(here, vec![big.clone()]));
    }
    assert!(master.down().contains("does not take what is sent"));
}

#[test]
fn a_stopped_machine_hears_nothing_more() {
    let master = node(Role::Master, 1);
    master.order(Order::Stop);
    let stopped = master
        .runtime
        .block_on(master.driver.stopped(Duration::from_secs(1)));
    assert!(stopped.graceful && stopped.reason == "asked");
    master.order(Order::WakeIn(Duration::ZERO));
    assert!(
        master
            .events
            .recv_timeout(Duration::from_millis(50))
            .is_err()
    );
}

#[test]
fn many_threads_feed_and_nothing_is_lost() {
    let (left, right) = (node(Role::Client, 0), node(Role::Master, 1));
    left.order(Order::Connect(right.address.clone(), Role::Master));
    let link = left.up();
    right.up();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let left = &left.driver;
            scope.spawn(move || {
                for number in 0..2000 {
                    let order = Order::Send(link, vec![message(thread * 10_000 + number, 100)]);
                    left.feed(Input::Request(order));
                }
            });
        }
    });
    let mut next = [0; 4];
    for _ in 0..8000 {
        let Event::Got(_, Message::Peer(PeerMessage::Raft { from, .. })) = right.event() else {
            panic!("only messages come");
        };
        let thread = usize::try_from(from.0 / 10_000).expect("small");
        assert_eq!(
            from.0 % 10_000,
            next[thread],
            "the order of each thread holds"
        );
        next[thread] += 1;
    }
}
