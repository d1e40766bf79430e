//! Copies as the leader counts them: made up for, moved, bad, back again, and not to be
//! believed; its disk answered at once, its chunkservers played by the test.

mod bench;

use antler_core::attributes::Credentials;
use antler_core::errno::Errno;
use antler_core::ids::{
    BootId, ChunkId, ChunkVersion, DiskId, Epoch, LinkId, PartId, RequestId, ServerId,
};
use antler_core::machine::Input;
use antler_core::namespace::LeaseState;
use antler_core::namespace::record::{Mutation, WrittenExtent};
use antler_core::placement::Labels;
use antler_core::time::Duration;
use antler_core::vfs::Space;
use antler_core::wire::chunk_master::{
    ChunkToMaster, Command, CommandResult, PartReport, PartState,
};
use antler_core::wire::client_master::{
    Answer, ClientToMaster, DiskStatus, MasterToClient, Query, StopPlan,
};
use bench::copies::{closed_under, locate, replications, reported, settled_on_two, tell_disk};
use bench::{
    Bench, commit_and_release, create, created, granted, lease_name, mutate, pass_with, sync_all,
    write_and_close,
};
use std::collections::BTreeSet;

#[test]
fn a_bad_copy_is_made_up_for_and_then_deleted() {
    let mut bench = Bench::new();
    let (servers, chunk) = settled_on_two(&mut bench);
    let [(_, bad), (_, good), (third, spare)] = servers[..] else {
        panic!("there are three")
    };
    let report = PartReport {
        part: PartId::whole(chunk),
        version: closed_under(1),
        epoch: Epoch(closed_under(1).0),
        disk: DiskId(0),
        bad: true,
        suspect: false,
    };
    let parts = vec![report];
    bench.tell(bad, ChunkToMaster::Gained { parts });
    bench.pass(Duration::from_secs(2));
    assert_eq!(replications(&mut bench, good), []);
    let in_place = replications(&mut bench, bad);
    let (to, boot, done) = match &in_place[..] {
        [one] => (bad, servers[0].0, *one),
        _ => (spare, third, replications(&mut bench, spare)[0]),
    };
    let (command, version, epoch) = done;
    let made = PartReport {
        bad: false,
        ..report
    };
    bench.tell(to, ChunkToMaster::Gained { parts: vec![made] });
    let state = PartState {
        version,
        epoch,
        digest: 0,
        boot: BootId(boot),
    };
    let result = CommandResult::Parts(vec![Some(state)]);
    bench.tell(to, ChunkToMaster::CommandDone { command, result });
    bench.pass(Duration::from_secs(2));
    let wanted = Command::Delete {
        parts: vec![(PartId::whole(chunk), version)],
    };
    let told = bench.commands(bad);
    let deleted = told.iter().any(|(_, body)| *body == wanted);
    assert_eq!(deleted, to == spare, "{told:?}");
}

#[test]
fn copies_on_failed_disks_are_the_last_to_be_read_and_to_repair_from() {
    let mut bench = Bench::new();
    let (servers, chunk) = settled_on_two(&mut bench);
    let [(first, one), (_, two), (_, spare)] = servers[..] else {
        panic!("there are three")
    };
    let part = PartId::whole(chunk);
    let report = PartReport {
        part,
        version: closed_under(1),
        epoch: Epoch(closed_under(1).0),
        disk: DiskId(0),
        bad: false,
        suspect: true,
    };
    let fail = |bench: &mut Bench, link| {
        bench.tell(link, ChunkToMaster::Lost { parts: vec![part] });
        let parts = vec![report];
        bench.tell(link, ChunkToMaster::Gained { parts });
    };
    let sources = |told: Vec<(u64, Command)>| match told.last() {
        Some((command, Command::Replicate { sources, .. })) => {
            let servers = sources.iter().map(|source| source.server.0);
            (*command, servers.collect::<Vec<_>>())
        }
        other => panic!("no repair: {other:?}"),
    };
    fail(&mut bench, two);
    bench.pass(Duration::from_secs(2));
    let (command, from) = sources([bench.commands(two), bench.commands(spare)].concat());
    assert_eq!(
        from,
        [first],
        "not from the suspect while there is a good one"
    );
    fail(&mut bench, one);
    let result = CommandResult::Failed {
        reason: "the source's disk failed".into(),
        bad_source: None,
    };
    for link in [two, spare] {
        let result = result.clone();
        bench.tell(link, ChunkToMaster::CommandDone { command, result });
    }
    bench.pass(Duration::from_secs(2));
    let told = [one, two, spare].map(|link| bench.commands(link)).concat();
    let (_, from) = sources(told);
    assert_eq!(from.len(), 2, "both can still be read");
}

