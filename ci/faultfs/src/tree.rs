//! The live tree in the backing directory, and the power cut. Owns which node
//! is where, the grave for what has lost its name but may come back, and the
//! files' unsynced state; leaves the kernel's requests to `filesystem`.
//!
//! Invariant: between two cuts the backing directory shows the live tree, and
//! what a cut would take back is in memory or in the grave (`.faultfs/` at the
//! top, hidden from the mount). After a cut the backing directory holds what
//! the disk would have, everything in it counts as synced, and every node but
//! the root is new, so that handles from before the cut are dead.

use crate::names::{Change, Choice, NodeId, Outcome, Pending, Place, ROOT};
use crate::pages::{Losses, Odds, Unsynced};
use crate::rng::Rng;
use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

/// The hidden directory at the top, for nodes without a name.
const GRAVE: &str = ".faultfs";

/// What the layer is told when it starts.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The directory below.
    pub(crate) backing: PathBuf,
    /// The first cut's seed; each later cut adds one.
    pub(crate) seed: u64,
    /// Whether a new file's name waits for a sync of its directory, even if the
    /// file itself was synced.
    pub(crate) strict_directories: bool,
    /// Files whose path below the mount ends so are never forgotten.
    pub(crate) exempt_suffixes: Vec<String>,
}

/// A file or directory that the kernel has seen.
#[derive(Debug)]
pub(crate) struct Node {
    content: Mutex<Content>,
}

#[derive(Debug)]
struct Content {
    /// Open while there are handles.
    file: Option<Arc<File>>,
    handles: u64,
    /// None: not a regular file, or exempt.
    unsynced: Option<Unsynced>,
    rng: Rng,
}

#[derive(Debug)]
struct Names {
    children: HashMap<Place, NodeId>,
    /// None: in the grave. Nodes that are gone for good are not listed.
    homes: HashMap<NodeId, Option<Place>>,
    pending: Pending,
    next: u64,
}

/// The odds of a cut are drawn from these.
const KEEP_PERCENT: [u64; 4] = [0, 10, 50, 90];

/// What whoever fails the power may choose; the rest is drawn.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CutRequest {
    /// Repeats an earlier cut's choices, on the same unsynced state.
    pub(crate) seed: Option<u64>,
    /// Percent of the unsynced pieces that survive, 0..=100.
    pub(crate) keep_percent: Option<u64>,
}

/// What a power cut did.
#[derive(Debug)]
pub(crate) struct CutReport {
    seed: u64,
    odds: Odds,
    in_order: bool,
    files: u64,
    sectors: Losses,
    names: (u64, u64),
}

impl std::fmt::Display for CutReport {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "cut seed={} keep_percent={} names_in_order={}",
            self.seed, self.odds.keep_percent, self.in_order
        )?;
        write!(
            out,
            " files={} sectors_kept={} sectors_lost={}",
            self.files, self.sectors.kept, self.sectors.lost
        )?;
        write!(
            out,
            " names_kept={} names_lost={}",
            self.names.0, self.names.1
        )
    }
}

/// The whole layer below the FUSE requests.
#[derive(Debug)]
pub(crate) struct Tree {
    settings: Settings,
    nodes: RwLock<HashMap<NodeId, Arc<Node>>>,
    names: Mutex<Names>,
    next_seed: Mutex<u64>,
}

impl Tree {
    /// Takes a directory as it is; all of it counts as synced.
    pub(crate) fn new(settings: Settings) -> io::Result<Self> {
        let names = Names {
            children: HashMap::new(),
            homes: HashMap::new(),
            pending: Pending::default(),
            next: ROOT.0 + 1,
        };
        let next_seed = Mutex::new(settings.seed);
        let tree = Self {
            settings,
            nodes: RwLock::default(),
            names: Mutex::new(names),
            next_seed,
        };
        tree.empty_grave()?;
        Ok(tree)
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().expect("no holder panics")
    }

    fn node(&self, id: NodeId) -> io::Result<Arc<Node>> {
        let nodes = self.nodes.read().expect("no holder panics");
        nodes.get(&id).cloned().ok_or_else(stale)
    }

