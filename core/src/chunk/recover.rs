//! Opening a disk: formatting an empty folder, or bringing everything back to
//! the last commit.
//!
//! Owns identity and replay. Invariant: a disk that is not ours, or of which
//! something durable is missing, is refused and left as it is. One that is full is
//! neither: what finds no space in its place stays in memory.

use super::StoreError;
use super::checkpoint::UNFINISHED;
use super::disk::Disk;
use super::format::{
    BlockRecord, ENTRY_SIZE, Entry, FormatError, IDENTITY_SIZE, Identity, NO_SLOT, PartHeader,
    Reader, RecordKind, units_of,
};
use super::journal::{Journal, Mark};
use super::operation::OpenedDisk;
use super::part::{Block, Part};
use super::rules::DiskRules;
use super::slots::SlotSpace;
use super::store::{ChunkStore, StoreMark, StoreOptions};
use super::table::{self, Piece};
use crate::ids::PartId;
use crate::limits::{UNIT_SIZE, UNITS_PER_BLOCK};
use crate::vfs::{Vfs, VfsError, VfsResult};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

const IDENTITY: &str = "disk";
const UNFINISHED_IDENTITY: &str = "unfinished-disk";
/// Segments of the journal for which there is to be room.
const RESERVED_SEGMENTS: u64 = 3;

impl<V: Vfs> ChunkStore<V> {
    /// Opens the disk, formats it if the folder is empty, recovers it otherwise.
    ///
    /// # Errors
    /// When the disk is another's, is damaged, or its files can't be used.
    ///
    /// # Panics
    /// When the bounds in `options` contradict each other.
    pub fn open(mut vfs: V, options: StoreOptions) -> Result<(Self, OpenedDisk), StoreError> {
        let identity = match read_identity(&mut vfs)? {
            Some(identity) => identity,
            None => format(&mut vfs, &options)?,
        };
        check_owner(&identity, &options)?;
        let store = recover(vfs, identity, &options)?;
        let opened = store.opened(options.path)?;
        Ok(opened)
    }

    fn opened(mut self, path: String) -> Result<(Self, OpenedDisk), StoreError> {
        let space = self.disk.slots.refresh(&mut self.disk.vfs)?;
        let opened = OpenedDisk {
            disk: self.identity.disk,
            path,
            space,
            parts: self.parts().collect(),
            rules: DiskRules::default(),
            failed: None,
        };
        Ok((self, opened))
    }
}

pub(super) fn read_identity<V: Vfs>(vfs: &mut V) -> Result<Option<Identity>, StoreError> {
    let file = match vfs.open(IDENTITY) {
        Err(VfsError::NotFound(_)) => return Ok(None),
        other => other?,
    };
    let mut bytes = [0; IDENTITY_SIZE];
    let got = vfs.read_at(file, 0, &mut bytes)?;
    let length = vfs.len(file)?;
    vfs.close(file);
    if got != IDENTITY_SIZE || length != IDENTITY_SIZE as u64 {
        return Err(StoreError::damaged(IDENTITY, FormatError::Short));
    }
    let identity = Identity::decode(&bytes);
    identity
        .map(Some)
        .map_err(|error| StoreError::damaged(IDENTITY, error))
}

fn check_owner(identity: &Identity, options: &StoreOptions) -> Result<(), StoreError> {
    if (identity.cluster, identity.server) == (options.cluster, options.server) {
        return Ok(());
    }
    Err(StoreError::Foreign {
        owner: format!("{} of {}", identity.server, identity.cluster),
        expected: format!("{} of {}", options.server, options.cluster),
    })
}

