//! The masters as the client sees them: the real namespace behind a leader that
//! answers at once, recalls leases, pushes changes, and settles what was released
//! when it is told to. Test code: the log is a counter, nothing is replicated.

use crate::server::Server;
use antler_core::attributes::Credentials;
use antler_core::errno::Errno;
use antler_core::ids::{
    Address, BootId, ChunkId, ChunkVersion, Epoch, InodeId, LogPosition, PartId, RequestId,
    ServerId, SessionId, Term,
};
use antler_core::namespace::record::{
    Choice, ClientRecord, LeaseGrant, Mutation, Record, RecordBody, Reply,
};
use antler_core::namespace::{Applied, Change, LeaseState, Remembered, State};
use antler_core::time::Timestamp;
use antler_core::version::FeatureLevel;
use antler_core::wire::capability::{Capability, Grant, Right, derive_key};
use antler_core::wire::chunk_master::CapabilityKey;
use antler_core::wire::client_master::{
    Answer, AroundDirectory, ClientToMaster, FileSystem, LeasedChunk, LocatedChunk, LocatedCopy,
    MasterToClient, Query, Stale,
};
use std::collections::{BTreeMap, BTreeSet};

/// A client's end of a link to a master.
pub(crate) type Guest = (usize, antler_core::ids::LinkId);

/// A message to a guest.
pub(crate) type Said = (Guest, MasterToClient);

pub(crate) struct Master {
    pub(crate) state: State,
    /// Which of the masters leads.
    pub(crate) leader: usize,
    pub(crate) count: usize,
    /// Copies of a new chunk.
    pub(crate) copies: usize,
    pub(crate) keys: Vec<CapabilityKey>,
    guests: BTreeMap<Guest, SessionId>,
    pub(crate) opens: BTreeMap<SessionId, BTreeSet<InodeId>>,
    pushes: u64,
    /// Answers that wait for pushes.
    held: Vec<(BTreeSet<(Guest, u64)>, Said)>,
    /// Mutations executed, for counting.
    pub(crate) mutations: Vec<&'static str>,
    /// Chunks given back with something unsynced, until a sync.
    pub(crate) owed: BTreeSet<ChunkId>,
    pub(crate) bad_copies: Vec<ServerId>,
    /// Questions where chunks are, but for those that an open answers.
    pub(crate) located: usize,
    pub(crate) cache_lease_millis: u32,
    /// There is no server for a new chunk.
    pub(crate) is_full: bool,
    /// No server of any chunk has room for more of it.
    pub(crate) is_crowded: bool,
    /// Heartbeats are not answered.
    pub(crate) deaf: bool,
    clock: i64,
}

impl Master {
    pub(crate) fn new(count: usize) -> Self {
        let mut master = Self {
            state: State::default(),
            leader: 0,
            count,
            copies: 2,
            keys: vec![derive_key(b"secret", 1)],
            guests: BTreeMap::new(),
            opens: BTreeMap::new(),
            pushes: 0,
            held: Vec::new(),
            mutations: Vec::new(),
            owed: BTreeSet::new(),
            bad_copies: Vec::new(),
            located: 0,
            cache_lease_millis: 2000,
            is_full: false,
            is_crowded: false,
            deaf: false,
            clock: 0,
        };
        let body = RecordBody::Found {
            capability_secret: b"secret".to_vec(),
            copies: 2,
            level: FeatureLevel::NEWEST,
        };
        master.apply(body);
        master
    }

    pub(crate) fn apply(&mut self, body: RecordBody) -> Applied {
        self.clock += 1;
        let time = Timestamp {
            seconds: 1_700_000_000 + self.clock,
            nanos: 0,
        };
        let position = LogPosition(self.state.applied().0 + 1);
        self.state.apply(position, &Record { time, body })
    }

    /// A link to a master is gone.
    pub(crate) fn on_gone(&mut self, guest: Guest) -> Vec<Said> {
        self.guests.remove(&guest);
        for (waits, _) in &mut self.held {
            waits.retain(|(waited, _)| *waited != guest);
        }
        self.let_go()
    }

