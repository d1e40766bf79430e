//! Deterministic hashing: digests that must be the same on every machine and
//! in every run. Not for protection against an attacker.

/// An incremental 64-bit digest (FNV-1a over words with a final mix).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    /// Takes one number in.
    #[inline]
    pub fn word(&mut self, word: u64) -> &mut Self {
        self.0 = mix(self.0 ^ word);
        self
    }

    /// Takes bytes in, their length included.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.word(bytes.len() as u64);
        for piece in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..piece.len()].copy_from_slice(piece);
            self.word(u64::from_le_bytes(word));
        }
        self
    }

    /// The digest of everything taken in so far.
    #[must_use]
    pub fn finish(&self) -> u64 {
        mix(self.0)
    }
}

/// A bijective mix of 64 bits (the finalizer of SplitMix64; Steele et al. 2014).
#[must_use]
#[inline]
pub fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// The digest of one byte string.
#[must_use]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    Digest::default().bytes(bytes).finish()
}
