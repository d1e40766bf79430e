//! Fetching a range of a chunk from its copies: the nearest first, a slow one
//! hedged by the next, a failing or corrupt one replaced, and everything anew after
//! a pause when none could serve. Checksums are verified here once more. Of a chunk in
//! parts several are asked at once (`parts` says which).
//!
//! Invariants: a fetch ends once, with data that passed its checksums or with an error;
//! a copy is asked only while what told of it may still be believed (P6).

use super::Client;
use super::file::{ChunkWrite, Lease};
use super::locate::Waiter;
use super::parts::Parts;
use super::request::Handle;
use super::servers::{ChunkOutcome, ChunkThen};
use super::timers::Timer;
use super::write::Place;
use crate::attributes::Credentials;
use crate::errno::Errno;
use crate::ids::{ChunkVersion, Epoch, InodeId, ServerId};
use crate::limits::UNIT_SIZE;
use crate::marks::Mark;
use crate::time::Instant;
use crate::wire::client_chunk::{ChunkErrorKind, ChunkReplyBody, ChunkRequestBody};
use crate::wire::client_master::{LocatedChunk, LocatedCopy, Query};
use bytes::Bytes;

/// Who waits for a fetch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reader {
    /// A part of a read.
    Part { read: u64, part: usize },
    /// The read-ahead of a handle, at this offset of the file.
    Ahead { handle: Handle, at: u64 },
}

/// What told of the copies of a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    /// The leader, which pushes when that is no longer so.
    Leader,
    /// The lease of this epoch that is held here.
    Lease(Epoch),
    /// Nobody any more.
    Past,
}

/// A range of whole units of a chunk, being fetched.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) place: Place,
    pub(super) offset: u32,
    pub(super) length: u32,
    pub(super) readers: Vec<Reader>,
    /// The copies of this round, best first.
    copies: Vec<LocatedCopy>,
    /// How many of them were asked.
    asked: usize,
    /// Of them, how many have not answered.
    under_way: usize,
    /// What told of the copies.
    told: Told,
    /// Of a chunk in parts.
    parts: Option<Box<Parts>>,
    /// Numbers what was asked of parts, in all rounds.
    next_ask: u64,
    /// Bytes of the chunk from here on read as zeros.
    valid: u32,
    rounds: u32,
    since: Instant,
}

impl Client {
    /// Starts a fetch of `offset..offset + length` of a chunk (whole units).
    pub(super) fn fetch(&mut self, place: Place, offset: u32, length: u32, reader: Reader) -> u64 {
        let id = self.next_fetch;
        self.next_fetch += 1;
        let fetch = Fetch {
            place,
            offset,
            length,
            readers: vec![reader],
            copies: Vec::new(),
            asked: 0,
            under_way: 0,
            told: Told::Past,
            parts: None,
            next_ask: 0,
            valid: 0,
            rounds: 0,
            since: self.now.mono,
        };
        self.fetches.insert(id, fetch);
        id
    }

    /// Finds the copies of a fetch and asks the best.
    pub(super) fn start_fetch(&mut self, id: u64) {
        let Some(fetch) = self.fetches.get(&id) else {
            return;
        };
        let (place, rounds, offset) = (fetch.place, fetch.rounds, fetch.offset);
        let own = self.own_source(place, rounds);
        // That there is nothing is for the leader to say: no copy would tell that the lease
        // is void.
        let own = own.filter(|(_, source)| source.valid > offset);
        if let Some((epoch, source)) = own {
            self.begin_round(id, Told::Lease(epoch), source);
        } else if let Some(source) = self.cached_location(place).filter(|_| rounds == 0) {
            self.on_fetch_located(id, Ok(source));
        } else {
            self.locate(place.0, place.1, Waiter::Fetch(id));
        }
    }

