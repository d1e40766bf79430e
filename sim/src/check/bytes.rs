//! What programs read, against the reference of what bytes may be; and which
//! errors they may see at all.

use crate::model::bytes::{ChangeId, Commit, FileBytes, MountId};
use crate::model::content::{Source, WriteId};
use crate::scenario::Errors;
use crate::workload::{Asked, DataEffect, FileKey};
use antler_core::client::request::{FileReply, FileRequest};
use antler_core::errno::Errno;
use bytes::Bytes;
use std::collections::BTreeMap;

/// A request of a program that is not answered yet.
#[derive(Clone, Debug)]
struct UnderWay {
    mount: MountId,
    file: Option<FileKey>,
    effect: DataEffect,
    change: ChangeId,
    name: &'static str,
}

/// See the module's doc.
pub(crate) struct BytesJudge {
    seed: u64,
    errors: Errors,
    /// Copies of a chunk: the fewest that one was written on.
    copies: u64,
    /// Deaths of chunkservers so far, and disks of theirs that are gone for good: each may
    /// take a copy's unsynced bytes along. At least as many as a lease left copies out.
    deaths: u64,
    files: BTreeMap<FileKey, FileBytes>,
    writes: u32,
    under_way: BTreeMap<u64, UnderWay>,
    /// Reads judged and bytes compared.
    pub(crate) compared: u64,
}

/// A fsync that was answered as done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Synced {
    pub(crate) file: FileKey,
}

impl BytesJudge {
    pub(crate) fn new(seed: u64, errors: Errors, copies: u64) -> Self {
        Self {
            seed,
            errors,
            copies,
            deaths: 0,
            files: BTreeMap::new(),
            writes: 0,
            under_way: BTreeMap::new(),
            compared: 0,
        }
    }

    /// A program asks: a write gets its data here.
    pub(crate) fn on_asked(&mut self, operation: u64, mount: MountId, asked: &mut Asked) {
        let change = match asked.file {
            Some(key) if asked.effect != DataEffect::None => {
                self.begin(operation, mount, key, asked)
            }
            _ => FileBytes::default().newest_change(),
        };
        let under_way = UnderWay {
            mount,
            file: asked.file,
            effect: asked.effect,
            change,
            name: name_of(&asked.body),
        };
        let old = self.under_way.insert(operation, under_way);
        assert!(old.is_none(), "operations are numbered once");
    }

    fn begin(
        &mut self,
        operation: u64,
        mount: MountId,
        key: FileKey,
        asked: &mut Asked,
    ) -> ChangeId {
        let may_lose = self.may_lose();
        let file = self.files.entry(key).or_default();
        if may_lose {
            file.doubt();
        }
        match asked.effect {
            DataEffect::Write { offset, length } => {
                self.writes += 1;
                let source = Source::Write(WriteId(self.writes));
                let mut content = vec![0; length as usize];
                source.fill(self.seed, offset, &mut content);
                if let FileRequest::Write { data, .. } = &mut asked.body {
                    *data = Bytes::from(content);
                }
                file.begin_write(mount, source, offset, length)
            }
            DataEffect::Zero {
                offset,
                length,
                grows_to,
            } => file.begin_zero(mount, offset, length, grows_to),
            DataEffect::Truncate { size } => file.begin_truncate(mount, size),
            DataEffect::Read { offset, length } => {
                file.begin_read(operation, mount, offset, length);
                file.newest_change()
            }
            DataEffect::Flush | DataEffect::Fsync => file.begin_commit(),
            DataEffect::None => file.newest_change(),
        }
    }

    /// Whether so many servers died that what no sync covers may be nowhere any more.
    fn may_lose(&self) -> bool {
        self.errors != Errors::None || self.deaths >= self.copies
    }

    /// A mount answers. Tells of a finished fsync.
    ///
    /// # Errors
    /// What promise the answer breaks.
    pub(crate) fn on_answer(
        &mut self,
        operation: u64,
        result: &Result<FileReply, Errno>,
    ) -> Result<Option<Synced>, String> {
        let under_way = self.under_way.remove(&operation);
        let under_way =
            under_way.ok_or_else(|| format!("request {operation} is answered twice"))?;
        self.judge_error(&under_way, result)?;
        let Some(key) = under_way.file else {
            return Ok(None);
        };
        let done = result.is_ok();
        let (mount, change) = (under_way.mount, under_way.change);
        let file = self.files.entry(key).or_default();
        match under_way.effect {
            DataEffect::None => {}
            DataEffect::Write { offset, length } if done => {
                file.answer_write(mount, change, offset + length);
            }
            DataEffect::Zero { grows_to, .. } if done => file.answer_zero(mount, change, grows_to),
            DataEffect::Write { .. } | DataEffect::Zero { .. } => file.fail(change),
            DataEffect::Truncate { size } if done => file.answer_truncate(mount, change, size),
            DataEffect::Truncate { .. } => file.fail_truncate(change),
            DataEffect::Flush if done => file.commit(mount, change, Commit::Visible),
            DataEffect::Fsync if done => {
                file.commit(mount, change, Commit::Durable);
                return Ok(Some(Synced { file: key }));
            }
            DataEffect::Flush | DataEffect::Fsync => file.fail_commit(mount, change),
            DataEffect::Read { length, .. } => {
                return self.judge_read(operation, key, length, result);
            }
        }
        Ok(None)
    }

