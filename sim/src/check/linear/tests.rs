//! Histories made by hand: good ones that look strange, and bad ones.

use super::*;
use antler_core::attributes::{Attributes, FileKind};
use antler_core::ids::Generation;
use antler_core::time::{Duration, Timestamp};
use bytes::Bytes;

const FOLDER: InodeId = InodeId(7);

fn attributes(inode: u64, kind: FileKind) -> Attributes {
    Attributes {
        inode: InodeId(inode),
        generation: Generation(1),
        kind,
        mode: 0o755,
        nlink: 1,
        uid: 0,
        gid: 0,
        device: 0,
        size: 0,
        allocated: 0,
        atime: Timestamp::default(),
        mtime: Timestamp::default(),
        ctime: Timestamp::default(),
        change: 0,
        copies: 1,
        no_xattrs: false,
    }
}

/// A history that is written down: `ask` and `tell` in the order of time.
#[derive(Default)]
struct History {
    judge: LinearJudge,
    wrong: Option<String>,
}

impl History {
    /// A folder that is made and never removed.
    fn new() -> Self {
        let mut history = Self::default();
        let made = FileRequest::Make {
            parent: InodeId::ROOT,
            name: b"folder".to_vec(),
            kind: FileKind::Directory,
            mode: 0o755,
            device: 0,
            target: Vec::new(),
        };
        history.judge.on_asked(0, 1, &made);
        let told = FileReply::Entry(attributes(FOLDER.0, FileKind::Directory), Duration::ZERO);
        history.tell(0, Ok(told));
        history
    }

    fn ask(&mut self, operation: u64, mount: MountId, body: FileRequest) {
        self.judge.on_asked(operation, mount, &body);
    }

    fn tell(&mut self, operation: u64, result: Result<FileReply, Errno>) {
        if let Err(how) = self.judge.on_answered(operation, &result) {
            self.wrong.get_or_insert(how);
        }
    }

    fn lose(&mut self, mount: MountId) {
        if let Err(how) = self.judge.lose_mount(mount) {
            self.wrong.get_or_insert(how);
        }
    }

    /// One request after the other.
    fn then(&mut self, mount: MountId, body: FileRequest, result: Result<FileReply, Errno>) {
        self.ask(99, mount, body);
        self.tell(99, result);
    }

    fn is_good(&self) -> bool {
        self.wrong.is_none()
    }
}

fn name(name: &str) -> Name {
    name.as_bytes().to_vec()
}

fn lookup(text: &str) -> FileRequest {
    FileRequest::Lookup {
        parent: FOLDER,
        name: name(text),
    }
}

fn create(text: &str, exclusive: bool) -> FileRequest {
    FileRequest::Create {
        parent: FOLDER,
        name: name(text),
        mode: 0o644,
        exclusive,
        truncate: false,
        read: true,
        write: true,
    }
}

fn unlink(text: &str) -> FileRequest {
    FileRequest::Unlink {
        parent: FOLDER,
        name: name(text),
    }
}

fn rename(from: &str, to: &str, new_parent: InodeId, mode: RenameMode) -> FileRequest {
    FileRequest::Rename {
        parent: FOLDER,
        name: name(from),
        new_parent,
        new_name: name(to),
        mode,
    }
}

fn found(inode: u64) -> Result<FileReply, Errno> {
    let told = attributes(inode, FileKind::Regular);
    Ok(FileReply::Entry(told, Duration::ZERO))
}

fn opened(inode: u64) -> Result<FileReply, Errno> {
    Ok(FileReply::Opened {
        handle: 1,
        attributes: attributes(inode, FileKind::Regular),
        valid: Duration::ZERO,
        keep_cache: false,
    })
}

fn absent() -> Result<FileReply, Errno> {
    Ok(FileReply::Absent(Duration::ZERO))
}

fn done() -> Result<FileReply, Errno> {
    Ok(FileReply::Done)
}

