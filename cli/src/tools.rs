//! `antler info` and `antler set-copies`: one object of a cluster.

use crate::arguments::{Info, SetCopies};
use crate::failure::{Failure, Outcome};
use crate::out::{say, say_part};
use crate::target;
use antler_core::attributes::Credentials;
use antler_core::client::request::{FileReply, FileRequest};
use antler_core::wire::client_master::{Answer, ChunkInfo, CopyInfo, FileInfo, Query};
use antler_fuse::virtual_attributes::COPIES;
use rustix::fs::{XattrFlags, lsetxattr};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Runs `antler info`.
pub(crate) fn info(arguments: &Info) -> Outcome<()> {
    let found = target::find(&arguments.target, Some(&arguments.path))?;
    let path = &arguments.path;
    let info = found.with_session(async |session| {
        let inode = found.inode(session).await?;
        match session
            .query(Query::Info {
                inode,
                explain: None,
            })
            .await
        {
            Ok(Answer::Info(info)) => Ok(*info),
            Ok(other) => panic!("info is answered by info, not {other:?}"),
            Err(error) => Err(Failure::undone(format_args!("{}: {error}", path.display()))),
        }
    })?;
    if arguments.json {
        say!("{:#}", as_json(&info));
    } else {
        say_part!("{}", as_text(path, &info));
    }
    Ok(())
}

/// Runs `antler set-copies`. Through a mount it is done with the caller's own rights.
pub(crate) fn set_copies(arguments: &SetCopies) -> Outcome<()> {
    let path = &arguments.path;
    let copies = arguments.copies;
    let is_named = arguments.target.dir.is_some() || arguments.target.master.is_some();
    let wrong = |error: &dyn std::fmt::Display| {
        Failure::undone(format_args!("{}: {error}", path.display()))
    };
    if !is_named && target::ask_mount(path)?.is_some() {
        let name = OsStr::from_bytes(COPIES);
        let value = copies.to_string();
        return lsetxattr(path, name, value.as_bytes(), XattrFlags::empty())
            .map_err(|error| wrong(&error));
    }
    let found = target::find(&arguments.target, Some(path))?;
    found.with_session(async |session| {
        let inode = found.inode(session).await?;
        let body = FileRequest::SetCopies { inode, copies };
        match session.ask(Credentials::default(), body).await {
            Ok(FileReply::Attributes(..)) => Ok(()),
            Ok(other) => panic!("copies are answered by attributes, not {other:?}"),
            Err(error) => Err(wrong(&error)),
        }
    })
}

fn as_text(path: &Path, info: &FileInfo) -> String {
    let attributes = &info.attributes;
    let mut text = format!(
        "{}: {:?} {}, {} bytes, class {}, {} chunks\n",
        path.display(),
        attributes.kind,
        attributes.inode,
        attributes.size,
        info.class,
        info.chunks.len()
    );
    for chunk in &info.chunks {
        text += &format!(
            "  [{}] {} {} {}, {} bytes, {}, {} of {} {}\n",
            chunk.index,
            chunk.chunk,
            chunk.version,
            chunk.epoch,
            chunk.valid,
            chunk.lease,
            current(chunk),
            chunk.wanted,
            form(chunk)
        );
        for copy in &chunk.copies {
            text += &format!("      {}\n", copy_line(copy));
        }
    }
    text
}

fn form(chunk: &ChunkInfo) -> String {
    match chunk.stripe {
        Some(stripe) => format!("parts, ec({})", stripe.shape),
        None => "copies".to_owned(),
    }
}

fn current(chunk: &ChunkInfo) -> usize {
    let is_current = |copy: &&CopyInfo| copy.state == "current";
    chunk.copies.iter().filter(is_current).count()
}

fn copy_line(copy: &CopyInfo) -> String {
    let labels: Vec<String> = copy
        .labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let part = match copy.part {
        0 => String::new(),
        part => format!("part {part} "),
    };
    let line = format!(
        "{:<21} {} {:<8} {part}{}",
        copy.address.0,
        copy.version,
        copy.state,
        labels.join(" ")
    );
    line.trim_end().to_owned()
}

/// A file as JSON; where it was explained, with that.
pub(crate) fn as_json(info: &FileInfo) -> Value {
    let copy = |copy: &CopyInfo| {
        let mut told = json!({
            "server": copy.server.to_string(),
            "address": copy.address.0,
            "version": copy.version.0,
            "state": copy.state,
            "labels": crate::status::labels(&copy.labels),
            "part": copy.part,
        });
        let known = [("fills", &copy.fills), ("disk", &copy.disk)];
        for (key, value) in known {
            if let Some(value) = value {
                told[key] = json!(value);
            }
        }
        told
    };
    let chunk = |chunk: &ChunkInfo| {
        let mut told = json!({
            "index": chunk.index,
            "chunk": chunk.chunk.0,
            "version": chunk.version.0,
            "epoch": chunk.epoch.0,
            "bytes": chunk.valid,
            "lease": chunk.lease,
            "wanted": chunk.wanted,
            "code": chunk.stripe.map(|stripe| stripe.shape.to_string()),
            "copies": chunk.copies.iter().map(copy).collect::<Vec<_>>(),
        });
        if let Some(explained) = &chunk.explained {
            told["health"] = json!(explained.health);
            told["survives"] = json!(explained.survives.map(|survival| json!({
                "servers": survival.servers,
                "racks": survival.racks,
                "datacentres": survival.datacentres,
            })));
            told["pending"] = json!(explained.pending);
        }
        told
    };
    json!({
        "inode": info.attributes.inode.0,
        "kind": format!("{:?}", info.attributes.kind).to_lowercase(),
        "size": info.attributes.size,
        "copies": info.attributes.copies,
        "class": info.class,
        "chunks": info.chunks.iter().map(chunk).collect::<Vec<_>>(),
    })
}