    /// The copies of a lease that is held here and written under: they have its
    /// version. Every second round asks the leader instead. Of a lease on its way back the
    /// leader knows more: another mount may have cut the file by now.
    fn own_source(&self, place: Place, rounds: u32) -> Option<(Epoch, LocatedChunk)> {
        let chunk = self.chunk(place).filter(|chunk| is_kept(chunk))?;
        let grant = chunk.held()?;
        if !(chunk.is_acknowledged && rounds.is_multiple_of(2) && self.may_use_cache()) {
            return None;
        }
        let source = LocatedChunk {
            index: place.1,
            chunk: Some(grant.chunk),
            valid: chunk.written_end,
            copies: grant.copies.clone(),
            stripe: None,
        };
        Some((grant.epoch, source))
    }

    /// What was told of a file's copies, or of all, is no longer so: of fetches under way
    /// too, which ask no further copy by it.
    pub(super) fn outdate_fetches(&mut self, inode: Option<InodeId>) {
        let fetches = self.fetches.values_mut();
        for fetch in fetches.filter(|fetch| inode.is_none_or(|inode| fetch.place.0 == inode)) {
            if fetch.told == Told::Leader {
                fetch.told = Told::Past;
            }
        }
    }

    /// Whether a fetch may ask the copies that it was told of.
    pub(super) fn may_ask_copies(&self, id: u64) -> bool {
        let Some(fetch) = self.fetches.get(&id) else {
            return false;
        };
        let held = self.chunk(fetch.place).and_then(ChunkWrite::held);
        let is_so = match fetch.told {
            Told::Leader => true,
            Told::Lease(epoch) => held.is_some_and(|grant| grant.epoch == epoch),
            Told::Past => false,
        };
        is_so && self.may_use_cache()
    }

    pub(super) fn on_fetch_located(&mut self, id: u64, result: Result<LocatedChunk, Errno>) {
        let Some(fetch) = self.fetches.get(&id) else {
            return;
        };
        let place = fetch.place;
        match result {
            Err(errno) => self.end_fetch(id, Err(errno)),
            Ok(mut source) => {
                // What was acknowledged here is not committed yet.
                let same = |chunk: &&ChunkWrite| chunk.chunk() == source.chunk && is_kept(chunk);
                let written = self.chunk(place).filter(same);
                let written = written.map_or(0, |chunk| chunk.written_end);
                if source.chunk.is_some() {
                    source.valid = source.valid.max(written);
                }
                self.begin_round(id, Told::Leader, source);
            }
        }
    }

    fn begin_round(&mut self, id: u64, told: Told, source: LocatedChunk) {
        let mut copies = source.copies;
        let now = self.now.mono;
        // A stable sort: nearest first among those that did not just fail.
        copies.sort_by_key(|copy| self.servers.is_doubtful(&copy.address, now));
        let fetch = self.fetches.get_mut(&id).expect("the caller found it");
        if source.chunk.is_none() || source.valid <= fetch.offset {
            return self.end_fetch(id, Ok(Bytes::new()));
        }
        fetch.valid = source.valid;
        fetch.copies = copies;
        fetch.told = told;
        fetch.asked = 0;
        fetch.under_way = 0;
        fetch.parts = None;
        if let Some(stripe) = source.stripe {
            let range = fetch.offset..fetch.offset + asked_length(fetch);
            let mut parts = Parts::new(stripe, &fetch.copies, range);
            if let Some(parts) = &mut parts {
                parts.avoid(|copy| self.servers.is_doubtful(&copy.address, now));
            }
            fetch.parts = parts.map(Box::new);
            return match fetch.parts {
                Some(_) => self.ask_parts(id),
                None => self.rest_fetch(id),
            };
        }
        self.ask_next_copy(id);
    }

