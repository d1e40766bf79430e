//! The links to chunkservers and the requests under way on them. Leaves the
//! meaning of replies to who asked.
//!
//! Invariant: every request ends exactly once; when its link breaks or is too
//! slow it ends as `Unreachable`, and what it did is unknown. On a link to an earlier
//! life of the server than the one it is meant for it ends as `Busy`: nobody took it.

use super::Client;
use super::request::FileReply;
use super::timers::Timer;
use crate::ids::{Address, BootId, InodeId, LinkId, RequestId, ServerId};
use crate::machine::{Effect, Role};
use crate::time::Instant;
use crate::wire::Message;
use crate::wire::client_chunk::{
    ChunkError, ChunkErrorKind, ChunkReply, ChunkReplyBody, ChunkRequest, ChunkRequestBody,
};
use crate::wire::client_master::LocatedCopy;
use bytes::Bytes;
use std::collections::BTreeMap;

/// How a request to a chunkserver ended.
pub(super) type ChunkOutcome = Result<(ChunkReplyBody, Bytes), ChunkError>;

/// What follows a chunkserver's reply.
#[derive(Clone, Copy, Debug)]
pub(super) enum ChunkThen {
    /// A piece of a chunk, under a tenure.
    Piece {
        inode: InodeId,
        index: u32,
        start: u32,
        tenure: u64,
    },
    /// A sync of a chunk, under a tenure.
    Sync {
        inode: InodeId,
        index: u32,
        tenure: u64,
    },
    /// The lives of a chunk's copies, asked in a generation under a tenure.
    Vouch {
        inode: InodeId,
        index: u32,
        tenure: u64,
        sent: u64,
    },
    /// A read, from the copy with this place in the fetch's list.
    Fetch { fetch: u64, server: ServerId },
    /// A read of a part, by its number in the fetch.
    Part {
        fetch: u64,
        server: ServerId,
        number: u64,
    },
    /// The map of a chunk for a seek.
    Map { seek: u64, server: ServerId },
    /// A tool's request of one copy.
    Tool { operation: u64 },
}

#[derive(Debug)]
struct Asked {
    at: Instant,
    server: ServerId,
    /// The life that it is meant for.
    boot: BootId,
    then: ChunkThen,
}

#[derive(Debug, Default)]
struct Server {
    link: Option<LinkId>,
    is_up: bool,
    /// The life at the other end of the link, once it is up.
    boot: Option<BootId>,
    last: u64,
    asked: BTreeMap<u64, Asked>,
    /// Requests made before the link was up.
    unsent: Vec<ChunkRequest>,
    /// It failed lately: not preferred until then.
    doubtful_until: Instant,
}

/// All chunkservers that were ever used.
#[derive(Debug, Default)]
pub(super) struct Servers {
    servers: BTreeMap<Address, Server>,
    links: BTreeMap<LinkId, Address>,
}

impl Servers {
    pub(super) fn is_link(&self, link: LinkId) -> bool {
        self.links.contains_key(&link)
    }

    /// Requests under way.
    pub(super) fn under_way(&self) -> usize {
        self.servers.values().map(|server| server.asked.len()).sum()
    }

    /// It failed a moment ago: others first.
    pub(super) fn is_doubtful(&self, address: &Address, now: Instant) -> bool {
        self.servers
            .get(address)
            .is_some_and(|server| server.doubtful_until > now)
    }

    fn by_link(&mut self, link: LinkId) -> &mut Server {
        let address = self.links.get(&link).expect("the caller checked");
        self.servers.get_mut(address).expect("a link has a server")
    }
}

impl Client {
    /// Sends a request to the server of a copy, connecting first if need be.
    pub(super) fn ask_chunk(
        &mut self,
        copy: &LocatedCopy,
        chain: Vec<LocatedCopy>,
        body: ChunkRequestBody,
        data: Bytes,
        then: ChunkThen,
    ) {
        self.ask_counting(copy, chain, (body, 0), data, then);
    }

    /// The same, of a sync with its number under the lease.
    pub(super) fn ask_counting(
        &mut self,
        copy: &LocatedCopy,
        chain: Vec<LocatedCopy>,
        (body, syncs): (ChunkRequestBody, u32),
        data: Bytes,
        then: ChunkThen,
    ) {
        let link = self.server_link(&copy.address);
        let server = self.servers.by_link(link);
        server.last += 1;
        let request = ChunkRequest {
            request: RequestId(server.last),
            capability: copy.capability.clone(),
            chain,
            body,
            syncs,
            data,
        };
        let asked = Asked {
            at: self.now.mono,
            server: copy.server,
            boot: copy.boot,
            then,
        };
        server.asked.insert(server.last, asked);
        if server.is_up {
            let message = Message::ChunkRequest(request);
            self.effects.push_back(Effect::Send { link, message });
            let late = self.now.mono + self.config.limits.chunk_timeout;
            self.timers.set_once(Timer::Server(link), late);
        } else {
            server.unsent.push(request);
        }
    }

    /// Asks one copy for a tool.
    pub(super) fn read_copy(
        &mut self,
        operation: u64,
        copy: &LocatedCopy,
        range: Option<(u32, u32)>,
    ) {
        let body = match range {
            Some((offset, length)) => ChunkRequestBody::Read { offset, length },
            None => ChunkRequestBody::Map,
        };
        let then = ChunkThen::Tool { operation };
        self.ask_chunk(copy, Vec::new(), body, Bytes::new(), then);
    }

