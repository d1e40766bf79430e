//! A store on files in memory and the calls that tests make of it.

use crate::files::Files;
use antler_core::chunk::operation::{
    CommitAction, DiskError, DiskReply, DiskRequest, PartCommit, ReceiveStep, StoredPart,
};
use antler_core::chunk::{ChunkStore, Progress, StoreError, StoreOptions, Tuning, Work};
use antler_core::ids::{ChunkId, ChunkVersion, ClusterId, DiskId, Epoch, PartId, ServerId};
use antler_core::limits::UNIT_SIZE;
use antler_core::vfs::Vfs;
use bytes::Bytes;

pub type Store = ChunkStore<Files>;
pub type Outcome = Result<DiskReply, DiskError>;

/// Small bounds, so that every limit is met soon.
pub fn tuning() -> Tuning {
    Tuning {
        segment_size: 512 << 10,
        slots_per_file: 24,
        small_write: 32 << 10,
        part_memory: 64 << 10,
        part_memory_locked: 96 << 10,
        disk_memory: 256 << 10,
        embed_max: 48 << 10,
        checkpoint_bytes: 256 << 10,
        reserve: 0,
    }
}

pub fn options() -> StoreOptions {
    StoreOptions {
        cluster: ClusterId(1),
        server: ServerId(2),
        disk: DiskId(3),
        path: "disk".to_owned(),
        tuning: tuning(),
    }
}

pub fn open<V: Vfs>(files: V) -> Result<ChunkStore<V>, StoreError> {
    ChunkStore::open(files, options()).map(|(store, _)| store)
}

pub fn part(chunk: u64) -> PartId {
    PartId::whole(ChunkId(chunk))
}

/// Runs an operation to its end.
pub fn run<V: Vfs>(store: &mut ChunkStore<V>, request: DiskRequest) -> Outcome {
    let mut work = store.start(request);
    finish(store, &mut work)
}

/// Runs the rest of an operation.
pub fn finish<V: Vfs>(store: &mut ChunkStore<V>, work: &mut Work) -> Outcome {
    let mut synced = None;
    loop {
        match store.advance(work, synced.take()) {
            Progress::Sync(file) => synced = Some(store.vfs_mut().sync(file)),
            Progress::More => {}
            Progress::Done(result) => return result,
        }
    }
}

/// The CRCs of pieces cut at unit boundaries of the chunk.
pub fn checksums(offset: u32, data: &[u8]) -> Vec<u32> {
    let first = UNIT_SIZE - offset as usize % UNIT_SIZE;
    let (head, tail) = data.split_at(first.min(data.len()));
    let pieces = std::iter::once(head).chain(tail.chunks(UNIT_SIZE));
    pieces
        .filter(|piece| !piece.is_empty())
        .map(crc32fast::hash)
        .collect()
}

pub fn write_request(part: PartId, version: u64, offset: u32, data: &[u8]) -> DiskRequest {
    DiskRequest::Write {
        part,
        version: ChunkVersion(version),
        epoch: Epoch(version),
        drop_from: None,
        offset,
        data: Bytes::copy_from_slice(data),
        checksums: checksums(offset, data),
    }
}

pub fn write<V: Vfs>(store: &mut ChunkStore<V>, part: PartId, offset: u32, data: &[u8]) -> Outcome {
    run(store, write_request(part, 1, offset, data))
}

pub fn commit<V: Vfs>(
    store: &mut ChunkStore<V>,
    changes: &[(PartId, CommitAction)],
) -> Result<Vec<Option<StoredPart>>, DiskError> {
    let changes = changes
        .iter()
        .map(|&(part, action)| PartCommit { part, action });
    let request = DiskRequest::Commit {
        changes: changes.collect(),
    };
    match run(store, request)? {
        DiskReply::Committed(parts) => Ok(parts),
        other => panic!("not a commit's reply: {other:?}"),
    }
}

pub fn keep<V: Vfs>(store: &mut ChunkStore<V>, part: PartId) -> Result<(), DiskError> {
    commit(store, &[(part, CommitAction::Keep)]).map(drop)
}

pub fn receive<V: Vfs>(store: &mut ChunkStore<V>, part: PartId, step: ReceiveStep) -> Outcome {
    run(store, DiskRequest::Receive { part, step })
}

pub fn read<V: Vfs>(
    store: &mut ChunkStore<V>,
    part: PartId,
    offset: u32,
    length: u32,
) -> Result<Bytes, DiskError> {
    match run(
        store,
        DiskRequest::Read {
            part,
            offset,
            length,
        },
    )? {
        DiskReply::Read {
            data, checksums, ..
        } => {
            let right = data.chunks(UNIT_SIZE).map(crc32fast::hash).eq(checksums);
            assert!(right, "the CRCs of a reply are its data's");
            Ok(data)
        }
        other => panic!("not a read's reply: {other:?}"),
    }
}

/// Bytes that differ from place to place.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut rng = antler_core::rng::Rng::new(seed);
    let words = std::iter::repeat_with(move || rng.word().to_le_bytes());
    words.flatten().take(length).collect()
}
