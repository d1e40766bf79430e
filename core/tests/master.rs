//! The master alone, its disk answered at once, its clients and chunkservers
//! played by the test: what it says to whom, and in which order.

mod bench;

use antler_core::attributes::{AttributeChange, Credentials, XattrMode};
use antler_core::errno::Errno;
use antler_core::ids::{BootId, ChunkVersion, Epoch, InodeId, LinkId, PartId, RequestId};
use antler_core::limits::{CACHE_LEASE, XATTR_VALUE_MAX};
use antler_core::machine::{Input, Role};
use antler_core::namespace::record::{LeaseEnd, Mutation, WrittenExtent};
use antler_core::time::Duration;
use antler_core::wire::chunk_master::{ChunkToMaster, Command, CommandResult, PartState};
use antler_core::wire::client_master::{Answer, ClientToMaster, MasterToClient, Query, Stale};
use bench::{
    Bench, commit_and_release, create, created, granted, lease_name, mutate, pass_with, sync_all,
    write_and_close,
};

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
fn a_name_that_changed_again_in_the_same_batch_is_dropped_by_its_author() {
    let mut bench = Bench::new();
    bench.serve(1);
    bench.serve(2);
    let (author, _) = bench.mount(1);
    let (reader, _) = bench.mount(2);
    created(&bench.say(author, mutate(1, create("f"))));
    bench.say(reader, lookup("f"));
    let (parent, name) = (InodeId::ROOT, b"f".to_vec());
    let unlink = Mutation::Unlink {
        parent,
        name: name.clone(),
    };
    // While the log writes something else both gather, and are applied at once.
    let (other, _) = bench.mount(3);
    bench.stalls = true;
    bench.say(other, mutate(1, Mutation::Release { leases: vec![] }));
    bench.say(author, mutate(2, unlink));
    bench.say(author, mutate(3, create("f")));
    bench.go_on();
    let pushes = bench
        .heard(reader)
        .into_iter()
        .filter_map(|told| match told {
            MasterToClient::Push { push, .. } => Some(push),
            _ => None,
        });
    let pushes: Vec<u64> = pushes.collect();
    assert_eq!(pushes.len(), 2, "one for each");
    // The later change is answered first.
    for push in pushes.into_iter().rev() {
        bench.say(reader, ClientToMaster::PushDone { push });
    }
    let told = bench.heard(author);
    let [
        MasterToClient::Answer { .. },
        MasterToClient::Answer { id, .. },
        MasterToClient::Push { stale, .. },
    ] = &told[..]
    else {
        panic!("two answers, and then a push: {told:?}")
    };
    assert_eq!(*id, RequestId(2));
    assert_eq!(stale[..], [Stale::Dentry { parent, name }]);
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
        version: ChunkVersion(1 << 20),
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
    // It registered in this life.
    let boot = BootId(1);
    let state = PartState {
        version,
        boot,
        ..state
    };
    let result = CommandResult::Parts(vec![Some(state)]);
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
    let mut told = bench.say(link, mutate(3, again));
    if told.is_empty() {
        // A server registered just now and others might; then a copy is made on it.
        for _ in 0..5 {
            bench.pass(Duration::from_millis(500));
            bench.beat(link);
        }
        told = bench.heard(link);
    }
    let lease = granted(&told[..1]);
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
    let lost = is_lost(&mut bench, link, inode, ChunkVersion(1 << 20));
    assert_eq!(lost, [false, false], "the other one took all writes");
}

#[test]
fn a_reconciliation_without_a_copy_that_kept_its_life_is_told_as_a_loss() {
    let (mut bench, link, inode) = reconciled_by(BootId(9));
    let lost = is_lost(&mut bench, link, inode, ChunkVersion(1 << 20));
    assert_eq!(lost, [true, true], "it may lack unsynced writes");
}

