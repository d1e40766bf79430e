//! The programs on the mounts: they carry out their steps one request at a time,
//! and tell the judges what they asked and were answered. They judge nothing.

use crate::network::Nanos;
use crate::node::EPOCH;
use crate::plan::{FileOperation, Program, Step};
use antler_core::attributes::{
    AttributeChange, Attributes, FallocateMode, FileKind, RenameMode, TimeChange, XattrMode,
};
use antler_core::client::request::{FileReply, FileRequest, Handle};
use antler_core::errno::Errno;
use antler_core::ids::{Generation, InodeId, ServerId};
use antler_core::namespace::record::{ClassChange, ClassPattern};
use antler_core::placement::StorageClass;
use antler_core::placement::label::MAINTENANCE;
use antler_core::version::FeatureLevel;
use bytes::Bytes;
use std::collections::BTreeSet;

/// How long an operator waits before the same order is given again.
const ASK_AGAIN: u64 = 500_000_000;

/// An inode that can't be mistaken for a later one of the same number.
pub(crate) type FileKey = (InodeId, Generation);

/// What a request does to the bytes of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DataEffect {
    None,
    Write {
        offset: u64,
        length: u64,
    },
    /// Makes a range read as zeros; the length grows to `grows_to`.
    Zero {
        offset: u64,
        length: u64,
        grows_to: u64,
    },
    Truncate {
        size: u64,
    },
    Read {
        offset: u64,
        length: u64,
    },
    Flush,
    Fsync,
}

impl DataEffect {
    /// Whether it needs the file open for writing.
    fn changes(self) -> bool {
        matches!(
            self,
            Self::Write { .. } | Self::Zero { .. } | Self::Truncate { .. }
        )
    }
}

/// A request of a program, with what it means for the judges.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) body: FileRequest,
    /// The file whose bytes are concerned, if it is known yet.
    pub(crate) file: Option<FileKey>,
    pub(crate) effect: DataEffect,
}

/// What a program wants next.
pub(crate) enum Next {
    /// To ask the mount. A `Write` still lacks its data, which the judges give.
    Ask(Asked),
    /// To think so long.
    Think(u64),
    /// Nothing: it is done.
    Done,
}

#[derive(Clone, Copy, Debug)]
struct OpenFile {
    file: FileKey,
    handle: Handle,
    write: bool,
}

/// Where a program is within its step.
#[derive(Clone, Debug)]
enum Stage {
    /// Before the step.
    Idle,
    /// Waits for a path's folder, then its last name if wanted.
    Folder,
    Name,
    /// Waits for the operation itself.
    Operating,
    /// Waits for the release behind a flush.
    Releasing {
        slot: usize,
    },
    /// Reads a folder on from a cookie.
    Listing {
        inode: InodeId,
    },
}

/// One running program.
pub(crate) struct Runner {
    pub(crate) client: usize,
    steps: Vec<Step>,
    at: usize,
    slots: Vec<Option<OpenFile>>,
    stage: Stage,
    /// What the step under way does: it ends as it began, even while winding down.
    under_way: Option<FileOperation>,
    /// The paths of this step still to be found, last first.
    wanted: Vec<Wanted>,
    found: Vec<Place>,
    /// Paths whose target was looked up: what it was.
    pub(crate) waiting: bool,
    /// Only closes its files from now on.
    pub(crate) winding_down: bool,
    completed: usize,
    /// When its last step began.
    now: Nanos,
    /// Storage classes that it made.
    classes: BTreeSet<String>,
    /// The chunkservers, by number.
    servers: Vec<ServerId>,
}

#[derive(Clone, Debug)]
struct Wanted {
    path: String,
    target: bool,
}

/// A path, found.
#[derive(Clone, Debug)]
struct Place {
    parent: InodeId,
    name: Vec<u8>,
    target: Option<Attributes>,
}

impl Runner {
    pub(crate) fn new(program: &Program, servers: &[ServerId]) -> Self {
        Self {
            client: program.client as usize,
            steps: program.steps.clone(),
            at: 0,
            slots: vec![None; 8],
            stage: Stage::Idle,
            under_way: None,
            wanted: Vec::new(),
            found: Vec::new(),
            waiting: false,
            winding_down: false,
            completed: 0,
            now: 0,
            classes: BTreeSet::new(),
            servers: servers.to_vec(),
        }
    }

    /// How many steps it carried out.
    pub(crate) fn completed(&self) -> usize {
        self.completed
    }

    pub(crate) fn is_done(&self) -> bool {
        !self.waiting && matches!(self.stage, Stage::Idle) && self.steps_left() == 0
    }

