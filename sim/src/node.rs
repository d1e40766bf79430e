//! One simulated machine: its disks, its clocks, and the process that runs on it,
//! life after life. Owns how each role is started from what its disks hold.

use crate::check::disks::{Disks, MemberDisk, ServerDisk};
use crate::disk::{DiskOptions, DiskSpeed, Failing, SimDisk};
use crate::network::{Nanos, NodeIndex};
use crate::plan::{Place, Plan};
use crate::process::{
    ClientProcess, MemberMachine, MemberProcess, Moment, Process, ServerProcess, Stimulus,
    StoreRunner,
};
use crate::scenario::{DiskKind, LimitsPlan, who};
use antler_core::chunk::operation::{OpenedDisk, StoredPart};
use antler_core::chunk::rules::DiskRules;
use antler_core::chunk::{ChunkStore, StoreOptions, Tuning};
use antler_core::chunkserver::{self, ChunkServer, ChunkServerConfig};
use antler_core::client::{self, Client, ClientConfig};
use antler_core::ids::{
    Address, BootId, ClusterId, DiskId, Incarnation, LinkId, LogPosition, MemberId, PartId,
    ServerId, SessionId,
};
use antler_core::journal::operation::LogEntry;
use antler_core::journal::{self, Founding};
use antler_core::machine::{Peer, Role};
use antler_core::master::{Master, MasterConfig};
use antler_core::member::{MemberConfig, MemberInfo, Takeover};
use antler_core::metalogger::Metalogger;
use antler_core::rng::Rng;
use antler_core::time::{Duration, Instant, Now, Timestamp};
use antler_core::version::FeatureLevel;
use std::collections::{BTreeMap, BTreeSet};

/// The simulated cluster's name.
const CLUSTER: ClusterId = ClusterId(1);
/// Wall time at the world's beginning: seconds since 1970.
pub(crate) const EPOCH: i64 = 1_800_000_000;
/// Bytes of a member's disk.
const MEMBER_DISK: u64 = 1 << 30;

/// How slow and how fast a clock may run, in thousandths: two clocks may then drift
/// apart by 4 % over an expiry, less than `DRIFT_PER_MILLE`.
pub(crate) const RATE_MIN: u64 = 980;
pub(crate) const RATE_MAX: u64 = 1020;

/// What a node is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Power {
    /// The machine is off.
    Off,
    /// The machine is on, nothing runs.
    Idle,
    /// The process recovers from its disks.
    Starting,
    /// The process runs.
    Up,
    /// Gone for good.
    Lost,
}

/// One machine.
pub(crate) struct Node {
    pub(crate) index: NodeIndex,
    pub(crate) name: String,
    pub(crate) role: Role,
    /// The member's or server's number; the client's place among clients.
    pub(crate) id: u64,
    pub(crate) address: Address,
    /// Where it stands.
    pub(crate) place: Place,
    pub(crate) disks: Vec<SimDisk>,
    pub(crate) process: Option<Process>,
    pub(crate) power: Power,
    /// Counts its processes.
    pub(crate) life: u32,
    pub(crate) boot: BootId,
    pub(crate) paused_until: Nanos,
    /// What happens to it while it is paused.
    pub(crate) held: Vec<Stimulus>,
    /// When the world will look after its timeout.
    pub(crate) wake: Nanos,
    /// Its daemon's configuration.
    pub(crate) directory: Directory,
    /// A master of a life of the cluster that is over.
    pub(crate) retired: bool,
    /// Which of its disks is another node's at the moment.
    pub(crate) strange: Option<usize>,
    /// Disks that could not even be opened and were tried again.
    tried: BTreeSet<usize>,
    /// What is ordered of its disks.
    pub(crate) rules: BTreeMap<usize, DiskRules>,
    /// Disks that were taken out of its configuration.
    pub(crate) out: BTreeSet<usize>,
    /// When the present process began.
    pub(crate) since: Nanos,
    /// As which version the present process was built.
    pub(crate) version: FeatureLevel,
    /// As which version the next one is, if as another.
    pub(crate) becomes: Option<FeatureLevel>,
    /// Links that speak an older version than the newest.
    pub(crate) old_links: BTreeMap<LinkId, FeatureLevel>,
    incarnation: Option<Incarnation>,
    limits: LimitsPlan,
    scrub: u64,
    booted: Nanos,
    clock: Clock,
    rng: Rng,
    disk_ids: Vec<DiskId>,
}