#[test]
fn a_copy_lost_just_before_its_record_is_not_counted() {
    let mut bench = Bench::new();
    let links: Vec<LinkId> = (1..=3).map(|server| bench.serve(server)).collect();
    let (client, _) = bench.mount(1);
    let inode = write_and_close(&mut bench, client);
    bench.pass(Duration::from_millis(100));
    let mut lost = false;
    for (at, link) in links.iter().enumerate() {
        let synced = sync_all(&mut bench, *link, at as u64 + 1);
        if let (Some(chunk), false) = (synced.first(), lost) {
            let parts = vec![PartId::whole(*chunk)];
            bench.tell(*link, ChunkToMaster::Lost { parts });
            lost = true;
        }
    }
    assert_eq!(lease_name(&mut bench, client, inode), "settled");
    bench.pass(Duration::from_secs(2));
    let made: Vec<_> = links
        .iter()
        .flat_map(|link| replications(&mut bench, *link))
        .collect();
    assert_eq!(made.len(), 1, "the record said two copies, the server one");
}

#[test]
fn a_copy_that_was_moved_before_the_log_is_read_makes_no_other_superfluous() {
    let mut bench = Bench::new();
    let (servers, chunk) = settled_on_two(&mut bench);
    let [(gone, _), (kept, _), (moved_to, _)] = servers[..] else {
        panic!("there are three")
    };
    // The copy was moved, which no record tells; then everything lost power.
    let mut bench = bench.restart();
    let report = reported(chunk, 1);
    let mut links = vec![bench.serve(gone)];
    for server in [kept, moved_to] {
        links.push(bench.register(server, server, vec![], vec![report]));
    }
    pass_with(&mut bench, &links, 8);
    assert!(bench.master.is_leading() && bench.master.state().chunk(chunk).is_some());
    for link in links {
        assert_eq!(bench.commands(link), [], "two copies of two are there");
    }
}

/// What servers are told when one of two copies is reported with the version of before the
/// log's, in such a life of its server; the log was read before any server was there.
fn told_after_an_older_report(lives: u64) -> usize {
    let mut bench = Bench::new();
    let (servers, chunk) = settled_on_two(&mut bench);
    let [(first, _), (second, _), (spare, _)] = servers[..] else {
        panic!("there are three")
    };
    let mut bench = bench.restart();
    bench.lead();
    let report = |version| reported(chunk, version);
    let links = [
        bench.register(first, first, vec![], vec![report(1)]),
        bench.register(second, second + lives - 1, vec![], vec![report(0)]),
        bench.serve(spare),
    ];
    pass_with(&mut bench, &links, 8);
    links.map(|link| bench.commands(link).len()).iter().sum()
}

#[test]
fn a_report_older_than_the_log_makes_no_copy_stale_in_the_same_life() {
    assert_eq!(told_after_an_older_report(1), 0);
    // The disk of a server that was away may have been put back to an older state.
    assert!(told_after_an_older_report(2) > 0);
}

