//! A few chunkservers, a leader and a client played by the test, and the wire
//! between them: messages are delivered in order, at once, until nobody has more.

use crate::files::Files;
use antler_core::chunk::operation::{DiskChange, DiskCompletion, DiskOperation, DiskRequest};
use antler_core::chunk::rules::DiskRules;
use antler_core::chunk::{ChunkStore, Progress, StoreOptions, Tuning};
use antler_core::chunkserver::{ChunkServer, ChunkServerConfig, DiskCare, Limits};
use antler_core::ids::*;
use antler_core::limits::{HEARTBEAT, UNIT_SIZE};
use antler_core::machine::{Effect, Input, Machine, Peer, Role, ServerRequest};
use antler_core::rng::Rng;
use antler_core::time::{Duration, Instant, Now};
use antler_core::version::FeatureLevel;
use antler_core::vfs::Vfs;
use antler_core::wire::Message;
use antler_core::wire::capability::{Capability, Grant, Right, derive_key};
use antler_core::wire::chunk_master::{
    CapabilityKey, ChunkToMaster, Command, CommandResult, MasterToChunk, PartReport,
};
use antler_core::wire::client_chunk::*;
use antler_core::wire::client_master::{DiskStatus, LocatedCopy};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

type In = Input<DiskCompletion, ServerRequest>;

pub struct Node {
    pub machine: ChunkServer,
    pub server: ServerId,
    pub boot: BootId,
    pub stores: BTreeMap<DiskId, ChunkStore<Files>>,
    /// The other end of each link: a node and its link, or the test.
    links: BTreeMap<LinkId, (usize, LinkId)>,
    next_accepted: u64,
    /// The link of the client that the test plays.
    client: LinkId,
    /// The link to the leader that the test plays.
    pub leader: Option<LinkId>,
    pub stopped: Option<bool>,
}

impl Node {
    fn peer(&self) -> Peer {
        Peer {
            boot: self.boot,
            ..peer(Role::ChunkServer, self.server.0)
        }
    }
}

/// Chunkservers 0.. at addresses `cs0`..., each with its disks.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub now: Instant,
    events: VecDeque<(usize, In)>,
    pub term: Term,
    /// The leader answers heartbeats.
    pub leader_speaks: bool,
    pub from_servers: Vec<(usize, ChunkToMaster)>,
    replies: BTreeMap<(usize, RequestId), ChunkReply>,
    next_request: u64,
    /// The number under the lease of the syncs that are asked for.
    pub syncs: u32,
    next_command: u64,
    boots: u64,
    /// How fast its servers scrub.
    scrub: u64,
    /// What its servers do about their disks of themselves.
    care: DiskCare,
    /// Operations that a test holds back.
    pub hold: bool,
    /// Only this node's, if it is set.
    pub hold_only: Option<usize>,
    held: Vec<(usize, DiskOperation)>,
    /// The files of disks that were closed.
    closed: BTreeMap<(usize, DiskId), Files>,
    /// Links to this node can't be made.
    pub unreachable: Option<usize>,
}

pub fn key() -> CapabilityKey {
    derive_key(b"secret", 1)
}

pub fn part(chunk: u64) -> PartId {
    PartId::whole(ChunkId(chunk))
}

fn tuning() -> Tuning {
    Tuning {
        segment_size: 512 << 10,
        slots_per_file: 64,
        reserve: 0,
        ..Tuning::default()
    }
}

fn options(server: usize, disk: u64) -> StoreOptions {
    StoreOptions {
        cluster: ClusterId(1),
        server: ServerId(server as u64 + 1),
        disk: DiskId(disk),
        path: format!("disk-{disk}"),
        tuning: tuning(),
    }
}

impl Cluster {
    /// `servers` chunkservers with `disks` disks each, registered with the leader.
    pub fn new(servers: usize, disks: u64) -> Self {
        Self::scrubbed(servers, disks, 0)
    }

    /// The same, which scrub so many bytes a second.
    pub fn scrubbed(servers: usize, disks: u64, scrub: u64) -> Self {
        let none = DiskCare {
            balance: 0,
            ..DiskCare::default()
        };
        Self::with(servers, disks, scrub, none)
    }

