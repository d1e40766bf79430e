//! Chunks in parts as the leader has them made, counted, made up for, and brought back to
//! copies; its disk answered at once, its chunkservers played by the test.

mod bench;

use antler_core::attributes::Credentials;
use antler_core::ids::{BootId, ChunkId, DiskId, InodeId, LinkId, PartId, RequestId, ServerId};
use antler_core::machine::{Input, Machine};
use antler_core::marks::Mark;
use antler_core::namespace::record::{ClassChange, Mutation};
use antler_core::placement::label::{DRAIN, MAINTENANCE};
use antler_core::placement::{Policy, StorageClass};
use antler_core::time::Duration;
use antler_core::vfs::Space;
use antler_core::wire::chunk_master::{
    ChunkToMaster, Command, CommandResult, PartReport, PartState,
};
use antler_core::wire::client_master::{
    Answer, ClientToMaster, DiskStatus, Health, LocatedChunk, MasterToClient, Query, StopPlan,
};
use bench::{Bench, commit_and_release, create, created, granted, mutate, sync_all};
use std::collections::BTreeSet;

/// Five servers, and a file of a class that wants it in parts.
struct Cold {
    bench: Bench,
    client: LinkId,
    /// Numbered from 1, each in the life of its number.
    servers: Vec<LinkId>,
    file: InodeId,
    chunk: ChunkId,
    request: u64,
    /// Commands that were sent and not looked at, and by whose number.
    sent: Vec<(u64, u64, Command)>,
}

impl Cold {
    fn new() -> Self {
        let mut bench = Bench::new();
        let servers: Vec<LinkId> = (1..=5).map(|server| bench.serve(server)).collect();
        let (client, _) = bench.mount(1);
        let class = StorageClass {
            create: Some(Policy::copies(2)),
            keep: "ec(2+1)".parse().expect("it is well written"),
            archive: None,
        };
        let name = "cold".to_owned();
        let change = ClassChange::Create { name, class };
        bench.say(client, mutate(1, Mutation::ChangeClass(change)));
        let set = Mutation::SetClass {
            inode: InodeId::ROOT,
            class: "cold".to_owned(),
        };
        bench.say(client, mutate(2, set));
        let (file, lease) = created(&bench.say(client, mutate(3, create("f"))));
        let lease = lease.expect("there are servers");
        bench.say(client, mutate(4, commit_and_release(file, &lease, false)));
        bench.pass(Duration::from_millis(100));
        for (boot, link) in (1..).zip(&servers) {
            sync_all(&mut bench, *link, boot);
        }
        Self {
            bench,
            client,
            servers,
            file,
            chunk: lease.chunk,
            request: 4,
            sent: Vec::new(),
        }
    }

    /// The same once it lies in parts, and nowhere else.
    fn converted() -> Self {
        let mut cold = Self::new();
        cold.pass(62);
        assert_eq!(cold.build_all(true).len(), 3);
        cold.pass(62);
        assert!(cold.bench.master.state().stripe(cold.chunk).is_some());
        assert_eq!(cold.delete_all(), BTreeSet::from([0]), "the copies go");
        cold
    }

