//! A bench for a master alone: its disk answers at once, its clients and
//! chunkservers are played by the test.
#![allow(dead_code, reason = "each test takes what it needs of it")]

pub(crate) mod cluster;
pub(crate) mod copies;

use antler_core::attributes::{Credentials, FileKind};
use antler_core::ids::{
    Address, BootId, ChunkId, Incarnation, InodeId, LinkId, MemberId, PartId, RequestId, ServerId,
    SessionId, Term,
};
use antler_core::journal::Recovered;
use antler_core::journal::operation::{
    HardState, ImageMeta, JournalCompletion, JournalOperation, JournalReply, LogEntry,
};
use antler_core::machine::{Effect, Input, Machine, Peer, Role};
use antler_core::marks::Marks;
use antler_core::master::{Master, MasterConfig};
use antler_core::member::{MemberConfig, MemberInfo};
use antler_core::namespace::State;
use antler_core::namespace::record::{LeaseEnd, Mutation, WrittenExtent};
use antler_core::placement::Labels;
use antler_core::time::{Duration, Instant, Now, Timestamp};
use antler_core::version::FeatureLevel;
use antler_core::vfs::Space;
use antler_core::wire::Message;
use antler_core::wire::chunk_master::{
    ChunkToMaster, Command, CommandResult, MasterToChunk, PartReport, PartState,
};
use antler_core::wire::client_master::{
    Answer, ClientToMaster, DiskStatus, LeasedChunk, MasterToClient, Query,
};