/// A node's clocks against the world's.
#[derive(Clone, Copy, Debug)]
struct Clock {
    /// Thousandths of the world's speed.
    rate: u64,
    /// Its monotonic clock when it boots.
    base: u64,
    /// Its wall clock's error, in nanoseconds.
    error: i64,
}

/// What a process that was started tells the judges.
pub(crate) struct Started {
    /// When it is ready.
    pub(crate) ready: Nanos,
    /// What a member recovered: its log, and up to where its image goes.
    pub(crate) recovered: Option<(Vec<LogEntry>, LogPosition)>,
}

impl Node {
    fn new(index: usize, role: Role, id: u64, number: u64, plan: &Plan, rng: &mut Rng) -> Self {
        let name = format!("{}-{number}", who::name(role));
        let cluster = &plan.cluster;
        let place = plan.place(role, number);
        let disks = disks_of(role, &place, rng);
        Self {
            index: NodeIndex(index),
            address: Address(format!("{name}:9420")),
            name,
            role,
            id,
            place,
            disk_ids: disks.iter().map(|_| DiskId(rng.word())).collect(),
            disks,
            process: None,
            power: Power::Idle,
            life: 0,
            boot: BootId(0),
            paused_until: 0,
            held: Vec::new(),
            tried: BTreeSet::new(),
            rules: BTreeMap::new(),
            out: BTreeSet::new(),
            wake: Nanos::MAX,
            directory: Directory::default(),
            retired: false,
            strange: None,
            since: 0,
            version: cluster.version.level(),
            becomes: None,
            old_links: BTreeMap::new(),
            incarnation: None,
            limits: plan.limits.fit(),
            scrub: cluster.scrub,
            booted: 0,
            clock: Clock::draw(cluster.drift, rng),
            rng: rng.fork(),
        }
    }

    /// Its clocks at a time of the world.
    pub(crate) fn moment(&self, world: Nanos) -> Moment {
        let mono = Instant(self.clock.base + (world - self.booted) * self.clock.rate / 1000);
        let wall = EPOCH * 1_000_000_000 + world as i64 + self.clock.error;
        let wall = Timestamp {
            seconds: wall.div_euclid(1_000_000_000),
            nanos: wall.rem_euclid(1_000_000_000) as u32,
        };
        Moment {
            world,
            local: Now { mono, wall },
        }
    }

    /// When its monotonic clock will show an instant.
    pub(crate) fn world_time(&self, instant: Instant) -> Nanos {
        if instant == Instant::NEVER {
            return Nanos::MAX;
        }
        let since = u128::from(instant.0.saturating_sub(self.clock.base));
        let nanos = (since * 1000).div_ceil(u128::from(self.clock.rate));
        self.booted
            .saturating_add(u64::try_from(nanos).unwrap_or(Nanos::MAX))
    }

    /// Who it is, as the first exchange proves it.
    pub(crate) fn peer(&self) -> Peer {
        Peer {
            role: self.role,
            id: if self.role == Role::Client {
                0
            } else {
                self.id
            },
            boot: self.boot,
            incarnation: self.incarnation.unwrap_or_default(),
            speaks: self.version,
        }
    }

    /// Notes what a new link speaks.
    pub(crate) fn note_link(&mut self, link: LinkId, peer: &Peer) {
        let version = peer.speaks.min(self.version);
        if version < FeatureLevel::NEWEST {
            self.old_links.insert(link, version);
        }
    }

    /// The version that a link speaks.
    pub(crate) fn link_version(&self, link: LinkId) -> FeatureLevel {
        let known = self.old_links.get(&link);
        known.copied().unwrap_or(FeatureLevel::NEWEST)
    }