    fn judge_read(
        &mut self,
        operation: u64,
        key: FileKey,
        length: u64,
        result: &Result<FileReply, Errno>,
    ) -> Result<Option<Synced>, String> {
        let file = self.files.get_mut(&key).expect("a read began on it");
        let Ok(FileReply::Bytes(bytes)) = result else {
            file.forget_read(operation);
            return Ok(None);
        };
        self.compared += bytes.len() as u64;
        match file.end_read(operation, self.seed, length, bytes) {
            Ok(()) => Ok(None),
            Err(wrong) => Err(format!(
                "a read of {} found at byte {}: {}",
                key.0, wrong.offset, wrong.what
            )),
        }
    }

    /// Errors that no program may see in this scenario.
    fn judge_error(
        &self,
        under_way: &UnderWay,
        result: &Result<FileReply, Errno>,
    ) -> Result<(), String> {
        let Err(errno) = *result else {
            return Ok(());
        };
        let allowed = match errno {
            // What POSIX foresees for names that others change meanwhile.
            Errno::ENOENT
            | Errno::EEXIST
            | Errno::ENOTDIR
            | Errno::EISDIR
            | Errno::ENOTEMPTY
            | Errno::EINVAL
            | Errno::ENODATA
            | Errno::ESTALE
            | Errno::ELOOP
            | Errno::EPERM
            | Errno::EACCES => under_way.effect == DataEffect::None || !under_way.effect.is_plain(),
            // Programs look such names up; the judge of names knows which.
            Errno::ENAMETOOLONG => under_way.name == "lookup",
            // A class whose law would be broken; the reference file system knows when.
            // An order that the cluster's feature level has no words for yet; the reference
            // file system knows when.
            Errno::EOPNOTSUPP => matches!(under_way.name, "class order" | "raise"),
            Errno::EBUSY if under_way.name == "raise" => true,
            Errno::EXDEV => matches!(under_way.name, "rename" | "link"),
            Errno::ENOSPC => self.errors != Errors::None,
            // What was acknowledged and not synced may be lost when every server that
            // held it died or lost its disk: then the loss must be told, and the bytes are
            // judged still.
            Errno::EIO => {
                let tells = !matches!(under_way.effect, DataEffect::Read { .. });
                tells && self.deaths >= self.copies
            }
            _ => false,
        };
        if allowed || self.errors == Errors::Any {
            return Ok(());
        }
        Err(format!(
            "a program's {} failed with {errno:?}",
            under_way.name
        ))
    }

    /// A mount died: what it had under way is answered by nobody.
    pub(crate) fn lose_mount(&mut self, mount: MountId) {
        let lost: Vec<u64> = self
            .under_way
            .iter()
            .filter(|(_, under_way)| under_way.mount == mount)
            .map(|(&operation, _)| operation)
            .collect();
        for operation in lost {
            let under_way = self
                .under_way
                .remove(&operation)
                .expect("it was just found");
            if let (Some(key), DataEffect::Read { .. }) = (under_way.file, under_way.effect) {
                let file = self.files.get_mut(&key).expect("a read began on it");
                file.forget_read(operation);
            }
        }
        for file in self.files.values_mut() {
            file.lose_mount(mount);
        }
    }

    /// A lease was granted on so many copies. Who is left out need not have died: where disks
    /// fill up fewer are made, and one that is cut off has nothing of what is written from
    /// now on, as if it had died.
    pub(crate) fn note_write_set(&mut self, copies: usize) {
        let copies = copies as u64;
        if self.errors != Errors::None {
            self.copies = self.copies.min(copies);
        }
        self.deaths = self.deaths.max(self.copies.saturating_sub(copies));
    }

    /// A chunkserver died: what was not synced may be gone.
    pub(crate) fn lose_server(&mut self) {
        self.deaths += 1;
        let may_lose = self.may_lose();
        for file in self.files.values_mut() {
            file.lose_server();
            if may_lose {
                file.doubt();
            }
        }
    }

    /// A disk of a chunkserver is gone for good. Other copies have what was on it until
    /// their servers die, which is when reads may find less.
    pub(crate) fn lose_disk(&mut self) {
        self.deaths += 1;
    }

    pub(crate) fn file(&self, key: FileKey) -> Option<&FileBytes> {
        self.files.get(&key)
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }
}

impl DataEffect {
    /// An operation on an open file, which no change of names can disturb.
    fn is_plain(self) -> bool {
        matches!(
            self,
            Self::Write { .. } | Self::Read { .. } | Self::Flush | Self::Fsync | Self::Zero { .. }
        )
    }
}

fn name_of(body: &FileRequest) -> &'static str {
    match body {
        FileRequest::SetClass { .. }
        | FileRequest::SetPatterns { .. }
        | FileRequest::ChangeClass(_)
        | FileRequest::SetLabel { .. } => "class order",
        FileRequest::RaiseLevel { .. } => "raise",
        FileRequest::Lookup { .. } => "lookup",
        FileRequest::GetAttributes { .. } => "stat",
        FileRequest::SetAttributes { .. } => "setattr",
        FileRequest::ReadLink { .. } => "readlink",
        FileRequest::Make { .. } => "mkdir or symlink",
        FileRequest::Create { .. } => "create",
        FileRequest::Unlink { .. } => "unlink",
        FileRequest::Rmdir { .. } => "rmdir",
        FileRequest::Rename { .. } => "rename",
        FileRequest::Link { .. } => "link",
        FileRequest::Open { .. } => "open",
        FileRequest::Read { .. } => "read",
        FileRequest::Write { .. } => "write",
        FileRequest::Flush { .. } => "close",
        FileRequest::Release { .. } => "release",
        FileRequest::Fsync { .. } => "fsync",
        FileRequest::ReadDirectory { .. } => "readdir",
        FileRequest::SetXattr { .. } => "setxattr",
        FileRequest::GetXattr { .. } => "getxattr",
        FileRequest::Fallocate { .. } => "fallocate",
        _ => "request",
    }
}
