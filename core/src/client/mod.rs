//! The client: what a mount asks, done with the masters and the chunkservers.
//!
//! Owns the routing of inputs; each noun has its file: `session` and `calls` speak
//! with the leader, `servers` with the chunkservers; `cache`, `lookup`, `change`,
//! `open`, `push` serve names and attributes; `read`, `fetch`, `ahead`, `locate`,
//! `seek` read; `file`, `extents`, `write`, `lease`, `goal`, `vouch`, `commit`,
//! `exclusive` write. Leaves translation from the kernel to `fuse/`.
//!
//! Invariant: every request of the mount is answered once; nothing that a cache
//! says is used after its lease; nothing written is forgotten before it is durable,
//! given back to the leader, or reported lost.

mod ahead;
mod answers;
mod cache;
mod calls;
mod change;
mod commit;
mod config;
mod exclusive;
mod extents;
mod fetch;
mod file;
mod goal;
mod lease;
mod locate;
mod lookup;
mod open;
mod parts;
mod push;
mod read;
pub mod request;
mod seek;
mod servers;
mod session;
mod shutdown;
mod then;
mod timers;
mod unsettled;
mod vouch;
mod write;

pub use config::{ClientConfig, Limits};

use crate::attributes::Credentials;
use crate::errno::Errno;
use crate::hash::Digest;
use crate::ids::{InodeId, LinkId, SessionId};
use crate::machine::{Effect, Input, Level, LinkAllocator, Machine, Peer};
use crate::marks::Marks;
use crate::namespace::record::{LeaseEnd, Mutation};
use crate::rng::Rng;
use crate::time::{Duration, Instant, Now};
use crate::version::FeatureLevel;
use crate::wire::Message;
use crate::wire::client_master::Query;
use request::{ClientAnswer, ClientRequest, FileReply, FileRequest, Handle};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use then::{Ending, OpenFlags, Then};
use timers::{Timer, Timers};
use write::Place;

/// A client has no storage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoOperation {}

/// The client's effects.
type ClientEffect = Effect<NoOperation, ClientAnswer>;

/// The client machine. See [`Machine`] for how it is driven; requests of the mount
/// are inputs ([`ClientRequest`]), answers are effects ([`ClientAnswer`]).
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    now: Now,
    rng: Rng,
    effects: VecDeque<ClientEffect>,
    links: LinkAllocator,
    timers: Timers,
    marks: Marks,
    session: session::Session,
    calls: calls::Calls,
    servers: servers::Servers,
    cache: cache::Cache,
    pushes: push::Pushes,
    files: BTreeMap<InodeId, file::File>,
    /// Files that nobody has open, with the error of lost writes that nobody was told of.
    untold: BTreeMap<InodeId, crate::errno::Errno>,
    handles: BTreeMap<Handle, open::OpenHandle>,
    next_handle: Handle,
    /// Inodes closed for good since the leader was last told.
    closed: BTreeSet<InodeId>,
    /// Creates that are not answered, with the newest inode known when each was asked.
    creating: BTreeMap<u64, InodeId>,
    newest_inode: InodeId,
    /// Leases on their way back that wait for company.
    releases: Vec<(LeaseEnd, Option<Ending>)>,
    unsettled: unsettled::Unsettled,
    /// The sums of all extents.
    totals: extents::Totals,
    /// Files with writes that were not sent when they were taken.
    dirty_files: BTreeSet<InodeId>,
    /// Chunks with something acknowledged and not synced.
    unsynced: BTreeSet<Place>,
    /// Writes that wait for room, and since when.
    blocked: VecDeque<(Instant, ClientRequest)>,
    /// Room was made already since the last write was taken.
    is_pressed: bool,
    next_goal: u64,
    reads: BTreeMap<u64, read::Read>,
    next_read: u64,
    fetches: BTreeMap<u64, fetch::Fetch>,
    next_fetch: u64,
    locating: BTreeMap<Place, Vec<locate::Waiter>>,
    seeks: BTreeMap<u64, seek::Seek>,
    next_seek: u64,
    /// Bytes read ahead, and which handles read ahead in the order of their use.
    ahead_bytes: u64,
    ahead_ticks: BTreeMap<u64, Handle>,
    ahead_tick: u64,
    shutdown: shutdown::Shutdown,
}