    fn steps_left(&self) -> usize {
        match self.winding_down {
            true => self.slots.iter().flatten().count(),
            false => self.steps.len() - self.at,
        }
    }

    /// What it is doing, for reports.
    pub(crate) fn describe(&self) -> String {
        format!(
            "client {}, step {} of {}: {:?}, {}",
            self.client,
            self.at,
            self.steps.len(),
            self.under_way,
            if self.waiting { "waits" } else { "idles" },
        )
    }

    fn current(&self) -> Option<FileOperation> {
        match self.winding_down {
            true => {
                let slot = self.slots.iter().position(Option::is_some)?;
                Some(FileOperation::Close { slot })
            }
            false => self.steps.get(self.at).map(|step| step.operation.clone()),
        }
    }

    /// The mount died: its open files are gone, and the step under way with it. A raise of
    /// the feature level is asked for again, as other orders wait for it.
    pub(crate) fn lose_mount(&mut self) {
        self.slots.fill(None);
        self.waiting = false;
        let again = matches!(self.current(), Some(FileOperation::RaiseLevel));
        self.end_step();
        self.at -= usize::from(again);
    }

    /// How long it thinks before its next step.
    pub(crate) fn think(&self) -> Next {
        match self.steps.get(self.at) {
            _ if self.winding_down && self.steps_left() > 0 => Next::Think(0),
            Some(step) if !self.winding_down => Next::Think(step.think),
            _ => Next::Done,
        }
    }

    /// Begins the next step, after thinking. Void steps are passed over.
    pub(crate) fn begin(&mut self, now: Nanos) -> Next {
        self.now = now;
        while let Some(operation) = self.current() {
            self.wanted = paths(&operation);
            self.wanted.reverse();
            self.found.clear();
            self.under_way = Some(operation.clone());
            if let Some(asked) = self.go_on(&operation) {
                self.waiting = true;
                return Next::Ask(asked);
            }
            self.end_step();
            match self.think() {
                Next::Think(0) => {}
                other => return other,
            }
        }
        Next::Done
    }

    /// Goes on after an answer.
    pub(crate) fn on_answer(&mut self, result: &Result<FileReply, Errno>) -> Next {
        self.waiting = false;
        let Some(operation) = self.under_way.clone() else {
            return self.think();
        };
        if matches!(operation, FileOperation::RaiseLevel) && result.is_err() {
            self.stage = Stage::Idle;
            self.under_way = None;
            return Next::Think(ASK_AGAIN);
        }
        let next = match (self.stage.clone(), result) {
            (Stage::Folder, Ok(FileReply::Entry(folder, _))) => {
                let wanted = self.wanted.last().expect("a path is being found");
                let name = last_name(&wanted.path);
                let place = Place {
                    parent: folder.inode,
                    name,
                    target: None,
                };
                self.on_place(place, &operation)
            }
            (Stage::Name, result) => self.on_name(result, &operation),
            (Stage::Operating, result) => self.on_result(result, &operation),
            (Stage::Listing { inode }, Ok(FileReply::Entries { entries, end, .. })) => {
                let cookie = entries.last().map_or(0, |entry| entry.cookie);
                (!end && !entries.is_empty()).then(|| list(inode, cookie))
            }
            (Stage::Releasing { slot }, _) => {
                self.slots[slot] = None;
                None
            }
            _ => None,
        };
        match next {
            Some(asked) => {
                self.waiting = true;
                Next::Ask(asked)
            }
            None => {
                self.end_step();
                self.think()
            }
        }
    }

    fn end_step(&mut self) {
        self.stage = Stage::Idle;
        self.under_way = None;
        self.completed += 1;
        if !self.winding_down && self.at < self.steps.len() {
            self.at += 1;
        }
    }

    /// The next request of a step: finds its paths, then operates.
    fn go_on(&mut self, operation: &FileOperation) -> Option<Asked> {
        match self.wanted.last().cloned() {
            Some(wanted) => {
                let folder = wanted
                    .path
                    .rsplit_once('/')
                    .map(|(folder, _)| folder.to_owned());
                match folder {
                    Some(folder) => {
                        self.stage = Stage::Folder;
                        Some(lookup(InodeId::ROOT, folder.into_bytes()))
                    }
                    None => {
                        let name = wanted.path.into_bytes();
                        let place = Place {
                            parent: InodeId::ROOT,
                            name,
                            target: None,
                        };
                        self.on_place(place, operation)
                    }
                }
            }
            None => {
                self.stage = Stage::Operating;
                self.operate(operation)
            }
        }
    }

