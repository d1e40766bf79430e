//! The kernel's types and ours.
//!
//! The kernel's root is inode 1 whatever directory is mounted; [`Root`] maps that
//! one number and leaves every other as it is.

use antler_core::attributes::{
    Attributes, FallocateMode, FileKind, RenameMode, TimeChange, XattrMode,
};
use antler_core::errno::Errno;
use antler_core::ids::InodeId;
use antler_core::time::Timestamp;
use fuser::{FileAttr, FileType, Generation, INodeNo, RenameFlags, TimeOrNow};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The directory that is mounted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Root(pub(crate) InodeId);

impl Root {
    /// Our number of what the kernel means.
    pub(crate) fn inode(self, kernel: INodeNo) -> InodeId {
        if kernel.0 == 1 {
            self.0
        } else {
            InodeId(kernel.0)
        }
    }

    /// The kernel's number of what we mean.
    pub(crate) fn kernel(self, inode: InodeId) -> INodeNo {
        if inode == self.0 {
            INodeNo(1)
        } else {
            INodeNo(inode.0)
        }
    }

    pub(crate) fn attributes(self, from: &Attributes) -> FileAttr {
        FileAttr {
            ino: self.kernel(from.inode),
            size: from.size,
            blocks: from.allocated.div_ceil(512),
            atime: to_system(from.atime),
            mtime: to_system(from.mtime),
            ctime: to_system(from.ctime),
            crtime: UNIX_EPOCH,
            kind: kind(from.kind),
            perm: u16::try_from(from.mode & 0o7777).expect("12 bits"),
            nlink: from.nlink,
            uid: from.uid,
            gid: from.gid,
            rdev: u32::try_from(from.device).unwrap_or(0),
            blksize: 64 << 10,
            flags: 0,
        }
    }
}

pub(crate) fn generation(from: &Attributes) -> Generation {
    Generation(from.generation.0)
}

pub(crate) fn kind(from: FileKind) -> FileType {
    match from {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

/// The kind in a `mode` of mknod(2).
pub(crate) fn kind_of_mode(mode: u32) -> Option<FileKind> {
    match mode & libc::S_IFMT {
        libc::S_IFREG | 0 => Some(FileKind::Regular),
        libc::S_IFIFO => Some(FileKind::Fifo),
        libc::S_IFSOCK => Some(FileKind::Socket),
        libc::S_IFCHR => Some(FileKind::CharDevice),
        libc::S_IFBLK => Some(FileKind::BlockDevice),
        _ => None,
    }
}

pub(crate) fn errno(from: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(from.0)
}

fn to_system(from: Timestamp) -> SystemTime {
    let nanos = Duration::from_nanos(u64::from(from.nanos));
    match u64::try_from(from.seconds) {
        Ok(seconds) => UNIX_EPOCH + Duration::from_secs(seconds) + nanos,
        Err(_) => UNIX_EPOCH - Duration::from_secs(from.seconds.unsigned_abs()) + nanos,
    }
}

/// fuser puts a time before 1970 as the epoch less seconds *and* nanoseconds, where the
/// kernel meant less seconds plus nanoseconds: the parts are the kernel's own.
fn from_system(from: SystemTime) -> Timestamp {
    let part = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
    match from.duration_since(UNIX_EPOCH) {
        Ok(after) => Timestamp {
            seconds: part(after.as_secs()),
            nanos: after.subsec_nanos(),
        },
        Err(before) => {
            let before = before.duration();
            Timestamp {
                seconds: -part(before.as_secs()),
                nanos: before.subsec_nanos(),
            }
        }
    }
}

pub(crate) fn time_change(from: Option<TimeOrNow>) -> TimeChange {
    match from {
        None => TimeChange::Keep,
        Some(TimeOrNow::Now) => TimeChange::Now,
        Some(TimeOrNow::SpecificTime(time)) => TimeChange::Set(from_system(time)),
    }
}

pub(crate) fn rename_mode(flags: RenameFlags) -> Result<RenameMode, Errno> {
    if flags.is_empty() {
        Ok(RenameMode::Replace)
    } else if flags == RenameFlags::RENAME_NOREPLACE {
        Ok(RenameMode::NoReplace)
    } else if flags == RenameFlags::RENAME_EXCHANGE {
        Ok(RenameMode::Exchange)
    } else {
        Err(Errno::EINVAL)
    }
}

pub(crate) fn xattr_mode(flags: i32) -> Result<XattrMode, Errno> {
    match flags {
        0 => Ok(XattrMode::Any),
        libc::XATTR_CREATE => Ok(XattrMode::Create),
        libc::XATTR_REPLACE => Ok(XattrMode::Replace),
        _ => Err(Errno::EINVAL),
    }
}

pub(crate) fn fallocate_mode(mode: i32) -> Result<FallocateMode, Errno> {
    const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
    const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
    const ZERO_KEEP: i32 = ZERO | KEEP;
    match mode {
        0 => Ok(FallocateMode::Extend),
        KEEP => Ok(FallocateMode::Keep),
        PUNCH => Ok(FallocateMode::Punch),
        ZERO => Ok(FallocateMode::Zero),
        ZERO_KEEP => Ok(FallocateMode::ZeroKeep),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_the_epoch_survive_the_round_trip() {
        let told = to_system(Timestamp {
            seconds: -2,
            nanos: 800_000_000,
        });
        assert_eq!(told, UNIX_EPOCH - Duration::from_millis(1200));
        // What fuser makes of the kernel's -2 s + 0.8 s on the way in.
        let heard = from_system(UNIX_EPOCH - Duration::new(2, 800_000_000));
        assert_eq!(
            heard,
            Timestamp {
                seconds: -2,
                nanos: 800_000_000
            }
        );
    }

    #[test]
    fn the_mounted_directory_is_the_kernels_root() {
        let root = Root(InodeId(77));
        assert_eq!(
            (root.inode(INodeNo(1)), root.kernel(InodeId(77))),
            (InodeId(77), INodeNo(1))
        );
        assert_eq!(
            (root.inode(INodeNo(5)), root.kernel(InodeId(5))),
            (InodeId(5), INodeNo(5))
        );
    }

    #[test]
    fn unknown_flags_are_refused() {
        assert_eq!(
            fallocate_mode(libc::FALLOC_FL_COLLAPSE_RANGE),
            Err(Errno::EOPNOTSUPP)
        );
        assert_eq!(
            rename_mode(RenameFlags::RENAME_WHITEOUT),
            Err(Errno::EINVAL)
        );
        assert_eq!(xattr_mode(3), Err(Errno::EINVAL));
    }
}
