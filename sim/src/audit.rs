//! The last program on every mount: it walks the tree and reads every file, so
//! that what healed is seen by somebody. It remembers what it found, so that the
//! mounts can be compared with each other.

use crate::workload::{Asked, DataEffect, FileKey, Next};
use antler_core::attributes::FileKind;
use antler_core::client::request::{FileReply, FileRequest, Handle};
use antler_core::errno::Errno;
use antler_core::ids::InodeId;
use antler_core::limits::CHUNK_SIZE;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of one read.
const PIECE: u64 = 256 << 10;
/// How much is read on either side of the end of the first chunk, and from 0 on:
/// programs write nowhere else.
const REACH: u64 = 3 << 20;

#[derive(Debug)]
enum Stage {
    Listing {
        folder: InodeId,
        cookie: u64,
    },
    Opening {
        file: FileKey,
    },
    Reading {
        file: FileKey,
        handle: Handle,
        offset: u64,
        size: u64,
        found: Vec<Bytes>,
    },
    Done,
}

/// What a file held.
#[derive(Debug)]
pub(crate) struct Content {
    size: u64,
    found: Vec<Bytes>,
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.size == other.size && same_bytes(&self.found, &other.found)
    }
}

/// Whether two lists of pieces hold the same bytes, however they are cut.
fn same_bytes(one: &[Bytes], other: &[Bytes]) -> bool {
    let length = |pieces: &[Bytes]| pieces.iter().map(Bytes::len).sum::<usize>();
    if length(one) != length(other) {
        return false;
    }
    let mut others = other.iter();
    let mut rest: &[u8] = &[];
    one.iter().all(|piece| {
        let mut piece = &piece[..];
        while !piece.is_empty() {
            if rest.is_empty() {
                rest = others.next().expect("both have as many bytes");
                continue;
            }
            let common = piece.len().min(rest.len());
            let (begin, end) = (piece.split_at(common), rest.split_at(common));
            if begin.0 != end.0 {
                return false;
            }
            (piece, rest) = (begin.1, end.1);
        }
        true
    })
}

/// A walk over the whole tree from one mount.
pub(crate) struct Auditor {
    stage: Stage,
    folders: Vec<InodeId>,
    files: BTreeMap<FileKey, u64>,
    seen: BTreeSet<FileKey>,
    /// Names found, and the content of files.
    pub(crate) names: BTreeMap<(InodeId, Vec<u8>), FileKey>,
    pub(crate) contents: BTreeMap<FileKey, Content>,
}

impl Auditor {
    pub(crate) fn new() -> Self {
        Self {
            stage: Stage::Listing {
                folder: InodeId::ROOT,
                cookie: 0,
            },
            folders: Vec::new(),
            files: BTreeMap::new(),
            seen: BTreeSet::new(),
            names: BTreeMap::new(),
            contents: BTreeMap::new(),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// What it wants next.
    pub(crate) fn ask(&self) -> Next {
        match self.stage {
            Stage::Listing { folder, cookie } => Next::Ask(Asked {
                body: FileRequest::ReadDirectory {
                    inode: folder,
                    cookie,
                    most: 100,
                },
                file: None,
                effect: DataEffect::None,
            }),
            Stage::Opening { file } => Next::Ask(Asked {
                body: FileRequest::Open {
                    inode: file.0,
                    read: true,
                    write: false,
                    truncate: false,
                },
                file: None,
                effect: DataEffect::None,
            }),
            Stage::Reading {
                file,
                handle,
                offset,
                ..
            } => Next::Ask(Asked {
                body: FileRequest::Read {
                    inode: file.0,
                    handle,
                    offset,
                    length: PIECE as u32,
                },
                file: Some(file),
                effect: DataEffect::Read {
                    offset,
                    length: PIECE,
                },
            }),
            Stage::Done => Next::Done,
        }
    }

    /// Goes on after an answer.
    pub(crate) fn on_answer(&mut self, result: &Result<FileReply, Errno>) {
        self.stage = match (std::mem::replace(&mut self.stage, Stage::Done), result) {
            (Stage::Listing { folder, .. }, Ok(FileReply::Entries { entries, end, .. })) => {
                let mut cookie = 0;
                for entry in entries {
                    cookie = entry.cookie;
                    let key = (entry.attributes.inode, entry.attributes.generation);
                    self.names.insert((folder, entry.name.clone()), key);
                    match entry.attributes.kind {
                        FileKind::Directory => self.folders.push(entry.attributes.inode),
                        FileKind::Regular => {
                            self.files.insert(key, entry.attributes.size);
                        }
                        _ => {}
                    }
                }
                match *end || entries.is_empty() {
                    true => self.next(),
                    false => Stage::Listing { folder, cookie },
                }
            }
            (
                Stage::Opening { file },
                Ok(FileReply::Opened {
                    handle, attributes, ..
                }),
            ) => Stage::Reading {
                file,
                handle: *handle,
                offset: 0,
                size: attributes.size,
                found: Vec::new(),
            },
            (
                Stage::Reading {
                    file,
                    handle,
                    offset,
                    size,
                    mut found,
                },
                Ok(FileReply::Bytes(bytes)),
            ) => {
                found.push(bytes.clone());
                match next_offset(offset, bytes.len() as u64, size) {
                    Some(offset) => Stage::Reading {
                        file,
                        handle,
                        offset,
                        size,
                        found,
                    },
                    None => {
                        self.contents.insert(file, Content { size, found });
                        self.next()
                    }
                }
            }
            // Removed meanwhile, or not to be read: the judges saw the error.
            _ => self.next(),
        };
    }

    fn next(&mut self) -> Stage {
        if let Some(folder) = self.folders.pop() {
            return Stage::Listing { folder, cookie: 0 };
        }
        while let Some((file, _)) = self.files.pop_first() {
            if self.seen.insert(file) {
                return Stage::Opening { file };
            }
        }
        Stage::Done
    }
}

fn next_offset(offset: u64, got: u64, size: u64) -> Option<u64> {
    let next = offset + got;
    if got == 0 || next >= size {
        return None;
    }
    let far = CHUNK_SIZE - REACH;
    if next >= REACH && next < far && far < size {
        return Some(far);
    }
    (next < REACH || next >= far).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(bytes: &'static [u8], lengths: &[usize]) -> Vec<Bytes> {
        let mut left = Bytes::from_static(bytes);
        lengths
            .iter()
            .map(|&length| left.split_to(length))
            .collect()
    }

    #[test]
    fn pieces_compare_by_their_bytes_alone() {
        let whole = cut(b"abcdefgh", &[8]);
        for lengths in [&[3, 5][..], &[0, 1, 0, 7], &[4, 4, 0]] {
            assert!(same_bytes(&whole, &cut(b"abcdefgh", lengths)));
            assert!(same_bytes(&cut(b"abcdefgh", lengths), &whole));
            assert!(!same_bytes(&whole, &cut(b"abcdefgX", lengths)));
        }
        assert!(!same_bytes(&whole, &cut(b"abcdefgh", &[7])));
        assert!(!same_bytes(&cut(b"abcdefgh", &[7]), &whole));
        assert!(same_bytes(&[], &cut(b"", &[0])));
    }
}