    /// The same, which do so much about their disks of themselves.
    pub fn caring(servers: usize, disks: u64, care: DiskCare) -> Self {
        Self::with(servers, disks, 0, care)
    }

    fn with(servers: usize, disks: u64, scrub: u64, care: DiskCare) -> Self {
        let mut cluster = Self {
            care,
            nodes: Vec::new(),
            now: Instant(1_000_000_000),
            events: VecDeque::new(),
            term: Term(5),
            leader_speaks: true,
            from_servers: Vec::new(),
            replies: BTreeMap::new(),
            next_request: 0,
            syncs: 0,
            next_command: 0,
            boots: 100,
            scrub,
            hold: false,
            hold_only: None,
            held: Vec::new(),
            closed: BTreeMap::new(),
            unreachable: None,
        };
        for at in 0..servers {
            let files = (1..=disks).map(|disk| (at as u64 * 10 + disk, Files::default()));
            let node = cluster.boot(at, files.collect());
            cluster.nodes.push(node);
        }
        for at in 0..servers {
            cluster.attach_client(at);
        }
        cluster.pass(HEARTBEAT);
        cluster
    }

    fn boot(&mut self, at: usize, disks: Vec<(u64, Files)>) -> Node {
        self.boots += 1;
        let mut stores = BTreeMap::new();
        let mut opened = Vec::new();
        for (disk, files) in disks {
            let (store, disk) = ChunkStore::open(files, options(at, disk)).unwrap();
            stores.insert(disk.disk, store);
            opened.push(disk);
        }
        let config = ChunkServerConfig {
            server: ServerId(at as u64 + 1),
            boot: BootId(self.boots),
            address: Address(format!("cs{at}")),
            labels: Vec::new(),
            masters: vec![Address::from("master")],
            incarnation: Incarnation(1),
            limits: Limits::default(),
            scrub: self.scrub,
            repair_slowdown: 200,
            care: self.care,
            speaks: FeatureLevel::NEWEST,
        };
        let (server, boot) = (config.server, config.boot);
        let machine = ChunkServer::new(config, opened, at as u64, self.clock());
        Node {
            machine,
            server,
            boot,
            stores,
            links: BTreeMap::new(),
            next_accepted: 1,
            client: LinkId(0),
            leader: None,
            stopped: None,
        }
    }

    fn attach_client(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.client = LinkId(node.next_accepted * 2);
        node.next_accepted += 1;
        let peer = Peer {
            role: Role::Client,
            id: 0,
            boot: BootId(0),
            incarnation: Incarnation(1),
            speaks: FeatureLevel::NEWEST,
        };
        let link = node.client;
        self.input(at, Input::Accepted { link, peer });
    }

    pub fn clock(&self) -> Now {
        Now {
            mono: self.now,
            ..Now::default()
        }
    }

    /// Feeds an input and runs until nobody has more to do.
    pub fn input(&mut self, at: usize, input: In) {
        self.events.push_back((at, input));
        self.run();
    }

    fn run(&mut self) {
        while let Some((at, input)) = self.events.pop_front() {
            let now = self.clock();
            self.nodes[at].machine.handle(now, input);
            while let Some(effect) = self.nodes[at].machine.poll_effect() {
                self.perform(at, effect);
            }
            self.nodes[at].machine.check_invariants(true);
        }
    }

    fn perform(&mut self, at: usize, effect: Effect<DiskOperation, ()>) {
        match effect {
            Effect::Connect {
                link,
                address,
                role,
            } => self.wire(at, link, &address, role),
            Effect::Send { link, message } => self.deliver(at, link, message),
            Effect::Close { link, .. } => self.cut(at, link),
            Effect::Operate(operation) if self.holds(at) => self.held.push((at, operation)),
            Effect::Operate(operation) => self.operate(at, operation),
            Effect::Stop { graceful, .. } => self.nodes[at].stopped = Some(graceful),
            Effect::Answer(()) | Effect::Log { .. } => {}
        }
    }