    /// Lets seconds pass in which servers say that they live, and have room.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.bench.pass(Duration::from_secs(1));
            for link in self.servers.clone() {
                let space = Space {
                    total: 1 << 40,
                    free: 1 << 40,
                };
                let disk = DiskStatus {
                    space,
                    ..DiskStatus::default()
                };
                let alive = ChunkToMaster::Alive {
                    disks: vec![disk],
                    load: 0,
                    sent: 1,
                };
                self.bench.tell(link, alive);
            }
            self.bench
                .say(self.client, ClientToMaster::Alive { echo: 1 });
        }
    }

    /// The commands of a kind that servers were sent since they were last asked for.
    fn take(&mut self, is_wanted: fn(&Command) -> bool) -> Vec<(u64, u64, Command)> {
        for (number, link) in (1..).zip(self.servers.clone()) {
            let new = self.bench.commands(link).into_iter();
            self.sent
                .extend(new.map(|(command, body)| (number, command, body)));
        }
        let all = std::mem::take(&mut self.sent).into_iter();
        let (wanted, others) = all.partition(|(.., body)| is_wanted(body));
        self.sent = others;
        wanted
    }

    fn link(&self, server: u64) -> LinkId {
        self.servers[server as usize - 1]
    }

    /// Carries out what servers were told to build, or fails to; the parts, and who has
    /// them.
    fn build_all(&mut self, well: bool) -> Vec<(PartId, u64)> {
        let mut built = Vec::new();
        for (number, command, body) in self.take(|body| matches!(body, Command::Build { .. })) {
            let Command::Build {
                part,
                version,
                epoch,
                ..
            } = body
            else {
                unreachable!("only those were taken");
            };
            let report = PartReport {
                part,
                version,
                epoch,
                disk: DiskId(0),
                bad: false,
                suspect: false,
            };
            let state = PartState {
                version,
                epoch,
                digest: 0,
                boot: BootId(number),
            };
            let link = self.link(number);
            let result = match well || !built.is_empty() {
                true => {
                    let parts = vec![report];
                    self.bench.tell(link, ChunkToMaster::Gained { parts });
                    CommandResult::Parts(vec![Some(state)])
                }
                false => CommandResult::Failed {
                    reason: "no room".to_owned(),
                    bad_source: None,
                },
            };
            built.push((part, number));
            let done = ChunkToMaster::CommandDone { command, result };
            self.bench.tell(link, done);
        }
        built
    }

    /// Carries out what servers were told to delete; the numbers of the parts.
    fn delete_all(&mut self) -> BTreeSet<u8> {
        let mut deleted = BTreeSet::new();
        for (number, command, body) in self.take(|body| matches!(body, Command::Delete { .. })) {
            let Command::Delete { parts } = body else {
                unreachable!("only those were taken");
            };
            let parts: Vec<PartId> = parts.into_iter().map(|(part, _)| part).collect();
            deleted.extend(parts.iter().map(|part| part.part));
            let link = self.link(number);
            self.bench.tell(link, ChunkToMaster::Lost { parts });
            let result = CommandResult::Parts(Vec::new());
            let done = ChunkToMaster::CommandDone { command, result };
            self.bench.tell(link, done);
        }
        deleted
    }

    fn label(&mut self, server: u64, key: &str, value: Option<String>) {
        self.request += 1;
        let set = Mutation::SetLabel {
            server: ServerId(server),
            key: key.to_owned(),
            value,
        };
        self.bench.say(self.client, mutate(self.request, set));
    }

    fn lose(&mut self, server: u64) {
        let link = self.link(server);
        let reason = "it died".to_owned();
        self.bench.input(Input::Closed { link, reason });
    }

    fn ask(&mut self, query: Query) -> Answer {
        let ask = ClientToMaster::Ask {
            question: RequestId(9),
            credentials: Credentials::default(),
            query,
        };
        let told = self.bench.say(self.client, ask);
        let answer = told.into_iter().find_map(|message| match message {
            MasterToClient::Answer { result, .. } => Some(result),
            _ => None,
        });
        answer
            .expect("it is answered at once")
            .expect("it is known")
    }

    fn health(&mut self) -> Health {
        match self.ask(Query::Status) {
            Answer::Status(status) => status.health,
            other => panic!("no status but {other:?}"),
        }
    }

    fn locate(&mut self) -> LocatedChunk {
        let query = Query::Locate {
            inode: self.file,
            index: 0,
            count: 1,
        };
        match self.ask(query) {
            Answer::Located(mut located) => located.remove(0),
            other => panic!("nothing located but {other:?}"),
        }
    }

    fn stop(&mut self, servers: &[u64]) -> StopPlan {
        let query = Query::Stop {
            servers: servers.iter().copied().map(ServerId).collect(),
            from: ChunkId(0),
        };
        match self.ask(query) {
            Answer::Stop(plan) => *plan,
            other => panic!("no plan but {other:?}"),
        }
    }

    /// Asks for the lease of the chunk; what is answered at once.
    fn lease(&mut self) -> Vec<MasterToClient> {
        self.request += 1;
        let lease = Mutation::Lease {
            inode: self.file,
            index: 0,
            failed: Vec::new(),
        };
        self.bench.say(self.client, mutate(self.request, lease))
    }

    /// The servers that have a part.
    fn holders(&mut self) -> Vec<u64> {
        let located = self.locate();
        assert!(located.stripe.is_some());
        located.copies.iter().map(|copy| copy.server.0).collect()
    }
}

#[test]
fn a_file_left_alone_comes_to_lie_in_parts_and_its_copies_go_later() {
    let mut cold = Cold::new();
    assert_eq!(cold.health().unshaped, 1);
    assert_eq!(cold.build_all(true), [], "it was just written");
    cold.pass(62);
    let built = cold.build_all(true);
    let parts: BTreeSet<u8> = built.iter().map(|(part, _)| part.part).collect();
    let servers: BTreeSet<u64> = built.iter().map(|(_, server)| *server).collect();
    assert_eq!((parts, servers.len()), (BTreeSet::from([1, 2, 3]), 3));
    let stripe = cold.bench.master.state().stripe(cold.chunk);
    assert_eq!(
        stripe.map(|stripe| (stripe.shape.parts(), stripe.units)),
        Some((3, 1))
    );
    assert!(cold.bench.master.marks().has(Mark::ChunkConverted));
    assert_eq!(
        cold.delete_all(),
        BTreeSet::new(),
        "a learner may be behind"
    );
    assert_eq!(cold.locate().copies.len(), 3);
    cold.pass(62);
    assert_eq!(cold.delete_all(), BTreeSet::from([0]));
    let health = cold.health();
    assert_eq!((health.at_goal, health.unshaped), (1, 0));
}

