//! A small world around clients: links as FIFOs with random delays that break
//! visibly, masters, chunkservers, a virtual clock. Test code.

use crate::master::{Guest, Master, Said};
use crate::server::Server;
use antler_core::attributes::{Attributes, Credentials};
use antler_core::client::request::{ClientAnswer, ClientRequest, FileReply, FileRequest, Handle};
use antler_core::client::{Client, ClientConfig};
use antler_core::errno::Errno;
use antler_core::ids::{Address, BootId, Incarnation, InodeId, ServerId};
use antler_core::machine::{Effect, Input, Machine, Peer, Role};
use antler_core::rng::Rng;
use antler_core::time::{Duration, Instant, Now, Timestamp};
use antler_core::version::FeatureLevel;
use antler_core::wire::Message;
use antler_core::wire::client_chunk::{
    ChunkError, ChunkErrorKind, ChunkReply, ChunkReplyBody, ChunkRequestBody,
};
use antler_core::wire::client_master::ClientToMaster;
use bytes::Bytes;
use std::collections::BTreeMap;

const MILLI: u64 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Master(usize),
    Server(ServerId),
}

struct Link {
    target: Target,
    /// The life of a chunkserver that it was made with.
    life: Option<BootId>,
    /// When the last message in each direction arrives.
    there: u64,
    back: u64,
}

enum Event {
    Connect(Guest),
    There(Guest, Target, Message),
    Back(Guest, Message),
    Closed(Guest),
    /// The kernel has carried an invalidation out.
    Invalidated(usize, u64),
    /// The leader brings closing chunks to rest.
    Settle,
}

/// A mount: its machine, and what it answered.
pub(crate) struct Mount {
    pub(crate) client: Client,
    pub(crate) answers: BTreeMap<u64, Result<FileReply, Errno>>,
    pub(crate) invalidated: Vec<ClientAnswer>,
    pub(crate) is_ready: bool,
}

pub(crate) struct World {
    pub(crate) now: u64,
    order: u64,
    queue: BTreeMap<(u64, u64), Event>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) master: Master,
    pub(crate) servers: BTreeMap<ServerId, Server>,
    links: BTreeMap<Guest, Link>,
    pub(crate) rng: Rng,
    next_operation: u64,
    /// Delays of a message, in microseconds.
    pub(crate) delay: (u64, u64),
    /// How much longer writes take to the servers.
    pub(crate) write_delay: Duration,
    /// One request in so many meets a busy server.
    pub(crate) busy_in: Option<u64>,
    /// Masters that can't be reached.
    pub(crate) down: Vec<usize>,
    /// Invalidations are carried out only by `release_kernel`.
    pub(crate) kernel_hangs: bool,
    /// Of this mount alone.
    pub(crate) only_hangs: Option<usize>,
    hung: Vec<(usize, u64)>,
    pub(crate) steps: u64,
    /// Requests that arrived at masters, and at chunkservers.
    pub(crate) asked: (u64, u64),
}

impl World {
    pub(crate) fn new(seed: u64, servers: u64, masters: usize) -> Self {
        let servers = (1..=servers).map(|id| (ServerId(id), Server::new(ServerId(id))));
        let mut world = Self {
            now: 1_000 * MILLI,
            order: 0,
            queue: BTreeMap::new(),
            mounts: Vec::new(),
            master: Master::new(masters),
            servers: servers.collect(),
            links: BTreeMap::new(),
            rng: Rng::new(seed),
            next_operation: 1,
            delay: (50, 500),
            write_delay: Duration::ZERO,
            busy_in: None,
            down: Vec::new(),
            kernel_hangs: false,
            only_hangs: None,
            hung: Vec::new(),
            steps: 0,
            asked: (0, 0),
        };
        world.schedule(20 * MILLI, Event::Settle);
        world
    }

    pub(crate) fn config(&self) -> ClientConfig {
        let masters = (0..self.master.count).map(|n| Address(format!("master-{n}")));
        ClientConfig {
            masters: masters.collect(),
            name: "test".to_owned(),
            nonce: 1000 + self.mounts.len() as u64 * 100,
            ..ClientConfig::default()
        }
    }

    pub(crate) fn mount(&mut self, config: ClientConfig) -> usize {
        let seed = self.rng.word();
        let client = Client::new(config, seed, self.clock());
        self.mounts.push(Mount {
            client,
            answers: BTreeMap::new(),
            invalidated: Vec::new(),
            is_ready: false,
        });
        self.mounts.len() - 1
    }

