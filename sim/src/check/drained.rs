//! Once everything has healed: a disk that is to be emptied is empty, where its server has
//! another one, or the other servers may have what is there.
//!
//! Whole servers that are drained are `copies`' business.

use super::copies::fill_on;
use crate::node::Node;
use antler_core::chunk::rules::DiskRules;
use antler_core::ids::{ChunkId, ServerId};
use antler_core::namespace::State;

/// What still lies where nothing is to stay, in words.
pub(crate) fn left(state: &State, nodes: &[Node]) -> Vec<String> {
    let mut left = Vec::new();
    for node in nodes.iter().filter(|node| node.runs_server()) {
        let drained = used_disks(node).filter(|at| node.rules_of(*at).drain);
        for at in drained {
            let chunks = node.parts_on(at).map(|stored| stored.part.chunk);
            let stuck = chunks.filter(|chunk| can_leave(state, nodes, node, *chunk));
            let told = stuck.map(|chunk| {
                format!(
                    "{chunk} is on disk {at} of {}, which is to be empty",
                    node.name
                )
            });
            left.extend(told);
        }
    }
    left
}

/// The disks that a server works with.
fn used_disks(node: &Node) -> impl Iterator<Item = usize> + '_ {
    let all = 0..node.disks.len();
    all.filter(|at| {
        let is_there = !node.out.contains(at) && !node.disks[*at].faults().vanished;
        is_there && !node.gave_up(*at)
    })
}

/// Whether nothing is ordered of some disk of a server, so that it takes what is new.
fn has_free_disk(node: &Node) -> bool {
    node.runs_server() && used_disks(node).any(|at| node.rules_of(at) == DiskRules::default())
}

fn can_leave(state: &State, nodes: &[Node], from: &Node, id: ChunkId) -> bool {
    let Some(chunk) = state.chunk(id) else {
        // Nobody refers to it: it goes anyway.
        return false;
    };
    let others = nodes
        .iter()
        .filter(|node| node.id != from.id && has_free_disk(node));
    let others: Vec<ServerId> = others.map(|node| ServerId(node.id)).collect();
    let class = state.class(chunk.class);
    let policy = class.resting(chunk.archived);
    has_free_disk(from) || fill_on(state, policy, &others).filled == policy.copies
}