    /// The path of a node below the mount, for rules; empty if it has none.
    pub(crate) fn relative(&self, id: NodeId) -> PathBuf {
        let path = self
            .names()
            .path(&self.settings.backing, id)
            .unwrap_or_default();
        path.strip_prefix(&self.settings.backing)
            .map(Path::to_owned)
            .unwrap_or_default()
    }

    /// Where a node is in the backing directory.
    pub(crate) fn path(&self, id: NodeId) -> io::Result<PathBuf> {
        self.names()
            .path(&self.settings.backing, id)
            .ok_or_else(stale)
    }

    /// The node of a name, and what stat(2) says.
    pub(crate) fn lookup(&self, directory: NodeId, name: &OsStr) -> io::Result<(NodeId, Metadata)> {
        if is_hidden(directory, name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut names = self.names();
        let path = names
            .path(&self.settings.backing, directory)
            .ok_or_else(stale)?
            .join(name);
        let metadata = fs::symlink_metadata(&path)?;
        let place = Place {
            directory,
            name: name.to_owned(),
        };
        let id = match names.children.get(&place) {
            Some(&id) => id,
            None => self.add(&mut names, place, &path, &metadata),
        };
        Ok((id, metadata))
    }

    fn add(&self, names: &mut Names, place: Place, path: &Path, metadata: &Metadata) -> NodeId {
        let id = NodeId(names.next);
        names.next += 1;
        names.children.insert(place.clone(), id);
        names.homes.insert(id, Some(place));
        let exempt = self.is_exempt(path);
        let unsynced = (metadata.is_file() && !exempt).then(|| Unsynced::new(metadata.len()));
        let rng = Rng::new(self.settings.seed ^ id.0);
        let content = Mutex::new(Content {
            file: None,
            handles: 0,
            unsynced,
            rng,
        });
        self.nodes
            .write()
            .expect("no holder panics")
            .insert(id, Arc::new(Node { content }));
        id
    }

    fn is_exempt(&self, path: &Path) -> bool {
        let path = path.to_string_lossy();
        self.settings
            .exempt_suffixes
            .iter()
            .any(|suffix| path.ends_with(suffix.as_str()))
    }

    /// Makes a new node with `make`, which gets its path in the backing directory.
    pub(crate) fn create(
        &self,
        directory: NodeId,
        name: &OsStr,
        make: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<(NodeId, Metadata)> {
        if is_hidden(directory, name) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut names = self.names();
        let path = names
            .path(&self.settings.backing, directory)
            .ok_or_else(stale)?
            .join(name);
        make(&path)?;
        let metadata = fs::symlink_metadata(&path)?;
        let at = Place {
            directory,
            name: name.to_owned(),
        };
        let node = self.add(&mut names, at.clone(), &path, &metadata);
        if !self.is_exempt(&path) {
            names.pending.push(Change::Created { node, at });
        }
        Ok((node, metadata))
    }

    /// Takes a name away: unlink(2) and rmdir(2). What it named stays in the
    /// grave until a cut can no longer bring it back.
    pub(crate) fn remove(&self, directory: NodeId, name: &OsStr) -> io::Result<()> {
        let (node, metadata) = self.lookup(directory, name)?;
        let mut names = self.names();
        let at = Place {
            directory,
            name: name.to_owned(),
        };
        let path = names.path(&self.settings.backing, node).ok_or_else(stale)?;
        refuse_unless_empty(&path, &metadata)?;
        self.bury(&mut names, node, &path)?;
        if self.is_exempt(&path) {
            self.dispose(&mut names, [node].into());
        } else {
            names.pending.push(Change::Removed { node, at });
        }
        Ok(())
    }

    fn bury(&self, names: &mut Names, node: NodeId, path: &Path) -> io::Result<()> {
        fs::rename(path, self.grave().join(node.0.to_string()))?;
        names.leave(node);
        Ok(())
    }

    /// rename(2); `no_replace` is RENAME_NOREPLACE.
    pub(crate) fn rename(&self, from: Place, to: Place, no_replace: bool) -> io::Result<()> {
        if is_hidden(from.directory, &from.name) || is_hidden(to.directory, &to.name) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let (node, _) = self.lookup(from.directory, &from.name)?;
        let replaced = match self.lookup(to.directory, &to.name) {
            Ok(_) if no_replace => return Err(io::ErrorKind::AlreadyExists.into()),
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let mut names = self.names();
        let old = names.path(&self.settings.backing, node).ok_or_else(stale)?;
        let new = names
            .path(&self.settings.backing, to.directory)
            .ok_or_else(stale)?
            .join(&to.name);
        if let Some((buried, metadata)) = &replaced {
            refuse_unless_empty(&new, metadata)?;
            self.bury(&mut names, *buried, &new)?;
        }
        fs::rename(&old, &new)?;
        names.leave(node);
        names.settle(node, to.clone());
        names.pending.push(Change::Moved {
            node,
            from,
            to,
            replaced: replaced.map(|(id, _)| id),
        });
        Ok(())
    }

    /// fsync(2) of a directory.
    pub(crate) fn sync_directory(&self, directory: NodeId) -> io::Result<()> {
        let mut names = self.names();
        if directory != ROOT && !names.homes.contains_key(&directory) {
            return Err(stale());
        }
        let mut durable = names.pending.sync_directory(directory);
        if !self.settings.strict_directories {
            durable.extend(names.pending.sync_node(directory));
        }
        self.dispose(&mut names, durable);
        Ok(())
    }

    /// Removes from the grave those of `nodes` that nothing can bring back.
    fn dispose(&self, names: &mut Names, nodes: BTreeSet<NodeId>) {
        for node in nodes {
            if names.homes.get(&node) == Some(&None) && !names.pending.mentions(node) {
                let path = self.grave().join(node.0.to_string());
                // Nothing hangs on it: at worst the grave keeps it until the cut.
                let _ = fs::remove_dir(&path).or_else(|_| fs::remove_file(&path));
                names.homes.remove(&node);
            }
        }
    }

    /// Opens a handle on a regular file.
    pub(crate) fn open(&self, id: NodeId) -> io::Result<()> {
        let node = self.node(id)?;
        let mut content = node.lock();
        if content.file.is_none() {
            content.file = Some(Arc::new(open_file(&self.path(id)?)?));
        }
        content.handles += 1;
        Ok(())
    }

    /// Closes a handle; unknown ones are from before a cut.
    pub(crate) fn release(&self, id: NodeId) {
        let Ok(node) = self.node(id) else { return };
        let mut content = node.lock();
        content.handles = content.handles.saturating_sub(1);
        if content.handles == 0 {
            content.file = None;
        }
    }

    /// The open file of a node, for what changes nothing.
    pub(crate) fn file(&self, id: NodeId) -> io::Result<Arc<File>> {
        self.node(id)?.lock().file.clone().ok_or_else(stale)
    }

    /// What stat(2) says, of a file without a name too.
    pub(crate) fn metadata(&self, id: NodeId) -> io::Result<Metadata> {
        if id != ROOT {
            let file = self.node(id)?.lock().file.clone();
            if let Some(file) = file {
                return file.metadata();
            }
        }
        fs::symlink_metadata(self.path(id)?)
    }

    /// Runs `action` on the content of a node, opened for it if need be.
    fn with_content<T>(
        &self,
        id: NodeId,
        action: impl FnOnce(&File, Option<&mut Unsynced>, &mut Rng) -> io::Result<T>,
    ) -> io::Result<T> {
        let node = self.node(id)?;
        let mut guard = node.lock();
        let content = &mut *guard;
        let file = match &content.file {
            Some(file) => Arc::clone(file),
            None => Arc::new(open_file(&self.path(id)?)?),
        };
        action(&file, content.unsynced.as_mut(), &mut content.rng)
    }

    /// pwrite(2) of all of `data`.
    pub(crate) fn write(&self, id: NodeId, offset: u64, data: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        self.with_content(id, |file, unsynced, rng| {
            let Some(unsynced) = unsynced else {
                return file.write_all_at(data, offset);
            };
            unsynced.before_write(file, offset, data.len() as u64, rng)?;
            file.write_all_at(data, offset)?;
            unsynced.after_write(offset + data.len() as u64);
            Ok(())
        })
    }

    /// ftruncate(2).
    pub(crate) fn truncate(&self, id: NodeId, length: u64) -> io::Result<()> {
        self.with_content(id, |file, unsynced, _| {
            if let Some(unsynced) = unsynced {
                unsynced.before_truncate(file, length)?;
            }
            file.set_len(length)
        })
    }

    /// fallocate(2).
    pub(crate) fn allocate(
        &self,
        id: NodeId,
        offset: u64,
        length: u64,
        mode: rustix::fs::FallocateFlags,
    ) -> io::Result<()> {
        use rustix::fs::FallocateFlags as Flags;
        self.with_content(id, |file, unsynced, rng| {
            let Some(unsynced) = unsynced else {
                return Ok(rustix::fs::fallocate(file, mode, offset, length)?);
            };
            if mode.intersects(Flags::COLLAPSE_RANGE | Flags::INSERT_RANGE) {
                return Err(io::ErrorKind::Unsupported.into());
            }
            if mode.intersects(Flags::PUNCH_HOLE | Flags::ZERO_RANGE) {
                unsynced.before_discard(file, offset, length, rng)?;
            }
            rustix::fs::fallocate(file, mode, offset, length)?;
            if !mode.contains(Flags::KEEP_SIZE) {
                unsynced.after_write(offset + length);
            }
            Ok(())
        })
    }

    /// fsync(2) of a file. Without strict directories it gives the file's name too.
    pub(crate) fn sync(&self, id: NodeId) -> io::Result<()> {
        self.with_content(id, |file, unsynced, _| {
            unsynced.map_or(Ok(()), |unsynced| unsynced.synced(file))
        })?;
        if !self.settings.strict_directories {
            let mut names = self.names();
            let durable = names.pending.sync_node(id);
            self.dispose(&mut names, durable);
        }
        Ok(())
    }

    /// A sync was made to fail: what it should have written is lost.
    pub(crate) fn sync_failed(&self, id: NodeId) {
        // A stale node has nothing left to lose.
        let _ = self.with_content(id, |_, unsynced, _| {
            if let Some(unsynced) = unsynced {
                unsynced.sync_failed();
            }
            Ok(())
        });
    }

    /// The names and types in a directory.
    pub(crate) fn list(&self, id: NodeId) -> io::Result<Vec<(OsString, fs::FileType, u64)>> {
        use std::os::unix::fs::DirEntryExt;
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.path(id)?)? {
            let entry = entry?;
            if !is_hidden(id, &entry.file_name()) {
                entries.push((entry.file_name(), entry.file_type()?, entry.ino()));
            }
        }
        Ok(entries)
    }

    /// Counts for the control socket: files with unsynced content, changes of names.
    pub(crate) fn unsynced(&self) -> (usize, usize) {
        let nodes: Vec<_> = self
            .nodes
            .read()
            .expect("no holder panics")
            .values()
            .cloned()
            .collect();
        let dirty = nodes.iter().filter(|node| {
            node.lock()
                .unsynced
                .as_ref()
                .is_some_and(|unsynced| !unsynced.is_clean())
        });
        (dirty.count(), self.names().pending.len())
    }

    /// The power fails. No request may be under way (`filesystem` sees to it).
    pub(crate) fn cut(&self, asked: CutRequest) -> io::Result<CutReport> {
        let seed = asked.seed.unwrap_or_else(|| self.draw_seed());
        let mut rng = Rng::new(seed);
        let drawn = KEEP_PERCENT[usize::try_from(rng.below(4)).expect("below 4")];
        let odds = Odds {
            keep_percent: asked.keep_percent.unwrap_or(drawn),
        };
        let in_order = rng.percent(50);
        let (files, sectors) = self.forget_content(&mut rng, odds)?;
        let mut names = self.names();
        let outcome = names.pending.forget(
            &mut rng,
            Choice {
                keep_percent: odds.keep_percent,
                in_order,
            },
        );
        self.rearrange(&mut names, &outcome)?;
        self.empty_grave()?;
        self.nodes.write().expect("no holder panics").clear();
        names.children.clear();
        names.homes.clear();
        Ok(CutReport {
            seed,
            odds,
            in_order,
            files,
            sectors,
            names: (outcome.kept, outcome.lost),
        })
    }

    fn draw_seed(&self) -> u64 {
        let mut next = self.next_seed.lock().expect("no holder panics");
        *next += 1;
        *next - 1
    }

    fn forget_content(&self, rng: &mut Rng, odds: Odds) -> io::Result<(u64, Losses)> {
        let mut nodes: Vec<_> = self
            .nodes
            .read()
            .expect("no holder panics")
            .iter()
            .map(|(&id, node)| (id, Arc::clone(node)))
            .collect();
        nodes.sort_by_key(|(id, _)| *id);
        let (mut files, mut total) = (0, Losses::default());
        for (id, node) in nodes {
            let mut content = node.lock();
            let Some(unsynced) = content
                .unsynced
                .as_mut()
                .filter(|unsynced| !unsynced.is_clean())
            else {
                continue;
            };
            let Ok(path) = self.path(id) else { continue };
            let losses = unsynced.forget(&open_file(&path)?, rng, odds)?;
            files += 1;
            total.kept += losses.kept;
            total.lost += losses.lost;
        }
        Ok((files, total))
    }

    /// Makes the backing directory show what the cut left of the names.
    fn rearrange(&self, names: &mut Names, outcome: &Outcome) -> io::Result<()> {
        for (place, after) in &outcome.places {
            let Some(&node) = names.children.get(place) else {
                continue;
            };
            if *after != Some(node) {
                let path = names.path(&self.settings.backing, node).ok_or_else(stale)?;
                self.bury(names, node, &path)?;
            }
        }
        for (place, after) in &outcome.places {
            let Some(node) = after.filter(|node| names.homes.get(node) == Some(&None)) else {
                continue;
            };
            // A directory that is gone takes along what was in it.
            let Some(directory) = names.path(&self.settings.backing, place.directory) else {
                continue;
            };
            let path = directory.join(&place.name);
            match fs::rename(self.grave().join(node.0.to_string()), &path) {
                Ok(()) => names.settle(node, place.clone()),
                // Two directories, each moved into the other: both are lost.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn grave(&self) -> PathBuf {
        self.settings.backing.join(GRAVE)
    }

    fn empty_grave(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.grave()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir(self.grave())
    }

    /// To be called once the mount is gone: leaves nothing of ours behind.
    pub(crate) fn close(&self) -> io::Result<()> {
        fs::remove_dir_all(self.grave())
    }
}

impl Node {
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().expect("no holder panics")
    }
}

impl Names {
    fn path(&self, backing: &Path, id: NodeId) -> Option<PathBuf> {
        if id == ROOT {
            return Some(backing.to_owned());
        }
        match self.homes.get(&id)? {
            Some(place) => Some(self.path(backing, place.directory)?.join(&place.name)),
            None => Some(backing.join(GRAVE).join(id.0.to_string())),
        }
    }

    fn leave(&mut self, node: NodeId) {
        let home = self
            .homes
            .insert(node, None)
            .flatten()
            .expect("a node without a place cannot lose it");
        assert_eq!(
            self.children.remove(&home),
            Some(node),
            "both tables tell the same"
        );
    }

    fn settle(&mut self, node: NodeId, at: Place) {
        let displaced = self.children.insert(at.clone(), node);
        assert_eq!(displaced, None, "the caller freed the place");
        self.homes.insert(node, Some(at));
    }
}

fn stale() -> io::Error {
    io::Error::from_raw_os_error(libc::ESTALE)
}

fn is_hidden(directory: NodeId, name: &OsStr) -> bool {
    directory == ROOT && name == GRAVE
}

fn open_file(path: &Path) -> io::Result<File> {
    let both = OpenOptions::new().read(true).write(true).open(path);
    both.or_else(|_| File::open(path))
}

fn refuse_unless_empty(path: &Path, metadata: &Metadata) -> io::Result<()> {
    if metadata.is_dir() && fs::read_dir(path)?.next().is_some() {
        return Err(io::Error::from_raw_os_error(libc::ENOTEMPTY));
    }
    Ok(())
}