    fn wire(&mut self, at: usize, link: LinkId, address: &Address, role: Role) {
        if role == Role::Master {
            self.nodes[at].leader = Some(link);
            let peer = peer(Role::Master, 1);
            return self.events.push_back((at, Input::Connected { link, peer }));
        }
        let to = self
            .nodes
            .iter()
            .position(|node| address.0 == format!("cs{}", node.server.0 - 1));
        let Some(to) = to.filter(|to| self.unreachable != Some(*to)) else {
            let reason = "nobody is there".to_owned();
            return self.events.push_back((at, Input::Closed { link, reason }));
        };
        let there = LinkId(self.nodes[to].next_accepted * 2);
        self.nodes[to].next_accepted += 1;
        self.nodes[at].links.insert(link, (to, there));
        self.nodes[to].links.insert(there, (at, link));
        let own = self.nodes[at].peer();
        self.events.push_back((
            to,
            Input::Accepted {
                link: there,
                peer: own,
            },
        ));
        let theirs = self.nodes[to].peer();
        self.events
            .push_back((at, Input::Connected { link, peer: theirs }));
    }

    fn deliver(&mut self, at: usize, link: LinkId, message: Message) {
        // Through the frame, as on a real wire.
        let (frame, data) = message.encode();
        let (header, body) = frame.split_at(antler_core::wire::HEADER_SIZE);
        let header = antler_core::wire::Header::decode(header.try_into().unwrap()).unwrap();
        let message = Message::decode(header, body, data).unwrap();
        if let Some(&(to, there)) = self.nodes[at].links.get(&link) {
            if self.nodes[to].links.get(&there) != Some(&(at, link)) {
                // The other end started anew, and its host says nothing.
                return;
            }
            return self.events.push_back((
                to,
                Input::Message {
                    link: there,
                    message,
                },
            ));
        }
        match message {
            Message::ChunkReply(reply) if link == self.nodes[at].client => {
                let before = self.replies.insert((at, reply.request), reply);
                assert!(before.is_none(), "a request is answered once");
            }
            Message::ChunkToMaster(message) => self.hear(at, link, message),
            other => panic!("nobody takes {other:?}"),
        }
    }

    /// The leader hears a server.
    fn hear(&mut self, at: usize, link: LinkId, message: ChunkToMaster) {
        if let ChunkToMaster::Alive { sent, .. } = message
            && self.leader_speaks
        {
            let heard = MasterToChunk::Heard {
                term: self.term,
                leader: true,
                incarnation: Incarnation(1),
                keys: vec![key()],
                heard: sent,
            };
            let message = Message::MasterToChunk(heard);
            self.events
                .push_back((at, Input::Message { link, message }));
        }
        self.from_servers.push((at, message));
    }

    fn cut(&mut self, at: usize, link: LinkId) {
        if let Some((to, there)) = self.nodes[at].links.remove(&link) {
            self.nodes[to].links.remove(&there);
            let reason = "closed".to_owned();
            self.events.push_back((
                to,
                Input::Closed {
                    link: there,
                    reason,
                },
            ));
        }
    }

    fn operate(&mut self, at: usize, operation: DiskOperation) {
        let store = self.nodes[at].stores.get_mut(&operation.disk).unwrap();
        let closes = matches!(operation.body, DiskRequest::Close);
        let mut work = store.start(operation.body);
        let mut synced = None;
        let result = loop {
            match store.advance(&mut work, synced.take()) {
                Progress::Sync(file) => synced = Some(store.vfs_mut().sync(file)),
                Progress::More => {}
                Progress::Done(result) => break result,
            }
        };
        store.check_invariants(false);
        if closes {
            let store = self.nodes[at].stores.remove(&operation.disk);
            let files = store.unwrap().into_vfs();
            self.closed.insert((at, operation.disk), files);
        }
        let completion = DiskCompletion {
            disk: operation.disk,
            token: operation.token,
            result,
        };
        self.events.push_back((at, Input::Completed(completion)));
    }

    fn holds(&self, at: usize) -> bool {
        self.hold && self.hold_only.is_none_or(|only| only == at)
    }

    /// How many reads are held back.
    pub fn held_reads(&self) -> usize {
        let held = self.held.iter();
        let reads = held.filter(|(_, operation)| {
            matches!(
                operation.body,
                DiskRequest::Read { .. } | DiskRequest::Map { .. }
            )
        });
        reads.count()
    }