#[test]
fn what_no_fsync_vouched_for_and_went_with_every_disk_is_given_up_as_lost() {
    let mut bench = Bench::new();
    let links: Vec<LinkId> = (1..=3).map(|server| bench.serve(server)).collect();
    bench.pass(Duration::from_secs(1));
    let (client, _) = bench.mount(1);
    let inode = write_and_close(&mut bench, client);
    let at = bench.master.state().chunk_at(inode, 0);
    let (chunk, _) = at.expect("the file is there").expect("it was written");
    let mut made = Vec::new();
    for _ in 0..4 {
        for (boot, link) in (1..).zip(&links) {
            for (command, body) in bench.commands(*link) {
                let result = match body {
                    Command::SetVersion { epoch, version, .. } => {
                        made.push(boot);
                        let (digest, boot) = (0, BootId(boot));
                        CommandResult::Parts(vec![Some(PartState {
                            version,
                            epoch,
                            digest,
                            boot,
                        })])
                    }
                    _ => {
                        let parts = vec![PartId::whole(chunk)];
                        bench.tell(*link, ChunkToMaster::Lost { parts });
                        CommandResult::Failed {
                            reason: "the disk is gone".into(),
                            bad_source: None,
                        }
                    }
                };
                bench.tell(*link, ChunkToMaster::CommandDone { command, result });
            }
        }
        bench.pass(Duration::from_millis(200));
    }
    assert_eq!(made.len(), 1, "the third has an empty one now");
    assert_eq!(lease_name(&mut bench, client, inode), "settled");
    let lost = is_lost(&mut bench, client, inode, ChunkVersion(1 << 20));
    assert_eq!(lost, [true, true]);
}

#[test]
fn what_waits_for_a_mount_whose_connection_broke_is_not_run_any_more() {
    for (breaks, length) in [(false, 0), (true, 100)] {
        let mut bench = Bench::new();
        let (_one, _two) = (bench.serve(1), bench.serve(2));
        bench.pass(Duration::from_secs(1));
        let (holder, _) = bench.mount(1);
        let (cutter, _) = bench.mount(2);
        let (inode, lease) = created(&bench.say(holder, mutate(1, create("f"))));
        let change = AttributeChange {
            size: Some(0),
            ..AttributeChange::default()
        };
        let cut = Mutation::SetAttributes { inode, change };
        let told = bench.say(cutter, mutate(1, cut));
        assert_eq!(told, [], "it waits for the lease");
        if breaks {
            bench.input(Input::Closed {
                link: cutter,
                reason: "killed".into(),
            });
        }
        let lease = lease.expect("there are servers");
        let commit = commit_and_release(inode, &lease, false);
        bench.say(holder, mutate(2, commit));
        bench.pass(Duration::from_millis(500));
        let attributes = bench.master.state().attributes(inode);
        assert_eq!(attributes.expect("it is there").size, length);
    }
}

#[test]
fn what_waits_for_a_mount_that_is_silent_is_not_run() {
    for is_heard in [true, false] {
        let mut bench = Bench::new();
        let (link, _) = bench.mount(1);
        let (inode, _) = created(&bench.say(link, mutate(1, create("f"))));
        let want = Mutation::Lease {
            inode,
            index: 0,
            failed: vec![],
        };
        assert_eq!(bench.say(link, mutate(2, want)), [], "no server is there");
        bench.pass(CACHE_LEASE);
        let server = bench.serve(1);
        for _ in 0..2 {
            if is_heard {
                bench.beat(link);
            }
            pass_with(&mut bench, &[server], 1);
        }
        let is_leased = bench.master.state().leased().next().is_some();
        assert_eq!(is_leased, is_heard);
    }
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
            synced: false,
        }],
        release: vec![LeaseEnd {
            chunk: lease.chunk,
            epoch: lease.epoch,
            synced: false,
            syncs: 0,
        }],
        unchanged: false,
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
    assert_eq!(
        bench.heard(link),
        [],
        "another may register right behind it"
    );
    bench.pass(Duration::from_secs(1));
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
        synced: false,
    }];
    let commit = Mutation::CommitWrite {
        inode,
        size: 10,
        extents,
        release: vec![],
        unchanged: false,
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
fn a_late_answer_gives_no_lease_that_was_fenced_since() {
    for fenced in [false, true] {
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
        let state = bench.master.state();
        let (chunk, _) = state
            .chunk_at(InodeId(2), 0)
            .expect("it is a file")
            .expect("it has a chunk");
        let epoch = state.chunk(chunk).expect("it is there").epoch;
        if fenced {
            bench.say(holder, ClientToMaster::NotHeld { chunk, epoch });
        }
        let push = push.expect("a name was cached");
        bench.say(other, ClientToMaster::PushDone { push });
        let (_, lease) = created(&bench.heard(holder));
        assert_eq!(lease.is_none(), fenced, "{lease:?}");
    }
}
