//! The mount itself: mount(2) by root, fusermount3 for others.
//!
//! Root's mount is made here and not by fuser, so that the mount table says
//! `fuse.antler` and umount(8), findmnt(8) and our own tools know it.

use crate::mount::MountSettings;
use fuser::{Config, Filesystem, MountOption, Session, SessionACL};
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountFlags;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

const DEVICE: &str = "/dev/fuse";
const TYPE: &str = "fuse.antler";

/// Mounts and shakes hands with the kernel. `make` makes the file system, once for
/// each way that is tried.
pub(crate) fn attach<F: Filesystem>(
    settings: &MountSettings,
    make: impl Fn() -> F,
) -> io::Result<Session<F>> {
    let config = config(settings);
    match mount_directly(settings) {
        Ok(device) => Session::from_fd(make(), device, config.acl, config),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Session::new(make(), &settings.mountpoint, &config)
        }
        Err(error) => Err(error),
    }
}

fn mount_directly(settings: &MountSettings) -> io::Result<OwnedFd> {
    if !rustix::process::geteuid().is_root() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let device = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| io::Error::other(format!("{DEVICE}: {error}; is fuse loaded?")))?;
    let root = fs::metadata(&settings.mountpoint)?;
    let mut data = format!(
        "fd={},rootmode={:o},user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        root.mode(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw()
    );
    if settings.allow_other {
        data += ",allow_other";
    }
    let data = CString::new(data)?;
    let source = settings.source.as_str();
    rustix::mount::mount(
        source,
        &settings.mountpoint,
        TYPE,
        flags(settings),
        Some(&*data),
    )?;
    Ok(device)
}

fn flags(settings: &MountSettings) -> MountFlags {
    let mut flags = MountFlags::NODEV | MountFlags::NOSUID;
    for option in &settings.options {
        match option {
            MountOption::Dev => flags.remove(MountFlags::NODEV),
            MountOption::NoDev => flags.insert(MountFlags::NODEV),
            MountOption::Suid => flags.remove(MountFlags::NOSUID),
            MountOption::NoSuid => flags.insert(MountFlags::NOSUID),
            MountOption::RO => flags.insert(MountFlags::RDONLY),
            MountOption::NoExec => flags.insert(MountFlags::NOEXEC),
            MountOption::NoAtime => flags.insert(MountFlags::NOATIME),
            MountOption::Sync => flags.insert(MountFlags::SYNCHRONOUS),
            MountOption::DirSync => flags.insert(MountFlags::DIRSYNC),
            _ => {}
        }
    }
    flags
}

fn config(settings: &MountSettings) -> Config {
    let mut config = Config::default();
    config.mount_options = settings.options.clone();
    config.mount_options.extend([
        MountOption::FSName(settings.source.clone()),
        MountOption::Subtype("antler".into()),
        MountOption::DefaultPermissions,
    ]);
    config.acl = if settings.allow_other {
        SessionACL::All
    } else {
        SessionACL::Owner
    };
    config.n_threads = Some(settings.threads.max(1));
    config.clone_fd = true;
    config
}
