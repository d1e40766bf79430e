//! Copies that a lease leaves out, and those that are on their way out, as the leader deals
//! with mounts that know of them; the chunkservers are played by the test.

mod bench;

use antler_core::ids::{BootId, ChunkId, InodeId, LinkId, PartId};
use antler_core::machine::Input;
use antler_core::namespace::record::Mutation;
use antler_core::time::Duration;
use antler_core::wire::Message;
use antler_core::wire::chunk_master::{
    ChunkToMaster, Command, CommandResult, PartReport, PartState,
};
use antler_core::wire::client_master::{ClientToMaster, DiskStatus, MasterToClient, Stale};
use bench::copies::{locate, replications, reported, settled_on_two, tell_disk};
use bench::{Bench, granted, mutate, pass_with};

/// A chunk that settled on two servers of three, and a mount that was told of them.
struct Known {
    bench: Bench,
    servers: Vec<(u64, LinkId)>,
    chunk: ChunkId,
    reader: LinkId,
}

impl Known {
    fn new() -> Self {
        let mut bench = Bench::new();
        let (servers, chunk) = settled_on_two(&mut bench);
        let (reader, _) = bench.mount(7);
        assert_eq!(locate(&mut bench, reader, chunk), 2);
        Self {
            bench,
            servers,
            chunk,
            reader,
        }
    }

    fn gain(&mut self, server: usize, suspect: bool) {
        let good = reported(self.chunk, 1);
        let parts = vec![PartReport { suspect, ..good }];
        let link = self.servers[server].1;
        self.bench.tell(link, ChunkToMaster::Gained { parts });
    }

    fn lose_second(&mut self) {
        let parts = vec![PartId::whole(self.chunk)];
        let link = self.servers[1].1;
        self.bench.tell(link, ChunkToMaster::Lost { parts });
    }

    fn pass(&mut self, servers: &[usize], seconds: u64) {
        let links: Vec<LinkId> = servers.iter().map(|at| self.servers[*at].1).collect();
        for _ in 0..seconds {
            pass_with(&mut self.bench, &links, 1);
            self.bench.beat(self.reader);
        }
    }

    /// The third server makes the copy that it is told to make.
    fn repair(&mut self) {
        let link = self.servers[2].1;
        let (command, version, epoch) = replications(&mut self.bench, link)[0];
        self.gain(2, false);
        let state = PartState {
            version,
            epoch,
            digest: 0,
            boot: BootId(self.servers[2].0),
        };
        let result = CommandResult::Parts(vec![Some(state)]);
        let done = ChunkToMaster::CommandDone { command, result };
        self.bench.tell(link, done);
    }

    /// What mounts are told to drop, they drop.
    fn drop_pushed(&mut self) -> Vec<(LinkId, Vec<Stale>)> {
        let sent = self.bench.sent.iter();
        let pushed = sent.filter_map(|(link, message)| match message {
            Message::MasterToClient(MasterToClient::Push { push, stale }) => {
                Some((*link, *push, stale.clone()))
            }
            _ => None,
        });
        let pushed: Vec<_> = pushed.collect();
        for (link, push, _) in &pushed {
            self.bench.heard(*link);
            self.bench
                .say(*link, ClientToMaster::PushDone { push: *push });
        }
        let told = pushed.into_iter().map(|(link, _, stale)| (link, stale));
        told.collect()
    }

    fn inode(&self) -> InodeId {
        let state = self.bench.master.state();
        state.chunk(self.chunk).expect("it is there").inode
    }

    fn ask_lease(&mut self, writer: LinkId) -> Vec<MasterToClient> {
        let lease = Mutation::Lease {
            inode: self.inode(),
            index: 0,
            failed: vec![],
        };
        self.bench.say(writer, mutate(1, lease))
    }

    /// The disk of the second server fails, and the third makes a copy.
    fn fail_second(&mut self, is_whole: bool) {
        let failed = DiskStatus {
            failed: "it failed".into(),
            ..DiskStatus::default()
        };
        let second = self.servers[1].1;
        tell_disk(&mut self.bench, second, &failed);
        self.lose_second();
        if is_whole {
            self.gain(1, true);
        }
        self.pass(&[0, 2], 1);
        self.repair();
    }

