//! The parts of an erasure-coded chunk in stores: each is kept, checked and lost by
//! itself, and comes back from the others.

use crate::bench::*;
use crate::files::Files;
use antler_core::chunk::erasure::{StripeCoder, StripeError, encode_chunk, rebuild_part};
use antler_core::chunk::geometry::{Layout, StripeShape};
use antler_core::chunk::operation::{CommitAction, DiskError, DiskRequest, ReceiveStep};
use antler_core::chunk::{CodeError, PartSet};
use antler_core::ids::{ChunkId, ChunkVersion, Epoch, PartId};
use antler_core::limits::{BLOCK_SIZE, UNIT_SIZE};
use antler_core::rng::Rng;
use bytes::Bytes;

const CHUNK: ChunkId = ChunkId(77);
const BLOCK: u32 = BLOCK_SIZE as u32;
const UNIT: u32 = UNIT_SIZE as u32;

/// A store for each part, as if each were on a server of its own.
struct Stores {
    layout: Layout,
    stores: Vec<Store>,
}

fn begin(store: &mut Store, layout: Layout, part: usize) {
    let stripe = Some(layout.shape());
    let id = layout.shape().part_id(CHUNK, part);
    receive(store, id, ReceiveStep::Begin { stripe }).unwrap();
}

/// One block of a part, as whole units.
fn piece(store: &mut Store, id: PartId, row: u32, block: &[u8]) -> Result<(), DiskError> {
    let mut units = block.to_vec();
    units.resize(block.len().next_multiple_of(UNIT_SIZE), 0);
    let offset = row * BLOCK;
    let step = ReceiveStep::Piece {
        offset,
        checksums: checksums(offset, &units),
        data: units.into(),
    };
    receive(store, id, step).map(drop)
}

fn put_in_place(store: &mut Store, id: PartId) {
    let action = CommitAction::Receive {
        version: ChunkVersion(5),
        epoch: Epoch(5),
    };
    commit(store, &[(id, action)]).unwrap();
}

impl Stores {
    fn new(layout: Layout, chunk: &[u8]) -> Self {
        let shape = layout.shape();
        let mut stores: Vec<Store> = (0..shape.parts())
            .map(|_| open(Files::default()).unwrap())
            .collect();
        for (part, store) in stores.iter_mut().enumerate() {
            begin(store, layout, part);
        }
        let read = |block: u32, into: &mut [u8]| {
            into.copy_from_slice(&chunk[(block * BLOCK) as usize..][..into.len()]);
            Ok(())
        };
        encode_chunk(layout, read, |part, row, block| {
            piece(&mut stores[part], shape.part_id(CHUNK, part), row, block)
        })
        .unwrap();
        for (part, store) in stores.iter_mut().enumerate() {
            put_in_place(store, shape.part_id(CHUNK, part));
        }
        Self { layout, stores }
    }

    fn id(&self, part: usize) -> PartId {
        self.layout.shape().part_id(CHUNK, part)
    }

    fn restart(&mut self, rng: &mut Rng) {
        let stores = std::mem::take(&mut self.stores).into_iter();
        let open = |store: Store| open(store.into_vfs().after_power_cut(rng)).unwrap();
        self.stores = stores.map(open).collect();
    }

    fn lose(&mut self, part: usize) {
        let id = self.id(part);
        commit(&mut self.stores[part], &[(id, CommitAction::Delete)]).unwrap();
    }

    /// The parts that are there and whole: each store tells it by itself.
    fn sound(&mut self) -> PartSet {
        let layout = self.layout;
        let sound = |part: &usize| {
            let id = self.id(*part);
            let length = layout.part_length(*part).next_multiple_of(UNIT);
            read(&mut self.stores[*part], id, 0, length).is_ok()
        };
        (0..layout.shape().parts()).filter(sound).collect()
    }

    fn read(
        &mut self,
        range: std::ops::Range<u32>,
        present: PartSet,
    ) -> Result<Vec<u8>, CodeError> {
        let plan = self.layout.plan(range, present)?;
        let mut found: Vec<Bytes> = Vec::new();
        for wanted in &plan.reads {
            let (id, length) = (self.id(wanted.part), wanted.range.len() as u32);
            let store = &mut self.stores[wanted.part];
            found.push(read(store, id, wanted.range.start, length).unwrap());
        }
        let found: Vec<&[u8]> = found.iter().map(AsRef::as_ref).collect();
        let mut into = vec![0; plan.range.len()];
        StripeCoder::new(self.layout).assemble(&plan, &found, &mut into);
        Ok(into)
    }

    /// Rebuilds a part through the stores and puts it in its place.
    fn repair(&mut self, lost: usize, present: PartSet) -> Result<(), StripeError<DiskError>> {
        let (layout, id) = (self.layout, self.id(lost));
        begin(&mut self.stores[lost], layout, lost);
        let stores = std::cell::RefCell::new(&mut self.stores);
        let fetch = |part: usize, row: u32, into: &mut [u8]| {
            let length = (into.len() as u32).next_multiple_of(UNIT);
            let id = layout.shape().part_id(CHUNK, part);
            let units = read(&mut stores.borrow_mut()[part], id, row * BLOCK, length)?;
            into.copy_from_slice(&units[..into.len()]);
            Ok(())
        };
        rebuild_part(layout, lost, present, fetch, |row, block| {
            piece(&mut stores.borrow_mut()[lost], id, row, block)
        })?;
        put_in_place(&mut self.stores[lost], id);
        Ok(())
    }
}

