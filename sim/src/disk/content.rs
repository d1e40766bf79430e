//! The bytes of one simulated file: sparse pages shared between versions.
//!
//! A clone shares every page, in groups; a page and its group are copied when one of
//! the versions changes it. Pages of zeros that were written cost no memory but
//! count as space used.

use bytes::BytesMut;
use std::rc::Rc;

/// Bytes of a page.
pub(super) const PAGE: u64 = 4096;
/// Bytes of a sector: what a disk writes whole or not at all.
pub(super) const SECTOR: u64 = 512;

/// Pages of a group.
const GROUP: u64 = 64;

type PageBytes = [u8; PAGE as usize];
const ZEROS: &PageBytes = &[0; PAGE as usize];

#[derive(Clone, Debug, Default)]
enum Page {
    /// Takes no space.
    #[default]
    Hole,
    Zero,
    Data(Rc<PageBytes>),
}

impl Page {
    fn bytes(&self) -> &PageBytes {
        match self {
            Self::Hole | Self::Zero => ZEROS,
            Self::Data(bytes) => bytes,
        }
    }

    fn takes_space(&self) -> bool {
        !matches!(self, Self::Hole)
    }

    fn change(&mut self) -> &mut PageBytes {
        if !matches!(self, Self::Data(_)) {
            *self = Self::Data(page_of(ZEROS));
        }
        match self {
            Self::Data(bytes) => Rc::make_mut(bytes),
            _ => unreachable!("it was just made data"),
        }
    }
}

/// Consecutive pages, the first one's number a multiple of `GROUP`.
#[derive(Clone, Debug)]
struct Group([Page; GROUP as usize]);

impl Group {
    fn new() -> Rc<Self> {
        Rc::new(Self(std::array::from_fn(|_| Page::Hole)))
    }
}

/// Bytes to be written: whole pages are shared with the versions that take them.
#[derive(Clone, Debug)]
pub(super) struct Data {
    offset: u64,
    length: u64,
    /// What each page that is touched gets, in order.
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
enum Piece {
    Whole(Page),
    Part(Rc<[u8]>),
}

impl Data {
    pub(super) fn new(offset: u64, data: &[u8]) -> Self {
        let length = data.len() as u64;
        let cut = |(_, from, to, at): (u64, usize, usize, usize)| {
            let source = &data[at..at + (to - from)];
            match to - from == PAGE as usize {
                true => Piece::Whole(whole_page(source)),
                false => Piece::Part(Rc::from(source)),
            }
        };
        Self {
            offset,
            length,
            pieces: pieces(offset, length).map(cut).collect(),
        }
    }

    /// Where it begins in the file.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Its bytes.
    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// Bytes from one offset in the file up to another one in the same page.
    pub(super) fn within(&self, from: u64, to: u64) -> &[u8] {
        let page = from / PAGE;
        let begins = (page * PAGE).max(self.offset);
        let range = (from - begins) as usize..(to - begins) as usize;
        match &self.pieces[(page - self.offset / PAGE) as usize] {
            Piece::Whole(page) => &page.bytes()[range],
            Piece::Part(bytes) => &bytes[range],
        }
    }
}

/// One version of a file's bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    length: u64,
    groups: Vec<Option<Rc<Group>>>,
    /// Pages that take space.
    pages: u64,
}

impl Content {
    /// Bytes of the file.
    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// Pages that take space.
    pub(super) fn pages(&self) -> u64 {
        self.pages
    }

    fn page(&self, number: u64) -> &Page {
        let group = self.groups.get((number / GROUP) as usize);
        match group {
            Some(Some(group)) => &group.0[(number % GROUP) as usize],
            _ => &Page::Hole,
        }
    }

    /// Puts a page; what takes space is counted.
    fn put(&mut self, number: u64, page: Page) {
        if !page.takes_space() && !self.page(number).takes_space() {
            return;
        }
        self.change(number, |slot| *slot = page);
    }

    /// Changes a page in this version alone.
    fn change(&mut self, number: u64, change: impl FnOnce(&mut Page)) {
        let at = (number / GROUP) as usize;
        if self.groups.len() <= at {
            self.groups.resize(at + 1, None);
        }
        let group = Rc::make_mut(self.groups[at].get_or_insert_with(Group::new));
        let slot = &mut group.0[(number % GROUP) as usize];
        let before = u64::from(slot.takes_space());
        change(slot);
        self.pages = self.pages + u64::from(slot.takes_space()) - before;
    }