    /// Whether it is a member whose state is at a level that its version does not know.
    pub(crate) fn is_outdated(&self) -> bool {
        match &self.process {
            Some(Process::Member(process)) => {
                process.machine.member().state().feature_level() > self.version
            }
            _ => false,
        }
    }

    /// Keeps what the process knows of the cluster's life, as the driver does.
    pub(crate) fn note_incarnation(&mut self) {
        let known = self.process.as_ref().and_then(Process::incarnation);
        self.incarnation = self.incarnation.max(known);
    }

    /// Begins a new life on what the disks hold.
    ///
    /// # Errors
    /// Why the process can't start.
    pub(crate) fn start(&mut self, now: Nanos, plan: &Plan) -> Result<Started, String> {
        self.life += 1;
        self.version = self.becomes.take().unwrap_or(self.version);
        self.old_links.clear();
        self.since = now;
        self.boot = BootId(self.rng.word() | 1);
        self.booted = now;
        self.clock.base = self.rng.below(3_600_000_000_000);
        self.wake = Nanos::MAX;
        self.held.clear();
        for disk in &self.disks {
            disk.settle(now);
            disk.begin(now);
        }
        let started = match self.role {
            Role::Master | Role::Metalogger => self.start_member(now, plan)?,
            Role::ChunkServer => self.start_server(now)?,
            Role::Client => self.start_client(now),
        };
        self.power = Power::Starting;
        Ok(started)
    }

    fn start_member(&mut self, now: Nanos, plan: &Plan) -> Result<Started, String> {
        let disk = self.disks[0].clone();
        let founding = self.founding();
        let (log, images, recovered) = journal::open(disk.clone(), disk.clone(), &founding)
            .map_err(|error| error.to_string())?;
        let mut config = MemberConfig::new(MemberId(self.id), self.directory.members.clone());
        config.image_log_bytes = plan.cluster.image_every;
        config.image_piece_size = self.limits.image_piece as usize;
        config.log_batch_max = self.limits.log_batch as usize;
        config.uncommitted_bytes_max = self.limits.uncommitted;
        config.follower_inflight_max = self.limits.follower_inflight as usize;
        config.speaks = self.version;
        let found = (recovered.entries.clone(), recovered.meta.position);
        let marks = recovered.marks;
        let (seed, local) = (self.rng.word(), self.moment(disk.cursor()).local);
        let machine = match self.role {
            Role::Master => {
                let mut config = MasterConfig::new(config, self.directory.secret.clone());
                config.copies = plan.cluster.copies as u8;
                config.commands_inflight_max = self.limits.commands as usize;
                config.repair_inflight_max = self.limits.repairs as usize;
                config.balance = self.limits.balance as u8;
                config.delete_grace = Duration::from_secs(10);
                config.convert_after = Duration::from_millis(700);
                config.restart_grace = Duration::from_secs(20);
                config.session_timeout = Duration::from_secs(30);
                MemberMachine::Master(Master::new(config, recovered, seed, local))
            }
            _ => MemberMachine::Metalogger(Metalogger::new(config, recovered, seed, local)),
        };
        let process = MemberProcess::new(machine, log, images, disk.clone(), marks);
        self.process = Some(Process::Member(Box::new(process)));
        Ok(Started {
            ready: disk.cursor().max(now + 1_000_000),
            recovered: Some(found),
        })
    }

    /// Whose folder its disk is.
    pub(crate) fn founding(&self) -> Founding {
        let of = |voter| {
            let members = self
                .directory
                .members
                .iter()
                .filter(move |m| m.voter == voter);
            members.map(|m| m.member.0).collect()
        };
        Founding {
            cluster: CLUSTER,
            member: MemberId(self.id),
            voters: of(true),
            learners: of(false),
            segment_size: self.limits.log_segment,
        }
    }

