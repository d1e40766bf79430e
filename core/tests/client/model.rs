//! Random writes, truncations, punches and reads through one client against a
//! plain vector of bytes, while links break, servers lose power and masters change.

use crate::world::{World, opened, read_request, write_request};
use antler_core::attributes::{AttributeChange, FallocateMode};
use antler_core::client::ClientConfig;
use antler_core::client::request::{FileReply, FileRequest, Handle};
use antler_core::ids::{InodeId, ServerId};
use antler_core::limits::CHUNK_SIZE;
use antler_core::rng::Rng;
use antler_core::time::Duration;
use std::collections::BTreeMap;

/// Where the interesting offsets of a file are: its start, and around a chunk border.
const BASES: [u64; 3] = [0, CHUNK_SIZE - 20_000, CHUNK_SIZE + 4096];

/// A file's bytes, sparse.
#[derive(Clone, Default)]
struct Model {
    size: u64,
    bytes: BTreeMap<u64, u8>,
}

impl Model {
    fn write(&mut self, offset: u64, data: &[u8]) {
        for (at, byte) in data.iter().enumerate() {
            self.bytes.insert(offset + at as u64, *byte);
        }
        self.size = self.size.max(offset + data.len() as u64);
    }

    fn zero(&mut self, from: u64, to: u64) {
        let gone: Vec<u64> = self.bytes.range(from..to).map(|(&at, _)| at).collect();
        for at in gone {
            self.bytes.remove(&at);
        }
    }

    fn truncate(&mut self, size: u64) {
        self.zero(size, u64::MAX);
        self.size = size;
    }

    fn read(&self, offset: u64, length: u64) -> Vec<u8> {
        let end = (offset + length).min(self.size).max(offset);
        (offset..end)
            .map(|at| self.bytes.get(&at).copied().unwrap_or(0))
            .collect()
    }
}

struct File {
    inode: InodeId,
    handle: Handle,
    model: Model,
    /// What is asked now, and what is checked or done when it is answered.
    asked: Option<(u64, Asked)>,
    steps: u64,
}

enum Asked {
    Done(String),
    Read(u64, Vec<u8>),
    Stat,
    Close,
    Reopen,
}