    fn on_place(&mut self, place: Place, operation: &FileOperation) -> Option<Asked> {
        let wanted = self.wanted.last().expect("a path is being found");
        let target = wanted.target;
        let asked = lookup(place.parent, place.name.clone());
        self.found.push(place);
        if target {
            self.stage = Stage::Name;
            return Some(asked);
        }
        self.wanted.pop();
        self.go_on(operation)
    }

    fn on_name(
        &mut self,
        result: &Result<FileReply, Errno>,
        operation: &FileOperation,
    ) -> Option<Asked> {
        let Ok(FileReply::Entry(attributes, _)) = result else {
            return None;
        };
        self.found.last_mut().expect("a place was found").target = Some(*attributes);
        self.wanted.pop();
        self.go_on(operation)
    }

    /// The request of the operation itself; `None` if the step is void.
    fn operate(&mut self, operation: &FileOperation) -> Option<Asked> {
        if let Some(asked) = self.operate_on_slot(operation) {
            return asked;
        }
        if let Some(body) = self.order(operation) {
            return Some(plain(body));
        }
        let place = self.found.first()?;
        if let Some(body) = body_at(operation, place, self.found.get(1)) {
            return Some(plain(body));
        }
        let target = place.target?;
        match operation {
            FileOperation::Open {
                write, truncate, ..
            } => open(&target, *write, *truncate),
            FileOperation::ReadDirectory { .. } => {
                self.stage = Stage::Listing {
                    inode: target.inode,
                };
                Some(list(target.inode, 0))
            }
            _ => Some(Asked {
                body: body_on(operation, target.inode)?,
                file: Some((target.inode, target.generation)),
                effect: DataEffect::None,
            }),
        }
    }

    /// The request of an operator.
    fn order(&mut self, operation: &FileOperation) -> Option<FileRequest> {
        match operation {
            FileOperation::ChangeClass {
                name,
                keep,
                create,
                archive,
            } => {
                let policy = |text: &String| text.parse().expect("a scenario's policies are read");
                let (name, known) = (name.clone(), !self.classes.insert(name.clone()));
                let class = StorageClass {
                    create: create.as_ref().map(policy),
                    keep: policy(keep),
                    archive: archive
                        .as_ref()
                        .map(|text| text.parse().expect("a scenario's archives are read")),
                };
                Some(FileRequest::ChangeClass(match known {
                    true => ClassChange::Modify { name, class },
                    false => ClassChange::Create { name, class },
                }))
            }
            FileOperation::SetClass { path, class } if path == "/" => Some(FileRequest::SetClass {
                inode: InodeId::ROOT,
                class: class.clone(),
            }),
            FileOperation::SetPattern { path, glob, class } if path == "/" => {
                Some(set_pattern(InodeId::ROOT, glob, class))
            }
            FileOperation::SetLabel { server, key, value } => Some(FileRequest::SetLabel {
                server: *self.servers.get(*server as usize - 1)?,
                key: key.clone(),
                value: value.clone(),
            }),
            FileOperation::Maintain { server, lasts } => {
                let end = i64::try_from((self.now + lasts).div_ceil(1_000_000_000));
                let end = EPOCH + end.expect("a run is short");
                Some(FileRequest::SetLabel {
                    server: *self.servers.get(*server as usize - 1)?,
                    key: MAINTENANCE.to_owned(),
                    value: (*lasts > 0).then(|| end.to_string()),
                })
            }
            FileOperation::RaiseLevel => Some(FileRequest::RaiseLevel {
                level: FeatureLevel::NEWEST,
            }),
            _ => None,
        }
    }

    /// The request of an operation on an open file; the outer `None`: it is none.
    fn operate_on_slot(&mut self, operation: &FileOperation) -> Option<Option<Asked>> {
        let (slot, effect) = slot_effect(operation)?;
        let Some(OpenFile {
            file,
            handle,
            write,
        }) = self.slots[slot]
        else {
            return Some(None);
        };
        if effect.changes() && !write {
            return Some(None);
        }
        // A handle that can't write publishes nothing when it is closed.
        let effect = match effect {
            DataEffect::Flush if !write => DataEffect::None,
            effect => effect,
        };
        Some(Some(Asked {
            body: body_on_handle(operation, file.0, handle),
            file: Some(file),
            effect,
        }))
    }

