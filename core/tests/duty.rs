//! What an operator orders of a server, as a leader carries it out: it is emptied, or its
//! absence is not made up for; the chunkservers are played by the test.

mod bench;

use antler_core::attributes::Credentials;
use antler_core::errno::Errno;
use antler_core::ids::{DiskId, InodeId, RequestId, ServerId};
use antler_core::machine::Input;
use antler_core::namespace::record::Mutation;
use antler_core::placement::label::{DRAIN, MAINTENANCE};
use antler_core::wire::chunk_master::Command;
use antler_core::wire::client_master::{Answer, ClientToMaster, Query, ServerStatus};
use bench::cluster::{Cluster, answer_in, dc, servers_of};
use bench::{create, mutate};

fn order(cluster: &mut Cluster, server: u64, key: &str, value: Option<String>) {
    cluster.change(Mutation::SetLabel {
        server: ServerId(server),
        key: key.to_owned(),
        value,
    });
}

fn drain(cluster: &mut Cluster, server: u64) {
    order(cluster, server, DRAIN, Some("yes".to_owned()));
}

fn maintain(cluster: &mut Cluster, server: u64, seconds: i64) {
    let until = cluster.bench.now.wall.seconds + seconds;
    order(cluster, server, MAINTENANCE, Some(until.to_string()));
}

fn status(cluster: &mut Cluster, server: u64) -> ServerStatus {
    let servers = cluster.status().servers.into_iter();
    let mut own = servers.filter(|one| one.server == ServerId(server));
    own.next().expect("it is known")
}

fn health(cluster: &mut Cluster, inode: InodeId) -> String {
    let explained = cluster.explain(inode).chunks.remove(0).explained;
    explained.expect("it was asked").health
}

#[test]
fn a_drained_server_is_emptied_and_gets_nothing_new() {
    let mut cluster = Cluster::new();
    let files: Vec<_> = (0..8).map(|n| cluster.write(&format!("f{n}"))).collect();
    drain(&mut cluster, 1);
    let there = files.iter().filter(|(.., on)| on.contains(&1)).count() as u64;
    assert!(there > 0, "some of eight files lie there");
    assert_eq!(status(&mut cluster, 1).draining, Some(there));
    assert_eq!(cluster.status().health.draining, there);
    assert_eq!(cluster.status().health.endangered, 0);
    cluster.pass(30);
    assert_eq!(status(&mut cluster, 1).draining, Some(0));
    assert_eq!(cluster.made.len() as u64, there, "one copy each, elsewhere");
    assert!(cluster.made.iter().all(|(server, _)| *server != 1));
    assert!(cluster.gone.iter().all(|(server, _)| *server == 1));
    assert_eq!(cluster.status().health.at_goal, 8);
    for n in 0..8 {
        let (inode, lease) = cluster.create(&format!("late{n}"));
        assert!(!servers_of(&lease).contains(&1));
        cluster.commit(inode, &lease);
    }
    order(&mut cluster, 1, DRAIN, None);
    assert_eq!(status(&mut cluster, 1).draining, None);
    let labels = status(&mut cluster, 1).labels;
    assert!(labels.iter().all(|(key, _)| key == "dc"), "{labels:?}");
}

#[test]
fn what_has_nowhere_else_to_go_stays_and_counts() {
    let mut cluster = Cluster::new();
    cluster.class("west", "2 in dc=west");
    cluster.set_class(InodeId::ROOT, "west");
    let (file, ..) = cluster.write("f");
    drain(&mut cluster, 1);
    cluster.pass(30);
    assert_eq!((cluster.made.len(), cluster.gone.len()), (0, 0));
    assert_eq!(health(&mut cluster, file), "draining");
    let told = cluster.explain(file).chunks.remove(0);
    let mut fills: Vec<_> = told
        .copies
        .iter()
        .filter_map(|copy| copy.fills.as_deref())
        .collect();
    fills.sort_unstable();
    assert_eq!(fills, ["2 in dc=west hard", "drained"]);
    let pending = told.explained.expect("it was asked").pending.join("; ");
    assert_eq!(
        pending,
        "waits for a server with room: `2 in dc=west hard`: 1 of 2 copies have a place"
    );
    // A server comes that may have it.
    cluster.label(3, Some("west"));
    cluster.pass(30);
    assert_eq!(status(&mut cluster, 1).draining, Some(0));
    assert_eq!(health(&mut cluster, file), "at goal");
}

#[test]
fn a_drained_server_that_dies_is_made_up_for() {
    let mut cluster = Cluster::new();
    let (file, chunk, on) = cluster.write("f");
    drain(&mut cluster, on[0]);
    cluster.lose(on[0]);
    assert_eq!(health(&mut cluster, file), "endangered");
    cluster.pass(20);
    assert_eq!(cluster.made.len(), 1);
    assert_eq!(cluster.made[0].1, chunk);
    assert_eq!(health(&mut cluster, file), "at goal");
}