/// Formats a folder. The identity comes last: without it, what is there is what an
/// earlier attempt left, unless there is content.
fn format<V: Vfs>(vfs: &mut V, options: &StoreOptions) -> Result<Identity, StoreError> {
    let names = vfs.list("")?;
    if names.iter().any(|name| name.starts_with("slots-")) {
        return Err(StoreError::NoIdentity);
    }
    for name in names.iter().filter(|name| is_ours(name)) {
        vfs.remove(name)?;
    }
    let tuning = options.tuning;
    let identity = Identity {
        cluster: options.cluster,
        server: options.server,
        disk: options.disk,
        slots_per_file: tuning.slots_per_file,
        segment_size: tuning.segment_size,
    };
    let mark = Journal::format(vfs, identity.disk, identity.segment_size)?;
    let mut table = table::encode_header(mark).to_vec();
    table.extend(Piece::new().finish(mark.sequence, 0, true));
    write_durably(vfs, &table::name(mark.sequence), &table)?;
    vfs.sync_dir("")?;
    write_durably(vfs, UNFINISHED_IDENTITY, &identity.encode())?;
    vfs.rename(UNFINISHED_IDENTITY, IDENTITY)?;
    vfs.sync_dir("")?;
    Ok(identity)
}

fn is_ours(name: &str) -> bool {
    table::number(name).is_some()
        || name.starts_with("journal-")
        || [UNFINISHED, UNFINISHED_IDENTITY].contains(&name)
}

fn write_durably<V: Vfs>(vfs: &mut V, name: &str, bytes: &[u8]) -> VfsResult<()> {
    let file = vfs.create(name)?;
    vfs.write_at(file, 0, bytes)?;
    vfs.sync(file)?;
    vfs.close(file);
    Ok(())
}

fn recover<V: Vfs>(
    mut vfs: V,
    identity: Identity,
    options: &StoreOptions,
) -> Result<ChunkStore<V>, StoreError> {
    // What was renamed or made before a crash of the process alone may not be
    // durable yet, and what follows builds on it.
    vfs.sync_dir("")?;
    let table = read_newest_table(&mut vfs)?;
    let mut replay = Replay::new(table.parts);
    let (disk, size) = (identity.disk, identity.segment_size);
    let mut journal = Journal::open(&mut vfs, disk, size, table.mark, |_, sequence, records| {
        let applied = replay.apply(sequence, records);
        applied.map_err(|error| StoreError::damaged(format!("frame {sequence}"), error))
    })?;
    let used = replay.used_slots();
    let reserve = reserve_of(options.tuning.reserve, vfs.space()?.total, size);
    let slots = SlotSpace::open(&mut vfs, identity.slots_per_file, reserve, &used)?;
    let tuning = options.tuning.fit(journal.frame_max());
    let mut disk = Disk::new(vfs, slots, tuning);
    let homeless = rewrite_places(&mut disk, &mut journal, table.mark, &replay)?;
    let mut store = ChunkStore {
        identity,
        touched: disk.slots.files().into_iter().collect(),
        applied: journal.mark(),
        covered: table.mark,
        table_bytes: table.bytes,
        parts: replay.parts,
        receiving: BTreeMap::new(),
        homeless: BTreeSet::new(),
        committing: false,
        checkpointing: false,
        marks: Vec::new(),
        disk,
        journal,
    };
    if store.journal.was_torn() {
        store.mark(StoreMark::TornTail);
    }
    if !replay.embedded.is_empty() {
        store.mark(StoreMark::UnitsReplayed);
    }
    for ((id, block), state) in homeless {
        store.shelter(id, block, state);
    }
    Ok(store)
}

/// What content leaves free: without room for its journal a full disk could not even
/// delete. Of a small disk that is more than a 64th.
fn reserve_of(most: u64, total: u64, segment_size: u32) -> u64 {
    let segments = u64::from(segment_size) * RESERVED_SEGMENTS;
    most.min((total / 64).max(segments.min(total / 4)))
}

/// Reads the newest table and removes what a checkpoint that was cut short left.
/// An older table must not stand in for a damaged one: its journal may be gone.
pub(super) fn read_newest_table<V: Vfs>(vfs: &mut V) -> Result<table::Table, StoreError> {
    let names = vfs.list("")?;
    let numbers: BTreeSet<u64> = names
        .iter()
        .filter_map(|name| table::number(name))
        .collect();
    let Some(&newest) = numbers.last() else {
        return Err(StoreError::damaged("table", "it is missing"));
    };
    let table = table::read(vfs, &table::name(newest))?;
    for number in numbers.range(..newest) {
        vfs.remove(&table::name(*number))?;
    }
    if names.iter().any(|name| name == UNFINISHED) {
        vfs.remove(UNFINISHED)?;
    }
    Ok(table)
}

