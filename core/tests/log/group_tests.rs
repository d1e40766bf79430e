//! Behaviours of a group, one test each, and random runs with everything at once.

use super::group::{Group, Shape};
use antler_core::ids::{Address, MemberId};
use antler_core::marks::{Mark, Marks};
use antler_core::member::{Barrier, MemberChange};

const SECOND: u64 = 1_000_000;

fn elected(shape: Shape, seed: u64) -> (Group, u64) {
    let mut group = Group::new(shape, seed);
    for _ in 0..100 {
        group.run(SECOND / 10);
        if let Some(leader) = group.leader() {
            group.run(SECOND / 10);
            return (group, leader);
        }
    }
    panic!("nobody leads");
}

fn alone() -> Shape {
    Shape {
        voters: 1,
        ..Shape::default()
    }
}

#[test]
fn a_single_master_leads_at_once() {
    let mut group = Group::new(alone(), 1);
    group.run(20_000);
    assert_eq!(group.leader(), Some(1));
    assert_eq!(group.read(1), Some(Barrier::Pass));
}

#[test]
fn a_single_masters_commit_does_not_wait_for_its_metalogger() {
    let shape = Shape {
        latency: (100_000, 100_000),
        disk: (1000, 1000),
        ..alone()
    };
    let (mut group, leader) = elected(shape, 1);
    let before = group.acknowledged_count;
    group.propose(leader, 100);
    group.run(1000);
    assert_eq!(group.acknowledged_count, before + 1, "one sync of its own");
}

#[test]
fn records_proposed_during_an_append_share_the_next() {
    let shape = Shape {
        disk: (1000, 1000),
        ..alone()
    };
    let (mut group, leader) = elected(shape, 1);
    let before = group.acknowledged_count;
    let position = group.acknowledged;
    for _ in 0..100 {
        group.propose(leader, 100);
    }
    group.run(2000);
    assert_eq!(
        group.acknowledged_count,
        before + 100,
        "two syncs for all of them"
    );
    assert!(group.acknowledged.0 <= position.0 + 3, "in two entries");
}

#[test]
fn a_leader_that_dies_is_followed_by_another() {
    for seed in 0..20 {
        let (mut group, leader) = elected(Shape::default(), seed);
        for _ in 0..20 {
            group.propose(leader, 100);
            group.run(5000);
        }
        group.crash(leader);
        group.run(5 * SECOND);
        let next = group.leader().expect("two of three suffice");
        assert_ne!(next, leader);
        group.settle();
    }
}

#[test]
fn a_leader_hands_over_without_an_election_timeout() {
    let (mut group, leader) = elected(Shape::default(), 3);
    assert!(group.transfer(leader));
    group.run(SECOND / 20);
    let next = group.leader().expect("somebody leads");
    assert_ne!(next, leader);
    group.settle();
}

#[test]
fn a_lease_answers_reads_without_a_round() {
    let (mut group, leader) = elected(Shape::default(), 4);
    assert_eq!(group.read(leader), Some(Barrier::Wait));
    group.run(5000);
    assert_eq!(group.reads_passed, 1);
    assert_eq!(group.read(leader), Some(Barrier::Pass));
    for other in 1..=3 {
        if other != leader {
            assert_eq!(group.read(other), Some(Barrier::NotLeader));
        }
    }
}

#[test]
fn a_leader_that_is_cut_off_serves_nothing_stale() {
    for seed in 0..40 {
        let (mut group, leader) = elected(Shape::default(), seed);
        group.read(leader);
        group.run(SECOND / 10);
        for other in group.ids() {
            if other != leader {
                group.cut(leader, other);
            }
        }
        for _ in 0..400 {
            group.run(10_000);
            group.read(leader);
            for other in 1..=3 {
                if other != leader && group.member(other).is_leader() {
                    group.propose(other, 20);
                    group.read(other);
                }
            }
        }
        assert!(group.leaderships >= 2, "the others elect a leader");
        group.settle();
    }
}

