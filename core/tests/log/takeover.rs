//! Every master is lost: a metalogger's folder becomes a new group.

use super::disk::Disk;
use super::group::{Group, Shape};
use antler_core::ids::{Address, Incarnation, MemberId};
use antler_core::journal::{OpenError, open};
use antler_core::machine::LinkAllocator;
use antler_core::member::{
    Member, MemberConfig, MemberEvent, MemberInfo, MemberInput, Takeover, TakeoverError,
};
use antler_core::namespace::record::RecordBody;
use antler_core::rng::Rng;
use antler_core::time::{Now, Timestamp};
use antler_core::version::FeatureLevel;

const METALOGGER: u64 = 4;

/// A founded group with some records, all at the metalogger too; and the digest of
/// its state.
fn lost(seed: u64) -> (Group, u64) {
    let shape = Shape {
        image_log_bytes: 3000,
        ..Shape::default()
    };
    let mut group = Group::new(shape, seed);
    group.run(5_000_000);
    let leader = group.leader().expect("somebody leads");
    let found = RecordBody::Found {
        capability_secret: vec![3; 32],
        copies: 2,
        level: FeatureLevel::NEWEST,
    };
    group.propose_body(leader, found);
    for member in 1..=4 {
        let address = member.to_string();
        group.propose_body(leader, RecordBody::Member { member, address });
    }
    for _ in 0..30 {
        group.propose(leader, 200);
        group.run(5000);
    }
    group.settle();
    let digest = group.member(METALOGGER).state().digest();
    for id in group.ids() {
        group.crash(id);
    }
    (group, digest)
}

fn takeover(group: &Group, disk: &Disk) -> Result<Takeover<Disk>, TakeoverError> {
    Takeover::open(disk.clone(), disk.clone(), &group.founding(METALOGGER))
}

/// A member of a group of one on the folder; it leads at once.
fn lead(group: &Group, disk: &Disk) -> Member {
    let (mut log, _, recovered) =
        open(disk.clone(), disk.clone(), &group.founding(METALOGGER)).expect("it is whole");
    assert_eq!(recovered.meta.voters, [METALOGGER]);
    let own = MemberInfo {
        member: MemberId(METALOGGER),
        address: Address::from("4"),
        voter: true,
    };
    let config = MemberConfig::new(MemberId(METALOGGER), vec![own]);
    let mut member = Member::new(config, recovered, 1, Now::default());
    let mut links = LinkAllocator::default();
    let mut leads = false;
    while let Some(event) = member.poll_event() {
        match event {
            MemberEvent::Effect(antler_core::machine::Effect::Operate(operation)) => {
                let completion = MemberInput::Completed(log.execute(operation));
                member.on_input(Now::default(), completion, &mut links);
            }
            MemberEvent::Effect(antler_core::machine::Effect::Connect { address, .. }) => {
                panic!("it asks for {address}, which is gone");
            }
            MemberEvent::Leads { .. } => leads = true,
            _ => {}
        }
    }
    assert!(leads);
    member
}

#[test]
fn a_metaloggers_folder_becomes_a_group_of_one_with_everything() {
    for seed in 0..10 {
        let (group, digest) = lost(seed);
        let disk = group.disk(METALOGGER);
        let found = takeover(&group, &disk).expect("it holds a cluster");
        assert_eq!(found.state().digest(), digest);
        let holding = found.holding();
        assert!(holding.position >= group.acknowledged);
        assert!(holding.committed <= holding.position);
        let before = holding.incarnation;
        let after = found
            .finish(Timestamp::default())
            .expect("the disk is well");
        assert_eq!(after, before.next());
        let member = lead(&group, &disk);
        assert_eq!(member.state().incarnation(), after);
        assert!(member.term().0 > 1 << 20);
    }
}

#[test]
fn a_takeover_that_was_interrupted_is_done_again() {
    let mut interrupted = 0;
    for seed in 0..60 {
        let (group, digest) = lost(seed);
        let disk = group.disk(METALOGGER);
        let mut rng = Rng::new(seed);
        let found = takeover(&group, &disk).expect("it holds a cluster");
        disk.fail_after(rng.below(12));
        let finished = found.finish(Timestamp::default());
        disk.crash(&mut rng);
        interrupted += u64::from(finished.is_err());
        let again = takeover(&group, &disk).expect("it still does");
        let lives = again.holding().incarnation;
        if lives == Incarnation(1) {
            assert_eq!(again.state().digest(), digest, "nothing was lost");
        }
        again
            .finish(Timestamp::default())
            .expect("the disk is well");
        assert!(lead(&group, &disk).state().incarnation() > lives);
    }
    assert!(interrupted > 10, "{interrupted} were interrupted");
}

#[test]
fn a_folder_without_a_cluster_is_refused() {
    let group = Group::new(Shape::default(), 1);
    let disk = Disk::default();
    let refused = takeover(&group, &disk);
    assert_eq!(refused.err(), Some(TakeoverError::Empty));
}

#[test]
fn another_members_folder_is_refused() {
    let (group, _) = lost(1);
    let disk = group.disk(1);
    let refused = takeover(&group, &disk).err();
    let foreign = matches!(
        refused,
        Some(TakeoverError::Open(OpenError::Foreign { .. }))
    );
    assert!(foreign, "{refused:?}");
}