    /// Makes a metalogger's folder that of a new master, alone in its group, as
    /// `antler recover` does. Up to where its log went.
    ///
    /// # Errors
    /// Why the folder can't be taken over.
    pub(crate) fn take_over(&mut self, now: Nanos) -> Result<LogPosition, String> {
        let disk = self.disks[0].clone();
        disk.settle(now);
        disk.begin(now);
        let takeover = Takeover::open(disk.clone(), disk.clone(), &self.founding());
        let takeover = takeover.map_err(|error| error.to_string())?;
        let position = takeover.holding().position;
        let wall = self.moment(now).local.wall;
        takeover.finish(wall).map_err(|error| error.to_string())?;
        disk.settle(disk.cursor());
        self.role = Role::Master;
        Ok(position)
    }

    fn start_server(&mut self, now: Nanos) -> Result<Started, String> {
        let mut runners = Vec::new();
        let mut opened = Vec::new();
        let mut ready = now + 1_000_000;
        for number in 0..self.disks.len() {
            let disk = self.disks[number].clone();
            let options = self.store_options(number);
            let (id, path) = (options.disk, options.path.clone());
            if self.out.contains(&number) {
                runners.push(StoreRunner::new(id, disk, None));
                continue;
            }
            match ChunkStore::open(disk.clone(), options) {
                Ok((store, mut found)) => {
                    found.rules = self.rules_of(number);
                    runners.push(StoreRunner::new(found.disk, disk.clone(), Some(store)));
                    opened.push(found);
                }
                Err(error) if is_faulty(&disk) => {
                    runners.push(StoreRunner::new(id, disk.clone(), None));
                    opened.push(failed_disk(id, path, error.to_string()));
                }
                Err(error) => return Err(error.to_string()),
            }
            ready = ready.max(disk.cursor());
        }
        let config = ChunkServerConfig {
            server: ServerId(self.id),
            boot: self.boot,
            address: self.address.clone(),
            labels: self.labels(),
            masters: self.directory.masters.clone(),
            incarnation: self.incarnation.unwrap_or_default(),
            limits: chunkserver::Limits {
                queue_max: self.limits.chunkserver_queue as usize,
                disk_inflight_max: self.limits.disk_inflight as usize,
                repair_inflight_max: self.limits.repairs as usize,
                repair_samples: self.limits.repair_samples as u32,
            },
            scrub: self.scrub,
            repair_slowdown: 200,
            care: chunkserver::DiskCare::default(),
            speaks: self.version,
        };
        let (seed, local) = (self.rng.word(), self.moment(ready).local);
        let machine = ChunkServer::new(config, opened, seed, local);
        let process = ServerProcess::new(machine, runners);
        self.process = Some(Process::Server(Box::new(process)));
        Ok(Started {
            ready,
            recovered: None,
        })
    }

    /// How it stands in the group.
    pub(crate) fn member_info(&self) -> MemberInfo {
        MemberInfo {
            member: MemberId(self.id),
            address: self.address.clone(),
            voter: self.role == Role::Master,
        }
    }

    pub(crate) fn store_options(&self, number: usize) -> StoreOptions {
        StoreOptions {
            cluster: CLUSTER,
            server: ServerId(self.id),
            disk: self.disk_ids[number],
            path: format!("/disks/{number}"),
            tuning: Tuning {
                segment_size: self.limits.disk_segment as u32,
                slots_per_file: self.limits.disk_slots as u32,
                checkpoint_bytes: self.limits.disk_checkpoint,
                reserve: 4 << 20,
                small_write: self.limits.small_write as usize,
                part_memory: self.limits.part_memory as usize,
                disk_memory: self.limits.disk_memory as usize,
                embed_max: self.limits.embed as usize,
                ..Tuning::default()
            },
        }
    }

    fn start_client(&mut self, now: Nanos) -> Started {
        let config = ClientConfig {
            masters: self.directory.masters.clone(),
            name: self.name.clone(),
            nonce: self.rng.word(),
            labels: self.labels(),
            limits: self.client_limits(),
            speaks: self.version,
            ..ClientConfig::default()
        };
        let (seed, local) = (self.rng.word(), self.moment(now).local);
        let machine = Client::new(config, seed, local);
        self.process = Some(Process::Client(Box::new(ClientProcess { machine })));
        Started {
            ready: now + 1_000_000,
            recovered: None,
        }
    }

