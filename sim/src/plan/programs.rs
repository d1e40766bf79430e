//! What the programs on the mounts do, drawn before the run: files are opened
//! into numbered slots, written, read, synced, renamed and removed, some private
//! to a program, some shared by all.

use super::is_quick;
use crate::network::Nanos;
use crate::scenario::{Profile, Range};
use antler_core::limits::{CHUNK_SIZE, NAME_MAX};
use antler_core::rng::Rng;
use serde::{Deserialize, Serialize};

/// Open files of one program.
const SLOTS: usize = 3;
/// Steps of one program at most.
const STEPS_MAX: u64 = 1500;
/// What an operation takes besides the time to think, roughly.
const OPERATION: Nanos = 3_000_000;

/// A program on a mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Program {
    /// On which mount.
    pub client: u64,
    /// One after the other.
    pub steps: Vec<Step>,
}

/// One operation of a program, and how long it thinks before.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// How long it waits first.
    pub think: Nanos,
    /// What it does then.
    pub operation: FileOperation,
}

/// What a program does. A slot that holds no open file makes a step void.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum FileOperation {
    MakeDirectory {
        path: String,
    },
    /// open(2) with `O_CREAT` and maybe `O_EXCL`.
    Create {
        path: String,
        slot: usize,
        exclusive: bool,
    },
    Open {
        path: String,
        slot: usize,
        write: bool,
        truncate: bool,
    },
    Write {
        slot: usize,
        offset: u64,
        length: u64,
    },
    Read {
        slot: usize,
        offset: u64,
        length: u64,
    },
    Fsync {
        slot: usize,
    },
    Close {
        slot: usize,
    },
    Truncate {
        slot: usize,
        size: u64,
    },
    /// fallocate(2) with punch hole.
    Punch {
        slot: usize,
        offset: u64,
        length: u64,
    },
    /// fallocate(2) with zero range.
    Zero {
        slot: usize,
        offset: u64,
        length: u64,
    },
    /// Plain fallocate(2).
    Allocate {
        slot: usize,
        offset: u64,
        length: u64,
    },
    SetMode {
        path: String,
        mode: u32,
    },
    SetTimes {
        path: String,
    },
    Unlink {
        path: String,
    },
    RemoveDirectory {
        path: String,
    },
    Rename {
        from: String,
        to: String,
        exchange: bool,
    },
    Link {
        from: String,
        to: String,
    },
    Symlink {
        path: String,
        target: String,
    },
    ReadLink {
        path: String,
    },
    ReadDirectory {
        path: String,
    },
    Stat {
        path: String,
    },
    SetXattr {
        path: String,
        value: u64,
    },
    GetXattr {
        path: String,
    },
    /// Makes a storage class, or changes it.
    ChangeClass {
        name: String,
        keep: String,
        create: Option<String>,
        #[serde(default)]
        archive: Option<String>,
    },
    SetClass {
        path: String,
        class: String,
    },
    /// Gives a directory one pattern: files made under such names get the class.
    SetPattern {
        path: String,
        glob: String,
        class: String,
    },
    SetLabel {
        server: u64,
        key: String,
        value: Option<String>,
    },
    /// Puts a server into maintenance for so long from when it is done; 0: ends it.
    Maintain {
        server: u64,
        lasts: Nanos,
    },
    /// Raises the cluster's feature level to the newest, however often it has to ask.
    RaiseLevel,
}

/// What a program is drawn from.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) number: u64,
    pub(super) client: u64,
    pub(super) profile: Profile,
    pub(super) shared: u64,
    pub(super) write_max: u64,
    pub(super) file_max: u64,
    pub(super) think: Range,
    pub(super) duration: Nanos,
}

/// Draws a program.
pub(super) fn draw(options: &Options, rng: Rng) -> Program {
    let mut drawing = Drawing {
        options,
        rng,
        slots: [const { None }; SLOTS],
        steps: Vec::new(),
    };
    drawing.first_steps();
    let mean = (options.think.low + options.think.high) / 2 + OPERATION;
    let steps = (options.duration / mean).clamp(10, STEPS_MAX);
    while (drawing.steps.len() as u64) < steps {
        drawing.next_step();
    }
    for slot in 0..SLOTS {
        drawing.push(FileOperation::Close { slot });
    }
    Program {
        client: options.client,
        steps: drawing.steps,
    }
}

/// An open file as the drawing imagines it.
#[derive(Clone, Debug)]
struct Open {
    write: bool,
    /// Where its content begins: 0, or near the end of the first chunk.
    base: u64,
    /// Where the next sequential write goes.
    cursor: u64,
}

struct Drawing<'a> {
    options: &'a Options,
    rng: Rng,
    slots: [Option<Open>; SLOTS],
    steps: Vec<Step>,
}

