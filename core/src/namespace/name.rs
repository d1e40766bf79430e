//! Byte strings of at most 64 KiB that are mostly short: names and attributes.
//!
//! Owns their compact form: up to INLINE bytes stand where the string stands,
//! longer ones on the heap. Ordered as their bytes are.

use std::cmp::Ordering;
use std::fmt;

/// Bytes that need no allocation.
const INLINE: usize = 22;

/// A byte string.
#[derive(Clone)]
pub(crate) enum Name {
    Inline { len: u8, bytes: [u8; INLINE] },
    Heap(Box<[u8]>),
}

const _: () = assert!(size_of::<Name>() == 24, "a name is three words");

impl Name {
    /// A copy of some bytes.
    pub(crate) fn new(from: &[u8]) -> Self {
        if from.len() > INLINE {
            return Self::Heap(from.into());
        }
        let mut bytes = [0; INLINE];
        bytes[..from.len()].copy_from_slice(from);
        let len = u8::try_from(from.len()).expect("short as it is");
        Self::Inline { len, bytes }
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Self::Heap(bytes) => bytes,
        }
    }

    /// Bytes that it takes on the heap, rounded as an allocator does.
    pub(crate) fn heap(&self) -> usize {
        match self {
            Self::Inline { .. } => 0,
            Self::Heap(bytes) => heap_of(bytes.len()),
        }
    }
}

/// Bytes of the heap that an allocation of `len` bytes takes.
pub(crate) fn heap_of(len: usize) -> usize {
    (len + 8).next_multiple_of(16).max(32)
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes().cmp(other.bytes())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.bytes().escape_ascii())
    }
}

impl<C> minicbor::Encode<C> for Name {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.bytes(self.bytes())?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Name {
    fn decode(
        decoder: &mut minicbor::Decoder<'b>,
        _: &mut C,
    ) -> Result<Self, minicbor::decode::Error> {
        Ok(Self::new(decoder.bytes()?))
    }
}