    fn client_limits(&self) -> client::Limits {
        let limits = &self.limits;
        client::Limits {
            session_window: limits.session_window,
            write_window_bytes: limits.write_window,
            unsynced_bytes_max: limits.unsynced,
            piece_bytes: limits.piece as u32,
            read_ahead_bytes: limits.read_ahead,
            read_cache_bytes: limits.read_cache,
            attributes_max: limits.attributes as usize,
            dentries_max: limits.dentries as usize,
            locations_max: limits.locations as usize,
            unsettled_max: limits.unsettled as usize,
            locate_count: limits.locate as u32,
            ..client::Limits::default()
        }
    }

    /// The wall clock jumps; timestamps alone are taken from it.
    pub(crate) fn jump_clock(&mut self, by: i64) {
        self.clock.error = self.clock.error.saturating_add(by);
    }

    /// The monotonic clock goes on from what it shows, at another speed.
    pub(crate) fn set_clock_rate(&mut self, now: Nanos, rate: u64) {
        self.clock.base = self.moment(now).local.mono.0;
        self.booted = now;
        self.clock.rate = rate;
    }

    fn labels(&self) -> Vec<(String, String)> {
        let rack = self.place.rack.iter();
        let rack = rack.map(|(_, name)| ("rack".to_owned(), name.clone()));
        let datacentre = ("dc".to_owned(), self.place.name.clone());
        std::iter::once(datacentre).chain(rack).collect()
    }

    /// An empty disk joins the configuration of a chunkserver.
    pub(crate) fn add_disk(&mut self) {
        self.disk_ids.push(DiskId(self.rng.word()));
        let disk = new_disk(self.role, &self.place, &mut self.rng);
        self.disks.push(disk);
    }

    /// The number of a disk as it was formatted, or will be.
    pub(crate) fn disk_id(&self, number: usize) -> DiskId {
        let store = self.store(number);
        store.map_or(self.disk_ids[number], ChunkStore::id)
    }

    /// An empty disk takes the place of one. The process that used that must have ended.
    pub(crate) fn replace_disk(&mut self, number: usize) {
        assert!(self.process.is_none(), "nobody has the disk open");
        self.disk_ids[number] = DiskId(self.rng.word());
        self.disks[number] = new_disk(self.role, &self.place, &mut self.rng);
        self.tried.remove(&number);
    }

    /// Whether scenarios call it so.
    pub(crate) fn is_numbered(&self, role: Role, number: u64) -> bool {
        self.role == role && self.name == format!("{}-{number}", who::name(role))
    }

    /// Whether it is a master that leads.
    pub(crate) fn leads(&self) -> bool {
        if self.retired {
            return false;
        }
        match &self.process {
            Some(Process::Member(process)) => {
                self.power == Power::Up && process.machine.member().is_leader()
            }
            _ => false,
        }
    }

    /// Whether it is a member whose log goes at least up to a position.
    pub(crate) fn has_logged(&self, position: LogPosition) -> bool {
        match &self.process {
            Some(Process::Member(process)) => process.machine.member().applied() >= position,
            _ => false,
        }
    }

    /// Whether a mount that runs here has nothing left to write.
    pub(crate) fn is_written_out(&self) -> bool {
        match &self.process {
            Some(Process::Client(process)) => process.machine.is_written_out(),
            _ => true,
        }
    }

    /// The session of a mount that runs here.
    pub(crate) fn session(&self) -> Option<SessionId> {
        match &self.process {
            Some(Process::Client(process)) => process.machine.session(),
            _ => None,
        }
    }

    /// What a mount that runs here has left to write.
    pub(crate) fn unwritten(&self) -> Vec<String> {
        match &self.process {
            Some(Process::Client(process)) => process.machine.unwritten(),
            _ => Vec::new(),
        }
    }

