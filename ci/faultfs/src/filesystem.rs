//! The kernel's requests, translated to calls of `tree`, with the faults asked
//! for in between. Owns the gate that a power cut closes: no request runs
//! during a cut, and all fail with EIO while the layer is dark.
//!
//! The kernel is told to keep no name (time to live 0), so that after a cut it
//! asks again and meets new nodes with an empty page cache.

use crate::names::{NodeId, Place};
use crate::rules::{Operation, Rules, Verdict};
use crate::tree::{CutReport, CutRequest, Tree};
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite,
    Request, TimeOrNow, WriteFlags,
};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{Metadata, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const FORGET_AT_ONCE: Duration = Duration::ZERO;
const ATTRIBUTES_LIVE: Duration = Duration::from_secs(1);

type Listing = Vec<(OsString, FileType, u64)>;

/// What the requests, the control socket and the signals share.
#[derive(Debug)]
pub(crate) struct Layer {
    tree: Tree,
    /// Whether everything fails, from a cut to its end.
    dark: RwLock<bool>,
    /// The faults asked for.
    pub(crate) rules: Rules,
}

impl Layer {
    /// A layer over `tree`, lit.
    pub(crate) fn new(tree: Tree, seed: u64) -> Self {
        Self {
            tree,
            dark: RwLock::new(false),
            rules: Rules::new(seed),
        }
    }

    /// Fails the power. `stay_dark`: all requests fail until `restore`.
    pub(crate) fn cut(&self, asked: CutRequest, stay_dark: bool) -> io::Result<CutReport> {
        let mut dark = self.dark.write().expect("no holder panics");
        *dark = stay_dark;
        self.tree.cut(asked)
    }

    /// Ends the dark.
    pub(crate) fn restore(&self) {
        *self.dark.write().expect("no holder panics") = false;
    }

    /// Files with unsynced content and pending changes of names.
    pub(crate) fn unsynced(&self) -> (usize, usize) {
        self.tree.unsynced()
    }

    /// Leaves nothing of the layer in the backing directory.
    pub(crate) fn close(&self) -> io::Result<()> {
        self.tree.close()
    }

    fn gate(&self) -> io::Result<RwLockReadGuard<'_, bool>> {
        let dark = self.dark.read().expect("no holder panics");
        if *dark {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(dark)
    }

    fn strike(
        &self,
        operation: Operation,
        id: NodeId,
        name: Option<&OsStr>,
    ) -> io::Result<Verdict> {
        let path = || match name {
            Some(name) => self.tree.relative(id).join(name),
            None => self.tree.relative(id),
        };
        match self.rules.strike(operation, path) {
            Verdict::Fail(errno) => Err(io::Error::from_raw_os_error(errno)),
            verdict => Ok(verdict),
        }
    }

    /// Strikes, then runs `action` behind the gate.
    fn run<T>(
        &self,
        operation: Operation,
        id: NodeId,
        name: Option<&OsStr>,
        action: impl FnOnce(&Tree) -> io::Result<T>,
    ) -> io::Result<T> {
        self.strike(operation, id, name)?;
        let _lit = self.gate()?;
        action(&self.tree)
    }

    fn quiet<T>(&self, action: impl FnOnce(&Tree) -> io::Result<T>) -> io::Result<T> {
        let _lit = self.gate()?;
        action(&self.tree)
    }

    fn sync(&self, id: NodeId) -> io::Result<()> {
        match self.strike(Operation::Sync, id, None) {
            Ok(Verdict::Lie) => Ok(()),
            Ok(_) => self.quiet(|tree| tree.sync(id)),
            Err(error) => {
                self.tree.sync_failed(id);
                Err(error)
            }
        }
    }

    fn sync_directory(&self, id: NodeId) -> io::Result<()> {
        match self.strike(Operation::Sync, id, None)? {
            Verdict::Lie => Ok(()),
            _ => self.quiet(|tree| tree.sync_directory(id)),
        }
    }
}

/// The FUSE side of a layer.
#[derive(Debug)]
pub(crate) struct FaultFilesystem {
    layer: Arc<Layer>,
    listings: Mutex<HashMap<u64, Arc<Listing>>>,
    next_listing: AtomicU64,
}

impl FaultFilesystem {
    /// Serves `layer`.
    pub(crate) fn new(layer: Arc<Layer>) -> Self {
        Self {
            layer,
            listings: Mutex::default(),
            next_listing: AtomicU64::new(1),
        }
    }

    fn make(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        make: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<FileAttr> {
        let owner = (request.uid(), request.gid());
        self.layer
            .run(Operation::Create, id(parent), Some(name), |tree| {
                let (node, metadata) = tree.create(id(parent), name, |path| {
                    make(path)?;
                    give_to(path, owner)
                })?;
                Ok(attributes(node, &metadata))
            })
    }
}

/// New nodes belong to who asked, as far as we may say so.
fn give_to(path: &Path, (uid, gid): (u32, u32)) -> io::Result<()> {
    if rustix::process::geteuid().is_root() && (uid, gid) != (0, 0) {
        std::os::unix::fs::lchown(path, Some(uid), Some(gid))?;
    }
    Ok(())
}

fn id(inode: INodeNo) -> NodeId {
    NodeId(inode.0)
}

fn attributes(node: NodeId, metadata: &Metadata) -> FileAttr {
    let time = |seconds: i64, nanoseconds: i64| {
        let whole = Duration::from_secs(seconds.unsigned_abs());
        let base = if seconds < 0 {
            UNIX_EPOCH - whole
        } else {
            UNIX_EPOCH + whole
        };
        base + Duration::from_nanos(nanoseconds.unsigned_abs())
    };
    FileAttr {
        ino: INodeNo(node.0),
        size: metadata.size(),
        blocks: metadata.blocks(),
        atime: time(metadata.atime(), metadata.atime_nsec()),
        mtime: time(metadata.mtime(), metadata.mtime_nsec()),
        ctime: time(metadata.ctime(), metadata.ctime_nsec()),
        crtime: UNIX_EPOCH,
        kind: kind(metadata.file_type()),
        perm: (metadata.mode() & 0o7777) as u16,
        nlink: u32::try_from(metadata.nlink()).unwrap_or(u32::MAX),
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: metadata.rdev() as u32,
        blksize: 4096,
        flags: 0,
    }
}

fn kind(from: std::fs::FileType) -> FileType {
    match from {
        kind if kind.is_dir() => FileType::Directory,
        kind if kind.is_symlink() => FileType::Symlink,
        kind if kind.is_fifo() => FileType::NamedPipe,
        kind if kind.is_socket() => FileType::Socket,
        kind if kind.is_char_device() => FileType::CharDevice,
        kind if kind.is_block_device() => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

fn errno(error: io::Error) -> Errno {
    let code = error.raw_os_error().unwrap_or_else(|| match error.kind() {
        io::ErrorKind::NotFound => libc::ENOENT,
        io::ErrorKind::AlreadyExists => libc::EEXIST,
        io::ErrorKind::PermissionDenied => libc::EPERM,
        io::ErrorKind::Unsupported => libc::EOPNOTSUPP,
        _ => libc::EIO,
    });
    Errno::from_i32(code)
}

macro_rules! answer {
    ($reply:expr, $result:expr, |$value:pat_param| $good:expr) => {
        match $result {
            Ok($value) => $good,
            Err(error) => $reply.error(errno(error)),
        }
    };
}

fn timestamp(time: Option<TimeOrNow>) -> rustix::fs::Timespec {
    let (seconds, nanoseconds) = match time {
        None => (0, rustix::fs::UTIME_OMIT),
        Some(TimeOrNow::Now) => (0, rustix::fs::UTIME_NOW),
        Some(TimeOrNow::SpecificTime(time)) => since_epoch(time),
    };
    rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    }
}

fn since_epoch(time: SystemTime) -> (i64, i64) {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (
            after.as_secs().cast_signed(),
            i64::from(after.subsec_nanos()),
        ),
        Err(before) => (-before.duration().as_secs().cast_signed(), 0),
    }
}

/// What setattr asks for besides a length.
struct Asked {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    times: Option<rustix::fs::Timestamps>,
}

impl Asked {
    fn apply(self, path: &Path) -> io::Result<()> {
        if self.uid.is_some() || self.gid.is_some() {
            std::os::unix::fs::lchown(path, self.uid, self.gid)?;
        }
        if let Some(mode) = self.mode {
            std::fs::set_permissions(path, Permissions::from_mode(mode & 0o7777))?;
        }
        if let Some(times) = self.times {
            rustix::fs::utimensat(
                rustix::fs::CWD,
                path,
                &times,
                rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
            )?;
        }
        Ok(())
    }

    fn is_nothing(&self) -> bool {
        self.mode.is_none() && self.uid.is_none() && self.gid.is_none() && self.times.is_none()
    }
}

impl Filesystem for FaultFilesystem {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Where the kernel lacks one of these, only speed is lost.
        let _ = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS);
        let _ = config.set_max_write(1 << 20);
        let _ = config.set_max_background(64);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.layer.quiet(|tree| tree.lookup(id(parent), name));
        answer!(reply, found, |(node, metadata)| reply.entry_with_ttls(
            &FORGET_AT_ONCE,
            &ATTRIBUTES_LIVE,
            &attributes(node, &metadata),
            Generation(0)
        ));
    }

    fn getattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let found = self.layer.quiet(|tree| tree.metadata(id(inode)));
        answer!(reply, found, |metadata| reply
            .attr(&ATTRIBUTES_LIVE, &attributes(id(inode), &metadata)));
    }

    fn setattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let timed = atime.is_some() || mtime.is_some();
        let times = timed.then(|| rustix::fs::Timestamps {
            last_access: timestamp(atime),
            last_modification: timestamp(mtime),
        });
        let asked = Asked {
            mode,
            uid,
            gid,
            times,
        };
        let done = match size {
            Some(length) => self
                .layer
                .run(Operation::Truncate, id(inode), None, |tree| {
                    tree.truncate(id(inode), length)
                }),
            None => Ok(()),
        };
        let done = done.and_then(|()| {
            self.layer.quiet(|tree| {
                if !asked.is_nothing() {
                    asked.apply(&tree.path(id(inode))?)?;
                }
                tree.metadata(id(inode))
            })
        });
        answer!(reply, done, |metadata| reply
            .attr(&ATTRIBUTES_LIVE, &attributes(id(inode), &metadata)));
    }

    fn readlink(&self, _request: &Request, inode: INodeNo, reply: ReplyData) {
        use std::os::unix::ffi::OsStrExt;
        let target = self
            .layer
            .quiet(|tree| std::fs::read_link(tree.path(id(inode))?));
        answer!(reply, target, |target| reply
            .data(target.as_os_str().as_bytes()));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        let made = self.make(request, parent, name, |path| {
            let kind = rustix::fs::FileType::from_raw_mode(mode);
            let mode = rustix::fs::Mode::from_raw_mode(mode);
            Ok(rustix::fs::mknodat(
                rustix::fs::CWD,
                path,
                kind,
                mode,
                device.into(),
            )?)
        });
        answer!(reply, made, |attributes| reply.entry_with_ttls(
            &FORGET_AT_ONCE,
            &ATTRIBUTES_LIVE,
            &attributes,
            Generation(0)
        ));
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let made = self.make(request, parent, name, |path| {
            Ok(rustix::fs::mkdir(
                path,
                rustix::fs::Mode::from_raw_mode(mode),
            )?)
        });
        answer!(reply, made, |attributes| reply.entry_with_ttls(
            &FORGET_AT_ONCE,
            &ATTRIBUTES_LIVE,
            &attributes,
            Generation(0)
        ));
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let made = self.make(request, parent, name, |path| {
            std::os::unix::fs::symlink(target, path)
        });
        answer!(reply, made, |attributes| reply.entry_with_ttls(
            &FORGET_AT_ONCE,
            &ATTRIBUTES_LIVE,
            &attributes,
            Generation(0)
        ));
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self
            .layer
            .run(Operation::Remove, id(parent), Some(name), |tree| {
                tree.remove(id(parent), name)
            });
        answer!(reply, done, |()| reply.ok());
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self
            .layer
            .run(Operation::Remove, id(parent), Some(name), |tree| {
                tree.remove(id(parent), name)
            });
        answer!(reply, done, |()| reply.ok());
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if flags.intersects(RenameFlags::RENAME_EXCHANGE | RenameFlags::RENAME_WHITEOUT) {
            return reply.error(Errno::EINVAL);
        }
        let from = Place {
            directory: id(parent),
            name: name.to_owned(),
        };
        let to = Place {
            directory: id(new_parent),
            name: new_name.to_owned(),
        };
        let no_replace = flags.contains(RenameFlags::RENAME_NOREPLACE);
        let done = self
            .layer
            .run(Operation::Rename, id(parent), Some(name), |tree| {
                tree.rename(from, to, no_replace)
            });
        answer!(reply, done, |()| reply.ok());
    }

    fn open(&self, _request: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let done = self.layer.run(Operation::Open, id(inode), None, |tree| {
            tree.open(id(inode))
        });
        answer!(reply, done, |()| reply
            .opened(FileHandle(inode.0), FopenFlags::empty()));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        use std::os::unix::fs::OpenOptionsExt;
        let made = self.make(request, parent, name, |path| {
            std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode & 0o7777)
                .open(path)
                .map(drop)
        });
        let opened = made.and_then(|made| {
            self.layer
                .quiet(|tree| tree.open(id(made.ino)))
                .map(|()| made)
        });
        answer!(reply, opened, |made| reply.created(
            &FORGET_AT_ONCE,
            &made,
            Generation(0),
            FileHandle(made.ino.0),
            FopenFlags::empty()
        ));
    }

    fn read(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut buffer = vec![0; size as usize];
        let read = self.layer.run(Operation::Read, id(inode), None, |tree| {
            tree.file(id(inode))?.read_at(&mut buffer, offset)
        });
        answer!(reply, read, |length| reply.data(&buffer[..length]));
    }

    fn write(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let done = self.layer.run(Operation::Write, id(inode), None, |tree| {
            tree.write(id(inode), offset, data)
        });
        answer!(reply, done, |()| reply.written(
            u32::try_from(data.len()).expect("a request is below 16 MiB")
        ));
    }

    fn flush(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn release(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.layer.tree.release(id(inode));
        reply.ok();
    }

    fn fsync(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        answer!(reply, self.layer.sync(id(inode)), |()| reply.ok());
    }

    fn opendir(&self, _request: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let listed = self.layer.run(Operation::List, id(inode), None, |tree| {
            tree.list(id(inode))
        });
        answer!(reply, listed, |entries| {
            let mut listing: Listing = vec![
                (".".into(), FileType::Directory, inode.0),
                ("..".into(), FileType::Directory, 1),
            ];
            listing.extend(
                entries
                    .into_iter()
                    .map(|(name, file_type, number)| (name, kind(file_type), number)),
            );
            let handle = self.next_listing.fetch_add(1, Ordering::Relaxed);
            self.listings
                .lock()
                .expect("no holder panics")
                .insert(handle, Arc::new(listing));
            reply.opened(FileHandle(handle), FopenFlags::empty());
        });
    }

    fn readdir(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listing = self
            .listings
            .lock()
            .expect("no holder panics")
            .get(&handle.0)
            .cloned();
        let Some(listing) = listing else {
            return reply.error(Errno::EBADF);
        };
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, (name, kind, number)) in listing.iter().enumerate().skip(from) {
            if reply.add(INodeNo(*number), index as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.listings
            .lock()
            .expect("no holder panics")
            .remove(&handle.0);
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        let done = self.layer.sync_directory(id(inode));
        answer!(reply, done, |()| reply.ok());
    }

    fn statfs(&self, _request: &Request, _inode: INodeNo, reply: ReplyStatfs) {
        let found = self
            .layer
            .quiet(|tree| Ok(rustix::fs::statvfs(&tree.path(crate::names::ROOT)?)?));
        let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        answer!(reply, found, |s| reply.statfs(
            s.f_blocks,
            s.f_bfree,
            s.f_bavail,
            s.f_files,
            s.f_ffree,
            narrow(s.f_bsize),
            narrow(s.f_namemax),
            narrow(s.f_frsize)
        ));
    }

    fn fallocate(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mode = rustix::fs::FallocateFlags::from_bits_retain(mode.cast_unsigned());
        let done = self.layer.run(Operation::Write, id(inode), None, |tree| {
            tree.allocate(id(inode), offset, length, mode)
        });
        answer!(reply, done, |()| reply.ok());
    }

    fn lseek(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        use rustix::fs::SeekFrom;
        let offset = offset.cast_unsigned();
        let whence = match whence {
            libc::SEEK_DATA => SeekFrom::Data(offset),
            libc::SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return reply.error(Errno::EINVAL),
        };
        let found = self
            .layer
            .quiet(|tree| Ok(rustix::fs::seek(&*tree.file(id(inode))?, whence)?));
        answer!(reply, found, |found| reply.offset(found.cast_signed()));
    }
}
