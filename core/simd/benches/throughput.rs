//! How fast the code encodes and decodes, one line for each case:
//! `CASE GB/s DIGEST`, GB/s of data (not of all parts), and a digest of what was
//! made, so that a peer can be held to the same bytes. `benches/erasure` runs it
//! beside ISA-L.
//!
//! `throughput [--kernel NAME] [--ms N]`: N milliseconds for each case.
#![allow(clippy::unwrap_used)]

use antler_simd::{Kernel, PartSet, ReedSolomon};
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::time::Duration;

const SHARD: usize = 64 << 10;
const SHAPES: [(usize, usize); 6] = [(2, 1), (4, 2), (8, 2), (8, 3), (16, 4), (32, 8)];
/// Data of a large case, which no cache holds.
const LARGE: usize = 128 << 20;

fn main() {
    let (mut kernel, mut time) = (Kernel::fastest(), Duration::from_millis(300));
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--kernel" => {
                let name = arguments.next().expect("--kernel NAME");
                let mut all = Kernel::available();
                kernel = all
                    .find(|kernel| kernel.name() == name)
                    .expect("this processor has it");
            }
            "--ms" => time = Duration::from_millis(arguments.next().unwrap().parse().unwrap()),
            "--bench" | "--test" => {}
            other => panic!("unknown argument {other}"),
        }
    }
    for (data, parity) in SHAPES {
        let code = ReedSolomon::with_kernel(data, parity, kernel).unwrap();
        encode(&code, time);
        for lost in [1, parity] {
            reconstruct(&code, lost, time);
            if parity == 1 {
                break;
            }
        }
        large(&code, time);
    }
}

/// Page-aligned memory for `count` shards, filled as the peer fills its own.
struct Shards {
    memory: Vec<u8>,
    start: usize,
}

impl Shards {
    fn new(count: usize) -> Self {
        let memory = vec![0; count * SHARD + 4096];
        let start = memory.as_ptr().align_offset(4096);
        let mut shards = Self { memory, start };
        let mut word = 1_u64;
        for byte in &mut shards.memory[start..start + count * SHARD] {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (word >> 56) as u8;
        }
        shards
    }

    fn split(&mut self, data: usize, parts: usize) -> (Vec<&[u8]>, Vec<&mut [u8]>) {
        let (data, rest) = self.memory[self.start..].split_at_mut(data * SHARD);
        let rest = rest.chunks_exact_mut(SHARD).take(parts);
        (data.chunks_exact(SHARD).collect(), rest.collect())
    }
}

fn report(code: &ReedSolomon, what: &str, rate: f64, made: &[&mut [u8]]) {
    let (data, parity) = (code.data(), code.parity());
    println!("{data}+{parity} {what} {rate:.3} {:016x}", digest(made));
}

/// What this thread has had of the processor: what others took does not count.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// GB/s of the best of about a hundred stretches: what disturbs only ever slows down.
fn measure(bytes: usize, time: Duration, mut work: impl FnMut()) -> f64 {
    let mut stretch = |rounds: usize| {
        let started = processor_time();
        (0..rounds).for_each(|_| work());
        (processor_time() - started).max(Duration::from_nanos(1))
    };
    stretch(1);
    let rounds = (time.as_nanos() / 100 / stretch(1).as_nanos()).max(1) as usize;
    let (mut best, started) = (0.0, processor_time());
    while processor_time() - started < time {
        let rate = (bytes * rounds) as f64 / stretch(rounds).as_nanos() as f64;
        best = f64::max(best, rate);
    }
    best
}

/// FNV-1a of slices, one behind the other.
fn digest(parts: &[&mut [u8]]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// The same 64 KiB shards over and over: what the processor can do.
fn encode(code: &ReedSolomon, time: Duration) {
    let mut shards = Shards::new(code.parts());
    let (data, mut parity) = shards.split(code.data(), code.parity());
    let work = || code.encode(black_box(&data), black_box(&mut parity));
    let rate = measure(code.data() * SHARD, time, work);
    report(code, "encode", rate, &parity);
}

/// The first `lost` data parts of the others and of parity.
fn reconstruct(code: &ReedSolomon, lost: usize, time: Duration) {
    let mut shards = Shards::new(code.parts() + lost);
    let (data, mut rest) = shards.split(code.data(), code.parity() + lost);
    let (parity, made) = rest.split_at_mut(code.parity());
    code.encode(&data, parity);
    let wanted = PartSet::first(lost);
    let parts = data
        .iter()
        .copied()
        .chain(parity.iter().map(|part| &**part));
    let parts: Vec<Option<&[u8]>> = (0..)
        .zip(parts)
        .map(|(at, part)| (at >= lost).then_some(part))
        .collect();
    let mut decoding = code.clone();
    let work = || {
        decoding
            .reconstruct(black_box(&parts), wanted, black_box(made))
            .unwrap()
    };
    let rate = measure(code.data() * SHARD, time, work);
    assert!(made.iter().zip(&data).all(|(made, data)| *made == *data));
    report(code, &format!("reconstruct-{lost}"), rate, made);
}

/// Row after row of data that no cache holds, as when a chunk is encoded.
fn large(code: &ReedSolomon, time: Duration) {
    let rows = LARGE / SHARD / code.data();
    let mut shards = Shards::new(rows * code.data() + code.parity());
    let (data, mut parity) = shards.split(rows * code.data(), code.parity());
    let work = || {
        for row in data.chunks_exact(code.data()) {
            code.encode(black_box(row), black_box(&mut parity));
        }
    };
    let rate = measure(rows * code.data() * SHARD, time, work);
    report(code, "encode-large", rate, &parity);
}
