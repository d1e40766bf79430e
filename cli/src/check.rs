//! `antler check`: reads every copy of every chunk of a tree, each from its own server,
//! and says what is wrong.
//!
//! Owns the walk and the verdict; leaves reading one copy to the client machine and the
//! checksums of what lies on disks to the servers, which tell the leader of what they find
//! bad. What changes while it is read is read anew.

use crate::arguments::Check;
use crate::failure::{Failure, Outcome};
use crate::out::say;
use crate::parity::{self, Parts};
use crate::session::Session;
use crate::target;
use antler_core::attributes::{Attributes, Credentials, FileKind};
use antler_core::chunk::map::ranges;
use antler_core::client::request::{FileReply, FileRequest};
use antler_core::errno::Errno;
use antler_core::ids::{ChunkId, InodeId, PartId, ServerId};
use antler_core::limits::UNIT_SIZE;
use antler_core::wire::client_chunk::{ChunkErrorKind, ChunkReplyBody};
use antler_core::wire::client_master::{Answer, ChunkInfo, FileInfo, LocatedCopy, Query};
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// The exit code that says that something was found.
const FOUND: u8 = 3;
/// How often a chunk is looked at that changes meanwhile, or can't be read for the moment.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);
/// Names of one question.
const ENTRIES: u32 = 1000;

/// Runs the command.
pub(crate) fn run(arguments: &Check) -> Outcome<ExitCode> {
    let found = target::find(&arguments.target, Some(&arguments.path))?;
    let report = found.with_session(async |session| {
        let mut checker = Checker {
            session,
            is_told: !arguments.json,
            linked: BTreeSet::new(),
            report: Report::default(),
        };
        let inode = found.inode(session).await?;
        checker.tree(inode, &arguments.path).await?;
        Ok(checker.report)
    })?;
    match arguments.json {
        true => say!("{:#}", report.as_json()),
        false => say!("{}", report.as_text()),
    }
    Ok(match report.problems.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(FOUND),
    })
}

/// What can be wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    /// A copy has a wrong checksum.
    Bad,
    /// There are fewer copies than wanted.
    Missing,
    /// Copies that should be equal are not.
    Differing,
    /// A copy should be there, and its server does not give it.
    Unreachable,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Bad => "bad",
            Self::Missing => "missing",
            Self::Differing => "differing",
            Self::Unreachable => "unreachable",
        }
    }
}

#[derive(Clone, Debug)]
struct Problem {
    kind: Kind,
    path: PathBuf,
    index: u32,
    chunk: ChunkId,
    /// Whose copy, if it is about one.
    copy: Option<(ServerId, u8)>,
    text: String,
}

/// What was read, and what was found.
#[derive(Debug, Default)]
struct Report {
    files: u64,
    chunks: u64,
    copies: u64,
    bytes: u64,
    problems: Vec<Problem>,
}

impl Report {
    fn count(&self, kind: Kind) -> usize {
        let of_kind = self.problems.iter().filter(|one| one.kind == kind);
        of_kind.count()
    }

    fn as_text(&self) -> String {
        let verdict = match self.problems.is_empty() {
            true => "all well".to_owned(),
            false => format!(
                "{} bad, {} missing, {} differing, {} unreachable",
                self.count(Kind::Bad),
                self.count(Kind::Missing),
                self.count(Kind::Differing),
                self.count(Kind::Unreachable)
            ),
        };
        format!(
            "{} files, {} chunks, {} copies read, {}: {verdict}",
            self.files,
            self.chunks,
            self.copies,
            crate::status::bytes(self.bytes)
        )
    }

    fn as_json(&self) -> Value {
        let problem = |one: &Problem| {
            json!({
                "kind": one.kind.name(),
                "path": one.path.to_string_lossy(),
                "index": one.index,
                "chunk": one.chunk.0,
                "server": one.copy.map(|(server, _)| server.to_string()),
                "part": one.copy.map(|(_, part)| part),
                "text": one.text,
            })
        };
        json!({
            "files": self.files,
            "chunks": self.chunks,
            "copies": self.copies,
            "bytes": self.bytes,
            "bad": self.count(Kind::Bad),
            "missing": self.count(Kind::Missing),
            "differing": self.count(Kind::Differing),
            "unreachable": self.count(Kind::Unreachable),
            "problems": self.problems.iter().map(problem).collect::<Vec<_>>(),
        })
    }
}

