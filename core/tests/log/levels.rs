//! Members of different versions: one that meets a feature level that it does not know
//! ends with a clear reason, and goes on as the newer version with nothing lost.

use super::group::{Group, Shape};
use antler_core::marks::Mark;
use antler_core::namespace::record::RecordBody;
use antler_core::version::FeatureLevel;

/// A group in which two members are of the previous version, founded at a level.
fn founded(level: FeatureLevel, shape: Shape, seed: u64) -> (Group, u64, [u64; 2]) {
    let mut group = Group::new(shape, seed);
    group.run(5_000_000);
    let leader = group.leader().expect("somebody leads");
    let voter = if leader == 1 { 2 } else { 1 };
    let old = [voter, 4];
    for id in old {
        group.crash(id);
        group.speaks.insert(id, FeatureLevel::PREVIOUS);
        group.start(id);
    }
    group.run(5_000_000);
    let leader = group.leader().expect("somebody leads");
    group.propose_body(
        leader,
        RecordBody::Found {
            capability_secret: vec![3; 32],
            copies: 2,
            level,
        },
    );
    group.run(3_000_000);
    (group, leader, old)
}

#[test]
fn members_of_two_versions_work_together_at_a_level_that_both_know() {
    for seed in 0..5 {
        let (mut group, leader, old) = founded(FeatureLevel::PREVIOUS, Shape::default(), seed);
        let versions = group.member(leader).versions();
        for (member, version) in versions {
            let is_old = old.contains(&member.0);
            let expected = if is_old {
                FeatureLevel::PREVIOUS
            } else {
                FeatureLevel::NEWEST
            };
            assert_eq!(version, Some(expected), "{member}");
        }
        assert!(group.member(leader).marks().has(Mark::SpokePrevious));
        for _ in 0..20 {
            group.propose(leader, 100);
            group.run(5000);
        }
        group.settle();
    }
}

#[test]
fn a_level_that_is_not_known_ends_a_member_and_costs_nothing() {
    for (seed, image_log_bytes) in [(0, 1 << 20), (1, 1 << 20), (2, 2000), (3, 2000)] {
        let shape = Shape {
            image_log_bytes,
            ..Shape::default()
        };
        let (mut group, leader, old) = founded(FeatureLevel::NEWEST, shape, seed);
        for _ in 0..40 {
            group.propose(leader, 200);
            group.run(20_000);
        }
        for id in old {
            let why = group.stopped(id).expect("it ended");
            let (level, known) = (FeatureLevel::NEWEST, FeatureLevel::PREVIOUS);
            assert!(why.contains(&format!("feature level {level}")), "{why}");
            assert!(why.contains(&format!("up to {known}")), "{why}");
            assert!(group.member(id).marks().has(Mark::LevelUnknown));
        }
        // Again, on what it has by now: as soon as it can know.
        for id in old {
            group.crash(id);
            group.start(id);
        }
        group.run(3_000_000);
        for id in old {
            assert!(group.stopped(id).is_some(), "{id} goes on");
            group.crash(id);
            group.speaks.remove(&id);
            group.start(id);
        }
        group.settle();
    }
}