/// On how many servers a new file of a master that just began is put at once, when so many
/// registered, and once nobody came for a second.
fn placed_early(count: u64) -> (Option<usize>, usize) {
    let mut bench = Bench::new().restart();
    bench.lead();
    let links: Vec<LinkId> = (1..=count).map(|server| bench.serve(server)).collect();
    let (client, _) = bench.mount(1);
    let (inode, lease) = created(&bench.say(client, mutate(1, create("f"))));
    let at_once = lease.map(|lease| lease.copies.len());
    let lease = Mutation::Lease {
        inode,
        index: 0,
        failed: vec![],
    };
    let told = bench.say(client, mutate(2, lease));
    assert!(at_once.is_some() || told.is_empty(), "it waits: {told:?}");
    pass_with(&mut bench, &links, 2);
    let leases = bench
        .heard(client)
        .into_iter()
        .filter_map(|told| match told {
            MasterToClient::Answer {
                result: Ok(Answer::Lease(lease)),
                ..
            } => Some(lease.copies.len()),
            _ => None,
        });
    let later = leases.max().or(at_once);
    (at_once, later.expect("one of both"))
}

#[test]
fn a_young_master_waits_for_servers_that_are_just_registering() {
    assert_eq!(placed_early(2), (Some(2), 2));
    assert_eq!(placed_early(1), (None, 1));
}

/// How many copies a mount is told of.
fn located(bench: &mut Bench, chunk: ChunkId) -> usize {
    let (link, _) = bench.mount(7);
    locate(bench, link, chunk)
}

#[test]
fn a_report_older_than_what_is_known_of_the_same_life_makes_no_copy_stale() {
    for (lives, copies) in [(1, 2), (2, 1)] {
        let mut bench = Bench::new();
        let (servers, chunk) = settled_on_two(&mut bench);
        bench.pass(Duration::from_millis(500));
        assert_eq!(located(&mut bench, chunk), 2);
        let report = reported(chunk, 0);
        let (second, _) = servers[1];
        bench.register(second, second + lives - 1, vec![], vec![report]);
        assert_eq!(located(&mut bench, chunk), copies, "in life {lives}");
    }
}

#[test]
fn a_copy_of_which_the_log_tells_first_counts_once_its_server_tells_too() {
    let mut bench = Bench::new();
    let (servers, chunk) = settled_on_two(&mut bench);
    let mut bench = bench.restart();
    let links: Vec<LinkId> = servers.iter().map(|(id, _)| bench.serve(*id)).collect();
    // In the first second it reads the log, and the servers tell what writers made late.
    pass_with(&mut bench, &links, 2);
    let report = reported(chunk, 0);
    for link in &links[..2] {
        let parts = vec![report];
        bench.tell(*link, ChunkToMaster::Gained { parts });
    }
    pass_with(&mut bench, &links, 8);
    for link in links {
        assert_eq!(
            bench.commands(link),
            [],
            "both are of the version that settled"
        );
    }
}

#[test]
fn a_chunk_without_content_goes_when_no_server_can_tell_of_it() {
    let mut bench = Bench::new();
    let _ = (bench.serve(1), bench.serve(2));
    let (link, _) = bench.mount(1);
    let (inode, lease) = created(&bench.say(link, mutate(1, create("f"))));
    let lease = lease.expect("there are servers");
    // They come back without a disk that may have had it.
    let back = [1, 2].map(|server| bench.serve_in_life(server, server + 10));
    for server in back {
        let fences = bench.commands(server);
        let [(command, Command::Fence { .. })] = fences[..] else {
            panic!("no fence: {fences:?}")
        };
        let result = CommandResult::Failed {
            reason: "a disk failed".into(),
            bad_source: None,
        };
        bench.tell(server, ChunkToMaster::CommandDone { command, result });
    }
    assert!(bench.master.state().chunk(lease.chunk).is_none());
    bench.heard(link);
    let again = Mutation::Lease {
        inode,
        index: 0,
        failed: vec![],
    };
    assert_ne!(
        granted(&bench.say(link, mutate(2, again))).chunk,
        lease.chunk
    );
}

