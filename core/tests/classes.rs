//! Storage classes as a leader carries them out: where new chunks go, what repair does
//! when a class or a label changes, and that nothing is ever placed against a law.

mod bench;

use antler_core::errno::Errno;
use antler_core::ids::{InodeId, ServerId};
use antler_core::namespace::record::Mutation;
use antler_core::wire::client_master::Answer;
use bench::cluster::{Cluster, dc, servers_of};
use bench::create;

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
