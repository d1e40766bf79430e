//! SIGUSR1 forgets, SIGTERM and SIGINT unmount. Owns the process's signal mask:
//! the three are blocked in every thread and one thread waits for them.

use crate::filesystem::Layer;
use crate::tree::CutRequest;
use std::io;
use std::path::Path;
use std::process::Command;

/// The three signals, blocked.
pub(crate) struct Signals(libc::sigset_t);

impl Signals {
    /// Blocks them for this thread and those it starts from now on.
    pub(crate) fn block() -> io::Result<Self> {
        // SAFETY: an all-zero sigset_t is valid memory for sigemptyset, which
        // initialises it; the pointers are to this frame and the calls keep none.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in [libc::SIGUSR1, libc::SIGTERM, libc::SIGINT] {
                libc::sigaddset(&raw mut set, signal);
            }
            match libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) {
                0 => Ok(Self(set)),
                error => Err(io::Error::from_raw_os_error(error)),
            }
        }
    }

    /// Answers signals until one of them unmounts `mountpoint`.
    pub(crate) fn answer(&self, layer: &Layer, mountpoint: &Path) {
        loop {
            let mut signal = 0;
            // SAFETY: both pointers are valid for the call, which keeps neither.
            unsafe { libc::sigwait(&raw const self.0, &raw mut signal) };
            if signal != libc::SIGUSR1 {
                return unmount(mountpoint);
            }
            match layer.cut(CutRequest::default(), false) {
                Ok(report) => eprintln!("{report}"),
                Err(error) => eprintln!("the cut failed half way: {error}"),
            }
        }
    }
}

/// Lazily, so that a process that still sits in the mount cannot keep it.
fn unmount(mountpoint: &Path) {
    let lazily = |program: &str, option: &str| {
        let status = Command::new(program).arg(option).arg(mountpoint).status();
        status.is_ok_and(|status| status.success())
    };
    if !lazily("fusermount3", "-uz") && !lazily("umount", "-l") {
        eprintln!("could not unmount {}", mountpoint.display());
    }
}
