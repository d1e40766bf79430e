//! The bytes of one simulated file: sparse pages shared between versions.
//!
//! A clone shares every page; a page is copied when one of the versions changes
//! it. Pages of zeros that were written cost no memory but count as space used.

use std::collections::BTreeMap;
use std::rc::Rc;

/// Bytes of a page.
pub(super) const PAGE: u64 = 4096;
/// Bytes of a sector: what a disk writes whole or not at all.
pub(super) const SECTOR: u64 = 512;

type PageBytes = [u8; PAGE as usize];
const ZEROS: &PageBytes = &[0; PAGE as usize];

#[derive(Clone, Debug)]
enum Page {
    Zero,
    Data(Rc<PageBytes>),
}

impl Page {
    fn bytes(&self) -> &PageBytes {
        match self {
            Self::Zero => ZEROS,
            Self::Data(bytes) => bytes,
        }
    }

    fn change(&mut self) -> &mut PageBytes {
        if matches!(self, Self::Zero) {
            *self = Self::Data(Rc::new(*ZEROS));
        }
        match self {
            Self::Data(bytes) => Rc::make_mut(bytes),
            Self::Zero => unreachable!("it was just made data"),
        }
    }
}

/// One version of a file's bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    length: u64,
    pages: BTreeMap<u64, Page>,
}

impl Content {
    /// Bytes of the file.
    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// Pages that take space.
    pub(super) fn pages(&self) -> u64 {
        self.pages.len() as u64
    }

    /// Reads up to the end of the file; what it read.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let left = self.length.saturating_sub(offset);
        let length = (buffer.len() as u64).min(left);
        for (page, from, to, at) in pieces(offset, length) {
            let target = &mut buffer[at..at + (to - from)];
            match self.pages.get(&page) {
                Some(page) => target.copy_from_slice(&page.bytes()[from..to]),
                None => target.fill(0),
            }
        }
        length as usize
    }

    /// Writes, growing the file.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        self.length = self.length.max(offset + data.len() as u64);
        for (page, from, to, at) in pieces(offset, data.len() as u64) {
            let source = &data[at..at + (to - from)];
            let slot = self.pages.entry(page).or_insert(Page::Zero);
            if to - from == PAGE as usize {
                *slot = whole_page(source);
            } else if !(matches!(slot, Page::Zero) && is_zero(source)) {
                slot.change()[from..to].copy_from_slice(source);
            }
        }
    }

    /// Takes the pages of a range over from `other`, which has the same bytes there
    /// or newer ones; shares them instead of copying.
    pub(super) fn share(&mut self, other: &Self, offset: u64, length: u64) {
        for (page, ..) in pieces(offset, length) {
            match other.pages.get(&page) {
                Some(shared) => {
                    self.pages.insert(page, shared.clone());
                }
                None => {
                    self.pages.remove(&page);
                }
            }
        }
        self.length = self.length.max(offset + length);
    }

    /// Sets the length; what is cut off never reappears.
    pub(super) fn truncate(&mut self, length: u64) {
        if length < self.length {
            self.zero(length, self.length - length);
        }
        self.length = length;
    }

    /// Makes a range read as zeros and frees its whole pages.
    pub(super) fn zero(&mut self, offset: u64, length: u64) {
        let whole = offset.div_ceil(PAGE)..(offset + length) / PAGE;
        let edges: Vec<_> = pieces(offset, length)
            .filter(|(page, ..)| !whole.contains(page))
            .collect();
        for (page, from, to, _) in edges {
            if let Some(page @ Page::Data(_)) = self.pages.get_mut(&page) {
                page.change()[from..to].fill(0);
            }
        }
        if whole.start < whole.end {
            let gone: Vec<u64> = self.pages.range(whole).map(|(&page, _)| page).collect();
            for page in gone {
                self.pages.remove(&page);
            }
        }
    }

    /// How many pages a write would add.
    pub(super) fn growth(&self, offset: u64, length: u64) -> u64 {
        pieces(offset, length)
            .filter(|(page, ..)| !self.pages.contains_key(page))
            .count() as u64
    }

    /// The numbers of pages that hold data (not written zeros, not holes).
    pub(super) fn data_pages(&self) -> impl Iterator<Item = u64> {
        self.pages
            .iter()
            .filter(|(_, page)| matches!(page, Page::Data(_)))
            .map(|(&number, _)| number)
    }

    /// Flips one bit, if the page holds data.
    pub(super) fn flip(&mut self, page: u64, bit: usize) {
        if let Some(page @ Page::Data(_)) = self.pages.get_mut(&page) {
            page.change()[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

fn whole_page(source: &[u8]) -> Page {
    if is_zero(source) {
        return Page::Zero;
    }
    let bytes: &PageBytes = source.try_into().expect("the piece is a whole page");
    Page::Data(Rc::new(*bytes))
}

fn is_zero(bytes: &[u8]) -> bool {
    // Most data differs in its first bytes, and whole pages compare by memcmp.
    bytes.first().is_none_or(|&first| first == 0)
        && bytes
            .chunks(PAGE as usize)
            .all(|piece| piece == &ZEROS[..piece.len()])
}

/// Cuts a range at page boundaries: (page, from and to within it, offset in the range).
fn pieces(offset: u64, length: u64) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let end = offset + length;
    let mut at = offset;
    std::iter::from_fn(move || {
        (at < end).then(|| {
            let page = at / PAGE;
            let from = at % PAGE;
            let to = (from + end - at).min(PAGE);
            let piece = (page, from as usize, to as usize, (at - offset) as usize);
            at += to - from;
            piece
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(content: &Content, offset: u64, length: usize) -> Vec<u8> {
        let mut buffer = vec![9; length];
        let read = content.read(offset, &mut buffer);
        buffer.truncate(read);
        buffer
    }

    #[test]
    fn a_gap_and_a_cut_read_as_zeros() {
        let mut content = Content::default();
        content.write(5000, b"abc");
        assert_eq!(bytes(&content, 4998, 10), b"\0\0abc");
        content.truncate(5001);
        content.truncate(5003);
        assert_eq!(bytes(&content, 5000, 10), b"a\0\0");
    }

    #[test]
    fn a_clone_keeps_what_the_original_changes() {
        let mut content = Content::default();
        content.write(0, &[7; 8192]);
        let before = content.clone();
        content.write(100, &[1; 5000]);
        assert_eq!(bytes(&before, 0, 8192), [7; 8192]);
        content.zero(0, 8192);
        assert_eq!(content.pages(), 0);
        assert_eq!(bytes(&content, 0, 8192), [0; 8192]);
    }

    #[test]
    fn written_zeros_take_space_but_hold_no_data() {
        let mut content = Content::default();
        content.write(0, &[0; 3 * 4096]);
        assert_eq!((content.pages(), content.data_pages().count()), (3, 0));
        assert_eq!(content.growth(4096, 4 * 4096), 2);
    }
}