#[test]
fn a_lease_on_a_server_without_a_working_disk_is_not_given_again() {
    let mut bench = Bench::new();
    let servers = [1, 2].map(|server| bench.serve(server));
    let (link, _) = bench.mount(1);
    let (inode, lease) = created(&bench.say(link, mutate(1, create("f"))));
    let lease = lease.expect("there are servers");
    // One goes, and the disk of the other fails before it gets the part: it lost none.
    let reason = "power cut".into();
    let link_of_gone = servers[0];
    bench.input(Input::Closed {
        link: link_of_gone,
        reason,
    });
    let disks = vec![DiskStatus {
        failed: "the disk is gone".into(),
        ..DiskStatus::default()
    }];
    pass_with(&mut bench, &[servers[1]], 10);
    let alive = ChunkToMaster::Alive {
        disks,
        load: 0,
        sent: 1,
    };
    bench.tell(servers[1], alive);
    bench.heard(link);
    let again = Mutation::Lease {
        inode,
        index: 0,
        failed: vec![(ServerId(1), BootId(1))],
    };
    let told = bench.say(link, mutate(2, again));
    let is_granted = |told: &MasterToClient| {
        let lease = |result: &Result<Answer, Errno>| matches!(result, Ok(Answer::Lease(_)));
        matches!(told, MasterToClient::Answer { result, .. } if lease(result))
    };
    assert!(!told.iter().any(is_granted), "{told:?}");
    let one = bench.master.state().chunk(lease.chunk).expect("it is kept");
    let is_fenced = matches!(one.lease, LeaseState::Reconciling { .. });
    assert!(is_fenced, "it goes once the servers told: {:?}", one.lease);
}

/// A chunk that settled on two servers is leased on the one that is there, whose disk fails;
/// then the other comes back. True when its copy is asked for.
fn is_left_out_copy_asked(synced: bool) -> bool {
    let mut bench = Bench::new();
    let (one, two) = (bench.serve(1), bench.serve(2));
    let (link, _) = bench.mount(1);
    let inode = write_and_close(&mut bench, link);
    bench.pass(Duration::from_millis(100));
    let chunk = sync_all(&mut bench, one, 1)[0];
    sync_all(&mut bench, two, 2);
    let reason = "power cut".into();
    bench.input(Input::Closed { link: two, reason });
    pass_with(&mut bench, &[one], 10);
    let lease = |failed| Mutation::Lease {
        inode,
        index: 0,
        failed,
    };
    bench.heard(link);
    let grant = granted(&bench.say(link, mutate(3, lease(vec![]))));
    assert_eq!(grant.copies.len(), 1);
    if synced {
        let told = WrittenExtent {
            index: 0,
            chunk,
            valid: 100,
            fences: grant.epoch.fences(grant.version),
            synced: true,
        };
        let commit = Mutation::CommitWrite {
            inode,
            size: 100,
            extents: vec![told],
            release: vec![],
            unchanged: true,
        };
        bench.say(link, mutate(4, commit));
    }
    let parts = vec![PartId::whole(chunk)];
    bench.tell(one, ChunkToMaster::Lost { parts });
    bench.say(link, mutate(5, lease(vec![(ServerId(1), BootId(1))])));
    let report = reported(chunk, 1);
    let back = bench.register(2, 12, Labels::new(), vec![report]);
    let is_fence = |body: &Command| matches!(body, Command::Fence { .. });
    let fences = bench.commands(one).into_iter();
    let (command, _) = fences
        .into_iter()
        .find(|(_, body)| is_fence(body))
        .expect("it is written to");
    let result = CommandResult::Failed {
        reason: "a disk failed that may have had the part".into(),
        bad_source: None,
    };
    bench.tell(one, ChunkToMaster::CommandDone { command, result });
    pass_with(&mut bench, &[one, back], 2);
    let mut asked = bench.commands(back).into_iter();
    asked.any(|(_, body)| is_fence(&body))
}

