//! The feature level as a leader guards it: who holds it back, what is refused below
//! it, and who is turned away above.

mod bench;

use antler_core::attributes::Credentials;
use antler_core::errno::Errno;
use antler_core::ids::{LinkId, LogPosition, RequestId};
use antler_core::machine::{Machine, Role};
use antler_core::marks::Mark;
use antler_core::namespace::State;
use antler_core::namespace::record::{ClassChange, Mutation, Record, RecordBody};
use antler_core::placement::{Policy, StorageClass};
use antler_core::time::Timestamp;
use antler_core::version::FeatureLevel;
use antler_core::wire::chunk_master::{ChunkToMaster, MasterToChunk};
use antler_core::wire::client_master::{
    Answer, ClientToMaster, DiskStatus, LevelStatus, MasterToClient, Query, ScrubStatus,
};
use antler_core::wire::{HEADER_SIZE, Header, Message, WireError};
use bench::{Bench, create, created, mutate};

/// Before there were erasure codes.
const OLD: FeatureLevel = FeatureLevel::CLASSES;

/// A master of a cluster that began as the previous version.
fn begun_as_previous() -> Bench {
    let mut state = State::default();
    let body = RecordBody::Found {
        capability_secret: vec![7; 32],
        copies: 2,
        level: OLD,
    };
    let time = Timestamp::default();
    state.apply(LogPosition(1), &Record { time, body });
    Bench::on(state)
}

/// A client that asks one thing after the other.
struct Asker(LinkId, u64);

impl Asker {
    fn change(&mut self, bench: &mut Bench, mutation: Mutation) -> Result<Answer, Errno> {
        self.1 += 1;
        answer(bench.say(self.0, mutate(self.1, mutation)))
    }

    fn level(&mut self, bench: &mut Bench) -> LevelStatus {
        let asked = ask(Query::Status);
        match answer(bench.say(self.0, asked)) {
            Ok(Answer::Status(status)) => status.level,
            other => panic!("no status but {other:?}"),
        }
    }
}

fn ask(query: Query) -> ClientToMaster {
    ClientToMaster::Ask {
        question: RequestId(1),
        credentials: Credentials::default(),
        query,
    }
}

fn answer(told: Vec<MasterToClient>) -> Result<Answer, Errno> {
    let found = told.into_iter().find_map(|message| match message {
        MasterToClient::Answer { result, .. } => Some(result),
        _ => None,
    });
    found.expect("it is answered at once")
}

fn home() -> Mutation {
    Mutation::ChangeClass(ClassChange::Create {
        name: "home".to_owned(),
        class: class(),
    })
}

fn class() -> StorageClass {
    StorageClass {
        create: Some(Policy::copies(2)),
        keep: "ec(2+1)".parse().expect("it is well written"),
        archive: None,
    }
}

fn raise() -> Mutation {
    let level = FeatureLevel::NEWEST;
    Mutation::RaiseLevel { level }
}

fn register_old(bench: &mut Bench, server: u64) -> LinkId {
    let link = bench.accept_as(OLD, Role::ChunkServer, server);
    bench.register_on(link, server, (server, Vec::new()), Vec::new());
    link
}

#[test]
fn the_level_rises_once_the_last_server_speaks_it() {
    let mut bench = begun_as_previous();
    let mut asker = Asker(bench.mount(1).0, 0);
    bench.serve(1);
    register_old(&mut bench, 2);
    assert_eq!(asker.change(&mut bench, home()), Err(Errno::EOPNOTSUPP));
    let told = asker.level(&mut bench);
    assert_eq!((told.level, told.newest), (OLD, FeatureLevel::NEWEST));
    let who: Vec<_> = told
        .held_back
        .iter()
        .map(|one| (one.id, one.knows))
        .collect();
    assert_eq!(who, [(2, Some(OLD))]);
    assert_eq!(asker.change(&mut bench, raise()), Err(Errno::EBUSY));
    assert!(bench.master.marks().has(Mark::LevelRefused));
    assert!(bench.master.marks().has(Mark::SpokePrevious));
    bench.register(2, 20, Vec::new(), Vec::new());
    assert_eq!(asker.level(&mut bench).held_back, []);
    for _ in 0..2 {
        assert_eq!(asker.change(&mut bench, raise()), Ok(Answer::Done));
    }
    assert_eq!(asker.level(&mut bench).level, FeatureLevel::NEWEST);
    assert!(bench.master.marks().has(Mark::LevelRaised));
    assert_eq!(asker.change(&mut bench, home()), Ok(Answer::Done));
}