    /// What follows the operation's answer.
    fn on_result(
        &mut self,
        result: &Result<FileReply, Errno>,
        operation: &FileOperation,
    ) -> Option<Asked> {
        match (operation, result) {
            (
                FileOperation::Create { slot, .. } | FileOperation::Open { slot, .. },
                Ok(FileReply::Opened {
                    handle, attributes, ..
                }),
            ) => {
                let file = (attributes.inode, attributes.generation);
                let opened = OpenFile {
                    file,
                    handle: *handle,
                    write: !matches!(operation, FileOperation::Open { write: false, .. }),
                };
                // The program forgot to close what the slot held.
                let old = self.slots[*slot].replace(opened)?;
                Some(release(&old))
            }
            (FileOperation::Close { slot }, _) => {
                let open = self.slots[*slot]?;
                self.stage = Stage::Releasing { slot: *slot };
                Some(release(&open))
            }
            _ => None,
        }
    }
}

/// The paths that an operation needs, in order, and whether what they name.
fn paths(operation: &FileOperation) -> Vec<Wanted> {
    let wanted = |path: &String, target| Wanted {
        path: path.clone(),
        target,
    };
    match operation {
        FileOperation::MakeDirectory { path }
        | FileOperation::Create { path, .. }
        | FileOperation::Unlink { path }
        | FileOperation::RemoveDirectory { path }
        | FileOperation::Symlink { path, .. } => vec![wanted(path, false)],
        FileOperation::Open { path, .. }
        | FileOperation::SetMode { path, .. }
        | FileOperation::SetTimes { path }
        | FileOperation::ReadLink { path }
        | FileOperation::ReadDirectory { path }
        | FileOperation::Stat { path }
        | FileOperation::SetXattr { path, .. }
        | FileOperation::GetXattr { path } => vec![wanted(path, true)],
        FileOperation::SetClass { path, .. } | FileOperation::SetPattern { path, .. }
            if path != "/" =>
        {
            vec![wanted(path, true)]
        }
        FileOperation::Rename { from, to, .. } => vec![wanted(from, false), wanted(to, false)],
        FileOperation::Link { from, to } => vec![wanted(from, true), wanted(to, false)],
        _ => Vec::new(),
    }
}

/// The request that makes, moves or removes the name at a place; `None` if the
/// operation is none of those, or the second place that it needs is missing.
fn body_at(operation: &FileOperation, at: &Place, to: Option<&Place>) -> Option<FileRequest> {
    let (parent, name) = (at.parent, at.name.clone());
    Some(match operation {
        FileOperation::MakeDirectory { .. } => make(at, FileKind::Directory, 0o755, ""),
        FileOperation::Symlink { target, .. } => make(at, FileKind::Symlink, 0o777, target),
        FileOperation::Create { exclusive, .. } => FileRequest::Create {
            parent,
            name,
            mode: 0o644,
            exclusive: *exclusive,
            truncate: false,
            read: true,
            write: true,
        },
        FileOperation::Unlink { .. } => FileRequest::Unlink { parent, name },
        FileOperation::RemoveDirectory { .. } => FileRequest::Rmdir { parent, name },
        FileOperation::Rename { exchange, .. } => FileRequest::Rename {
            parent,
            name,
            new_parent: to?.parent,
            new_name: to?.name.clone(),
            mode: match exchange {
                true => RenameMode::Exchange,
                false => RenameMode::Replace,
            },
        },
        FileOperation::Link { .. } => FileRequest::Link {
            inode: at.target?.inode,
            parent: to?.parent,
            name: to?.name.clone(),
        },
        _ => return None,
    })
}

fn make(at: &Place, kind: FileKind, mode: u32, target: &str) -> FileRequest {
    FileRequest::Make {
        parent: at.parent,
        name: at.name.clone(),
        kind,
        mode,
        device: 0,
        target: target.as_bytes().to_vec(),
    }
}

/// The request of an operation on the object that a name leads to.
fn body_on(operation: &FileOperation, inode: InodeId) -> Option<FileRequest> {
    Some(match operation {
        FileOperation::SetMode { mode, .. } => set(
            inode,
            AttributeChange {
                mode: Some(*mode),
                ..AttributeChange::default()
            },
        ),
        FileOperation::SetTimes { .. } => set(
            inode,
            AttributeChange {
                atime: TimeChange::Now,
                mtime: TimeChange::Now,
                ..AttributeChange::default()
            },
        ),
        FileOperation::SetClass { class, .. } => FileRequest::SetClass {
            inode,
            class: class.clone(),
        },
        FileOperation::SetPattern { glob, class, .. } => set_pattern(inode, glob, class),
        FileOperation::ReadLink { .. } => FileRequest::ReadLink { inode },
        FileOperation::Stat { .. } => FileRequest::GetAttributes { inode },
        FileOperation::SetXattr { value, .. } => FileRequest::SetXattr {
            inode,
            name: xattr_of(inode),
            value: value.to_le_bytes().to_vec(),
            mode: XattrMode::Any,
        },
        FileOperation::GetXattr { .. } => FileRequest::GetXattr {
            inode,
            name: xattr_of(inode),
        },
        _ => return None,
    })
}

