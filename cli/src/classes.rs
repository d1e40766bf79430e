//! `antler class`, `set-class`, `get-class` and `label`: where copies are to be.

use crate::arguments::{
    Class, ClassModify, ClassName, ClassWrite, GetClass, Label, SetClass, Target,
};
use crate::failure::{Failure, Outcome};
use crate::out::{say, say_part};
use crate::session::Session;
use crate::status::{bytes, class_lines};
use crate::target;
use antler_core::attributes::{Credentials, DirectoryEntry, FileKind};
use antler_core::client::request::{FileReply, FileRequest};
use antler_core::errno::Errno;
use antler_core::ids::{InodeId, ServerId};
use antler_core::namespace::record::ClassChange;
use antler_core::placement::label::{is_label, is_reserved};
use antler_core::placement::{Archive, Policy, StorageClass};
use antler_core::wire::client_master::{Answer, ClassPlan, ClassStatus, Query, ServerStatus};

/// Why an order is refused below its feature level.
pub(crate) const NEEDS_LEVEL: &str = "the cluster is below the feature level of storage classes and labels, \
     or of erasure codes: `antler feature-level` shows who holds it back, and raises it with \
     --raise";

/// Names that one question about a directory brings.
const ENTRIES: u32 = 1000;

/// Runs `antler class`.
pub(crate) fn run(command: &Class) -> Outcome<()> {
    match command {
        Class::Create(write) => {
            let (name, class) = (write.name.clone(), class_of(write)?);
            change(&write.target, ClassChange::Create { name, class })
        }
        Class::Modify(arguments) => modify(arguments),
        Class::Rename(arguments) => {
            let (name, new_name) = (arguments.name.clone(), arguments.new_name.clone());
            change(&arguments.target, ClassChange::Rename { name, new_name })
        }
        Class::Delete(arguments) => {
            let name = arguments.name.clone();
            change(&arguments.target, ClassChange::Delete { name })
        }
        Class::List(arguments) => {
            for class in classes(&arguments.target)? {
                say_part!("{}", class_lines(&class));
            }
            Ok(())
        }
        Class::Show(arguments) => show(arguments),
    }
}

fn class_of(write: &ClassWrite) -> Outcome<StorageClass> {
    let read = |text: &str| {
        text.parse::<Policy>()
            .map_err(|mistake| Failure::usage(format_args!("{text:?}: {mistake}")))
    };
    let class = StorageClass {
        create: write.create.as_deref().map(read).transpose()?,
        keep: read(&write.policy)?,
        archive: write.archive.as_deref().map(read_archive).transpose()?,
    };
    match class.making().stripe {
        None => Ok(class),
        Some(_) => Err(Failure::usage(
            "what is being written lies in whole copies, and in parts only at rest: say with \
             --create how many copies, as in --create 'copies(3)'",
        )),
    }
}

fn read_archive(text: &str) -> Outcome<Archive> {
    text.parse()
        .map_err(|mistake| Failure::usage(format_args!("{text:?}: {mistake}")))
}

fn change(target: &Target, change: ClassChange) -> Outcome<()> {
    let found = target::find(target, None)?;
    found.with_session(async |session| ask_change(session, change).await)
}

async fn ask_change(session: &Session, change: ClassChange) -> Outcome<()> {
    let (ClassChange::Create { name, .. }
    | ClassChange::Modify { name, .. }
    | ClassChange::Rename { name, .. }
    | ClassChange::Delete { name }) = &change;
    let name = name.clone();
    let new_name = match &change {
        ClassChange::Rename { new_name, .. } => new_name.clone(),
        _ => name.clone(),
    };
    let told = session.ask(root(), FileRequest::ChangeClass(change)).await;
    told.map(|_| ()).map_err(|error| {
        Failure::undone(match error {
            Errno::ENOENT => format!("there is no storage class {name}"),
            Errno::EEXIST => format!("there is a storage class {new_name} already"),
            Errno::EBUSY => format!("files or directories are of storage class {name}"),
            Errno::EPERM => format!("storage class {name} is built in"),
            Errno::EINVAL => format!(
                "{new_name}: a storage class is called 1 to 64 of a-z A-Z 0-9 . _ -, and not \
                 copies-..."
            ),
            Errno::EOPNOTSUPP => NEEDS_LEVEL.to_owned(),
            other => format!("storage class {name}: {other}"),
        })
    })
}

