//! The layer as a daemon meets it: mounted. Needs /dev/fuse and the right to
//! mount; without them the tests fail and say so. Each test mounts a directory
//! of its own and unmounts it even when it fails.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_antler-faultfs");

struct Mounted {
    layer: Child,
    folder: tempfile::TempDir,
}

impl Mounted {
    fn new(arguments: &[&str]) -> Self {
        assert!(
            Path::new("/dev/fuse").exists(),
            "these tests mount a FUSE file system: /dev/fuse is missing on this machine"
        );
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("backing")).expect("a new folder");
        fs::create_dir(folder.path().join("mnt")).expect("a new folder");
        let mut command = Command::new(BINARY);
        command
            .arg("mount")
            .arg(folder.path().join("backing"))
            .arg(folder.path().join("mnt"));
        command
            .arg("--control")
            .arg(folder.path().join("control"))
            .args(arguments);
        let layer = command
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary was built");
        let mut mounted = Self { layer, folder };
        mounted.wait();
        mounted
    }

    /// The control socket appears after the mount.
    fn wait(&mut self) {
        let start = Instant::now();
        while !self.folder.path().join("control").exists() {
            let ended = self.layer.try_wait().expect("our own child");
            assert!(
                ended.is_none(),
                "the layer could not mount (root or fusermount3 is needed): {ended:?}"
            );
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "the layer did not mount in time"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("mnt").join(name)
    }

    fn below(&self, name: &str) -> PathBuf {
        self.folder.path().join("backing").join(name)
    }

    fn control(&self, command: &str) -> String {
        let output = Command::new(BINARY)
            .arg("control")
            .arg(self.folder.path().join("control"))
            .args(command.split(' '))
            .output()
            .expect("the binary runs");
        assert!(
            output.status.success(),
            "{command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("the answer is text")
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.layer.id().to_string())
            .status();
        assert!(sent.expect("kill runs").success());
    }

    fn sync_top(&self) {
        File::open(self.path(""))
            .and_then(|top| top.sync_all())
            .expect("the top can be synced");
    }

    fn create(&self, name: &str, content: &[u8], synced: bool) -> File {
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create_new(true)
            .open(self.path(name))
            .expect("a new file");
        file.write_all(content).expect("the layer takes it");
        if synced {
            file.sync_data().expect("no rule makes it fail");
        }
        file
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .arg("-TERM")
            .arg(self.layer.id().to_string())
            .status();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) {
            if matches!(self.layer.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.layer.kill();
        let _ = Command::new("umount").arg("-l").arg(self.path("")).status();
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path)
}

/// A power cut that keeps nothing.
fn lose_everything(mounted: &Mounted) {
    mounted.control("forget keep=0");
}

#[test]
fn synced_bytes_and_names_stay_and_the_rest_may_go() {
    let mounted = Mounted::new(&["--strict-dirs"]);
    for seed in 0..20 {
        let (kept, loose) = (format!("kept-{seed}"), format!("loose-{seed}"));
        mounted.create(&kept, &[1; 200_000], true);
        mounted.sync_top();
        let file = OpenOptions::new()
            .write(true)
            .open(mounted.path(&kept))
            .expect("it is there");
        file.write_all_at(&[2; 100_000], 50_000)
            .expect("the layer takes it");
        mounted.create(&loose, &[3; 10_000], false);
        mounted.control(&format!("forget seed={seed}"));

        let after = read(&mounted.path(&kept)).expect("its name was synced");
        assert_eq!(after.len(), 200_000);
        assert!(
            after[..50_000]
                .iter()
                .chain(&after[150_000..])
                .all(|&byte| byte == 1)
        );
        assert!(
            after[50_000..150_000]
                .iter()
                .all(|&byte| byte == 1 || byte == 2)
        );
        if let Ok(loose) = read(&mounted.path(&loose)) {
            assert!(loose.len() <= 10_000 && loose.iter().all(|&byte| byte == 0 || byte == 3));
        }
        assert_eq!(read(&mounted.below(&kept)).expect("below too"), after);
    }
}

#[test]
fn a_synced_file_needs_its_directory_synced_only_if_strict() {
    for (arguments, survives) in [(&["--strict-dirs"][..], false), (&[][..], true)] {
        let mounted = Mounted::new(arguments);
        mounted.create("file", b"synced", true);
        lose_everything(&mounted);
        assert_eq!(
            read(&mounted.path("file")).is_ok(),
            survives,
            "{arguments:?}"
        );
    }
}

#[test]
fn renames_and_removals_are_undone_unless_synced() {
    let mounted = Mounted::new(&["--strict-dirs"]);
    mounted.create("old", b"old", true);
    mounted.create("gone", b"gone", true);
    mounted.sync_top();
    mounted.create("new", b"new", true);
    fs::rename(mounted.path("new"), mounted.path("old")).expect("a rename");
    fs::remove_file(mounted.path("gone")).expect("a removal");
    assert!(read(&mounted.path("gone")).is_err() && !mounted.below("gone").exists());
    lose_everything(&mounted);
    assert_eq!(
        read(&mounted.path("old")).expect("the old one is back"),
        b"old"
    );
    assert_eq!(
        read(&mounted.path("gone")).expect("removed, not synced"),
        b"gone"
    );
    assert!(
        read(&mounted.path("new")).is_err(),
        "its name was never synced"
    );

    fs::rename(mounted.path("old"), mounted.path("gone")).expect("a rename");
    mounted.sync_top();
    lose_everything(&mounted);
    assert_eq!(
        read(&mounted.path("gone")).expect("renamed and synced"),
        b"old"
    );
    assert!(read(&mounted.path("old")).is_err());
}

#[test]
fn folders_come_and_go_like_files() {
    let mounted = Mounted::new(&["--strict-dirs"]);
    fs::create_dir_all(mounted.path("a/b")).expect("new folders");
    mounted.create("a/b/file", b"x", true);
    File::open(mounted.path("a/b"))
        .and_then(|folder| folder.sync_all())
        .expect("a sync");
    File::open(mounted.path("a"))
        .and_then(|folder| folder.sync_all())
        .expect("a sync");
    mounted.sync_top();
    fs::create_dir(mounted.path("a/c")).expect("a new folder");
    fs::remove_file(mounted.path("a/b/file")).expect("a removal");
    fs::remove_dir(mounted.path("a/b")).expect("an empty folder");
    lose_everything(&mounted);
    assert_eq!(
        read(&mounted.path("a/b/file")).expect("all came back"),
        b"x"
    );
    assert!(!mounted.path("a/c").exists());
    fs::remove_dir_all(mounted.path("a")).expect("a tree can be removed");
    assert_eq!(fs::read_dir(mounted.path("")).expect("the top").count(), 0);
}

#[test]
fn handles_from_before_a_cut_are_dead() {
    let mounted = Mounted::new(&[]);
    let file = mounted.create("file", &[1; 8192], true);
    fs::create_dir(mounted.path("folder")).expect("a new folder");
    let folder = File::open(mounted.path("folder")).expect("it is there");
    mounted.control("forget seed=1");
    assert!(folder.sync_all().is_err());
    assert!(file.write_all_at(b"x", 0).is_err());
    assert!(file.sync_all().is_err());
    assert_eq!(
        read(&mounted.path("file")).expect("a new handle works"),
        vec![1; 8192]
    );
}

#[test]
fn the_dark_lasts_from_cut_to_restore() {
    let mounted = Mounted::new(&[]);
    mounted.create("file", b"synced", true);
    mounted.control("cut seed=1");
    let error = read(&mounted.path("file")).expect_err("it is dark");
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    mounted.control("restore");
    assert_eq!(read(&mounted.path("file")).expect("it is light"), b"synced");
}

#[test]
fn the_signal_forgets_too() {
    let mounted = Mounted::new(&["--seed", "0"]);
    let file = mounted.create("file", b"never synced", false);
    mounted.signal("USR1");
    let start = Instant::now();
    while file.metadata().is_ok_and(|_| file.sync_all().is_ok()) {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "nothing happened"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn rules_fail_and_delay_what_they_name() {
    let mounted = Mounted::new(&[]);
    fs::create_dir(mounted.path("chunkserver-2")).expect("a new folder");
    let file = mounted.create("chunkserver-2/x", &[1; 4096], true);
    let other = mounted.create("other", &[1; 4096], true);
    mounted.control("eio sync chunkserver-2/");
    assert_eq!(
        file.sync_data().expect_err("the rule").raw_os_error(),
        Some(libc::EIO)
    );
    other.sync_data().expect("another path");
    mounted.control("clear");
    mounted.control("delay 80ms sync chunkserver-2/");
    let start = Instant::now();
    file.sync_data().expect("late, not failed");
    assert!(start.elapsed() >= Duration::from_millis(80));
    mounted.control("clear");
    mounted.control("eio read chunkserver-2/");
    let again = File::open(mounted.path("chunkserver-2/x")).expect("opening is not reading");
    assert_eq!(
        again
            .read_at(&mut [0; 16], 0)
            .expect_err("the rule")
            .raw_os_error(),
        Some(libc::EIO)
    );
    mounted.control("clear");
    assert!(again.read_at(&mut [0; 16], 0).is_ok());
}

#[test]
fn what_a_failed_sync_dropped_is_lost_although_the_next_one_succeeds() {
    let mounted = Mounted::new(&[]);
    let file = mounted.create("file", &[1; 4096], true);
    mounted.sync_top();
    file.write_all_at(&[2; 4096], 0)
        .expect("the layer takes it");
    mounted.control("eio sync file times=1");
    assert!(file.sync_data().is_err());
    assert!(
        file.sync_data().is_ok(),
        "as on Linux, the second one knows nothing"
    );
    mounted.control("forget keep=100");
    assert_eq!(
        read(&mounted.path("file")).expect("it is there"),
        vec![1; 4096]
    );
}

#[test]
fn a_sync_that_lies_saves_nothing() {
    let mounted = Mounted::new(&[]);
    let file = mounted.create("file", &[1; 4096], true);
    mounted.sync_top();
    mounted.control("lie sync file");
    file.write_all_at(&[2; 4096], 0)
        .expect("the layer takes it");
    file.sync_data().expect("it says so");
    lose_everything(&mounted);
    assert_eq!(
        read(&mounted.path("file")).expect("it is there"),
        vec![1; 4096]
    );
}

#[test]
fn holes_allocation_and_space_are_those_of_the_file_below() {
    use rustix::fs::{FallocateFlags as Flags, SeekFrom, fallocate, seek};
    let mounted = Mounted::new(&[]);
    let file = mounted.create("file", &[7; 1 << 20], true);
    fallocate(&file, Flags::PUNCH_HOLE | Flags::KEEP_SIZE, 65_536, 131_072).expect("a hole");
    assert_eq!(seek(&file, SeekFrom::Hole(0)).expect("lseek"), 65_536);
    fallocate(&file, Flags::empty(), 1 << 20, 1 << 20).expect("an allocation");
    let metadata = file.metadata().expect("fstat");
    assert_eq!(metadata.len(), 2 << 20);
    assert!(metadata.blocks() * 512 < 2 << 20, "the hole takes no space");
    let space = rustix::fs::statvfs(mounted.path("")).expect("statvfs");
    assert!(space.f_blocks > 0 && space.f_bavail > 0);
    lose_everything(&mounted);
    assert_eq!(
        read(&mounted.path("file")).expect("as synced"),
        vec![7; 1 << 20]
    );
}

#[test]
fn exempt_files_are_never_forgotten() {
    let mounted = Mounted::new(&["--exempt", "/log"]);
    fs::create_dir(mounted.path("master-1")).expect("a new folder");
    mounted.sync_top();
    mounted.create("master-1/log", b"a line", false);
    mounted.create("master-1/data", b"a record", false);
    lose_everything(&mounted);
    assert_eq!(
        read(&mounted.path("master-1/log")).expect("exempt"),
        b"a line"
    );
    assert!(!mounted.path("master-1/data").exists());
}

/// A chunkserver's load: 64 KiB writes, a sync after each 16, on four files.
#[test]
fn it_is_fast_enough_for_a_chunkserver() {
    let mounted = Mounted::new(&[]);
    let files: Vec<File> = (0..4)
        .map(|n| mounted.create(&format!("chunk-{n}"), &[], true))
        .collect();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for file in &files {
            scope.spawn(move || {
                for block in 0..512_u64 {
                    file.write_all_at(&[block as u8; 65_536], block * 65_536)
                        .expect("the layer takes it");
                    if block % 16 == 15 {
                        file.sync_data().expect("no rule makes it fail");
                    }
                }
            });
        }
    });
    let rate = 128.0 / start.elapsed().as_secs_f64();
    println!("{rate:.0} MiB/s in writes of 64 KiB with a sync each MiB");
    assert!(
        rate > 10.0,
        "{rate:.1} MiB/s would make every test on top of it wait"
    );
}