/// A master that leads a group of one, and what it sent.
pub(crate) struct Bench {
    pub(crate) master: Master,
    pub(crate) now: Now,
    pub(crate) sent: Vec<(LinkId, Message)>,
    pub(crate) next_link: u64,
    /// The disk does not answer for now: what it is asked waits.
    pub(crate) stalls: bool,
    pub(crate) stalled: Vec<JournalOperation>,
    /// The log as it was written.
    pub(crate) log: Vec<LogEntry>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::on(State::default())
    }

    /// A master that leads a group of one on such a state.
    pub(crate) fn on(state: State) -> Self {
        let member = group_of_one();
        let recovered = Recovered {
            hard: HardState {
                term: Term(u64::from(state.is_founded())),
                commit: state.applied(),
                ..HardState::default()
            },
            entries: Vec::new(),
            meta: ImageMeta {
                position: state.applied(),
                term: Term(u64::from(state.is_founded())),
                voters: vec![1],
                ..ImageMeta::default()
            },
            state,
            marks: Marks::default(),
        };
        let mut bench = Self::recovered(member, recovered);
        bench.lead();
        bench
    }

    /// The same group of one on nothing but its log. It is still to lead, and to read it.
    pub(crate) fn restart(self) -> Self {
        let hard = HardState {
            term: Term(1),
            ..HardState::default()
        };
        let meta = ImageMeta {
            voters: vec![1],
            ..ImageMeta::default()
        };
        let recovered = Recovered {
            hard,
            entries: self.log,
            meta,
            state: State::default(),
            marks: Marks::default(),
        };
        Self::recovered(group_of_one(), recovered)
    }

    /// Waits until it leads.
    pub(crate) fn lead(&mut self) {
        self.pass(Duration::from_secs(4));
        assert!(self.master.is_leading(), "a group of one leads by itself");
    }

    fn recovered(member: MemberConfig, recovered: Recovered) -> Self {
        let now = Now {
            mono: Instant(1),
            wall: Timestamp {
                seconds: 1_700_000_000,
                nanos: 0,
            },
        };
        let config = MasterConfig::new(member, vec![7; 32]);
        let master = Master::new(config, recovered, 1, now);
        let mut bench = Self {
            master,
            now,
            sent: Vec::new(),
            next_link: 2,
            stalls: false,
            stalled: Vec::new(),
            log: Vec::new(),
        };
        bench.drain();
        bench
    }

    pub(crate) fn input(
        &mut self,
        input: Input<JournalCompletion, antler_core::machine::ServerRequest>,
    ) {
        self.master.handle(self.now, input);
        self.drain();
    }

    pub(crate) fn drain(&mut self) {
        loop {
            let mut done = Vec::new();
            while let Some(effect) = self.master.poll_effect() {
                if let Effect::Operate(JournalOperation::Append { entries, .. }) = &effect {
                    self.log.extend(entries.iter().cloned());
                }
                match effect {
                    Effect::Send { link, message } => self.sent.push((link, message)),
                    Effect::Operate(operation) if self.stalls => self.stalled.push(operation),
                    Effect::Operate(operation) => done.push(complete(operation)),
                    Effect::Stop { reason, .. } => panic!("the master stopped: {reason}"),
                    Effect::Connect { .. }
                    | Effect::Close { .. }
                    | Effect::Answer(())
                    | Effect::Log { .. } => {}
                }
            }
            if done.is_empty() {
                break;
            }
            for completion in done {
                self.master.handle(self.now, Input::Completed(completion));
                self.collect();
            }
        }
        self.master.check_invariants(true);
    }

    /// The disk answers again.
    pub(crate) fn go_on(&mut self) {
        self.stalls = false;
        for operation in std::mem::take(&mut self.stalled) {
            self.input(Input::Completed(complete(operation)));
        }
    }

    pub(crate) fn collect(&mut self) {
        self.drain();
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now.mono + time;
        while let Some(due) = self.master.poll_timeout().filter(|due| *due <= end) {
            self.set_time(due.max(self.now.mono));
            self.input(Input::Timeout);
        }
        self.set_time(end);
    }

    /// Both clocks go alike.
    fn set_time(&mut self, mono: Instant) {
        let passed = mono.since(self.now.mono).as_nanos() as u64;
        let nanos = u64::from(self.now.wall.nanos) + passed;
        self.now.wall.seconds += (nanos / 1_000_000_000) as i64;
        self.now.wall.nanos = (nanos % 1_000_000_000) as u32;
        self.now.mono = mono;
    }

    pub(crate) fn accept(&mut self, role: Role, id: u64) -> LinkId {
        self.accept_as(FeatureLevel::NEWEST, role, id)
    }

    /// Somebody of a version connects.
    pub(crate) fn accept_as(&mut self, speaks: FeatureLevel, role: Role, id: u64) -> LinkId {
        let link = LinkId(self.next_link);
        self.next_link += 2;
        let peer = Peer {
            role,
            id,
            boot: BootId(id),
            incarnation: Incarnation(0),
            speaks,
        };
        self.input(Input::Accepted { link, peer });
        link
    }

    pub(crate) fn say(&mut self, link: LinkId, said: ClientToMaster) -> Vec<MasterToClient> {
        self.input(Input::Message {
            link,
            message: Message::ClientToMaster(said),
        });
        self.heard(link)
    }

    /// A client says that it lives.
    pub(crate) fn beat(&mut self, link: LinkId) {
        let message = Message::ClientToMaster(ClientToMaster::Alive { echo: 1 });
        self.input(Input::Message { link, message });
        let is_echo = |message: &Message| {
            matches!(message, Message::MasterToClient(told)
                if matches!(told, MasterToClient::AliveToo { .. }))
        };
        self.sent
            .retain(|(to, message)| *to != link || !is_echo(message));
    }

    /// What was sent on a client's link since the last look.
    pub(crate) fn heard(&mut self, link: LinkId) -> Vec<MasterToClient> {
        let (mine, others) = std::mem::take(&mut self.sent)
            .into_iter()
            .partition(|(to, _)| *to == link);
        self.sent = others;
        let mine: Vec<(LinkId, Message)> = mine;
        let unwrap = |(_, message)| match message {
            Message::MasterToClient(told) => told,
            other => panic!("a client is not told {other:?}"),
        };
        mine.into_iter().map(unwrap).collect()
    }

    pub(crate) fn mount(&mut self, nonce: u64) -> (LinkId, SessionId) {
        let link = self.accept(Role::Client, 0);
        let hello = ClientToMaster::Hello {
            name: "test".into(),
            nonce,
            resume: None,
            opens: vec![],
            labels: vec![],
            creating: vec![],
        };
        match &self.say(link, hello)[..] {
            [MasterToClient::Welcome { session, .. }] => (link, *session),
            other => panic!("no welcome but {other:?}"),
        }
    }

    /// A session comes back on a new link.
    pub(crate) fn resume(&mut self, nonce: u64, session: SessionId, opens: Vec<InodeId>) -> LinkId {
        self.resume_creating(nonce, session, opens, vec![])
    }

    /// The same while some of its creates are not answered.
    pub(crate) fn resume_creating(
        &mut self,
        nonce: u64,
        session: SessionId,
        opens: Vec<InodeId>,
        creating: Vec<RequestId>,
    ) -> LinkId {
        let link = self.accept(Role::Client, 0);
        let hello = ClientToMaster::Hello {
            name: "test".into(),
            nonce,
            resume: Some(session),
            opens,
            labels: vec![],
            creating,
        };
        let told = self.say(link, hello);
        assert!(
            matches!(told[..], [MasterToClient::Welcome { .. }]),
            "no welcome but {told:?}"
        );
        link
    }

    pub(crate) fn serve(&mut self, server: u64) -> LinkId {
        self.serve_in_life(server, server)
    }

    pub(crate) fn serve_in_life(&mut self, server: u64, boot: u64) -> LinkId {
        self.register(server, boot, vec![], vec![])
    }

    /// A chunkserver with such labels, and what it has.
    pub(crate) fn register(
        &mut self,
        server: u64,
        boot: u64,
        labels: Labels,
        parts: Vec<PartReport>,
    ) -> LinkId {
        let link = self.accept(Role::ChunkServer, server);
        self.register_on(link, server, (boot, labels), parts);
        link
    }

    /// The same on a link that is there.
    pub(crate) fn register_on(
        &mut self,
        link: LinkId,
        server: u64,
        (boot, labels): (u64, Labels),
        parts: Vec<PartReport>,
    ) {
        let disk = DiskStatus {
            space: Space {
                total: 1 << 40,
                free: 1 << 40,
            },
            ..DiskStatus::default()
        };
        let register = ChunkToMaster::Register {
            server: ServerId(server),
            boot: BootId(boot),
            address: Address(format!("s{server}:1")),
            labels,
            disks: vec![disk],
            incarnation: Incarnation(0),
        };
        self.tell(link, register);
        self.tell(link, ChunkToMaster::Report { parts, last: true });
    }

    pub(crate) fn tell(&mut self, link: LinkId, said: ChunkToMaster) {
        self.input(Input::Message {
            link,
            message: Message::ChunkToMaster(said),
        });
    }

    pub(crate) fn commands(&mut self, link: LinkId) -> Vec<(u64, Command)> {
        let (mine, others) = std::mem::take(&mut self.sent)
            .into_iter()
            .partition(|(to, _)| *to == link);
        self.sent = others;
        let mine: Vec<(LinkId, Message)> = mine;
        let command = |(_, message)| match message {
            Message::MasterToChunk(MasterToChunk::Command { command, body, .. }) => {
                Some((command, body))
            }
            _ => None,
        };
        mine.into_iter().filter_map(command).collect()
    }
}

