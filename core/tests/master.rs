//! The master alone, its disk answered at once, its clients and chunkservers
//! played by the test: what it says to whom, and in which order.

mod bench;

use antler_core::attributes::{Credentials, XattrMode};
use antler_core::errno::Errno;
use antler_core::ids::{
    BootId, ChunkId, ChunkVersion, DiskId, Epoch, InodeId, LinkId, PartId, RequestId, ServerId,
};
use antler_core::limits::{CACHE_LEASE, XATTR_VALUE_MAX};
use antler_core::machine::{Input, Role};
use antler_core::namespace::LeaseState;
use antler_core::namespace::record::{LeaseEnd, Mutation, WrittenExtent};
use antler_core::placement::Labels;
use antler_core::time::Duration;
use antler_core::wire::chunk_master::{
    ChunkToMaster, Command, CommandResult, PartReport, PartState,
};
use antler_core::wire::client_master::{
    Answer, ClientToMaster, DiskStatus, LeasedChunk, MasterToClient, Query, Stale,
};
use bench::{Bench, create, created, mutate};

fn lookup(name: &str) -> ClientToMaster {
    ClientToMaster::Ask {
        question: RequestId(1),
        credentials: Credentials::default(),
        query: Query::Lookup {
            parent: InodeId::ROOT,
            name: name.into(),
        },
    }
}

#[test]
fn a_created_file_brings_the_lease_of_its_first_chunk() {
    let mut bench = Bench::new();
    bench.serve(1);
    bench.serve(2);
    let (link, _) = bench.mount(1);
    let (_, lease) = created(&bench.say(link, mutate(1, create("f"))));
    assert_eq!(lease.expect("there are servers").copies.len(), 2);
}

#[test]
fn a_resent_request_gets_its_first_reply_and_runs_once() {
    let mut bench = Bench::new();
    let (link, session) = bench.mount(1);
    let first = bench.say(link, mutate(1, create("f")));
    assert_eq!(bench.say(link, mutate(1, create("f"))), first);
    // The same from a new link after a break.
    let again = bench.accept(Role::Client, 0);
    let hello = ClientToMaster::Hello {
        name: "test".into(),
        nonce: 1,
        resume: Some(session),
        opens: vec![],
        labels: vec![],
        creating: vec![],
    };
    assert!(matches!(
        bench.say(again, hello)[..],
        [MasterToClient::Welcome { .. }]
    ));
    assert_eq!(bench.say(again, mutate(1, create("f"))), first);
}

#[test]
fn a_change_is_pushed_before_it_is_answered() {
    let mut bench = Bench::new();
    let (reader, _) = bench.mount(1);
    let (writer, _) = bench.mount(2);
    let absent = bench.say(reader, lookup("f"));
    assert!(matches!(
        absent[..],
        [MasterToClient::Answer {
            result: Err(Errno::ENOENT),
            ..
        }]
    ));
    assert!(
        bench.say(writer, mutate(1, create("f"))).is_empty(),
        "the answer waits for the push"
    );
    let pushed = bench.heard(reader);
    let [MasterToClient::Push { push, stale }] = &pushed[..] else {
        panic!("no push but {pushed:?}")
    };
    assert!(stale.contains(&Stale::Dentry {
        parent: InodeId::ROOT,
        name: b"f".to_vec()
    }));
    bench.say(reader, ClientToMaster::PushDone { push: *push });
    created(&bench.heard(writer));
}

#[test]
fn a_silent_cache_is_waited_for_until_it_has_lapsed_and_then_told_to_drop_all() {
    let mut bench = Bench::new();
    let (reader, _) = bench.mount(1);
    let (writer, _) = bench.mount(2);
    bench.say(reader, lookup("f"));
    assert!(bench.say(writer, mutate(1, create("f"))).is_empty());
    bench.pass(CACHE_LEASE / 2);
    assert!(
        bench.heard(writer).is_empty(),
        "the reader may still answer from its cache"
    );
    bench.pass(CACHE_LEASE);
    created(&bench.heard(writer));
    bench.heard(reader);
    let told = bench.say(reader, ClientToMaster::Alive { echo: 9 });
    let all = |told: &MasterToClient| matches!(told, MasterToClient::Push { stale, .. } if stale[..] == [Stale::All]);
    assert!(
        all(&told[0]),
        "what it missed can't be made up for: {told:?}"
    );
    assert_eq!(told[1], MasterToClient::AliveToo { echo: 9 });
}

