//! Receiving an image: a member that fell behind the leader's log asks it for the
//! image piece by piece, stores each, and goes on where it stood after any break.
//!
//! Owns the progress of one image; the pieces travel as `PeerMessage`, are stored
//! by `journal::Images`, and the installed state is put in use by `super`.
//! Invariant: the pieces are stored in order without a gap, all of one image of
//! one sender.

use crate::ids::{LogPosition, MemberId};
use crate::time::{Duration, Instant};
use bytes::Bytes;

/// Pieces that are asked for ahead, so that a distant sender's line is full.
const WINDOW: u64 = 4;

/// An image being received.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) from: MemberId,
    pub(super) position: LogPosition,
    piece: u64,
    total: Option<u64>,
    /// Up to here pieces are asked for.
    asked: u64,
    /// Up to here they came.
    received: u64,
    /// Pieces handed to the storage and not yet stored.
    storing: u64,
    heard_at: Instant,
}

impl Fetch {
    pub(super) fn new(now: Instant, from: MemberId, position: LogPosition, piece: usize) -> Self {
        Self {
            from,
            position,
            piece: piece as u64,
            total: None,
            asked: 0,
            received: 0,
            storing: 0,
            heard_at: now,
        }
    }

    /// The offset of the next piece to ask for.
    pub(super) fn poll_wanted(&mut self) -> Option<u64> {
        let ahead = match self.total {
            None => self.piece,
            Some(_) => self.received + self.piece * WINDOW.saturating_sub(self.storing),
        };
        let end = self.total.unwrap_or(1);
        if self.asked >= end || self.asked >= ahead {
            return None;
        }
        let offset = self.asked;
        self.asked += self.piece;
        Some(offset)
    }

    /// A piece came: whether it is to be stored. Another image than the one asked
    /// for begins anew; anything out of order is not wanted (it is asked for again).
    pub(super) fn on_piece(
        &mut self,
        now: Instant,
        position: LogPosition,
        offset: u64,
        total: u64,
        data: &Bytes,
    ) -> bool {
        self.heard_at = now;
        let same = position == self.position && self.total.is_none_or(|known| known == total);
        if !same {
            self.begin_anew(position);
        }
        let fits = offset == self.received
            && !data.is_empty()
            && data.len() as u64 <= total.saturating_sub(offset)
            && self.storing < WINDOW;
        if fits {
            self.total = Some(total);
            self.received += data.len() as u64;
            self.asked = self.asked.max(self.received);
            self.storing += 1;
        }
        fits
    }

    /// A piece is stored.
    pub(super) fn on_stored(&mut self) {
        self.storing = self.storing.saturating_sub(1);
    }

    /// Whether everything came.
    pub(super) fn is_whole(&self) -> bool {
        self.total == Some(self.received)
    }

    /// Asks again from where it stands when nothing came for `patience`.
    pub(super) fn retry(&mut self, now: Instant, patience: Duration) -> bool {
        let silent = now.since(self.heard_at) >= patience;
        if silent && !self.is_whole() {
            self.asked = self.received;
            self.heard_at = now;
        }
        silent
    }

    /// The link broke: what was asked for on it will not come.
    pub(super) fn on_break(&mut self) {
        self.asked = self.received;
    }

    /// Begins with the first byte of another image.
    pub(super) fn begin_anew(&mut self, position: LogPosition) {
        self.position = position;
        (self.total, self.asked, self.received) = (None, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch() -> Fetch {
        Fetch::new(Instant(0), MemberId(1), LogPosition(9), 10)
    }

    fn give(fetch: &mut Fetch, position: u64, offset: u64, length: usize) -> bool {
        let data = Bytes::from(vec![1; length]);
        fetch.on_piece(Instant(1), LogPosition(position), offset, 100, &data)
    }

    #[test]
    fn the_window_opens_once_the_length_is_known() {
        let mut fetch = fetch();
        assert_eq!(fetch.poll_wanted(), Some(0));
        assert_eq!(fetch.poll_wanted(), None);
        assert!(give(&mut fetch, 9, 0, 10));
        let wanted: Vec<u64> = std::iter::from_fn(|| fetch.poll_wanted()).collect();
        assert_eq!(wanted, [10, 20, 30]);
    }

    #[test]
    fn a_break_goes_on_where_it_stood() {
        let mut fetch = fetch();
        fetch.poll_wanted();
        assert!(give(&mut fetch, 9, 0, 10));
        fetch.on_stored();
        while fetch.poll_wanted().is_some() {}
        assert!(!give(&mut fetch, 9, 20, 10), "a piece was lost");
        fetch.on_break();
        assert_eq!(fetch.poll_wanted(), Some(10));
        assert!(give(&mut fetch, 9, 10, 10));
    }

    #[test]
    fn another_image_begins_anew() {
        let mut fetch = fetch();
        fetch.poll_wanted();
        assert!(give(&mut fetch, 9, 0, 10));
        assert!(!give(&mut fetch, 12, 10, 10));
        assert_eq!(fetch.position, LogPosition(12));
        assert_eq!(fetch.poll_wanted(), Some(0));
        assert!(give(&mut fetch, 12, 0, 10));
    }

    #[test]
    fn silence_asks_again() {
        let mut fetch = fetch();
        fetch.poll_wanted();
        assert!(!fetch.retry(Instant(5), Duration::from_nanos(10)));
        assert!(fetch.retry(Instant(10), Duration::from_nanos(10)));
        assert_eq!(fetch.poll_wanted(), Some(0));
    }

    #[test]
    fn a_piece_beyond_the_end_is_not_stored() {
        let mut fetch = fetch();
        assert!(!give(&mut fetch, 9, 0, 101));
    }
}