    /// Mounts with the usual bounds and waits until the mount may be used.
    pub(crate) fn mount_ready(&mut self) -> usize {
        let config = self.config();
        let mount = self.mount(config);
        self.run_until(|world| world.mounts[mount].is_ready);
        mount
    }

    fn clock(&self) -> Now {
        Now {
            mono: Instant(self.now),
            wall: Timestamp {
                seconds: 1_700_000_000 + (self.now / 1_000_000_000) as i64,
                nanos: (self.now % 1_000_000_000) as u32,
            },
        }
    }

    fn schedule(&mut self, after: u64, event: Event) {
        self.schedule_at(self.now + after, event);
    }

    fn schedule_at(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.queue.insert((at, self.order), event);
    }

    fn draw_delay(&mut self) -> u64 {
        self.rng.between(self.delay.0, self.delay.1) * 1000
    }

    /// Does the next thing that happens, in a client or in the world.
    pub(crate) fn step(&mut self) {
        self.steps += 1;
        let wake = (0..self.mounts.len())
            .filter_map(|n| Some((self.mounts[n].client.poll_timeout()?.0, n)))
            .min();
        let next = self.queue.keys().next().map(|&(at, _)| at);
        match (wake, next) {
            (Some((at, mount)), next) if next.is_none_or(|next| at <= next) => {
                self.now = self.now.max(at);
                self.feed(mount, Input::Timeout);
            }
            (_, Some(_)) => {
                let ((at, _), event) = self.queue.pop_first().expect("it was there");
                self.now = self.now.max(at);
                self.happen(event);
            }
            _ => panic!("the settling never ends"),
        }
    }

    pub(crate) fn run_until(&mut self, mut done: impl FnMut(&Self) -> bool) {
        let limit = self.steps + 2_000_000;
        while !done(self) {
            assert!(self.steps < limit, "no progress");
            self.step();
        }
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time.as_nanos() as u64;
        while self.now < end {
            self.step();
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Connect(guest) => self.connect(guest),
            Event::There(guest, target, message) => self.arrive(guest, target, message),
            Event::Back((mount, link), message) => {
                if self.links.contains_key(&(mount, link)) {
                    self.feed(mount, Input::Message { link, message });
                }
            }
            Event::Closed((mount, link)) => {
                let reason = "broken".to_owned();
                self.feed(mount, Input::Closed { link, reason });
            }
            Event::Invalidated(mount, ticket) => {
                self.request(mount, FileRequest::Invalidated { ticket });
            }
            Event::Settle => {
                self.master.settle(&mut self.servers);
                self.schedule(20 * MILLI, Event::Settle);
            }
        }
    }

    fn connect(&mut self, guest: Guest) {
        let Some(link) = self.links.get_mut(&guest) else {
            return;
        };
        let (mount, id) = guest;
        let (role, number, boot) = match link.target {
            Target::Master(number) if self.down.contains(&number) => {
                self.links.remove(&guest);
                let reason = "refused".to_owned();
                return self.feed(mount, Input::Closed { link: id, reason });
            }
            Target::Master(number) => (Role::Master, number as u64 + 1, BootId(1)),
            Target::Server(server) => (Role::ChunkServer, server.0, self.servers[&server].boot),
        };
        link.life = Some(boot);
        let peer = Peer {
            role,
            id: number,
            boot,
            incarnation: Incarnation(1),
            speaks: FeatureLevel::NEWEST,
        };
        self.feed(mount, Input::Connected { link: id, peer });
    }

    /// A message of a client arrives, perhaps after its link broke.
    fn arrive(&mut self, guest: Guest, target: Target, message: Message) {
        match (target, message) {
            (Target::Master(number), Message::ClientToMaster(said)) => {
                let hello = matches!(said, ClientToMaster::Hello { .. });
                if self.down.contains(&number) || hello && !self.links.contains_key(&guest) {
                    return;
                }
                let is_request = matches!(
                    said,
                    ClientToMaster::Ask { .. } | ClientToMaster::Mutate { .. }
                );
                self.asked.0 += u64::from(is_request);
                let said = self
                    .master
                    .on_message(number, guest, said, &mut self.servers);
                self.say(said);
            }
            (Target::Server(server), Message::ChunkRequest(request)) => {
                self.asked.1 += 1;
                let life = self.servers[&server].boot;
                let link = self.links.get(&guest);
                if link.is_some_and(|link| link.life != Some(life)) {
                    return;
                }
                if let Some(reply) = self.serve(server, request) {
                    self.reply(guest, Message::ChunkReply(reply));
                }
            }
            (target, message) => panic!("{message:?} does not belong to {target:?}"),
        }
    }