#[test]
fn while_it_is_in_maintenance_nothing_moves() {
    let mut cluster = Cluster::new();
    let (file, _, on) = cluster.write("f");
    maintain(&mut cluster, on[0], 60);
    cluster.lose(on[0]);
    assert_eq!(health(&mut cluster, file), "awaited");
    cluster.pass(40);
    assert_eq!(cluster.made, []);
    assert_eq!(cluster.status().health.awaited, 1);
    let left = status(&mut cluster, on[0]).maintenance.expect("it lasts");
    assert!((10..=30).contains(&left), "{left}");
    // Its end is the clock's.
    cluster.pass(40);
    assert_eq!(cluster.made.len(), 1);
    assert_eq!(health(&mut cluster, file), "at goal");
    assert_eq!(status(&mut cluster, on[0]).maintenance, None);
}

#[test]
fn maintenance_that_is_ended_waits_no_longer() {
    let mut cluster = Cluster::new();
    let (file, _, on) = cluster.write("f");
    maintain(&mut cluster, on[0], 600);
    cluster.lose(on[0]);
    cluster.pass(20);
    assert_eq!(cluster.made, []);
    order(&mut cluster, on[0], MAINTENANCE, None);
    cluster.pass(20);
    assert_eq!(cluster.made.len(), 1);
    assert_eq!(health(&mut cluster, file), "at goal");
}

#[test]
fn what_loses_more_or_is_written_meanwhile_is_repaired() {
    let mut cluster = Cluster::new();
    cluster.class("three", "copies(3)");
    cluster.set_class(InodeId::ROOT, "three");
    let (file, _, on) = cluster.write("f");
    maintain(&mut cluster, on[0], 600);
    cluster.lose(on[0]);
    cluster.pass(10);
    assert_eq!(cluster.made, [], "two of three are enough meanwhile");
    cluster.lose(on[1]);
    assert_eq!(health(&mut cluster, file), "endangered");
    cluster.pass(20);
    let free: Vec<u64> = (1..=4).filter(|server| !on.contains(server)).collect();
    assert_eq!(cluster.made.len(), 1);
    assert_eq!(cluster.made[0].0, free[0]);
    // With that copy it lacks only the one that is waited for.
    assert_eq!(health(&mut cluster, file), "awaited");
    assert!(cluster.ask(create("g")).is_some());
}

fn lease_of(inode: InodeId) -> Mutation {
    Mutation::Lease {
        inode,
        index: 1,
        failed: vec![],
    }
}

#[test]
fn a_drained_server_that_is_back_first_says_nothing_of_room() {
    let mut cluster = Cluster::new();
    drain(&mut cluster, 1);
    let (inode, ..) = cluster.write("f");
    let mut bench = cluster.bench.restart();
    bench.lead();
    let (link, _) = bench.mount(2);
    bench.register(1, 1, dc("west"), vec![]);
    let told = bench.say(link, mutate(1, lease_of(inode)));
    assert_eq!(answer_in(told), None, "others may be about to come");
    bench.register(2, 2, dc("west"), vec![]);
    bench.register(3, 3, dc("east"), vec![]);
    match answer_in(bench.heard(link)) {
        Some(Ok(Answer::Lease(lease))) => assert!(!servers_of(&lease).contains(&1)),
        other => panic!("no lease but {other:?}"),
    }
}

#[test]
fn where_every_server_is_drained_there_is_no_room() {
    let mut cluster = Cluster::new();
    let (inode, ..) = cluster.write("f");
    (1..=4).for_each(|server| drain(&mut cluster, server));
    assert_eq!(cluster.ask(lease_of(inode)), None);
    cluster.pass(8);
    assert_eq!(cluster.told, Some(Err(Errno::ENOSPC)));
}

/// What a server is told of scrubs, and what the operator who orders one is answered.
fn order_scrub(
    cluster: &mut Cluster,
    (server, disk, uid): (u64, Option<u64>, u32),
) -> (Result<Answer, Errno>, usize) {
    let query = Query::Scrub {
        server: ServerId(server),
        disk: disk.map(DiskId),
        rate: 1 << 20,
    };
    let ask = ClientToMaster::Ask {
        question: RequestId(1),
        credentials: Credentials {
            uid,
            ..Credentials::default()
        },
        query,
    };
    let answer = answer_in(cluster.bench.say(cluster.client, ask));
    let told: Vec<_> = cluster
        .servers
        .values()
        .flat_map(|link| cluster.bench.commands(*link))
        .collect();
    let scrubs = told
        .iter()
        .filter(|(_, body)| matches!(body, Command::Scrub { rate, .. } if *rate == 1 << 20));
    (answer.expect("it is answered at once"), scrubs.count())
}

#[test]
fn a_scrub_is_ordered_of_servers_and_disks_that_are_there() {
    let mut cluster = Cluster::new();
    assert_eq!(
        order_scrub(&mut cluster, (1, None, 0)),
        (Ok(Answer::Done), 1)
    );
    for (wrong, why) in [
        ((9, None, 0), Errno::ENOENT),
        ((1, Some(7), 0), Errno::ENOENT),
        ((1, None, 1000), Errno::EPERM),
    ] {
        assert_eq!(order_scrub(&mut cluster, wrong), (Err(why), 0));
    }
    let reason = "gone".to_owned();
    let link = cluster.servers[&2];
    cluster.bench.input(Input::Closed { link, reason });
    assert_eq!(
        order_scrub(&mut cluster, (2, None, 0)),
        (Err(Errno::ENXIO), 0)
    );
}
