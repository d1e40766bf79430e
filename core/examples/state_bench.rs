//! How fast the replicated state is and how much memory a file takes.
//!
//! `cargo run --release -p antler-core --example state_bench -- [FILES]` makes
//! FILES files (a million by default) of about 16 bytes of name in directories of
//! a thousand, looks them up in random order, renames and removes some, takes
//! clones while it goes on, and writes and reads an image. It prints rates per second of
//! one core, and bytes per file as the state counts them and as the process grew.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a benchmark reads the clock"
)]

use antler_core::attributes::{Credentials, FileKind, RenameMode};
use antler_core::ids::{BootId, InodeId, LogPosition, RequestId, ServerId, SessionId};
use antler_core::namespace::record::{
    Choice, ClientRecord, LeaseEnd, LeaseGrant, Mutation, Outcome, Record, RecordBody, Reply,
    WrittenExtent,
};
use antler_core::namespace::{State, StateLoader};
use antler_core::rng::Rng;
use antler_core::time::Timestamp;
use antler_core::version::FeatureLevel;
use std::time::{Duration, Instant};

/// A stop watch for time on the processor: a busy machine changes it little.
struct Watch(Duration);

impl Watch {
    fn start() -> Self {
        Self(on_processor())
    }

    fn elapsed(&self) -> Duration {
        on_processor().saturating_sub(self.0)
    }
}

/// For how long this thread has run (schedstat; Linux).
fn on_processor() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text
        .split_whitespace()
        .next()
        .and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

const PER_FOLDER: u64 = 1000;
const BATCH: u64 = 64;

struct Bench {
    state: State,
    session: SessionId,
    requests: u64,
    rng: Rng,
}

fn main() {
    let files = std::env::args()
        .nth(1)
        .map_or(1_000_000, |n| n.parse().expect("a number"));
    let before = resident();
    let mut bench = Bench::new();
    let folders = bench.folders(files);
    let (took, worst) = bench.create(&folders, files, None);
    report("create", files, took);
    println!(
        "{:>24}: {:.2} ms",
        "worst batch of 64",
        worst.as_secs_f64() * 1e3
    );
    let counted = bench.state.memory() as f64 / files as f64;
    let grew = (resident() - before) as f64 / files as f64;
    println!(
        "{:>24}: {counted:.0} counted, {grew:.0} resident",
        "bytes per file"
    );
    bench.lookup(&folders, files);
    bench.list(&folders);
    bench.rename(&folders, files);
    bench.clones(&folders, files);
    bench.image(files);
    bench.write(&folders, files);
    bench.unlink(&folders, files);
}

fn report(what: &str, count: u64, took: Duration) {
    let rate = count as f64 / took.as_secs_f64() / 1e3;
    println!("{what:>24}: {rate:.0} k/s ({:.2} s)", took.as_secs_f64());
}

/// Bytes of memory that the process has.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

