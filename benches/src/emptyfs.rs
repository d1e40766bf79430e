//! A FUSE file system that remembers names and lengths and no data: the ceiling.
//!
//! Nothing that answers through FUSE on the same machine with the same library
//! can be faster, so it tells how much of a score belongs to the kernel. Owns
//! an inode table in memory. Leaves out what no workload asks for: links, extended
//! attributes, permissions, and files that are open after their last name went.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use crate::failure::{Doing, Outcome};

/// How long the kernel may remember a name or attributes: MooseFS's default.
const REMEMBERED: Duration = Duration::from_secs(1);

/// The longest read or write the kernel asks for, in bytes.
const TRANSFER_MAX: usize = 1 << 20;

/// What is read: nothing was kept.
static ZEROS: [u8; TRANSFER_MAX] = [0; TRANSFER_MAX];

/// Serves the empty file system at `mount` until it is unmounted.
pub(crate) fn serve(mount: &Path) -> Outcome<()> {
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("empty".into())];
    config.n_threads = Some(2);
    config.clone_fd = true;
    fuser::mount(EmptyFs::new(), mount, &config).doing(|| format!("serving {}", mount.display()))
}

struct EmptyFs {
    table: Mutex<Table>,
}

struct Table {
    nodes: HashMap<INodeNo, Node>,
    listings: HashMap<FileHandle, Vec<(INodeNo, FileType, OsString)>>,
    next: u64,
}

struct Node {
    attributes: FileAttr,
    children: BTreeMap<OsString, INodeNo>,
}

impl EmptyFs {
    fn new() -> Self {
        let mut table = Table {
            nodes: HashMap::new(),
            listings: HashMap::new(),
            next: 1,
        };
        let root = table.add(FileType::Directory, 0o755, 0, 0);
        assert_eq!(root.ino, INodeNo::ROOT);
        Self {
            table: Mutex::new(table),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no holder panics")
    }
}

impl Table {
    fn add(&mut self, kind: FileType, perm: u16, uid: u32, gid: u32) -> FileAttr {
        let now = SystemTime::now();
        let attributes = FileAttr {
            ino: INodeNo(self.next),
            size: 0,
            blocks: 0,
            atime: now,
            mtime: now,
            ctime: now,
            crtime: now,
            kind,
            perm,
            nlink: 1,
            uid,
            gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        };
        self.next += 1;
        let children = BTreeMap::new();
        let node = Node {
            attributes,
            children,
        };
        let before = self.nodes.insert(attributes.ino, node);
        assert!(before.is_none(), "inode numbers are not used twice");
        attributes
    }

    fn node(&mut self, ino: INodeNo) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&ino).ok_or(Errno::ENOENT)
    }

    fn find(&mut self, parent: INodeNo, name: &OsStr) -> Result<FileAttr, Errno> {
        let child = self.node(parent)?.children.get(name);
        let child = *child.ok_or(Errno::ENOENT)?;
        Ok(self.node(child)?.attributes)
    }

    fn make(
        &mut self,
        req: &Request,
        place: (INodeNo, &OsStr),
        kind: FileType,
        mode: u32,
    ) -> Result<FileAttr, Errno> {
        let (parent, name) = place;
        if self.node(parent)?.children.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let perm = (mode & 0o7777) as u16;
        let made = self.add(kind, perm, req.uid(), req.gid());
        self.node(parent)?.children.insert(name.into(), made.ino);
        Ok(made)
    }

    fn remove(&mut self, parent: INodeNo, name: &OsStr) -> Result<(), Errno> {
        let found = self.find(parent, name)?;
        if !self.node(found.ino)?.children.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.node(parent)?.children.remove(name);
        self.nodes.remove(&found.ino);
        Ok(())
    }

    fn rename(&mut self, from: (INodeNo, &OsStr), to: (INodeNo, &OsStr)) -> Result<(), Errno> {
        let moved = self.find(from.0, from.1)?.ino;
        let target = self.find(to.0, to.1).map(|found| found.ino);
        if target.is_ok_and(|target| target != moved) {
            self.remove(to.0, to.1)?;
        }
        self.node(from.0)?.children.remove(from.1);
        self.node(to.0)?.children.insert(to.1.into(), moved);
        Ok(())
    }

    fn grow(&mut self, ino: INodeNo, end: u64) -> Result<(), Errno> {
        let attributes = &mut self.node(ino)?.attributes;
        attributes.size = attributes.size.max(end);
        attributes.blocks = attributes.size.div_ceil(512);
        attributes.mtime = SystemTime::now();
        Ok(())
    }

    fn list(&mut self, ino: INodeNo) -> Result<FileHandle, Errno> {
        let children = self.node(ino)?.children.clone();
        let mut listing = vec![
            (ino, FileType::Directory, OsString::from(".")),
            (ino, FileType::Directory, OsString::from("..")),
        ];
        for (name, child) in children {
            let kind = self.node(child)?.attributes.kind;
            listing.push((child, kind, name));
        }
        let handle = FileHandle(self.next);
        self.next += 1;
        self.listings.insert(handle, listing);
        Ok(handle)
    }
}

