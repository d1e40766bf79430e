//! Storage classes as a leader carries them out: where new chunks go, what repair does
//! when a class or a label changes, and that nothing is ever placed against a law.

mod bench;

use antler_core::attributes::Credentials;
use antler_core::errno::Errno;
use antler_core::ids::{
    BootId, ChunkId, ChunkVersion, DiskId, Epoch, InodeId, LinkId, PartId, RequestId, ServerId,
};
use antler_core::namespace::record::{ClassChange, Mutation};
use antler_core::placement::{Labels, StorageClass};
use antler_core::time::Duration;
use antler_core::wire::chunk_master::{
    ChunkToMaster, Command, CommandResult, PartReport, PartState,
};
use antler_core::wire::client_master::{
    Answer, ClientToMaster, LeasedChunk, MasterToClient, Query, Status,
};
use bench::{Bench, commit_and_release, create, mutate};
use std::collections::BTreeMap;

fn dc(name: &str) -> Labels {
    vec![("dc".to_owned(), name.to_owned())]
}

/// A cluster whose servers do what they are told, at once.
struct Cluster {
    bench: Bench,
    client: LinkId,
    servers: BTreeMap<u64, LinkId>,
    request: u64,
    /// Every copy that a server was told to make.
    made: Vec<(u64, ChunkId)>,
    gone: Vec<(u64, ChunkId)>,
    /// What the client was answered late.
    told: Option<Result<Answer, Errno>>,
}

impl Cluster {
    /// Servers 1 and 2 in the west, 3 and 4 in the east.
    fn new() -> Self {
        let mut bench = Bench::new();
        let mut servers = BTreeMap::new();
        for (server, side) in [(1, "west"), (2, "west"), (3, "east"), (4, "east")] {
            servers.insert(server, bench.register(server, server, dc(side), vec![]));
        }
        let (client, _) = bench.mount(1);
        Self {
            bench,
            client,
            servers,
            request: 0,
            made: Vec::new(),
            gone: Vec::new(),
            told: None,
        }
    }

    /// Asks for a change; what it is answered, if it is now.
    fn ask(&mut self, mutation: Mutation) -> Option<Result<Answer, Errno>> {
        self.request += 1;
        let told = self.bench.say(self.client, mutate(self.request, mutation));
        answer_in(told)
    }

    fn change(&mut self, mutation: Mutation) -> Answer {
        let told = self.ask(mutation).expect("it need not wait");
        told.expect("it may be done")
    }

    fn class(&mut self, name: &str, keep: &str) {
        let class = StorageClass {
            create: None,
            keep: keep.parse().expect("it is well written"),
            archive: None,
        };
        let name = name.to_owned();
        let change = match self.bench.master.state().find_class(&name) {
            Some(_) => ClassChange::Modify { name, class },
            None => ClassChange::Create { name, class },
        };
        self.change(Mutation::ChangeClass(change));
    }

    fn set_class(&mut self, inode: InodeId, class: &str) {
        let class = class.to_owned();
        self.change(Mutation::SetClass { inode, class });
    }

    fn label(&mut self, server: u64, side: Option<&str>) {
        let set = Mutation::SetLabel {
            server: ServerId(server),
            key: "dc".to_owned(),
            value: side.map(str::to_owned),
        };
        self.change(set);
    }

    fn create(&mut self, name: &str) -> (InodeId, LeasedChunk) {
        match self.change(create(name)) {
            Answer::Created {
                attributes,
                lease: Some(lease),
                ..
            } => (attributes.inode, *lease),
            other => panic!("no lease but {other:?}"),
        }
    }

    /// Writes a new file; the servers that its chunk was written to.
    fn write(&mut self, name: &str) -> (InodeId, ChunkId, Vec<u64>) {
        let (inode, lease) = self.create(name);
        self.commit(inode, &lease);
        let on = servers_of(&lease);
        (inode, lease.chunk, on)
    }

    fn commit(&mut self, inode: InodeId, lease: &LeasedChunk) {
        self.change(commit_and_release(inode, lease, true));
    }

