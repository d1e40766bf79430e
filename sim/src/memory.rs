//! How this process keeps memory: what a seed gave back stays for the next one, and
//! memory comes in large pages. Owns nothing but that setting.
//!
//! A run allocates and frees megabytes at a high rate (disks, frames, what judges
//! compare). glibc would give each of these back to the system at once, and the page
//! faults to have it again took a third of a run's time; those of the first use of each
//! small page still took a tenth.

/// Has freed memory kept and large pages asked for. glibc takes that from the
/// environment at the start alone, so the program begins anew with it, once: to be
/// called before anything else is done. What can't be set leaves things slower, not
/// wrong.
pub(crate) fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    begin_with(SETTINGS);
}

/// The environment's name for what glibc is told.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const TUNABLES: &str = "GLIBC_TUNABLES";

/// Bytes that stay at the top of an arena, bytes from which on a block is mapped by
/// itself (glibc takes no more), bytes by which an arena grows at least, large pages by
/// madvise(2), and how many small blocks of a size a thread keeps for itself.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const SETTINGS: &str = "glibc.malloc.trim_threshold=1073741824\
                        :glibc.malloc.mmap_threshold=33554432\
                        :glibc.malloc.top_pad=33554432\
                        :glibc.malloc.hugetlb=1\
                        :glibc.malloc.tcache_count=500";

/// Executes this program again with the settings, unless there are some.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn begin_with(settings: &str) {
    use std::os::unix::process::CommandExt;
    if std::env::var_os(TUNABLES).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    let mut arguments = std::env::args_os();
    let mut again = std::process::Command::new(program);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    // It only comes back when it failed.
    let _failed = again.args(arguments).env(TUNABLES, settings).exec();
}
