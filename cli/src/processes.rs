//! Starting and stopping the daemons of a cluster's folder.
//!
//! A daemon is known by its pid file's lock alone, so that nothing is ever
//! signalled but a process that holds the lock in this very folder.

use crate::failure::{At, Failure, Outcome};
use crate::layout::{Kind, Layout, Unit};
use crate::mounts;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long daemons may take to stop gracefully.
const STOP_PATIENCE: Duration = Duration::from_secs(15);
/// How long the mount may take: it writes everything out first.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(20);

/// A daemon that this process started.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) unit: Unit,
    child: Child,
}

impl Started {
    /// How it ended, once it has.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(status.to_string())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop, and ends it if it does not.
    pub(crate) fn stop(&mut self) {
        if self.ended().is_none() {
            signal_pid(self.pid(), Signal::TERM);
        }
        if !wait_until(STOP_PATIENCE, || self.ended().is_some()) {
            // Nothing else can be done if even that fails.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Starts one daemon of the cluster. It outlives this process and its terminal.
pub(crate) fn start(layout: &Layout, unit: Unit) -> Outcome<Started> {
    crate::layout::make_folder(&layout.folder(unit))?;
    let log = layout.log(unit);
    let mut options = OpenOptions::new();
    let output = options.create(true).append(true).open(&log).at(&log)?;
    let errors = output.try_clone().at(&log)?;
    let program = std::env::current_exe().at(Path::new("/proc/self/exe"))?;
    let child = Command::new(&program)
        .args(arguments(layout, unit))
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .at(&program)?;
    Ok(Started { unit, child })
}

fn arguments(layout: &Layout, unit: Unit) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec![unit.kind.name().into()];
    if unit.kind == Kind::Mount {
        let mut options = OsString::from("key=");
        options.push(layout.key());
        options.push(",pid=");
        options.push(layout.pid(unit));
        let source = format!("{}:/", layout.masters().join(","));
        arguments.extend(["--foreground".into(), source.into()]);
        arguments.extend([layout.chosen.mount.clone().into(), "-o".into(), options]);
    } else {
        arguments.extend(["--config".into(), layout.config(unit).into()]);
    }
    arguments
}

/// The last lines of a daemon's log, for a message.
pub(crate) fn last_words(layout: &Layout, unit: Unit) -> String {
    const LINES: usize = 8;
    let log = layout.log(unit);
    let text = fs::read(&log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    format!("the end of {}:\n  {}", log.display(), last.join("\n  "))
}

/// Sends a signal to a daemon that runs.
pub(crate) fn signal(layout: &Layout, unit: Unit, signal: Signal) {
    if let Some(pid) = layout.running(unit) {
        signal_pid(pid, signal);
    }
}

fn signal_pid(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended in between, which is what is wanted.
        let _ = kill_process(pid, signal);
    }
}

/// Unmounts and stops everything of the cluster. Tells what it waits for.
///
/// # Errors
/// When the mount is busy (unless `force`), or something can't be stopped.
pub(crate) fn stop_all(layout: &Layout, mount: Unit, force: bool) -> Outcome<()> {
    unmount(layout, mount, force)?;
    let units = layout.units();
    for kind in [Kind::ChunkServer, Kind::Metalogger, Kind::Master] {
        let units: Vec<Unit> = units.iter().copied().filter(|u| u.kind == kind).collect();
        stop(layout, &units);
    }
    match units.iter().find(|unit| layout.running(**unit).is_some()) {
        None => Ok(()),
        Some(unit) => Err(Failure::undone(format_args!("{unit} can't be stopped"))),
    }
}

/// Unmounts the cluster and waits until the client has written everything out.
pub(crate) fn unmount(layout: &Layout, unit: Unit, force: bool) -> Outcome<()> {
    let point = &layout.chosen.mount;
    while mounts::at(point).at(point)?.is_some_and(|m| m.is_antler()) {
        let is_served = layout.running(unit).is_some();
        match mounts::unmount(point, force || !is_served) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                let users = mounts::users(point);
                return Err(Failure::undone(format_args!(
                    "{} is in use by {}; end that first, or add --force",
                    point.display(),
                    if users.is_empty() {
                        "somebody".to_owned()
                    } else {
                        users.join(", ")
                    }
                )));
            }
            Err(error) => return Err(error).at(point),
        }
    }
    if wait_until(UNMOUNT_PATIENCE, || layout.running(unit).is_none()) {
        return Ok(());
    }
    eprintln!(
        "{unit} still writes out after {} s: asking it to stop",
        UNMOUNT_PATIENCE.as_secs()
    );
    stop(layout, &[unit]);
    Ok(())
}

/// Asks daemons to stop, and ends those that do not.
pub(crate) fn stop(layout: &Layout, units: &[Unit]) {
    for unit in units {
        signal(layout, *unit, Signal::TERM);
    }
    let runs = |unit: &Unit| layout.running(*unit).is_some();
    if wait_until(STOP_PATIENCE, || !units.iter().any(runs)) {
        return;
    }
    for unit in units.iter().filter(|unit| runs(unit)) {
        eprintln!(
            "{unit} did not stop in {} s: killing it",
            STOP_PATIENCE.as_secs()
        );
        signal(layout, *unit, Signal::KILL);
    }
    wait_until(STOP_PATIENCE, || !units.iter().any(runs));
}

/// Whether something came true within a time.
pub(crate) fn wait_until(patience: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + patience;
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        sleep(STEP);
    }
}
