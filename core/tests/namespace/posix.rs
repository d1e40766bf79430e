//! The rules of POSIX as text cases: `WHO OPERATION ARGUMENTS => ANSWER`, one per
//! line; `==== title` begins a fresh tree. `ANTLER_REWRITE=1` writes the present
//! answers into the files, to be read before they are kept. The answers were
//! compared with what Linux says on tmpfs.
#![allow(
    clippy::disallowed_methods,
    reason = "the cases are files, and an environment variable rewrites them"
)]

use crate::world::{ROOT, World, alice, bob, root, stranger};
use antler_core::attributes::{
    AttributeChange, Attributes, Credentials, FileKind, RenameMode, TimeChange, XattrMode,
};
use antler_core::errno::Errno;
use antler_core::ids::InodeId;
use antler_core::namespace::record::{Mutation, Reply};
use antler_core::time::Timestamp;
use std::collections::BTreeMap;
use std::path::Path;

#[test]
fn names() {
    run("names");
}

#[test]
fn renames() {
    run("renames");
}

#[test]
fn permissions() {
    run("permissions");
}

#[test]
fn attributes() {
    run("attributes");
}

#[test]
fn xattrs() {
    run("xattrs");
}

/// Runs a file of cases and compares its answers.
fn run(area: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/namespace/cases");
    let path = path.join(format!("{area}.txt"));
    let cases = std::fs::read_to_string(&path).expect("the cases are beside this file");
    let answered = answer(&cases);
    if std::env::var("ANTLER_REWRITE").is_ok() {
        std::fs::write(&path, answered).expect("the cases can be written");
        return;
    }
    for (number, (want, have)) in cases.lines().zip(answered.lines()).enumerate() {
        assert_eq!(have, want, "{area}.txt line {}", number + 1);
    }
}

fn answer(cases: &str) -> String {
    let mut tree = Tree::new();
    let mut answered = String::new();
    for line in cases.lines() {
        if line.starts_with("====") {
            tree = Tree::new();
        }
        let is_case = !line.is_empty() && !line.starts_with(['=', '#']);
        let asked = line.split(" => ").next().unwrap_or(line).trim_end();
        answered += asked;
        if is_case {
            answered += " => ";
            answered += &tree.case(asked);
        }
        answered.push('\n');
    }
    answered
}

struct Tree {
    world: World,
    /// Times as they were when last asked about.
    seen: BTreeMap<String, [Timestamp; 3]>,
}

type Told = Result<String, Errno>;

impl Tree {
    /// An empty tree in which everybody may make things.
    fn new() -> Self {
        let mut world = World::new();
        world.chmod(&root(), ROOT, 0o777).expect("root may");
        let seen = BTreeMap::new();
        Self { world, seen }
    }

    fn case(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let who = match words[0] {
            "root" => root(),
            "alice" => alice(),
            "bob" => bob(),
            "stranger" => stranger(),
            other => panic!("nobody is called {other}"),
        };
        match self.operation(&who, words[1], &words[2..]) {
            Ok(told) => told,
            Err(errno) => errno.name().to_owned(),
        }
    }

    fn operation(&mut self, who: &Credentials, operation: &str, words: &[&str]) -> Told {
        match (operation, words) {
            ("mkdir", [path, mode]) => self.make(who, path, FileKind::Directory, octal(mode)),
            ("file", [path, mode]) => self.make(who, path, FileKind::Regular, octal(mode)),
            ("fifo", [path, mode]) => self.make(who, path, FileKind::Fifo, octal(mode)),
            ("char", [path, mode]) => self.make(who, path, FileKind::CharDevice, octal(mode)),
            ("symlink", [path]) => self.make(who, path, FileKind::Symlink, 0o777),
            ("link", [path, new]) => self.link(who, path, new),
            ("unlink", [path]) => {
                let (parent, name) = self.split(who, path)?;
                done(self.world.unlink(who, parent, &name))
            }
            ("rmdir", [path]) => {
                let (parent, name) = self.split(who, path)?;
                done(self.world.rmdir(who, parent, &name))
            }
            ("mv", [path, new]) => self.rename(who, path, new, RenameMode::Replace),
            ("mv-noreplace", [path, new]) => self.rename(who, path, new, RenameMode::NoReplace),
            ("swap", [path, new]) => self.rename(who, path, new, RenameMode::Exchange),
            ("stat", [path]) => Ok(stat(&self.find(who, path)?)),
            ("ls", [path]) => self.list(who, path),
            ("changed", [path]) => self.changed(who, path),
            ("open", [path, how]) => self.open(who, path, how),
            _ => self.attribute_operation(who, operation, words),
        }
    }