#[test]
fn a_copy_that_a_lease_left_out_stands_in_unless_something_was_synced_since() {
    assert!(is_left_out_copy_asked(false));
    assert!(!is_left_out_copy_asked(true));
}

/// Two servers, of which one went and the other has but this disk left, and a file of which
/// a mount asks for a second chunk.
fn second_chunk_beside(disk: DiskStatus) -> (Bench, LinkId, LinkId) {
    let mut bench = Bench::new();
    let servers = [1, 2].map(|server| bench.serve(server));
    let (link, _) = bench.mount(1);
    let (inode, _) = created(&bench.say(link, mutate(1, create("f"))));
    bench.input(Input::Closed {
        link: servers[0],
        reason: "power cut".into(),
    });
    tell_disk(&mut bench, servers[1], &disk);
    bench.heard(link);
    let lease = Mutation::Lease {
        inode,
        index: 1,
        failed: vec![],
    };
    let told = bench.say(link, mutate(2, lease));
    assert!(
        answers(&told).is_empty(),
        "the other may come back: {told:?}"
    );
    (bench, link, servers[1])
}

fn answers(told: &[MasterToClient]) -> Vec<Result<(), Errno>> {
    let answer = |told: &MasterToClient| match told {
        MasterToClient::Answer { result, .. } => Some(result.clone().map(drop)),
        _ => None,
    };
    told.iter().filter_map(answer).collect()
}

#[test]
fn failed_disks_do_not_say_that_there_is_no_space() {
    let failed = DiskStatus {
        failed: "the disk is gone".into(),
        ..DiskStatus::default()
    };
    let (mut bench, link, server) = second_chunk_beside(failed.clone());
    for _ in 0..4 {
        bench.pass(Duration::from_secs(1));
        tell_disk(&mut bench, server, &failed);
        bench.beat(link);
    }
    assert_eq!(answers(&bench.heard(link)), []);
    bench.serve_in_life(1, 11);
    bench.pass(Duration::from_millis(1200));
    assert_eq!(answers(&bench.heard(link)), [Ok(())]);
}

#[test]
fn full_disks_say_that_there_is_no_space_once_the_others_had_time() {
    let full = DiskStatus::default();
    let (mut bench, link, server) = second_chunk_beside(full.clone());
    bench.pass(Duration::from_secs(1));
    tell_disk(&mut bench, server, &full);
    assert_eq!(answers(&bench.heard(link)), []);
    bench.pass(Duration::from_secs(2));
    assert_eq!(answers(&bench.heard(link)), [Err(Errno::ENOSPC)]);
}

#[test]
fn a_server_that_came_back_with_less_is_believed_against_a_later_release() {
    let mut bench = Bench::new();
    let _ = (bench.serve(1), bench.serve(2));
    let (link, _) = bench.mount(1);
    let (inode, lease) = created(&bench.say(link, mutate(1, create("f"))));
    let lease = lease.expect("there are servers");
    let report = PartReport {
        part: PartId::whole(lease.chunk),
        version: ChunkVersion(0),
        epoch: Epoch(0),
        disk: DiskId(0),
        bad: false,
        suspect: false,
    };
    // Its disk went back to an older state behind the sync that the release tells of.
    let back = bench.register(2, 12, Labels::new(), vec![report]);
    bench.heard(link);
    bench.say(link, mutate(2, commit_and_release(inode, &lease, true)));
    assert_eq!(lease_name(&mut bench, link, inode), "settled");
    bench.commands(back);
    pass_with(&mut bench, &[back], 4);
    let made = replications(&mut bench, back);
    assert!(
        matches!(made[..], [(_, version, _)] if version == lease.version),
        "{made:?}"
    );
}

