//! `antler explain`: why the chunks of a file, or of all files below a directory, are as
//! they are. What is told is the leader's word; this owns the form.

use crate::arguments::Explain;
use crate::classes::list;
use crate::failure::{Failure, Outcome};
use crate::out::{say, say_part};
use crate::session::Session;
use crate::target;
use crate::tools;
use antler_core::attributes::FileKind;
use antler_core::errno::Errno;
use antler_core::ids::InodeId;
use antler_core::wire::client_master::{
    Answer, ChunkInfo, CopyInfo, Explanation, FileInfo, Query, Survival,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

/// Why a leader of an older version is of no use here.
const TOO_OLD: &str = "the leader is of a version that can't explain; `antler info` shows what it \
     knows";

/// Runs the command.
pub(crate) fn run(arguments: &Explain) -> Outcome<()> {
    let path = &arguments.path;
    let found = target::find(&arguments.target, Some(path))?;
    found.with_session(async |session| {
        let inode = found.inode(session).await?;
        let wrong = |error: Wrong| match error {
            Wrong::TooOld => Failure::undone(TOO_OLD),
            Wrong::Refused(error) => Failure::undone(format_args!("{}: {error}", path.display())),
        };
        let info = ask(session, inode).await.map_err(wrong)?;
        match info.attributes.kind {
            FileKind::Directory => {
                let whole = arguments.recursive;
                let tree = walk(session, inode, whole).await.map_err(wrong)?;
                match arguments.json {
                    true => say!("{:#}", tree.as_json()),
                    false => say_part!("{}", tree.as_text(path)),
                }
            }
            _ if arguments.json => say!("{:#}", tools::as_json(&info)),
            _ => say_part!("{}", file_text(&path.display().to_string(), &info)),
        }
        Ok(())
    })
}

/// What went wrong with a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wrong {
    TooOld,
    Refused(Errno),
}

/// Asks until all chunks of a file were explained.
async fn ask(session: &Session, inode: InodeId) -> Result<FileInfo, Wrong> {
    let mut all: Option<FileInfo> = None;
    let mut from = 0;
    loop {
        let query = Query::Info {
            inode,
            explain: Some(from),
        };
        let some = match session.query(query).await {
            Ok(Answer::Info(info)) => *info,
            Ok(other) => panic!("info is answered by info, not {other:?}"),
            Err(error) => return Err(Wrong::Refused(error)),
        };
        if some.policy.is_none() {
            return Err(Wrong::TooOld);
        }
        let next = some.next;
        let whole = match all {
            None => some,
            Some(mut whole) => {
                whole.chunks.extend(some.chunks);
                whole
            }
        };
        match next {
            None => return Ok(whole),
            Some(next) => from = next,
        }
        all = Some(whole);
    }
}

/// The files in a directory, or below it.
#[derive(Debug, Default)]
struct Tree {
    files: u64,
    chunks: u64,
    /// Chunks by the word for their health.
    health: BTreeMap<String, u64>,
    /// Files with a chunk that is not at goal, by their path below the directory.
    unwell: Vec<(String, FileInfo)>,
}

async fn walk(session: &Session, root: InodeId, whole: bool) -> Result<Tree, Wrong> {
    let mut tree = Tree::default();
    let mut left = vec![(String::new(), root)];
    while let Some((path, directory)) = left.pop() {
        let entries = match list(session, directory).await {
            Ok(entries) => entries,
            // It was removed meanwhile.
            Err(Errno::ENOENT | Errno::ESTALE) => continue,
            Err(error) => return Err(Wrong::Refused(error)),
        };
        for entry in entries {
            let path = format!("{path}/{}", String::from_utf8_lossy(&entry.name));
            let inode = entry.attributes.inode;
            match (entry.attributes.kind, whole) {
                (FileKind::Directory, true) => left.push((path, inode)),
                (FileKind::Directory, false) => {}
                _ => match ask(session, inode).await {
                    Ok(info) => tree.add(path, info),
                    Err(Wrong::Refused(Errno::ENOENT | Errno::ESTALE)) => {}
                    Err(error) => return Err(error),
                },
            }
        }
    }
    tree.unwell.sort_by(|left, right| left.0.cmp(&right.0));
    Ok(tree)
}

