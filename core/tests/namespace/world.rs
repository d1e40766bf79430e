//! A small vocabulary for tests of the namespace: callers, and one call per
//! operation. Every record that is applied is checked against the invariants.

use antler_core::attributes::{
    AttributeChange, Attributes, Credentials, FallocateMode, FileKind, RenameMode, XattrMode,
};
use antler_core::errno::Errno;
use antler_core::ids::{
    BootId, ChunkId, Epoch, InodeId, LogPosition, RequestId, ServerId, SessionId,
};
use antler_core::namespace::record::{
    Choice, ClientRecord, LeaseEnd, LeaseGrant, Mutation, Outcome, Record, RecordBody, Reply,
    WrittenExtent,
};
use antler_core::namespace::{Applied, SectionId, State, StateLoader};
use antler_core::time::Timestamp;
use antler_core::version::FeatureLevel;

pub(crate) const ROOT: InodeId = InodeId::ROOT;

/// The superuser, alice (1000), bob (1001) who shares group 2000 with alice, and a
/// stranger.
pub(crate) fn root() -> Credentials {
    Credentials::default()
}

pub(crate) fn alice() -> Credentials {
    user(1000, &[2000])
}

pub(crate) fn bob() -> Credentials {
    user(1001, &[2000])
}

pub(crate) fn stranger() -> Credentials {
    user(4000, &[])
}

fn user(id: u32, groups: &[u32]) -> Credentials {
    Credentials {
        uid: id,
        gid: id,
        groups: groups.to_vec(),
    }
}

/// Servers 1..=n in their first life.
pub(crate) fn servers(count: u64) -> Vec<(ServerId, BootId)> {
    (1..=count)
        .map(|n| (ServerId(n), BootId(100 + n)))
        .collect()
}

/// A state and what is needed to drive it.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) session: SessionId,
    pub(crate) choice: Choice,
    pub(crate) seconds: i64,
    pub(crate) next_request: u64,
    /// Check the whole invariants after each record.
    pub(crate) checked: bool,
}

impl World {
    /// A founded cluster with one session.
    pub(crate) fn new() -> Self {
        Self::at(FeatureLevel::NEWEST)
    }

    /// The same, founded at a feature level.
    pub(crate) fn at(level: FeatureLevel) -> Self {
        let mut world = Self {
            state: State::default(),
            session: SessionId(0),
            choice: Choice::default(),
            seconds: 1000,
            next_request: 1,
            checked: true,
        };
        world.record(RecordBody::Found {
            capability_secret: b"secret".to_vec(),
            copies: 2,
            level,
        });
        world.session = world.begin("test", 7);
        world
    }

    pub(crate) fn begin(&mut self, name: &str, nonce: u64) -> SessionId {
        let name = name.to_owned();
        match self
            .record(RecordBody::BeginSession { name, nonce })
            .outcome
        {
            Some(Ok(Reply::Session(session))) => session,
            other => panic!("a session begins: {other:?}"),
        }
    }

    /// Applies a record one second after the last.
    pub(crate) fn record(&mut self, body: RecordBody) -> Applied {
        self.seconds += 1;
        let time = Timestamp {
            seconds: self.seconds,
            nanos: 5,
        };
        let position = LogPosition(self.state.applied().0 + 1);
        let applied = self.state.apply(position, &Record { time, body });
        self.state.check_invariants(self.checked);
        applied
    }

    pub(crate) fn apply(&mut self, who: &Credentials, mutation: Mutation) -> Applied {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        let record = ClientRecord {
            session: self.session,
            request,
            oldest: request,
            credentials: who.clone(),
            mutation,
            choice: self.choice.clone(),
        };
        self.record(RecordBody::Client(record))
    }

    pub(crate) fn run(&mut self, who: &Credentials, mutation: Mutation) -> Outcome {
        self.apply(who, mutation)
            .outcome
            .expect("a client record is answered")
    }