    /// Asks the parts that this round still takes.
    fn ask_parts(&mut self, id: u64) {
        if !self.may_ask_copies(id) {
            return self.rest_fetch(id);
        }
        let fetch = self.fetches.get_mut(&id).expect("the caller found it");
        let parts = fetch.parts.as_mut().expect("it is of parts");
        let Some(asks) = parts.ask(&mut fetch.next_ask) else {
            return self.rest_fetch(id);
        };
        let hedge = !asks.is_empty();
        for (number, read, source) in asks {
            let body = ChunkRequestBody::Read {
                offset: read.range.start,
                length: read.range.end - read.range.start,
            };
            let then = ChunkThen::Part {
                fetch: id,
                server: source.server,
                number,
            };
            self.ask_chunk(&source, Vec::new(), body, Bytes::new(), then);
        }
        if hedge {
            let at = self.now.mono + self.config.limits.hedge_delay;
            self.timers.set(Timer::Hedge(id), at);
        }
        // What came before may do already.
        self.try_assemble(id);
    }

    /// A part answered, or its link broke.
    pub(super) fn on_part_outcome(
        &mut self,
        id: u64,
        (server, number): (ServerId, u64),
        outcome: ChunkOutcome,
    ) {
        let Some(fetch) = self.fetches.get_mut(&id) else {
            return;
        };
        let version = version_at(&fetch.copies, server);
        let Some(parts) = &mut fetch.parts else {
            return;
        };
        // A late answer of an earlier round may be of other parts.
        let Some(read) = parts.answered(number) else {
            return;
        };
        let bad = match outcome {
            Ok((
                ChunkReplyBody::Read {
                    checksums,
                    version: has,
                    ..
                },
                data,
            )) if Some(has) == version => {
                if data.len() == read.range.len() && is_right(&checksums, &data) {
                    parts.take(read, data);
                    return self.try_assemble(id);
                }
                true
            }
            Err(error) => error.kind == ChunkErrorKind::Corrupt,
            Ok(_) => false,
        };
        parts.fail(server);
        if bad {
            self.report_bad_copy(id, server, None);
        }
        self.marks.reach(Mark::ReadRetried);
        if !self.timers.is_set(Timer::Fetch(id)) {
            self.ask_parts(id);
        }
    }

    fn try_assemble(&mut self, id: u64) {
        let fetch = self.fetches.get_mut(&id).expect("the caller found it");
        let parts = fetch.parts.as_mut().expect("it is of parts");
        let Some(data) = parts.assemble() else {
            return;
        };
        let decoded = parts.was_decoded();
        let end = fetch.valid.saturating_sub(fetch.offset) as usize;
        let data = data.slice(..data.len().min(end));
        if decoded {
            self.marks.reach(Mark::ReadDecoded);
        }
        self.end_fetch(id, Ok(data));
    }

    /// Asks the next copy of this round, if there is one; looks for them anew when what
    /// told of them is past.
    fn ask_next_copy(&mut self, id: u64) {
        if !self.may_ask_copies(id) {
            return self.rest_fetch(id);
        }
        let fetch = self.fetches.get_mut(&id).expect("the caller found it");
        let Some(copy) = fetch.copies.get(fetch.asked).cloned() else {
            if fetch.under_way == 0 {
                self.rest_fetch(id);
            }
            return;
        };
        fetch.asked += 1;
        fetch.under_way += 1;
        let body = ChunkRequestBody::Read {
            offset: fetch.offset,
            length: asked_length(fetch),
        };
        let more = fetch.asked < fetch.copies.len();
        let then = ChunkThen::Fetch {
            fetch: id,
            server: copy.server,
        };
        self.ask_chunk(&copy, Vec::new(), body, Bytes::new(), then);
        if more {
            let at = self.now.mono + self.config.limits.hedge_delay;
            self.timers.set(Timer::Hedge(id), at);
        }
    }

    /// The copy asked last is slow: the next is asked beside it.
    pub(super) fn on_hedge_due(&mut self, id: u64) {
        let Some(fetch) = self.fetches.get_mut(&id) else {
            return;
        };
        self.marks.reach(Mark::ReadHedged);
        match &mut fetch.parts {
            Some(parts) => {
                parts.hedge();
                self.ask_parts(id);
            }
            None => self.ask_next_copy(id),
        }
    }

