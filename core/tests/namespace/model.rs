//! The namespace against a naive model: a map of maps that knows nothing of
//! pages, cookies or counters kept on the side.

use crate::world::{ROOT, World, image, load, root};
use antler_core::attributes::{FileKind, RenameMode};
use antler_core::errno::Errno;
use antler_core::ids::InodeId;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Operation {
    Make(Place, bool),
    Link(Place, Place),
    Unlink(Place),
    Rmdir(Place),
    Rename(Place, Place, RenameMode),
    Truncate(Place, u64),
    Chmod(Place, u32),
}

/// A directory (the n-th of those there are) and a name in it.
type Place = (usize, u8);

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let place = || (0_usize..40, 0_u8..12);
    let mode = prop_oneof![
        4 => Just(RenameMode::Replace),
        1 => Just(RenameMode::NoReplace),
        2 => Just(RenameMode::Exchange),
    ];
    let operation = prop_oneof![
        5 => (place(), any::<bool>()).prop_map(|(place, folder)| Operation::Make(place, folder)),
        1 => (place(), place()).prop_map(|(from, to)| Operation::Link(from, to)),
        1 => place().prop_map(Operation::Unlink),
        1 => place().prop_map(Operation::Rmdir),
        4 => (place(), place(), mode).prop_map(|(from, to, mode)| Operation::Rename(from, to, mode)),
        1 => (place(), 0_u64..1 << 30).prop_map(|(place, size)| Operation::Truncate(place, size)),
        1 => (place(), 0_u32..0o2000).prop_map(|(place, mode)| Operation::Chmod(place, mode)),
    ];
    prop::collection::vec(operation, 1..150)
}

#[derive(Clone, Debug, Default)]
struct Object {
    /// `Some` for a directory.
    names: Option<BTreeMap<String, InodeId>>,
    size: u64,
    mode: u32,
}

/// Every object that has a name, by its number.
struct Model(BTreeMap<InodeId, Object>);

impl Model {
    fn new() -> Self {
        let names = Some(BTreeMap::new());
        Self(BTreeMap::from([(
            ROOT,
            Object {
                names,
                size: 0,
                mode: 0o755,
            },
        )]))
    }

    fn folders(&self) -> Vec<InodeId> {
        let folders = self.0.iter().filter(|(_, object)| object.names.is_some());
        folders.map(|(inode, _)| *inode).collect()
    }

    fn names(&mut self, folder: InodeId) -> &mut BTreeMap<String, InodeId> {
        let object = self.0.get_mut(&folder).expect("a folder of the model");
        object.names.as_mut().expect("a folder of the model")
    }

    fn find(&self, (folder, name): &(InodeId, String)) -> Result<InodeId, Errno> {
        let names = self.0[folder]
            .names
            .as_ref()
            .expect("a folder of the model");
        names.get(name).copied().ok_or(Errno::ENOENT)
    }

    fn is_folder(&self, inode: InodeId) -> bool {
        self.0[&inode].names.is_some()
    }

    fn is_empty(&self, inode: InodeId) -> bool {
        self.0[&inode]
            .names
            .as_ref()
            .is_some_and(BTreeMap::is_empty)
    }

    fn links(&self, inode: InodeId) -> u32 {
        let all = self.0.values().filter_map(|object| object.names.as_ref());
        let named = all
            .flat_map(BTreeMap::values)
            .filter(|&&named| named == inode)
            .count();
        let below = self.0[&inode].names.iter().flat_map(BTreeMap::values);
        let below = below.filter(|&&inode| self.is_folder(inode)).count();
        let links = if self.is_folder(inode) {
            2 + below
        } else {
            named
        };
        u32::try_from(links).expect("few")
    }

    /// Whether `inode` is `above` or reached from it.
    fn is_below(&self, inode: InodeId, above: InodeId) -> bool {
        let names = self.0[&above].names.iter().flat_map(BTreeMap::values);
        inode == above || names.into_iter().any(|&child| self.is_below(inode, child))
    }

    /// Forgets objects without names.
    fn sweep(&mut self) {
        let named = |model: &Self, inode| model.links(inode) > 0 && model.is_below(inode, ROOT);
        let gone: Vec<InodeId> = self
            .0
            .keys()
            .copied()
            .filter(|&inode| !named(self, inode))
            .collect();
        for inode in gone {
            self.0.remove(&inode);
        }
    }

    fn rename(
        &mut self,
        from: &(InodeId, String),
        to: &(InodeId, String),
        mode: RenameMode,
    ) -> Result<(), Errno> {
        let source = self.find(from)?;
        let target = self.find(to).ok();
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err(Errno::EEXIST),
            (RenameMode::Exchange, None) => return Err(Errno::ENOENT),
            _ => {}
        }
        if from.0 != to.0 && self.is_folder(source) && self.is_below(to.0, source) {
            return Err(Errno::EINVAL);
        }
        let Some(target) = target else {
            self.names(from.0).remove(&from.1);
            self.names(to.0).insert(to.1.clone(), source);
            return Ok(());
        };
        if mode == RenameMode::Exchange {
            if from.0 != to.0 && self.is_folder(target) && self.is_below(from.0, target) {
                return Err(Errno::EINVAL);
            }
            self.names(from.0).insert(from.1.clone(), target);
            self.names(to.0).insert(to.1.clone(), source);
            return Ok(());
        }
        match (self.is_folder(source), self.is_folder(target)) {
            _ if source == target => return Ok(()),
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            (true, true) if !self.is_empty(target) => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        self.names(from.0).remove(&from.1);
        self.names(to.0).insert(to.1.clone(), source);
        Ok(())
    }
}