struct Run {
    world: World,
    mount: usize,
    files: Vec<File>,
    rng: Rng,
    seed: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut world = World::new(rng.word(), 3, 3);
        world.delay = (10, 10 + rng.below(3000));
        if rng.one_in(2) {
            world.busy_in = Some(rng.between(3, 50));
        }
        let config = small_bounds(&world, &mut rng);
        let mount = world.mount(config);
        world.run_until(|world| world.mounts[mount].is_ready);
        let files = (0..rng.between(1, 3))
            .map(|number| {
                let (inode, handle) = world.create(mount, &format!("f{number}"));
                File {
                    inode,
                    handle,
                    model: Model::default(),
                    asked: None,
                    steps: 0,
                }
            })
            .collect();
        Self {
            world,
            mount,
            files,
            rng,
            seed,
        }
    }

    /// Issues a random request on a file that has none.
    fn issue(&mut self, number: usize) {
        let rng = &mut self.rng;
        let file = &mut self.files[number];
        file.steps += 1;
        let here = (file.inode, file.handle);
        let base = BASES[rng.below(BASES.len() as u64) as usize];
        let offset = base + rng.below(50_000);
        let (body, asked) = match rng.below(20) {
            0..=7 => {
                let length = draw_length(rng);
                let data: Vec<u8> = (0..length).map(|_| rng.below(255) as u8 + 1).collect();
                file.model.write(offset, &data);
                let asked = Asked::Done(format!("write {offset} {length}"));
                (write_request(here, offset, &data), asked)
            }
            8..=13 => {
                let length = rng.between(1, 70_000);
                let expected = file.model.read(offset, length);
                let asked = Asked::Read(offset, expected);
                (read_request(here, offset, length as u32), asked)
            }
            14 => {
                let size = offset;
                file.model.truncate(size);
                let change = AttributeChange {
                    size: Some(size),
                    by_handle: true,
                    ..AttributeChange::default()
                };
                let inode = file.inode;
                (FileRequest::SetAttributes { inode, change }, Asked::Stat)
            }
            15 => {
                let length = draw_length(rng).max(1);
                let mode = [
                    FallocateMode::Punch,
                    FallocateMode::Zero,
                    FallocateMode::ZeroKeep,
                    FallocateMode::Extend,
                ][rng.below(4) as usize];
                if mode != FallocateMode::Extend {
                    file.model.zero(offset, offset + length);
                }
                if matches!(mode, FallocateMode::Zero | FallocateMode::Extend) {
                    file.model.size = file.model.size.max(offset + length);
                }
                let body = FileRequest::Fallocate {
                    inode: file.inode,
                    handle: file.handle,
                    mode,
                    offset,
                    length,
                };
                (body, Asked::Done(format!("{mode:?} {offset} {length}")))
            }
            16 => {
                let inode = file.inode;
                (FileRequest::GetAttributes { inode }, Asked::Stat)
            }
            17 | 18 => {
                let (inode, handle) = here;
                let body = FileRequest::Fsync { inode, handle };
                (body, Asked::Done("fsync".to_owned()))
            }
            _ => {
                let (inode, handle) = here;
                (FileRequest::Flush { inode, handle }, Asked::Close)
            }
        };
        let operation = self.world.request(self.mount, body);
        self.files[number].asked = Some((operation, asked));
    }

    /// Takes the answer of a file's request, if it has come.
    fn collect(&mut self, number: usize) {
        let file = &mut self.files[number];
        let Some((operation, _)) = &file.asked else {
            return;
        };
        let answers = &mut self.world.mounts[self.mount].answers;
        let Some(result) = answers.remove(operation) else {
            return;
        };
        let (_, asked) = file.asked.take().expect("it was there");
        let seed = self.seed;
        match (asked, result) {
            (Asked::Done(_), Ok(FileReply::Done | FileReply::Written(_))) => {}
            (Asked::Read(offset, expected), Ok(FileReply::Bytes(data))) => {
                compare(seed, offset, &data, &expected);
            }
            (Asked::Stat, Ok(FileReply::Attributes(attributes, _))) => {
                assert_eq!(attributes.size, file.model.size, "seed {seed}");
            }
            (Asked::Close, Ok(FileReply::Done)) => {
                let (inode, handle) = (file.inode, file.handle);
                self.world
                    .request(self.mount, FileRequest::Release { inode, handle });
                let body = FileRequest::Open {
                    inode,
                    read: true,
                    write: true,
                    truncate: false,
                };
                let operation = self.world.request(self.mount, body);
                self.files[number].asked = Some((operation, Asked::Reopen));
            }
            (Asked::Reopen, reply) => file.handle = opened(reply).1,
            (Asked::Done(what), reply) => panic!("seed {seed}: {what}: {reply:?}"),
            (_, reply) => panic!("seed {seed}: {reply:?}"),
        }
    }

    /// Something goes wrong that the client must hide.
    fn disturb(&mut self) {
        match self.rng.below(10) {
            0..=4 => {
                let links = self.world.links_to(|_| true);
                if !links.is_empty() {
                    let link = links[self.rng.below(links.len() as u64) as usize];
                    self.world.break_link(link);
                }
            }
            5..=7 => {
                // One copy's unsynced bytes may go; the other's must not before the
                // leases that both are in have come to rest.
                let at_rest = self.world.master.is_at_rest(&self.world.servers);
                if at_rest {
                    let server = ServerId(self.rng.between(1, 3));
                    self.world.power_cycle(server);
                }
            }
            _ => {
                let leader = self.rng.below(3) as usize;
                self.world.fail_over(leader);
            }
        }
    }

    fn run(&mut self, steps: u64, faults: u64) {
        let mut next_fault = self.world.steps + self.rng.below(200);
        while self
            .files
            .iter()
            .any(|file| file.steps < steps || file.asked.is_some())
        {
            for number in 0..self.files.len() {
                self.collect(number);
                let file = &self.files[number];
                if file.asked.is_none() && file.steps < steps {
                    self.issue(number);
                }
            }
            if faults > 0 && self.world.steps >= next_fault {
                self.disturb();
                next_fault = self.world.steps + self.rng.below(faults);
            }
            self.world.step();
            assert!(
                self.world.steps < 3_000_000,
                "seed {}: no progress",
                self.seed
            );
        }
    }

    /// Everything synced survives a power cut of all servers and the client's end.
    fn finish(&mut self) {
        for number in 0..self.files.len() {
            let file = &self.files[number];
            self.world.fsync(self.mount, (file.inode, file.handle));
        }
        for server in self.world.servers.keys().copied().collect::<Vec<_>>() {
            self.world.power_cycle(server);
        }
        self.world.master.end_sessions();
        let other = self.world.mount_ready();
        for file in &self.files {
            let attributes = self.world.attributes(other, file.inode);
            assert_eq!(attributes.size, file.model.size, "seed {}", self.seed);
            let handle = self.world.open(other, file.inode);
            for base in BASES {
                let data = self.world.read(other, (file.inode, handle), base, 130_000);
                compare(self.seed, base, &data, &file.model.read(base, 130_000));
            }
        }
    }
}

