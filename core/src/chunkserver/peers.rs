//! Links to other chunkservers: for the next of a chain, and for reading what a
//! replication copies. Opened on demand, shared, closed when idle.
//!
//! Invariant: every request has one end: a reply, the loss of its link, or time. On a
//! link to an earlier life than the one it is meant for it ends as `Busy`.

use super::ChunkServer;
use super::replicate::Asked;
use crate::ids::{Address, BootId, LinkId, RequestId, ServerId};
use crate::limits::CHAIN_TIMEOUT;
use crate::machine::{Peer, Role};
use crate::time::{Duration, Instant};
use crate::wire::Message;
use crate::wire::client_chunk::{
    ChunkError, ChunkErrorKind, ChunkReply, ChunkReplyBody, ChunkRequest, ChunkRequestBody,
};
use crate::wire::client_master::LocatedCopy;
use bytes::Bytes;
use std::collections::BTreeMap;

/// After so long without a request a link is closed.
const IDLE: Duration = Duration::from_secs(60);

/// Whom a reply concerns.
#[derive(Clone, Copy, Debug)]
enum Asker {
    /// A job whose chain goes on there.
    Job(u64),
    /// A replication.
    Replication(u64, Asked),
}

#[derive(Debug)]
struct Waiting {
    asker: Asker,
    server: ServerId,
    /// The life that it is meant for.
    boot: BootId,
    since: Instant,
}

/// A link to another chunkserver.
#[derive(Debug)]
struct PeerLink {
    address: Address,
    /// Not up yet: requests wait.
    queued: Option<Vec<ChunkRequest>>,
    /// The life at the other end, once it is up.
    boot: Option<BootId>,
    next: RequestId,
    waiting: BTreeMap<RequestId, Waiting>,
    used: Instant,
}

/// The links to other chunkservers.
#[derive(Debug, Default)]
pub(super) struct Peers {
    links: BTreeMap<LinkId, PeerLink>,
    by_address: BTreeMap<Address, LinkId>,
}

impl ChunkServer {
    /// Passes a request of a chain on to the next server.
    pub(super) fn forward(&mut self, job: u64, request: &ChunkRequest) {
        let (next, rest) = request.chain.split_first().expect("the chain goes on");
        let body = (request.body.clone(), request.syncs);
        self.ask(
            next,
            Asker::Job(job),
            rest.to_vec(),
            body,
            request.data.clone(),
        );
    }

    /// Asks a source of a replication.
    pub(super) fn ask_source(
        &mut self,
        source: &LocatedCopy,
        key: u64,
        asked: Asked,
        body: ChunkRequestBody,
    ) {
        let asker = Asker::Replication(key, asked);
        self.ask(source, asker, Vec::new(), (body, 0), Bytes::new());
    }

    fn ask(
        &mut self,
        copy: &LocatedCopy,
        asker: Asker,
        chain: Vec<LocatedCopy>,
        (body, syncs): (ChunkRequestBody, u32),
        data: Bytes,
    ) {
        let link = self.peer_link(&copy.address);
        let now = self.now;
        let peer = self.peers.links.get_mut(&link).expect("it was just made");
        peer.used = now;
        peer.next = peer.next.next();
        let request = ChunkRequest {
            request: peer.next,
            capability: copy.capability.clone(),
            chain,
            body,
            syncs,
            data,
        };
        let waiting = Waiting {
            asker,
            server: copy.server,
            boot: copy.boot,
            since: now,
        };
        peer.waiting.insert(peer.next, waiting);
        match &mut peer.queued {
            Some(queued) => queued.push(request),
            None => self.send(link, Message::ChunkRequest(request)),
        }
    }

    fn peer_link(&mut self, address: &Address) -> LinkId {
        if let Some(link) = self.peers.by_address.get(address) {
            return *link;
        }
        let link = self.connect(address.clone(), Role::ChunkServer);
        self.peers.by_address.insert(address.clone(), link);
        let peer = PeerLink {
            address: address.clone(),
            queued: Some(Vec::new()),
            boot: None,
            next: RequestId(0),
            waiting: BTreeMap::new(),
            used: self.now,
        };
        self.peers.links.insert(link, peer);
        link
    }

    pub(super) fn on_peer_up(&mut self, link: LinkId, peer: &Peer) {
        let boot = peer.boot;
        let Some(peer) = self.peers.links.get_mut(&link) else {
            // It was given up before it came up.
            return;
        };
        peer.boot = Some(boot);
        for request in peer.queued.take().unwrap_or_default() {
            self.send(link, Message::ChunkRequest(request));
        }
    }

    pub(super) fn on_peer_down(&mut self, link: LinkId, _reason: &str) {
        let Some(peer) = self.peers.links.remove(&link) else {
            return;
        };
        self.peers.by_address.remove(&peer.address);
        for waiting in peer.waiting.into_values() {
            let server = waiting.server;
            let kind = ChunkErrorKind::of_lost_link(peer.boot, waiting.boot);
            self.on_peer_result(
                waiting.asker,
                Err(ChunkError { server, kind }),
                Bytes::new(),
            );
        }
    }

    pub(super) fn on_reply(&mut self, link: LinkId, reply: ChunkReply) {
        let Some(peer) = self.peers.links.get_mut(&link) else {
            return;
        };
        if let Some(waiting) = peer.waiting.remove(&reply.request) {
            self.on_peer_result(waiting.asker, reply.result, reply.data);
        }
    }

    fn on_peer_result(
        &mut self,
        asker: Asker,
        result: Result<ChunkReplyBody, ChunkError>,
        data: Bytes,
    ) {
        match asker {
            Asker::Job(key) => self.on_behind(key, done(result, self.config.server)),
            Asker::Replication(key, asked) => self.on_source(key, asked, result, data),
        }
    }

    /// Closes links that nobody needs and links on which nobody answers.
    pub(super) fn tick_peers(&mut self) {
        let now = self.now;
        let late = |peer: &PeerLink| {
            let oldest = peer.waiting.first_key_value();
            oldest.is_some_and(|(_, waiting)| now.since(waiting.since) > CHAIN_TIMEOUT)
        };
        let idle = |peer: &PeerLink| peer.waiting.is_empty() && now.since(peer.used) > IDLE;
        let over = self
            .peers
            .links
            .iter()
            .filter_map(|(&link, peer)| match () {
                () if late(peer) => Some((link, "it does not answer")),
                () if idle(peer) => Some((link, "idle")),
                () => None,
            });
        for (link, reason) in over.collect::<Vec<_>>() {
            self.close(link, reason);
            self.on_peer_down(link, reason);
        }
    }
}

/// The lives behind, from the reply of the next server.
fn done(
    result: Result<ChunkReplyBody, ChunkError>,
    own: ServerId,
) -> Result<Vec<BootId>, ChunkError> {
    match result? {
        ChunkReplyBody::Done { boots } => Ok(boots),
        ChunkReplyBody::Read { .. } | ChunkReplyBody::Map { .. } => Err(ChunkError {
            server: own,
            kind: ChunkErrorKind::Invalid,
        }),
    }
}