fn name_of(file: u64) -> Vec<u8> {
    format!("document-{file:07}").into_bytes()
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            state: State::default(),
            session: SessionId(1),
            requests: 0,
            rng: Rng::new(1),
        };
        bench.record(RecordBody::Found {
            capability_secret: vec![1; 32],
            copies: 2,
            level: FeatureLevel::NEWEST,
        });
        bench.record(RecordBody::BeginSession {
            name: "bench".to_owned(),
            nonce: 1,
        });
        bench
    }

    fn record(&mut self, body: RecordBody) -> Option<Outcome> {
        let time = Timestamp {
            seconds: 1_700_000_000,
            nanos: 0,
        };
        let position = self.state.applied().next();
        self.state.apply(position, &Record { time, body }).outcome
    }

    fn run(&mut self, mutation: Mutation, copies: &[(ServerId, BootId)]) -> Reply {
        self.requests += 1;
        // Eight requests are under way, as of a busy client.
        let client = ClientRecord {
            session: self.session,
            request: RequestId(self.requests),
            oldest: RequestId(self.requests.saturating_sub(8).max(1)),
            credentials: Credentials::default(),
            mutation,
            choice: Choice {
                copies: copies.to_vec(),
                open_by: Vec::new(),
            },
        };
        let outcome = self.record(RecordBody::Client(client));
        outcome.expect("it is answered").expect("it succeeds")
    }

    fn make(&mut self, parent: InodeId, name: Vec<u8>, kind: FileKind) -> InodeId {
        let create = Mutation::Create {
            parent,
            name,
            kind,
            mode: 0o644,
            device: 0,
            target: Vec::new(),
            exclusive: true,
            write: false,
        };
        match self.run(create, &[]) {
            Reply::Created { attributes, .. } => attributes.inode,
            other => panic!("{other:?}"),
        }
    }

    fn folders(&mut self, files: u64) -> Vec<InodeId> {
        let make = |n: u64| {
            let name = format!("folder-{n}").into_bytes();
            self.make(InodeId::ROOT, name, FileKind::Directory)
        };
        (0..files.div_ceil(PER_FOLDER)).map(make).collect()
    }

    /// Takes a clone, as an image does, before every `clone_every`th batch.
    fn create(
        &mut self,
        folders: &[InodeId],
        files: u64,
        clone_every: Option<u64>,
    ) -> (Duration, Duration) {
        let (begin, mut worst) = (Watch::start(), Duration::ZERO);
        let mut clone = None;
        for batch in 0..files.div_ceil(BATCH) {
            let start = Instant::now();
            if clone_every.is_some_and(|every| batch % every == 0) {
                clone = Some(self.state.clone());
            }
            for file in batch * BATCH..((batch + 1) * BATCH).min(files) {
                let suffix = if clone_every.is_some() { "-again" } else { "" };
                let name = [name_of(file), suffix.into()].concat();
                self.make(
                    folders[(file / PER_FOLDER) as usize],
                    name,
                    FileKind::Regular,
                );
            }
            worst = worst.max(start.elapsed());
        }
        drop(clone);
        (begin.elapsed(), worst)
    }

    fn lookup(&mut self, folders: &[InodeId], files: u64) {
        let (begin, root) = (Watch::start(), Credentials::default());
        for _ in 0..files {
            let file = self.rng.below(files);
            let folder = folders[(file / PER_FOLDER) as usize];
            self.state
                .lookup(folder, &name_of(file), &root)
                .expect("it was made");
        }
        report("lookup, random", files, begin.elapsed());
    }

    fn list(&self, folders: &[InodeId]) {
        let (begin, mut entries) = (Watch::start(), 0);
        for folder in folders {
            let (mut cookie, mut end) = (0, false);
            while !end {
                let (page, last) = self
                    .state
                    .read_directory(*folder, cookie, 256)
                    .expect("made");
                entries += page.len() as u64;
                cookie = page.last().map_or(cookie, |entry| entry.cookie);
                end = last;
            }
        }
        report("entries listed", entries, begin.elapsed());
    }

    fn rename(&mut self, folders: &[InodeId], files: u64) {
        let (begin, count) = (Watch::start(), files / 10);
        for n in 0..count {
            let file = n * 10 + 5;
            let parent = folders[(file / PER_FOLDER) as usize];
            let there = self.rng.below(folders.len() as u64) as usize;
            let rename = |from: (InodeId, Vec<u8>), to: (InodeId, Vec<u8>)| Mutation::Rename {
                parent: from.0,
                name: from.1,
                new_parent: to.0,
                new_name: to.1,
                mode: RenameMode::Replace,
            };
            let moved = [b"moved-".to_vec(), name_of(file)].concat();
            self.run(
                rename((parent, name_of(file)), (folders[there], moved.clone())),
                &[],
            );
            self.run(
                rename((folders[there], moved), (parent, name_of(file))),
                &[],
            );
        }
        report("rename, random", count * 2, begin.elapsed());
    }

    fn clones(&mut self, folders: &[InodeId], files: u64) {
        let count = files / 10;
        let begin = Instant::now();
        let clone = self.state.clone();
        println!("{:>24}: {:?}", "clone", begin.elapsed());
        drop(clone);
        let (took, worst) = self.create(folders, count, Some(100));
        report("create beside clones", count, took);
        println!(
            "{:>24}: {:.2} ms",
            "worst batch of 64",
            worst.as_secs_f64() * 1e3
        );
    }

    fn image(&mut self, files: u64) {
        let begin = Watch::start();
        let sections: Vec<_> = (self.state.sections().into_iter())
            .map(|section| {
                let mut bytes = Vec::new();
                self.state.encode_section(section, &mut bytes);
                (section, bytes)
            })
            .collect();
        report("files into an image", files, begin.elapsed());
        let bytes: usize = sections.iter().map(|(_, bytes)| bytes.len()).sum();
        println!(
            "{:>24}: {} in {} sections",
            "bytes per file",
            bytes as u64 / files,
            sections.len()
        );
        let begin = Watch::start();
        let mut loader = StateLoader::new();
        for (section, bytes) in &sections {
            loader.add(StateLoader::decode_section(*section, bytes).expect("undamaged"));
        }
        let decoded = begin.elapsed();
        let state = loader.finish().expect("undamaged");
        report("files decoded", files, decoded);
        report("files loaded", files, begin.elapsed());
        assert_eq!(state.digest(), self.state.digest());
        println!(
            "{:>24}: {:.0}",
            "bytes per file then",
            state.memory() as f64 / files as f64
        );
    }

    /// Each file gets a chunk with 4 KiB: a lease, then a commit that ends it.
    fn write(&mut self, folders: &[InodeId], files: u64) {
        let copies = [(ServerId(1), BootId(1)), (ServerId(2), BootId(2))];
        let (begin, count) = (Watch::start(), files / 10);
        for file in 0..count {
            let folder = folders[(file / PER_FOLDER) as usize];
            let root = Credentials::default();
            let inode = self
                .state
                .lookup(folder, &name_of(file), &root)
                .expect("made")
                .inode;
            let lease = Mutation::Lease {
                inode,
                index: 0,
                failed: Vec::new(),
            };
            let Reply::Lease(grant) = self.run(lease, &copies) else {
                panic!("a lease is granted");
            };
            self.run(commit(inode, &grant), &[]);
        }
        report("lease and commit", count, begin.elapsed());
        println!("{:>24}: {} chunks", "counts", self.state.counts().chunks);
    }

    fn unlink(&mut self, folders: &[InodeId], files: u64) {
        let begin = Watch::start();
        for file in 0..files {
            let parent = folders[(file / PER_FOLDER) as usize];
            let name = name_of(file);
            self.run(Mutation::Unlink { parent, name }, &[]);
        }
        report("unlink", files, begin.elapsed());
        println!(
            "{:>24}: {}",
            "position",
            LogPosition(self.state.applied().0)
        );
    }
}

fn commit(inode: InodeId, grant: &LeaseGrant) -> Mutation {
    let extent = WrittenExtent {
        index: 0,
        chunk: grant.chunk,
        valid: 4096,
        fences: grant.epoch.fences(grant.version),
        synced: false,
    };
    let end = LeaseEnd {
        chunk: grant.chunk,
        epoch: grant.epoch,
        synced: true,
        syncs: 0,
    };
    Mutation::CommitWrite {
        inode,
        size: 4096,
        extents: vec![extent],
        release: vec![end],
        unchanged: false,
    }
}