    fn say(&mut self, said: Vec<Said>) {
        for (guest, message) in said {
            self.reply(guest, Message::MasterToClient(message));
        }
    }

    fn reply(&mut self, guest: Guest, message: Message) {
        let delay = self.draw_delay();
        let now = self.now;
        if let Some(link) = self.links.get_mut(&guest) {
            link.back = link.back.max(now + delay);
            let at = link.back;
            self.schedule_at(at, Event::Back(guest, message));
        }
    }

    /// A request at the head of its chain: every copy does its share, in order.
    fn serve(
        &mut self,
        head: ServerId,
        request: antler_core::wire::client_chunk::ChunkRequest,
    ) -> Option<ChunkReply> {
        let id = request.request;
        if self.servers[&head].hangs {
            return None;
        }
        let busy = self.busy_in.is_some_and(|n| self.rng.one_in(n));
        let mut result = if busy {
            Err(error(head, ChunkErrorKind::Busy))
        } else {
            Ok((ChunkReplyBody::Done { boots: Vec::new() }, Bytes::new()))
        };
        let mut boots = Vec::new();
        let rest = request
            .chain
            .iter()
            .map(|copy| (copy.server, copy.capability.clone()));
        let chain: Vec<_> = std::iter::once((head, request.capability.clone()))
            .chain(rest)
            .collect();
        for (server, capability) in chain {
            if result.is_err() {
                break;
            }
            let server = self.servers.get_mut(&server).expect("all are known");
            if server.hangs {
                result = Err(error(server.id, ChunkErrorKind::Unreachable));
                break;
            }
            boots.push(server.boot);
            result = server
                .perform(
                    &capability,
                    &self.master.keys,
                    (&request.body, request.syncs),
                    &request.data,
                )
                .map_err(|kind| error(server.id, kind));
        }
        if result.is_ok() && is_sync(&request.body) {
            self.master.owed.remove(&request.capability.part.chunk);
        }
        let (result, data) = match result {
            Ok((ChunkReplyBody::Done { .. }, data)) => (Ok(ChunkReplyBody::Done { boots }), data),
            Ok((body, data)) => (Ok(body), data),
            Err(error) => (Err(error), Bytes::new()),
        };
        Some(ChunkReply {
            request: id,
            result,
            data,
        })
    }

    /// Breaks a link: what is on its way to the peer may still arrive, no answer does.
    pub(crate) fn break_link(&mut self, guest: Guest) {
        let Some(link) = self.links.remove(&guest) else {
            return;
        };
        let loses = self.rng.one_in(2);
        if loses {
            self.queue
                .retain(|_, event| !matches!(event, Event::There(g, ..) if *g == guest));
        }
        if let Target::Master(_) = link.target {
            let said = self.master.on_gone(guest);
            self.say(said);
        }
        let delay = self.draw_delay();
        self.schedule(delay, Event::Closed(guest));
    }

    pub(crate) fn links_to(&self, wanted: impl Fn(Target) -> bool) -> Vec<Guest> {
        let matching = self.links.iter().filter(|(_, link)| wanted(link.target));
        matching.map(|(&guest, _)| guest).collect()
    }

    /// A chunkserver loses power and comes back at once, and its links stay half open:
    /// nobody learns of it, and what is sent on them goes nowhere.
    pub(crate) fn power_cycle_unseen(&mut self, server: ServerId) {
        let one = self.servers.get_mut(&server);
        one.expect("it is known").power_cycle();
    }

    /// A chunkserver loses power and comes back at once.
    pub(crate) fn power_cycle(&mut self, server: ServerId) {
        for guest in self.links_to(|target| target == Target::Server(server)) {
            self.break_link(guest);
        }
        self.servers
            .get_mut(&server)
            .expect("it is known")
            .power_cycle();
    }

    /// Another master takes over.
    pub(crate) fn fail_over(&mut self, leader: usize) {
        for guest in self.links_to(|target| matches!(target, Target::Master(_))) {
            self.break_link(guest);
        }
        self.master.fail_over(leader);
    }

