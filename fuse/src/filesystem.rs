//! One method per kernel request: its arguments become a request of the client
//! machine, its reply goes to the table of those that wait.

use crate::caller;
use crate::convert::{
    Root, errno, fallocate_mode, kind_of_mode, rename_mode, time_change, xattr_mode,
};
use crate::directory::{Directories, FETCH, cookie};
use crate::mount::Desk;
use crate::virtual_attributes;
use crate::waiting::{self, Listing, Page, Waiting};
use antler_core::attributes::{AttributeChange, Credentials, FileKind};
use antler_core::client::request::FileRequest;
use antler_core::errno::Errno;
use bytes::Bytes;
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, FopenFlags, INodeNo, InitFlags,
    IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, PollEvents, PollFlags,
    PollNotifier, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// Bytes of one write and of the kernel's read-ahead.
const IO_MAX: u32 = 1 << 20;
/// Background requests (read-ahead, asynchronous reads) that the kernel keeps under way.
const BACKGROUND_MAX: u16 = 64;

/// The kernel's view of the client machine.
#[derive(Debug)]
pub(crate) struct Translator {
    desk: Arc<Desk>,
    /// What `antler.cluster` tells.
    cluster: String,
    directories: Arc<Directories>,
    next_directory: AtomicU64,
}

impl Translator {
    pub(crate) fn new(desk: Arc<Desk>, cluster: String) -> Self {
        Self {
            desk,
            cluster,
            directories: Arc::default(),
            next_directory: AtomicU64::new(1),
        }
    }

    fn root(&self) -> Root {
        self.desk.root
    }

    fn ask(&self, credentials: Credentials, body: FileRequest, waiting: Waiting) {
        self.desk.ask(credentials, body, waiting);
    }

    fn make(
        &self,
        request: &Request,
        (parent, name): (INodeNo, &OsStr),
        (kind, mode, device, target): (FileKind, u32, u64, Vec<u8>),
        reply: ReplyEntry,
    ) {
        let body = FileRequest::Make {
            parent: self.root().inode(parent),
            name: name.as_bytes().to_vec(),
            kind,
            mode: mode & 0o7777,
            device,
            target,
        };
        self.ask(caller::with_groups(request), body, Waiting::Entry(reply));
    }

    fn list<P: Page>(
        &self,
        request: &Request,
        listing: Listing<P>,
        wrap: fn(Listing<P>) -> Waiting,
    ) {
        if let Some((buffer, valid)) = self.directories.take(listing.handle, listing.offset) {
            return listing.answer(self.root(), buffer, valid);
        }
        let body = FileRequest::ReadDirectory {
            inode: self.root().inode(listing.directory),
            cookie: cookie(listing.offset),
            most: FETCH,
        };
        self.ask(caller::plain(request), body, wrap(listing));
    }

    fn get_virtual(
        &self,
        request: &Request,
        inode: INodeNo,
        (name, room): (&[u8], u32),
        reply: ReplyXattr,
    ) {
        let inode = self.root().inode(inode);
        match name {
            virtual_attributes::CLUSTER => {
                let told = virtual_attributes::cluster(&self.cluster, inode);
                waiting::xattr(reply, room, told.as_bytes());
            }
            virtual_attributes::COPIES => self.ask(
                caller::plain(request),
                FileRequest::GetAttributes { inode },
                Waiting::Copies(reply, room),
            ),
            _ => reply.error(errno(Errno::ENODATA)),
        }
    }

    fn set_virtual(
        &self,
        request: &Request,
        inode: INodeNo,
        (name, value): (&[u8], &[u8]),
        reply: ReplyEmpty,
    ) {
        let inode = self.root().inode(inode);
        match (name, virtual_attributes::copies(value)) {
            (virtual_attributes::COPIES, Some(copies)) => self.ask(
                caller::with_groups(request),
                FileRequest::SetCopies { inode, copies },
                Waiting::Changed(reply),
            ),
            (virtual_attributes::COPIES, None) => reply.error(errno(Errno::EINVAL)),
            _ => reply.error(errno(Errno::EPERM)),
        }
    }

    fn listing<P>(
        &self,
        directory: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: P,
    ) -> Listing<P> {
        Listing {
            reply,
            handle: handle.0,
            offset,
            directory,
            buffers: self.directories.clone(),
        }
    }
}

/// What an access mode of open(2) asks for: `(read, write)`.
fn access(flags: OpenFlags) -> (bool, bool) {
    match flags.acc_mode() {
        OpenAccMode::O_RDONLY => (true, false),
        OpenAccMode::O_WRONLY => (false, true),
        OpenAccMode::O_RDWR => (true, true),
    }
}

