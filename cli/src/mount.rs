//! `antler mount` and `mount.antler`: a client of the cluster between the kernel
//! and the machine, in the background unless told otherwise.
//!
//! In the background, the process that was started first waits until the mount is
//! up and then returns, so that scripts and mount(8) can rely on it.

use crate::arguments::{Mount, MountHelper};
use crate::failure::{At, Failure, OrFail, Outcome};
use crate::log;
use crate::mounts;
use crate::options::{Options, Source};
use crate::session::{Access, Session, host};
use antler_core::attributes::FileKind;
use antler_core::client::request::ClientRequest;
use antler_core::machine::Input;
use antler_fuse::{Desk, MountSettings, Mounted};
use antler_net::daemon::{self, EndSignals};
use antler_net::identity::Credential;
use antler_net::pid::PidFile;
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::sync::oneshot;

/// What the process in the background says when the mount is up.
const UP: &[u8] = b"mounted\n";

/// Everything that a mount needs, checked.
struct Plan {
    source: Source,
    source_text: String,
    mountpoint: PathBuf,
    options: Options,
    credential: Credential,
}

/// Runs `antler mount`.
pub(crate) fn run(arguments: &Mount) -> Outcome<()> {
    let plan = Plan::check(
        &arguments.source,
        &arguments.mountpoint,
        &arguments.options,
        false,
    )?;
    if arguments.foreground || arguments.background_process {
        serve(&plan, arguments.background_process)
    } else {
        go_background(&plan, &arguments.options)
    }
}

/// Runs `mount.antler`, as mount(8) calls it.
pub(crate) fn run_helper(arguments: &MountHelper) -> Outcome<()> {
    let mut words: Vec<String> = arguments
        .options
        .iter()
        .flat_map(|text| text.split(',').map(str::to_owned))
        .collect();
    if arguments.read_only {
        words.push("ro".to_owned());
    }
    let plan = Plan::check(
        &arguments.source,
        &arguments.mountpoint,
        &words,
        arguments.sloppy,
    )?;
    if arguments.fake {
        return Ok(());
    }
    if arguments.sloppy {
        words.retain(|word| Options::parse(std::slice::from_ref(word), true, false).is_ok());
    }
    go_background(&plan, &words)
}

impl Plan {
    fn check(source: &str, mountpoint: &Path, words: &[String], sloppy: bool) -> Outcome<Self> {
        let is_root = rustix::process::geteuid().is_root();
        let options = Options::parse(words, is_root, sloppy).map_err(Failure::usage)?;
        let credential = Credential::load(&options.key).map_err(|error| {
            Failure::usage(format_args!(
                "{error}; name the cluster's key with -o key=FILE"
            ))
        })?;
        let mountpoint = std::fs::canonicalize(mountpoint).at(mountpoint)?;
        if !mountpoint.is_dir() {
            return Err(Failure::usage(format_args!(
                "{}: is not a directory",
                mountpoint.display()
            )));
        }
        Ok(Self {
            source: Source::parse(source).map_err(Failure::usage)?,
            source_text: source.to_owned(),
            mountpoint,
            options,
            credential,
        })
    }
}

/// Starts the process that serves the mount, and waits until it is up.
fn go_background(plan: &Plan, words: &[String]) -> Outcome<()> {
    let program = std::env::current_exe().at(Path::new("/proc/self/exe"))?;
    let (mut told, teller) = io::pipe().or_fail()?;
    let key = std::path::absolute(&plan.options.key).or_fail()?;
    let mut command = Command::new(&program);
    command
        .args(["mount", "--background-process", &plan.source_text])
        .arg(&plan.mountpoint)
        .args(words.iter().flat_map(|word| ["-o", word]))
        .arg("-o")
        .arg(format!("key={}", key.display()))
        .stdin(Stdio::null())
        .stdout(teller);
    let mut child = command.spawn().at(&program)?;
    // Our own end of the pipe must go, or the end of the child is never seen.
    drop(command);
    let mut text = Vec::new();
    told.read_to_end(&mut text).or_fail()?;
    if text == UP {
        return Ok(());
    }
    let status = child.wait().or_fail()?;
    // It has said why on the same standard error.
    let code = status.code().unwrap_or(1);
    std::process::exit(code);
}