fn layout(data: u8, parity: u8, valid: u64) -> Layout {
    Layout::new(StripeShape::new(data, parity).unwrap(), valid)
}

#[test]
fn parts_are_kept_lost_and_rebuilt_one_by_one() {
    let mut rng = Rng::new(3);
    for (data, parity, valid) in [
        (4, 2, 700_000),
        (2, 1, 65_536),
        (8, 3, 1_600_001),
        (3, 2, 100),
    ] {
        let layout = layout(data, parity, valid);
        let chunk = pattern(valid, valid as usize);
        let mut stores = Stores::new(layout, &chunk);
        stores.restart(&mut rng);
        let all = layout.shape().all();
        assert_eq!(stores.sound(), all);
        assert_eq!(stores.read(0..u32::MAX, all), Ok(chunk.clone()));
        for first in 0..layout.shape().parts() {
            let parts =
                (0..layout.shape().parity()).map(|next| (first + next) % layout.shape().parts());
            let lost: PartSet = parts.collect();
            let before = digests(&mut stores);
            lost.iter().for_each(|part| stores.lose(part));
            let present = stores.sound();
            assert_eq!(present, all.without(lost));
            assert_eq!(stores.read(0..u32::MAX, present), Ok(chunk.clone()));
            for part in lost.iter() {
                stores.repair(part, present).unwrap();
            }
            stores.restart(&mut rng);
            assert_eq!(
                digests(&mut stores),
                before,
                "{lost:?} came back as they were"
            );
        }
    }
}

fn digests(stores: &mut Stores) -> Vec<String> {
    let shape = stores.layout.shape();
    let digest = |part: usize| {
        let (id, store) = (shape.part_id(CHUNK, part), &mut stores.stores[part]);
        assert_eq!(store.stripe(id), Some(shape));
        store.check_invariants(true);
        let digest = run(store, DiskRequest::Digest { part: id });
        format!("{:?}", digest.unwrap())
    };
    (0..shape.parts()).map(digest).collect()
}

#[test]
fn a_rotten_part_is_found_by_itself_and_made_good() {
    let layout = layout(4, 2, 900_000);
    let chunk = pattern(1, 900_000);
    let mut stores = Stores::new(layout, &chunk);
    let all = layout.shape().all();
    for rotten in [1, 5] {
        let store = std::mem::replace(&mut stores.stores[rotten], open(Files::default()).unwrap());
        let mut files = store.into_vfs().after_kill();
        let place = files.content("slots-0").iter().position(|byte| *byte != 0);
        files.rot("slots-0", place.unwrap(), 1);
        stores.stores[rotten] = open(files).unwrap();
        let present = stores.sound();
        assert_eq!(present, all.without([rotten].into_iter().collect()));
        assert_eq!(stores.read(0..u32::MAX, present), Ok(chunk.clone()));
        stores.repair(rotten, present).unwrap();
        assert_eq!(stores.sound(), all);
    }
    assert_eq!(stores.read(0..u32::MAX, all), Ok(chunk));
}

#[test]
fn more_losses_than_parity_are_told_and_touch_nothing() {
    let layout = layout(4, 2, 900_000);
    let mut stores = Stores::new(layout, &pattern(1, 900_000));
    [0, 2, 5].into_iter().for_each(|part| stores.lose(part));
    let present = stores.sound();
    let lost = CodeError::Lost {
        known: 3,
        needed: 4,
    };
    assert_eq!(stores.read(0..u32::MAX, present), Err(lost));
    assert_eq!(stores.repair(2, present), Err(StripeError::Lost(lost)));
    let id = stores.id(2);
    assert_eq!(
        read(&mut stores.stores[2], id, 0, UNIT),
        Err(DiskError::NotFound)
    );
}

#[test]
fn one_disk_holds_parts_of_a_chunk_and_a_copy_side_by_side() {
    let layout = layout(2, 1, 100_000);
    let mut store = open(Files::default()).unwrap();
    write(&mut store, PartId::whole(CHUNK), 0, &pattern(9, 5000)).unwrap();
    keep(&mut store, PartId::whole(CHUNK)).unwrap();
    for part in [0, 2] {
        let id = layout.shape().part_id(CHUNK, part);
        begin(&mut store, layout, part);
        piece(&mut store, id, 0, &pattern(part as u64, 60_000)).unwrap();
        put_in_place(&mut store, id);
    }
    run(&mut store, DiskRequest::Checkpoint).unwrap();
    let mut store = open(store.into_vfs().after_power_cut(&mut Rng::new(1))).unwrap();
    let ids: Vec<String> = store
        .parts()
        .map(|stored| stored.part.to_string())
        .collect();
    assert_eq!(ids, ["c77", "c77.1", "c77.3"]);
    assert_eq!(store.stripe(PartId::whole(CHUNK)), None);
    for part in [0, 2] {
        let id = layout.shape().part_id(CHUNK, part);
        assert_eq!(store.stripe(id), Some(layout.shape()));
        let content = read(&mut store, id, 0, 15 * UNIT).unwrap();
        assert_eq!(content[..60_000], pattern(part as u64, 60_000));
    }
}
