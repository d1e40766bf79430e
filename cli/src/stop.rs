//! `antler ok-to-stop`: whether nodes may be stopped, and if not, why.
//!
//! Owns the verdict about masters and metaloggers; the leader tells what becomes of the
//! chunks on chunkservers.

use crate::arguments::OkToStop;
use crate::failure::{Failure, Outcome};
use crate::layout::member_name;
use crate::out::{say, say_part};
use crate::session::Session;
use crate::target;
use antler_core::ids::{ChunkId, ServerId};
use antler_core::wire::client_master::{Answer, MemberStatus, Query, Status, StopPlan};
use serde_json::json;
use std::process::ExitCode;

/// The exit code that says no.
const NO: u8 = 3;
/// Files that are named at most.
const EXAMPLES_MAX: usize = 8;

/// Runs the command.
pub(crate) fn run(arguments: &OkToStop) -> Outcome<ExitCode> {
    let found = target::find(&arguments.target, None)?;
    let lenient = arguments.allow_endangered;
    let (reasons, plan) = found.with_session(async |session| {
        let status = crate::status::ask(session).await?;
        let nodes = resolve(&status, &arguments.nodes)?;
        let plan = ask_all(session, &nodes.servers).await?;
        let mut reasons = member_reasons(&status, &nodes.members);
        reasons.extend(chunk_reasons(&plan));
        reasons.retain(|reason| !lenient || reason.force == Force::Unavailable);
        let reasons: Vec<String> = reasons.into_iter().map(|reason| reason.text).collect();
        Ok((reasons, plan))
    })?;
    match arguments.json {
        true => say!("{:#}", as_json(&reasons, &plan)),
        false => say_part!("{}", as_text(&reasons, &plan)),
    }
    Ok(match reasons.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(NO),
    })
}

/// How bad it would be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Force {
    /// The next loss would cost something.
    Endangered,
    /// Something could not be used.
    Unavailable,
}

/// What speaks against it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Reason {
    force: Force,
    text: String,
}

impl Reason {
    fn new(force: Force, text: impl ToString) -> Self {
        let text = text.to_string();
        Self { force, text }
    }
}

/// The nodes that were named.
#[derive(Debug, Default)]
struct Nodes {
    members: Vec<u64>,
    servers: Vec<ServerId>,
}

/// Finds every node; what is no node is told, all of it at once.
fn resolve(status: &Status, names: &[String]) -> Outcome<Nodes> {
    let mut nodes = Nodes::default();
    let mut unknown = Vec::new();
    for name in names {
        let is_member = |one: &&MemberStatus| {
            one.address.0 == *name || member_name(&one.role, one.member) == *name
        };
        let mut servers = status.servers.iter();
        let server = servers.find(|one| one.address.0 == *name || one.server.to_string() == *name);
        match (status.members.iter().find(is_member), server) {
            (Some(member), _) => nodes.members.push(member.member),
            (None, Some(server)) => nodes.servers.push(server.server),
            (None, None) => unknown.push(name.as_str()),
        }
    }
    if unknown.is_empty() {
        return Ok(nodes);
    }
    Err(Failure::undone(format_args!(
        "{}: no such node; `antler status` shows their names and addresses",
        unknown.join(", ")
    )))
}

/// Asks the leader until every chunk of the servers was looked at.
pub(crate) async fn ask_all(session: &Session, servers: &[ServerId]) -> Outcome<StopPlan> {
    let mut all = StopPlan::default();
    let mut from = Some(ChunkId(0)).filter(|_| !servers.is_empty());
    while let Some(chunk) = from {
        let servers = servers.to_vec();
        let query = Query::Stop {
            servers,
            from: chunk,
        };
        let some = match session.query(query).await {
            Ok(Answer::Stop(plan)) => *plan,
            Ok(other) => panic!("a question about stopping is answered by a plan, not {other:?}"),
            Err(error) => return Err(Failure::undone(error)),
        };
        from = some.next;
        add(&mut all, some);
    }
    Ok(all)
}

fn add(all: &mut StopPlan, some: StopPlan) {
    all.chunks += some.chunks;
    all.unavailable += some.unavailable;
    all.endangered += some.endangered;
    all.under_goal += some.under_goal;
    for inode in some.examples {
        if all.examples.len() < EXAMPLES_MAX && !all.examples.contains(&inode) {
            all.examples.push(inode);
        }
    }
}

/// What would come of the metadata.
fn member_reasons(status: &Status, stopped: &[u64]) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if stopped.is_empty() {
        return reasons;
    }
    let stays = |one: &&MemberStatus| one.alive && !stopped.contains(&one.member);
    let voters: Vec<&MemberStatus> = status
        .members
        .iter()
        .filter(|one| one.role != "metalogger")
        .collect();
    let (left, quorum) = (
        voters.iter().copied().filter(stays).count(),
        voters.len() / 2 + 1,
    );
    if left < quorum {
        let text = format!(
            "everything would become unavailable: {left} of {} masters would be left, and {quorum} \
             must agree",
            voters.len()
        );
        reasons.push(Reason::new(Force::Unavailable, text));
    }
    let before = status.members.iter().filter(|one| one.alive).count();
    let after = status.members.iter().filter(stays).count();
    if after == 1 && before > 1 && left >= quorum {
        let text = "the metadata would become endangered: one node would have it";
        reasons.push(Reason::new(Force::Endangered, text));
    }
    reasons
}