#[test]
fn a_conversion_of_which_a_part_failed_comes_to_nothing_and_its_parts_go() {
    let mut cold = Cold::new();
    cold.pass(62);
    assert_eq!(cold.build_all(false).len(), 3);
    assert_eq!(cold.bench.master.state().stripe(cold.chunk), None);
    assert!(cold.bench.master.marks().has(Mark::ConversionFailed));
    assert_eq!(cold.locate().copies.len(), 2, "it is read from its copies");
    cold.pass(3);
    let parts = cold.delete_all();
    assert!(parts.len() == 2 && !parts.contains(&0), "{parts:?}");
    cold.pass(3);
    assert_eq!(cold.build_all(true).len(), 3, "it begins anew");
    assert!(cold.bench.master.state().stripe(cold.chunk).is_some());
}

#[test]
fn a_conversion_of_what_was_written_since_means_nothing() {
    let mut cold = Cold::new();
    cold.pass(62);
    let lease = granted(&cold.lease());
    assert_eq!(cold.build_all(true).len(), 3);
    assert_eq!(cold.bench.master.state().stripe(cold.chunk), None);
    let done = commit_and_release(cold.file, &lease, true);
    cold.bench.say(cold.client, mutate(6, done));
    cold.pass(2);
    assert_eq!(
        cold.delete_all(),
        BTreeSet::from([1, 2, 3]),
        "nobody counts them"
    );
}

#[test]
fn a_lost_part_is_made_elsewhere_and_one_loss_more_is_told_as_loss() {
    let mut cold = Cold::converted();
    let holders = cold.holders();
    let plan = cold.stop(&holders[..1]);
    assert_eq!((plan.endangered, plan.unavailable), (1, 0));
    let plan = cold.stop(&holders[..2]);
    assert_eq!((plan.endangered, plan.unavailable), (0, 1));
    cold.lose(holders[0]);
    let health = cold.health();
    assert_eq!((health.endangered, health.missing), (1, 0));
    cold.pass(2);
    let built = cold.build_all(true);
    let [(part, server)] = built[..] else {
        panic!("one part is made: {built:?}")
    };
    assert_eq!(part.part, 1, "the one that was lost");
    assert!(!holders.contains(&server), "nobody gets two");
    assert_eq!(cold.health().at_goal, 1);
    assert!(cold.bench.master.marks().has(Mark::PartRepaired));
    cold.lose(server);
    cold.lose(holders[1]);
    // What was begun between the two comes to nothing without its sources.
    assert!(cold.build_all(false).len() <= 1);
    let health = cold.health();
    assert_eq!((health.endangered, health.missing), (0, 1));
    assert_eq!(cold.locate().copies.len(), 1, "too few to make data of");
    cold.pass(3);
    assert_eq!(cold.build_all(true), [], "nothing can be made of it");
}

#[test]
fn a_part_on_a_drained_server_moves_and_one_in_maintenance_is_waited_for() {
    let mut cold = Cold::converted();
    let holders = cold.holders();
    cold.label(holders[0], DRAIN, Some("yes".to_owned()));
    let health = cold.health();
    assert_eq!((health.draining, health.endangered), (1, 0));
    cold.pass(2);
    let built = cold.build_all(true);
    let [(part, server)] = built[..] else {
        panic!("one part is made: {built:?}")
    };
    assert_eq!(part.part, 1, "the one that lies there");
    assert!(!holders.contains(&server), "nobody gets two");
    cold.pass(2);
    assert_eq!(cold.delete_all(), BTreeSet::from([1]), "the old one goes");
    assert_eq!(cold.health().at_goal, 1);
    assert!(cold.bench.master.marks().has(Mark::CopyDrained));
    let until = cold.bench.now.wall.seconds + 30;
    cold.label(server, MAINTENANCE, Some(until.to_string()));
    cold.lose(server);
    let health = cold.health();
    assert_eq!((health.awaited, health.endangered), (1, 0));
    cold.pass(20);
    assert_eq!(cold.build_all(true), [], "it is waited for");
    cold.lose(holders[1]);
    assert_eq!(cold.health().missing, 1, "one loss more is told as it is");
}