impl Client {
    /// A client that is not connected yet: it asks to be woken at once.
    ///
    /// # Panics
    /// When no master is named, or when the limits contradict each other.
    #[must_use]
    pub fn new(config: ClientConfig, seed: u64, now: Now) -> Self {
        config.limits.check();
        let session = session::Session::new(config.masters.clone());
        let mut timers = Timers::default();
        timers.set(Timer::Reconnect, now.mono);
        Self {
            config,
            now,
            rng: Rng::new(seed),
            effects: VecDeque::new(),
            links: LinkAllocator::default(),
            timers,
            marks: Marks::default(),
            session,
            calls: calls::Calls::default(),
            servers: servers::Servers::default(),
            cache: cache::Cache::default(),
            pushes: push::Pushes::default(),
            files: BTreeMap::new(),
            untold: BTreeMap::new(),
            handles: BTreeMap::new(),
            next_handle: 1,
            closed: BTreeSet::new(),
            creating: BTreeMap::new(),
            newest_inode: InodeId::ROOT,
            releases: Vec::new(),
            unsettled: unsettled::Unsettled::default(),
            totals: extents::Totals::default(),
            dirty_files: BTreeSet::new(),
            unsynced: BTreeSet::new(),
            blocked: VecDeque::new(),
            is_pressed: false,
            next_goal: 0,
            reads: BTreeMap::new(),
            next_read: 0,
            fetches: BTreeMap::new(),
            next_fetch: 0,
            locating: BTreeMap::new(),
            seeks: BTreeMap::new(),
            next_seek: 0,
            ahead_bytes: 0,
            ahead_ticks: BTreeMap::new(),
            ahead_tick: 0,
            shutdown: shutdown::Shutdown::default(),
        }
    }

    /// Whether everything that was written is part of its file, or was lost and told, and
    /// no sync is under way that may yet tell otherwise.
    #[must_use]
    pub fn is_written_out(&self) -> bool {
        let mut files = self.files.values();
        !files.any(|file| file.is_dirty() || file.is_syncing())
    }

