//! Fast deterministic hashes of the namespace's entities, for the state's digest
//! and for the cookies of names. Not for protection against an attacker, but a
//! secret seed keeps names that collide from being made on purpose.
//!
//! The digest of a table is the XOR of its entities' hashes: it is kept while
//! the table changes, and does not depend on the order of the changes.

use crate::hash::mix;

const PRIMES: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xe703_7ed1_a0b4_28db];

/// The hash of an entity: a tag for its kind, and its words.
pub(crate) fn words(tag: u64, words: &[u64]) -> u64 {
    let mut hash = mix(tag ^ words.len() as u64);
    for pair in words.chunks(2) {
        let second = pair.get(1).copied().unwrap_or_default();
        hash = multiply(hash ^ pair[0], second ^ PRIMES[0]).wrapping_add(PRIMES[1]);
    }
    mix(hash)
}

/// The hash of bytes, their length included.
pub(crate) fn bytes(seed: u64, bytes: &[u8]) -> u64 {
    let mut hash = mix(seed ^ bytes.len() as u64);
    for piece in bytes.chunks(16) {
        let (first, second) = piece.split_at(piece.len().min(8));
        hash = multiply(hash ^ word(first), word(second) ^ PRIMES[0]).wrapping_add(PRIMES[1]);
    }
    mix(hash)
}

/// Up to 8 bytes as a number.
fn word(bytes: &[u8]) -> u64 {
    match bytes.try_into() {
        Ok(whole) => u64::from_le_bytes(whole),
        Err(_) => (bytes.iter().rev()).fold(0, |word, &byte| word << 8 | u64::from(byte)),
    }
}

/// The two halves of a product, folded.
fn multiply(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    (product >> 64) as u64 ^ product as u64
}