#[test]
fn what_overlaps_may_take_effect_in_either_order() {
    let mut history = History::new();
    history.then(1, lookup("f"), absent());
    history.ask(1, 1, create("f", true));
    history.ask(2, 2, lookup("f"));
    history.ask(3, 3, create("f", true));
    history.tell(2, found(9));
    history.tell(3, opened(9));
    history.tell(1, Err(Errno::EEXIST));
    history.then(1, lookup("f"), found(9));
    assert!(history.judge.judged >= 5);
    assert!(history.is_good());
}

#[test]
fn a_name_can_not_be_made_twice() {
    let mut history = History::new();
    history.then(1, lookup("f"), absent());
    history.ask(1, 1, create("f", true));
    history.ask(2, 2, create("f", true));
    history.tell(1, opened(9));
    history.tell(2, opened(10));
    assert!(!history.is_good());
}

#[test]
fn what_another_mount_found_there_need_not_be_pushed_yet() {
    // A file is being made; another program of that mount opens it meanwhile, or renames
    // it to itself, and is answered at once.
    let opens = |open: FileRequest, answer: Result<FileReply, Errno>, seen: u64| {
        let mut history = History::new();
        history.then(2, lookup("f"), absent());
        history.ask(1, 1, create("f", false));
        history.then(1, open, answer);
        history.then(2, lookup("f"), absent());
        history.tell(1, opened(seen));
        history.then(2, lookup("f"), found(9));
        history.is_good()
    };
    let itself = || rename("f", "f", FOLDER, RenameMode::Replace);
    assert!(opens(create("f", false), opened(9), 9));
    assert!(opens(itself(), done(), 9));
    assert!(!opens(itself(), done(), 10));
}

#[test]
fn an_answered_change_is_seen_by_everybody() {
    let mut history = History::new();
    history.then(1, create("f", true), opened(9));
    history.then(2, lookup("f"), absent());
    assert!(!history.is_good());
    // Also one that might have found the file there, but can't have.
    let mut history = History::new();
    history.then(2, lookup("f"), absent());
    history.then(1, create("f", false), opened(9));
    history.then(2, lookup("f"), absent());
    assert!(!history.is_good());
}

#[test]
fn one_mount_does_not_see_a_change_come_and_go() {
    let sees = |second: MountId| {
        let mut history = History::new();
        history.then(1, lookup("f"), absent());
        history.ask(1, 1, create("f", true));
        history.then(2, lookup("f"), found(9));
        history.then(second, lookup("f"), absent());
        history.tell(1, opened(9));
        history.is_good()
    };
    // Another mount may still have it cached that there is nothing.
    assert!(sees(3) && !sees(2));
}

#[test]
fn a_request_that_is_carried_out_twice_is_found_out() {
    let mut history = History::new();
    history.then(1, create("f", true), opened(9));
    // The first answer was lost; the second time there was nothing left.
    history.then(1, unlink("f"), Err(Errno::ENOENT));
    assert!(!history.is_good());
    let mut history = History::new();
    history.then(1, create("f", true), opened(9));
    history.ask(1, 1, unlink("f"));
    history.then(2, unlink("f"), done());
    history.tell(1, Err(Errno::ENOENT));
    assert!(history.is_good());
}

#[test]
fn what_was_never_answered_may_happen_late_but_only_once() {
    let lost = |told: &[Result<FileReply, Errno>]| {
        let mut history = History::new();
        history.then(2, create("f", true), opened(9));
        history.ask(1, 1, unlink("f"));
        history.lose(1);
        for result in told {
            history.then(2, lookup("f"), result.clone());
        }
        history
    };
    assert!(lost(&[found(9), found(9), absent(), absent()]).is_good());
    assert!(lost(&[found(9), found(9)]).is_good());
    assert!(!lost(&[absent(), found(9)]).is_good());
    let mut history = lost(&[found(9), absent()]);
    history.then(2, create("f", true), opened(10));
    history.then(2, lookup("f"), absent());
    assert!(!history.is_good());
}

