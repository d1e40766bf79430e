//! A chunkserver as the client sees one: parts with versions and epochs, content
//! that is durable only after a sync, capabilities bound to a life. Test code.

use antler_core::ids::{BootId, ChunkId, ChunkVersion, Epoch, ServerId};
use antler_core::limits::UNIT_SIZE;
use antler_core::wire::capability::{Capability, Right};
use antler_core::wire::chunk_master::CapabilityKey;
use antler_core::wire::client_chunk::{ChunkErrorKind, ChunkReplyBody, ChunkRequestBody};
use bytes::Bytes;
use std::collections::BTreeMap;

/// The present units of a part.
pub(crate) type Units = BTreeMap<u32, Vec<u8>>;

/// What a part is like, in memory or durably.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) version: ChunkVersion,
    pub(crate) epoch: Epoch,
    pub(crate) units: Units,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Part {
    pub(crate) live: Image,
    pub(crate) durable: Option<Image>,
}

pub(crate) struct Server {
    pub(crate) id: ServerId,
    pub(crate) boot: BootId,
    pub(crate) parts: BTreeMap<ChunkId, Part>,
    /// Reads answer with a flipped bit.
    pub(crate) rots: bool,
    /// Nothing is answered.
    pub(crate) hangs: bool,
    /// Its disk has no room for a commit.
    pub(crate) is_full: bool,
    /// So many writes are put off with `Busy`.
    pub(crate) puts_off: u32,
    /// Requests that came, and those carried out, by kind.
    pub(crate) requests: u64,
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) syncs: u64,
}

impl Server {
    pub(crate) fn new(id: ServerId) -> Self {
        Self {
            id,
            boot: BootId(id.0 * 100),
            parts: BTreeMap::new(),
            rots: false,
            hangs: false,
            is_full: false,
            puts_off: 0,
            requests: 0,
            reads: 0,
            writes: 0,
            syncs: 0,
        }
    }

    /// Loses what was not synced, and lives on under another boot id.
    pub(crate) fn power_cycle(&mut self) {
        self.boot = self.boot.next();
        self.parts.retain(|_, part| part.durable.is_some());
        for part in self.parts.values_mut() {
            part.live = part.durable.clone().expect("only durable parts are left");
        }
    }

    /// The checks of every request: capability, fencing, version.
    fn admit(
        &self,
        capability: &Capability,
        keys: &[CapabilityKey],
        right: Right,
    ) -> Result<(), ChunkErrorKind> {
        let able = right == Right::Read || capability.right == Right::Write;
        if !able || !capability.verify(keys, self.id, self.boot) {
            return Err(ChunkErrorKind::Refused);
        }
        let part = self.parts.get(&capability.part.chunk);
        let Some(part) = part else {
            return match right {
                Right::Read => Err(ChunkErrorKind::NotFound),
                Right::Write => Ok(()),
            };
        };
        if right == Right::Write && capability.epoch < part.live.epoch {
            return Err(ChunkErrorKind::Fenced);
        }
        if right == Right::Read && part.live.version < capability.version {
            return Err(ChunkErrorKind::Version);
        }
        Ok(())
    }

    /// Carries one copy's share of a request out.
    pub(crate) fn perform(
        &mut self,
        capability: &Capability,
        keys: &[CapabilityKey],
        (body, syncs): (&ChunkRequestBody, u32),
        data: &Bytes,
    ) -> Result<(ChunkReplyBody, Bytes), ChunkErrorKind> {
        self.requests += 1;
        let right = match body {
            ChunkRequestBody::Read { .. } | ChunkRequestBody::Map => Right::Read,
            _ => Right::Write,
        };
        self.admit(capability, keys, right)?;
        if self.is_full && matches!(body, ChunkRequestBody::Sync) {
            return Err(ChunkErrorKind::Full);
        }
        if self.puts_off > 0 && matches!(body, ChunkRequestBody::Write { .. }) {
            self.puts_off -= 1;
            return Err(ChunkErrorKind::Busy);
        }
        let chunk = capability.part.chunk;
        if right == Right::Write {
            let part = self.parts.entry(chunk).or_default();
            let synced = capability.version.after_syncs(syncs);
            part.live.version = part.live.version.max(synced);
            part.live.epoch = capability.epoch;
        }
        let done = ChunkReplyBody::Done { boots: Vec::new() };
        match body {
            ChunkRequestBody::Read { offset, length } => Ok(self.read(chunk, *offset, *length)),
            ChunkRequestBody::Write {
                offset,
                checksums,
                drop_from,
                sync,
            } => {
                verify(*offset, checksums, data)?;
                self.writes += 1;
                let part = self.parts.get_mut(&chunk).expect("made above");
                if let Some(from) = drop_from {
                    cut(&mut part.live.units, *from);
                }
                put(&mut part.live.units, *offset, data);
                if *sync {
                    self.sync(chunk);
                }
                Ok((done, Bytes::new()))
            }
            ChunkRequestBody::Zero { offset, length } => {
                let part = self.parts.get_mut(&chunk).expect("made above");
                zero(&mut part.live.units, *offset, *length);
                Ok((done, Bytes::new()))
            }
            ChunkRequestBody::Sync => {
                self.sync(chunk);
                Ok((done, Bytes::new()))
            }
            ChunkRequestBody::Map => {
                let units = &self.parts[&chunk].live.units;
                let last = units.keys().next_back().map_or(0, |unit| unit + 1);
                let mut present = vec![0; last.div_ceil(8) as usize];
                for unit in units.keys() {
                    present[*unit as usize / 8] |= 1 << (unit % 8);
                }
                Ok((ChunkReplyBody::Map { present }, Bytes::new()))
            }
        }
    }

