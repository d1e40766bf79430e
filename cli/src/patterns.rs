//! `antler class-patterns`: which files of a directory get a class by their name.

use crate::arguments::ClassPatterns;
use crate::classes::{list, root};
use crate::failure::{Failure, Outcome};
use crate::out::say;
use crate::session::Session;
use crate::target;
use antler_core::attributes::FileKind;
use antler_core::client::request::{FileReply, FileRequest};
use antler_core::errno::Errno;
use antler_core::glob;
use antler_core::ids::InodeId;
use antler_core::namespace::record::ClassPattern;
use antler_core::wire::client_master::{Answer, Query};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

const NEEDS_LEVEL: &str = "the cluster is below feature level 5: `antler feature-level` shows who \
     holds it back, and raises it with --raise";

/// Runs `antler class-patterns`.
pub(crate) fn run(arguments: &ClassPatterns) -> Outcome<()> {
    let patterns = arguments.patterns.iter().map(pattern);
    let patterns: Vec<ClassPattern> = patterns.collect::<Outcome<_>>()?;
    let path = &arguments.path;
    let found = target::find(&arguments.target, Some(path))?;
    found.with_session(async |session| {
        let top = found.inode(session).await?;
        if patterns.is_empty() && !arguments.none {
            return show(session, top)
                .await
                .map_err(|error| failed(arguments, error));
        }
        let mut left = vec![top];
        while let Some(inode) = left.pop() {
            let patterns = patterns.clone();
            let body = FileRequest::SetPatterns { inode, patterns };
            match session.ask(root(), body).await {
                Ok(FileReply::Done) => {}
                Ok(other) => panic!("patterns are set without more to say than {other:?}"),
                Err(error) => return Err(failed(arguments, error)),
            }
            if arguments.recursive {
                let below = list(session, inode).await;
                let below = below.map_err(|error| failed(arguments, error))?.into_iter();
                let directories =
                    below.filter(|entry| entry.attributes.kind == FileKind::Directory);
                left.extend(directories.map(|entry| entry.attributes.inode));
            }
        }
        Ok(())
    })
}

fn failed(arguments: &ClassPatterns, error: Errno) -> Failure {
    let path = arguments.path.display();
    Failure::undone(match error {
        Errno::ENOENT => "there is no storage class of one of these names: see `antler class \
                          list`"
            .to_owned(),
        Errno::ENOTDIR => format!("{path} is no directory"),
        Errno::EOPNOTSUPP => NEEDS_LEVEL.to_owned(),
        other => format!("{path}: {other}"),
    })
}

fn pattern(text: &OsString) -> Outcome<ClassPattern> {
    let bytes = text.as_bytes();
    let at = bytes.iter().rposition(|byte| *byte == b'=');
    let (glob, class) = at.map_or((bytes, &[][..]), |at| (&bytes[..at], &bytes[at + 1..]));
    let class = String::from_utf8_lossy(class).into_owned();
    if class.is_empty() || glob.is_empty() || !glob::is_pattern(glob) {
        return Err(Failure::usage(format_args!(
            "{text:?}: a pattern and a class are wanted, as in '*.tmp=scratch'; a [ needs its ], \
             and a \\ something behind it"
        )));
    }
    let glob = glob.to_vec();
    Ok(ClassPattern { glob, class })
}

async fn show(session: &Session, inode: InodeId) -> Result<(), Errno> {
    let query = Query::Info {
        inode,
        explain: None,
    };
    let info = match session.query(query).await? {
        Answer::Info(info) => info,
        other => panic!("info is answered by info, not {other:?}"),
    };
    if info.attributes.kind != FileKind::Directory {
        return Err(Errno::ENOTDIR);
    }
    for pattern in info.patterns {
        let glob = String::from_utf8_lossy(&pattern.glob);
        say!("{glob}={}", pattern.class);
    }
    Ok(())
}