    fn attribute_operation(&mut self, who: &Credentials, operation: &str, words: &[&str]) -> Told {
        let inode = self.find(who, words[0])?.inode;
        let mut change = AttributeChange::default();
        match (operation, &words[1..]) {
            ("chmod", [mode]) => change.mode = Some(octal(mode)),
            ("chown", [uid, gid]) => {
                (change.uid, change.gid) = (uid.parse().ok(), gid.parse().ok())
            }
            ("truncate", [size]) => change.size = size.parse().ok(),
            ("touch", []) => (change.atime, change.mtime) = (TimeChange::Now, TimeChange::Now),
            ("settime", [atime, mtime]) => {
                (change.atime, change.mtime) = (moment(atime), moment(mtime));
            }
            ("setx", [name, value, rest @ ..]) => {
                let mode = match rest {
                    ["create"] => XattrMode::Create,
                    ["replace"] => XattrMode::Replace,
                    _ => XattrMode::Any,
                };
                return done(self.world.set_xattr(who, inode, name, value, mode));
            }
            ("getx", [name]) => {
                let value = self.world.state.xattr(inode, name.as_bytes(), who)?;
                return Ok(String::from_utf8_lossy(&value).into_owned());
            }
            ("rmx", [name]) => {
                let name = name.as_bytes().to_vec();
                return done(self.world.run(who, Mutation::RemoveXattr { inode, name }));
            }
            ("listx", []) => {
                let names = self.world.state.visible_xattrs(inode, who)?;
                return Ok(String::from_utf8_lossy(&names)
                    .replace('\0', " ")
                    .trim()
                    .to_owned());
            }
            _ => panic!("{operation} {words:?} is no operation"),
        }
        self.world
            .change(who, inode, change)
            .map(|_| "ok".to_owned())
    }

    /// The directory that a path ends in, and the last name.
    fn split(&self, who: &Credentials, path: &str) -> Result<(InodeId, String), Errno> {
        let (above, name) = path.rsplit_once('/').expect("paths begin with a slash");
        let parent = self.find(who, above)?;
        if parent.kind != FileKind::Directory {
            return Err(Errno::ENOTDIR);
        }
        let name = match name.strip_prefix("long:") {
            Some(length) => "x".repeat(length.parse().expect("a length")),
            None => name.to_owned(),
        };
        Ok((parent.inode, name))
    }

    fn find(&self, who: &Credentials, path: &str) -> Result<Attributes, Errno> {
        let mut at = self.world.state.attributes(ROOT)?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = self.world.state.lookup(at.inode, name.as_bytes(), who)?;
        }
        Ok(at)
    }

    fn make(&mut self, who: &Credentials, path: &str, kind: FileKind, mode: u32) -> Told {
        let (parent, name) = self.split(who, path)?;
        self.world
            .make(who, parent, &name, kind, mode)
            .map(|_| "ok".to_owned())
    }

    fn link(&mut self, who: &Credentials, path: &str, new: &str) -> Told {
        let inode = self.find(who, path)?.inode;
        let (parent, name) = self.split(who, new)?;
        done(self.world.link(who, inode, parent, &name))
    }

    fn rename(&mut self, who: &Credentials, path: &str, new: &str, mode: RenameMode) -> Told {
        let (from, name) = self.split(who, path)?;
        let (to, new_name) = self.split(who, new)?;
        done(self.world.rename(who, (from, &name), (to, &new_name), mode))
    }

    fn list(&self, who: &Credentials, path: &str) -> Told {
        let inode = self.find(who, path)?.inode;
        self.world.state.check_open(inode, true, false, who)?;
        let (entries, _) = self.world.state.read_directory(inode, 0, 1000)?;
        let names = entries
            .iter()
            .map(|entry| String::from_utf8_lossy(&entry.name).into_owned());
        let mut names: Vec<String> = names.collect();
        names.sort();
        Ok(names.join(" "))
    }

    /// Which times are others than when this was last asked.
    fn changed(&mut self, who: &Credentials, path: &str) -> Told {
        let now = self.find(who, path)?;
        let times = [now.atime, now.mtime, now.ctime];
        let Some(before) = self.seen.insert(path.to_owned(), times) else {
            return Ok("first".to_owned());
        };
        let names = ["atime", "mtime", "ctime"]
            .into_iter()
            .zip(times.into_iter().zip(before));
        let names = names.filter(|(_, (now, before))| now != before);
        Ok(names.map(|(name, _)| name).collect::<Vec<_>>().join(" "))
    }

    fn open(&self, who: &Credentials, path: &str, how: &str) -> Told {
        let inode = self.find(who, path)?.inode;
        let (read, write) = (how.contains('r'), how.contains('w'));
        self.world
            .state
            .check_open(inode, read, write, who)
            .map(|_| "ok".to_owned())
    }
}

fn done(outcome: Result<Reply, Errno>) -> Told {
    outcome.map(|_| "ok".to_owned())
}

fn octal(mode: &str) -> u32 {
    u32::from_str_radix(mode, 8).expect("modes are octal")
}

fn moment(time: &str) -> TimeChange {
    match time {
        "now" => TimeChange::Now,
        "omit" => TimeChange::Keep,
        seconds => TimeChange::Set(Timestamp {
            seconds: seconds.parse().expect("seconds"),
            nanos: 0,
        }),
    }
}

fn stat(attributes: &Attributes) -> String {
    let Attributes {
        kind,
        mode,
        nlink,
        uid,
        gid,
        size,
        ..
    } = attributes;
    let (kind, size) = match kind {
        FileKind::Regular => ("file", format!(" size {size}")),
        FileKind::Directory => ("directory", String::new()),
        FileKind::Symlink => ("symlink", format!(" size {size}")),
        FileKind::Fifo => ("fifo", String::new()),
        FileKind::Socket => ("socket", String::new()),
        FileKind::CharDevice => ("char", String::new()),
        FileKind::BlockDevice => ("block", String::new()),
    };
    format!("{kind} {mode:04o} {uid}:{gid} links {nlink}{size}")
}