/// The same operation on both; the same answer.
fn step(world: &mut World, model: &mut Model, operation: &Operation) {
    let folders = model.folders();
    let place = |(folder, name): Place| (folders[folder % folders.len()], format!("n{name}"));
    let who = root();
    match operation {
        Operation::Make(at, folder) => {
            let at = place(*at);
            let kind = if *folder {
                FileKind::Directory
            } else {
                FileKind::Regular
            };
            let made = world.make(&who, at.0, &at.1, kind, 0o750);
            assert_eq!(made.err(), model.find(&at).ok().map(|_| Errno::EEXIST));
            if let Ok(inode) = made {
                let names = folder.then(BTreeMap::new);
                model.0.insert(
                    inode,
                    Object {
                        names,
                        size: 0,
                        mode: 0o750,
                    },
                );
                model.names(at.0).insert(at.1, inode);
            }
        }
        Operation::Link(from, to) => {
            let (from, to) = (place(*from), place(*to));
            let Ok(inode) = model.find(&from) else { return };
            let expected = match model.find(&to) {
                Ok(_) => Some(Errno::EEXIST),
                Err(_) if model.is_folder(inode) => Some(Errno::EPERM),
                Err(_) => None,
            };
            assert_eq!(world.link(&who, inode, to.0, &to.1).err(), expected);
            if expected.is_none() {
                model.names(to.0).insert(to.1, inode);
            }
        }
        Operation::Unlink(at) => {
            let at = place(*at);
            let expected = match model.find(&at) {
                Ok(inode) if model.is_folder(inode) => Some(Errno::EISDIR),
                found => found.err(),
            };
            assert_eq!(world.unlink(&who, at.0, &at.1).err(), expected);
            if expected.is_none() {
                model.names(at.0).remove(&at.1);
            }
        }
        Operation::Rmdir(at) => {
            let at = place(*at);
            let expected = match model.find(&at) {
                Ok(inode) if !model.is_folder(inode) => Some(Errno::ENOTDIR),
                Ok(inode) if !model.is_empty(inode) => Some(Errno::ENOTEMPTY),
                found => found.err(),
            };
            assert_eq!(world.rmdir(&who, at.0, &at.1).err(), expected);
            if expected.is_none() {
                model.names(at.0).remove(&at.1);
            }
        }
        Operation::Rename(from, to, mode) => {
            let (from, to) = (place(*from), place(*to));
            let renamed = world.rename(&who, (from.0, &from.1), (to.0, &to.1), *mode);
            assert_eq!(renamed.err(), model.rename(&from, &to, *mode).err());
        }
        Operation::Truncate(at, size) => {
            let Ok(inode) = model.find(&place(*at)) else {
                return;
            };
            let expected = model.is_folder(inode).then_some(Errno::EISDIR);
            assert_eq!(world.truncate(&who, inode, *size).err(), expected);
            if expected.is_none() {
                model.0.get_mut(&inode).expect("it was found").size = *size;
            }
        }
        Operation::Chmod(at, mode) => {
            let Ok(inode) = model.find(&place(*at)) else {
                return;
            };
            world.chmod(&who, inode, *mode).expect("root may");
            model.0.get_mut(&inode).expect("it was found").mode = *mode;
        }
    }
    model.sweep();
}

fn compare(world: &World, model: &Model) {
    assert_eq!(world.state.counts().inodes, model.0.len() as u64);
    for (inode, object) in &model.0 {
        let attributes = world.state.attributes(*inode).expect("the model has it");
        assert_eq!(attributes.mode, object.mode);
        assert_eq!(attributes.nlink, model.links(*inode), "{inode}");
        let Some(names) = &object.names else {
            assert_eq!(attributes.size, object.size);
            continue;
        };
        let (entries, end) = world
            .state
            .read_directory(*inode, 0, 1000)
            .expect("a folder");
        assert!(end);
        let text = |name: &[u8]| String::from_utf8(name.to_vec()).expect("names here are text");
        let have: BTreeMap<String, InodeId> = entries
            .iter()
            .map(|entry| (text(&entry.name), entry.attributes.inode))
            .collect();
        assert_eq!(&have, names);
        for (name, child) in names {
            let found = world.state.lookup(*inode, name.as_bytes(), &root());
            assert_eq!(found.map(|found| found.inode), Ok(*child));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_namespace_is_a_tree_of_maps(operations in operations()) {
        let (mut world, mut model) = (World::new(), Model::new());
        for operation in &operations {
            step(&mut world, &mut model, operation);
        }
        compare(&world, &model);
        let loaded = load(&image(&world.state)).expect("undamaged");
        prop_assert_eq!(loaded.digest(), world.state.digest());
    }
}
