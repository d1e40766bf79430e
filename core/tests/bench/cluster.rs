//! A cluster of one master under test, whose chunkservers do what they are told at once.

use super::{Bench, commit_and_release, create, mutate};
use antler_core::attributes::Credentials;
use antler_core::errno::Errno;
use antler_core::ids::{
    BootId, ChunkId, ChunkVersion, DiskId, Epoch, InodeId, LinkId, PartId, RequestId, ServerId,
};
use antler_core::namespace::record::{ClassChange, Mutation};
use antler_core::placement::{Labels, StorageClass};
use antler_core::time::Duration;
use antler_core::wire::chunk_master::{
    ChunkToMaster, Command, CommandResult, PartReport, PartState,
};
use antler_core::wire::client_master::{
    Answer, ClientToMaster, FileInfo, LeasedChunk, MasterToClient, Query, Status,
};
use std::collections::BTreeMap;

pub(crate) fn dc(name: &str) -> Labels {
    vec![("dc".to_owned(), name.to_owned())]
}

/// A cluster whose servers do what they are told, at once.
pub(crate) struct Cluster {
    pub(crate) bench: Bench,
    pub(crate) client: LinkId,
    pub(crate) servers: BTreeMap<u64, LinkId>,
    pub(crate) request: u64,
    /// Every copy that a server was told to make.
    pub(crate) made: Vec<(u64, ChunkId)>,
    pub(crate) gone: Vec<(u64, ChunkId)>,
    /// What the client was answered late.
    pub(crate) told: Option<Result<Answer, Errno>>,
}

impl Cluster {
    /// Servers 1 and 2 in the west, 3 and 4 in the east.
    pub(crate) fn new() -> Self {
        let mut bench = Bench::new();
        let mut servers = BTreeMap::new();
        for (server, side) in [(1, "west"), (2, "west"), (3, "east"), (4, "east")] {
            servers.insert(server, bench.register(server, server, dc(side), vec![]));
        }
        // No more of them is waited for.
        bench.pass(Duration::from_secs(1));
        let (client, _) = bench.mount(1);
        Self {
            bench,
            client,
            servers,
            request: 0,
            made: Vec::new(),
            gone: Vec::new(),
            told: None,
        }
    }

    /// Asks for a change; what it is answered, if it is now.
    pub(crate) fn ask(&mut self, mutation: Mutation) -> Option<Result<Answer, Errno>> {
        self.request += 1;
        let told = self.bench.say(self.client, mutate(self.request, mutation));
        answer_in(told)
    }

    pub(crate) fn change(&mut self, mutation: Mutation) -> Answer {
        let told = self.ask(mutation).expect("it need not wait");
        told.expect("it may be done")
    }

    pub(crate) fn class(&mut self, name: &str, keep: &str) {
        let class = StorageClass {
            create: None,
            keep: keep.parse().expect("it is well written"),
            archive: None,
        };
        let name = name.to_owned();
        let change = match self.bench.master.state().find_class(&name) {
            Some(_) => ClassChange::Modify { name, class },
            None => ClassChange::Create { name, class },
        };
        self.change(Mutation::ChangeClass(change));
    }

    pub(crate) fn set_class(&mut self, inode: InodeId, class: &str) {
        let class = class.to_owned();
        self.change(Mutation::SetClass { inode, class });
    }

    pub(crate) fn label(&mut self, server: u64, side: Option<&str>) {
        let set = Mutation::SetLabel {
            server: ServerId(server),
            key: "dc".to_owned(),
            value: side.map(str::to_owned),
        };
        self.change(set);
    }

    pub(crate) fn create(&mut self, name: &str) -> (InodeId, LeasedChunk) {
        match self.change(create(name)) {
            Answer::Created {
                attributes,
                lease: Some(lease),
                ..
            } => (attributes.inode, *lease),
            other => panic!("no lease but {other:?}"),
        }
    }

    /// Writes a new file; the servers that its chunk was written to.
    pub(crate) fn write(&mut self, name: &str) -> (InodeId, ChunkId, Vec<u64>) {
        let (inode, lease) = self.create(name);
        self.commit(inode, &lease);
        let on = servers_of(&lease);
        (inode, lease.chunk, on)
    }

    pub(crate) fn commit(&mut self, inode: InodeId, lease: &LeasedChunk) {
        self.change(commit_and_release(inode, lease, true));
    }