fn group_of_one() -> MemberConfig {
    let member = MemberInfo {
        member: MemberId(1),
        address: Address::from("m1:1"),
        voter: true,
    };
    MemberConfig::new(MemberId(1), vec![member])
}

pub(crate) fn complete(operation: JournalOperation) -> JournalCompletion {
    JournalCompletion {
        token: operation.token(),
        result: Ok(JournalReply::Done),
    }
}

pub(crate) fn mutate(request: u64, mutation: Mutation) -> ClientToMaster {
    ClientToMaster::Mutate {
        request: RequestId(request),
        oldest: RequestId(request),
        credentials: Credentials::default(),
        mutation,
    }
}

pub(crate) fn create(name: &str) -> Mutation {
    Mutation::Create {
        parent: InodeId::ROOT,
        name: name.into(),
        kind: FileKind::Regular,
        mode: 0o644,
        device: 0,
        target: vec![],
        exclusive: true,
        write: true,
    }
}

pub(crate) fn created(told: &[MasterToClient]) -> (InodeId, Option<LeasedChunk>) {
    match told {
        [
            MasterToClient::Answer {
                result:
                    Ok(Answer::Created {
                        attributes, lease, ..
                    }),
                ..
            },
        ] => (attributes.inode, lease.as_deref().cloned()),
        other => panic!("nothing created: {other:?}"),
    }
}

