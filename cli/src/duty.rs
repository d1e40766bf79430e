//! `antler drain` and `antler maintenance`: what is ordered of a chunkserver.
//!
//! An order is a label with a reserved key, set as `antler label` sets others; what has come
//! of it is the leader's word, and whether a server may go is what `antler ok-to-stop` asks.

use crate::arguments::{Drain, Maintenance};
use crate::classes::{NEEDS_LEVEL, server, set_label};
use crate::failure::{Failure, Outcome};
use crate::out::say;
use crate::session::Session;
use crate::stop::ask_all;
use crate::target;
use antler_core::errno::Errno;
use antler_core::placement::label::{DRAIN, MAINTENANCE};
use antler_core::wire::client_master::ServerStatus;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The pause between two looks at a drain.
const LOOK: Duration = Duration::from_secs(1);
/// The longest maintenance, in seconds: what is away for longer is better drained.
const SPAN_MAX: u64 = 7 * 86_400;
/// Why a leader of an older version is of no use here.
const TOO_OLD: &str = "the leader is of a version that does not know of this: the order is in the \
     log, and holds once an upgraded master leads";

/// Runs `antler drain`.
pub(crate) fn drain(arguments: &Drain) -> Outcome<()> {
    let found = target::find(&arguments.target, None)?;
    let name = &arguments.server;
    found.with_session(async |session| {
        let value = (!arguments.end).then(|| "yes".to_owned());
        order(session, name, DRAIN, value).await?;
        if arguments.end {
            say!("{name} is used again");
            return Ok(());
        }
        loop {
            let (text, is_done) = progress(session, name).await?;
            say!("{text}");
            if is_done || !arguments.wait {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    })
}

/// How far a drain is, and whether it is done.
async fn progress(session: &Session, name: &str) -> Outcome<(String, bool)> {
    let status = server(session, name).await?;
    let Some(left) = status.draining else {
        return Err(Failure::undone(TOO_OLD));
    };
    let plan = ask_all(session, &[status.server]).await?;
    let needed = plan.unavailable + plan.endangered + plan.under_goal;
    Ok(match (left, needed) {
        (0, 0) => (format!("{name} is empty: it may be removed"), true),
        (left, 0) if !status.alive => {
            let text = format!("{name} is away, and nothing needs the {left} chunks on it");
            (format!("{text}: it may be removed"), true)
        }
        (left, needed) => {
            let text = format!("{name} is being drained: {left} chunks are left");
            (format!("{text}, {needed} of them needed"), false)
        }
    })
}

/// Runs `antler maintenance`.
pub(crate) fn maintenance(arguments: &Maintenance) -> Outcome<()> {
    let found = target::find(&arguments.target, None)?;
    let name = &arguments.server;
    found.with_session(async |session| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_err(|_| Failure::undone("the clock is before 1970"))?;
        let until = now.as_secs() + arguments.span;
        let value = (!arguments.end).then(|| until.to_string());
        order(session, name, MAINTENANCE, value).await?;
        if arguments.end {
            say!("the maintenance of {name} is over");
            return Ok(());
        }
        let status = server(session, name).await?;
        let Some(left) = status.maintenance else {
            return Err(Failure::undone(TOO_OLD));
        };
        say!("{name} is in maintenance for {left} s: its copies are waited for");
        let plan = ask_all(session, &[status.server]).await?;
        if plan.unavailable > 0 {
            let count = plan.unavailable;
            say!("while it is away {count} chunks can't be read");
        }
        if plan.endangered > 0 {
            let count = plan.endangered;
            say!("while it is away {count} chunks do not survive a further loss");
        }
        Ok(())
    })
}

async fn order(session: &Session, name: &str, key: &str, value: Option<String>) -> Outcome<()> {
    let ServerStatus { server, .. } = server(session, name).await?;
    let done = set_label(session, server, key.to_owned(), value).await;
    done.map_err(|error| match error {
        Errno::EOPNOTSUPP => Failure::undone(NEEDS_LEVEL),
        other => Failure::undone(format_args!("{name}: {other}")),
    })
}

/// Reads a span of time, in seconds.
///
/// # Errors
/// When it is none, nothing, or longer than a week.
pub(crate) fn span(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" => Some(1),
        "min" => Some(60),
        "h" => Some(3600),
        "d" => Some(86_400),
        _ => None,
    };
    let count: Option<u64> = digits.parse().ok();
    let seconds = count
        .zip(unit)
        .and_then(|(count, unit)| count.checked_mul(unit));
    let seconds = seconds.filter(|seconds| (1..=SPAN_MAX).contains(seconds));
    seconds.ok_or_else(|| "a number with s, min, h or d is wanted, up to 7d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read() {
        assert_eq!(span("30min"), Ok(1800));
        assert_eq!(span("7d"), Ok(SPAN_MAX));
        for wrong in [
            "",
            "30",
            "min",
            "0s",
            "8d",
            "1.5h",
            "-1s",
            "99999999999999999999s",
        ] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }
}