    fn let_go(&mut self) -> Vec<Said> {
        let (ready, held) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|(waits, _)| waits.is_empty());
        self.held = held;
        let ready: Vec<(BTreeSet<(Guest, u64)>, Said)> = ready;
        let said = ready.into_iter().map(|(_, said)| said);
        said.map(|(guest, said)| (guest, self.as_now(said)))
            .collect()
    }

    /// What an answer tells of directories is so when it leaves.
    fn as_now(&self, mut said: MasterToClient) -> MasterToClient {
        if let MasterToClient::Answer { around, .. } = &mut said {
            for told in around {
                let now = self.state.directory_now(told.attributes.inode);
                (told.attributes, told.empty) = now.unwrap_or((told.attributes, false));
            }
        }
        said
    }

    fn around(&self, names: Vec<InodeId>, result: &Result<Answer, Errno>) -> Vec<AroundDirectory> {
        let mut inodes = names;
        if let Ok(Answer::Created { attributes, .. }) = result {
            inodes.push(attributes.inode);
        }
        let told = inodes.into_iter().filter_map(|inode| {
            let (attributes, empty) = self.state.directory_now(inode)?;
            Some(AroundDirectory { attributes, empty })
        });
        told.collect()
    }

    /// Another master leads: soft state is gone.
    pub(crate) fn fail_over(&mut self, leader: usize) {
        self.leader = leader;
        self.guests.clear();
        self.opens.clear();
        self.held.clear();
    }

    pub(crate) fn on_message(
        &mut self,
        number: usize,
        guest: Guest,
        said: ClientToMaster,
        servers: &mut BTreeMap<ServerId, Server>,
    ) -> Vec<Said> {
        if number != self.leader {
            let leader = Some(Address(format!("master-{}", self.leader)));
            return vec![(guest, MasterToClient::NotLeader { leader })];
        }
        if let ClientToMaster::Hello {
            nonce,
            resume,
            mut opens,
            creating,
            ..
        } = said
        {
            opens.extend(self.created(resume, &creating));
            return self.on_hello(guest, nonce, resume, opens);
        }
        let Some(&session) = self.guests.get(&guest) else {
            return Vec::new();
        };
        match said {
            ClientToMaster::Mutate {
                request,
                oldest,
                credentials,
                mutation,
            } => self.on_mutate(
                guest,
                session,
                (request, oldest),
                credentials,
                mutation,
                servers,
            ),
            ClientToMaster::Ask {
                question,
                credentials,
                query,
            } => {
                let result = self.ask(session, &credentials, query, servers);
                vec![(guest, answer(false, question, result))]
            }
            ClientToMaster::Closed { inodes } => {
                self.on_closed(session, inodes);
                Vec::new()
            }
            ClientToMaster::Alive { echo } if !self.deaf => {
                vec![(guest, MasterToClient::AliveToo { echo })]
            }
            ClientToMaster::PushDone { push } => {
                for (waits, _) in &mut self.held {
                    waits.remove(&(guest, push));
                }
                self.let_go()
            }
            ClientToMaster::NotHeld { chunk, epoch } => {
                self.apply(RecordBody::Fence {
                    chunks: vec![(chunk, epoch)],
                });
                Vec::new()
            }
            ClientToMaster::Goodbye => {
                self.apply(RecordBody::EndSession { session });
                Vec::new()
            }
            ClientToMaster::Alive { .. } | ClientToMaster::Hello { .. } => Vec::new(),
        }
    }

    /// What creates of a session brought.
    fn created(&self, session: Option<SessionId>, creating: &[RequestId]) -> Vec<InodeId> {
        let made = |request: &RequestId| match self.state.remembered(session?, *request) {
            Remembered::Reply(Ok(Reply::Created { attributes, .. })) => Some(attributes.inode),
            _ => None,
        };
        creating.iter().filter_map(made).collect()
    }

    fn on_hello(
        &mut self,
        guest: Guest,
        nonce: u64,
        resume: Option<SessionId>,
        opens: Vec<InodeId>,
    ) -> Vec<Said> {
        let session = match resume {
            Some(session) if self.state.has_session(session) => session,
            Some(_) => return vec![(guest, MasterToClient::SessionEnded)],
            None => self.state.find_session(nonce).unwrap_or_else(|| {
                let name = "test".to_owned();
                let applied = self.apply(RecordBody::BeginSession { name, nonce });
                match applied.outcome {
                    Some(Ok(Reply::Session(session))) => session,
                    other => panic!("a session begins: {other:?}"),
                }
            }),
        };
        self.guests.insert(guest, session);
        self.opens.insert(session, opens.into_iter().collect());
        let masters = (0..self.count).map(|n| Address(format!("master-{n}")));
        let welcome = MasterToClient::Welcome {
            session,
            term: Term(1),
            cache_lease_millis: self.cache_lease_millis,
            masters: masters.collect(),
        };
        vec![(guest, welcome)]
    }

    fn on_closed(&mut self, session: SessionId, inodes: Vec<InodeId>) {
        let opens = self.opens.entry(session).or_default();
        for inode in &inodes {
            opens.remove(inode);
        }
        self.apply(RecordBody::CloseOrphans { session, inodes });
    }

    fn on_mutate(
        &mut self,
        guest: Guest,
        session: SessionId,
        (request, oldest): (RequestId, RequestId),
        credentials: Credentials,
        mutation: Mutation,
        servers: &mut BTreeMap<ServerId, Server>,
    ) -> Vec<Said> {
        match self.state.remembered(session, request) {
            Remembered::Reply(outcome) => {
                let result = outcome
                    .clone()
                    .map(|reply| self.dress(session, reply, servers));
                return vec![(guest, answer(true, request, result))];
            }
            Remembered::New => {}
            _ => return vec![(guest, answer(true, request, Err(Errno::EAGAIN)))],
        }
        let recalls = self.recalls(session, &mutation);
        if !recalls.is_empty() {
            let mut said = recalls;
            said.push((guest, answer(true, request, Err(Errno::EAGAIN))));
            return said;
        }
        if !self.may_rename(&mutation) {
            return vec![(guest, answer(true, request, Err(Errno::EAGAIN)))];
        }
        if self.is_crowded && matches!(mutation, Mutation::Lease { .. }) {
            return vec![(guest, answer(true, request, Err(Errno::ENOSPC)))];
        }
        let choice = self.choose(session, &mutation, servers);
        if let Some((chunk, epoch)) = self.doomed(&mutation, &choice) {
            self.fence(chunk, epoch);
            return vec![(guest, answer(true, request, Err(Errno::EAGAIN)))];
        }
        self.mutations.push(kind(&mutation));
        self.owed.extend(released(&mutation));
        let names = mutation.names().into_iter();
        let parents = names.map(|(parent, _)| parent).collect();
        let applied = self.apply(RecordBody::Client(ClientRecord {
            session,
            request,
            oldest,
            credentials,
            mutation,
            choice,
        }));
        let outcome = applied.outcome.expect("a client's record has an outcome");
        let result = outcome.map(|reply| self.dress(session, reply, servers));
        let around = self.around(parents, &result);
        let said = MasterToClient::Answer {
            mutation: true,
            id: request,
            result,
            around,
        };
        self.push(guest, &applied.changes, said)
    }

    /// Pushes changes to everybody else; the answer waits for them.
    fn push(&mut self, author: Guest, changes: &[Change], said: MasterToClient) -> Vec<Said> {
        let stale: Vec<Stale> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Inode(inode) => Some(Stale::Inode(*inode)),
                Change::Dentry { parent, name } => Some(Stale::Dentry {
                    parent: *parent,
                    name: name.clone(),
                }),
                _ => None,
            })
            .collect();
        let mut out = Vec::new();
        let mut waits = BTreeSet::new();
        for &guest in self.guests.keys() {
            if guest != author && !stale.is_empty() {
                self.pushes += 1;
                waits.insert((guest, self.pushes));
                let push = self.pushes;
                let stale = stale.clone();
                out.push((guest, MasterToClient::Push { push, stale }));
            }
        }
        self.held.push((waits, (author, said)));
        out.extend(self.let_go());
        out
    }

    /// Recalls of leases that other sessions hold and this mutation needs.
    fn recalls(&self, session: SessionId, mutation: &Mutation) -> Vec<Said> {
        let (inode, from) = match mutation {
            Mutation::Lease { inode, index, .. } => (*inode, *index),
            Mutation::SetAttributes { inode, change } if change.size.is_some() => (*inode, 0),
            Mutation::Fallocate { inode, .. } => (*inode, 0),
            _ => return Vec::new(),
        };
        let mut said = Vec::new();
        for (index, chunk, _) in self.state.chunks_of(inode).unwrap_or_default() {
            let one = self.state.chunk(chunk).expect("a file's chunk");
            let Some(holder) = one.lease.holder().filter(|&holder| holder != session) else {
                continue;
            };
            let wanted = match mutation {
                Mutation::Lease { .. } => index == from,
                _ => true,
            };
            let guest = self.guests.iter().find(|(_, id)| **id == holder);
            if let (true, Some((&guest, _))) = (wanted, guest) {
                let leases = vec![(inode, chunk, one.epoch)];
                said.push((guest, MasterToClient::Recall { leases }));
            }
        }
        said
    }

    /// A rename over a name waits until what was released is settled.
    fn may_rename(&self, mutation: &Mutation) -> bool {
        let Mutation::Rename {
            parent,
            name,
            new_parent,
            new_name,
            ..
        } = mutation
        else {
            return true;
        };
        if self.state.unlink_target(*new_parent, new_name).is_none() {
            return true;
        }
        let Some((source, _)) = self.state.unlink_target(*parent, name) else {
            return true;
        };
        let chunks = self.state.chunks_of(source).unwrap_or_default();
        chunks.iter().all(|(_, chunk, _)| {
            let lease = self.state.chunk(*chunk).expect("a file's chunk").lease;
            matches!(lease, LeaseState::Settled | LeaseState::Open { .. })
        })
    }

    fn choose(
        &self,
        _session: SessionId,
        mutation: &Mutation,
        servers: &BTreeMap<ServerId, Server>,
    ) -> Choice {
        let mut choice = Choice::default();
        let alive = |server: &&Server| !server.hangs && !self.is_full;
        let fresh = || servers.values().filter(alive).take(self.copies);
        match mutation {
            Mutation::Create { write: true, .. } => {
                choice.copies = fresh().map(|server| (server.id, server.boot)).collect();
            }
            Mutation::Lease {
                inode,
                index,
                failed,
            } => {
                let held = self.state.chunk_at(*inode, *index).ok().flatten();
                let mut copies: Vec<(ServerId, BootId)> = match held {
                    None => fresh().map(|server| (server.id, server.boot)).collect(),
                    Some((chunk, _)) => self.writable(chunk, servers),
                };
                let good = |copy: &(ServerId, BootId)| !failed.contains(copy);
                if copies.iter().any(good) {
                    copies.retain(good);
                }
                choice.copies = copies;
            }
            Mutation::Unlink { parent, name } => {
                self.note_openers(&mut choice, *parent, name);
            }
            Mutation::Rename {
                new_parent,
                new_name,
                ..
            } => self.note_openers(&mut choice, *new_parent, new_name),
            _ => {}
        }
        choice
    }

    /// A lease of which no copy is left that was written under it.
    fn doomed(&self, mutation: &Mutation, choice: &Choice) -> Option<(ChunkId, Epoch)> {
        let Mutation::Lease { inode, index, .. } = mutation else {
            return None;
        };
        let (chunk, _) = self.state.chunk_at(*inode, *index).ok()??;
        let one = self.state.chunk(chunk)?;
        let open = matches!(
            one.lease,
            LeaseState::Open { .. } | LeaseState::Closing { .. }
        );
        (open && choice.copies.is_empty()).then_some((chunk, one.epoch))
    }

    fn note_openers(&self, choice: &mut Choice, parent: InodeId, name: &[u8]) {
        if let Some((inode, _)) = self.state.unlink_target(parent, name) {
            for (&session, opens) in &self.opens {
                if opens.contains(&inode) {
                    choice.open_by.push((inode, session));
                }
            }
        }
    }

    fn writable(
        &self,
        chunk: ChunkId,
        servers: &BTreeMap<ServerId, Server>,
    ) -> Vec<(ServerId, BootId)> {
        let one = self.state.chunk(chunk).expect("the caller found it");
        match &one.lease {
            LeaseState::Settled => servers
                .values()
                .filter(|server| {
                    let part = server.parts.get(&chunk);
                    part.is_some_and(|part| part.live.version == one.version)
                })
                .map(|server| (server.id, server.boot))
                .collect(),
            LeaseState::Open { copies, .. } | LeaseState::Closing { copies, .. } => copies
                .iter()
                .copied()
                .filter(|(server, boot)| servers[server].boot == *boot)
                .collect(),
            _ => Vec::new(),
        }
    }

    fn dress(
        &mut self,
        session: SessionId,
        reply: Reply,
        servers: &BTreeMap<ServerId, Server>,
    ) -> Answer {
        match reply {
            Reply::Done | Reply::Session(_) => Answer::Done,
            Reply::Released { void } => Answer::Released { void },
            Reply::Entry(attributes) => Answer::Entry(attributes),
            Reply::Created {
                attributes,
                existed,
                lease,
            } => {
                self.opens
                    .entry(session)
                    .or_default()
                    .insert(attributes.inode);
                let lease = lease.map(|grant| Box::new(self.leased(&grant, servers)));
                Answer::Created {
                    attributes,
                    existed,
                    lease,
                }
            }
            Reply::Lease(grant) => Answer::Lease(Box::new(self.leased(&grant, servers))),
        }
    }

    fn leased(&self, grant: &LeaseGrant, servers: &BTreeMap<ServerId, Server>) -> LeasedChunk {
        let right = (grant.version, grant.epoch, Right::Write);
        let copies = grant
            .copies
            .iter()
            .map(|(server, _)| self.copy(&servers[server], grant.chunk, right));
        LeasedChunk {
            index: grant.index,
            chunk: grant.chunk,
            version: grant.version,
            epoch: grant.epoch,
            valid: grant.valid,
            copies: copies.collect(),
            lost: grant.lost,
            counts: grant.version.counts_syncs(),
        }
    }

    fn copy(
        &self,
        server: &Server,
        chunk: ChunkId,
        (version, epoch, right): (ChunkVersion, Epoch, Right),
    ) -> LocatedCopy {
        let grant = Grant {
            part: PartId::whole(chunk),
            version,
            epoch,
            right,
        };
        LocatedCopy {
            server: server.id,
            boot: server.boot,
            address: Address(format!("server-{}", server.id.0)),
            capability: Capability::mint(&self.keys[0], server.id, server.boot, grant),
        }
    }

    fn ask(
        &mut self,
        session: SessionId,
        who: &Credentials,
        query: Query,
        servers: &BTreeMap<ServerId, Server>,
    ) -> Result<Answer, Errno> {
        let state = &self.state;
        Ok(match query {
            Query::Lookup { parent, name } => Answer::Entry(state.lookup(parent, &name, who)?),
            Query::Attributes { inode } => Answer::Entry(state.attributes(inode)?),
            Query::ReadDirectory {
                inode,
                cookie,
                most,
            } => {
                let (entries, end) = state.read_directory(inode, cookie, most as usize)?;
                Answer::Entries { entries, end }
            }
            Query::ReadLink { inode } => Answer::Bytes(state.read_link(inode)?),
            Query::Xattr { inode, name } => Answer::Bytes(state.xattr(inode, &name, who)?),
            Query::Xattrs { inode } => Answer::Bytes(state.xattrs(inode)?),
            Query::StatFs => Answer::FileSystem(FileSystem::default()),
            Query::Open { inode, read, write } => {
                let attributes = state.check_open(inode, read, write, who)?;
                let first = Some(Box::new(self.locate(inode, 0, servers)?));
                self.opens.entry(session).or_default().insert(inode);
                Answer::Opened { attributes, first }
            }
            Query::Locate {
                inode,
                index,
                count,
            } => {
                self.located += 1;
                let located = (index..index + count).map(|at| self.locate(inode, at, servers));
                Answer::Located(located.collect::<Result<_, _>>()?)
            }
            Query::Path { path } => Answer::Entry(state.path(&path)?),
            Query::BadCopy { server, .. } => {
                self.bad_copies.push(server);
                Answer::Done
            }
            Query::Unsettled { chunks } => {
                let settled = |(chunk, version): &(_, _)| state.is_settled(*chunk, *version);
                let open = chunks.into_iter().filter(|one| !settled(one));
                Answer::Unsettled(open.map(|(chunk, _)| chunk).collect())
            }
            other => panic!("the tests do not ask {other:?}"),
        })
    }

    fn locate(
        &self,
        inode: InodeId,
        index: u32,
        servers: &BTreeMap<ServerId, Server>,
    ) -> Result<LocatedChunk, Errno> {
        let Some((chunk, valid)) = self.state.chunk_at(inode, index)? else {
            return Ok(LocatedChunk {
                index,
                chunk: None,
                valid: 0,
                copies: Vec::new(),
                stripe: None,
            });
        };
        let one = self.state.chunk(chunk).expect("a file's chunk");
        let (named, version) = match &one.lease {
            LeaseState::Settled => (self.writable(chunk, servers), one.version),
            LeaseState::Open { base, .. } | LeaseState::Closing { base, .. } => {
                (self.writable(chunk, servers), *base)
            }
            _ => (Vec::new(), one.version),
        };
        let right = (version, one.epoch, Right::Read);
        let copies = named
            .iter()
            .map(|(server, _)| self.copy(&servers[server], chunk, right));
        Ok(LocatedChunk {
            index,
            chunk: Some(chunk),
            valid,
            copies: copies.collect(),
            stripe: None,
        })
    }

    /// A server may lose what it has not synced: every chunk has two copies that live
    /// since they were last written, and nothing given back waits for its sync.
    pub(crate) fn is_at_rest(&self, servers: &BTreeMap<ServerId, Server>) -> bool {
        let lives = |copy: &&(ServerId, BootId)| servers[&copy.0].boot == copy.1;
        let is_safe = |chunk: ChunkId| {
            let one = self.state.chunk(chunk).expect("it is in the table");
            match one.lease {
                LeaseState::Settled => self.writable(chunk, servers).len() >= 2,
                LeaseState::Open { copies, .. } => copies.iter().filter(lives).count() >= 2,
                _ => false,
            }
        };
        let chunks = self.state.chunks_from(ChunkId(0), usize::MAX);
        let gone = |chunk: &ChunkId| self.state.chunk(*chunk).is_none();
        self.owed.iter().all(gone) && chunks.into_iter().all(is_safe)
    }

    /// Makes a second copy of what has one.
    fn repair(&self, chunk: ChunkId, servers: &mut BTreeMap<ServerId, Server>) {
        let current = self.writable(chunk, servers);
        let Some(&(source, _)) = current.first().filter(|_| current.len() < 2) else {
            return;
        };
        let part = servers[&source].parts[&chunk].clone();
        let holds = |id: &ServerId| current.iter().any(|(other, _)| other == id);
        let target = servers.keys().copied().find(|id| !holds(id));
        let target = target.expect("there are more servers than copies");
        let server = servers.get_mut(&target).expect("it was found");
        server.parts.insert(chunk, part);
        server.sync(chunk);
    }

    /// Nobody is heard any more.
    pub(crate) fn end_sessions(&mut self) {
        let sessions: Vec<SessionId> = self.state.sessions().map(|(id, _)| id).collect();
        for session in sessions {
            self.apply(RecordBody::EndSession { session });
        }
    }

    /// Brings every chunk that is not open to rest, as the leader's own work would.
    pub(crate) fn settle(&mut self, servers: &mut BTreeMap<ServerId, Server>) {
        for chunk in self.state.chunks_from(ChunkId(0), usize::MAX) {
            let one = self.state.chunk(chunk).expect("it has a lease");
            match one.lease {
                LeaseState::Open { .. } => {}
                LeaseState::Closing { copies, .. } => {
                    self.settle_closing(chunk, one.epoch, one.version, &copies, servers);
                }
                LeaseState::Broken { .. } => self.fence(chunk, one.epoch),
                LeaseState::Reconciling { base, copies, .. } => {
                    self.reconcile(chunk, (one.epoch, one.version, base), &copies, servers);
                }
                LeaseState::Settled => self.repair(chunk, servers),
            }
        }
    }

    /// Fences every open lease, as for servers that all restarted.
    pub(crate) fn fence_open(&mut self) {
        for chunk in self.state.chunks_from(ChunkId(0), usize::MAX) {
            let one = self.state.chunk(chunk).expect("it was listed");
            if matches!(one.lease, LeaseState::Open { .. }) {
                self.fence(chunk, one.epoch);
            }
        }
    }

    fn fence(&mut self, chunk: ChunkId, epoch: Epoch) {
        self.apply(RecordBody::Fence {
            chunks: vec![(chunk, epoch)],
        });
    }

    fn settle_closing(
        &mut self,
        chunk: ChunkId,
        epoch: Epoch,
        version: ChunkVersion,
        copies: &[(ServerId, BootId)],
        servers: &mut BTreeMap<ServerId, Server>,
    ) {
        for (id, boot) in copies {
            let server = servers.get_mut(id).expect("all servers are known");
            let Some(part) = server
                .parts
                .get_mut(&chunk)
                .filter(|_| server.boot == *boot)
            else {
                return self.fence(chunk, epoch);
            };
            assert!(part.live.epoch <= epoch, "nobody is newer than the table");
            part.live.version = version;
            part.live.epoch = epoch;
            server.sync(chunk);
        }
        let first = &servers[&copies[0].0].parts[&chunk].live.units;
        for (id, _) in copies {
            let units = &servers[id].parts[&chunk].live.units;
            assert_eq!(units, first, "the copies of a lease given back are equal");
        }
        let chunks = vec![(chunk, epoch)];
        self.owed.remove(&chunk);
        self.apply(RecordBody::Settled { chunks });
    }

    fn reconcile(
        &mut self,
        chunk: ChunkId,
        (epoch, version, base): (Epoch, ChunkVersion, ChunkVersion),
        copies: &[(ServerId, BootId)],
        servers: &mut BTreeMap<ServerId, Server>,
    ) {
        let rank = |(id, boot): &(ServerId, BootId)| {
            let part = servers[id].parts.get(&chunk)?;
            let able = part.live.version >= base;
            able.then_some((servers[id].boot == *boot, part.live.version, *id))
        };
        let best = copies.iter().filter_map(rank).max();
        let units = best.map_or_else(Default::default, |(_, _, id)| {
            servers[&id].parts[&chunk].live.units.clone()
        });
        let mut named = Vec::new();
        for (id, _) in copies {
            let server = servers.get_mut(id).expect("all servers are known");
            let part = server.parts.entry(chunk).or_default();
            part.live.units = units.clone();
            part.live.version = version;
            part.live.epoch = epoch;
            server.sync(chunk);
            named.push(*id);
        }
        self.owed.remove(&chunk);
        self.apply(RecordBody::Reconciled {
            chunk,
            epoch,
            servers: named,
            lossy: !best.is_some_and(|(kept, ..)| kept),
            boots: vec![],
        });
    }
}

fn answer(mutation: bool, id: RequestId, result: Result<Answer, Errno>) -> MasterToClient {
    MasterToClient::Answer {
        mutation,
        id,
        result,
        around: Vec::new(),
    }
}

/// Chunks whose leases end unsynced.
fn released(mutation: &Mutation) -> Vec<ChunkId> {
    let ends = match mutation {
        Mutation::CommitWrite { release, .. } => release,
        Mutation::Release { leases } => leases,
        _ => return Vec::new(),
    };
    let unsynced = ends.iter().filter(|end| !end.synced);
    unsynced.map(|end| end.chunk).collect()
}

fn kind(mutation: &Mutation) -> &'static str {
    match mutation {
        Mutation::Create { .. } => "create",
        Mutation::Link { .. } => "link",
        Mutation::Unlink { .. } => "unlink",
        Mutation::Rmdir { .. } => "rmdir",
        Mutation::Rename { .. } => "rename",
        Mutation::SetAttributes { .. } => "set-attributes",
        Mutation::CommitWrite { .. } => "commit",
        Mutation::Lease { .. } => "lease",
        Mutation::Release { .. } => "release",
        Mutation::Fallocate { .. } => "fallocate",
        _ => "other",
    }
}
