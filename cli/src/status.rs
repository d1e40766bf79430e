//! `antler status`: the cluster as its leader sees it.

use crate::arguments::Status as Arguments;
use crate::failure::{Failure, Outcome};
use crate::layout::member_name;
use crate::level;
use crate::out::{say, say_part};
use crate::session::Session;
use crate::target;
use antler_core::wire::client_master::{
    Answer, ClassStatus, DiskStatus, MemberStatus, Query, ScrubStatus, ServerStatus, SessionStatus,
    Status,
};
use antler_net::clock;
use serde_json::{Value, json};

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Outcome<()> {
    let found = target::find(&arguments.target, arguments.path.as_deref())?;
    let status = found.with_session(async |session| {
        let status = ask(session).await;
        status
            .map_err(|error| Failure::undone(format_args!("{}: {error}", found.masters.join(", "))))
    })?;
    if arguments.json {
        say!("{:#}", as_json(&status));
    } else {
        say_part!("{}", as_text(&status));
    }
    Ok(())
}

/// Asks the leader.
pub(crate) async fn ask(session: &Session) -> Outcome<Status> {
    match session.query(Query::Status).await {
        Ok(Answer::Status(status)) => Ok(*status),
        Ok(other) => panic!("status is answered by status, not {other:?}"),
        Err(error) => Err(Failure::undone(error)),
    }
}

fn as_text(status: &Status) -> String {
    let mut text = format!(
        "cluster {}, {}\n{}\nmembers\n",
        status.cluster,
        applied(status),
        level::as_text(&status.level)
    );
    for member in &status.members {
        text += &member_line(member);
    }
    text += "\nchunkservers\n";
    for server in &status.servers {
        text += &server_lines(server);
    }
    let health = &status.health;
    text += &format!(
        "\nchunks\n  missing {}, endangered {}, under goal {}, at goal {}, over goal {}\n",
        health.missing, health.endangered, health.under_goal, health.at_goal, health.over_goal
    );
    if health.outside + health.misplaced > 0 {
        text += &format!(
            "  outside of where their class permits {}, not yet where it wishes {}\n",
            health.outside, health.misplaced
        );
    }
    if health.unshaped > 0 {
        text += &format!(
            "  to be converted to the parts, or to the copies, that their class wants {}\n",
            health.unshaped
        );
    }
    if health.draining + health.awaited > 0 {
        text += &format!(
            "  to be moved off drained servers {}, waiting for servers in maintenance {}\n",
            health.draining, health.awaited
        );
    }
    text += &format!(
        "  being written {}, quarantined {}; repairs running {}, waiting {}\n",
        status.leased, status.quarantined, status.repairs_running, status.repairs_waiting
    );
    if status.balancing > 0 {
        text += &format!("  moving to emptier servers {}\n", status.balancing);
    }
    text += &format!(
        "\nmetadata\n  {} objects in {} of memory, {} bytes each\n",
        status.inodes,
        bytes(status.metadata_bytes),
        per_object(status)
    );
    text += &classes_text(status);
    text += "\nsessions\n";
    for session in &status.sessions {
        text += &format!(
            "  {:<20} {} {}\n",
            session.session.to_string(),
            session.name,
            unless(session.alive, "(unheard)")
        );
    }
    text
}

/// Storage classes, if there are any that are not built in.
fn classes_text(status: &Status) -> String {
    let mut text = String::new();
    for class in &status.classes {
        if text.is_empty() {
            text += "\nstorage classes\n";
        }
        text += &class_lines(class);
    }
    text
}

/// A storage class, and what of it can't be met.
pub(crate) fn class_lines(class: &ClassStatus) -> String {
    let mut text = format!(
        "  {:<16} {} ({} objects)\n",
        class.name, class.class, class.users
    );
    for told in &class.unmet {
        text += &format!("    CAN'T BE MET: {told}\n");
    }
    text
}

fn applied(status: &Status) -> String {
    format!("log at {}", status.applied)
}

fn per_object(status: &Status) -> u64 {
    status.metadata_bytes / status.inodes.max(1)
}

fn unless(is_so: bool, text: &str) -> &str {
    if is_so { "" } else { text }
}

fn member_line(member: &MemberStatus) -> String {
    let line = format!(
        "  {:<15} {:<22} {:<11} {} {}",
        member_name(&member.role, member.member),
        member.address.0,
        member.role,
        member.matched,
        unless(member.alive, "(unheard)")
    );
    format!("{}\n", line.trim_end())
}

fn server_lines(server: &ServerStatus) -> String {
    let labels: Vec<String> = server
        .labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let line = format!(
        "  {:<22} {} copies {} {}",
        server.address.0,
        server.copies,
        labels.join(" "),
        unless(server.alive, "(away)")
    );
    let mut text = format!("{}{}\n", line.trim_end(), duty_text(server));
    for disk in &server.disks {
        text += &format!("    {}\n", disk_line(disk));
    }
    text
}

/// What was ordered of a server.
fn duty_text(server: &ServerStatus) -> String {
    let mut text = String::new();
    match server.draining {
        Some(0) => text += " (drained: it may be removed)",
        Some(left) => text += &format!(" (being drained: {left} chunks left)"),
        None => {}
    }
    if let Some(left) = server.maintenance {
        text += &format!(" (in maintenance for {left} s)");
    }
    text
}

fn disk_line(disk: &DiskStatus) -> String {
    if !disk.failed.is_empty() {
        return format!("{}: FAILED: {}", disk.path, disk.failed);
    }
    let scrub = disk.scrub.as_ref().map(scrub_text).unwrap_or_default();
    format!(
        "{}: {} copies, {} free of {}{scrub}",
        disk.path,
        disk.copies,
        bytes(disk.space.free),
        bytes(disk.space.total)
    ) + &drain_text(disk)
}

