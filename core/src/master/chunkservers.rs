//! Chunkservers' links: registration, reports, heartbeats, their going and coming.
//! Every member listens, so that a new leader knows where the copies are.

use super::Master;
use super::duty::Duty;
use super::servers::{Load, Server, copy_of};
use crate::ids::{Address, BootId, ChunkId, Incarnation, LinkId, PartId, ServerId};
use crate::limits::SERVER_TIMEOUT;
use crate::machine::Level;
use crate::marks::Mark;
use crate::namespace::ChunkOrigin;
use crate::placement::Labels;
use crate::time::Instant;
use crate::version::FeatureLevel;
use crate::wire::Message;
use crate::wire::chunk_master::{ChunkToMaster, MasterToChunk, PartReport};
use crate::wire::client_master::DiskStatus;
use std::collections::BTreeSet;

impl Master {
    pub(super) fn on_chunkserver(
        &mut self,
        link: LinkId,
        (server, speaks): (ServerId, FeatureLevel),
        said: ChunkToMaster,
    ) {
        match said {
            ChunkToMaster::Register {
                server: named,
                boot,
                address,
                labels,
                disks,
                incarnation,
            } => {
                if named != server {
                    return self
                        .refuse_server(link, "it registers under another number than it proved");
                }
                if let Some(why) = self.judge_version(speaks) {
                    return self.refuse_server(link, &why);
                }
                let from = (link, speaks);
                self.on_register(from, server, (boot, incarnation), (address, labels, disks));
            }
            said if self
                .servers
                .get(server)
                .is_some_and(|one| one.link == Some(link)) =>
            {
                self.on_registered_said(link, server, said);
            }
            _ => self.refuse_server(link, "a chunkserver must register first"),
        }
    }

    fn on_registered_said(&mut self, link: LinkId, server: ServerId, said: ChunkToMaster) {
        let now = self.now.mono;
        let one = self
            .servers
            .table
            .get_mut(&server)
            .expect("the caller looked");
        one.heard = now;
        match said {
            ChunkToMaster::Report { parts, last } => {
                one.incoming.extend(parts);
                if last {
                    self.on_report_complete(link, server);
                }
            }
            ChunkToMaster::Alive { disks, sent, .. } => {
                one.alive_sent = sent;
                self.note_disks(server, disks);
                self.tell_heard(link, server);
            }
            ChunkToMaster::Gained { parts } => self.on_gained(server, parts),
            ChunkToMaster::Lost { parts } => {
                for part in parts {
                    self.on_part_lost(server, part);
                }
            }
            ChunkToMaster::CommandDone { command, result } => {
                self.on_command_done(server, command, result)
            }
            ChunkToMaster::Leaving => one.leaving = Some(now + self.config.restart_grace),
            ChunkToMaster::Register { .. } => {}
        }
    }

    fn on_register(
        &mut self,
        (link, speaks): (LinkId, FeatureLevel),
        server: ServerId,
        (boot, incarnation): (BootId, Incarnation),
        (address, labels, disks): (Address, Labels, Vec<DiskStatus>),
    ) {
        if incarnation > self.life() && self.member.state().is_founded() {
            return self.refuse_server(link, "it has seen a newer life of this cluster than ours");
        }
        let old = self
            .servers
            .get(server)
            .and_then(|one| one.link)
            .filter(|old| *old != link);
        if let Some(old) = old {
            self.close(old, "the chunkserver is on a newer link");
        }
        let before = self.servers.table.remove(&server);
        let (chunks, leaving, reported) = before.map_or_else(Default::default, |one| {
            (one.chunks, one.leaving, one.reported)
        });
        let one = Server {
            link: Some(link),
            boot,
            address,
            configured: labels.clone(),
            labels,
            duty: Duty::default(),
            logged: false,
            disks: Vec::new(),
            evacuated: BTreeSet::new(),
            heard: self.now.mono,
            registered: false,
            reported,
            leaving,
            chunks,
            incoming: Vec::new(),
            repairs: Load::default(),
            alive_sent: 0,
            speaks,
        };
        self.servers.table.insert(server, one);
        self.note_disks(server, disks);
        self.servers.forget_lost(server);
        self.relabel(server);
        self.touch_all_of(server);
    }

    /// The health of all that is on the server may have changed; a leased chunk may be
    /// there before anybody reported it.
    pub(super) fn touch_all_of(&mut self, server: ServerId) {
        self.servers.touch_all_of(server);
        for chunk in self.member.state().leased() {
            self.servers.touch(chunk);
        }
    }

    fn refuse_server(&mut self, link: LinkId, reason: &str) {
        let message = MasterToChunk::Refused {
            reason: reason.to_owned(),
        };
        self.send(link, Message::MasterToChunk(message));
        self.close(link, reason);
    }