impl Filesystem for Translator {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Not FUSE_ATOMIC_O_TRUNC: with it the kernel has a file truncated before it looks
        // whether that is being executed (ETXTBSY).
        let wanted = [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_ASYNC_DIO,
            // A symlink's target never changes.
            InitFlags::FUSE_CACHE_SYMLINKS,
            // The set-id bits go at apply; without this the kernel asks for
            // `security.capability` before every write.
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
        ];
        for flag in wanted {
            // A kernel without it works too, only slower.
            let _ = config.add_capabilities(flag);
        }
        let _ = config.set_max_write(IO_MAX);
        let _ = config.set_max_readahead(IO_MAX);
        let _ = config.set_max_background(BACKGROUND_MAX);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let body = FileRequest::Lookup {
            parent: self.root().inode(parent),
            name: name.as_bytes().to_vec(),
        };
        self.ask(caller::with_groups(request), body, Waiting::Entry(reply));
    }

    fn getattr(&self, request: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let body = FileRequest::GetAttributes {
            inode: self.root().inode(inode),
        };
        self.ask(caller::plain(request), body, Waiting::Attributes(reply));
    }

    fn setattr(
        &self,
        request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = AttributeChange {
            mode: mode.map(|mode| mode & 0o7777),
            uid,
            gid,
            size,
            atime: time_change(atime),
            mtime: time_change(mtime),
            by_handle: handle.is_some(),
        };
        let body = FileRequest::SetAttributes {
            inode: self.root().inode(inode),
            change,
        };
        self.ask(
            caller::with_groups(request),
            body,
            Waiting::Attributes(reply),
        );
    }

    fn readlink(&self, request: &Request, inode: INodeNo, reply: ReplyData) {
        let body = FileRequest::ReadLink {
            inode: self.root().inode(inode),
        };
        self.ask(caller::plain(request), body, Waiting::Data(reply));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        match kind_of_mode(mode) {
            Some(kind) => self.make(
                request,
                (parent, name),
                (kind, mode, device.into(), Vec::new()),
                reply,
            ),
            None => reply.error(errno(Errno::EINVAL)),
        }
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        self.make(
            request,
            (parent, name),
            (FileKind::Directory, mode, 0, Vec::new()),
            reply,
        );
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let body = FileRequest::Unlink {
            parent: self.root().inode(parent),
            name: name.as_bytes().to_vec(),
        };
        self.ask(caller::with_groups(request), body, Waiting::Empty(reply));
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let body = FileRequest::Rmdir {
            parent: self.root().inode(parent),
            name: name.as_bytes().to_vec(),
        };
        self.ask(caller::with_groups(request), body, Waiting::Empty(reply));
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let target = target.as_os_str().as_bytes().to_vec();
        self.make(
            request,
            (parent, name),
            (FileKind::Symlink, 0o777, 0, target),
            reply,
        );
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mode = match rename_mode(flags) {
            Ok(mode) => mode,
            Err(error) => return reply.error(errno(error)),
        };
        let body = FileRequest::Rename {
            parent: self.root().inode(parent),
            name: name.as_bytes().to_vec(),
            new_parent: self.root().inode(new_parent),
            new_name: new_name.as_bytes().to_vec(),
            mode,
        };
        self.ask(caller::with_groups(request), body, Waiting::Empty(reply));
    }

    fn link(
        &self,
        request: &Request,
        inode: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        let body = FileRequest::Link {
            inode: self.root().inode(inode),
            parent: self.root().inode(parent),
            name: name.as_bytes().to_vec(),
        };
        self.ask(caller::with_groups(request), body, Waiting::Entry(reply));
    }

    fn open(&self, request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (read, write) = access(flags);
        let truncate = flags.0 & libc::O_TRUNC != 0;
        let body = FileRequest::Open {
            inode: self.root().inode(inode),
            read,
            write,
            truncate,
        };
        let waiting = Waiting::Open(reply, write);
        self.ask(caller::with_groups(request), body, waiting);
    }

    fn read(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let body = FileRequest::Read {
            inode: self.root().inode(inode),
            handle: handle.0,
            offset,
            length,
        };
        self.ask(caller::plain(request), body, Waiting::Data(reply));
    }

    fn write(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let data = Bytes::copy_from_slice(data);
        let body = FileRequest::Write {
            inode: self.root().inode(inode),
            handle: handle.0,
            offset,
            data,
        };
        self.ask(caller::plain(request), body, Waiting::Written(reply));
    }

    fn flush(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        _: LockOwner,
        reply: ReplyEmpty,
    ) {
        let body = FileRequest::Flush {
            inode: self.root().inode(inode),
            handle: handle.0,
        };
        self.ask(caller::plain(request), body, Waiting::Empty(reply));
    }

    fn release(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let body = FileRequest::Release {
            inode: self.root().inode(inode),
            handle: handle.0,
        };
        self.ask(caller::plain(request), body, Waiting::Empty(reply));
    }

    fn fsync(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let body = FileRequest::Fsync {
            inode: self.root().inode(inode),
            handle: handle.0,
        };
        self.ask(caller::plain(request), body, Waiting::Empty(reply));
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let handle = self.next_directory.fetch_add(1, Ordering::Relaxed);
        reply.opened(FileHandle(handle), FopenFlags::empty());
    }

    fn readdir(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let listing = self.listing(inode, handle, offset, reply);
        self.list(request, listing, Waiting::Directory);
    }

    fn readdirplus(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let listing = self.listing(inode, handle, offset, reply);
        self.list(request, listing, Waiting::DirectoryPlus);
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.directories.close(handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        // A change of a directory is durable when it is answered.
        reply.ok();
    }

    fn statfs(&self, request: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.ask(
            caller::plain(request),
            FileRequest::StatFs,
            Waiting::StatFs(reply),
        );
    }

    fn setxattr(
        &self,
        request: &Request,
        inode: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let mode = match xattr_mode(flags) {
            Ok(mode) => mode,
            Err(error) => return reply.error(errno(error)),
        };
        if name.as_bytes().starts_with(virtual_attributes::PREFIX) {
            return self.set_virtual(request, inode, (name.as_bytes(), value), reply);
        }
        let body = FileRequest::SetXattr {
            inode: self.root().inode(inode),
            name: name.as_bytes().to_vec(),
            value: value.to_vec(),
            mode,
        };
        self.ask(caller::with_groups(request), body, Waiting::Empty(reply));
    }

    fn getxattr(
        &self,
        request: &Request,
        inode: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        if name.as_bytes().starts_with(virtual_attributes::PREFIX) {
            return self.get_virtual(request, inode, (name.as_bytes(), size), reply);
        }
        let body = FileRequest::GetXattr {
            inode: self.root().inode(inode),
            name: name.as_bytes().to_vec(),
        };
        self.ask(
            caller::with_groups(request),
            body,
            Waiting::Xattr(reply, size),
        );
    }

    fn listxattr(&self, request: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        let body = FileRequest::ListXattrs {
            inode: self.root().inode(inode),
        };
        self.ask(
            caller::with_groups(request),
            body,
            Waiting::Xattr(reply, size),
        );
    }

    fn removexattr(&self, request: &Request, inode: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let body = FileRequest::RemoveXattr {
            inode: self.root().inode(inode),
            name: name.as_bytes().to_vec(),
        };
        self.ask(caller::with_groups(request), body, Waiting::Empty(reply));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (read, write) = access(OpenFlags(flags));
        let body = FileRequest::Create {
            parent: self.root().inode(parent),
            name: name.as_bytes().to_vec(),
            mode: mode & 0o7777,
            exclusive: flags & libc::O_EXCL != 0,
            truncate: flags & libc::O_TRUNC != 0,
            read,
            write,
        };
        self.ask(caller::with_groups(request), body, Waiting::Create(reply));
    }

    fn fallocate(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mode = match fallocate_mode(mode) {
            Ok(mode) => mode,
            Err(error) => return reply.error(errno(error)),
        };
        let inode = self.root().inode(inode);
        let body = FileRequest::Fallocate {
            inode,
            handle: handle.0,
            mode,
            offset,
            length,
        };
        self.ask(caller::plain(request), body, Waiting::Empty(reply));
    }

    fn lseek(
        &self,
        request: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let data = match whence {
            libc::SEEK_DATA => true,
            libc::SEEK_HOLE => false,
            _ => return reply.error(errno(Errno::EINVAL)),
        };
        let Ok(offset) = u64::try_from(offset) else {
            return reply.error(errno(Errno::ENXIO));
        };
        let body = FileRequest::Seek {
            inode: self.root().inode(inode),
            offset,
            data,
        };
        self.ask(caller::plain(request), body, Waiting::Seek(reply));
    }

    // No control of devices, as on any file system without ioctls of its own.
    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(fuser::Errno::ENOTTY);
    }

    // The kernel asks once and then knows that files are always ready.
    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: PollNotifier,
        _: PollEvents,
        _: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(fuser::Errno::ENOSYS);
    }

    // The kernel asks once and then copies by reading and writing.
    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(fuser::Errno::ENOSYS);
    }
}