    /// The session, while there is one.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        self.session.id()
    }

    /// What is not written out, for who looks into why: the file, and what is left of it.
    #[must_use]
    pub fn unwritten(&self) -> Vec<String> {
        let files = self.files.iter();
        let left = files.filter(|(_, file)| file.is_dirty() || file.is_syncing());
        left.map(|(inode, file)| format!("{inode}: {}", file.left()))
            .collect()
    }

    fn tell(&mut self, answer: ClientAnswer) {
        self.effects.push_back(Effect::Answer(answer));
    }

    fn answer(&mut self, operation: u64, result: Result<FileReply, Errno>) {
        self.tell(ClientAnswer::Done { operation, result });
    }

    fn log(&mut self, level: Level, text: String) {
        self.effects.push_back(Effect::Log { level, text });
    }

    /// The pause before the next of several tries: doubling, jittered, bounded.
    fn backoff(&mut self, attempts: u32) -> Duration {
        let limits = &self.config.limits;
        let whole = limits
            .backoff_min
            .saturating_mul(1 << attempts.clamp(1, 16).saturating_sub(1))
            .min(limits.backoff_max);
        let nanos = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(nanos / 2 + self.rng.below(nanos / 2 + 1))
    }

    fn on_connected(&mut self, link: LinkId, peer: &Peer) {
        if self.session.is_link(link) {
            self.on_master_connected(peer.speaks.min(self.config.speaks));
        } else if self.servers.is_link(link) {
            self.on_server_connected(link, peer.boot);
        }
    }

    fn on_closed(&mut self, link: LinkId, reason: &str) {
        if self.session.is_link(link) {
            self.drop_master(reason, false);
        } else if self.servers.is_link(link) {
            self.on_server_closed(link);
        }
    }

    fn on_message(&mut self, link: LinkId, message: Message) {
        match message {
            Message::MasterToClient(message) if self.session.is_link(link) => {
                self.on_master_message(message);
            }
            Message::ChunkReply(reply) if self.servers.is_link(link) => {
                self.on_server_reply(link, reply);
            }
            // A link that was closed meanwhile, or a peer that talks nonsense.
            _ => {}
        }
    }

    fn on_timeout(&mut self) {
        while let Some(timer) = self.timers.pop(self.now.mono) {
            self.on_timer(timer);
        }
    }

    fn on_timer(&mut self, timer: Timer) {
        match timer {
            Timer::Heartbeat => self.on_heartbeat_due(),
            Timer::Master => self.drop_master("it does not answer", true),
            Timer::Reconnect => self.on_reconnect_due(),
            Timer::Greet => self.greet(),
            Timer::Retry(call) => self.on_retry_due(call),
            Timer::GiveUp(call) => self.on_give_up_due(call),
            Timer::Server(link) => self.on_server_late(link),
            Timer::Chunk(inode, index) => self.on_chunk_due((inode, index)),
            Timer::Piece(inode, index, start) => self.transmit_piece((inode, index), start),
            Timer::WriteDelay(inode) => self.on_write_delay_due(inode),
            Timer::CommitDelay(inode) => self.on_commit_delay_due(inode),
            Timer::Idle(inode, index) => self.on_idle_due((inode, index)),
            Timer::Hedge(fetch) => self.on_hedge_due(fetch),
            Timer::Fetch(fetch) => self.start_fetch(fetch),
            Timer::Seek(seek) => self.on_seek_due(seek),
            Timer::Goal(inode, goal) => self.on_goal_due(inode, goal),
            Timer::Blocked => self.on_blocked_due(),
            Timer::Batch => self.flush_batch(),
            Timer::Push(push) => self.on_push_lapsed(push),
            Timer::Shutdown => self.on_shutdown_due(),
        }
    }

    /// A request of the mount.
    fn on_request(&mut self, request: ClientRequest) {
        match request.body {
            FileRequest::Invalidated { ticket } => self.on_invalidated(ticket),
            FileRequest::Shutdown => self.begin_shutdown(request.operation),
            _ if self.is_ending() => self.answer(request.operation, Err(Errno::EIO)),
            _ => self.perform(request, false),
        }
    }

    /// Does a request; `prepared` when what it needs done first has been done.
    fn perform(&mut self, request: ClientRequest, prepared: bool) {
        match request.body {
            FileRequest::Write { .. } => self.write(request),
            FileRequest::Read { .. } => self.read(request),
            FileRequest::GetAttributes { .. } => self.get_attributes(request, prepared),
            FileRequest::SetAttributes { .. } => self.set_attributes(request, prepared),
            FileRequest::Rename { .. } => self.rename(request, prepared),
            FileRequest::Seek { .. } => self.begin_seek(request, prepared),
            _ => self.perform_simple(request.operation, request.credentials, request.body),
        }
    }

    /// Requests that are one call, or that go on by themselves.
    fn perform_simple(&mut self, operation: u64, credentials: Credentials, body: FileRequest) {
        match body {
            FileRequest::Lookup { parent, name } => {
                self.lookup(operation, &credentials, parent, name);
            }
            FileRequest::Make {
                parent,
                name,
                kind,
                mode,
                device,
                target,
            } => {
                let what = (kind, mode, device);
                self.make(operation, &credentials, (parent, name), what, target);
            }
            FileRequest::Create {
                parent,
                name,
                mode,
                exclusive,
                truncate,
                read,
                write,
            } => {
                let flags = OpenFlags {
                    read,
                    write,
                    truncate,
                };
                let how = (mode, exclusive);
                self.create(operation, credentials, (parent, name), how, flags);
            }
            FileRequest::Open {
                inode,
                read,
                write,
                truncate,
            } => {
                let flags = OpenFlags {
                    read,
                    write,
                    truncate,
                };
                self.open(operation, credentials, inode, flags);
            }
            FileRequest::Unlink { parent, name } => {
                self.remove(operation, &credentials, (parent, name), false);
            }
            FileRequest::Rmdir { parent, name } => {
                self.remove(operation, &credentials, (parent, name), true);
            }
            FileRequest::Link {
                inode,
                parent,
                name,
            } => self.link(operation, &credentials, inode, (parent, name)),
            FileRequest::Flush { inode, handle } => self.flush(operation, inode, handle),
            FileRequest::Release { inode, handle } => self.release(operation, inode, handle),
            FileRequest::Fsync { inode, handle } => self.fsync(operation, inode, handle),
            FileRequest::Fallocate {
                inode,
                handle,
                mode,
                offset,
                length,
            } => {
                let (file, range) = ((inode, handle), (offset, length));
                self.fallocate(operation, credentials, file, mode, range);
            }
            other => self.forward(operation, &credentials, other),
        }
    }

    /// Requests that the leader answers as they are.
    fn forward(&mut self, operation: u64, credentials: &Credentials, body: FileRequest) {
        let bytes = Then::Bytes { operation };
        match body {
            FileRequest::ReadLink { inode } => {
                self.ask(credentials, Query::ReadLink { inode }, bytes);
            }
            FileRequest::GetXattr { inode, name } => {
                self.get_xattr(operation, credentials, (inode, name));
            }
            FileRequest::ListXattrs { inode } => {
                self.list_xattrs(operation, credentials, inode);
            }
            FileRequest::ReadDirectory {
                inode,
                cookie,
                most,
            } => {
                let query = Query::ReadDirectory {
                    inode,
                    cookie,
                    most,
                };
                self.ask(credentials, query, Then::Listed { operation, inode });
            }
            FileRequest::StatFs => {
                self.ask(credentials, Query::StatFs, Then::FileSystem { operation });
            }
            FileRequest::Ask(query) => self.ask(credentials, query, Then::Told { operation }),
            FileRequest::SetXattr {
                inode,
                name,
                value,
                mode,
            } => {
                let mutation = Mutation::SetXattr {
                    inode,
                    name,
                    value,
                    mode,
                };
                self.mutate(
                    credentials,
                    mutation,
                    Then::AttributeChanged { operation, inode },
                );
            }
            FileRequest::RemoveXattr { inode, name } => {
                let mutation = Mutation::RemoveXattr { inode, name };
                self.mutate(
                    credentials,
                    mutation,
                    Then::AttributeChanged { operation, inode },
                );
            }
            FileRequest::SetCopies { inode, copies } => {
                let mutation = Mutation::SetCopies { inode, copies };
                self.mutate(credentials, mutation, Then::Changed { operation, inode });
            }
            other => self.administer(operation, credentials, other),
        }
    }

    /// Requests of the operator's tools.
    fn administer(&mut self, operation: u64, credentials: &Credentials, body: FileRequest) {
        let told = Then::Told { operation };
        match body {
            FileRequest::SetClass { inode, class } => {
                let mutation = Mutation::SetClass { inode, class };
                let then = Then::AttributeChanged { operation, inode };
                self.mutate(credentials, mutation, then);
            }
            FileRequest::SetPatterns { inode, patterns } => {
                let mutation = Mutation::SetPatterns { inode, patterns };
                let then = Then::AttributeChanged { operation, inode };
                self.mutate(credentials, mutation, then);
            }
            FileRequest::ChangeClass(change) => {
                self.mutate(credentials, Mutation::ChangeClass(change), told);
            }
            FileRequest::SetLabel { server, key, value } => {
                self.mutate(credentials, Mutation::SetLabel { server, key, value }, told);
            }
            FileRequest::RaiseLevel { level } => {
                self.mutate(credentials, Mutation::RaiseLevel { level }, told);
            }
            FileRequest::ReadCopy { copy, range } => self.read_copy(operation, &copy, range),
            _ => unreachable!("every request is performed somewhere"),
        }
    }
}