    /// Lets seconds pass in which servers live and do what they are told.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds * 2 {
            self.bench.pass(Duration::from_millis(500));
            for (server, link) in self.servers.clone() {
                self.obey(server, link);
            }
            let told = self
                .bench
                .say(self.client, ClientToMaster::Alive { echo: 1 });
            self.told = answer_in(told).or_else(|| self.told.take());
        }
    }

    fn obey(&mut self, server: u64, link: LinkId) {
        let alive = ChunkToMaster::Alive {
            disks: self.disks(server),
            load: 0,
            sent: 1,
        };
        self.bench.tell(link, alive);
        for (command, body) in self.bench.commands(link) {
            let parts = match body {
                Command::Replicate {
                    part,
                    version,
                    epoch,
                    ..
                } => self.make(server, link, part, (version, epoch)),
                Command::Delete { parts } => {
                    let chunks = parts.iter().map(|(part, _)| (server, part.chunk));
                    self.gone.extend(chunks);
                    vec![None; parts.len()]
                }
                other => panic!("nothing else is expected: {other:?}"),
            };
            let result = CommandResult::Parts(parts);
            self.bench
                .tell(link, ChunkToMaster::CommandDone { command, result });
        }
    }

    fn make(
        &mut self,
        server: u64,
        link: LinkId,
        part: PartId,
        (version, epoch): (ChunkVersion, Epoch),
    ) -> Vec<Option<PartState>> {
        self.made.push((server, part.chunk));
        let report = PartReport {
            part,
            version,
            epoch,
            disk: DiskId(0),
            bad: false,
            suspect: false,
        };
        let parts = vec![report];
        self.bench.tell(link, ChunkToMaster::Gained { parts });
        vec![Some(PartState {
            version,
            epoch,
            digest: 0,
            boot: BootId(server),
        })]
    }

    fn disks(&mut self, server: u64) -> Vec<antler_core::wire::client_master::DiskStatus> {
        let status = self.status();
        let servers = status.servers.into_iter();
        let mut own = servers.filter(|one| one.server == ServerId(server));
        own.next().map(|one| one.disks).unwrap_or_default()
    }

    fn status(&mut self) -> Status {
        let ask = ClientToMaster::Ask {
            question: RequestId(1),
            credentials: Credentials::default(),
            query: Query::Status,
        };
        let mut status = None;
        for said in self.bench.say(self.client, ask) {
            match said {
                MasterToClient::Answer {
                    result: Ok(Answer::Status(told)),
                    ..
                } => status = Some(*told),
                // A change that was held may be answered at the same time.
                MasterToClient::Answer { result, .. } => self.told = Some(result),
                _ => {}
            }
        }
        status.expect("a status is told at once")
    }

    fn unmet(&mut self) -> Vec<String> {
        let classes = self.status().classes.into_iter();
        classes.flat_map(|class| class.unmet).collect()
    }

    fn lose(&mut self, server: u64) {
        let link = self.servers.remove(&server).expect("it is there");
        let reason = "its plug was pulled".to_owned();
        let closed = antler_core::machine::Input::Closed { link, reason };
        self.bench.input(closed);
    }
}

fn answer_in(told: Vec<MasterToClient>) -> Option<Result<Answer, Errno>> {
    told.into_iter().find_map(|said| match said {
        MasterToClient::Answer { result, .. } => Some(result),
        _ => None,
    })
}

fn servers_of(lease: &LeasedChunk) -> Vec<u64> {
    let mut on: Vec<u64> = lease.copies.iter().map(|copy| copy.server.0).collect();
    on.sort_unstable();
    on
}

#[test]
fn new_chunks_go_where_their_class_says() {
    let mut cluster = Cluster::new();
    cluster.class("west", "2 in dc=west");
    cluster.set_class(InodeId::ROOT, "west");
    for name in ["a", "b", "c", "d"] {
        assert_eq!(cluster.write(name).2, [1, 2]);
    }
    cluster.class("west", "1 in dc=west, 1 in dc=east");
    for name in ["e", "f", "g"] {
        let on = cluster.write(name).2;
        assert!(on[0] <= 2 && on[1] >= 3, "one on each side: {on:?}");
    }
}

#[test]
fn a_class_that_changes_moves_what_is_outside_and_nothing_else() {
    let mut cluster = Cluster::new();
    cluster.class("here", "2 in dc=west");
    let (_, other, _) = cluster.write("other");
    cluster.set_class(InodeId::ROOT, "here");
    let (_, chunk, _) = cluster.write("f");
    cluster.class("here", "2 in dc=east");
    assert_eq!(cluster.status().health.outside, 1);
    cluster.pass(8);
    cluster.made.sort_unstable();
    cluster.gone.sort_unstable();
    assert_eq!(cluster.made, [(3, chunk), (4, chunk)]);
    assert_eq!(cluster.gone, [(1, chunk), (2, chunk)]);
    let health = cluster.status().health;
    assert_eq!(
        (health.outside, health.at_goal),
        (0, 2),
        "{other} stays where it is"
    );
}