#[test]
fn an_error_that_tells_nothing_leaves_it_open_whether_it_happened() {
    for told in [found(9), absent()] {
        let mut history = History::new();
        history.then(1, create("f", true), opened(9));
        history.then(1, unlink("f"), Err(Errno::EIO));
        history.then(2, lookup("f"), told);
        assert!(history.is_good());
    }
}

#[test]
fn a_rename_takes_both_names_at_once() {
    let start = || {
        let mut history = History::new();
        history.then(1, create("f", true), opened(9));
        history.then(1, lookup("g"), absent());
        history.ask(1, 1, rename("f", "g", FOLDER, RenameMode::Replace));
        history
    };
    let mut history = start();
    history.then(2, lookup("g"), found(9));
    history.then(2, lookup("f"), absent());
    history.tell(1, done());
    assert!(history.is_good());
    // Never both, never none.
    let mut history = start();
    history.then(2, lookup("g"), found(9));
    history.then(2, lookup("f"), found(9));
    history.tell(1, done());
    assert!(!history.is_good());
    let mut history = start();
    history.then(2, lookup("f"), absent());
    history.then(2, lookup("g"), absent());
    history.tell(1, done());
    assert!(!history.is_good());
}

#[test]
fn names_change_places_and_two_names_of_one_object_do_not_move() {
    let mut history = History::new();
    history.then(1, create("f", true), opened(9));
    history.then(1, create("g", true), opened(10));
    history.then(1, rename("f", "g", FOLDER, RenameMode::Exchange), done());
    history.then(2, lookup("f"), found(10));
    history.then(2, lookup("g"), found(9));
    let link = FileRequest::Link {
        inode: InodeId(9),
        parent: FOLDER,
        name: name("h"),
    };
    history.then(1, link, found(9));
    history.then(1, rename("h", "g", FOLDER, RenameMode::Replace), done());
    history.then(2, lookup("h"), found(9));
    assert!(history.is_good());
}

#[test]
fn a_rename_into_another_folder_leaves_open_what_is_there() {
    let mut history = History::new();
    history.then(1, create("f", true), opened(9));
    let elsewhere = InodeId(8);
    history.then(1, rename("f", "g", elsewhere, RenameMode::Replace), done());
    history.then(2, lookup("f"), absent());
    assert!(history.is_good());
}

#[test]
fn a_folder_that_may_be_gone_answers_what_it_likes() {
    let mut history = History::new();
    history.then(1, create("f", true), opened(9));
    let parent = InodeId::ROOT;
    let folder = name("folder");
    history.ask(
        1,
        2,
        FileRequest::Rmdir {
            parent,
            name: folder,
        },
    );
    history.then(1, unlink("f"), Err(Errno::ENOENT));
    history.tell(1, Err(Errno::ENOTEMPTY));
    assert!(history.is_good());
}

#[test]
fn a_window_that_is_too_long_is_let_go_and_the_next_is_judged() {
    let mut history = History::new();
    history.ask(1, 1, lookup("other"));
    for _ in 0..60 {
        history.then(2, lookup("f"), found(9));
        history.then(2, lookup("f"), absent());
    }
    history.tell(1, Ok(FileReply::Bytes(Bytes::new())));
    assert!(history.judge.skipped >= 120);
    history.then(1, create("f", true), opened(9));
    history.then(2, lookup("f"), absent());
    assert!(!history.is_good());
}

#[test]
fn a_thousand_good_requests_take_no_time() {
    let mut history = History::new();
    for round in 0..250 {
        history.ask(1, 1, create("f", true));
        history.ask(2, 2, lookup("f"));
        history.ask(3, 3, unlink("f"));
        history.tell(1, opened(round + 9));
        history.tell(3, done());
        history.tell(2, absent());
        history.then(1, lookup("f"), absent());
    }
    assert_eq!(history.judge.skipped, 0);
    assert!(history.is_good());
}