    /// Another mount asks for a lease of two copies: whether it waits until the first one has
    /// dropped what it knew.
    fn lease_is_told_of(mut self) -> bool {
        self.bench.heard(self.reader);
        let inode = self.inode();
        let (writer, _) = self.bench.mount(8);
        let told = self.ask_lease(writer);
        let pushed = self.drop_pushed();
        if pushed.is_empty() {
            assert_eq!(granted(&told).copies.len(), 2);
            return false;
        }
        assert_eq!(told, [], "it waits");
        assert!(pushed.contains(&(self.reader, vec![Stale::Inode(inode)])));
        assert_eq!(granted(&self.bench.heard(writer)).copies.len(), 2);
        true
    }
}

#[test]
fn a_lease_that_leaves_no_copy_out_waits_for_nobody() {
    assert!(!Known::new().lease_is_told_of());
}

#[test]
fn a_lease_waits_for_mounts_that_know_of_a_copy_on_a_failed_disk() {
    for is_whole in [true, false] {
        let mut known = Known::new();
        known.fail_second(is_whole);
        assert!(known.lease_is_told_of(), "whole: {is_whole}");
    }
}

#[test]
fn a_lease_is_not_recalled_before_its_holder_is_told_of_it() {
    let mut known = Known::new();
    known.fail_second(true);
    let (first, _) = known.bench.mount(8);
    let (second, _) = known.bench.mount(9);
    assert_eq!(known.ask_lease(first), [], "it waits for the reader");
    assert_eq!(known.ask_lease(second), [], "the first one has it");
    assert_eq!(
        known.bench.heard(first),
        [],
        "who would say that it has not"
    );
    known.drop_pushed();
    let told = known.bench.heard(first);
    let [answer, MasterToClient::Recall { leases }] = &told[..] else {
        panic!("no lease, and then its recall, but {told:?}")
    };
    let lease = granted(std::slice::from_ref(answer));
    let wanted = (known.inode(), lease.chunk, lease.epoch);
    assert_eq!(leases[..], [wanted]);
}

#[test]
fn a_lease_waits_for_mounts_that_know_of_a_copy_on_its_way_out() {
    for is_gone in [false, true] {
        let mut known = Known::new();
        known.gain(2, false);
        known.pass(&[0, 1, 2], 2);
        let links: Vec<LinkId> = known.servers.iter().map(|(_, link)| *link).collect();
        let told = links.iter().flat_map(|link| {
            let commands = known.bench.commands(*link);
            commands
                .into_iter()
                .map(|(command, body)| (*link, command, body))
        });
        let told: Vec<_> = told.collect();
        let [(link, command, Command::Delete { .. })] = told[..] else {
            panic!("one of three is too many: {told:?}")
        };
        if is_gone {
            let result = CommandResult::Parts(vec![None]);
            known
                .bench
                .tell(link, ChunkToMaster::CommandDone { command, result });
        }
        assert_eq!(known.lease_is_told_of(), !is_gone);
    }
}

#[test]
fn what_could_not_be_deleted_is_not_asked_for_again_at_once() {
    let mut known = Known::new();
    known.gain(2, false);
    let deletions = |known: &mut Known| {
        let links = known.servers.clone().into_iter().enumerate();
        let told = links.flat_map(|(at, (_, link))| {
            let told = known.bench.commands(link).into_iter();
            told.map(move |(command, body)| (at, command, body))
        });
        let deletions = told.filter(|(.., body)| matches!(body, Command::Delete { .. }));
        deletions
            .map(|(at, command, _)| (at, command))
            .collect::<Vec<_>>()
    };
    let first = deletions(&mut known);
    let [(at, command)] = first[..] else {
        panic!("one of three is too many: {first:?}")
    };
    known.gain(at, false);
    let result = CommandResult::Parts(vec![]);
    let done = ChunkToMaster::CommandDone { command, result };
    known.bench.tell(known.servers[at].1, done);
    known.bench.pass(Duration::from_millis(300));
    assert_eq!(deletions(&mut known), [], "it would fail again");
    known.pass(&[0, 1, 2], 2);
    assert_eq!(deletions(&mut known).len(), 1);
}

#[test]
fn a_lease_waits_for_mounts_that_know_of_a_copy_on_a_server_that_is_away() {
    for (seconds, serves) in [(1, true), (7, false)] {
        let mut known = Known::new();
        let link = known.servers[1].1;
        let reason = "it is cut off".to_owned();
        known.bench.input(Input::Closed { link, reason });
        known.pass(&[0, 2], seconds);
        known.repair();
        assert_eq!(known.lease_is_told_of(), serves, "after {seconds} s");
    }
}