    /// The parts that a chunkserver found damaged and still has.
    pub(crate) fn bad_parts(&self) -> Vec<PartId> {
        match &self.process {
            Some(Process::Server(process)) => process.machine.bad_parts().collect(),
            _ => Vec::new(),
        }
    }

    /// How much of the space of its disks is used, in millionths, as a chunkserver tells.
    pub(crate) fn used_millionths(&self) -> u64 {
        let Some(Process::Server(process)) = &self.process else {
            return 0;
        };
        let disks = process.machine.disk_statuses();
        let (mut total, mut free) = (0, 0);
        for disk in disks.iter().filter(|disk| disk.failed.is_empty()) {
            total += disk.space.total;
            free += disk.space.free;
        }
        (total - free) * 1_000_000 / total.max(1)
    }

    /// What a chunkserver's stores hold.
    pub(crate) fn stored_parts(&self) -> impl Iterator<Item = StoredPart> + '_ {
        let runners = match &self.process {
            Some(Process::Server(process)) => process.runners(),
            _ => &[],
        };
        let stores = runners.iter().filter_map(|runner| runner.store.as_ref());
        stores.flat_map(ChunkStore::parts)
    }

    /// What the store on one of a chunkserver's disks holds.
    pub(crate) fn parts_on(&self, number: usize) -> impl Iterator<Item = StoredPart> + '_ {
        let store = self.store(number);
        store.into_iter().flat_map(ChunkStore::parts)
    }

    /// Whether a restart may bring a disk back that was given up. One that can't even be
    /// opened, or has a range that is bad for good, is tried once more.
    pub(crate) fn may_take_back(&mut self) -> bool {
        let gone = |number: &usize| self.gave_up(*number) && !self.disks[*number].faults().vanished;
        let given_up: Vec<usize> = (0..self.disks.len()).filter(gone).collect();
        let mut may = false;
        for number in given_up {
            let for_good = self.disks[number].is_spoiled() || self.store(number).is_none();
            may |= !for_good || self.tried.insert(number);
        }
        may
    }

    fn store(&self, number: usize) -> Option<&ChunkStore<SimDisk>> {
        match &self.process {
            Some(Process::Server(process)) => process.runners()[number].store.as_ref(),
            _ => None,
        }
    }

    /// Whether the chunkserver that runs here uses a disk no more, as calls failed or it
    /// could not be opened.
    pub(crate) fn gave_up(&self, number: usize) -> bool {
        let is_server = matches!(self.process, Some(Process::Server(_)));
        let store = self.store(number);
        let is_used = is_server && !self.out.contains(&number);
        is_used && store.is_none_or(|store| store.failed().is_some())
    }

    /// The process is gone; the disks keep what they may.
    pub(crate) fn end_process(&mut self, now: Nanos, power_lost: bool) {
        self.process = None;
        self.held.clear();
        self.wake = Nanos::MAX;
        for disk in &self.disks {
            match power_lost {
                true => disk.cut(now),
                false => disk.kill(now),
            }
        }
    }
}

impl Clock {
    fn draw(drift: bool, rng: &mut Rng) -> Self {
        let rate = if drift {
            rng.between(RATE_MIN, RATE_MAX)
        } else {
            1000
        };
        Self {
            rate,
            base: 0,
            error: rng.below(2_000_000) as i64 - 1_000_000,
        }
    }
}

/// Who is in the cluster and where, as the configuration of a daemon says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directory {
    /// The masters' group.
    pub(crate) members: Vec<MemberInfo>,
    /// Where servers and clients look for masters.
    pub(crate) masters: Vec<Address>,
    /// For capabilities, if the cluster is to be founded.
    pub(crate) secret: Vec<u8>,
}