    /// No copy could serve, or none may be asked: everything is tried anew after a pause.
    fn rest_fetch(&mut self, id: u64) {
        let fetch = self.fetches.get_mut(&id).expect("the caller found it");
        fetch.rounds += 1;
        let (rounds, since, place) = (fetch.rounds, fetch.since, fetch.place);
        self.cache.forget_location(place);
        let patience = self.config.retry_for;
        if patience.is_some_and(|patience| self.now.mono.since(since) >= patience) {
            return self.end_fetch(id, Err(Errno::EIO));
        }
        self.timers.cancel(Timer::Hedge(id));
        let at = self.now.mono + self.backoff(rounds);
        self.timers.set(Timer::Fetch(id), at);
    }

    /// A copy answered, or its link broke.
    pub(super) fn on_fetch_outcome(&mut self, id: u64, server: ServerId, outcome: ChunkOutcome) {
        let Some(fetch) = self.fetches.get_mut(&id) else {
            return;
        };
        // A late answer of an earlier round counts for this one if it is good.
        fetch.under_way = fetch.under_way.saturating_sub(1);
        match outcome {
            Ok((
                ChunkReplyBody::Read {
                    checksums, version, ..
                },
                data,
            )) => {
                if is_whole(fetch, &checksums, &data) {
                    let end = fetch.valid.saturating_sub(fetch.offset) as usize;
                    let data = data.slice(..data.len().min(end));
                    return self.end_fetch(id, Ok(data));
                }
                self.report_bad_copy(id, server, Some(version));
            }
            Err(error) if error.kind == ChunkErrorKind::Corrupt => {
                self.report_bad_copy(id, server, None);
            }
            _ => {}
        }
        self.marks.reach(Mark::ReadRetried);
        if !self.timers.is_set(Timer::Fetch(id)) {
            self.ask_next_copy(id);
        }
    }

    fn report_bad_copy(&mut self, id: u64, server: ServerId, version: Option<ChunkVersion>) {
        let fetch = &self.fetches[&id];
        let Some(copy) = fetch.copies.iter().find(|copy| copy.server == server) else {
            return;
        };
        let query = Query::BadCopy {
            part: copy.capability.part,
            version: version.unwrap_or(copy.capability.version),
            server,
        };
        self.ask(&Credentials::default(), query, super::then::Then::Reported);
    }

    /// Hands the data to whoever waits; what it lacks in length reads as zeros.
    fn end_fetch(&mut self, id: u64, result: Result<Bytes, Errno>) {
        let fetch = self.fetches.remove(&id).expect("the caller found it");
        self.timers.cancel(Timer::Hedge(id));
        self.timers.cancel(Timer::Fetch(id));
        for reader in &fetch.readers {
            match *reader {
                Reader::Part { read, part } => {
                    self.on_part_fetched(read, part, fetch.offset, result.clone());
                }
                Reader::Ahead { handle, at } => {
                    self.on_ahead_fetched(handle, at, id, result.clone());
                }
            }
        }
    }
}

/// Whether a chunk's lease is not on its way back.
fn is_kept(chunk: &ChunkWrite) -> bool {
    chunk.lease != Lease::Ending
}

/// How much of a fetch holds content that the copies have.
fn asked_length(fetch: &Fetch) -> u32 {
    let unit = u32::try_from(UNIT_SIZE).expect("a unit is small");
    let content = fetch.valid.next_multiple_of(unit) - fetch.offset;
    content.min(fetch.length)
}

/// Whether a reply is what was asked for and every unit's checksum is right.
fn is_whole(fetch: &Fetch, checksums: &[u32], data: &Bytes) -> bool {
    data.len() == asked_length(fetch) as usize && is_right(checksums, data)
}

/// Whether every unit's checksum is right.
fn is_right(checksums: &[u32], data: &Bytes) -> bool {
    let units = data.chunks(UNIT_SIZE).map(crc32fast::hash);
    units.eq(checksums.iter().copied())
}

/// The version of which a server's part must be: a newer one is of another stripe.
fn version_at(copies: &[LocatedCopy], server: ServerId) -> Option<ChunkVersion> {
    let copy = copies.iter().find(|copy| copy.server == server);
    copy.map(|copy| copy.capability.version)
}
