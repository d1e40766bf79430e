//! What the kernel remembers of the mounted tree, and how to make it forget.
//!
//! A read that the kernel's page cache answers says nothing about the file
//! system under it. Owns the calls that drop pages and names; leaves alone
//! what the file system's own process remembers, because that is its merit.
//! The invariant: after [`forget_pages`] no page of the file is resident.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use crate::failure::{Doing, Failure, Outcome};

/// How long the messages that follow a drop of names may take to drain.
const FORGET_SETTLE: Duration = Duration::from_millis(300);

/// `cachestat(2)`'s number, the same on every architecture.
const SYS_CACHESTAT: libc::c_long = 451;

/// Drops the file's clean pages and checks that they are gone.
///
/// # Errors
/// Fails when pages stay: reading them would not reach the file system.
pub(crate) fn forget_pages(file: &File) -> Outcome<()> {
    for _ in 0..20 {
        advise(file, libc::POSIX_FADV_DONTNEED).doing(|| "posix_fadvise".into())?;
        match resident_pages(file) {
            None | Some(0) => return Ok(()),
            Some(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
    Err(Failure::Late(
        "the kernel keeps pages of a synced file".into(),
    ))
}

/// Asks the kernel to drop the file's clean pages, and does not wait for it.
pub(crate) fn forget_pages_soon(file: &File) {
    // A refusal would only leave a page in memory: one read too fast.
    let _refused = advise(file, libc::POSIX_FADV_DONTNEED);
}

/// Tells the kernel that reads will jump about, so it reads nothing ahead.
pub(crate) fn expect_random_reads(file: &File) -> Outcome<()> {
    advise(file, libc::POSIX_FADV_RANDOM).doing(|| "posix_fadvise".into())
}

/// Drops names and attributes that the kernel caches, everywhere. Says
/// whether it could: only root may.
pub(crate) fn forget_names() -> bool {
    let dropped = std::fs::write("/proc/sys/vm/drop_caches", "2").is_ok();
    thread::sleep(FORGET_SETTLE);
    dropped
}

/// Writes back whatever is dirty on any file system, and waits for it.
pub(crate) fn write_back() {
    // SAFETY: takes nothing, touches no memory of ours and cannot fail.
    unsafe { libc::sync() }
}

fn advise(file: &File, advice: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open for the length of the call, and the call
    // touches no memory of ours.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, advice) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Pages of the whole file in the page cache; `None` on a kernel before 6.5.
fn resident_pages(file: &File) -> Option<u64> {
    let range = [0_u64; 2];
    let mut answer = [0_u64; 5];
    // SAFETY: both structures are of the size the call defines (two and five
    // u64), live through it, and only the second is written.
    let status = unsafe {
        libc::syscall(
            SYS_CACHESTAT,
            file.as_raw_fd(),
            range.as_ptr(),
            answer.as_mut_ptr(),
            0,
        )
    };
    (status == 0).then_some(answer[0])
}
