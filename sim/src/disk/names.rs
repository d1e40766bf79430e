//! The names of a simulated disk: what programs see, what would survive a power
//! cut, and the changes in between.
//!
//! A change of names is atomic. Until its folder is synced, a power cut loses it
//! or not, and may reorder it with others.

use antler_core::rng::Rng;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Numbers a file of one disk, whatever its name.
pub(super) type FileNumber = u64;
type Map = BTreeMap<String, FileNumber>;

#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Create {
        name: String,
        file: FileNumber,
    },
    Rename {
        from: String,
        to: String,
        file: FileNumber,
    },
    Remove {
        name: String,
        file: FileNumber,
    },
}

impl NameChange {
    /// Whether a sync of `folder` makes it durable. A rename needs the folder of
    /// its new name.
    fn lies_in(&self, folder: &str) -> bool {
        match self {
            Self::Create { name, .. } | Self::Remove { name, .. } => folder_of(name) == folder,
            Self::Rename { to, .. } => folder_of(to) == folder,
        }
    }

    /// Applies it; a name that meanwhile means another file stays.
    fn apply(&self, names: &mut Map) {
        match self {
            Self::Create { name, file } => {
                names.insert(name.clone(), *file);
            }
            Self::Rename { from, to, file } => {
                remove_if(names, from, *file);
                names.insert(to.clone(), *file);
            }
            Self::Remove { name, file } => remove_if(names, name, *file),
        }
    }
}

fn remove_if(names: &mut Map, name: &str, file: FileNumber) {
    if names.get(name) == Some(&file) {
        names.remove(name);
    }
}

fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    /// Shared with each other, and with copies, while they are equal.
    current: Rc<Map>,
    durable: Rc<Map>,
    pending: Vec<(u64, NameChange)>,
}

impl Names {
    pub(super) fn find(&self, name: &str) -> Option<FileNumber> {
        self.current.get(name).copied()
    }

    pub(super) fn durable(&self) -> impl Iterator<Item = (&str, FileNumber)> {
        self.durable
            .iter()
            .map(|(name, &file)| (name.as_str(), file))
    }

    /// The names in a folder, those of folders included.
    pub(super) fn list(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<String> = self
            .current
            .keys()
            .filter_map(|name| inside(name, folder))
            .collect();
        names.dedup();
        names
    }

    pub(super) fn change(&mut self, change: &NameChange) {
        change.apply(Rc::make_mut(&mut self.current));
    }

    pub(super) fn submit(&mut self, sequence: u64, change: NameChange) {
        self.pending.push((sequence, change));
    }

    /// A sync of `folder` that covers every change up to one succeeded.
    pub(super) fn sync(&mut self, folder: &str, upto: u64) {
        if self.pending.is_empty() {
            return;
        }
        let durable = Rc::make_mut(&mut self.durable);
        self.pending.retain(|(sequence, change)| {
            let covered = *sequence <= upto && change.lies_in(folder);
            if covered {
                change.apply(durable);
            }
            !covered
        });
    }

    /// Every change that left the program reaches the medium.
    pub(super) fn destage(&mut self) {
        for (_, change) in std::mem::take(&mut self.pending) {
            change.apply(Rc::make_mut(&mut self.durable));
        }
    }

    /// The power failed.
    pub(super) fn cut(&mut self, rng: &mut Rng) {
        let mut kept: Vec<(u64, NameChange)> = std::mem::take(&mut self.pending)
            .into_iter()
            .filter(|_| rng.one_in(2))
            .collect();
        if rng.one_in(4) {
            kept.sort_by_cached_key(|_| rng.word());
        }
        for (_, change) in kept {
            change.apply(Rc::make_mut(&mut self.durable));
        }
        self.current = Rc::clone(&self.durable);
    }

    /// The program died.
    pub(super) fn forget_unsubmitted(&mut self) {
        self.current = Rc::clone(&self.durable);
        for (_, change) in &self.pending {
            change.apply(Rc::make_mut(&mut self.current));
        }
    }

    pub(super) fn durable_copy(&self) -> Self {
        Self {
            current: Rc::clone(&self.durable),
            durable: Rc::clone(&self.durable),
            pending: Vec::new(),
        }
    }

    /// Whether any name, now or after a crash, can lead to the file.
    pub(super) fn mention(&self, file: FileNumber) -> bool {
        let in_maps = self
            .current
            .values()
            .chain(self.durable.values())
            .any(|&f| f == file);
        in_maps
            || self.pending.iter().any(|(_, change)| match change {
                NameChange::Create { file: f, .. }
                | NameChange::Rename { file: f, .. }
                | NameChange::Remove { file: f, .. } => *f == file,
            })
    }
}

/// The part of `name` right below `folder`, if it lies in it.
fn inside(name: &str, folder: &str) -> Option<String> {
    let rest = match folder {
        "" => name,
        folder => name.strip_prefix(folder)?.strip_prefix('/')?,
    };
    rest.split('/').next().map(str::to_owned)
}