/// How far a disk is emptied.
fn drain_text(disk: &DiskStatus) -> String {
    let why = match disk.suspected.as_str() {
        "" => String::new(),
        why => format!(" SUSPECTED: {why}"),
    };
    why + &match disk.draining {
        Some(0) => " (drained: it may be removed)".to_owned(),
        Some(left) => format!(" (being drained: {left} copies left)"),
        None => String::new(),
    }
}

/// How far a disk is scrubbed, and what that found.
fn scrub_text(scrub: &ScrubStatus) -> String {
    let ended = match scrub.ended {
        Some(ended) => {
            let past = clock::now().wall.since(ended).as_secs();
            format!("last round ended {past} s ago")
        }
        None => "no round ended yet".to_owned(),
    };
    let rate = match scrub.rate {
        0 => String::new(),
        rate => format!(" at {}/s", bytes(rate)),
    };
    format!(
        ", scrubbed {}.{} %{rate}, {ended}, {} found bad",
        scrub.per_mille / 10,
        scrub.per_mille % 10,
        scrub.findings
    )
}

/// A number of bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut shown = count as f64;
    while shown >= 1024.0 && unit + 1 < UNITS.len() {
        shown /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ => format!("{shown:.1} {}", UNITS[unit]),
    }
}

fn as_json(status: &Status) -> Value {
    let health = &status.health;
    json!({
        "cluster": status.cluster,
        "position": status.applied.0,
        "feature_level": level::as_json(&status.level),
        "members": status.members.iter().map(member_json).collect::<Vec<_>>(),
        "servers": status.servers.iter().map(server_json).collect::<Vec<_>>(),
        "chunks": {
            "missing": health.missing,
            "endangered": health.endangered,
            "under_goal": health.under_goal,
            "at_goal": health.at_goal,
            "over_goal": health.over_goal,
            "outside": health.outside,
            "misplaced": health.misplaced,
            "to_convert": health.unshaped,
            "draining": health.draining,
            "awaited": health.awaited,
            "leased": status.leased,
            "quarantined": status.quarantined,
        },
        "repairs": {
            "running": status.repairs_running,
            "waiting": status.repairs_waiting,
            "balancing": status.balancing,
        },
        "metadata": {
            "objects": status.inodes,
            "bytes": status.metadata_bytes,
            "bytes_per_object": per_object(status),
        },
        "classes": status.classes.iter().map(class_json).collect::<Vec<_>>(),
        "sessions": status.sessions.iter().map(session_json).collect::<Vec<_>>(),
    })
}

fn member_json(member: &MemberStatus) -> Value {
    json!({
        "name": member_name(&member.role, member.member),
        "number": member.member,
        "address": member.address.0,
        "role": member.role,
        "alive": member.alive,
        "position": member.matched.0,
    })
}

fn server_json(server: &ServerStatus) -> Value {
    let disk = |disk: &DiskStatus| {
        json!({
            "disk": disk.disk.to_string(),
            "path": disk.path,
            "total": disk.space.total,
            "free": disk.space.free,
            "copies": disk.copies,
            "failed": disk.failed,
            "scrub": disk.scrub.as_ref().map(scrub_json),
            "draining": disk.draining,
            "suspected": disk.suspected,
        })
    };
    json!({
        "server": server.server.to_string(),
        "address": server.address.0,
        "alive": server.alive,
        "labels": labels(&server.labels),
        "copies": server.copies,
        "draining": server.draining,
        "maintenance": server.maintenance,
        "disks": server.disks.iter().map(disk).collect::<Vec<_>>(),
    })
}

fn scrub_json(scrub: &ScrubStatus) -> Value {
    json!({
        "bytes_per_second": scrub.rate,
        "bytes": scrub.bytes,
        "per_mille": scrub.per_mille,
        "findings": scrub.findings,
        "round_ended": scrub.ended.map(|ended| ended.seconds),
    })
}

fn class_json(class: &ClassStatus) -> Value {
    json!({
        "name": class.name,
        "keep": class.class.keep.to_string(),
        "create": class.class.create.as_ref().map(ToString::to_string),
        "archive": class.class.archive.as_ref().map(ToString::to_string),
        "objects": class.users,
        "unmet": class.unmet,
    })
}

fn session_json(session: &SessionStatus) -> Value {
    json!({
        "session": session.session.0,
        "name": session.name,
        "alive": session.alive,
    })
}

/// Labels as one JSON object.
pub(crate) fn labels(labels: &[(String, String)]) -> Value {
    let pairs = labels
        .iter()
        .map(|(name, value)| (name.clone(), Value::String(value.clone())));
    Value::Object(pairs.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_for_people() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
    }

    #[test]
    fn json_has_what_scripts_ask_for() {
        let status = Status {
            members: vec![MemberStatus {
                member: 101,
                role: "metalogger".into(),
                ..MemberStatus::default()
            }],
            ..Status::default()
        };
        let told = as_json(&status);
        for at in [
            "/chunks/missing",
            "/chunks/endangered",
            "/chunks/under_goal",
            "/chunks/quarantined",
            "/members/0/position",
        ] {
            assert_eq!(told.pointer(at), Some(&json!(0)), "{at}");
        }
        let name = told.pointer("/members/0/name");
        assert_eq!(name, Some(&json!("metalogger-1")));
        assert!(as_text(&status).contains("metalogger-1"));
    }
}
