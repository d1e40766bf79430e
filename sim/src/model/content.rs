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
        let words = Words::new(seed, write);
        let (head, body) = buffer.split_at_mut(head_of(offset, buffer.len()));
        words.copy(offset, head);
        let first = (offset + head.len() as u64) / 8;
        let mut pieces = body.chunks_exact_mut(8);
        let mut number = first;
        for piece in &mut pieces {
            piece.copy_from_slice(&words.at(number).to_le_bytes());
            number += 1;
        }
        words.copy(number * 8, pieces.into_remainder());
    }

    /// Whether bytes at `offset` are what this source holds.
    #[must_use]
    pub fn matches(self, seed: u64, offset: u64, bytes: &[u8]) -> bool {
        let Self::Write(write) = self else {
            let zeros = [0; 512];
            let mut pieces = bytes.chunks(zeros.len());
            return pieces.all(|piece| piece == &zeros[..piece.len()]);
        };
        let words = Words::new(seed, write);
        let (head, body) = bytes.split_at(head_of(offset, bytes.len()));
        let first = (offset + head.len() as u64) / 8;
        let (body, rest) = body.split_at(body.len() / 8 * 8);
        let end = first + (body.len() / 8) as u64;
        words.is(offset, head) && words.is(end * 8, rest) && words.are(first, body)
    }
}

/// How many bytes lie before the first word that begins in a range.
fn head_of(offset: u64, length: usize) -> usize {
    (offset.wrapping_neg() % 8).min(length as u64) as usize
}

/// The words of a write's content. A zero byte may occur: sources are told apart by
/// runs of bytes.
struct Words(u64);

impl Words {
    fn new(seed: u64, write: WriteId) -> Self {
        Self(mix(seed ^ (u64::from(write.0) << 32)))
    }

    fn at(&self, number: u64) -> u64 {
        mix(self.0 ^ number)
    }

    /// Copies a part of the word in which `offset` lies.
    fn copy(&self, offset: u64, part: &mut [u8]) {
        let word = self.at(offset / 8).to_le_bytes();
        let from = (offset % 8) as usize;
        part.copy_from_slice(&word[from..from + part.len()]);
    }

    /// Whether whole words from one on are this. Looks for a difference only after
    /// every so many: the words between don't wait for each other.
    fn are(&self, first: u64, words: &[u8]) -> bool {
        const AT_ONCE: usize = 64;
        let mut number = first;
        words.chunks(AT_ONCE * 8).all(|some| {
            let mut differing = 0;
            for word in some.chunks_exact(8) {
                let word: [u8; 8] = word.try_into().expect("a whole word");
                differing |= u64::from_le_bytes(word) ^ self.at(number);
                number += 1;
            }
            differing == 0
        })
    }

    fn is(&self, offset: u64, part: &[u8]) -> bool {
        let mut expected = [0; 8];
        self.copy(offset, &mut expected[..part.len()]);
        expected[..part.len()] == *part
    }
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