    /// Now, as the last record had it.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp {
            seconds: self.seconds,
            nanos: 5,
        }
    }

    pub(crate) fn make(
        &mut self,
        who: &Credentials,
        parent: InodeId,
        name: &str,
        kind: FileKind,
        mode: u32,
    ) -> Result<InodeId, Errno> {
        let target = match kind {
            FileKind::Symlink => b"target".to_vec(),
            _ => Vec::new(),
        };
        let create = Mutation::Create {
            parent,
            name: name.into(),
            kind,
            mode,
            device: 0,
            target,
            exclusive: true,
            write: false,
        };
        match self.run(who, create)? {
            Reply::Created { attributes, .. } => Ok(attributes.inode),
            other => panic!("a create is answered by what it made: {other:?}"),
        }
    }

    pub(crate) fn file(&mut self, parent: InodeId, name: &str) -> InodeId {
        self.make(&root(), parent, name, FileKind::Regular, 0o644)
            .expect("root makes files")
    }

    pub(crate) fn folder(&mut self, parent: InodeId, name: &str) -> InodeId {
        self.make(&root(), parent, name, FileKind::Directory, 0o755)
            .expect("root makes folders")
    }

    pub(crate) fn unlink(&mut self, who: &Credentials, parent: InodeId, name: &str) -> Outcome {
        let name = name.into();
        self.run(who, Mutation::Unlink { parent, name })
    }

    pub(crate) fn rmdir(&mut self, who: &Credentials, parent: InodeId, name: &str) -> Outcome {
        let name = name.into();
        self.run(who, Mutation::Rmdir { parent, name })
    }

    pub(crate) fn link(
        &mut self,
        who: &Credentials,
        inode: InodeId,
        parent: InodeId,
        name: &str,
    ) -> Outcome {
        let name = name.into();
        self.run(
            who,
            Mutation::Link {
                inode,
                parent,
                name,
            },
        )
    }

    pub(crate) fn rename(
        &mut self,
        who: &Credentials,
        (parent, name): (InodeId, &str),
        (new_parent, new_name): (InodeId, &str),
        mode: RenameMode,
    ) -> Outcome {
        let rename = Mutation::Rename {
            parent,
            name: name.into(),
            new_parent,
            new_name: new_name.into(),
            mode,
        };
        self.run(who, rename)
    }

    pub(crate) fn change(
        &mut self,
        who: &Credentials,
        inode: InodeId,
        change: AttributeChange,
    ) -> Result<Attributes, Errno> {
        match self.run(who, Mutation::SetAttributes { inode, change })? {
            Reply::Entry(attributes) => Ok(attributes),
            other => panic!("a change is answered by an entry: {other:?}"),
        }
    }

    pub(crate) fn chmod(
        &mut self,
        who: &Credentials,
        inode: InodeId,
        mode: u32,
    ) -> Result<Attributes, Errno> {
        let mode = Some(mode);
        self.change(
            who,
            inode,
            AttributeChange {
                mode,
                ..AttributeChange::default()
            },
        )
    }

    pub(crate) fn truncate(
        &mut self,
        who: &Credentials,
        inode: InodeId,
        size: u64,
    ) -> Result<Attributes, Errno> {
        let size = Some(size);
        self.change(
            who,
            inode,
            AttributeChange {
                size,
                ..AttributeChange::default()
            },
        )
    }

    pub(crate) fn fallocate(
        &mut self,
        inode: InodeId,
        mode: FallocateMode,
        offset: u64,
        length: u64,
    ) -> Outcome {
        self.run(
            &root(),
            Mutation::Fallocate {
                inode,
                mode,
                offset,
                length,
            },
        )
    }

    pub(crate) fn set_xattr(
        &mut self,
        who: &Credentials,
        inode: InodeId,
        name: &str,
        value: &str,
        mode: XattrMode,
    ) -> Outcome {
        let (name, value) = (name.into(), value.into());
        self.run(
            who,
            Mutation::SetXattr {
                inode,
                name,
                value,
                mode,
            },
        )
    }

    /// A lease on a chunk, with three servers offered.
    pub(crate) fn lease(&mut self, inode: InodeId, index: u32) -> Result<LeaseGrant, Errno> {
        self.lease_on(inode, index, servers(3))
    }

    pub(crate) fn lease_on(
        &mut self,
        inode: InodeId,
        index: u32,
        copies: Vec<(ServerId, BootId)>,
    ) -> Result<LeaseGrant, Errno> {
        self.choice.copies = copies;
        let outcome = self.run(
            &root(),
            Mutation::Lease {
                inode,
                index,
                failed: Vec::new(),
            },
        );
        self.choice.copies.clear();
        match outcome? {
            Reply::Lease(grant) => Ok(grant),
            other => panic!("a lease is answered by a grant: {other:?}"),
        }
    }

    /// Commits that a chunk holds content up to `valid`, and gives the lease back.
    pub(crate) fn commit(
        &mut self,
        inode: InodeId,
        grant: &LeaseGrant,
        valid: u32,
        synced: bool,
    ) -> Outcome {
        let size = u64::from(grant.index) * antler_core::limits::CHUNK_SIZE + u64::from(valid);
        let end = LeaseEnd {
            chunk: grant.chunk,
            epoch: grant.epoch,
            synced,
            syncs: 0,
        };
        let commit = Mutation::CommitWrite {
            inode,
            size,
            extents: vec![extent(grant, valid)],
            release: vec![end],
            unchanged: false,
        };
        self.run(&root(), commit)
    }

    pub(crate) fn release(&mut self, chunk: ChunkId, epoch: Epoch, synced: bool) -> Applied {
        let leases = vec![LeaseEnd {
            chunk,
            epoch,
            synced,
            syncs: 0,
        }];
        self.apply(&root(), Mutation::Release { leases })
    }

    /// Lets another session speak.
    pub(crate) fn as_session<R>(
        &mut self,
        session: SessionId,
        run: impl FnOnce(&mut Self) -> R,
    ) -> R {
        let own = std::mem::replace(&mut self.session, session);
        let result = run(self);
        self.session = own;
        result
    }
}

pub(crate) fn extent(grant: &LeaseGrant, valid: u32) -> WrittenExtent {
    WrittenExtent {
        index: grant.index,
        chunk: grant.chunk,
        valid,
        fences: grant.epoch.fences(grant.version),
        synced: false,
    }
}

/// The sections of a state's image.
pub(crate) fn image(state: &State) -> Vec<(SectionId, Vec<u8>)> {
    let encode = |section| {
        let mut bytes = Vec::new();
        state.encode_section(section, &mut bytes);
        (section, bytes)
    };
    state.sections().into_iter().map(encode).collect()
}

/// The state of an image.
pub(crate) fn load(
    sections: &[(SectionId, Vec<u8>)],
) -> Result<State, antler_core::namespace::DecodeError> {
    let mut loader = StateLoader::new();
    for (section, bytes) in sections {
        loader.add(StateLoader::decode_section(*section, bytes)?);
    }
    loader.finish()
}