/// Parts as the frames make them, and where the newest embedded units are.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) parts: BTreeMap<PartId, Part>,
    /// For each slot and unit whose newest content is embedded: in which frame.
    embedded: BTreeMap<(u32, u8), u64>,
}

impl Replay {
    /// The parts as a table has them.
    pub(super) fn new(parts: BTreeMap<PartId, Part>) -> Self {
        Self {
            parts,
            embedded: BTreeMap::new(),
        }
    }

    /// Takes in what a frame says.
    pub(super) fn apply(&mut self, sequence: u64, records: &[u8]) -> Result<(), FormatError> {
        let mut reader = Reader::new(records);
        while !reader.is_empty() {
            let header = PartHeader::decode(&mut reader)?;
            if header.kind != RecordKind::Change {
                self.remove(header.part);
            }
            if header.kind == RecordKind::Gone {
                continue;
            }
            let part = self.parts.entry(header.part).or_default();
            (part.version, part.epoch) = (header.version, header.epoch);
            part.stripe = header.stripe;
            for _ in 0..header.count {
                let record = BlockRecord::decode(&mut reader)?;
                self.apply_block(sequence, header.part, &record);
            }
        }
        Ok(())
    }

    fn apply_block(&mut self, sequence: u64, id: PartId, record: &BlockRecord<'_>) {
        let part = self.parts.get_mut(&id).expect("its header made it");
        let before = part.place(record.block, record.slot, record.present);
        if let Some(slot) = before.filter(|&slot| slot != record.slot) {
            self.forget_embedded(slot, u16::MAX);
        }
        if record.slot == NO_SLOT {
            return;
        }
        // A slot that another part had goes with what was embedded for that part.
        let kept = match before == Some(record.slot) {
            true => record.present & !record.straight,
            false => 0,
        };
        self.forget_embedded(record.slot, !kept);
        for unit in units_of(record.embedded) {
            let unit = u8::try_from(unit).expect("a block has few units");
            self.embedded.insert((record.slot, unit), sequence);
        }
    }

    fn forget_embedded(&mut self, slot: u32, units: u16) {
        for unit in units_of(units) {
            let unit = u8::try_from(unit).expect("a block has few units");
            self.embedded.remove(&(slot, unit));
        }
    }

    fn remove(&mut self, id: PartId) {
        if let Some(part) = self.parts.remove(&id) {
            for (_, slot) in part.slots.iter() {
                self.forget_embedded(slot, u16::MAX);
            }
        }
    }

    /// For every slot whether a part has it.
    pub(super) fn used_slots(&self) -> Vec<bool> {
        let slots = || self.parts.values().flat_map(|part| part.slots.iter());
        let end = slots()
            .map(|(_, slot)| slot as usize + 1)
            .max()
            .unwrap_or(0);
        let mut used = vec![false; end];
        for (_, slot) in slots() {
            assert!(!used[slot as usize], "slot {slot} has two parts");
            used[slot as usize] = true;
        }
        used
    }

    /// Whether a record is still what the block is like, or was taken over by later
    /// ones in the same slot.
    fn is_current(&self, id: PartId, record: &BlockRecord<'_>) -> bool {
        let part = self.parts.get(&id);
        part.and_then(|part| part.slots.at(record.block)) == Some(record.slot)
    }

    /// Whether the content of a unit that a frame embeds was not replaced later.
    fn is_newest(&self, slot: u32, unit: usize, sequence: u64) -> bool {
        let unit = u8::try_from(unit).expect("a block has few units");
        self.embedded.get(&(slot, unit)) == Some(&sequence)
    }

    /// Takes from a frame what it says of blocks that found no space.
    fn gather(
        &self,
        (sequence, records): (u64, &[u8]),
        full: &BTreeSet<Place>,
        homeless: &mut BTreeMap<Place, Block>,
    ) {
        for_each_block(records, |part, record| {
            let place = (part, record.block);
            if full.contains(&place) && self.is_current(part, record) {
                let block = homeless.entry(place).or_insert_with(Block::empty);
                self.gather_block(sequence, record, block);
            }
            Ok(())
        })
        .expect("nothing is read or written");
    }