/// Builds the nodes of a plan, none of them started.
pub(crate) fn build(plan: &Plan, rng: &mut Rng) -> Vec<Node> {
    let cluster = &plan.cluster;
    let mut nodes = Vec::new();
    let roles = [
        (Role::Master, cluster.masters),
        (Role::Metalogger, cluster.metaloggers),
        (Role::ChunkServer, cluster.chunkservers),
        (Role::Client, cluster.clients),
    ];
    for (role, count) in roles {
        for number in 1..=count {
            let id = match role {
                Role::Master => number,
                Role::Metalogger => cluster.masters + number,
                Role::ChunkServer => rng.word() | 1,
                Role::Client => number - 1,
            };
            nodes.push(Node::new(nodes.len(), role, id, number, plan, rng));
        }
    }
    let directory = directory_of(&nodes, rng);
    for node in &mut nodes {
        node.directory = directory.clone();
    }
    nodes
}

fn directory_of(nodes: &[Node], rng: &mut Rng) -> Directory {
    let members = nodes.iter().filter(|node| node.peer().member().is_some());
    let masters = nodes.iter().filter(|node| node.role == Role::Master);
    Directory {
        members: members.map(Node::member_info).collect(),
        masters: masters.map(|node| node.address.clone()).collect(),
        secret: (0..32).map(|_| rng.word() as u8).collect(),
    }
}

/// The disks of all nodes, for judges.
pub(crate) fn all_disks(nodes: &[Node]) -> Disks {
    let mut disks = Disks::default();
    for node in nodes.iter().filter(|node| !node.retired) {
        match node.role {
            Role::Master | Role::Metalogger => disks.members.push(MemberDisk {
                node: node.index.0,
                voter: node.role == Role::Master,
                disk: node.disks[0].clone(),
                founding: node.founding(),
            }),
            Role::ChunkServer => {
                let numbered = node.disks.iter().enumerate();
                disks
                    .servers
                    .extend(numbered.map(|(number, disk)| ServerDisk {
                        node: node.index.0,
                        number,
                        server: ServerId(node.id),
                        disk: disk.clone(),
                        options: node.store_options(number),
                    }));
            }
            Role::Client => {}
        }
    }
    disks
}

fn disks_of(role: Role, place: &Place, rng: &mut Rng) -> Vec<SimDisk> {
    let count = match role {
        Role::Master | Role::Metalogger => 1,
        Role::ChunkServer => place.disks,
        Role::Client => 0,
    };
    (0..count).map(|_| new_disk(role, place, rng)).collect()
}

fn new_disk(role: Role, place: &Place, rng: &mut Rng) -> SimDisk {
    let speed = match place.disk {
        DiskKind::Flash => DiskSpeed::FLASH,
        DiskKind::Rotating => DiskSpeed::ROTATING,
    };
    let options = DiskOptions {
        capacity: match role {
            Role::ChunkServer => place.disk_size,
            _ => MEMBER_DISK,
        },
        speed: match (role, place.disk_speed) {
            (Role::ChunkServer, Some(bytes)) => speed.at(bytes),
            _ => speed,
        },
    };
    SimDisk::new(options, rng.word())
}

/// Whether a disk has a fault that excuses a failure to use it.
pub(crate) fn is_faulty(disk: &SimDisk) -> bool {
    let faults = disk.faults();
    let counts = disk.counts();
    let is_sound = disk.is_honest() && !disk.is_spoiled() && !faults.is_silent();
    faults.vanished || faults.full || counts.failed_calls > 0 || !is_sound
}

/// Whether a disk has such a fault, or will have.
pub(crate) fn is_doomed(disk: &SimDisk) -> bool {
    is_faulty(disk) || disk.faults().is_armed()
}

/// Whether what is on a disk can be read, be it written or not.
pub(crate) fn is_readable(disk: &SimDisk) -> bool {
    let faults = disk.faults();
    let is_sound = disk.is_honest() && !disk.is_spoiled();
    !faults.vanished && faults.read == Failing::Never && is_sound
}

fn failed_disk(disk: DiskId, path: String, reason: String) -> OpenedDisk {
    OpenedDisk {
        disk,
        path,
        space: antler_core::vfs::Space::default(),
        parts: Vec::new(),
        rules: DiskRules::default(),
        failed: Some(reason),
    }
}