impl Tree {
    fn add(&mut self, path: String, mut info: FileInfo) {
        self.files += 1;
        self.chunks += info.chunks.len() as u64;
        for chunk in &info.chunks {
            *self.health.entry(health(chunk).to_owned()).or_default() += 1;
        }
        info.chunks.retain(|chunk| health(chunk) != AT_GOAL);
        if !info.chunks.is_empty() {
            self.unwell.push((path, info));
        }
    }

    fn as_text(&self, path: &Path) -> String {
        let counts = self.health.iter();
        let counts: Vec<String> = counts
            .map(|(word, count)| format!("{word} {count}"))
            .collect();
        let mut text = format!(
            "{}: {} files, {} chunks",
            path.display(),
            self.files,
            self.chunks
        );
        if !counts.is_empty() {
            text += &format!(": {}", counts.join(", "));
        }
        text.push('\n');
        for (below, info) in &self.unwell {
            text += &file_text(&format!("{}{below}", path.display()), info);
        }
        text
    }

    fn as_json(&self) -> serde_json::Value {
        let unwell = self.unwell.iter().map(|(path, info)| {
            let mut told = tools::as_json(info);
            told["path"] = json!(path.trim_start_matches('/'));
            told
        });
        json!({
            "files": self.files,
            "chunks": self.chunks,
            "health": self.health,
            "not_at_goal": unwell.collect::<Vec<_>>(),
        })
    }
}

/// The word for a chunk that wants nothing.
const AT_GOAL: &str = "at goal";

fn health(chunk: &ChunkInfo) -> &str {
    let explained = chunk.explained.as_ref();
    explained.map_or("not explained", |explained| explained.health.as_str())
}

fn file_text(path: &str, info: &FileInfo) -> String {
    let policy = info.policy.as_deref().unwrap_or_default();
    let bytes = info.attributes.size;
    let mut text = format!("{path}: {bytes} bytes, class {}: {policy}\n", info.class);
    for chunk in &info.chunks {
        text += &chunk_text(chunk);
    }
    text
}

fn chunk_text(chunk: &ChunkInfo) -> String {
    let none = Explanation::default();
    let explained = chunk.explained.as_ref().unwrap_or(&none);
    let form = chunk.stripe.map_or_else(
        || "in copies".to_owned(),
        |stripe| format!("in the parts of ec({})", stripe.shape),
    );
    let mut text = format!(
        "  [{}] {} {}, {form}: {}; {}\n",
        chunk.index,
        chunk.chunk,
        chunk.version,
        health(chunk),
        survival_text(explained.survives)
    );
    for copy in &chunk.copies {
        text += &format!("      {}\n", copy_line(copy));
    }
    for pending in &explained.pending {
        text += &format!("      > {pending}\n");
    }
    text
}

fn survival_text(survival: Option<Survival>) -> String {
    let Some(survival) = survival else {
        return "can't be read now".to_owned();
    };
    let kinds = [
        (Some(survival.servers), "server"),
        (survival.racks, "rack"),
        (survival.datacentres, "datacentre"),
    ];
    let told = kinds.iter().filter_map(|(count, kind)| match (*count)? {
        0 => Some(format!("no {kind}")),
        1 => Some(format!("any 1 {kind}")),
        more => Some(format!("any {more} {kind}s")),
    });
    format!("survives {}", told.collect::<Vec<_>>().join(", "))
}

fn copy_line(copy: &CopyInfo) -> String {
    let labels = copy.labels.iter();
    let labels: Vec<String> = labels
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let part = match copy.part {
        0 => String::new(),
        part => format!("part {part} "),
    };
    let disk = copy.disk.as_deref().unwrap_or("-");
    let fills = copy.fills.as_deref();
    let fills = fills.map_or_else(String::new, |fills| format!("[{fills}]"));
    let line = format!(
        "{:<21} {} {:<10} {part}{} {fills} {disk}",
        copy.address.0,
        copy.version,
        copy.state,
        labels.join(" "),
    );
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_survived_is_told_by_kinds() {
        let told = |servers, racks, datacentres| {
            survival_text(Some(Survival {
                servers,
                racks,
                datacentres,
            }))
        };
        assert_eq!(told(1, None, None), "survives any 1 server");
        assert_eq!(
            told(2, Some(1), Some(0)),
            "survives any 2 servers, any 1 rack, no datacentre"
        );
        assert_eq!(survival_text(None), "can't be read now");
    }
}