/// The attribute that programs set on an inode: some of a kind of which a mount may
/// answer itself that it is absent, some of a kind of which it may not.
fn xattr_of(inode: InodeId) -> Vec<u8> {
    let name: &[u8] = match inode.0 % 2 {
        0 => b"user.sim",
        _ => b"security.sim",
    };
    name.to_vec()
}

fn set(inode: InodeId, change: AttributeChange) -> FileRequest {
    FileRequest::SetAttributes { inode, change }
}

/// Opens a regular file; anything else makes the step void.
fn open(target: &Attributes, write: bool, truncate: bool) -> Option<Asked> {
    (target.kind == FileKind::Regular).then(|| Asked {
        body: FileRequest::Open {
            inode: target.inode,
            read: true,
            write,
            truncate,
        },
        file: Some((target.inode, target.generation)),
        effect: match truncate {
            true => DataEffect::Truncate { size: 0 },
            false => DataEffect::None,
        },
    })
}

/// The request of an operation on an open file.
fn body_on_handle(operation: &FileOperation, inode: InodeId, handle: Handle) -> FileRequest {
    let fallocate = |mode, offset, length| FileRequest::Fallocate {
        inode,
        handle,
        mode,
        offset,
        length,
    };
    match *operation {
        FileOperation::Write { offset, .. } => FileRequest::Write {
            inode,
            handle,
            offset,
            data: Bytes::new(),
        },
        FileOperation::Read { offset, length, .. } => FileRequest::Read {
            inode,
            handle,
            offset,
            length: length as u32,
        },
        FileOperation::Fsync { .. } => FileRequest::Fsync { inode, handle },
        FileOperation::Close { .. } => FileRequest::Flush { inode, handle },
        FileOperation::Truncate { size, .. } => set(
            inode,
            AttributeChange {
                size: Some(size),
                by_handle: true,
                ..AttributeChange::default()
            },
        ),
        FileOperation::Punch { offset, length, .. } => {
            fallocate(FallocateMode::Punch, offset, length)
        }
        FileOperation::Zero { offset, length, .. } => {
            fallocate(FallocateMode::Zero, offset, length)
        }
        FileOperation::Allocate { offset, length, .. } => {
            fallocate(FallocateMode::Extend, offset, length)
        }
        _ => unreachable!("slot_effect told the operations on slots"),
    }
}

fn slot_effect(operation: &FileOperation) -> Option<(usize, DataEffect)> {
    Some(match *operation {
        FileOperation::Write {
            slot,
            offset,
            length,
        } => (slot, DataEffect::Write { offset, length }),
        FileOperation::Read {
            slot,
            offset,
            length,
        } => (slot, DataEffect::Read { offset, length }),
        FileOperation::Fsync { slot } => (slot, DataEffect::Fsync),
        FileOperation::Close { slot } => (slot, DataEffect::Flush),
        FileOperation::Truncate { slot, size } => (slot, DataEffect::Truncate { size }),
        FileOperation::Punch {
            slot,
            offset,
            length,
        } => (slot, zero(offset, length, 0)),
        FileOperation::Zero {
            slot,
            offset,
            length,
        } => (slot, zero(offset, length, offset + length)),
        FileOperation::Allocate {
            slot,
            offset,
            length,
        } => (slot, zero(offset, 0, offset + length)),
        _ => return None,
    })
}

fn zero(offset: u64, length: u64, grows_to: u64) -> DataEffect {
    DataEffect::Zero {
        offset,
        length,
        grows_to,
    }
}

fn plain(body: FileRequest) -> Asked {
    Asked {
        body,
        file: None,
        effect: DataEffect::None,
    }
}

fn lookup(parent: InodeId, name: Vec<u8>) -> Asked {
    plain(FileRequest::Lookup { parent, name })
}

fn list(inode: InodeId, cookie: u64) -> Asked {
    plain(FileRequest::ReadDirectory {
        inode,
        cookie,
        most: 20,
    })
}

fn release(open: &OpenFile) -> Asked {
    plain(FileRequest::Release {
        inode: open.file.0,
        handle: open.handle,
    })
}

fn last_name(path: &str) -> Vec<u8> {
    path.rsplit('/').next().unwrap_or(path).as_bytes().to_vec()
}

fn set_pattern(inode: InodeId, glob: &str, class: &str) -> FileRequest {
    let pattern = ClassPattern {
        glob: glob.as_bytes().to_vec(),
        class: class.to_owned(),
    };
    let patterns = vec![pattern];
    FileRequest::SetPatterns { inode, patterns }
}
