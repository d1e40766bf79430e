//! Which cluster a tool means: the one of a folder, of named masters, or the one
//! that a path is mounted from.

use crate::arguments::{DIR, Target};
use crate::failure::{At, Failure, OrFail, Outcome};
use crate::layout::Layout;
use crate::options;
use crate::session::{Access, Session, host};
use antler_core::ids::InodeId;
use antler_fuse::virtual_attributes::CLUSTER;
use antler_net::daemon;
use antler_net::identity::Credential;
use rustix::fs::lgetxattr;
use serde::Deserialize;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a tool waits for a master that leads.
const PATIENCE: Duration = Duration::from_secs(15);
/// After how long a question that gets nowhere fails.
const RETRY_FOR: Duration = Duration::from_secs(15);

/// What `antler.cluster` tells.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub(crate) struct Told {
    pub(crate) masters: Vec<String>,
    pub(crate) key: PathBuf,
    pub(crate) inode: u64,
}

/// A cluster, and the object in it that was named, if one was.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) masters: Vec<String>,
    pub(crate) key: PathBuf,
    pub(crate) object: Object,
}

/// How an object was named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Object {
    None,
    /// By a path on a mount.
    Inode(InodeId),
    /// By a path in the cluster.
    Path(Vec<u8>),
}

/// Finds the cluster that the arguments mean.
pub(crate) fn find(target: &Target, path: Option<&Path>) -> Outcome<Found> {
    let object = path.map_or(Object::None, |path| {
        Object::Path(path.as_os_str().as_bytes().to_vec())
    });
    if let Some(masters) = &target.master {
        return Ok(Found {
            masters: options::masters(masters).map_err(Failure::usage)?,
            key: target.key.clone(),
            object,
        });
    }
    if let Some(dir) = &target.dir {
        return of_folder(dir, object);
    }
    match path {
        Some(path) => of_mount(path),
        None if Path::new(DIR).exists() => of_folder(Path::new(DIR), object),
        None => of_mount(Path::new(".")).map_err(|_| {
            Failure::usage(format_args!(
                "which cluster? {DIR} is not here: name a folder with --dir, masters with \
                 --master, or a path on a mount"
            ))
        }),
    }
}

fn of_folder(dir: &Path, object: Object) -> Outcome<Found> {
    let layout = Layout::load(dir)?;
    Ok(Found {
        object,
        ..of_layout(&layout)
    })
}

/// The cluster of `antler up` in a folder.
pub(crate) fn of_layout(layout: &Layout) -> Found {
    Found {
        masters: layout.masters(),
        key: layout.key(),
        object: Object::None,
    }
}

fn of_mount(path: &Path) -> Outcome<Found> {
    let told = ask_mount(path)?.ok_or_else(|| {
        Failure::usage(format_args!(
            "{}: is not on an Antler mount; for a path in a cluster add --dir or --master",
            path.display()
        ))
    })?;
    Ok(Found {
        masters: told.masters,
        key: told.key,
        object: Object::Inode(InodeId(told.inode)),
    })
}

/// What the mount that a path is on tells of its cluster; `None` elsewhere.
pub(crate) fn ask_mount(path: &Path) -> Outcome<Option<Told>> {
    std::fs::symlink_metadata(path).at(path)?;
    let mut value = vec![0; 16 << 10];
    match lgetxattr(path, OsStr::from_bytes(CLUSTER), &mut value) {
        Ok(length) => serde_json::from_slice(&value[..length])
            .map(Some)
            .map_err(|error| Failure::undone(format_args!("{}: {error}", path.display()))),
        Err(_) => Ok(None),
    }
}

impl Found {
    /// Runs `work` with a session in the cluster.
    pub(crate) fn with_session<T>(
        &self,
        work: impl AsyncFnOnce(&Session) -> Outcome<T>,
    ) -> Outcome<T> {
        let access = Access {
            masters: self.masters.clone(),
            credential: Credential::load(&self.key).or_fail()?,
            name: format!("{}: a tool", host()),
            labels: Vec::new(),
            retry_for: Some(RETRY_FOR),
        };
        let runtime = daemon::runtime().or_fail()?;
        runtime.block_on(async {
            let session = Session::start(access);
            session.ready(PATIENCE).await?;
            let done = work(&session).await;
            let _ = tokio::time::timeout(Duration::from_secs(2), session.end()).await;
            session.driver.flush(Duration::from_millis(500)).await;
            done
        })
    }

    /// The inode of the object that was named.
    pub(crate) async fn inode(&self, session: &Session) -> Outcome<InodeId> {
        match &self.object {
            Object::None => Ok(InodeId::ROOT),
            Object::Inode(inode) => Ok(*inode),
            Object::Path(path) => Ok(session.path(path).await?.inode),
        }
    }
}