/// Answers the syncs that a server was sent, as if all were durable.
pub(crate) fn sync_all(bench: &mut Bench, link: LinkId, boot: u64) -> Vec<ChunkId> {
    let mut synced = Vec::new();
    for (command, body) in bench.commands(link) {
        let Command::SyncParts { parts } = body else {
            panic!("only syncs are expected: {body:?}")
        };
        synced.extend(parts.iter().map(|(part, ..)| part.chunk));
        let state = |&(_, version, epoch): &(PartId, _, _)| {
            Some(PartState {
                version,
                epoch,
                digest: 0,
                boot: BootId(boot),
            })
        };
        let result = CommandResult::Parts(parts.iter().map(state).collect());
        bench.tell(link, ChunkToMaster::CommandDone { command, result });
    }
    synced
}

pub(crate) fn lease_name(bench: &mut Bench, link: LinkId, inode: InodeId) -> String {
    let query = Query::Info {
        inode,
        explain: None,
    };
    let ask = ClientToMaster::Ask {
        question: RequestId(5),
        credentials: Credentials::default(),
        query,
    };
    match &bench.say(link, ask)[..] {
        [
            MasterToClient::Answer {
                result: Ok(Answer::Info(info)),
                ..
            },
        ] => info.chunks[0].lease.clone(),
        other => panic!("no info but {other:?}"),
    }
}

pub(crate) fn write_and_close(bench: &mut Bench, link: LinkId) -> InodeId {
    let (inode, lease) = created(&bench.say(link, mutate(1, create("f"))));
    let lease = lease.expect("there are servers");
    bench.say(link, mutate(2, commit_and_release(inode, &lease, false)));
    inode
}

pub(crate) fn commit_and_release(inode: InodeId, lease: &LeasedChunk, synced: bool) -> Mutation {
    Mutation::CommitWrite {
        inode,
        size: 100,
        extents: vec![WrittenExtent {
            index: 0,
            chunk: lease.chunk,
            valid: 100,
            fences: lease.epoch.fences(lease.version),
            synced: false,
        }],
        release: vec![LeaseEnd {
            chunk: lease.chunk,
            epoch: lease.epoch,
            synced,
            syncs: 0,
        }],
        unchanged: false,
    }
}

pub(crate) fn granted(told: &[MasterToClient]) -> LeasedChunk {
    match told {
        [
            MasterToClient::Answer {
                result: Ok(Answer::Lease(lease)),
                ..
            },
        ] => (**lease).clone(),
        other => panic!("nothing granted: {other:?}"),
    }
}

/// Lets seconds pass in which servers say that they live.
pub(crate) fn pass_with(bench: &mut Bench, servers: &[LinkId], seconds: u64) {
    for _ in 0..seconds {
        bench.pass(Duration::from_secs(1));
        for server in servers {
            let alive = ChunkToMaster::Alive {
                disks: vec![],
                load: 0,
                sent: 1,
            };
            bench.tell(*server, alive);
        }
    }
}