    /// Carries out what was held back.
    pub fn release(&mut self) {
        self.hold = false;
        for (at, operation) in std::mem::take(&mut self.held) {
            self.operate(at, operation);
        }
        self.run();
    }

    /// Carries out the first of what was held back.
    pub fn release_one(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let (at, operation) = self.held.remove(0);
        self.operate(at, operation);
        self.run();
    }

    /// A crash is about to come: what was held back is never done.
    pub fn forget_held(&mut self) {
        self.held.clear();
    }

    /// Lets time pass, waking everybody when they ask for it.
    pub fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let due = self
                .nodes
                .iter()
                .filter_map(|node| node.machine.poll_timeout())
                .min();
            let Some(due) = due.filter(|due| *due <= end) else {
                break;
            };
            self.now = self.now.max(due);
            for at in 0..self.nodes.len() {
                let timeout = self.nodes[at].machine.poll_timeout();
                if timeout.is_some_and(|timeout| timeout <= self.now) {
                    self.input(at, Input::Timeout);
                }
            }
        }
        self.now = end;
    }

    /// Power-cycles a server: what was not synced is lost, as the seed says.
    pub fn restart(&mut self, at: usize, seed: u64) {
        self.disconnect(at);
        self.restart_unseen(at, seed);
    }

    /// The same, but the links of the others to it stay half open.
    pub fn restart_unseen(&mut self, at: usize, seed: u64) {
        let mut rng = Rng::new(seed);
        let stores = std::mem::take(&mut self.nodes[at].stores);
        let disks = stores
            .into_iter()
            .map(|(disk, store)| (disk.0, store.into_vfs().after_power_cut(&mut rng)));
        let disks = disks.collect();
        self.nodes[at] = self.boot(at, disks);
        self.attach_client(at);
        self.pass(HEARTBEAT);
    }

    /// Orders something of a server's disk.
    pub fn order(&mut self, at: usize, disk: u64, rules: DiskRules) {
        let changes = vec![DiskChange::Rules(DiskId(disk), rules)];
        self.input(at, Input::Request(ServerRequest::Disks(changes)));
    }

    /// Opens a disk for a server that runs.
    pub fn add_disk(&mut self, at: usize, disk: u64, files: Files, rules: DiskRules) {
        let (store, mut opened) = ChunkStore::open(files, options(at, disk)).unwrap();
        opened.rules = rules;
        self.nodes[at].stores.insert(opened.disk, store);
        let changes = vec![DiskChange::Add(opened)];
        self.input(at, Input::Request(ServerRequest::Disks(changes)));
    }

    /// Has a disk let go.
    pub fn ask_to_remove(&mut self, at: usize, disk: u64) {
        let changes = vec![DiskChange::Remove(DiskId(disk))];
        self.input(at, Input::Request(ServerRequest::Disks(changes)));
    }

    /// The same, at once: its files.
    pub fn remove_disk(&mut self, at: usize, disk: u64) -> Files {
        self.ask_to_remove(at, disk);
        self.pass(HEARTBEAT * 8);
        assert!(!self.is_there(at, disk), "nothing is under way on it");
        self.closed.remove(&(at, DiskId(disk))).unwrap()
    }

    /// Whether a server has a disk, by its own word.
    pub fn is_there(&self, at: usize, disk: u64) -> bool {
        let mut disks = self.told_disks(at).iter();
        disks.any(|status| status.disk == DiskId(disk))
    }

    /// What a server told last of its disks.
    fn told_disks(&self, at: usize) -> &[DiskStatus] {
        let told = self.from_servers.iter().rev();
        let mut told = told.filter_map(|(from, said)| match said {
            ChunkToMaster::Alive { disks, .. } if *from == at => Some(disks),
            _ => None,
        });
        told.next().expect("it told of its disks")
    }

    /// The chunks of which a server's disk holds a whole copy.
    pub fn chunks_on(&self, at: usize, disk: u64) -> Vec<u64> {
        let store = &self.nodes[at].stores[&DiskId(disk)];
        store.parts().map(|stored| stored.part.chunk.0).collect()
    }

    /// What a server told last of one of its disks.
    pub fn disk_status(&self, at: usize, disk: u64) -> DiskStatus {
        let mut disks = self.told_disks(at).iter();
        let found = disks.find(|status| status.disk == DiskId(disk));
        found.expect("it has the disk").clone()
    }

    /// Breaks every link of a server to others.
    pub fn disconnect(&mut self, at: usize) {
        let links: Vec<LinkId> = self.nodes[at].links.keys().copied().collect();
        for link in links {
            self.cut(at, link);
        }
        self.run();
    }

    /// Flips a bit in the first place of a server's slot files that holds `content`.
    pub fn rot(&mut self, at: usize, byte: usize, content: &[u8]) {
        for store in self.nodes[at].stores.values_mut() {
            let files = store.vfs_mut();
            for (name, _) in files.lengths() {
                let found = name
                    .starts_with("slots-")
                    .then(|| files.find(&name, content))
                    .flatten();
                if let Some(offset) = found {
                    return files.rot(&name, offset + byte, 0x40);
                }
            }
        }
        panic!("no slot holds that");
    }

    pub fn copy(&self, at: usize, chunk: u64, version: u64, right: Right) -> LocatedCopy {
        let node = &self.nodes[at];
        let grant = Grant {
            part: part(chunk),
            version: ChunkVersion(version),
            epoch: Epoch(version),
            right,
        };
        LocatedCopy {
            server: node.server,
            boot: node.boot,
            address: Address(format!("cs{at}")),
            capability: Capability::mint(&key(), node.server, node.boot, grant),
        }
    }

    /// Sends a request of the client along a chain; the reply may come later.
    pub fn ask(
        &mut self,
        chain: &[LocatedCopy],
        body: ChunkRequestBody,
        data: &[u8],
    ) -> (usize, RequestId) {
        self.next_request += 1;
        let request = ChunkRequest {
            request: RequestId(self.next_request),
            capability: chain[0].capability.clone(),
            chain: chain[1..].to_vec(),
            body,
            syncs: self.syncs,
            data: Bytes::copy_from_slice(data),
        };
        let at = chain[0].server.0 as usize - 1;
        let (link, id) = (self.nodes[at].client, request.request);
        let message = Message::ChunkRequest(request);
        self.input(at, Input::Message { link, message });
        (at, id)
    }

    pub fn reply(&mut self, asked: (usize, RequestId)) -> Option<ChunkReply> {
        self.replies.remove(&asked)
    }

    pub fn request(
        &mut self,
        chain: &[LocatedCopy],
        body: ChunkRequestBody,
        data: &[u8],
    ) -> Result<ChunkReplyBody, ChunkError> {
        let asked = self.ask(chain, body, data);
        self.reply(asked).expect("it was answered").result
    }

    /// Writes along a chain.
    pub fn write(
        &mut self,
        chain: &[LocatedCopy],
        offset: u32,
        data: &[u8],
        sync: bool,
    ) -> Result<Vec<BootId>, ChunkErrorKind> {
        boots(self.request(chain, write_body(offset, data, sync), data))
    }

    pub fn sync(&mut self, chain: &[LocatedCopy]) -> Result<Vec<BootId>, ChunkErrorKind> {
        boots(self.request(chain, ChunkRequestBody::Sync, &[]))
    }

    /// Reads whole units.
    pub fn read(
        &mut self,
        copy: &LocatedCopy,
        offset: u32,
        length: u32,
    ) -> Result<Bytes, ChunkErrorKind> {
        let body = ChunkRequestBody::Read { offset, length };
        let asked = self.ask(std::slice::from_ref(copy), body, &[]);
        let reply = self.reply(asked).expect("it was answered");
        match reply.result {
            Ok(ChunkReplyBody::Read { checksums, .. }) => {
                assert!(
                    reply
                        .data
                        .chunks(UNIT_SIZE)
                        .map(crc32fast::hash)
                        .eq(checksums)
                );
                Ok(reply.data)
            }
            Ok(other) => panic!("not a read's reply: {other:?}"),
            Err(error) => Err(error.kind),
        }
    }

    /// Sends a command of the leader; its end is found by `command_result`.
    pub fn send_command(&mut self, at: usize, body: Command) -> u64 {
        self.next_command += 1;
        let command = self.next_command;
        let term = self.term;
        let message = Message::MasterToChunk(MasterToChunk::Command {
            command,
            term,
            body,
        });
        let link = self.nodes[at].leader.unwrap();
        self.input(at, Input::Message { link, message });
        command
    }

    pub fn command_result(&self, at: usize, wanted: u64) -> Option<CommandResult> {
        let results = self
            .from_servers
            .iter()
            .filter_map(|(from, message)| match message {
                ChunkToMaster::CommandDone { command, result }
                    if *from == at && *command == wanted =>
                {
                    Some(result.clone())
                }
                _ => None,
            });
        let results: Vec<_> = results.collect();
        assert!(results.len() <= 1, "a command is answered once");
        results.into_iter().next()
    }

    pub fn command(&mut self, at: usize, body: Command) -> CommandResult {
        let command = self.send_command(at, body);
        self.command_result(at, command).expect("it was answered")
    }

    /// The parts that a server lost by its own word.
    pub fn lost(&self, at: usize) -> Vec<PartId> {
        let lost = self
            .from_servers
            .iter()
            .filter_map(|(from, message)| match message {
                ChunkToMaster::Lost { parts } if *from == at => Some(parts.clone()),
                _ => None,
            });
        lost.flatten().collect()
    }

    /// Parts that the server told can only be read any more.
    pub fn suspects(&self, at: usize) -> Vec<PartId> {
        let told = self.told(at).filter(|report| report.suspect);
        told.map(|report| report.part).collect()
    }

    fn told(&self, at: usize) -> impl Iterator<Item = &PartReport> {
        let told = self.from_servers.iter();
        let told = told.filter_map(move |(from, message)| match message {
            ChunkToMaster::Gained { parts } if *from == at => Some(parts),
            _ => None,
        });
        told.flatten()
    }

    /// Parts that a server told of as bad.
    pub fn bad(&self, at: usize) -> Vec<PartId> {
        let bad = self.told(at).filter(|report| report.bad);
        bad.map(|report| report.part).collect()
    }

    /// Parts that a server told of as good.
    pub fn gained(&self, at: usize) -> Vec<(PartId, ChunkVersion)> {
        let good = self.told(at).filter(|report| !report.bad);
        good.map(|report| (report.part, report.version)).collect()
    }

    /// The parts of a server's newest registration.
    pub fn reported(&self, at: usize) -> Vec<PartReport> {
        let own = self.from_servers.iter().filter(|(from, _)| *from == at);
        let messages: Vec<_> = own.map(|(_, message)| message).collect();
        let start = messages
            .iter()
            .rposition(|message| matches!(message, ChunkToMaster::Register { .. }));
        let reports = messages[start.unwrap()..]
            .iter()
            .filter_map(|message| match message {
                ChunkToMaster::Report { parts, .. } => Some(parts.clone()),
                _ => None,
            });
        reports.flatten().collect()
    }
}

