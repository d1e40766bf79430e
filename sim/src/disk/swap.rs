//! A disk as a thing that is taken out: it hangs, is pulled, and comes back with an
//! older content.

use super::SimDisk;

impl SimDisk {
    /// No call ends before this time.
    pub fn hang(&self, until: u64) {
        self.inner().hung_until = until;
    }

    /// The disk is pulled at `now`: open handles are gone, what was not synced is kept
    /// in part, and every call fails until the fault `vanished` is taken back.
    pub fn pull(&self, now: u64) {
        self.cut(now);
        let mut disk = self.inner();
        disk.faults.vanished = true;
        // Whoever had the disk open finds his handles gone, also once it is back.
        disk.counts.failed_calls += 1;
    }

    /// A cache that was not told to reaches the medium at last: what was written up to
    /// `now` is durable.
    pub fn destage(&self, now: u64) {
        let mut disk = self.inner();
        disk.settle(now);
        for file in disk.files.values_mut() {
            file.destage();
        }
        disk.names.destage();
        disk.durable_changes += 1;
        disk.collect();
    }

    /// The content becomes that of `image`, a durable copy that was taken earlier. The
    /// program that had the disk open must have ended.
    pub fn restore(&self, image: &Self) {
        let copy = image.look().durable_copy();
        let mut disk = self.inner();
        assert!(disk.handles.is_empty(), "nobody has the disk open");
        disk.staged.clear();
        disk.damages.clear();
        disk.files = copy.files;
        disk.names = copy.names;
        disk.used = copy.used;
        disk.head = (0, 0);
        disk.durable_changes += 1;
        disk.counts.restored += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DiskOptions, DiskSpeed};
    use super::*;
    use antler_core::vfs::Vfs;

    fn disk() -> SimDisk {
        let options = DiskOptions {
            capacity: 1 << 20,
            speed: DiskSpeed::FLASH,
        };
        SimDisk::new(options, 1)
    }

    fn put(disk: &mut SimDisk, text: &[u8]) {
        let file = disk.open("f").or_else(|_| disk.create("f")).unwrap();
        disk.write_at(file, 0, text).unwrap();
        disk.sync(file).unwrap();
        disk.sync_dir("").unwrap();
    }

    fn found(disk: &mut SimDisk) -> Vec<u8> {
        let file = disk.open("f").unwrap();
        let mut text = vec![0; 3];
        disk.read_at(file, 0, &mut text).unwrap();
        text
    }

    #[test]
    fn calls_of_a_hung_disk_end_when_it_hangs_no_more() {
        let mut disk = disk();
        disk.begin(10);
        disk.hang(1_000_000_000);
        put(&mut disk, b"old");
        assert!(disk.cursor() > 1_000_000_000);
        disk.hang(0);
        disk.begin(20);
        assert_eq!(found(&mut disk), b"old");
        assert!(disk.cursor() < 1_000_000);
    }

    #[test]
    fn a_disk_that_was_pulled_is_there_again_but_not_its_handles() {
        let mut disk = disk();
        put(&mut disk, b"old");
        let file = disk.open("f").unwrap();
        disk.pull(disk.cursor());
        disk.open("f").unwrap_err();
        disk.set_faults(|faults| faults.vanished = false);
        disk.sync(file).unwrap_err();
        assert_eq!(found(&mut disk), b"old");
    }

    #[test]
    fn what_a_disk_lied_about_is_durable_once_it_reached_the_medium() {
        let mut disk = disk();
        disk.set_faults(|faults| faults.lies = super::super::Failing::Always);
        put(&mut disk, b"old");
        let now = disk.cursor();
        assert!(disk.durable_copy(now).open("f").is_ok(), "its name alone");
        assert_eq!(found(&mut disk.durable_copy(now)), b"\0\0\0");
        disk.destage(now);
        assert_eq!(found(&mut disk.durable_copy(now)), b"old");
    }

    #[test]
    fn an_older_image_brings_the_older_content_back() {
        let mut disk = disk();
        put(&mut disk, b"old");
        let image = disk.durable_copy(disk.cursor());
        put(&mut disk, b"new");
        let changes = disk.durable_changes(disk.cursor());
        disk.cut(disk.cursor());
        disk.restore(&image);
        assert_eq!(found(&mut disk), b"old");
        assert!(disk.durable_changes(disk.cursor()) > changes);
        put(&mut disk, b"mid");
        assert_eq!(found(&mut disk), b"mid");
    }
}