    pub(crate) fn release_kernel(&mut self) {
        self.kernel_hangs = false;
        for (mount, ticket) in std::mem::take(&mut self.hung) {
            self.schedule(0, Event::Invalidated(mount, ticket));
        }
    }

    fn feed(
        &mut self,
        mount: usize,
        input: Input<antler_core::client::NoOperation, ClientRequest>,
    ) {
        let now = self.clock();
        self.mounts[mount].client.handle(now, input);
        while let Some(effect) = self.mounts[mount].client.poll_effect() {
            self.carry_out(mount, effect);
        }
        let whole = self.steps.is_multiple_of(16);
        self.mounts[mount].client.check_invariants(whole);
    }

    fn carry_out(
        &mut self,
        mount: usize,
        effect: Effect<antler_core::client::NoOperation, ClientAnswer>,
    ) {
        let now = self.now;
        match effect {
            Effect::Connect { link, address, .. } => {
                let target = target(&address);
                let delay = self.draw_delay();
                let (there, back) = (now, now);
                let one = Link {
                    target,
                    life: None,
                    there,
                    back,
                };
                self.links.insert((mount, link), one);
                self.schedule(delay, Event::Connect((mount, link)));
            }
            Effect::Send { link, message } => {
                let mut delay = self.draw_delay();
                if is_write(&message) {
                    delay += self.write_delay.as_nanos() as u64;
                }
                if let Some(one) = self.links.get_mut(&(mount, link)) {
                    one.there = one.there.max(now + delay);
                    let (at, target) = (one.there, one.target);
                    self.schedule_at(at, Event::There((mount, link), target, message));
                }
            }
            Effect::Close { link, .. } => {
                if let Some(one) = self.links.remove(&(mount, link))
                    && let Target::Master(_) = one.target
                {
                    let said = self.master.on_gone((mount, link));
                    self.say(said);
                }
            }
            Effect::Operate(never) => match never {},
            Effect::Answer(answer) => self.on_answer(mount, answer),
            Effect::Log { .. } => {}
            Effect::Stop { reason, .. } => panic!("a client does not stop: {reason}"),
        }
    }

    fn on_answer(&mut self, mount: usize, answer: ClientAnswer) {
        match answer {
            ClientAnswer::Ready => self.mounts[mount].is_ready = true,
            ClientAnswer::Done { operation, result } => {
                let before = self.mounts[mount].answers.insert(operation, result);
                assert!(before.is_none(), "a request is answered once");
            }
            ClientAnswer::InvalidateEntry { ticket, .. }
            | ClientAnswer::InvalidateInode { ticket, .. } => {
                self.mounts[mount].invalidated.push(answer);
                if self.kernel_hangs && self.only_hangs.is_none_or(|only| only == mount) {
                    self.hung.push((mount, ticket));
                } else {
                    let delay = self.draw_delay();
                    self.schedule(delay, Event::Invalidated(mount, ticket));
                }
            }
        }
    }

    // Requests.

    /// Asks something as root; returns its number.
    pub(crate) fn request(&mut self, mount: usize, body: FileRequest) -> u64 {
        let operation = self.next_operation;
        self.next_operation += 1;
        let request = ClientRequest {
            operation,
            credentials: Credentials::default(),
            body,
        };
        self.feed(mount, Input::Request(request));
        operation
    }

    /// Asks something and waits for its answer.
    pub(crate) fn ask(&mut self, mount: usize, body: FileRequest) -> Result<FileReply, Errno> {
        let operation = self.request(mount, body);
        self.wait(mount, operation)
    }

    pub(crate) fn wait(&mut self, mount: usize, operation: u64) -> Result<FileReply, Errno> {
        self.run_until(|world| world.mounts[mount].answers.contains_key(&operation));
        self.mounts[mount]
            .answers
            .remove(&operation)
            .expect("it was there")
    }

    pub(crate) fn create(&mut self, mount: usize, name: &str) -> (InodeId, Handle) {
        let body = FileRequest::Create {
            parent: InodeId::ROOT,
            name: name.as_bytes().to_vec(),
            mode: 0o644,
            exclusive: false,
            truncate: false,
            read: true,
            write: true,
        };
        opened(self.ask(mount, body))
    }