/// Serves the mount until it is unmounted, or a signal asks for its end.
fn serve(plan: &Plan, is_background: bool) -> Outcome<()> {
    if is_background {
        let _ = rustix::process::setsid();
    }
    log::start("warn", log_file(plan)?);
    daemon::die_of_panics();
    let _pid = match &plan.options.pid {
        Some(file) => Some(PidFile::take(file).or_fail()?),
        None => None,
    };
    let runtime = daemon::runtime().or_fail()?;
    runtime.block_on(async {
        let mut signals = EndSignals::handle();
        let (session, mounted) = tokio::select! {
            up = bring_up(plan) => up?,
            () = signals.next() => return Err(Failure::undone("asked to stop before it mounted")),
        };
        if is_background {
            announce().or_fail()?;
        }
        run_mounted(plan, &session, mounted, &mut signals).await
    })
}

fn log_file(plan: &Plan) -> Outcome<Option<File>> {
    let Some(path) = &plan.options.log else {
        return Ok(None);
    };
    let mut options = OpenOptions::new();
    options
        .create(true)
        .append(true)
        .open(path)
        .at(path)
        .map(Some)
}

async fn bring_up(plan: &Plan) -> Outcome<(Session, Mounted)> {
    let session = Session::start(Access {
        masters: plan.source.masters.clone(),
        credential: plan.credential.clone(),
        name: format!("{}:{}", host(), plan.mountpoint.display()),
        labels: plan.options.labels.clone(),
        retry_for: plan.options.retry_for,
    });
    session.ready(plan.options.mount_timeout).await?;
    let root = session.path(plan.source.path.as_bytes()).await?;
    if root.kind != FileKind::Directory {
        return Err(Failure::undone(format_args!(
            "{}: in the cluster: not a directory",
            plan.source.path
        )));
    }
    let driver = session.driver.clone();
    let feed = move |request: ClientRequest| driver.feed(Input::Request(request));
    let desk = Desk::new(root.inode, Box::new(feed));
    session.serve(desk.clone());
    let settings = settings(plan);
    // The kernel may ask for the root at once, and this thread must answer.
    let mounted = tokio::task::spawn_blocking(move || desk.mount(&settings));
    let mounted = mounted.await.or_fail()?.at(&plan.mountpoint)?;
    Ok((session, mounted))
}

fn settings(plan: &Plan) -> MountSettings {
    let key = std::path::absolute(&plan.options.key).unwrap_or_else(|_| plan.options.key.clone());
    let cluster = json!({ "masters": plan.source.masters, "key": key }).to_string();
    MountSettings {
        mountpoint: plan.mountpoint.clone(),
        source: plan.source_text.clone(),
        options: plan.options.kernel.clone(),
        threads: plan.options.threads,
        allow_other: plan.options.allow_other,
        cluster: cluster[1..cluster.len() - 1].to_owned(),
    }
}

/// Tells the waiting parent that the mount is up, and lets go of its terminal.
fn announce() -> io::Result<()> {
    io::stdout().write_all(UP)?;
    io::stdout().flush()?;
    let nowhere = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdout(nowhere.as_fd())?;
    rustix::stdio::dup2_stderr(nowhere.as_fd())?;
    Ok(())
}

async fn run_mounted(
    plan: &Plan,
    session: &Session,
    mounted: Mounted,
    signals: &mut EndSignals,
) -> Outcome<()> {
    let (sender, mut over) = oneshot::channel();
    std::thread::spawn(move || sender.send(mounted.join()));
    let ended = tokio::select! {
        ended = &mut over => Ended::Unmounted(ended.or_fail()?),
        () = signals.next() => Ended::Asked,
        stopped = session.stopped() => Ended::Failed(stopped.reason),
    };
    match ended {
        Ended::Unmounted(how) => {
            finish(session).await?;
            how.at(&plan.mountpoint)
        }
        Ended::Asked => {
            detach(&plan.mountpoint);
            // What is still open ends with this process.
            let _ = tokio::time::timeout(Duration::from_secs(1), over).await;
            finish(session).await
        }
        Ended::Failed(reason) => {
            detach(&plan.mountpoint);
            Err(Failure::undone(reason))
        }
    }
}

/// How a mount came to its end.
enum Ended {
    Unmounted(io::Result<()>),
    Asked,
    Failed(String),
}

fn detach(mountpoint: &Path) {
    let unmounted = mounts::unmount(mountpoint, false).or_else(|error| {
        let users = mounts::users(mountpoint).join(", ");
        tracing::warn!("{}: {error}: used by {users}", mountpoint.display());
        mounts::unmount(mountpoint, true)
    });
    if let Err(error) = unmounted {
        tracing::error!("{}: can't be unmounted: {error}", mountpoint.display());
    }
}

/// Writes everything out and ends the session.
async fn finish(session: &Session) -> Outcome<()> {
    let ended = session.end().await;
    session.driver.flush(Duration::from_secs(1)).await;
    ended.map_err(|error| {
        Failure::undone(format_args!("not everything could be written out: {error}"))
    })
}