/// Reads at a leader that is cut off, while whoever else leads acknowledges more.
fn race(group: &mut Group, old: u64) {
    for _ in 0..400 {
        group.run(3000);
        group.read(old);
        for other in 1..=3 {
            if other != old && group.is_up(other) && group.member(other).is_leader() {
                group.propose(other, 20);
            }
        }
    }
}

#[test]
fn a_member_that_restarts_keeps_what_it_promised_the_leader() {
    for seed in 0..60 {
        let (mut group, leader) = elected(Shape::default(), seed);
        let others: Vec<u64> = (1..=3).filter(|&id| id != leader).collect();
        // One follower hears the leader no more, and campaigns at the other one.
        group.cut(leader, others[0]);
        let span = group.rng.between(800, 2200);
        for _ in 0..span / 5 {
            group.run(5000);
            group.read(leader);
        }
        // That one vouched for the leader, and forgets it.
        group.crash(others[1]);
        group.cut(leader, others[1]);
        group.start(others[1]);
        race(&mut group, leader);
        group.settle();
    }
}

#[test]
fn a_leader_that_hands_over_takes_no_lease_along() {
    for seed in 0..20 {
        let shape = Shape {
            latency: (500, 500),
            ..Shape::default()
        };
        let (mut group, leader) = elected(shape, seed);
        group.read(leader);
        group.run(10_000);
        assert_eq!(group.read(leader), Some(Barrier::Pass), "it has a lease");
        group.transfer(leader);
        group.run(700);
        for other in group.ids() {
            if other != leader {
                group.cut(leader, other);
            }
        }
        race(&mut group, leader);
        group.settle();
    }
}

fn small_images() -> Shape {
    Shape {
        image_log_bytes: 4000,
        image_piece_size: 700,
        ..Shape::default()
    }
}

#[test]
fn a_metalogger_that_fell_behind_the_log_gets_an_image_resumably() {
    for seed in 0..20 {
        let (mut group, leader) = elected(small_images(), seed);
        group.crash(4);
        for _ in 0..200 {
            group.propose(leader, 200);
            group.run(5000);
        }
        group.start(4);
        let installed = group.installed;
        // The link breaks again and again while the image is under way.
        for _ in 0..10 {
            group.run(150_000);
            for other in 1..=3 {
                group.cut(4, other);
            }
            group.heal();
        }
        group.settle();
        assert!(group.installed > installed, "it did not come by the log");
    }
}

#[test]
fn a_metalogger_with_a_new_disk_gets_everything() {
    let (mut group, leader) = elected(small_images(), 5);
    for _ in 0..100 {
        group.propose(leader, 200);
        group.run(5000);
    }
    group.crash(4);
    group.wipe(4);
    group.settle();
}

#[test]
fn the_group_changes_by_records() {
    let (mut group, leader) = elected(Shape::default(), 6);
    let address = Address::from("4");
    let member = MemberId(4);
    assert!(group.change(
        leader,
        MemberChange::Voter {
            member,
            address: address.clone()
        }
    ));
    group.run(SECOND);
    for id in group.ids() {
        assert_eq!(group.member(id).voters().len(), 4);
        assert!(group.member(id).learners().is_empty());
    }
    assert!(group.change(leader, MemberChange::Learner { member, address }));
    group.run(SECOND);
    assert_eq!(group.member(leader).learners(), [member]);
    let gone = if leader == 1 { 2 } else { 1 };
    assert!(group.change(
        leader,
        MemberChange::Remove {
            member: MemberId(gone)
        }
    ));
    group.run(SECOND);
    assert_eq!(group.member(leader).voters().len(), 2);
    group.crash(leader);
    group.start(leader);
    group.run(5 * SECOND);
    assert_eq!(group.member(leader).voters().len(), 2, "it is remembered");
}