impl Machine for Client {
    type Operation = NoOperation;
    type Completion = NoOperation;
    type Request = ClientRequest;
    type Answer = ClientAnswer;

    fn handle(&mut self, now: Now, input: Input<NoOperation, ClientRequest>) {
        debug_assert!(
            self.effects.is_empty(),
            "effects are drained between inputs"
        );
        self.now = now;
        match input {
            // Nobody connects to a client.
            Input::Accepted { .. } => {}
            Input::Connected { link, peer } => self.on_connected(link, &peer),
            Input::Closed { link, reason } => self.on_closed(link, &reason),
            Input::Message { link, message } => self.on_message(link, message),
            Input::Completed(never) => match never {},
            Input::Request(request) => self.on_request(request),
            Input::Timeout => self.on_timeout(),
        }
        self.refuse_unspoken();
        self.unblock_writes();
        self.drive_shutdown();
    }

    fn poll_effect(&mut self) -> Option<ClientEffect> {
        self.effects.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    fn speaks(&self) -> FeatureLevel {
        self.config.speaks
    }

    fn digest(&self, digest: &mut Digest) {
        let session = self.session.id().map_or(0, |id| id.0);
        digest.word(session).word(self.calls.last_mutation());
        let counts = [
            self.calls.count(),
            self.servers.under_way(),
            self.pushes.count(),
            self.reads.len(),
            self.fetches.len(),
            self.blocked.len(),
            self.timers.count(),
            self.files.len(),
        ];
        for count in counts.into_iter().chain(self.cache.sizes()) {
            digest.word(count as u64);
        }
        for (handle, inode) in self.open_handles() {
            digest.word(handle).word(inode.0);
        }
        let totals = self.totals;
        digest.word(totals.dirty).word(totals.sent);
        digest.word(totals.written).word(totals.syncing);
        digest.word(totals.synced);
        digest.word(self.ahead_bytes);
    }

    fn check_invariants(&self, whole: bool) {
        let limits = &self.config.limits;
        self.calls.check(limits.session_window);
        assert!(self.ahead_bytes <= limits.read_cache_bytes);
        assert!(self.shutdown.is_begun() || self.timers.next().is_some());
        if !whole {
            return;
        }
        let mut totals = extents::Totals::default();
        let mut handles = 0;
        for file in self.files.values() {
            handles += file.handles as usize;
            for chunk in file.chunks.values() {
                chunk.check();
                totals.replace(extents::Totals::default(), chunk.extents.totals());
            }
        }
        assert_eq!(
            totals, self.totals,
            "the mount's sums are those of its chunks"
        );
        assert_eq!(handles, self.handles.len(), "a handle has a file");
    }

    fn marks(&self) -> Marks {
        self.marks
    }
}