fn modify(arguments: &ClassModify) -> Outcome<()> {
    let write = &arguments.write;
    let (name, class) = (write.name.clone(), class_of(write)?);
    let found = target::find(&write.target, None)?;
    found.with_session(async |session| {
        let query = Query::PlanClass {
            name: name.clone(),
            class: class.clone(),
        };
        match session.query(query).await {
            Ok(Answer::Plan(plan)) => say_part!("{}", plan_text(&name, &class, &plan)),
            Ok(other) => panic!("a plan is answered by a plan, not {other:?}"),
            Err(Errno::ENOENT) => {
                return Err(Failure::undone(format_args!(
                    "there is no storage class {name}"
                )));
            }
            Err(Errno::EOPNOTSUPP) => return Err(Failure::undone(NEEDS_LEVEL)),
            Err(error) => return Err(Failure::undone(format_args!("{name}: {error}"))),
        }
        if !arguments.yes {
            say!("nothing is changed yet: add --yes to do it");
            return Ok(());
        }
        ask_change(session, ClassChange::Modify { name, class }).await
    })
}

fn plan_text(name: &str, class: &StorageClass, plan: &ClassPlan) -> String {
    let least = if plan.more { "at least " } else { "" };
    let mut text = format!(
        "storage class {name} becomes: {class}\n  {least}{} chunks are of it\n  {least}{} of them \
         move: {} copies, {}\n",
        plan.chunks,
        plan.moving,
        plan.copies,
        bytes(plan.bytes)
    );
    if plan.outside > 0 {
        text += &format!(
            "  {least}{} chunks have a copy where it does not permit one: moved first\n",
            plan.outside
        );
    }
    for told in &plan.unmet {
        text += &format!("  CAN'T BE MET NOW: {told}\n");
    }
    text
}

fn show(arguments: &ClassName) -> Outcome<()> {
    let name = &arguments.name;
    let known = classes(&arguments.target)?;
    let class = known.iter().find(|class| class.name == *name);
    let class =
        class.ok_or_else(|| Failure::undone(format_args!("there is no storage class {name}")))?;
    say_part!("{}", class_lines(class));
    Ok(())
}

fn classes(target: &Target) -> Outcome<Vec<ClassStatus>> {
    let found = target::find(target, None)?;
    found.with_session(async |session| Ok(crate::status::ask(session).await?.classes))
}

/// Runs `antler set-class`.
pub(crate) fn set_class(arguments: &SetClass) -> Outcome<()> {
    let (name, path) = (&arguments.name, &arguments.path);
    let found = target::find(&arguments.target, Some(path))?;
    found.with_session(async |session| {
        let mut left = vec![found.inode(session).await?];
        let mut set = 0_u64;
        while let Some(inode) = left.pop() {
            set_one(session, inode, name).await.map_err(|error| {
                Failure::undone(match error {
                    Errno::ENOENT => format!("there is no storage class {name}"),
                    Errno::EOPNOTSUPP => NEEDS_LEVEL.to_owned(),
                    other => format!("{}: {other}, {set} objects were set", path.display()),
                })
            })?;
            set += 1;
            if arguments.recursive {
                let below = list(session, inode).await;
                let below = below.map_err(|error| {
                    Failure::undone(format_args!("{}: {error}", path.display()))
                })?;
                left.extend(below.into_iter().map(|entry| entry.attributes.inode));
            }
        }
        Ok(())
    })
}

async fn set_one(session: &Session, inode: InodeId, name: &str) -> Result<(), Errno> {
    let class = name.to_owned();
    let body = FileRequest::SetClass { inode, class };
    match session.ask(root(), body).await? {
        FileReply::Done => Ok(()),
        other => panic!("a class is set without more to say than {other:?}"),
    }
}