    pub(crate) fn sync(&mut self, chunk: ChunkId) {
        self.syncs += 1;
        let part = self.parts.entry(chunk).or_default();
        part.durable = Some(part.live.clone());
    }

    fn read(&mut self, chunk: ChunkId, offset: u32, length: u32) -> (ChunkReplyBody, Bytes) {
        self.reads += 1;
        let unit = UNIT_SIZE as u32;
        assert!(offset.is_multiple_of(unit) && length.is_multiple_of(unit) && length > 0);
        let part = &self.parts[&chunk];
        let mut data = Vec::with_capacity(length as usize);
        let mut present = vec![0; (length / unit).div_ceil(8) as usize];
        for (place, number) in (offset / unit..(offset + length) / unit).enumerate() {
            match part.live.units.get(&number) {
                Some(content) => {
                    present[place / 8] |= 1 << (place % 8);
                    data.extend_from_slice(content);
                }
                None => data.resize(data.len() + UNIT_SIZE, 0),
            }
        }
        let checksums = data.chunks(UNIT_SIZE).map(crc32fast::hash).collect();
        if self.rots {
            data[0] ^= 1;
        }
        let body = ChunkReplyBody::Read {
            checksums,
            present,
            version: part.live.version,
        };
        (body, Bytes::from(data))
    }
}

/// Every piece cut at unit borders has the checksum that was sent with it.
fn verify(offset: u32, checksums: &[u32], data: &Bytes) -> Result<(), ChunkErrorKind> {
    let mut at = 0;
    for checksum in checksums {
        let room = UNIT_SIZE - (offset as usize + at) % UNIT_SIZE;
        let end = data.len().min(at + room);
        if at >= end || crc32fast::hash(&data[at..end]) != *checksum {
            return Err(ChunkErrorKind::Invalid);
        }
        at = end;
    }
    if at == data.len() {
        Ok(())
    } else {
        Err(ChunkErrorKind::Invalid)
    }
}

pub(crate) fn cut(units: &mut Units, from: u32) {
    let unit = UNIT_SIZE as u32;
    units.retain(|number, _| number * unit < from);
    if let Some(last) = units.get_mut(&(from / unit)) {
        last[(from % unit) as usize..].fill(0);
    }
}

pub(crate) fn put(units: &mut Units, offset: u32, data: &[u8]) {
    let mut at = 0;
    while at < data.len() {
        let place = offset as usize + at;
        let (number, within) = (place / UNIT_SIZE, place % UNIT_SIZE);
        let length = (UNIT_SIZE - within).min(data.len() - at);
        let unit = units
            .entry(number as u32)
            .or_insert_with(|| vec![0; UNIT_SIZE]);
        unit[within..within + length].copy_from_slice(&data[at..at + length]);
        at += length;
    }
}

pub(crate) fn zero(units: &mut Units, offset: u32, length: u32) {
    let unit = UNIT_SIZE as u32;
    for number in offset / unit..(offset + length).div_ceil(unit) {
        let start = number * unit;
        let (from, to) = (offset.max(start), (offset + length).min(start + unit));
        if (from, to) == (start, start + unit) {
            units.remove(&number);
        } else if let Some(content) = units.get_mut(&number) {
            content[(from - start) as usize..(to - start) as usize].fill(0);
        }
    }
}
