//! Which images a member has, when the next one is due, and who is sent one.
//!
//! Owns the plan; the bytes are written and read by `journal::Images`. Invariant:
//! the log is shortened only behind the image before the newest, so that a
//! damaged newest one loses nothing and a slow member finds what it lacks.

use super::store::StoredImage;
use crate::ids::{LogPosition, MemberId, Token};
use crate::time::Instant;
use std::collections::{BTreeMap, VecDeque};

/// A large state is imaged after more log: so much of its memory, up to so much log.
const LOG_SHARE_OF_MEMORY: u64 = 8;
const LOG_BYTES_CEILING: u64 = 4 << 30;
/// Pieces that wait to be read for one member; more are dropped and asked for again.
const WAITING_MAX: usize = 8;

/// A piece that a member wants.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Wanted {
    pub(super) member: MemberId,
    pub(super) position: LogPosition,
    pub(super) offset: u64,
}

/// The images of one member.
#[derive(Debug)]
pub(super) struct ImagePlan {
    log_bytes_max: u64,
    log_bytes: u64,
    /// What the image that is being written will cover of `log_bytes`.
    covered_bytes: u64,
    newest: LogPosition,
    previous: LogPosition,
    writing: Option<(Token, StoredImage)>,
    not_before: Instant,
    waiting: VecDeque<Wanted>,
    reading: Option<(Token, Wanted)>,
    served_at: BTreeMap<MemberId, Instant>,
}

impl ImagePlan {
    pub(super) fn new(log_bytes_max: u64, newest: LogPosition) -> Self {
        Self {
            log_bytes_max,
            log_bytes: 0,
            covered_bytes: 0,
            newest,
            previous: newest,
            writing: None,
            not_before: Instant(0),
            waiting: VecDeque::new(),
            reading: None,
            served_at: BTreeMap::new(),
        }
    }

    /// An entry of `bytes` was applied.
    pub(super) fn on_applied(&mut self, bytes: usize) {
        self.log_bytes += bytes as u64;
    }

    /// Whether an image of the state at `applied`, of so many bytes of `memory`,
    /// should be written now: writing it must not cost much more than the log did.
    pub(super) fn is_due(&self, now: Instant, applied: LogPosition, memory: u64) -> bool {
        let share = (memory / LOG_SHARE_OF_MEMORY).min(LOG_BYTES_CEILING);
        self.log_bytes >= self.log_bytes_max.max(share)
            && self.writing.is_none()
            && applied > self.newest
            && now >= self.not_before
    }

    /// An image is being written.
    pub(super) fn begin_write(&mut self, token: Token, image: StoredImage) {
        assert!(self.writing.is_none(), "one image is written at a time");
        self.covered_bytes = std::mem::take(&mut self.log_bytes);
        self.writing = Some((token, image));
    }

    /// The image that was being written under this token.
    pub(super) fn take_write(&mut self, token: Token) -> Option<StoredImage> {
        self.writing
            .take_if(|(of, _)| *of == token)
            .map(|(_, image)| image)
    }

    /// There was no space for it: again after a while.
    pub(super) fn postpone(&mut self, until: Instant) {
        self.log_bytes += std::mem::take(&mut self.covered_bytes);
        self.not_before = until;
    }

    /// An image is durable. Up to where the log may be forgotten; `None` when a
    /// newer one was installed meanwhile.
    pub(super) fn on_written(&mut self, position: LogPosition) -> Option<LogPosition> {
        if position <= self.newest {
            return None;
        }
        self.previous = self.newest;
        self.newest = position;
        Some(self.previous)
    }

    /// An image from another member is in use, with an empty log behind it.
    pub(super) fn on_installed(&mut self, position: LogPosition) {
        (self.previous, self.newest, self.log_bytes) = (position, position, 0);
    }

    /// A member wants a piece.
    pub(super) fn want(&mut self, now: Instant, wanted: Wanted) {
        self.served_at.insert(wanted.member, now);
        let queued = self
            .waiting
            .iter()
            .filter(|other| other.member == wanted.member);
        if queued.count() < WAITING_MAX && !self.waiting.contains(&wanted) {
            self.waiting.push_back(wanted);
        }
    }

    /// The next piece to read, if none is being read.
    pub(super) fn poll_read(&mut self, token: Token) -> Option<Wanted> {
        if self.reading.is_some() {
            return None;
        }
        let wanted = self.waiting.pop_front()?;
        self.reading = Some((token, wanted));
        Some(wanted)
    }

    /// The piece that was being read under this token.
    pub(super) fn take_read(&mut self, token: Token) -> Option<Wanted> {
        self.reading
            .take_if(|(of, _)| *of == token)
            .map(|(_, wanted)| wanted)
    }

    /// When a member last asked for a piece.
    pub(super) fn served_at(&self, member: MemberId) -> Option<Instant> {
        self.served_at.get(&member).copied()
    }

    /// A member is being told of an image: it has from now on to ask for it.
    pub(super) fn begin_serving(&mut self, now: Instant, member: MemberId) {
        self.served_at.insert(member, now);
    }
}

#[cfg(test)]
mod tests {
    use super::super::raft_codec::conf_state;
    use super::*;

    fn image(index: u64) -> StoredImage {
        StoredImage {
            index,
            term: 1,
            conf: conf_state(&[1], &[]),
        }
    }

    #[test]
    fn the_log_is_kept_back_to_the_image_before() {
        let mut plan = ImagePlan::new(100, LogPosition(0));
        plan.on_applied(100);
        assert!(plan.is_due(Instant(0), LogPosition(5), 800));
        assert!(
            !plan.is_due(Instant(0), LogPosition(5), 900),
            "a large state waits"
        );
        plan.begin_write(Token(1), image(5));
        assert!(!plan.is_due(Instant(0), LogPosition(6), 0));
        assert!(plan.take_write(Token(2)).is_none());
        assert!(plan.take_write(Token(1)).is_some());
        assert_eq!(plan.on_written(LogPosition(5)), Some(LogPosition(0)));
        assert_eq!(plan.on_written(LogPosition(9)), Some(LogPosition(5)));
        plan.on_installed(LogPosition(50));
        assert_eq!(plan.on_written(LogPosition(20)), None);
    }

    #[test]
    fn one_piece_is_read_at_a_time_and_the_queue_is_bounded() {
        let mut plan = ImagePlan::new(100, LogPosition(0));
        for offset in 0..20 {
            plan.want(
                Instant(1),
                Wanted {
                    member: MemberId(2),
                    position: LogPosition(5),
                    offset,
                },
            );
        }
        assert!(plan.poll_read(Token(1)).is_some());
        assert!(plan.poll_read(Token(2)).is_none());
        assert!(plan.take_read(Token(1)).is_some());
        let rest = (2..100).filter(|&token| {
            let more = plan.poll_read(Token(token)).is_some();
            plan.take_read(Token(token));
            more
        });
        assert_eq!(rest.count(), WAITING_MAX - 1);
    }
}