fn peer(role: Role, id: u64) -> Peer {
    Peer {
        role,
        id,
        boot: BootId(id),
        incarnation: Incarnation(1),
        speaks: FeatureLevel::NEWEST,
    }
}

pub fn write_body(offset: u32, data: &[u8], sync: bool) -> ChunkRequestBody {
    let first = UNIT_SIZE - offset as usize % UNIT_SIZE;
    let (head, tail) = data.split_at(first.min(data.len()));
    let pieces = std::iter::once(head).chain(tail.chunks(UNIT_SIZE));
    let checksums = pieces
        .filter(|piece| !piece.is_empty())
        .map(crc32fast::hash);
    ChunkRequestBody::Write {
        offset,
        checksums: checksums.collect(),
        drop_from: None,
        sync,
    }
}

fn boots(result: Result<ChunkReplyBody, ChunkError>) -> Result<Vec<BootId>, ChunkErrorKind> {
    match result {
        Ok(ChunkReplyBody::Done { boots }) => Ok(boots),
        Ok(other) => panic!("not the end of a change: {other:?}"),
        Err(error) => Err(error.kind),
    }
}

/// Bytes that differ from place to place.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    std::iter::repeat_with(|| rng.word().to_le_bytes())
        .flatten()
        .take(length)
        .collect()
}
