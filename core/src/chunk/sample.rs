//! Chunks with all that lies of them anywhere, for tests of what reads or makes parts.

use super::erasure::encode_chunk;
use super::geometry::StripeShape;
use super::stripe::Stripe;
use crate::ids::{Address, BootId, ChunkId, ChunkVersion, Epoch, PartId, ServerId};
use crate::limits::{BLOCK_SIZE, UNIT_SIZE};
use crate::rng::Rng;
use crate::wire::capability::{Capability, Grant, Right};
use crate::wire::chunk_master::CapabilityKey;
use crate::wire::client_master::LocatedCopy;

/// The chunk of a sample.
pub(crate) const CHUNK: ChunkId = ChunkId(7);

/// A chunk as a whole copy and as each of its parts.
pub(crate) struct Sample {
    pub(crate) stripe: Stripe,
    pub(crate) whole: Vec<u8>,
    parts: Vec<Vec<u8>>,
}

impl Sample {
    /// So many units of noise, one in four of zeros.
    pub(crate) fn new(data: u8, parity: u8, units: u32, seed: u64) -> Self {
        let shape = StripeShape::new(data, parity).expect("supported");
        let stripe = Stripe::new(shape, units * UNIT_SIZE as u32, Epoch(9));
        let mut rng = Rng::new(seed);
        let mut whole = vec![0; units as usize * UNIT_SIZE];
        for unit in whole.chunks_mut(UNIT_SIZE) {
            if !rng.one_in(4) {
                unit.fill_with(|| rng.word() as u8);
            }
        }
        let layout = stripe.layout();
        let lengths = (0..shape.parts()).map(|part| layout.part_length(part) as usize);
        let mut parts: Vec<Vec<u8>> = lengths.map(|length| vec![0; length]).collect();
        let read = |block: u32, into: &mut [u8]| {
            let at = block as usize * BLOCK_SIZE;
            into.copy_from_slice(&whole[at..at + into.len()]);
            Ok::<(), ()>(())
        };
        let write = |part: usize, row: u32, block: &[u8]| {
            let at = row as usize * BLOCK_SIZE;
            parts[part][at..at + block.len()].copy_from_slice(block);
            Ok(())
        };
        encode_chunk(layout, read, write).expect("nothing fails");
        Self {
            stripe,
            whole,
            parts,
        }
    }

    /// Samples of several codes that end at all kinds of places.
    pub(crate) fn several() -> Vec<Self> {
        let codes = [(2, 1), (4, 2), (3, 8), (32, 8)];
        let sizes = [1, 15, 16, 17, 64, 65, 300, 1111];
        let each = |(data, parity)| {
            let numbered = (0..).zip(sizes);
            numbered.map(move |(seed, units)| Self::new(data, parity, units, seed))
        };
        codes.into_iter().flat_map(each).collect()
    }

    /// The numbers of all parts.
    pub(crate) fn numbers(&self) -> Vec<u8> {
        (1..=self.stripe.shape.parts() as u8).collect()
    }

    /// A part, or the copy, on the server of the same number.
    pub(crate) fn source(part: u8) -> LocatedCopy {
        let key = CapabilityKey {
            generation: 1,
            key: vec![1; 32],
        };
        let (server, boot) = (ServerId(u64::from(part)), BootId(1));
        let grant = Grant {
            part: PartId { chunk: CHUNK, part },
            version: ChunkVersion(1),
            epoch: Epoch(0),
            right: Right::Read,
        };
        LocatedCopy {
            server,
            boot,
            address: Address::from("x"),
            capability: Capability::mint(&key, server, boot, grant),
        }
    }

    /// What a part holds, or the copy.
    pub(crate) fn content(&self, part: u8) -> &[u8] {
        match part {
            0 => &self.whole,
            part => &self.parts[usize::from(part) - 1],
        }
    }
}
