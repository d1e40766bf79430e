//! `antler up`: brings everything of a cluster's folder up that is not, mounts it,
//! and (unless detached) watches over it until Ctrl-C.

use crate::arguments::{DIR, Up};
use crate::failure::{At, Failure, OrFail, Outcome};
use crate::layout::{Chosen, Kind, Layout, Unit};
use crate::mounts;
use crate::out::say_part;
use crate::processes::{self, Started, last_words, wait_until};
use crate::target;
use antler_core::wire::client_master::{Answer, Query, Status};
use antler_net::daemon::{self, EndSignals};
use antler_net::pid::PidFile;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The unit of the mount.
pub(crate) const MOUNT: Unit = Unit {
    kind: Kind::Mount,
    number: 1,
};
/// How long the mount may take to answer.
const MOUNT_PATIENCE: Duration = Duration::from_secs(90);
/// How long the chunkservers may take to register: a large disk is read through first.
const SERVERS_PATIENCE: Duration = Duration::from_secs(60);
const SERVERS_STEP: Duration = Duration::from_millis(20);
const WATCH_STEP: Duration = Duration::from_millis(200);

/// Runs the command.
pub(crate) fn run(arguments: &Up) -> Outcome<()> {
    let layout = prepare(arguments)?;
    let lock = PidFile::take(&layout.dir.join("up.pid")).map_err(|error| {
        Failure::undone(format_args!("another `antler up` is at work here: {error}"))
    })?;
    layout.complete()?;
    let mut started = Vec::new();
    if let Err(failure) = bring_up(&layout, &mut started) {
        undo(&layout, &mut started);
        return Err(failure);
    }
    drop(lock);
    say_part!("{}", summary(&layout, arguments));
    if arguments.detach {
        return Ok(());
    }
    watch(&layout, started)
}

/// The cluster to bring up: the one in the folder, or a new one.
fn prepare(arguments: &Up) -> Outcome<Layout> {
    match Layout::find(&arguments.dir)? {
        Some(layout) => agree(layout, arguments),
        None => {
            let mount = arguments.mount.clone().unwrap_or_else(|| "./mnt".into());
            let chosen = Chosen {
                masters: arguments.masters.unwrap_or(1),
                metaloggers: arguments.metaloggers.unwrap_or(1),
                chunkservers: arguments.chunkservers.unwrap_or(4),
                copies: arguments.copies.unwrap_or(2),
                mount: PathBuf::new(),
            };
            check(&chosen)?;
            let mount = mount_point(&mount)?;
            Layout::found(&arguments.dir, Chosen { mount, ..chosen })
        }
    }
}

fn check(chosen: &Chosen) -> Outcome<()> {
    let mut wrong = Vec::new();
    if chosen.masters.is_multiple_of(2) {
        wrong.push(format!(
            "--masters {}: an odd number is allowed, since an even one survives no more losses",
            chosen.masters
        ));
    }
    if chosen.copies > chosen.chunkservers {
        wrong.push(format!(
            "--copies {}: each copy needs a chunkserver of its own, and there are {}",
            chosen.copies, chosen.chunkservers
        ));
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Failure::usage(wrong.join("\n")))
    }
}

/// Takes what the arguments may still change of a cluster that is there.
fn agree(mut layout: Layout, arguments: &Up) -> Outcome<Layout> {
    let mut wrong = Vec::new();
    let chosen = &layout.chosen;
    for (name, asked, there) in [
        ("masters", arguments.masters, chosen.masters),
        ("metaloggers", arguments.metaloggers, chosen.metaloggers),
        ("copies", arguments.copies, chosen.copies),
    ] {
        if asked.is_some_and(|asked| asked != there) {
            wrong.push(format!("this cluster was made with --{name} {there}"));
        }
    }
    if arguments.copies.is_some_and(|asked| asked != chosen.copies) {
        wrong.push("copies are changed with `antler set-copies`".to_owned());
    }
    match arguments.chunkservers {
        Some(asked) if asked < chosen.chunkservers => wrong.push(format!(
            "this cluster has {} chunkservers; more can be added, fewer can't",
            chosen.chunkservers
        )),
        _ => {}
    }
    if !wrong.is_empty() {
        let dir = layout.dir.display();
        return Err(Failure::usage(format_args!("{dir}: {}", wrong.join("\n"))));
    }
    let mount = match &arguments.mount {
        Some(mount) => mount_point(mount)?,
        None => layout.chosen.mount.clone(),
    };
    if mount != layout.chosen.mount && layout.running(MOUNT).is_some() {
        return Err(Failure::usage(format_args!(
            "it is mounted on {}; `antler down` first, or leave --mount out",
            layout.chosen.mount.display()
        )));
    }
    let chunkservers = arguments.chunkservers.unwrap_or(layout.chosen.chunkservers);
    let chosen = Chosen {
        mount,
        chunkservers,
        ..layout.chosen.clone()
    };
    if chosen != layout.chosen {
        layout.chosen = chosen;
        layout.save()?;
    }
    Ok(layout)
}