fn compare(seed: u64, offset: u64, data: &[u8], expected: &[u8]) {
    assert_eq!(data.len(), expected.len(), "seed {seed}: read at {offset}");
    if let Some(at) = (0..data.len()).find(|&at| data[at] != expected[at]) {
        panic!(
            "seed {seed}: read at {offset}: byte {} is {}, not {}",
            offset + at as u64,
            data[at],
            expected[at]
        );
    }
}

fn draw_length(rng: &mut Rng) -> u64 {
    match rng.below(4) {
        0 => rng.between(1, 100),
        1 => 4096,
        2 => rng.between(1, 10_000),
        _ => rng.between(1, 60_000),
    }
}

/// Bounds so small that they are met all the time.
fn small_bounds(world: &World, rng: &mut Rng) -> ClientConfig {
    let mut config = world.config();
    let limits = &mut config.limits;
    limits.piece_bytes = 4096 * rng.between(1, 8) as u32;
    limits.write_window_bytes = rng.between(20_000, 200_000);
    limits.unsynced_bytes_max = limits.write_window_bytes * rng.between(1, 3);
    limits.read_ahead_bytes = rng.between(0, 100_000);
    limits.read_cache_bytes = rng.between(0, 200_000);
    limits.session_window = rng.between(1, 20);
    limits.attributes_max = rng.between(1, 4) as usize;
    limits.locations_max = rng.between(1, 4) as usize;
    limits.unsettled_max = rng.between(1, 4) as usize;
    limits.locate_count = rng.between(1, 3) as u32;
    limits.write_delay = Duration::from_millis(rng.between(1, 50));
    limits.commit_delay = Duration::from_millis(rng.between(1, 100));
    limits.lease_idle = Duration::from_millis(rng.between(5, 200));
    limits.chunk_timeout = Duration::from_millis(300);
    limits.hedge_delay = Duration::from_millis(rng.between(1, 20));
    config
}

#[test]
fn a_quiet_world_shows_what_was_written() {
    for seed in 0..12 {
        let mut run = Run::new(seed);
        run.run(120, 0);
        run.finish();
    }
}

#[test]
fn a_world_that_breaks_shows_what_was_written() {
    for seed in 1000..1025 {
        let mut run = Run::new(seed);
        run.run(120, 400);
        run.finish();
    }
}