    /// Reads up to the end of the file; what it read.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let left = self.length.saturating_sub(offset);
        let length = (buffer.len() as u64).min(left);
        for (page, from, to, at) in pieces(offset, length) {
            let source = &self.page(page).bytes()[from..to];
            buffer[at..at + (to - from)].copy_from_slice(source);
        }
        length as usize
    }

    /// Reads up to the end of the file, behind what the buffer holds; what it read.
    pub(super) fn read_onto(&self, offset: u64, length: u64, buffer: &mut BytesMut) -> usize {
        let length = length.min(self.length.saturating_sub(offset));
        buffer.reserve(length as usize);
        for (page, from, to, _) in pieces(offset, length) {
            buffer.extend_from_slice(&self.page(page).bytes()[from..to]);
        }
        length as usize
    }

    /// Writes, growing the file.
    pub(super) fn write(&mut self, data: &Data) {
        self.length = self.length.max(data.offset + data.length);
        let pages = pieces(data.offset, data.length).zip(&data.pieces);
        for ((page, from, ..), piece) in pages {
            match piece {
                Piece::Whole(whole) => self.put(page, whole.clone()),
                Piece::Part(source) => self.change(page, |slot| write_piece(slot, from, source)),
            }
        }
    }

    /// Writes a part of what was to be written, within one page.
    pub(super) fn write_within(&mut self, data: &Data, from: u64, to: u64) {
        self.length = self.length.max(to);
        let source = data.within(from, to);
        let at = (from % PAGE) as usize;
        self.change(from / PAGE, |slot| write_piece(slot, at, source));
    }

    /// Takes the pages of a range over from `other`, which has the same bytes there
    /// or newer ones; shares them instead of copying.
    pub(super) fn share(&mut self, other: &Self, offset: u64, length: u64) {
        for (page, ..) in pieces(offset, length) {
            self.put(page, other.page(page).clone());
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
        for (page, from, to, _) in pieces(offset, length) {
            if to - from == PAGE as usize {
                self.put(page, Page::Hole);
            } else if matches!(self.page(page), Page::Data(_)) {
                self.change(page, |slot| slot.change()[from..to].fill(0));
            }
        }
    }

    /// How many pages a write would add.
    pub(super) fn growth(&self, offset: u64, length: u64) -> u64 {
        pieces(offset, length)
            .filter(|(page, ..)| !self.page(*page).takes_space())
            .count() as u64
    }

    /// The numbers of pages that hold data (not written zeros, not holes).
    pub(super) fn data_pages(&self) -> impl Iterator<Item = u64> {
        let groups = (0..).step_by(GROUP as usize).zip(&self.groups);
        groups.flat_map(|(first, group)| {
            let pages = group.iter().flat_map(|group| &group.0);
            (first..)
                .zip(pages)
                .filter(|(_, page)| matches!(page, Page::Data(_)))
                .map(|(number, _)| number)
        })
    }

    /// Flips one bit, if the page holds data.
    pub(super) fn flip(&mut self, page: u64, bit: usize) {
        if matches!(self.page(page), Page::Data(_)) {
            self.change(page, |slot| slot.change()[bit / 8] ^= 1 << (bit % 8));
        }
    }
}

/// Writes a part of a page.
fn write_piece(slot: &mut Page, from: usize, source: &[u8]) {
    if matches!(slot, Page::Data(_)) || !is_zero(source) {
        slot.change()[from..from + source.len()].copy_from_slice(source);
    } else {
        *slot = Page::Zero;
    }
}

fn whole_page(source: &[u8]) -> Page {
    if is_zero(source) {
        return Page::Zero;
    }
    Page::Data(page_of(source))
}

/// A page's bytes, copied once: `Rc::new` of an array would pass it over the stack.
fn page_of(source: &[u8]) -> Rc<PageBytes> {
    let bytes: Rc<[u8]> = Rc::from(source);
    bytes.try_into().expect("the piece is a whole page")
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
        let mut same = BytesMut::from(&b"before"[..]);
        assert_eq!(content.read_onto(offset, length as u64, &mut same), read);
        assert_eq!(same[6..], buffer);
        buffer
    }

    #[test]
    fn a_gap_and_a_cut_read_as_zeros() {
        let mut content = Content::default();
        content.write(&Data::new(5000, b"abc"));
        assert_eq!(bytes(&content, 4998, 10), b"\0\0abc");
        content.truncate(5001);
        content.truncate(5003);
        assert_eq!(bytes(&content, 5000, 10), b"a\0\0");
    }

    #[test]
    fn a_clone_keeps_what_the_original_changes() {
        let mut content = Content::default();
        content.write(&Data::new(0, &[7; 8192]));
        let before = content.clone();
        content.write(&Data::new(100, &[1; 5000]));
        assert_eq!(bytes(&before, 0, 8192), [7; 8192]);
        content.zero(0, 8192);
        assert_eq!(content.pages(), 0);
        assert_eq!(bytes(&content, 0, 8192), [0; 8192]);
    }

    #[test]
    fn a_part_of_a_write_is_written_alone() {
        let bytes_of: Vec<u8> = (0..10_000u32).map(|at| (at % 251) as u8).collect();
        let data = Data::new(1000, &bytes_of);
        let mut content = Content::default();
        for (from, to) in [(1000, 1024), (4096, 4608), (8192, 8704)] {
            content.write_within(&data, from, to);
            let expected = &bytes_of[from as usize - 1000..to as usize - 1000];
            assert_eq!(bytes(&content, from, (to - from) as usize), expected);
        }
        assert_eq!(bytes(&content, 5000, 100), [0; 100]);
    }

    #[test]
    fn written_zeros_take_space_but_hold_no_data() {
        let mut content = Content::default();
        content.write(&Data::new(0, &[0; 3 * 4096]));
        assert_eq!((content.pages(), content.data_pages().count()), (3, 0));
        assert_eq!(content.growth(4096, 4 * 4096), 2);
    }
}