#[test]
fn who_writes_a_chunk_in_parts_waits_until_it_lies_in_copies() {
    let mut cold = Cold::converted();
    let before = cold.bench.master.state().chunk(cold.chunk).expect("there");
    assert_eq!(cold.lease(), [], "it is held");
    let built = cold.build_all(true);
    assert!(built.iter().all(|(part, _)| part.part == 0), "{built:?}");
    assert_eq!(built.len(), 2, "as many as the class writes");
    assert_eq!(cold.bench.master.state().stripe(cold.chunk), None);
    let heard = cold.bench.heard(cold.client);
    let lease = heard.into_iter().find_map(|message| match message {
        MasterToClient::Answer {
            result: Ok(Answer::Lease(lease)),
            ..
        } => Some(*lease),
        _ => None,
    });
    let lease = lease.expect("it is granted now");
    let servers: BTreeSet<u64> = lease.copies.iter().map(|copy| copy.server.0).collect();
    assert_eq!(
        servers,
        built.into_iter().map(|(_, server)| server).collect()
    );
    let restored = before.version.of_next_lease();
    assert_eq!(lease.version, restored.of_next_lease());
    let done = commit_and_release(cold.file, &lease, true);
    cold.bench.say(cold.client, mutate(6, done));
    cold.pass(2);
    assert_eq!(
        cold.delete_all(),
        BTreeSet::from([1, 2, 3]),
        "the parts are stale"
    );
    assert_eq!(cold.locate().stripe, None);
}

#[test]
fn a_damaged_part_is_made_anew_where_it_lies_when_every_other_server_has_one() {
    let mut cold = Cold::converted();
    let holders = cold.holders();
    let others: Vec<u64> = (1..=5).filter(|server| !holders.contains(server)).collect();
    for other in others {
        cold.lose(other);
    }
    let one = cold.bench.master.state().chunk(cold.chunk).expect("there");
    let stripe = one.stripe.expect("in parts");
    let report = PartReport {
        part: stripe.shape.part_id(cold.chunk, 1),
        version: one.version,
        epoch: stripe.stamp,
        disk: DiskId(0),
        bad: true,
        suspect: false,
    };
    let link = cold.link(holders[1]);
    let parts = vec![report];
    cold.bench.tell(link, ChunkToMaster::Gained { parts });
    assert_eq!(cold.health().endangered, 1);
    cold.pass(2);
    assert_eq!(cold.build_all(true), [(report.part, holders[1])]);
    assert_eq!(cold.health().at_goal, 1);
}

#[test]
fn a_part_of_another_conversion_never_counts() {
    let mut cold = Cold::converted();
    let holders = cold.holders();
    let stripe = cold
        .bench
        .master
        .state()
        .stripe(cold.chunk)
        .expect("in parts");
    let version = cold
        .bench
        .master
        .state()
        .chunk(cold.chunk)
        .expect("there")
        .version;
    let report = PartReport {
        part: stripe.shape.part_id(cold.chunk, 0),
        version,
        epoch: antler_core::ids::Epoch(stripe.stamp.0 - 1),
        disk: DiskId(0),
        bad: false,
        suspect: false,
    };
    cold.lose(holders[0]);
    let other = (1..=5)
        .find(|server| !holders.contains(server))
        .expect("one of five");
    let link = cold.link(other);
    let parts = vec![report];
    cold.bench.tell(link, ChunkToMaster::Gained { parts });
    assert_eq!(cold.health().endangered, 1);
    assert_eq!(cold.locate().copies.len(), 2);
}

#[test]
fn a_part_that_is_there_twice_makes_room_for_one_that_is_lost() {
    let mut cold = Cold::converted();
    let holders = cold.holders();
    let version = cold.bench.master.state().chunk(cold.chunk);
    let version = version.expect("there").version;
    let stripe = cold.bench.master.state().stripe(cold.chunk);
    let stripe = stripe.expect("in parts");
    cold.lose(holders[1]);
    // The two others turn out to have the first part too, while one of them makes the lost.
    let others: Vec<u64> = (1..=5).filter(|server| !holders.contains(server)).collect();
    for other in &others {
        let report = PartReport {
            part: stripe.shape.part_id(cold.chunk, 0),
            version,
            epoch: stripe.stamp,
            disk: DiskId(0),
            bad: false,
            suspect: false,
        };
        let parts = vec![report];
        let link = cold.link(*other);
        cold.bench.tell(link, ChunkToMaster::Gained { parts });
    }
    assert_eq!(cold.build_all(false).len(), 1);
    cold.pass(3);
    assert_eq!(cold.delete_all(), BTreeSet::from([1]));
    cold.pass(3);
    let built = cold.build_all(true);
    assert!(
        matches!(built[..], [(part, _)] if part.part == 2),
        "{built:?}"
    );
    assert_eq!(cold.health().missing + cold.health().endangered, 0);
}
