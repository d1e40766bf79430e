//! What is written: bytes that follow from their name, so that the checker can
//! tell them without a copy, and none of them zero, so that zeros tell a loss.

/// What the checker may find old or new, never mixed, in bytes.
pub(crate) const UNIT: usize = 4096;

/// Names the content of one operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub(crate) struct Label {
    /// The run of the writer.
    pub(crate) run: u64,
    /// Its thread.
    pub(crate) thread: u64,
    /// Tells the kinds of operations apart.
    pub(crate) kind: u64,
    /// Counts within the kind.
    pub(crate) number: u64,
}

impl Label {
    fn seed(self) -> u64 {
        [self.run, self.thread, self.kind, self.number]
            .iter()
            .fold(0, |seed, &part| mix(seed ^ part))
    }

    /// A length that follows from the label: often small, up to `largest` bytes.
    pub(crate) fn length(self, largest: u64) -> u64 {
        let draw = mix(self.seed() ^ 1);
        let bound = match draw % 4 {
            0 => 1,
            1 => largest.min(6000),
            2 => largest.min(70_000),
            _ => largest,
        };
        mix(draw) % bound.max(1) + u64::from(bound > 1)
    }

    /// `length` bytes of content.
    pub(crate) fn bytes(self, length: u64) -> Vec<u8> {
        let mut state = self.seed();
        let mut bytes =
            Vec::with_capacity(usize::try_from(length).expect("a test file fits in memory") + 8);
        while (bytes.len() as u64) < length {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            bytes.extend((mix(state) | 0x0101_0101_0101_0101).to_le_bytes());
        }
        bytes.truncate(usize::try_from(length).expect("just filled"));
        bytes
    }
}

/// Scatters the bits of a number (splitmix64).
pub(crate) fn mix(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
