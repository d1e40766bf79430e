//! `antler scrub`: has a chunkserver read its disks once, beginning now, and tells how far
//! that is and what it found. What a scrub checks and what becomes of bad parts is the
//! chunkserver's and the leader's.

use crate::arguments::Scrub;
use crate::classes::server;
use crate::failure::{Failure, Outcome};
use crate::out::say;
use crate::session::Session;
use crate::status::bytes;
use crate::target;
use antler_core::errno::Errno;
use antler_core::ids::DiskId;
use antler_core::wire::client_master::{DiskStatus, Query, ScrubStatus, ServerStatus};
use std::process::ExitCode;
use std::time::Duration;

/// The exit code that says that something bad was found.
const FOUND: u8 = 3;
/// The pause between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// How soon a server that was told of an order tells of the round: some heartbeats.
const BEGIN_PATIENCE: u32 = 10;

/// A round that was ordered, as its disk was before.
struct Round {
    disk: DiskId,
    path: String,
    before: ScrubStatus,
}

/// Reads the rate of a scrub that is ordered.
///
/// # Errors
/// When it is none, or nothing.
pub(crate) fn rate(text: &str) -> Result<u64, String> {
    let rate = antler_net::config::rate(text).filter(|rate| *rate > 0);
    rate.ok_or_else(|| "a rate like 64MiB/s is wanted (B, KiB, MiB, GiB, TiB)".to_owned())
}

/// Runs the command.
pub(crate) fn run(arguments: &Scrub) -> Outcome<ExitCode> {
    let found = target::find(&arguments.target, None)?;
    let name = &arguments.server;
    found.with_session(async |session| {
        let rounds = order(session, arguments).await?;
        if !arguments.wait {
            say!(
                "{name} reads {} disks; `antler status` tells how far it is",
                rounds.len()
            );
            return Ok(ExitCode::SUCCESS);
        }
        let mut findings = 0;
        for round in rounds {
            findings += wait(session, name, &round).await?;
        }
        Ok(match findings {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::from(FOUND),
        })
    })
}

async fn order(session: &Session, arguments: &Scrub) -> Outcome<Vec<Round>> {
    let name = &arguments.server;
    let status = server(session, name).await?;
    let disks = chosen(&status, arguments.disk.as_deref())?;
    let disk = arguments.disk.is_some().then(|| disks[0].disk);
    let query = Query::Scrub {
        server: status.server,
        disk,
        rate: arguments.rate,
    };
    let told = session.query(query).await;
    told.map_err(|error| match error {
        Errno::EOPNOTSUPP => Failure::undone(
            "the cluster is below feature level 4, which scrubs on demand came with: see `antler \
             feature-level`",
        ),
        Errno::ENXIO => Failure::undone(format_args!("{name} is away")),
        other => Failure::undone(format_args!("{name}: {other}")),
    })?;
    let round = |disk: &DiskStatus| Round {
        disk: disk.disk,
        path: disk.path.clone(),
        before: disk.scrub.unwrap_or_default(),
    };
    Ok(disks.into_iter().map(round).collect())
}

/// The disks that are to be read: those that work, or the one with this path.
fn chosen<'s>(status: &'s ServerStatus, path: Option<&str>) -> Outcome<Vec<&'s DiskStatus>> {
    let name = &status.address;
    let named = |disk: &&DiskStatus| path.is_none_or(|path| disk.path == path);
    let disks: Vec<&DiskStatus> = status.disks.iter().filter(named).collect();
    if let (Some(path), []) = (path, &disks[..]) {
        let known: Vec<&str> = status.disks.iter().map(|disk| &disk.path[..]).collect();
        let known = known.join(", ");
        return Err(Failure::undone(format_args!(
            "{name} has no disk {path}; it has {known}"
        )));
    }
    let works = |disk: &&DiskStatus| disk.failed.is_empty();
    let working: Vec<&DiskStatus> = disks.into_iter().filter(works).collect();
    match working.is_empty() {
        true => Err(Failure::undone(format_args!(
            "{name} has no disk there that works"
        ))),
        false => Ok(working),
    }
}

/// Waits for the end of a round. How many bad parts it found.
async fn wait(session: &Session, name: &str, round: &Round) -> Outcome<u64> {
    let path = &round.path;
    let mut looks = 0;
    let mut shown = None;
    loop {
        let status = server(session, name).await?;
        let disk = status.disks.iter().find(|one| one.disk == round.disk);
        let scrub = disk.and_then(|disk| disk.scrub);
        looks += 1;
        match scrub {
            Some(scrub) if scrub.ended != round.before.ended => {
                let findings = scrub.findings.saturating_sub(round.before.findings);
                let read = bytes(scrub.bytes);
                say!("{path}: {read} read, {findings} bad parts found");
                return Ok(findings);
            }
            Some(scrub) if shown != Some(scrub.per_mille / 10) => {
                shown = Some(scrub.per_mille / 10);
                say!("{path}: {} % of the parts read", scrub.per_mille / 10);
            }
            None if looks > BEGIN_PATIENCE => {
                return Err(Failure::undone(format_args!(
                    "{path} of {name} is not read any more: the server started anew, or the \
                     disk failed; `antler status` tells"
                )));
            }
            _ => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_chosen_by_path_and_failed_ones_left_alone() {
        let disk = |number, path: &str, failed: &str| DiskStatus {
            disk: DiskId(number),
            path: path.to_owned(),
            failed: failed.to_owned(),
            ..DiskStatus::default()
        };
        let status = ServerStatus {
            disks: vec![disk(1, "/a", ""), disk(2, "/b", "gone"), disk(3, "/c", "")],
            ..ServerStatus::default()
        };
        let numbers = |path| -> Result<Vec<u64>, ()> {
            let disks = chosen(&status, path).map_err(|_| ())?;
            Ok(disks.iter().map(|disk| disk.disk.0).collect())
        };
        assert_eq!(numbers(None), Ok(vec![1, 3]));
        assert_eq!(numbers(Some("/c")), Ok(vec![3]));
        assert_eq!(numbers(Some("/b")), Err(()));
        assert_eq!(numbers(Some("/d")), Err(()));
        assert_eq!(rate("2MiB/s"), Ok(2 << 20));
        assert!(rate("0").is_err() && rate("64MiB").is_err());
    }
}
