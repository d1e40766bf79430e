//! What a leader tells of why a chunk is as it is; its chunkservers are played by the test.

mod bench;

use antler_core::ids::InodeId;
use antler_core::wire::client_master::{ChunkInfo, Query, Survival};
use bench::cluster::Cluster;
use std::collections::BTreeMap;

/// The only chunk of a file.
fn chunk(cluster: &mut Cluster, inode: InodeId) -> ChunkInfo {
    let mut info = cluster.explain(inode);
    assert_eq!((info.chunks.len(), info.next), (1, None));
    info.chunks.remove(0)
}

/// What each server's copy is there for.
fn fills(chunk: &ChunkInfo) -> BTreeMap<u64, &str> {
    let fills = chunk.copies.iter();
    let fills = fills.filter_map(|copy| Some((copy.server.0, copy.fills.as_deref()?)));
    fills.collect()
}

fn health(chunk: &ChunkInfo) -> &str {
    &chunk.explained.as_ref().expect("it was asked").health
}

fn survives(chunk: &ChunkInfo) -> Option<Survival> {
    chunk.explained.as_ref().expect("it was asked").survives
}

fn pending(chunk: &ChunkInfo) -> String {
    let explained = chunk.explained.as_ref().expect("it was asked");
    explained.pending.join("; ")
}

#[test]
fn each_copy_tells_the_term_that_it_fills() {
    let mut cluster = Cluster::new();
    cluster.class("wide", "copies(3), 1 in dc=west, 1 in dc=east soft");
    cluster.set_class(InodeId::ROOT, "wide");
    let (file, _, on) = cluster.write("f");
    assert_eq!(on.len(), 3);
    let told = chunk(&mut cluster, file);
    let mut terms: Vec<&str> = fills(&told).into_values().collect();
    terms.sort_unstable();
    assert_eq!(terms, ["1 in dc=east soft", "1 in dc=west hard", "spread"]);
    assert_eq!((health(&told), pending(&told)), ("at goal", String::new()));
    let survival = Survival {
        servers: 2,
        racks: None,
        datacentres: Some(1),
    };
    assert_eq!(survives(&told), Some(survival));
}

#[test]
fn what_is_waited_for_is_told_with_the_term() {
    let mut cluster = Cluster::new();
    cluster.class("west", "2 in dc=west");
    cluster.set_class(InodeId::ROOT, "west");
    let (file, ..) = cluster.write("f");
    cluster.lose(2);
    cluster.pass(20);
    let told = chunk(&mut cluster, file);
    assert_eq!(health(&told), "endangered");
    assert_eq!(
        pending(&told),
        "waits for a server with room: `2 in dc=west hard`: 1 of 2 copies have a place"
    );
    assert_eq!(survives(&told).map(|one| one.servers), Some(0));
    assert_eq!(fills(&told), BTreeMap::from([(1, "2 in dc=west hard")]));
    let states = told.copies.iter().map(|copy| copy.state.as_str());
    assert_eq!(states.collect::<Vec<_>>(), ["current", "away"]);
    cluster.lose(1);
    let told = chunk(&mut cluster, file);
    assert_eq!((health(&told), survives(&told)), ("missing", None));
    assert!(pending(&told).starts_with("waits until these are back: "));
}

#[test]
fn copies_outside_are_told_until_they_went() {
    let mut cluster = Cluster::new();
    cluster.class("here", "2 in dc=west");
    cluster.set_class(InodeId::ROOT, "here");
    let (file, ..) = cluster.write("f");
    cluster.class("here", "2 in dc=east");
    let told = chunk(&mut cluster, file);
    assert_eq!(health(&told), "outside");
    let outside = BTreeMap::from([(1, "outside"), (2, "outside")]);
    assert_eq!(fills(&told), outside);
    cluster.pass(8);
    let told = chunk(&mut cluster, file);
    let term = "2 in dc=east hard";
    assert_eq!(fills(&told), BTreeMap::from([(3, term), (4, term)]));
}

#[test]
fn a_copy_under_way_and_a_lease_are_told() {
    let mut cluster = Cluster::new();
    let (file, _) = cluster.create("f");
    let told = chunk(&mut cluster, file);
    assert!(pending(&told).starts_with("leased now, to be written, by "));
    let mut cluster = Cluster::new();
    let (file, _, on) = cluster.write("g");
    cluster.lose(on[0]);
    // Longer than repair holds off, and nobody obeys meanwhile.
    bench::pass_with(
        &mut cluster.bench,
        &cluster.servers.values().copied().collect::<Vec<_>>(),
        20,
    );
    let told = chunk(&mut cluster, file);
    assert!(
        pending(&told).starts_with("a copy is being made on "),
        "{}",
        pending(&told)
    );
    let made: Vec<u64> = told
        .copies
        .iter()
        .filter(|copy| copy.state == "being made")
        .map(|copy| copy.server.0)
        .collect();
    assert!(made.len() == 1 && !on.contains(&made[0]), "{made:?}");
}

/// The question as it was before anything could be explained.
#[derive(Clone, Copy, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
enum OldQuery {
    #[n(12)]
    Info {
        #[n(0)]
        inode: InodeId,
    },
}

#[test]
fn a_leader_that_can_t_explain_reads_the_question_all_the_same() {
    let inode = InodeId(7);
    let ask = |explain| minicbor::to_vec(Query::Info { inode, explain }).expect("a question");
    let old = OldQuery::Info { inode };
    assert_eq!(ask(None), minicbor::to_vec(old).expect("a question"));
    let read: OldQuery = minicbor::decode(&ask(Some(3))).expect("what it does not know is skipped");
    assert_eq!(read, old);
}

#[test]
fn what_was_not_asked_is_not_told() {
    let mut cluster = Cluster::new();
    let (file, ..) = cluster.write("f");
    let told = cluster.info(file, None);
    assert_eq!((told.policy, told.next), (None, None));
    assert_eq!(told.chunks[0].explained, None);
}
