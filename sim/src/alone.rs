//! A chunk that is left to one server, while the others that have it are away: what they
//! have is behind from then on.
//!
//! Keeps the fault atlas: when a server goes away, what was damaged on another without a
//! word still has a good copy, and loses it only by what is written meanwhile. So the damage
//! is undone at that moment. What nobody wrote to stays damaged, and heals from the server
//! that comes back.

use crate::network::NodeIndex;
use crate::node::Node;
use crate::world::World;
use antler_core::ids::{LinkId, ServerId};
use antler_core::machine::Role;
use antler_core::wire::Message;
use antler_core::wire::chunk_master::{Command, MasterToChunk};
use antler_core::wire::client_master::{Answer, LeasedChunk, MasterToClient};

impl World {
    /// A master sends what may leave a chunk to one server: a lease on a single copy, or, when
    /// it has made copies equal, the order to raise the version of one.
    pub(crate) fn spare_only_copy(&mut self, from: NodeIndex, link: LinkId, message: &Message) {
        if self.plan.cluster.copies < 2 {
            return;
        }
        let alone = match message {
            Message::MasterToClient(message) => granted(message)
                .filter(|lease| lease.copies.len() == 1)
                .and_then(|lease| self.server_node(lease.copies[0].server)),
            Message::MasterToChunk(MasterToChunk::Command {
                body: Command::SetVersion { .. },
                ..
            }) => self.network.peer(from, link).map(|node| node.0),
            _ => None,
        };
        let Some(node) = alone.map(|index| &self.nodes[index]) else {
            return;
        };
        let undone = node.disks.iter().filter(|disk| disk.undo_damage(self.now));
        if undone.count() > 0 {
            self.trace.line(self.now, &node.name, || {
                "its silent damage is undone, as others' copies fall behind".to_owned()
            });
        }
    }

    fn server_node(&self, server: ServerId) -> Option<usize> {
        let is_it = |node: &Node| node.role == Role::ChunkServer && node.id == server.0;
        self.nodes.iter().position(is_it)
    }
}

/// The lease that a master's answer grants.
fn granted(message: &MasterToClient) -> Option<&LeasedChunk> {
    let MasterToClient::Answer { result, .. } = message else {
        return None;
    };
    match result {
        Ok(
            Answer::Lease(lease)
            | Answer::Created {
                lease: Some(lease), ..
            },
        ) => Some(lease),
        _ => None,
    }
}