    fn server_link(&mut self, address: &Address) -> LinkId {
        let server = self.servers.servers.entry(address.clone()).or_default();
        if let Some(link) = server.link {
            return link;
        }
        let link = self.links.allocate();
        server.link = Some(link);
        server.is_up = false;
        self.servers.links.insert(link, address.clone());
        self.effects.push_back(Effect::Connect {
            link,
            address: address.clone(),
            role: Role::ChunkServer,
        });
        let late = self.now.mono + self.config.limits.master_timeout;
        self.timers.set(Timer::Server(link), late);
        link
    }

    pub(super) fn on_server_connected(&mut self, link: LinkId, boot: BootId) {
        let server = self.servers.by_link(link);
        server.is_up = true;
        server.boot = Some(boot);
        server.doubtful_until = Instant(0);
        for request in std::mem::take(&mut server.unsent) {
            self.send_unsent(link, request);
        }
        self.timers.cancel(Timer::Server(link));
        self.watch_server(link);
    }

    /// Sends a request that waited for its link, unless what told of the copy is past.
    fn send_unsent(&mut self, link: LinkId, request: ChunkRequest) {
        let asked = &mut self.servers.by_link(link).asked;
        let Some(Asked { server, then, .. }) = asked.get(&request.request.0) else {
            return;
        };
        let (server, then) = (*server, *then);
        if self.may_still_ask(then) {
            let message = Message::ChunkRequest(request);
            self.effects.push_back(Effect::Send { link, message });
            return;
        }
        self.servers.by_link(link).asked.remove(&request.request.0);
        let kind = ChunkErrorKind::Unreachable;
        self.on_chunk_outcome(then, Err(ChunkError { server, kind }));
    }

    fn may_still_ask(&self, then: ChunkThen) -> bool {
        match then {
            ChunkThen::Fetch { fetch, .. } | ChunkThen::Part { fetch, .. } => {
                self.may_ask_copies(fetch)
            }
            ChunkThen::Map { seek, .. } => self.may_ask_map(seek),
            // The capability names the epoch, and the servers refuse an older one.
            ChunkThen::Piece { .. } | ChunkThen::Sync { .. } | ChunkThen::Vouch { .. } => true,
            // It asks for what one copy has, whatever others have by now.
            ChunkThen::Tool { .. } => true,
        }
    }

    /// Wakes up when the oldest request on a link is late.
    fn watch_server(&mut self, link: LinkId) {
        let server = self.servers.by_link(link);
        match server.asked.values().next() {
            Some(asked) => {
                let late = asked.at + self.config.limits.chunk_timeout;
                self.timers.set(Timer::Server(link), late);
            }
            None => self.timers.cancel(Timer::Server(link)),
        }
    }

    pub(super) fn on_server_reply(&mut self, link: LinkId, reply: ChunkReply) {
        let server = self.servers.by_link(link);
        if let Some(asked) = server.asked.remove(&reply.request.0) {
            let outcome = reply.result.map(|body| (body, reply.data));
            self.on_chunk_outcome(asked.then, outcome);
        }
    }

    /// The link did not come up, or its oldest request is late: a request that was
    /// answered meanwhile only moves the watch.
    pub(super) fn on_server_late(&mut self, link: LinkId) {
        if !self.servers.is_link(link) {
            return;
        }
        let patience = self.config.limits.chunk_timeout;
        let now = self.now.mono;
        let server = self.servers.by_link(link);
        let late = |asked: &Asked| now.since(asked.at) >= patience;
        if server.is_up && !server.asked.values().next().is_some_and(late) {
            self.watch_server(link);
            return;
        }
        let reason = "it does not answer".to_owned();
        self.effects.push_back(Effect::Close { link, reason });
        self.on_server_closed(link);
    }

    /// The link is gone: every request on it ends.
    pub(super) fn on_server_closed(&mut self, link: LinkId) {
        let address = self
            .servers
            .links
            .remove(&link)
            .expect("the caller checked");
        self.timers.cancel(Timer::Server(link));
        let server = self
            .servers
            .servers
            .get_mut(&address)
            .expect("a link has a server");
        server.link = None;
        server.is_up = false;
        server.unsent.clear();
        server.doubtful_until = self.now.mono + self.config.limits.backoff_max;
        let linked = server.boot.take();
        for asked in std::mem::take(&mut server.asked).into_values() {
            let error = ChunkError {
                server: asked.server,
                kind: ChunkErrorKind::of_lost_link(linked, asked.boot),
            };
            self.on_chunk_outcome(asked.then, Err(error));
        }
    }

    fn on_chunk_outcome(&mut self, then: ChunkThen, outcome: ChunkOutcome) {
        match then {
            ChunkThen::Piece {
                inode,
                index,
                start,
                tenure,
            } => self.on_piece_outcome((inode, index), start, tenure, outcome),
            ChunkThen::Sync {
                inode,
                index,
                tenure,
            } => self.on_sync_outcome((inode, index), tenure, outcome),
            ChunkThen::Vouch {
                inode,
                index,
                tenure,
                sent,
            } => self.on_vouch_outcome((inode, index), (tenure, sent), outcome),
            ChunkThen::Fetch { fetch, server } => self.on_fetch_outcome(fetch, server, outcome),
            ChunkThen::Part {
                fetch,
                server,
                number,
            } => self.on_part_outcome(fetch, (server, number), outcome),
            ChunkThen::Map { seek, server } => self.on_map_outcome(seek, server, outcome),
            ChunkThen::Tool { operation } => self.answer(operation, Ok(FileReply::Copy(outcome))),
        }
    }
}
