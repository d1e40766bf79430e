//! The feature level: what is refused below it, that it only rises, and images of the
//! time before there were levels.

use crate::world::{ROOT, World, image, load, root};
use antler_core::attributes::Credentials;
use antler_core::errno::Errno;
use antler_core::ids::ServerId;
use antler_core::namespace::record::{ClassChange, Mutation, RecordBody, Reply};
use antler_core::namespace::{Change, SectionId, State};
use antler_core::placement::StorageClass;
use antler_core::version::FeatureLevel;
use minicbor::Decoder;
use proptest::prelude::*;

fn first() -> World {
    World::at(FeatureLevel::FIRST)
}

/// Mutations that came with storage classes.
fn late() -> [Mutation; 3] {
    let class = StorageClass {
        create: None,
        keep: "2 in dc=west".parse().expect("it is well written"),
        archive: None,
    };
    let name = "home".to_owned();
    [
        Mutation::ChangeClass(ClassChange::Create { name, class }),
        Mutation::SetLabel {
            server: ServerId(1),
            key: "dc".to_owned(),
            value: Some("west".to_owned()),
        },
        Mutation::SetClass {
            inode: ROOT,
            class: "home".to_owned(),
        },
    ]
}

fn labels() -> RecordBody {
    RecordBody::ServerLabels {
        server: ServerId(2),
        labels: vec![("dc".to_owned(), "west".to_owned())],
    }
}

fn raise(level: FeatureLevel) -> Mutation {
    Mutation::RaiseLevel { level }
}

#[test]
fn records_of_a_later_level_are_refused_below_it_and_done_at_it() {
    let mut world = first();
    for mutation in late() {
        assert_eq!(mutation.since(), FeatureLevel::CLASSES);
        let applied = world.apply(&root(), mutation);
        assert_eq!(applied.outcome, Some(Err(Errno::EOPNOTSUPP)));
        assert_eq!(applied.changes, []);
    }
    let digest = world.state.digest();
    assert_eq!(world.record(labels()).changes, []);
    assert_eq!(world.state.digest(), digest);
    assert_eq!(
        world.run(&root(), raise(FeatureLevel::CLASSES)),
        Ok(Reply::Done)
    );
    for mutation in late() {
        assert!(world.run(&root(), mutation).is_ok());
    }
    let known = [Change::Labels(ServerId(2))];
    assert_eq!(world.record(labels()).changes, known);
}

#[test]
fn the_level_rises_by_the_superuser_and_never_falls() {
    let mut world = first();
    let somebody = Credentials {
        uid: 1000,
        ..root()
    };
    let two = FeatureLevel::CLASSES;
    assert_eq!(world.run(&somebody, raise(two)), Err(Errno::EPERM));
    assert_eq!(world.state.feature_level(), FeatureLevel::FIRST);
    let raised = world.apply(&root(), raise(two));
    assert_eq!(raised.changes, [Change::Level(two)]);
    for level in [FeatureLevel(0), FeatureLevel::FIRST, two] {
        let applied = world.apply(&root(), raise(level));
        assert_eq!(applied.outcome, Some(Ok(Reply::Done)));
        assert_eq!(applied.changes, []);
        assert_eq!(world.state.feature_level(), two);
    }
}

#[test]
fn an_image_has_the_level_and_at_the_first_one_no_later_table() {
    let (old, new) = (first(), World::new());
    assert_ne!(old.state.digest(), new.state.digest());
    for world in [&old, &new] {
        let loaded = load(&image(&world.state)).expect("undamaged");
        assert_eq!(loaded.feature_level(), world.state.feature_level());
        assert_eq!(loaded.digest(), world.state.digest());
    }
    assert_eq!(
        tables_named(&old.state),
        (1..=14)
            .filter(|n| ![12, 13].contains(n))
            .collect::<Vec<u8>>()
    );
    let two = World::at(FeatureLevel::CLASSES);
    assert_eq!(tables_named(&two.state), (1..=14).collect::<Vec<u8>>());
    let four = World::at(FeatureLevel::COUNTS);
    assert_eq!(tables_named(&four.state), (1..=16).collect::<Vec<u8>>());
    assert_eq!(tables_named(&new.state), (1..=17).collect::<Vec<u8>>());
}

/// The tables that the header of an image names.
fn tables_named(state: &State) -> Vec<u8> {
    let (_, header) = image(state).remove(0);
    let mut decoder = Decoder::new(&header);
    decoder.array().expect("the header");
    for _ in 0..3 {
        decoder.skip().expect("format, scalars, digest");
    }
    let count = decoder.array().expect("the tables").expect("a length");
    let mut tables = Vec::new();
    for _ in 0..count {
        decoder.array().expect("a table");
        tables.push(decoder.u8().expect("its number"));
        decoder.skip().expect("its sections");
        decoder.skip().expect("its entries");
    }
    tables
}

/// An image as it was before there were levels: its scalars end with the floor of epochs.
fn without_level(mut sections: Vec<(SectionId, Vec<u8>)>) -> Vec<(SectionId, Vec<u8>)> {
    let header = &mut sections[0].1;
    let mut decoder = Decoder::new(header);
    decoder.array().expect("the header");
    decoder.skip().expect("the format");
    let scalars = decoder.position();
    decoder.skip().expect("the scalars");
    let end = decoder.position();
    assert_eq!(
        (header[scalars], header[end - 1]),
        (0x89, 1),
        "nine, the level last"
    );
    header.remove(end - 1);
    header[scalars] = 0x88;
    sections
}

#[test]
fn an_image_of_before_there_were_levels_is_of_the_first() {
    let mut world = first();
    world.folder(ROOT, "d");
    let old = load(&without_level(image(&world.state))).expect("as good as any");
    assert_eq!(old.feature_level(), FeatureLevel::FIRST);
    assert_eq!(old.digest(), world.state.digest());
}

proptest! {
    /// Whatever is asked in whatever order, nothing of a later level is in the state
    /// below it: the invariants are asserted after every record.
    #[test]
    fn no_order_of_requests_brings_a_later_thing_in_below_its_level(steps in proptest::collection::vec((0usize..6, any::<bool>()), 1..40)) {
        let mut world = first();
        let mut level = FeatureLevel::FIRST;
        for (step, is_root) in steps {
            let who = if is_root { root() } else { Credentials { uid: 7, ..root() } };
            match step {
                0..=2 => {
                    let outcome = world.run(&who, late()[step].clone());
                    prop_assert_eq!(outcome == Err(Errno::EOPNOTSUPP), level < FeatureLevel::CLASSES);
                }
                3 => {
                    world.record(labels());
                }
                4 => {
                    let outcome = world.run(&who, raise(FeatureLevel::CLASSES));
                    prop_assert_eq!(outcome.is_ok(), is_root);
                    if is_root {
                        level = FeatureLevel::CLASSES;
                    }
                }
                _ => {
                    let loaded = load(&image(&world.state)).expect("undamaged");
                    world.state = loaded;
                }
            }
            prop_assert_eq!(world.state.feature_level(), level);
        }
    }
}