/// What a copy holds: the number and the checksum of each unit that is not all zeros.
type Content = Vec<(u32, u32)>;

/// Why a copy could not be read.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Trouble {
    Bad(String),
    /// It may go by.
    Passing(String),
}

/// Of the copies of a chunk, what each holds.
struct Look {
    copies: Vec<(LocatedCopy, Result<Content, Trouble>)>,
    /// Parts that were read, whole, by index.
    parts: Parts,
}

struct Checker<'s> {
    session: &'s Session,
    /// Problems are told as they are found.
    is_told: bool,
    /// Files with several names that were seen.
    linked: BTreeSet<InodeId>,
    report: Report,
}

impl Checker<'_> {
    /// Checks everything below an object.
    async fn tree(&mut self, inode: InodeId, path: &Path) -> Outcome<()> {
        let attributes = self.attributes(inode, path).await?;
        let mut folders = Vec::new();
        self.object(&attributes, path.to_owned(), &mut folders)
            .await?;
        while let Some((folder, path)) = folders.pop() {
            self.folder(folder, &path, &mut folders).await?;
        }
        Ok(())
    }

    async fn attributes(&self, inode: InodeId, path: &Path) -> Outcome<Attributes> {
        match self.session.query(Query::Attributes { inode }).await {
            Ok(Answer::Entry(attributes)) => Ok(attributes),
            Ok(other) => panic!("attributes are answered by an entry, not {other:?}"),
            Err(error) => Err(failed(path, error)),
        }
    }

    async fn object(
        &mut self,
        attributes: &Attributes,
        path: PathBuf,
        folders: &mut Vec<(InodeId, PathBuf)>,
    ) -> Outcome<()> {
        match attributes.kind {
            FileKind::Directory => folders.push((attributes.inode, path)),
            FileKind::Regular => {
                let is_first = attributes.nlink < 2 || self.linked.insert(attributes.inode);
                if is_first {
                    self.file(attributes.inode, &path).await?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn folder(
        &mut self,
        inode: InodeId,
        path: &Path,
        folders: &mut Vec<(InodeId, PathBuf)>,
    ) -> Outcome<()> {
        let mut cookie = 0;
        loop {
            let most = ENTRIES;
            let query = Query::ReadDirectory {
                inode,
                cookie,
                most,
            };
            let (entries, end) = match self.session.query(query).await {
                Ok(Answer::Entries { entries, end }) => (entries, end),
                Ok(other) => panic!("a directory is answered by entries, not {other:?}"),
                Err(error) if is_gone(error) => return Ok(()),
                Err(error) => return Err(failed(path, error)),
            };
            for entry in &entries {
                cookie = entry.cookie;
                let path = path.join(OsStr::from_bytes(&entry.name));
                self.object(&entry.attributes, path, folders).await?;
            }
            if end || entries.is_empty() {
                return Ok(());
            }
        }
    }

    async fn file(&mut self, inode: InodeId, path: &Path) -> Outcome<()> {
        let mut from = Some(0);
        while let Some(index) = from {
            let Some(info) = self.info(inode, path, index).await? else {
                return Ok(());
            };
            self.report.files += u64::from(index == 0);
            from = info.next;
            for chunk in info.chunks {
                self.chunk(inode, path, chunk).await?;
            }
        }
        Ok(())
    }

    /// What the leader knows of some chunks of a file, from an index on; `None` if it is
    /// gone. To have them explained is what bounds their number: one who can't explain tells
    /// of all of them.
    async fn info(&self, inode: InodeId, path: &Path, from: u32) -> Outcome<Option<FileInfo>> {
        let explain = Some(from);
        match self.session.query(Query::Info { inode, explain }).await {
            Ok(Answer::Info(info)) => Ok(Some(*info)),
            Ok(other) => panic!("info is answered by info, not {other:?}"),
            Err(error) if is_gone(error) => Ok(None),
            Err(error) => Err(failed(path, error)),
        }
    }

    /// Checks a chunk, anew as long as it changes meanwhile or some copy is out of reach.
    async fn chunk(&mut self, inode: InodeId, path: &Path, mut info: ChunkInfo) -> Outcome<()> {
        self.report.chunks += 1;
        let mut bad = BTreeSet::new();
        for attempt in 1..=TRIES {
            let look = self.look(inode, path, &info).await?;
            self.tell_bad(path, &info, &look, &mut bad).await;
            let later = self.info(inode, path, info.index).await?;
            let chunks = later.map(|later| later.chunks).unwrap_or_default();
            let Some(later) = chunks.into_iter().find(|one| one.index == info.index) else {
                return Ok(());
            };
            let is_settled = is_same(&later, &info) && look.is_whole();
            if is_settled || attempt == TRIES {
                self.judge(path, &info, &look, &bad);
                return Ok(());
            }
            info = later;
            tokio::time::sleep(PAUSE * attempt).await;
        }
        Ok(())
    }

    /// Reads what can be read of a chunk's copies.
    async fn look(&mut self, inode: InodeId, path: &Path, info: &ChunkInfo) -> Outcome<Look> {
        let query = Query::Locate {
            inode,
            index: info.index,
            count: 1,
        };
        let located = match self.session.query(query).await {
            Ok(Answer::Located(mut chunks)) => chunks.pop(),
            Ok(other) => panic!("copies are answered by where they are, not {other:?}"),
            Err(error) if is_gone(error) => None,
            Err(error) => return Err(failed(path, error)),
        };
        let located = located.filter(|one| one.chunk == Some(info.chunk));
        let mut look = Look {
            copies: Vec::new(),
            parts: Parts::new(),
        };
        for copy in located.map(|one| one.copies).unwrap_or_default() {
            let part = info.stripe.and_then(|stripe| {
                let index = stripe.shape.index_of(copy.capability.part)?;
                Some((index, parity::blank(stripe.layout(), index)))
            });
            // A part ends elsewhere than the chunk.
            let valid = part.as_ref().map_or(info.valid, |_| u32::MAX);
            let (index, mut whole) = part.unzip();
            let content = self.read_copy(&copy, valid, whole.as_mut()).await;
            if let (Ok(_), Some(index), Some(whole)) = (&content, index, whole) {
                look.parts.insert(index, whole);
            }
            look.copies.push((copy, content));
        }
        Ok(look)
    }

    /// Reads one copy whole, from its server; what it holds is kept where there is room for it.
    async fn read_copy(
        &mut self,
        copy: &LocatedCopy,
        valid: u32,
        mut whole: Option<&mut Vec<u8>>,
    ) -> Result<Content, Trouble> {
        let (ChunkReplyBody::Map { present }, _) = self.ask(copy, None).await? else {
            return Err(Trouble::Passing("its reply makes no sense".to_owned()));
        };
        let mut content = Content::new();
        for (offset, length) in ranges(&present, 0) {
            let reply = self.ask(copy, Some((offset, length))).await?;
            let (ChunkReplyBody::Read { checksums, .. }, data) = reply else {
                return Err(Trouble::Passing("its reply makes no sense".to_owned()));
            };
            let right = data.chunks(UNIT_SIZE).map(crc32fast::hash).eq(checksums);
            if !right || data.len() != length as usize {
                return Err(Trouble::Bad("what it sends has wrong checksums".to_owned()));
            }
            self.report.bytes += data.len() as u64;
            if let Some(whole) = &mut whole {
                parity::fill(whole, offset, &data);
            }
            content.extend(units(offset, &data, valid));
        }
        Ok(content)
    }

    async fn ask(
        &self,
        copy: &LocatedCopy,
        range: Option<(u32, u32)>,
    ) -> Result<(ChunkReplyBody, Bytes), Trouble> {
        let body = FileRequest::ReadCopy {
            copy: Box::new(copy.clone()),
            range,
        };
        match self.session.ask(Credentials::default(), body).await {
            Ok(FileReply::Copy(Ok(reply))) => Ok(reply),
            Ok(FileReply::Copy(Err(error))) if error.kind == ChunkErrorKind::Corrupt => {
                Err(Trouble::Bad("it has a wrong checksum".to_owned()))
            }
            Ok(FileReply::Copy(Err(error))) => Err(Trouble::Passing(format!("{:?}", error.kind))),
            Ok(other) => panic!("a copy is answered by what it has, not {other:?}"),
            Err(error) => Err(Trouble::Passing(error.to_string())),
        }
    }

    /// Tells of copies that are bad, each once: the user, and the leader of those that it
    /// does not know.
    async fn tell_bad(
        &mut self,
        path: &Path,
        info: &ChunkInfo,
        look: &Look,
        bad: &mut BTreeSet<(ServerId, u8)>,
    ) {
        for (copy, content) in &look.copies {
            let Err(Trouble::Bad(text)) = content else {
                continue;
            };
            let PartId { part, .. } = copy.capability.part;
            let query = Query::BadCopy {
                part: copy.capability.part,
                version: copy.capability.version,
                server: copy.server,
            };
            // Its server knows, too.
            let _ = self.session.query(query).await;
            if bad.insert((copy.server, part)) {
                let text = format!("{} at {}: {text}", what(part), copy.address);
                self.found(Kind::Bad, path, info, (Some((copy.server, part)), text));
            }
        }
        for copy in info.copies.iter().filter(|copy| copy.state == "bad") {
            if bad.insert((copy.server, copy.part)) {
                let text = format!("{} at {}: known to be bad", what(copy.part), copy.address);
                let whose = Some((copy.server, copy.part));
                self.found(Kind::Bad, path, info, (whose, text));
            }
        }
    }

    /// What there is to say of a chunk, but for its bad copies.
    fn judge(
        &mut self,
        path: &Path,
        info: &ChunkInfo,
        look: &Look,
        bad: &BTreeSet<(ServerId, u8)>,
    ) {
        self.report.copies += look.copies.len() as u64;
        for (copy, content) in &look.copies {
            if let Err(Trouble::Passing(text)) = content {
                let part = copy.capability.part.part;
                let text = format!("{} at {}: {text}", what(part), copy.address);
                self.found(
                    Kind::Unreachable,
                    path,
                    info,
                    (Some((copy.server, part)), text),
                );
            }
        }
        let missing = missing(info, look, bad);
        if missing > 0 {
            let text = format!("{missing} of {} are not there", info.wanted);
            self.found(Kind::Missing, path, info, (None, text));
        }
        if info.lease != "settled" {
            return;
        }
        let text = match info.stripe {
            None => difference(look),
            Some(stripe) => discord(&parity::strays(stripe.layout(), &look.parts)),
        };
        if let Some(text) = text {
            self.found(Kind::Differing, path, info, (None, text));
        }
    }

    fn found(
        &mut self,
        kind: Kind,
        path: &Path,
        info: &ChunkInfo,
        (copy, text): (Option<(ServerId, u8)>, String),
    ) {
        let problem = Problem {
            kind,
            path: path.to_owned(),
            index: info.index,
            chunk: info.chunk,
            copy,
            text,
        };
        if self.is_told {
            say!(
                "{}: [{}] {}: {}: {}",
                path.display(),
                info.index,
                info.chunk,
                kind.name(),
                problem.text
            );
        }
        self.report.problems.push(problem);
    }
}

impl Look {
    /// Whether every copy was read, or is bad for good.
    fn is_whole(&self) -> bool {
        let passing =
            |(_, content): &(_, Result<_, _>)| matches!(content, Err(Trouble::Passing(_)));
        !self.copies.is_empty() && !self.copies.iter().any(passing)
    }
}

fn failed(path: &Path, error: Errno) -> Failure {
    Failure::undone(format_args!("{}: {error}", path.display()))
}

/// It was removed meanwhile.
fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::ENOENT | Errno::ESTALE)
}

fn what(part: u8) -> String {
    match part {
        0 => "the copy".to_owned(),
        part => format!("part {part}"),
    }
}

/// Whether nothing changed that copies are judged by.
fn is_same(one: &ChunkInfo, other: &ChunkInfo) -> bool {
    let key = |info: &ChunkInfo| {
        let place = (info.chunk, info.version, info.epoch, info.valid);
        (place, info.lease.clone(), info.stripe)
    };
    key(one) == key(other)
}

/// How many copies are wanted and are neither there nor counted as bad.
fn missing(info: &ChunkInfo, look: &Look, bad: &BTreeSet<(ServerId, u8)>) -> usize {
    let located = look.copies.iter().map(|(copy, _)| {
        let part = copy.capability.part.part;
        (copy.server, part)
    });
    let known: BTreeSet<(ServerId, u8)> = located.chain(bad.iter().copied()).collect();
    let there = match info.stripe {
        None => known.len(),
        Some(_) => {
            let parts: BTreeSet<u8> = known.iter().map(|(_, part)| *part).collect();
            parts.len()
        }
    };
    // Under a lease its write set is all that there is to be.
    match info.lease == "settled" || there == 0 {
        true => usize::from(info.wanted).saturating_sub(there),
        false => 0,
    }
}

/// Where two copies that were read differ.
fn difference(look: &Look) -> Option<String> {
    let mut good = look.copies.iter().filter_map(|(copy, content)| {
        let content = content.as_ref().ok()?;
        Some((copy, content))
    });
    let (first, content) = good.next()?;
    let (other, _) = good.find(|(_, other)| *other != content)?;
    Some(format!(
        "the copies at {} and {} are not equal",
        first.address, other.address
    ))
}

/// What there is to say of parity parts, by index, that the data parts do not give.
fn discord(strays: &BTreeSet<usize>) -> Option<String> {
    let names: Vec<String> = strays.iter().map(|index| (index + 1).to_string()).collect();
    let names = names.join(", ");
    (!strays.is_empty()).then(|| format!("the data parts do not give the parity in part {names}"))
}

/// The units of some data that lie before `valid` and are not all zeros.
fn units(offset: u32, data: &[u8], valid: u32) -> Content {
    let size = u32::try_from(UNIT_SIZE).expect("a unit is small");
    let numbered = (offset / size..).zip(data.chunks(UNIT_SIZE));
    let units = numbered.filter_map(|(unit, content)| {
        let left = valid.saturating_sub(unit * size) as usize;
        let content = &content[..content.len().min(left)];
        let is_blank = content.iter().all(|byte| *byte == 0);
        (!is_blank).then(|| (unit, crc32fast::hash(content)))
    });
    units.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_compared_by_what_may_be_read_of_them() {
        let mut data = vec![0; 3 * UNIT_SIZE];
        data[5000] = 7;
        let one = units(8192, &data, u32::MAX);
        assert_eq!(one.len(), 1);
        assert_eq!(one[0].0, 3);
        data[3 * UNIT_SIZE - 1] = 1;
        assert_ne!(units(8192, &data, u32::MAX), one);
        assert_eq!(units(8192, &data, 8192 + 2 * 4096 + 100), one);
        assert_eq!(units(8192, &data, 0), []);
    }

    #[test]
    fn a_report_says_all_in_json() {
        let report = Report {
            problems: vec![Problem {
                kind: Kind::Bad,
                path: "/f".into(),
                index: 0,
                chunk: ChunkId(7),
                copy: Some((ServerId(1), 0)),
                text: "a".into(),
            }],
            ..Report::default()
        };
        let told = report.as_json();
        assert_eq!(told.pointer("/bad"), Some(&json!(1)));
        assert_eq!(told.pointer("/problems/0/chunk"), Some(&json!(7)));
        assert!(report.as_text().contains("1 bad, 0 missing"));
        assert!(Report::default().as_text().ends_with("all well"));
    }
}