impl Drawing<'_> {
    fn push(&mut self, operation: FileOperation) {
        let think = self.options.think.draw(&mut self.rng);
        self.steps.push(Step { think, operation });
    }

    fn first_steps(&mut self) {
        for path in ["d0".to_owned(), "d1".to_owned(), self.own_folder()] {
            self.push(FileOperation::MakeDirectory { path });
        }
    }

    fn own_folder(&self) -> String {
        format!("a{}", self.options.number)
    }

    fn folder(&mut self) -> String {
        match self.rng.below(4) {
            0 => "d0".to_owned(),
            1 => "d1".to_owned(),
            _ => self.own_folder(),
        }
    }

    /// A file's path: shared by all programs now and then.
    fn path(&mut self) -> String {
        let shared = match self.options.profile {
            Profile::Contended => true,
            Profile::Names => self.rng.one_in(2),
            _ => self.rng.one_in(3),
        };
        if shared {
            let folder = self.rng.below(2);
            return format!("d{folder}/f{}", self.rng.below(self.options.shared));
        }
        format!("{}/p{}", self.own_folder(), self.rng.below(6))
    }

    fn next_step(&mut self) {
        let (names, data, syncs) = match self.options.profile {
            Profile::Mixed => (30, 60, 10),
            Profile::Names => (80, 15, 5),
            Profile::Data => (10, 85, 5),
            Profile::Synced => (5, 65, 30),
            Profile::Contended => (25, 65, 10),
            Profile::Orphans => (10, 70, 20),
            Profile::Documents => unreachable!("offices are drawn by themselves"),
        };
        match self.rng.below(names + data + syncs) {
            n if n < names => self.name_step(),
            n if n < names + data => self.data_step(),
            _ => {
                let slot = self.slot();
                self.push(FileOperation::Fsync { slot });
            }
        }
        if is_quick(self.options.profile, self.options.think) && self.rng.one_in(2) {
            let slot = self.slot();
            self.push(FileOperation::Fsync { slot });
        }
    }

    fn slot(&mut self) -> usize {
        self.rng.below(SLOTS as u64) as usize
    }

    fn data_step(&mut self) {
        let slot = self.slot();
        let Some(open) = self.slots[slot].clone() else {
            return self.open_step(slot);
        };
        match self.rng.below(20) {
            0 | 1 => {
                self.slots[slot] = None;
                self.push(FileOperation::Close { slot });
            }
            2..=7 => {
                let (offset, length) = self.range(&open);
                self.push(FileOperation::Read {
                    slot,
                    offset,
                    length,
                });
            }
            8 if open.write => self.shape_step(slot, &open),
            _ if open.write => self.write_step(slot, open),
            _ => {
                let (offset, length) = (open.base, self.options.file_max);
                self.push(FileOperation::Read {
                    slot,
                    offset,
                    length,
                });
            }
        }
    }

    fn open_step(&mut self, slot: usize) {
        let path = self.path();
        let base = match self.rng.below(12) {
            0 => CHUNK_SIZE - self.options.file_max / 2,
            _ => 0,
        };
        let write = !self.rng.one_in(4);
        self.slots[slot] = Some(Open {
            write,
            base,
            cursor: 0,
        });
        let truncate = self.rng.one_in(6);
        let exclusive = self.rng.one_in(8);
        let create = write && !self.rng.one_in(3);
        let unlinked = self.options.profile == Profile::Orphans && self.rng.one_in(2);
        let name = unlinked.then(|| path.clone());
        self.push(match create {
            true => FileOperation::Create {
                path,
                slot,
                exclusive,
            },
            false => FileOperation::Open {
                path,
                slot,
                write,
                truncate: truncate && write,
            },
        });
        if let Some(path) = name {
            self.push(FileOperation::Unlink { path });
        }
    }

    fn write_step(&mut self, slot: usize, mut open: Open) {
        let (mut offset, length) = self.range(&open);
        if !self.rng.one_in(3) {
            // Mostly sequential, as programs write.
            offset = open.base + open.cursor;
            open.cursor = (open.cursor + length) % self.options.file_max;
            self.slots[slot] = Some(open);
        }
        self.push(FileOperation::Write {
            slot,
            offset,
            length,
        });
    }

    fn shape_step(&mut self, slot: usize, open: &Open) {
        let (offset, length) = self.range(open);
        let shape = self.rng.below(6);
        self.push(match shape {
            0 => FileOperation::Punch {
                slot,
                offset,
                length,
            },
            1 => FileOperation::Zero {
                slot,
                offset,
                length,
            },
            2 => FileOperation::Allocate {
                slot,
                offset,
                length,
            },
            _ => FileOperation::Truncate { slot, size: offset },
        });
    }

    /// A range of the file, of any alignment or of whole units.
    fn range(&mut self, open: &Open) -> (u64, u64) {
        let mut offset = self.rng.below(self.options.file_max);
        let mut length = self.rng.between(1, self.options.write_max);
        match self.rng.below(4) {
            0 => {
                offset &= !4095;
                length = (length & !4095).max(4096);
            }
            1 => length = self.rng.between(1, 600.min(self.options.write_max)),
            _ => {}
        }
        (open.base + offset, length)
    }

    fn name_step(&mut self) {
        let path = self.path();
        let operation = match self.rng.below(24) {
            0..=2 => FileOperation::Unlink { path },
            3..=5 => FileOperation::Rename {
                from: path,
                to: self.path(),
                exchange: self.rng.one_in(6),
            },
            6 => FileOperation::Link {
                from: path,
                to: self.path(),
            },
            7 => FileOperation::MakeDirectory {
                path: format!("{}/s{}", self.folder(), self.rng.below(3)),
            },
            8 => FileOperation::RemoveDirectory {
                path: format!("{}/s{}", self.folder(), self.rng.below(3)),
            },
            9 | 10 => FileOperation::ReadDirectory {
                path: self.folder(),
            },
            11 => FileOperation::Symlink {
                path,
                target: format!("to-{}", self.rng.below(100)),
            },
            12 => FileOperation::ReadLink { path },
            13 | 14 => FileOperation::SetMode {
                path,
                mode: 0o600 | (self.rng.below(8) as u32) << 3,
            },
            15 => FileOperation::SetTimes { path },
            16 => FileOperation::SetXattr {
                path,
                value: self.rng.word(),
            },
            17 => FileOperation::GetXattr { path },
            18 => {
                let slot = self.slot();
                return self.open_step(slot);
            }
            19 => FileOperation::Stat {
                path: too_long(&path),
            },
            _ => FileOperation::Stat { path },
        };
        self.push(operation);
    }
}

/// A name beside `path` that no file system of ours has.
fn too_long(path: &str) -> String {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    format!("{folder}/{}", "n".repeat(NAME_MAX + 1))
}