    pub(crate) fn open(&mut self, mount: usize, inode: InodeId) -> Handle {
        let body = FileRequest::Open {
            inode,
            read: true,
            write: true,
            truncate: false,
        };
        opened(self.ask(mount, body)).1
    }

    pub(crate) fn write(
        &mut self,
        mount: usize,
        file: (InodeId, Handle),
        offset: u64,
        data: &[u8],
    ) {
        let body = write_request(file, offset, data);
        match self.ask(mount, body) {
            Ok(FileReply::Written(length)) => assert_eq!(length as usize, data.len()),
            other => panic!("a write is taken: {other:?}"),
        }
    }

    pub(crate) fn read(
        &mut self,
        mount: usize,
        file: (InodeId, Handle),
        offset: u64,
        length: u32,
    ) -> Bytes {
        match self.ask(mount, read_request(file, offset, length)) {
            Ok(FileReply::Bytes(data)) => data,
            other => panic!("a read is answered: {other:?}"),
        }
    }

    pub(crate) fn fsync(&mut self, mount: usize, (inode, handle): (InodeId, Handle)) {
        self.done(mount, FileRequest::Fsync { inode, handle });
    }

    /// What close(2) of the last descriptor comes to.
    pub(crate) fn close(&mut self, mount: usize, (inode, handle): (InodeId, Handle)) {
        self.done(mount, FileRequest::Flush { inode, handle });
        self.done(mount, FileRequest::Release { inode, handle });
    }

    pub(crate) fn attributes(&mut self, mount: usize, inode: InodeId) -> Attributes {
        match self.ask(mount, FileRequest::GetAttributes { inode }) {
            Ok(FileReply::Attributes(attributes, _)) => attributes,
            other => panic!("attributes are answered: {other:?}"),
        }
    }

    pub(crate) fn lookup(&mut self, mount: usize, name: &str) -> Option<Attributes> {
        let body = FileRequest::Lookup {
            parent: InodeId::ROOT,
            name: name.as_bytes().to_vec(),
        };
        match self.ask(mount, body) {
            Ok(FileReply::Entry(attributes, _)) => Some(attributes),
            Ok(FileReply::Absent(_)) => None,
            other => panic!("a name is there or not: {other:?}"),
        }
    }

    /// As `done`, for what answers with what it made.
    pub(crate) fn done_or_made(&mut self, mount: usize, body: FileRequest) {
        let reply = self.ask(mount, body);
        assert!(matches!(reply, Ok(FileReply::Entry(..))), "{reply:?}");
    }

    pub(crate) fn done(&mut self, mount: usize, body: FileRequest) {
        let shown = format!("{body:?}");
        match self.ask(mount, body) {
            Ok(FileReply::Done) => {}
            other => panic!("{shown} is done: {other:?}"),
        }
    }
}

pub(crate) fn write_request(
    (inode, handle): (InodeId, Handle),
    offset: u64,
    data: &[u8],
) -> FileRequest {
    FileRequest::Write {
        inode,
        handle,
        offset,
        data: Bytes::copy_from_slice(data),
    }
}

pub(crate) fn read_request(
    (inode, handle): (InodeId, Handle),
    offset: u64,
    length: u32,
) -> FileRequest {
    FileRequest::Read {
        inode,
        handle,
        offset,
        length,
    }
}

pub(crate) fn opened(result: Result<FileReply, Errno>) -> (InodeId, Handle) {
    match result {
        Ok(FileReply::Opened {
            handle, attributes, ..
        }) => (attributes.inode, handle),
        other => panic!("a file opens: {other:?}"),
    }
}

fn is_write(message: &Message) -> bool {
    let Message::ChunkRequest(request) = message else {
        return false;
    };
    matches!(request.body, ChunkRequestBody::Write { .. })
}

fn is_sync(body: &ChunkRequestBody) -> bool {
    matches!(
        body,
        ChunkRequestBody::Sync | ChunkRequestBody::Write { sync: true, .. }
    )
}

fn error(server: ServerId, kind: ChunkErrorKind) -> ChunkError {
    ChunkError { server, kind }
}

fn target(address: &Address) -> Target {
    let (kind, number) = address.0.split_once('-').expect("the tests made it");
    let number: u64 = number.parse().expect("the tests made it");
    match kind {
        "master" => Target::Master(number as usize),
        _ => Target::Server(ServerId(number)),
    }
}