/// The absolute path of a mount point. It need not exist; if an earlier client of
/// ours died on it, it can't even be looked at.
fn mount_point(path: &Path) -> Outcome<PathBuf> {
    let absolute = std::path::absolute(path).at(path)?;
    let parent = absolute
        .parent()
        .ok_or_else(|| Failure::usage("--mount: / can't be mounted on"))?;
    let name = absolute
        .file_name()
        .ok_or_else(|| Failure::usage("--mount: the path must end in a name"))?;
    fs::create_dir_all(parent).at(parent)?;
    Ok(fs::canonicalize(parent).at(parent)?.join(name))
}

fn bring_up(layout: &Layout, started: &mut Vec<Started>) -> Outcome<()> {
    for unit in layout.units() {
        if layout.running(unit).is_none() {
            started.push(processes::start(layout, unit)?);
        }
    }
    if layout.running(MOUNT).is_none() {
        free_mount_point(&layout.chosen.mount)?;
        started.push(processes::start(layout, MOUNT)?);
    }
    await_mount(layout, started)?;
    for unit in await_servers(layout)? {
        eprintln!(
            "{unit} has not registered yet; {}",
            last_words(layout, unit)
        );
    }
    Ok(())
}

/// Makes the mount point ready: there, empty, and free of what a dead client left.
fn free_mount_point(point: &Path) -> Outcome<()> {
    while let Some(mounted) = mounts::at(point).at(point)? {
        if !mounted.is_antler() {
            return Err(Failure::undone(format_args!(
                "{}: something else ({}) is mounted there",
                point.display(),
                mounted.kind
            )));
        }
        mounts::unmount(point, true).at(point)?;
    }
    fs::create_dir_all(point).at(point)?;
    if fs::read_dir(point).at(point)?.next().is_some() {
        return Err(Failure::undone(format_args!(
            "{}: is not empty; choose an empty folder with --mount",
            point.display()
        )));
    }
    Ok(())
}

/// Waits until the mount answers, or something that was started ends.
fn await_mount(layout: &Layout, started: &mut [Started]) -> Outcome<()> {
    let point = &layout.chosen.mount;
    let mut failure = None;
    let is_up = wait_until(MOUNT_PATIENCE, || {
        failure = dead(layout, started);
        failure.is_some() || is_antler(point)
    });
    if let Some(failure) = failure {
        return Err(failure);
    }
    if !is_up || !answers(point.clone()) {
        return Err(Failure::undone(format_args!(
            "{} does not answer after {} s; {}",
            point.display(),
            MOUNT_PATIENCE.as_secs(),
            last_words(layout, MOUNT)
        )));
    }
    Ok(())
}

/// Waits until the leader hears every chunkserver that runs; returns those that it
/// does not hear in time.
fn await_servers(layout: &Layout) -> Outcome<Vec<Unit>> {
    let mut missing = layout.units();
    missing.retain(|unit| unit.kind == Kind::ChunkServer);
    let end = Instant::now() + SERVERS_PATIENCE;
    target::of_layout(layout).with_session(async |session| {
        loop {
            if let Ok(Answer::Status(status)) = session.query(Query::Status).await {
                missing.retain(|unit| !is_heard(layout, *unit, &status));
            }
            missing.retain(|unit| layout.running(*unit).is_some());
            if missing.is_empty() || Instant::now() >= end {
                return Ok(missing);
            }
            tokio::time::sleep(SERVERS_STEP).await;
        }
    })
}

fn is_heard(layout: &Layout, unit: Unit, status: &Status) -> bool {
    let address = layout.address(unit);
    let mut servers = status.servers.iter();
    servers.any(|server| server.alive && address.as_deref() == Some(server.address.0.as_str()))
}