    fn gather_block(&self, sequence: u64, record: &BlockRecord<'_>, block: &mut Block) {
        for (unit, content) in record.embedded_units() {
            if self.is_newest(record.slot, unit, sequence) {
                let content = Bytes::copy_from_slice(&whole_unit(content));
                block.remember(unit, content, record.checksums[unit]);
            }
        }
        (block.slot, block.checksums) = (record.slot, record.checksums);
        (block.present, block.locked) = (record.present, record.present);
    }
}

/// A block of a part.
pub(super) type Place = (PartId, u16);

/// Writes again what the frames say about places: lines of the slot table, and
/// embedded units that nothing later replaced. The blocks for which the disk had no
/// space come back, with those units in memory.
fn rewrite_places<V: Vfs>(
    disk: &mut Disk<V>,
    journal: &mut Journal,
    from: Mark,
    replay: &Replay,
) -> Result<BTreeMap<Place, Block>, StoreError> {
    let Disk { vfs, slots, .. } = disk;
    let mut full = BTreeSet::new();
    journal.replay(vfs, from, |vfs, sequence, records| {
        let frame = (sequence, records);
        full.extend(rewrite_frame(vfs, slots, replay, frame, |_| true)?);
        Ok(())
    })?;
    let mut homeless = BTreeMap::new();
    if !full.is_empty() {
        journal.replay(vfs, from, |_, sequence, records| {
            replay.gather((sequence, records), &full, &mut homeless);
            Ok(())
        })?;
    }
    Ok(homeless)
}

/// Writes again what a frame says about the places of some parts. For which blocks the
/// disk had no space.
pub(super) fn rewrite_frame<V: Vfs>(
    vfs: &mut V,
    slots: &SlotSpace,
    replay: &Replay,
    (sequence, records): (u64, &[u8]),
    wanted: impl Fn(PartId) -> bool,
) -> VfsResult<Vec<Place>> {
    let mut full = Vec::new();
    for_each_block(records, |part, record| {
        if wanted(part) && replay.is_current(part, record) {
            match rewrite_block(vfs, slots, replay, sequence, part, record) {
                Err(VfsError::Full) => full.push((part, record.block)),
                other => other?,
            }
        }
        Ok(())
    })?;
    Ok(full)
}

/// Goes through the blocks of a frame that was replayed before.
fn for_each_block(
    records: &[u8],
    mut visit: impl FnMut(PartId, &BlockRecord<'_>) -> VfsResult<()>,
) -> VfsResult<()> {
    const REPLAYED: &str = "it was replayed before";
    let mut reader = Reader::new(records);
    while !reader.is_empty() {
        let header = PartHeader::decode(&mut reader).expect(REPLAYED);
        if header.kind == RecordKind::Gone {
            continue;
        }
        for _ in 0..header.count {
            let record = BlockRecord::decode(&mut reader).expect(REPLAYED);
            visit(header.part, &record)?;
        }
    }
    Ok(())
}

fn rewrite_block<V: Vfs>(
    vfs: &mut V,
    slots: &SlotSpace,
    replay: &Replay,
    sequence: u64,
    part: PartId,
    record: &BlockRecord<'_>,
) -> VfsResult<()> {
    let entry = Entry {
        part,
        block: record.block,
        present: record.present,
        checksums: record.checksums,
    };
    let mut line = [0; ENTRY_SIZE];
    entry.encode(record.slot, &mut line);
    slots.write_entries(vfs, record.slot, &line)?;
    for (unit, content) in record.embedded_units() {
        if replay.is_newest(record.slot, unit, sequence) {
            slots.write(vfs, record.slot, unit, &whole_unit(content))?;
        }
    }
    Ok(())
}

fn whole_unit(content: &[u8]) -> [u8; UNIT_SIZE] {
    let mut whole = [0; UNIT_SIZE];
    whole[..content.len()].copy_from_slice(content);
    whole
}

const _: () = assert!(UNITS_PER_BLOCK == 16, "a mask of 16 bits is every unit");