    /// Lets seconds pass in which servers live and do what they are told.
    pub(crate) fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds * 2 {
            self.bench.pass(Duration::from_millis(500));
            for (server, link) in self.servers.clone() {
                self.obey(server, link);
            }
            let told = self
                .bench
                .say(self.client, ClientToMaster::Alive { echo: 1 });
            self.told = answer_in(told).or_else(|| self.told.take());
        }
    }

    pub(crate) fn obey(&mut self, server: u64, link: LinkId) {
        let alive = ChunkToMaster::Alive {
            disks: self.disks(server),
            load: 0,
            sent: 1,
        };
        self.bench.tell(link, alive);
        for (command, body) in self.bench.commands(link) {
            let parts = match body {
                Command::Replicate {
                    part,
                    version,
                    epoch,
                    ..
                } => self.make(server, link, part, (version, epoch)),
                Command::Delete { parts } => {
                    let chunks = parts.iter().map(|(part, _)| (server, part.chunk));
                    self.gone.extend(chunks);
                    vec![None; parts.len()]
                }
                other => panic!("nothing else is expected: {other:?}"),
            };
            let result = CommandResult::Parts(parts);
            self.bench
                .tell(link, ChunkToMaster::CommandDone { command, result });
        }
    }

    pub(crate) fn make(
        &mut self,
        server: u64,
        link: LinkId,
        part: PartId,
        (version, epoch): (ChunkVersion, Epoch),
    ) -> Vec<Option<PartState>> {
        self.made.push((server, part.chunk));
        let report = PartReport {
            part,
            version,
            epoch,
            disk: DiskId(0),
            bad: false,
            suspect: false,
        };
        let parts = vec![report];
        self.bench.tell(link, ChunkToMaster::Gained { parts });
        vec![Some(PartState {
            version,
            epoch,
            digest: 0,
            boot: BootId(server),
        })]
    }

    pub(crate) fn disks(
        &mut self,
        server: u64,
    ) -> Vec<antler_core::wire::client_master::DiskStatus> {
        let status = self.status();
        let servers = status.servers.into_iter();
        let mut own = servers.filter(|one| one.server == ServerId(server));
        own.next().map(|one| one.disks).unwrap_or_default()
    }

    pub(crate) fn status(&mut self) -> Status {
        let ask = ClientToMaster::Ask {
            question: RequestId(1),
            credentials: Credentials::default(),
            query: Query::Status,
        };
        let mut status = None;
        for said in self.bench.say(self.client, ask) {
            match said {
                MasterToClient::Answer {
                    result: Ok(Answer::Status(told)),
                    ..
                } => status = Some(*told),
                // A change that was held may be answered at the same time.
                MasterToClient::Answer { result, .. } => self.told = Some(result),
                _ => {}
            }
        }
        status.expect("a status is told at once")
    }

    /// What is told of a file's chunks when they are explained.
    pub(crate) fn explain(&mut self, inode: InodeId) -> FileInfo {
        self.info(inode, Some(0))
    }

    pub(crate) fn info(&mut self, inode: InodeId, explain: Option<u32>) -> FileInfo {
        let ask = ClientToMaster::Ask {
            question: RequestId(1),
            credentials: Credentials::default(),
            query: Query::Info { inode, explain },
        };
        match answer_in(self.bench.say(self.client, ask)) {
            Some(Ok(Answer::Info(info))) => *info,
            other => panic!("no info but {other:?}"),
        }
    }

    pub(crate) fn unmet(&mut self) -> Vec<String> {
        let classes = self.status().classes.into_iter();
        classes.flat_map(|class| class.unmet).collect()
    }

    pub(crate) fn lose(&mut self, server: u64) {
        let link = self.servers.remove(&server).expect("it is there");
        let reason = "its plug was pulled".to_owned();
        let closed = antler_core::machine::Input::Closed { link, reason };
        self.bench.input(closed);
    }
}

pub(crate) fn answer_in(told: Vec<MasterToClient>) -> Option<Result<Answer, Errno>> {
    told.into_iter().find_map(|said| match said {
        MasterToClient::Answer { result, .. } => Some(result),
        _ => None,
    })
}

pub(crate) fn servers_of(lease: &LeasedChunk) -> Vec<u64> {
    let mut on: Vec<u64> = lease.copies.iter().map(|copy| copy.server.0).collect();
    on.sort_unstable();
    on
}