fn is_antler(point: &Path) -> bool {
    mounts::at(point).is_ok_and(|mounted| mounted.is_some_and(|mounted| mounted.is_antler()))
}

fn dead(layout: &Layout, started: &mut [Started]) -> Option<Failure> {
    started.iter_mut().find_map(|daemon| {
        let how = daemon.ended()?;
        let unit = daemon.unit;
        let told = format!("{unit} ended ({how}); {}", last_words(layout, unit));
        Some(Failure::undone(told))
    })
}

/// Asks the mount a question; a thread of its own bears it if no answer comes.
fn answers(point: PathBuf) -> bool {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(fs::metadata(point).is_ok()));
    receiver
        .recv_timeout(Duration::from_secs(30))
        .unwrap_or(false)
}

/// Stops what this run started: a cluster comes up whole or stays as it was.
fn undo(layout: &Layout, started: &mut [Started]) {
    for daemon in started.iter_mut().rev() {
        daemon.stop();
    }
    if started.iter().any(|daemon| daemon.unit == MOUNT) && is_antler(&layout.chosen.mount) {
        let _ = mounts::unmount(&layout.chosen.mount, true);
    }
}

fn summary(layout: &Layout, arguments: &Up) -> String {
    let mount = shown(&layout.chosen.mount);
    let mut text = format!("Antler is up: {mount}\n\n");
    for unit in layout.units() {
        let address = layout.address(unit).unwrap_or_default();
        text += &line(layout, unit, &address);
    }
    text += &line(layout, MOUNT, &mount);
    let dir = match arguments.dir == Path::new(DIR) {
        true => String::new(),
        false => format!(" --dir {}", shown(&layout.dir)),
    };
    let victim = shown(&layout.pid(Unit {
        kind: Kind::ChunkServer,
        number: 1,
    }));
    text += &format!(
        "\nTry:\n\
         \x20 cp -r /usr/share/doc {mount}/       # fill it\n\
         \x20 antler status{dir}\n\
         \x20 antler info {mount}/doc/...         # where a file's copies are\n\
         \x20 antler set-copies 3 {mount}/doc\n\
         \x20 kill -9 $(cat {victim})   # then watch `antler status{dir}` heal\n\
         \x20 antler up{dir}                      # brings back what is missing\n"
    );
    text += &match arguments.detach {
        true => format!("\nStop it with `antler down{dir}`; the data stays.\n"),
        false => "\nStop it with Ctrl-C; the data stays.\n".to_owned(),
    };
    text
}

fn line(layout: &Layout, unit: Unit, place: &str) -> String {
    let pid = layout
        .running(unit)
        .map_or_else(|| "not running".to_owned(), |pid| format!("process {pid}"));
    let name = unit.to_string();
    format!(
        "  {name:<15} {place:<22} {pid:<16} {}\n",
        shown(&layout.folder(unit))
    )
}

/// A path as short as it can be said from here.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here)
        .unwrap_or(path)
        .display()
        .to_string()
}

/// Tells of daemons that die, until Ctrl-C or until everything was stopped elsewhere.
fn watch(layout: &Layout, mut started: Vec<Started>) -> Outcome<()> {
    let runtime = daemon::runtime().or_fail()?;
    let mut signals = {
        let _within = runtime.enter();
        EndSignals::handle()
    };
    let mut attempts = 0;
    loop {
        let asked = runtime.block_on(async {
            tokio::select! {
                () = signals.next() => true,
                () = tokio::time::sleep(WATCH_STEP) => false,
            }
        });
        if asked {
            attempts += 1;
            eprintln!("\nstopping ...");
            match processes::stop_all(layout, MOUNT, attempts > 1) {
                Err(failure) if attempts == 1 => {
                    eprintln!("{failure}; or press Ctrl-C again to detach it anyway");
                }
                done => return done,
            }
        }
        started.retain_mut(|daemon| match daemon.ended() {
            None => true,
            Some(how) => {
                let unit = daemon.unit;
                eprintln!(
                    "{unit} (process {}) ended: {how}; `antler up` brings it back",
                    daemon.pid()
                );
                false
            }
        });
        let is_gone = layout
            .units()
            .iter()
            .all(|unit| layout.running(*unit).is_none());
        if is_gone && layout.running(MOUNT).is_none() {
            eprintln!("everything has stopped");
            return Ok(());
        }
    }
}
