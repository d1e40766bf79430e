//! The journal: one line for each attempt and for each acknowledgement,
//! appended with one write(2) each, so that a line is there whole or not.
//! `try|ack RUN THREAD KIND NUMBER LENGTH`.

use crate::pattern::Label;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

/// What is done, and noted, in one step.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    /// A new file, synced, its directory too.
    New,
    /// A record appended to the thread's log, synced. Its number is the offset.
    Append,
    /// A 4 KiB unit overwritten in place, synced. Its number is version * UNITS + unit.
    Overwrite,
    /// A file renamed over another, synced before and the directory after.
    Replace,
}

const KINDS: [(&str, Kind); 4] = [
    ("new", Kind::New),
    ("append", Kind::Append),
    ("overwrite", Kind::Overwrite),
    ("replace", Kind::Replace),
];

/// One operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Entry {
    /// The writer's run.
    pub(crate) run: u64,
    /// The writer's thread.
    pub(crate) thread: u64,
    /// What was done.
    pub(crate) kind: Kind,
    /// Which one; see [`Kind`].
    pub(crate) number: u64,
    /// How many bytes.
    pub(crate) length: u64,
}

impl Entry {
    /// Names the bytes that this operation writes.
    pub(crate) fn label(self) -> Label {
        Label {
            run: self.run,
            thread: self.thread,
            kind: self.kind as u64,
            number: self.number,
        }
    }

    fn parse(words: &[&str]) -> Option<Self> {
        let [run, thread, kind, number, length] = words else {
            return None;
        };
        Some(Self {
            run: run.parse().ok()?,
            thread: thread.parse().ok()?,
            kind: KINDS.iter().find(|(name, _)| name == kind)?.1,
            number: number.parse().ok()?,
            length: length.parse().ok()?,
        })
    }
}

impl std::fmt::Display for Entry {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = KINDS
            .iter()
            .find(|(_, kind)| *kind == self.kind)
            .expect("all kinds are listed")
            .0;
        write!(
            out,
            "{} {} {name} {} {}",
            self.run, self.thread, self.number, self.length
        )
    }
}

/// Opens a journal to append to it.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Notes an attempt (`try`) or an acknowledgement (`ack`).
pub(crate) fn note(mut journal: &File, word: &str, entry: Entry) -> io::Result<()> {
    journal.write_all(format!("{word} {entry}\n").as_bytes())
}

/// All operations of a journal, in order, and whether each was acknowledged.
pub(crate) fn read(path: &Path) -> io::Result<Vec<(Entry, bool)>> {
    let mut known: BTreeMap<Entry, usize> = BTreeMap::new();
    let mut entries = Vec::new();
    for line in BufReader::new(File::open(path)?).lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let entry = words
            .get(1..)
            .and_then(Entry::parse)
            .ok_or_else(|| io::Error::other(format!("not a journal line: {line}")))?;
        match words[0] {
            "try" => {
                known.insert(entry, entries.len());
                entries.push((entry, false));
            }
            _ => {
                let index = known.get(&entry).ok_or_else(|| {
                    io::Error::other(format!("acknowledged, never tried: {line}"))
                })?;
                entries[*index].1 = true;
            }
        }
    }
    Ok(entries)
}