    fn on_report_complete(&mut self, link: LinkId, server: ServerId) {
        let one = self
            .servers
            .table
            .get_mut(&server)
            .expect("it just reported");
        one.registered = true;
        self.registered_at = self.now.mono;
        let used_grace = one.leaving.take().is_some();
        let parts = std::mem::take(&mut one.incoming);
        let (count, address) = (parts.len(), one.address.clone());
        let unknown: Vec<ChunkId> = parts.iter().map(|report| report.part.chunk).collect();
        self.servers.replace_copies(server, parts);
        if used_grace {
            self.marks.reach(Mark::GraceUsed);
        }
        self.touch_all_of(server);
        self.log(
            Level::Info,
            format!("{server} at {address} registered with {count} copies"),
        );
        self.tell_heard(link, server);
        if self.reign.is_some() {
            self.log_labels();
            self.on_server_back(server);
        }
        self.judge_unknown(&unknown);
    }

    fn on_gained(&mut self, server: ServerId, parts: Vec<PartReport>) {
        for report in parts {
            let chunk = report.part.chunk;
            let mut copy = copy_of(server, &report);
            if self.servers.is_going(server, report.part) {
                // It may have failed to delete it, as when its disk is full.
                self.repair.put_aside(chunk, self.now.mono);
            }
            // The log may have told of a newer version before this came.
            if copy.part == 0 {
                let least = self.servers.least_version(server, chunk);
                copy.version = copy.version.max(least);
            }
            self.servers.set_copy(chunk, copy);
            self.judge_unknown(&[chunk]);
        }
    }

    /// A deleted chunk's copy went as it was told to; of any other one it is
    /// remembered, as the log may be behind.
    fn on_part_lost(&mut self, server: ServerId, part: PartId) {
        match self.member.state().chunk_is_lost_range(part.chunk) {
            ChunkOrigin::Deleted => self.servers.drop_copy(server, part),
            ChunkOrigin::Known | ChunkOrigin::Unknown => self.servers.lose_copy(server, part),
        }
    }

    /// Answers on the link of a server.
    fn tell_heard(&mut self, link: LinkId, server: ServerId) {
        let leader = self.reign.is_some();
        let known = self.servers.get(server);
        let known = known.filter(|one| one.link == Some(link));
        let heard = known.map_or(0, |one| one.alive_sent);
        let message = MasterToChunk::Heard {
            term: self.member.term(),
            leader,
            incarnation: self.life(),
            keys: if leader {
                self.keys.all().to_vec()
            } else {
                Vec::new()
            },
            heard,
        };
        self.send(link, Message::MasterToChunk(message));
    }

    /// Every chunkserver learns the leader's keys at once.
    pub(super) fn tell_keys(&mut self) {
        let servers = self.servers.table.iter();
        let linked = servers.filter_map(|(server, one)| Some((one.link?, *server)));
        let linked: Vec<(LinkId, ServerId)> = linked.collect();
        for (link, server) in linked {
            self.tell_heard(link, server);
        }
    }

    pub(super) fn on_server_gone(&mut self, link: LinkId, server: ServerId, reason: &str) {
        let Some(one) = self
            .servers
            .table
            .get_mut(&server)
            .filter(|one| one.link == Some(link))
        else {
            return;
        };
        one.link = None;
        one.incoming.clear();
        one.repairs = Load::default();
        let was_registered = std::mem::take(&mut one.registered);
        self.touch_all_of(server);
        if was_registered {
            self.log(Level::Warn, format!("{server} is gone: {reason}"));
        }
        if self.reign.is_some() {
            self.fail_commands(server, "its link broke");
            self.on_server_lost(server);
        }
    }

    /// Ends links of servers unheard, and the grace of those that left.
    pub(super) fn expire_servers(&mut self) {
        let now = self.now.mono;
        let silent = |one: &Server| one.link.filter(|_| now.since(one.heard) > SERVER_TIMEOUT);
        let silent: Vec<LinkId> = self.servers.table.values().filter_map(silent).collect();
        for link in silent {
            self.close(link, "unheard for too long");
        }
        let over = |one: &Server| {
            one.leaving
                .is_some_and(|until: Instant| !one.is_alive() && now >= until)
        };
        let over: Vec<ServerId> = self
            .servers
            .table
            .iter()
            .filter(|(_, one)| over(one))
            .map(|(id, _)| *id)
            .collect();
        for server in over {
            self.servers
                .table
                .get_mut(&server)
                .expect("it was just seen")
                .leaving = None;
            self.touch_all_of(server);
        }
    }
}
