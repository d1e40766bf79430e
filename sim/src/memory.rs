//! How this process keeps memory: what a seed gave back stays for the next one.
//! Owns nothing but that setting.
//!
//! A run allocates and frees megabytes at a high rate (disks, frames, what judges
//! compare). glibc would give each of these back to the system at once, and the page
//! faults to have it again took a third of a run's time.

/// Has freed memory kept, up to [`KEPT_MAX`] at the top of each arena. To be called
/// before the first thread is started.
pub(crate) fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (parameter, value) in [
        (libc::M_TRIM_THRESHOLD, KEPT_MAX),
        (libc::M_MMAP_THRESHOLD, MAPPED_MIN),
        (libc::M_TOP_PAD, STEP),
    ] {
        // SAFETY: mallopt(3) only sets a number of the allocator, under its own lock.
        let taken = unsafe { libc::mallopt(parameter, value) };
        // One that is refused leaves things slower, not wrong.
        debug_assert_eq!(taken, 1, "mallopt parameter {parameter}");
    }
}

/// Bytes that stay at the top of an arena.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_MAX: i32 = 1 << 30;
/// Bytes from which on a block is mapped by itself: glibc takes no more.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_MIN: i32 = 32 << 20;
/// Bytes by which an arena grows at least.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const STEP: i32 = 32 << 20;