#[test]
fn a_level_that_the_leader_does_not_know_is_refused() {
    let mut bench = begun_as_previous();
    let mut asker = Asker(bench.mount(1).0, 0);
    let level = FeatureLevel(FeatureLevel::NEWEST.0 + 1);
    let beyond = Mutation::RaiseLevel { level };
    assert_eq!(asker.change(&mut bench, beyond), Err(Errno::EOPNOTSUPP));
    assert_eq!(bench.master.state().feature_level(), OLD);
}

#[test]
fn a_new_cluster_begins_at_the_newest_level_and_turns_old_servers_away() {
    let mut bench = Bench::new();
    assert_eq!(bench.master.state().feature_level(), FeatureLevel::NEWEST);
    let link = register_old(&mut bench, 5);
    let refused = bench.sent.iter().find_map(|(to, message)| match message {
        Message::MasterToChunk(MasterToChunk::Refused { reason }) if *to == link => Some(reason),
        _ => None,
    });
    let why = refused.expect("it is told why");
    assert!(
        why.contains(&format!("feature level {}", FeatureLevel::NEWEST)) && why.contains("up to 2"),
        "{why}"
    );
    assert!(bench.master.marks().has(Mark::OldServerRefused));
}

#[test]
fn an_old_link_carries_no_word_of_erasure_codes() {
    let mut bench = Bench::new();
    let mut asker = Asker(bench.mount(1).0, 0);
    assert_eq!(asker.change(&mut bench, home()), Ok(Answer::Done));
    let asked = ask(Query::Status);
    let mut told = bench
        .say(asker.0, asked)
        .into_iter()
        .map(Message::MasterToClient);
    let mut status = told.next().expect("it is answered");
    assert_eq!(status.demand_version(OLD), Ok(()));
    status.lower(OLD);
    let MasterToClient::Answer { result, .. } = unwrap(&read(&status)) else {
        panic!("an answer stays one");
    };
    let Ok(Answer::Status(read)) = result else {
        panic!("a status stays one");
    };
    assert_eq!(read.classes, []);
    for unknown in [
        mutate(1, home()),
        ask(Query::PlanClass {
            name: "home".to_owned(),
            class: class(),
        }),
    ] {
        let message = Message::ClientToMaster(unknown);
        let (since, version) = (FeatureLevel::CODES, OLD);
        let refused = Err(WireError::Version { since, version });
        assert_eq!(message.demand_version(OLD), refused);
        assert_eq!(message.demand_version(since), Ok(()));
    }
    assert_eq!(
        Message::ClientToMaster(mutate(1, raise())).demand_version(OLD),
        Ok(())
    );
}

#[test]
fn an_old_link_carries_no_word_of_scrubs_drains_and_suspicions() {
    let disk = |scrub: Option<ScrubStatus>| DiskStatus {
        suspected: scrub.map_or("", |_| "it is slow").to_owned(),
        draining: scrub.is_some().then_some(7),
        path: "d".to_owned(),
        scrub,
        ..DiskStatus::default()
    };
    let alive = |disk| {
        let disks = vec![disk];
        Message::ChunkToMaster(ChunkToMaster::Alive {
            disks,
            load: 1,
            sent: 2,
        })
    };
    let scrubbed = disk(Some(ScrubStatus {
        rate: 4 << 20,
        findings: 1,
        ended: Some(Timestamp::default()),
        ..ScrubStatus::default()
    }));
    let mut message = alive(scrubbed);
    assert_eq!(read(&message), message);
    assert_eq!(message.demand_version(OLD), Ok(()));
    message.lower(OLD);
    let without = alive(disk(None));
    assert_eq!(read(&message), without);
    // As a server that scrubs nothing always said it.
    assert_eq!(message.encode(), without.encode());
}

/// Whether the holder of a new file's lease is to count its syncs.
fn counts(bench: &mut Bench, link: LinkId, request: u64) -> bool {
    let name = format!("f{request}");
    let (_, lease) = created(&bench.say(link, mutate(request, create(&name))));
    lease.expect("it has a place").counts
}

#[test]
fn syncs_are_counted_once_all_servers_know_of_it() {
    let mut bench = begun_as_previous();
    let (link, _) = bench.mount(1);
    bench.serve(1);
    bench.serve(2);
    assert!(!counts(&mut bench, link, 1));
    assert_eq!(Asker(link, 1).change(&mut bench, raise()), Ok(Answer::Done));
    assert!(counts(&mut bench, link, 3));
}

/// A message as the other end reads it.
fn read(message: &Message) -> Message {
    let (frame, data) = message.encode();
    let header = Header::decode(frame.first_chunk().expect("a header")).expect("whole");
    Message::decode(header, &frame[HEADER_SIZE..], data).expect("whole")
}

fn unwrap(message: &Message) -> MasterToClient {
    match message {
        Message::MasterToClient(told) => told.clone(),
        other => panic!("a client is not told {other:?}"),
    }
}