/// What would come of the chunks.
fn chunk_reasons(plan: &StopPlan) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if plan.unavailable > 0 {
        let text = "chunks would become unavailable: no other copy is there";
        let text = format!("{} {text}", plan.unavailable);
        reasons.push(Reason::new(Force::Unavailable, text));
    }
    if plan.endangered > 0 {
        let text = "chunks would become endangered: one copy would be left";
        let text = format!("{} {text}", plan.endangered);
        reasons.push(Reason::new(Force::Endangered, text));
    }
    reasons
}

fn as_text(reasons: &[String], plan: &StopPlan) -> String {
    let looked = format!(
        "  {} chunks have a copy there; {} more would be under their goal\n",
        plan.chunks, plan.under_goal
    );
    if reasons.is_empty() {
        return format!("yes\n{looked}");
    }
    let mut text = "no\n".to_owned();
    for reason in reasons {
        text += &format!("  {reason}\n");
    }
    text += &looked;
    let files: Vec<String> = plan.examples.iter().map(ToString::to_string).collect();
    if !files.is_empty() {
        text += &format!("  among them chunks of the files {}\n", files.join(" "));
    }
    text
}

fn as_json(reasons: &[String], plan: &StopPlan) -> serde_json::Value {
    json!({
        "ok": reasons.is_empty(),
        "reasons": reasons,
        "chunks": plan.chunks,
        "unavailable": plan.unavailable,
        "endangered": plan.endangered,
        "under_goal": plan.under_goal,
        "inodes": plan.examples.iter().map(|inode| inode.0).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::{add, member_reasons, resolve};
    use antler_core::ids::{Address, InodeId};
    use antler_core::wire::client_master::{MemberStatus, ServerStatus, Status, StopPlan};

    fn cluster(masters: u64, metaloggers: u64) -> Status {
        let member = |member: u64, role: &str| MemberStatus {
            member,
            address: Address(format!("host:{member}")),
            role: role.to_owned(),
            alive: true,
            ..MemberStatus::default()
        };
        let roles = |number| if number == 1 { "leader" } else { "follower" };
        let masters = (1..=masters).map(|number| member(number, roles(number)));
        let loggers = (1..=metaloggers).map(|number| member(100 + number, "metalogger"));
        Status {
            members: masters.chain(loggers).collect(),
            servers: vec![ServerStatus {
                address: Address("host:9420".to_owned()),
                ..ServerStatus::default()
            }],
            ..Status::default()
        }
    }

    #[test]
    fn masters_may_stop_as_long_as_a_quorum_is_left() {
        let three = cluster(3, 1);
        assert!(member_reasons(&three, &[]).is_empty());
        assert!(member_reasons(&three, &[2]).is_empty());
        assert!(member_reasons(&three, &[101]).is_empty());
        let reasons = member_reasons(&three, &[2, 3]);
        assert!(reasons[0].text.contains("unavailable"), "{reasons:?}");
    }

    #[test]
    fn a_master_that_is_away_already_counts() {
        let mut three = cluster(3, 0);
        three.members[1].alive = false;
        let reasons = member_reasons(&three, &[3]);
        assert!(reasons[0].text.contains("1 of 3 masters"), "{reasons:?}");
    }

    #[test]
    fn the_last_other_home_of_the_metadata_is_no_spare() {
        let reasons = member_reasons(&cluster(1, 1), &[101]);
        assert!(reasons[0].text.contains("endangered"), "{reasons:?}");
    }

    #[test]
    fn nodes_are_found_by_name_and_address_and_all_mistakes_are_told() {
        let status = cluster(1, 0);
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|&name| name.to_owned())
                .collect::<Vec<_>>()
        };
        let found = resolve(&status, &names(&["master-1", "host:9420"])).expect("both are there");
        assert_eq!((found.members.len(), found.servers.len()), (1, 1));
        let told = resolve(&status, &names(&["master-7", "host:9420", "nobody"]));
        let told = told.expect_err("two are not there").to_string();
        assert!(told.contains("master-7, nobody"), "{told}");
    }

    #[test]
    fn the_parts_of_an_answer_add_up() {
        let part = StopPlan {
            chunks: 2,
            unavailable: 1,
            examples: vec![InodeId(7)],
            ..StopPlan::default()
        };
        let mut all = part.clone();
        add(&mut all, part);
        assert_eq!((all.chunks, all.unavailable), (4, 2));
        assert_eq!(all.examples, [InodeId(7)], "a file is named once");
    }
}