/// A reply that carries an entry or an errno.
fn entry(reply: ReplyEntry, made: Result<FileAttr, Errno>) {
    match made {
        Ok(attributes) => reply.entry(&REMEMBERED, &attributes, Generation(0)),
        Err(errno) => reply.error(errno),
    }
}

/// A reply that carries nothing or an errno.
fn empty(reply: ReplyEmpty, done: Result<(), Errno>) {
    match done {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

fn time(wanted: TimeOrNow) -> SystemTime {
    match wanted {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

impl Filesystem for EmptyFs {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let _before = config.set_max_write(TRANSFER_MAX as u32);
        let _refused = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(reply, self.table().find(parent, name));
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.table().node(ino) {
            Ok(node) => reply.attr(&REMEMBERED, &node.attributes),
            Err(errno) => reply.error(errno),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut table = self.table();
        let attributes = match table.node(ino) {
            Ok(node) => &mut node.attributes,
            Err(errno) => return reply.error(errno),
        };
        attributes.perm = mode.map_or(attributes.perm, |mode| (mode & 0o7777) as u16);
        attributes.uid = uid.unwrap_or(attributes.uid);
        attributes.gid = gid.unwrap_or(attributes.gid);
        attributes.size = size.unwrap_or(attributes.size);
        attributes.atime = atime.map_or(attributes.atime, time);
        attributes.mtime = mtime.map_or(attributes.mtime, time);
        reply.attr(&REMEMBERED, attributes);
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let place = (parent, name);
        let made = self
            .table()
            .make(req, place, FileType::Directory, mode & !umask);
        entry(reply, made);
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let place = (parent, name);
        let made = self
            .table()
            .make(req, place, FileType::RegularFile, mode & !umask);
        match made {
            Ok(attributes) => reply.created(
                &REMEMBERED,
                &attributes,
                Generation(0),
                FileHandle(0),
                FopenFlags::empty(),
            ),
            Err(errno) => reply.error(errno),
        }
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.table().remove(parent, name));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.table().remove(parent, name));
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        empty(
            reply,
            self.table().rename((parent, name), (newparent, newname)),
        );
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let length = match self.table().node(ino) {
            Ok(node) => node.attributes.size.saturating_sub(offset),
            Err(errno) => return reply.error(errno),
        };
        let length = length.min(u64::from(size)).min(TRANSFER_MAX as u64);
        reply.data(&ZEROS[..length as usize]);
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.table().grow(ino, offset + data.len() as u64) {
            Ok(()) => reply.written(data.len() as u32),
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.table().list(ino) {
            Ok(handle) => reply.opened(handle, FopenFlags::empty()),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let table = self.table();
        let Some(listing) = table.listings.get(&fh) else {
            return reply.error(Errno::EBADF);
        };
        for (place, (ino, kind, name)) in listing.iter().enumerate().skip(offset as usize) {
            if reply.add(*ino, place as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.table().listings.remove(&fh);
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let files = self.table().nodes.len() as u64;
        reply.statfs(1 << 30, 1 << 30, 1 << 30, files, 1 << 30, 4096, 255, 4096);
    }
}