/// What would come of stopping servers.
fn stop(bench: &mut Bench, link: LinkId, servers: &[u64]) -> StopPlan {
    let servers = servers.iter().map(|server| ServerId(*server)).collect();
    let from = ChunkId(0);
    let ask = ClientToMaster::Ask {
        question: RequestId(9),
        credentials: Credentials::default(),
        query: Query::Stop { servers, from },
    };
    let said = bench.say(link, ask);
    let plan = said.iter().find_map(|said| match said {
        MasterToClient::Answer {
            result: Ok(Answer::Stop(plan)),
            ..
        } => Some((**plan).clone()),
        _ => None,
    });
    plan.unwrap_or_else(|| panic!("no plan but {said:?}"))
}

#[test]
fn servers_may_stop_unless_a_chunk_has_no_second_copy_elsewhere() {
    let mut bench = Bench::new();
    let (servers, _) = settled_on_two(&mut bench);
    let [(first, one), (second, _), (third, _)] = servers[..] else {
        panic!("there are three")
    };
    let (link, _) = bench.mount(2);
    let spare = stop(&mut bench, link, &[third]);
    assert_eq!((spare.chunks, spare.next), (0, None));
    let plan = stop(&mut bench, link, &[first, third]);
    assert_eq!((plan.chunks, plan.endangered, plan.unavailable), (1, 1, 0));
    let plan = stop(&mut bench, link, &[first, second]);
    assert_eq!((plan.chunks, plan.endangered, plan.unavailable), (1, 0, 1));
    assert_eq!(plan.examples.len(), 1, "its file is named");
    // One is away already: the other is the last.
    let reason = "the server died".to_owned();
    bench.input(Input::Closed { link: one, reason });
    let plan = stop(&mut bench, link, &[second]);
    assert_eq!((plan.endangered, plan.unavailable), (0, 1));
    // A chunk that is being written counts before its copies are reported.
    bench.say(link, mutate(1, create("g")));
    let all = stop(&mut bench, link, &[first, second, third]);
    assert_eq!((all.chunks, all.unavailable), (2, 2));
}

#[test]
fn a_chunk_that_was_never_synced_is_made_anew_where_there_are_disks() {
    let mut bench = Bench::new();
    let _ = (bench.serve(1), bench.serve(2));
    let (link, _) = bench.mount(1);
    write_and_close(&mut bench, link);
    let spare = bench.serve(3);
    let back = [1, 2].map(|server| bench.serve_in_life(server, server + 10));
    let chunk = bench.master.state().leased().next();
    let chunk = chunk.expect("it was closed and not settled");
    // They never had it durably, and their disks fail when they are to have it empty.
    let mut asked = BTreeSet::new();
    let mut made = Vec::new();
    for _ in 0..60 {
        for server in back {
            for (command, body) in bench.commands(server) {
                let is_first = matches!(body, Command::Fence { .. }) && asked.insert(server);
                let failed = CommandResult::Failed {
                    reason: "a disk failed".into(),
                    bad_source: None,
                };
                let result = match is_first {
                    true => CommandResult::Parts(vec![None]),
                    false => failed,
                };
                bench.tell(server, ChunkToMaster::CommandDone { command, result });
            }
        }
        pass_with(&mut bench, &back, 1);
        let disk = DiskStatus {
            space: Space {
                total: 1 << 40,
                free: 1 << 40,
            },
            ..DiskStatus::default()
        };
        let alive = ChunkToMaster::Alive {
            disks: vec![disk],
            load: 0,
            sent: 1,
        };
        bench.tell(spare, alive);
        made = bench.commands(spare);
        if !made.is_empty() {
            break;
        }
    }
    let [
        (
            command,
            Command::SetVersion {
                part,
                epoch,
                version,
            },
        ),
    ] = made[..]
    else {
        panic!("nothing is made: {made:?}")
    };
    assert_eq!(part, PartId::whole(chunk));
    let state = PartState {
        version,
        epoch,
        boot: BootId(3),
        digest: 0,
    };
    let result = CommandResult::Parts(vec![Some(state)]);
    bench.tell(spare, ChunkToMaster::CommandDone { command, result });
    let leased = bench.master.state().leased().count();
    assert_eq!(leased, 0, "it can be written again");
}