#[test]
fn a_label_that_changes_moves_what_is_outside() {
    let mut cluster = Cluster::new();
    cluster.class("west", "2 in dc=west");
    cluster.set_class(InodeId::ROOT, "west");
    let (_, chunk, _) = cluster.write("f");
    cluster.label(4, Some("west"));
    cluster.label(1, Some("east"));
    cluster.pass(4);
    assert_eq!(cluster.made, [(4, chunk)]);
    assert_eq!(cluster.gone, [(1, chunk)]);
    cluster.label(1, None);
    assert_eq!(cluster.unmet(), Vec::<String>::new());
}

#[test]
fn repair_leaves_a_deficit_that_is_told_rather_than_break_a_law() {
    let mut cluster = Cluster::new();
    cluster.class("west", "2 in dc=west");
    cluster.set_class(InodeId::ROOT, "west");
    cluster.write("f");
    cluster.lose(2);
    cluster.pass(20);
    assert_eq!(cluster.made, [], "there is no second place in the west");
    let health = cluster.status().health;
    assert_eq!((health.endangered, health.under_goal), (1, 0));
    assert_eq!(
        cluster.unmet(),
        ["`2 in dc=west hard`: 1 of 2 copies have a place"]
    );
    // What can't be placed is told to who writes, after a while.
    assert_eq!(
        cluster.ask(create("g")),
        None,
        "a server may be about to come back"
    );
    cluster.pass(4);
    assert_eq!(cluster.told.take(), Some(Err(Errno::ENOSPC)));
    let late = cluster.bench.register(5, 5, dc("west"), vec![]);
    cluster.servers.insert(5, late);
    cluster.pass(4);
    assert_eq!(cluster.made.len(), 1);
    assert_eq!(cluster.made[0].0, 5);
    let (_, _, on) = cluster.write("h");
    assert_eq!(on, [1, 5]);
}

#[test]
fn soft_terms_fall_back_and_come_home() {
    let mut cluster = Cluster::new();
    cluster.class("wish", "2 in dc=west soft");
    cluster.set_class(InodeId::ROOT, "wish");
    cluster.lose(2);
    let (_, chunk, on) = cluster.write("f");
    assert!(
        on[0] == 1 && on[1] >= 3,
        "elsewhere rather than not at all: {on:?}"
    );
    assert_eq!(cluster.status().health.misplaced, 1);
    let back = cluster.bench.register(2, 2, dc("west"), vec![]);
    cluster.servers.insert(2, back);
    cluster.pass(24);
    assert_eq!(cluster.made, [(2, chunk)]);
    assert_eq!(cluster.gone, [(on[1], chunk)]);
    assert_eq!(cluster.status().health.misplaced, 0);
}

#[test]
fn a_lease_leaves_out_what_lies_outside() {
    let mut cluster = Cluster::new();
    cluster.class("mixed", "1 in dc=west, 1 in dc=east");
    cluster.set_class(InodeId::ROOT, "mixed");
    let (inode, _, on) = cluster.write("f");
    // Repair would come first if there were a place for it.
    cluster.lose(3 - on[0]);
    cluster.class("mixed", "2 in dc=west");
    let lease = Mutation::Lease {
        inode,
        index: 0,
        failed: vec![],
    };
    match cluster.change(lease) {
        Answer::Lease(lease) => assert_eq!(servers_of(&lease), [on[0]]),
        other => panic!("no lease but {other:?}"),
    }
}

#[test]
fn a_server_without_the_label_is_not_used_before_the_log_knows_it() {
    let mut cluster = Cluster::new();
    cluster.class("away", "2 in not dc=west");
    cluster.set_class(InodeId::ROOT, "away");
    for name in ["a", "b", "c"] {
        assert_eq!(cluster.write(name).2, [3, 4]);
    }
    let known = cluster.bench.master.state().server_labels(ServerId(1));
    assert_eq!(known.expect("it was logged").configured, dc("west"));
    // It comes back under other labels.
    cluster.lose(1);
    let moved = cluster.bench.register(1, 11, dc("north"), vec![]);
    cluster.servers.insert(1, moved);
    let known = cluster.bench.master.state().server_labels(ServerId(1));
    assert_eq!(known.expect("it was logged").configured, dc("north"));
}