/// Answers the syncs that a server was sent, as if all were durable.
fn sync_all(bench: &mut Bench, link: LinkId, boot: u64) -> Vec<ChunkId> {
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

fn lease_name(bench: &mut Bench, link: LinkId, inode: InodeId) -> String {
    let query = Query::Info { inode };
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

fn write_and_close(bench: &mut Bench, link: LinkId) -> InodeId {
    let (inode, lease) = created(&bench.say(link, mutate(1, create("f"))));
    let lease = lease.expect("there are servers");
    let commit = Mutation::CommitWrite {
        inode,
        size: 100,
        extents: vec![WrittenExtent {
            index: 0,
            chunk: lease.chunk,
            valid: 100,
            fences: lease.epoch.fences(lease.version),
        }],
        release: vec![LeaseEnd {
            chunk: lease.chunk,
            epoch: lease.epoch,
            synced: false,
        }],
    };
    bench.say(link, mutate(2, commit));
    inode
}

#[test]
fn what_was_closed_unsynced_is_synced_by_its_servers_and_settles() {
    let mut bench = Bench::new();
    let (one, two) = (bench.serve(1), bench.serve(2));
    let (link, _) = bench.mount(1);
    bench.commands(one);
    bench.commands(two);
    let inode = write_and_close(&mut bench, link);
    assert_eq!(lease_name(&mut bench, link, inode), "closing");
    bench.pass(Duration::from_millis(100));
    assert_eq!(sync_all(&mut bench, one, 1).len(), 1);
    assert_eq!(
        lease_name(&mut bench, link, inode),
        "closing",
        "one copy of two is durable"
    );
    assert_eq!(sync_all(&mut bench, two, 2).len(), 1);
    assert_eq!(lease_name(&mut bench, link, inode), "settled");
}

/// A file was closed unsynced, one of its servers is lost, and the other one has its copy
/// of it in some life.
fn reconciled_by(life: BootId) -> (Bench, LinkId, InodeId) {
    let mut bench = Bench::new();
    let (one, two) = (bench.serve(1), bench.serve(2));
    let (link, _) = bench.mount(1);
    let inode = write_and_close(&mut bench, link);
    bench.commands(one);
    bench.input(Input::Closed {
        link: two,
        reason: "killed".into(),
    });
    assert_eq!(lease_name(&mut bench, link, inode), "reconciling");
    let fences = bench.commands(one);
    let [(command, Command::Fence { epoch, .. })] = fences[..] else {
        panic!("no fence: {fences:?}")
    };
    let state = PartState {
        version: ChunkVersion(1),
        epoch,
        digest: 5,
        boot: life,
    };
    let result = CommandResult::Parts(vec![Some(state)]);
    bench.tell(one, ChunkToMaster::CommandDone { command, result });
    bench.pass(Duration::from_secs(1));
    if life != BootId(1) {
        // It is taken only once it is known that the other one is no better.
        assert_eq!(bench.commands(one), []);
        let two = bench.serve_in_life(2, 8);
        for _ in 0..2 {
            let [(command, ref told)] = bench.commands(two)[..] else {
                panic!("it is fenced, then made equal")
            };
            let made = match *told {
                Command::Replicate { version, .. } => Some(PartState { version, ..state }),
                _ => None,
            };
            let result = CommandResult::Parts(vec![made]);
            bench.tell(two, ChunkToMaster::CommandDone { command, result });
        }
    }
    let raised = bench.commands(one);
    let [(command, Command::SetVersion { version, .. })] = raised[..] else {
        panic!("not raised: {raised:?}")
    };
    let result = CommandResult::Parts(vec![Some(PartState { version, ..state })]);
    bench.tell(one, ChunkToMaster::CommandDone { command, result });
    assert_eq!(lease_name(&mut bench, link, inode), "settled");
    (bench, link, inode)
}

/// Whether the leader says that what was written under a lease is not safe: when it is
/// asked, and with the next lease.
fn is_lost(bench: &mut Bench, link: LinkId, inode: InodeId, version: ChunkVersion) -> [bool; 2] {
    let again = Mutation::Lease {
        inode,
        index: 0,
        failed: vec![],
    };
    let lease = granted(&bench.say(link, mutate(3, again)));
    let chunks = vec![(lease.chunk, version)];
    let ask = ClientToMaster::Ask {
        question: RequestId(6),
        credentials: Credentials::default(),
        query: Query::Unsettled { chunks },
    };
    let told = bench.say(link, ask);
    let [
        MasterToClient::Answer {
            result: Ok(Answer::Unsettled(left)),
            ..
        },
    ] = &told[..]
    else {
        panic!("no answer but {told:?}")
    };
    let covers = lease.lost.is_some_and(|loss| loss.covers(version));
    [!left.is_empty(), covers]
}

#[test]
fn a_copy_lost_before_it_was_synced_breaks_the_lease_and_the_other_is_kept() {
    let (mut bench, link, inode) = reconciled_by(BootId(1));
    let lost = is_lost(&mut bench, link, inode, ChunkVersion(1));
    assert_eq!(lost, [false, false], "the other one took all writes");
}

#[test]
fn a_reconciliation_without_a_copy_that_kept_its_life_is_told_as_a_loss() {
    let (mut bench, link, inode) = reconciled_by(BootId(9));
    let lost = is_lost(&mut bench, link, inode, ChunkVersion(1));
    assert_eq!(lost, [true, true], "it may lack unsynced writes");
}

#[test]
fn a_lease_is_recalled_from_its_holder_for_another_writer() {
    let mut bench = Bench::new();
    let (_one, _two) = (bench.serve(1), bench.serve(2));
    let (holder, _) = bench.mount(1);
    let (other, _) = bench.mount(2);
    let (inode, lease) = created(&bench.say(holder, mutate(1, create("f"))));
    let lease = lease.expect("there are servers");
    let wanted = Mutation::Lease {
        inode,
        index: 0,
        failed: vec![],
    };
    assert!(
        bench.say(other, mutate(1, wanted)).is_empty(),
        "the holder comes first"
    );
    let told = bench.heard(holder);
    assert!(
        told.contains(&MasterToClient::Recall {
            leases: vec![(inode, lease.chunk, lease.epoch)]
        }),
        "{told:?}"
    );
    let commit = Mutation::CommitWrite {
        inode,
        size: 10,
        extents: vec![WrittenExtent {
            index: 0,
            chunk: lease.chunk,
            valid: 10,
            fences: lease.epoch.fences(lease.version),
        }],
        release: vec![LeaseEnd {
            chunk: lease.chunk,
            epoch: lease.epoch,
            synced: false,
        }],
    };
    bench.say(holder, mutate(2, commit));
    let told = bench.heard(other);
    let granted = told.iter().find_map(|told| match told {
        MasterToClient::Answer {
            result: Ok(Answer::Lease(granted)),
            ..
        } => Some(granted),
        _ => None,
    });
    assert!(granted.expect("granted after the release").epoch > lease.epoch);
}

/// The version and epoch of each part that a server was told to sync, with the number
/// of the command.
type Sync = (u64, Vec<(PartId, ChunkVersion, Epoch)>);

fn syncs(bench: &mut Bench, link: LinkId) -> Vec<Sync> {
    let commands = bench.commands(link).into_iter();
    let syncs = commands.filter_map(|(command, body)| match body {
        Command::SyncParts { parts } => Some((command, parts)),
        _ => None,
    });
    syncs.collect()
}

fn commit_and_release(inode: InodeId, lease: &LeasedChunk, synced: bool) -> Mutation {
    Mutation::CommitWrite {
        inode,
        size: 100,
        extents: vec![WrittenExtent {
            index: 0,
            chunk: lease.chunk,
            valid: 100,
            fences: lease.epoch.fences(lease.version),
        }],
        release: vec![LeaseEnd {
            chunk: lease.chunk,
            epoch: lease.epoch,
            synced,
        }],
    }
}

fn granted(told: &[MasterToClient]) -> LeasedChunk {
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

#[test]
fn a_sync_of_an_earlier_lease_does_not_settle_a_later_one() {
    let mut bench = Bench::new();
    let (one, two) = (bench.serve(1), bench.serve(2));
    let (link, _) = bench.mount(1);
    let inode = write_and_close(&mut bench, link);
    bench.pass(Duration::from_millis(100));
    let early = [syncs(&mut bench, one), syncs(&mut bench, two)];
    // Leased and written again before the servers answer: they have seen a newer epoch
    // then, sync nothing, and tell what the parts are like.
    let again = Mutation::Lease {
        inode,
        index: 0,
        failed: vec![],
    };
    let lease = granted(&bench.say(link, mutate(3, again)));
    bench.say(link, mutate(4, commit_and_release(inode, &lease, false)));
    for (link, syncs) in [one, two].into_iter().zip(early) {
        let [(command, _)] = syncs[..] else {
            panic!("one sync each: {syncs:?}")
        };
        let state = PartState {
            version: lease.version,
            epoch: lease.epoch,
            digest: 0,
            boot: BootId(0),
        };
        let result = CommandResult::Parts(vec![Some(state)]);
        bench.tell(link, ChunkToMaster::CommandDone { command, result });
    }
    assert_eq!(
        lease_name(&mut bench, link, inode),
        "closing",
        "nothing of the second lease is durable"
    );
    bench.pass(Duration::from_millis(100));
    assert_eq!(sync_all(&mut bench, one, 1).len(), 1);
    assert_eq!(sync_all(&mut bench, two, 2).len(), 1);
    assert_eq!(lease_name(&mut bench, link, inode), "settled");
}

#[test]
fn a_request_far_ahead_of_what_the_log_knows_is_run_when_nothing_older_is_unanswered() {
    let mut bench = Bench::new();
    let (link, _) = bench.mount(1);
    created(&bench.say(link, mutate(5000, create("f"))));
}

#[test]
fn a_lease_of_which_a_copy_is_unknown_is_not_given_in_part() {
    let mut bench = Bench::new();
    let (one, two) = (bench.serve(1), bench.serve(2));
    let (link, session) = bench.mount(1);
    let (inode, _) = created(&bench.say(link, mutate(1, create("f"))));
    let again = Mutation::Lease {
        inode,
        index: 0,
        failed: vec![],
    };
    let lease = granted(&bench.say(link, mutate(2, again.clone())));
    assert_eq!(lease.copies.len(), 2);
    // The next leader knows one server of two when the request comes again.
    let state = bench.master.state().clone();
    let mut bench = Bench::on(state);
    bench.serve(1);
    let link = bench.resume(1, session, vec![inode]);
    let told = bench.say(link, mutate(2, again));
    assert!(
        matches!(
            told[..],
            [MasterToClient::Answer {
                result: Err(Errno::EAGAIN),
                ..
            }]
        ),
        "a writer of one copy would call it all: {told:?}"
    );
    let _ = (one, two);
}

#[test]
fn a_new_chunk_waits_for_servers_that_are_still_to_come() {
    let mut bench = Bench::new();
    let (link, _) = bench.mount(1);
    let (inode, lease) = created(&bench.say(link, mutate(1, create("f"))));
    assert!(lease.is_none(), "nobody is there to hold it");
    let want = Mutation::Lease {
        inode,
        index: 0,
        failed: vec![],
    };
    let told = bench.say(link, mutate(2, want));
    assert!(told.is_empty(), "the disks are not full: {told:?}");
    bench.serve(1);
    assert_eq!(granted(&bench.heard(link)[..1]).copies.len(), 1);
}

#[test]
fn a_file_of_a_session_that_is_not_back_yet_is_kept_when_it_is_unlinked() {
    let mut bench = Bench::new();
    let (holder, session) = bench.mount(1);
    let (inode, _) = created(&bench.say(holder, mutate(1, create("f"))));
    // The next leader has not heard the holder when another session unlinks the file.
    let state = bench.master.state().clone();
    let mut bench = Bench::on(state);
    let (other, _) = bench.mount(2);
    let unlink = Mutation::Unlink {
        parent: InodeId::ROOT,
        name: b"f".to_vec(),
    };
    bench.say(other, mutate(1, unlink));
    bench.pass(CACHE_LEASE * 2);
    bench.heard(other);
    assert!(bench.master.state().is_orphan_of(inode, session));
    let holder = bench.resume(1, session, vec![inode]);
    assert!(bench.master.state().is_orphan_of(inode, session));
    bench.say(
        holder,
        ClientToMaster::Closed {
            inodes: vec![inode],
        },
    );
    assert!(bench.master.state().attributes(inode).is_err());
}

#[test]
fn a_file_whose_create_was_not_seen_answered_is_kept_when_it_is_unlinked() {
    for (creating, is_kept) in [(vec![], false), (vec![RequestId(1)], true)] {
        let mut bench = Bench::new();
        let (lost, session) = bench.mount(1);
        let (inode, _) = created(&bench.say(lost, mutate(1, create("f"))));
        let (other, _) = bench.mount(2);
        let link = bench.resume_creating(1, session, vec![], creating.clone());
        let unlink = Mutation::Unlink {
            parent: InodeId::ROOT,
            name: b"f".to_vec(),
        };
        bench.say(other, mutate(1, unlink));
        let state = bench.master.state();
        assert_eq!(state.is_orphan_of(inode, session), is_kept);
        assert_eq!(state.attributes(inode).is_ok(), is_kept);
        // Again without its answer, then with it: then it is closed.
        bench.input(Input::Closed {
            link,
            reason: "cut".into(),
        });
        bench.resume_creating(1, session, vec![], creating);
        let state = bench.master.state();
        assert_eq!(state.is_orphan_of(inode, session), is_kept);
        bench.resume(1, session, vec![]);
        assert!(bench.master.state().attributes(inode).is_err());
    }
}

#[test]
fn a_reconciliation_that_another_leader_began_is_fenced_anew() {
    let mut bench = Bench::new();
    let (one, two) = (bench.serve(1), bench.serve(2));
    let (link, _) = bench.mount(1);
    let inode = write_and_close(&mut bench, link);
    bench.input(Input::Closed {
        link: two,
        reason: "killed".into(),
    });
    assert_eq!(lease_name(&mut bench, link, inode), "reconciling");
    let old = bench.commands(one);
    let Some((_, Command::Fence { epoch: before, .. })) = old.last() else {
        panic!("no fence: {old:?}")
    };
    let state = bench.master.state().clone();
    let mut next = Bench::on(state);
    let one = next.serve(1);
    next.pass(Duration::from_millis(200));
    let new = next.commands(one);
    let Some((_, Command::Fence { epoch, .. })) = new.last() else {
        panic!("no fence: {new:?}")
    };
    assert!(epoch > before, "what the old leader ordered may still run");
}

#[test]
fn a_lease_whose_every_copy_was_restarted_does_not_wait_for_its_holder() {
    let mut bench = Bench::new();
    let (one, two) = (bench.serve(1), bench.serve(2));
    let (link, _) = bench.mount(1);
    let (inode, lease) = created(&bench.say(link, mutate(1, create("f"))));
    let lease = lease.expect("there are servers");
    let extents = vec![WrittenExtent {
        index: 0,
        chunk: lease.chunk,
        valid: 10,
        fences: lease.epoch.fences(lease.version),
    }];
    let commit = Mutation::CommitWrite {
        inode,
        size: 10,
        extents,
        release: vec![],
    };
    bench.say(link, mutate(2, commit));
    assert_eq!(lease_name(&mut bench, link, inode), "open");
    for (old, server) in [(one, 1), (two, 2)] {
        let reason = "power cut".into();
        bench.input(Input::Closed { link: old, reason });
        bench.serve_in_life(server, 10 + server);
    }
    bench.heard(link);
    assert_eq!(lease_name(&mut bench, link, inode), "reconciling");
}

/// Three servers, and a chunk that settled on two of them: their links, and the chunk.
fn settled_on_two(bench: &mut Bench) -> (Vec<(u64, LinkId)>, ChunkId) {
    let all: Vec<(u64, LinkId)> = (1..=3)
        .map(|server| (server, bench.serve(server)))
        .collect();
    let (link, _) = bench.mount(1);
    write_and_close(bench, link);
    bench.pass(Duration::from_millis(100));
    let mut holders = Vec::new();
    let mut chunks = Vec::new();
    for (server, link) in &all {
        let synced = sync_all(bench, *link, *server);
        if !synced.is_empty() {
            holders.push((*server, *link));
        }
        chunks.extend(synced);
    }
    assert_eq!(holders.len(), 2);
    let spare = all.into_iter().find(|one| !holders.contains(one));
    holders.extend(spare);
    (holders, chunks[0])
}

fn replications(bench: &mut Bench, link: LinkId) -> Vec<(u64, ChunkVersion, Epoch)> {
    let of = |(command, body)| match body {
        Command::Replicate { version, epoch, .. } => Some((command, version, epoch)),
        _ => None,
    };
    bench.commands(link).into_iter().filter_map(of).collect()
}

#[test]
fn a_bad_copy_is_made_up_for_and_then_deleted() {
    let mut bench = Bench::new();
    let (servers, chunk) = settled_on_two(&mut bench);
    let [(_, bad), (_, good), (third, spare)] = servers[..] else {
        panic!("there are three")
    };
    let report = PartReport {
        part: PartId::whole(chunk),
        version: ChunkVersion(1),
        epoch: Epoch(1),
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
        version: ChunkVersion(1),
        epoch: Epoch(1),
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
    let report = PartReport {
        part: PartId::whole(chunk),
        version: ChunkVersion(1),
        epoch: Epoch(1),
        disk: DiskId(0),
        bad: false,
        suspect: false,
    };
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

#[test]
fn a_copy_of_which_the_log_tells_first_counts_once_its_server_tells_too() {
    let mut bench = Bench::new();
    let (servers, chunk) = settled_on_two(&mut bench);
    let mut bench = bench.restart();
    let links: Vec<LinkId> = servers.iter().map(|(id, _)| bench.serve(*id)).collect();
    // In the first second it reads the log, and the servers tell what writers made late.
    pass_with(&mut bench, &links, 2);
    let report = PartReport {
        part: PartId::whole(chunk),
        version: ChunkVersion(0),
        epoch: Epoch(1),
        disk: DiskId(0),
        bad: false,
        suspect: false,
    };
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

/// Lets seconds pass in which servers say that they live.
fn pass_with(bench: &mut Bench, servers: &[LinkId], seconds: u64) {
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

#[test]
fn a_copy_that_cannot_be_read_is_not_taken_for_an_empty_one() {
    let mut bench = Bench::new();
    let (one, two) = (bench.serve(1), bench.serve(2));
    let (link, _) = bench.mount(1);
    let inode = write_and_close(&mut bench, link);
    bench.pass(Duration::from_millis(100));
    let failed = || CommandResult::Failed {
        reason: "a disk failed".into(),
        bad_source: None,
    };
    for server in [one, two] {
        for (command, _) in bench.commands(server) {
            let result = failed();
            bench.tell(server, ChunkToMaster::CommandDone { command, result });
        }
    }
    for server in [one, two] {
        for (command, body) in bench.commands(server) {
            assert!(matches!(body, Command::Fence { .. }), "{body:?}");
            let result = failed();
            bench.tell(server, ChunkToMaster::CommandDone { command, result });
        }
    }
    pass_with(&mut bench, &[one, two], 4);
    let told = bench.commands(one);
    assert_eq!(told, [], "nobody makes an empty one of it");
    assert_eq!(lease_name(&mut bench, link, inode), "reconciling");
    pass_with(&mut bench, &[one, two], 2);
    let again = bench.commands(one);
    assert!(
        matches!(again[..], [(_, Command::Fence { .. })]),
        "{again:?}"
    );
    let (command, _) = again[0];
    let result = CommandResult::Parts(vec![None]);
    bench.tell(one, ChunkToMaster::CommandDone { command, result });
    for (command, _) in bench.commands(two) {
        let result = failed();
        bench.tell(two, ChunkToMaster::CommandDone { command, result });
    }
    let made = bench.commands(one);
    assert!(
        matches!(made[..], [(_, Command::SetVersion { .. })]),
        "one that surely has nothing tells that nothing was synced: {made:?}"
    );
    assert_eq!(bench.commands(two), []);
}

#[test]
fn the_end_of_a_session_that_the_log_did_not_take_comes_later() {
    let mut bench = Bench::new();
    let writers = [bench.mount(1).0, bench.mount(2).0];
    let (leaving, session) = bench.mount(3);
    bench.stalls = true;
    for link in writers {
        for request in 1..=600 {
            let mutation = Mutation::SetXattr {
                inode: InodeId::ROOT,
                name: b"user.filler".to_vec(),
                value: vec![7; XATTR_VALUE_MAX],
                mode: XattrMode::Any,
            };
            bench.say(link, mutate(request, mutation));
        }
    }
    bench.say(leaving, ClientToMaster::Goodbye);
    bench.go_on();
    bench.pass(Duration::from_secs(1));
    assert!(!bench.master.state().has_session(session), "it has left");
}

#[test]
fn a_lease_of_which_a_copy_is_gone_is_not_taken_back_unsynced() {
    let mut bench = Bench::new();
    let (_, two) = (bench.serve(1), bench.serve(2));
    let (link, _) = bench.mount(1);
    let (inode, lease) = created(&bench.say(link, mutate(1, create("f"))));
    let lease = lease.expect("there are servers");
    let reason = "power cut".into();
    bench.input(Input::Closed { link: two, reason });
    bench.heard(link);
    let commit = commit_and_release(inode, &lease, false);
    let told = bench.say(link, mutate(2, commit));
    let is_refused = |told: &MasterToClient| {
        let refused = Err(Errno::ESTALE);
        matches!(told, MasterToClient::Answer { result, .. } if *result == refused)
    };
    assert!(told.iter().any(is_refused), "{told:?}");
}

#[test]
fn a_late_answer_gives_no_lease_that_its_holder_was_asked_for() {
    let mut bench = Bench::new();
    bench.serve(1);
    bench.serve(2);
    let (other, _) = bench.mount(2);
    let (holder, _) = bench.mount(1);
    // The other one caches the root's names: the answer waits for its push.
    assert_eq!(bench.say(other, lookup("f")).len(), 1);
    assert!(bench.say(holder, mutate(1, create("f"))).is_empty());
    let push = bench.heard(other).into_iter().find_map(|told| match told {
        MasterToClient::Push { push, .. } => Some(push),
        _ => None,
    });
    let inode = InodeId(2);
    let wanted = Mutation::Lease {
        inode,
        index: 0,
        failed: vec![],
    };
    bench.say(other, mutate(1, wanted));
    let recalled = bench.heard(holder).into_iter().find_map(|told| match told {
        MasterToClient::Recall { leases } => Some(leases[0]),
        _ => None,
    });
    let (file, chunk, epoch) = recalled.expect("the other one needs it");
    assert_eq!(file, inode);
    bench.say(holder, ClientToMaster::NotHeld { chunk, epoch });
    let push = push.expect("a name was cached");
    bench.say(other, ClientToMaster::PushDone { push });
    let (_, lease) = created(&bench.heard(holder));
    assert!(lease.is_none(), "it is fenced: {lease:?}");
}