/// The files and directories in a directory; none in a file.
pub(crate) async fn list(session: &Session, inode: InodeId) -> Result<Vec<DirectoryEntry>, Errno> {
    let (mut found, mut cookie) = (Vec::new(), 0);
    loop {
        let query = Query::ReadDirectory {
            inode,
            cookie,
            most: ENTRIES,
        };
        let (entries, end) = match session.query(query).await {
            Ok(Answer::Entries { entries, end }) => (entries, end),
            Ok(other) => panic!("names are answered by entries, not {other:?}"),
            Err(Errno::ENOTDIR) => return Ok(found),
            Err(error) => return Err(error),
        };
        cookie = entries.last().map_or(cookie, |entry| entry.cookie);
        let has_class = |entry: &DirectoryEntry| {
            matches!(
                entry.attributes.kind,
                FileKind::Regular | FileKind::Directory
            )
        };
        found.extend(entries.into_iter().filter(has_class));
        if end {
            return Ok(found);
        }
    }
}

/// Runs `antler get-class`.
pub(crate) fn get_class(arguments: &GetClass) -> Outcome<()> {
    let path = &arguments.path;
    let found = target::find(&arguments.target, Some(path))?;
    let class = found.with_session(async |session| {
        let inode = found.inode(session).await?;
        // A directory has no chunks, and is told of all the same.
        match session
            .query(Query::Info {
                inode,
                explain: None,
            })
            .await
        {
            // A leader of a version before there were classes tells none.
            Ok(Answer::Info(info)) if info.class.is_empty() => {
                Ok(format!("copies-{}", info.attributes.copies))
            }
            Ok(Answer::Info(info)) => Ok(info.class),
            Ok(other) => panic!("info is answered by info, not {other:?}"),
            Err(error) => Err(Failure::undone(format_args!("{}: {error}", path.display()))),
        }
    })?;
    say!("{class}");
    Ok(())
}

/// What is to be done to a label.
type LabelChange = (String, Option<String>);

/// Runs `antler label`.
pub(crate) fn label(arguments: &Label) -> Outcome<()> {
    let changes = arguments.changes.iter().map(|text| label_change(text));
    let changes: Vec<LabelChange> = changes.collect::<Outcome<_>>()?;
    let found = target::find(&arguments.target, None)?;
    let name = &arguments.server;
    found.with_session(async |session| {
        let server = server(session, name).await?.server;
        for (key, value) in changes {
            set_label(session, server, key, value)
                .await
                .map_err(|error| match error {
                    Errno::EOPNOTSUPP => Failure::undone(NEEDS_LEVEL),
                    other => Failure::undone(format_args!("{name}: {other}")),
                })?;
        }
        for (key, value) in server_labels(session, name).await? {
            say!("{key}={value}");
        }
        Ok(())
    })
}

fn label_change(text: &str) -> Outcome<LabelChange> {
    let change = match (text.split_once('='), text.strip_suffix('-')) {
        (Some((key, value)), _) => Some((key, Some(value))),
        (None, Some(key)) => Some((key, None)),
        _ => None,
    };
    let fits = |(key, value): &(&str, Option<&str>)| is_label(key) && value.is_none_or(is_label);
    let change = change.filter(fits).ok_or_else(|| {
        Failure::usage(format_args!(
            "{text}: KEY=VALUE or KEY- is wanted, of a-z A-Z 0-9 . _ -"
        ))
    })?;
    if is_reserved(change.0) {
        return Err(Failure::usage(format_args!(
            "{text}: labels that begin with `antler.` are set by `antler drain` and `antler \
             maintenance`"
        )));
    }
    Ok((change.0.to_owned(), change.1.map(str::to_owned)))
}

pub(crate) async fn set_label(
    session: &Session,
    server: ServerId,
    key: String,
    value: Option<String>,
) -> Result<(), Errno> {
    let body = FileRequest::SetLabel { server, key, value };
    session.ask(root(), body).await.map(|_| ())
}

pub(crate) async fn server(session: &Session, name: &str) -> Outcome<ServerStatus> {
    let servers = crate::status::ask(session).await?.servers.into_iter();
    let mut named = servers.filter(|one| one.address.0 == name || one.server.to_string() == name);
    named
        .next()
        .ok_or_else(|| Failure::undone(format_args!("no chunkserver listens at {name}")))
}

async fn server_labels(session: &Session, name: &str) -> Outcome<Vec<(String, String)>> {
    Ok(server(session, name).await?.labels)
}

pub(crate) fn root() -> Credentials {
    Credentials::default()
}