#[test]
fn a_leader_whose_disk_hangs_hands_over() {
    for seed in 0..10 {
        let (mut group, leader) = elected(Shape::default(), seed);
        group.hang_disk(leader, true);
        group.propose(leader, 100);
        group.run(6 * SECOND);
        let next = group.leader().expect("somebody leads");
        assert_ne!(next, leader);
        let before = group.acknowledged_count;
        group.propose(next, 100);
        group.run(SECOND);
        assert!(group.acknowledged_count > before);
        group.hang_disk(leader, false);
        group.settle();
    }
}

#[test]
fn a_slow_disk_changes_nothing_but_the_time() {
    let shape = Shape {
        disk: (20_000, 80_000),
        ..Shape::default()
    };
    let (mut group, leader) = elected(shape, 7);
    for _ in 0..50 {
        group.propose(leader, 100);
        group.run(10_000);
    }
    group.settle();
}

/// Everything at once, for ten seconds; then it must settle.
fn storm(seed: u64) -> Group {
    let shape = {
        let mut rng = antler_core::rng::Rng::new(seed);
        Shape {
            voters: [1, 3, 3, 3, 5][rng.below(5) as usize],
            learners: rng.below(3),
            latency: [(50, 500), (5000, 15_000), (50, 30_000)][rng.below(3) as usize],
            disk: [(50, 400), (100, 20_000), (100, 200_000)][rng.below(3) as usize],
            image_log_bytes: [2000, 20_000, 1 << 20][rng.below(3) as usize],
            image_piece_size: [300, 5000, 1 << 20][rng.below(3) as usize],
        }
    };
    let mut group = Group::new(shape, seed);
    let end = group.now + 10 * SECOND;
    while group.now < end {
        let pause = group.rng.between(1000, 40_000);
        group.run(pause);
        work(&mut group);
        if group.rng.one_in(12) {
            trouble(&mut group);
        }
    }
    group.settle();
    group
}

fn work(group: &mut Group) {
    for id in group.ids() {
        if !group.is_up(id) {
            continue;
        }
        if group.member(id).is_leader() {
            for _ in 0..group.rng.below(4) {
                let bytes = group.rng.below(300) as usize;
                group.propose(id, bytes);
            }
        }
        group.read(id);
    }
}

fn trouble(group: &mut Group) {
    let ids = group.ids();
    let id = ids[group.rng.below(ids.len() as u64) as usize];
    let other = ids[group.rng.below(ids.len() as u64) as usize];
    match group.rng.below(8) {
        0 | 1 if group.is_up(id) => group.crash(id),
        0..=2 if !group.is_up(id) => group.start(id),
        3 if id != other => group.cut(id, other),
        4 => group.heal(),
        5 => {
            let micros = group.rng.below(3 * SECOND);
            group.pause(id, micros);
        }
        6 if group.is_up(id) => {
            group.transfer(id);
        }
        7 if group.rng.one_in(3) => {
            for id in ids {
                group.crash(id);
            }
        }
        _ => {}
    }
}

#[test]
fn nothing_acknowledged_is_lost_whatever_happens() {
    let mut marks = Marks::default();
    let (mut acknowledged, mut reads, mut installed) = (0, 0, 0);
    for seed in 0..150 {
        let run = std::panic::catch_unwind(|| storm(seed));
        let group = run.unwrap_or_else(|cause| {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(cause)
        });
        marks.merge(group.marks);
        acknowledged += group.acknowledged_count;
        reads += group.reads_passed;
        installed += group.installed;
    }
    eprintln!("{acknowledged} records, {reads} reads, {installed} images installed, {marks:?}");
    for mark in [
        Mark::TornTail,
        Mark::SegmentRolled,
        Mark::LogCut,
        Mark::ImageWritten,
        Mark::ImageLoaded,
        Mark::ImageInstalled,
        Mark::LeaderElected,
        Mark::ProposalDropped,
        Mark::BarrierWaited,
        Mark::RecordsGrouped,
    ] {
        assert!(marks.has(mark), "{} was never reached", mark.name());
    }
}
