//! `antler feature-level`: what the cluster may use, who holds it back, and the order
//! that raises it. Whether it may be raised is the leader's to judge.

use crate::arguments::FeatureLevel as Arguments;
use crate::failure::{Failure, Outcome};
use crate::layout::member_name;
use crate::out::{say, say_part};
use crate::session::Session;
use crate::target;
use antler_core::attributes::Credentials;
use antler_core::client::request::FileRequest;
use antler_core::errno::Errno;
use antler_core::wire::client_master::{HeldBack, LevelStatus};
use serde_json::{Value, json};
use std::process::ExitCode;

/// The exit code that says that somebody holds it back.
const HELD_BACK: u8 = 3;

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Outcome<ExitCode> {
    let found = target::find(&arguments.target, None)?;
    let (raised, level) = found.with_session(async |session| {
        let raised = match arguments.raise {
            true => raise(session).await?,
            false => true,
        };
        Ok((raised, crate::status::ask(session).await?.level))
    })?;
    match arguments.json {
        true => say!("{:#}", as_json(&level)),
        false => say_part!("{}", as_text(&level)),
    }
    Ok(match raised {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(HELD_BACK),
    })
}

/// Whether it is at the newest level now; false when somebody holds it back.
async fn raise(session: &Session) -> Outcome<bool> {
    let level = crate::status::ask(session).await?.level.newest;
    let body = FileRequest::RaiseLevel { level };
    match session.ask(Credentials::default(), body).await {
        Ok(_) => Ok(true),
        Err(Errno::EBUSY) => Ok(false),
        Err(error) => Err(Failure::undone(format_args!(
            "the feature level is not raised to {level}: {error}"
        ))),
    }
}

/// What `antler status` shows of it, too.
pub(crate) fn as_text(level: &LevelStatus) -> String {
    let mut text = match level.level < level.newest {
        true => format!("feature level {} of {}\n", level.level, level.newest),
        false => format!("feature level {}\n", level.level),
    };
    for one in &level.held_back {
        let knows = one.knows.map_or_else(
            || "is not heard".to_owned(),
            |known| format!("knows levels up to {known}"),
        );
        text += &format!("  held back by {}: {knows}\n", name(one));
    }
    text
}

pub(crate) fn as_json(level: &LevelStatus) -> Value {
    let held_back = |one: &HeldBack| {
        json!({
            "name": name(one),
            "address": one.address.0,
            "knows": one.knows.map(|known| known.0),
        })
    };
    json!({
        "level": level.level.0,
        "newest": level.newest.0,
        "held_back": level.held_back.iter().map(held_back).collect::<Vec<_>>(),
    })
}

fn name(one: &HeldBack) -> String {
    match one.role.as_str() {
        "chunkserver" => format!("chunkserver {}", one.address),
        role => member_name(role, one.id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use antler_core::ids::Address;
    use antler_core::version::FeatureLevel;

    #[test]
    fn who_holds_the_level_back_is_named_with_what_it_knows() {
        let one = |role: &str, id, knows| HeldBack {
            role: role.to_owned(),
            id,
            address: Address::from("10.0.0.7:9422"),
            knows,
        };
        let level = LevelStatus {
            level: FeatureLevel(1),
            newest: FeatureLevel(2),
            held_back: vec![
                one("master", 2, None),
                one("chunkserver", 77, Some(FeatureLevel(1))),
            ],
        };
        assert_eq!(
            as_text(&level),
            "feature level 1 of 2\n  held back by master-2: is not heard\n  held back by \
             chunkserver 10.0.0.7:9422: knows levels up to 1\n"
        );
        assert_eq!(as_json(&level)["held_back"][1]["knows"], json!(1));
    }
}
