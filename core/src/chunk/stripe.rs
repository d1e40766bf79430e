//! The parts of one chunk as one conversion made them: what the log, the masters,
//! chunkservers and readers all have to know of them.
//!
//! Owns the numbers; where bytes are is `geometry`'s. Invariant: parts of the same
//! chunk, version and stamp are of one content and one layout, so that any of them go
//! together. A conversion that came to nothing leaves parts of another stamp.

use super::geometry::{Layout, StripeShape};
use crate::ids::Epoch;
use crate::limits::{CHUNK_SIZE, UNIT_SIZE};
use minicbor::{Decode, Encode};

/// Units of a whole chunk.
const UNITS_MAX: u32 = (CHUNK_SIZE / UNIT_SIZE as u64) as u32;

/// In which parts a chunk lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Stripe {
    /// How many.
    #[n(0)]
    pub shape: StripeShape,
    /// Units of 4 KiB that the chunk had when it was converted, the last one whole: what
    /// is valid of it may have been cut since.
    #[n(1)]
    pub units: u32,
    /// Names the conversion: the epoch that its parts have, and no others of the chunk.
    #[n(2)]
    pub stamp: Epoch,
}

impl Stripe {
    /// Of a chunk whose first `valid` bytes count.
    ///
    /// # Panics
    /// When that is more than a chunk.
    #[must_use]
    pub fn new(shape: StripeShape, valid: u32, stamp: Epoch) -> Self {
        let units = valid.div_ceil(UNIT_SIZE as u32);
        assert!(units <= UNITS_MAX, "{valid} bytes are no chunk");
        Self {
            shape,
            units,
            stamp,
        }
    }

    /// Whether it keeps the bounds that the type can't.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        (1..=UNITS_MAX).contains(&self.units)
    }

    /// Where its bytes are.
    ///
    /// # Panics
    /// When it is not sound.
    #[must_use]
    pub fn layout(&self) -> Layout {
        Layout::new(self.shape, u64::from(self.units) * UNIT_SIZE as u64)
    }
}
