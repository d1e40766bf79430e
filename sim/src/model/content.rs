//! The content that programs write: a function of the run's seed, the write and
//! the offset, so that every byte read tells which write it came from.

use antler_core::hash::mix;

/// Names one write of a run; unique in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WriteId(pub u32);

/// Where a byte of a file may come from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Source {
    /// Never written, cut off, or punched out.
    Zero,
    /// A write.
    Write(WriteId),
}

impl Source {
    /// Fills a buffer with what this source holds from `offset` of the file on.
    pub fn fill(self, seed: u64, offset: u64, buffer: &mut [u8]) {
        let Self::Write(write) = self else {
            buffer.fill(0);
            return;
        };
        let (mut at, mut word) = (offset, word(seed, write, offset / 8).to_le_bytes());
        for byte in buffer {
            *byte = word[(at % 8) as usize];
            at += 1;
            if at % 8 == 0 {
                word = self::word(seed, write, at / 8).to_le_bytes();
            }
        }
    }

    /// Whether bytes at `offset` are what this source holds.
    #[must_use]
    pub fn matches(self, seed: u64, offset: u64, bytes: &[u8]) -> bool {
        let mut expected = [0; 512];
        bytes
            .chunks(expected.len())
            .enumerate()
            .all(|(number, piece)| {
                let at = offset + (number * expected.len()) as u64;
                let expected = &mut expected[..piece.len()];
                self.fill(seed, at, expected);
                expected == piece
            })
    }
}

/// Eight bytes of a write's content. Never all zeros in a byte's place by design of
/// the mix, but a zero byte may occur: sources are told apart by runs of bytes.
fn word(seed: u64, write: WriteId, number: u64) -> u64 {
    mix(mix(seed ^ (u64::from(write.0) << 32)) ^ number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_does_not_depend_on_how_it_is_cut() {
        let source = Source::Write(WriteId(7));
        let mut whole = vec![0; 100];
        source.fill(1, 1003, &mut whole);
        for cut in 1..100 {
            let mut parts = vec![0; 100];
            source.fill(1, 1003, &mut parts[..cut]);
            source.fill(1, 1003 + cut as u64, &mut parts[cut..]);
            assert_eq!(parts, whole);
        }
        assert!(source.matches(1, 1003, &whole));
        assert!(!Source::Write(WriteId(8)).matches(1, 1003, &whole));
        assert!(!Source::Zero.matches(1, 1003, &whole));
    }
}
