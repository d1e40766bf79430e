//! The judge of a scale run: its own books of where copies are, kept by what the
//! servers did and not by what the master thinks.
//!
//! What must hold: no copy is made on a server that has one; a copy that is made holds
//! the bytes that were written; no good copy is deleted that is the last one; a chunk
//! with one copy left is not passed over for one with more; each chunk that has a good
//! copy left has all of them again in time. Invariant: `lacking` names exactly the
//! chunks that have some good copies and fewer than wanted, and `lost` counts those that
//! have none.

use super::content::{Contents, Flip};
use super::fleet::Deed;
use super::founding::first_servers;
use super::spec::ScalePlan;
use crate::network::Nanos;
use antler_core::hash::Digest;
use antler_core::limits::{REPAIR_BULK_BYTES, REPAIR_BULK_MAX, REPAIR_INFLIGHT_MAX, UNIT_SIZE};
use hdrhistogram::Histogram;
use std::collections::{BTreeMap, BTreeSet};

/// Nobody.
const NONE: u16 = u16::MAX;
/// Room in the books beside the copies wanted.
const SPARE: usize = 2;
/// For so long after a chunk changed the master may not know, or waits to look again.
const GRACE: Nanos = 6_000_000_000;
/// Endangered chunks that are looked at when another one is repaired.
const LOOKS: usize = 64;

/// A chunk with fewer good copies than wanted.
#[derive(Clone, Copy, Debug)]
struct Lacking {
    since: Nanos,
    left: u8,
    /// Since when one copy is left, if that is so.
    one_left: Option<Nanos>,
}

/// A copy that the master has had begun.
#[derive(Clone, Copy, Debug)]
struct Running {
    source: u16,
    target: u16,
}

/// How long something was so, in milliseconds.
pub(super) type Times = Histogram<u64>;

/// A promise that was broken: which, and how.
pub(super) type Broken = (&'static str, String);

/// The judge.
pub(super) struct Judge {
    plan: ScalePlan,
    contents: Contents,
    /// Who has copies of each chunk.
    holders: Vec<u16>,
    /// Copies that were found bad: they count for nothing.
    bad: BTreeSet<(u32, u16)>,
    lacking: BTreeMap<u32, Lacking>,
    /// Chunks with one copy left for which nothing is under way, by the time from which
    /// on they are due.
    waiting: BTreeMap<u32, Nanos>,
    running: BTreeMap<u32, Running>,
    load: Vec<u16>,
    pub(super) load_max: u16,
    broken: Option<Broken>,
    /// Chunks of which no good copy is left.
    lost: BTreeSet<u32>,
    /// How many lacked copies at once, at most.
    pub(super) lacking_max: u64,
    /// How long chunks lacked copies.
    pub(super) lacked: Times,
    /// How long chunks had one copy left.
    pub(super) endangered: Times,
    /// When the last chunk had its copies back.
    pub(super) whole_at: Option<Nanos>,
    pub(super) made: u64,
    pub(super) deleted: u64,
    pub(super) failed: u64,
    pub(super) found_bad: u64,
    /// Units that were compared with what was written.
    pub(super) units: u64,
    /// Copies that were made in a rack that had one.
    pub(super) crowded: u64,
    /// Starts of less endangered chunks at which others were looked at.
    pub(super) orders: u64,
    pub(super) made_on: Vec<u32>,
    pub(super) read_from: Vec<u32>,
    pub(super) digest: Digest,
}

impl Judge {
    pub(super) fn new(plan: &ScalePlan) -> Self {
        let times = || Times::new(3).expect("three digits are few");
        let servers = usize::from(plan.servers);
        let mut judge = Self {
            contents: Contents::new(plan),
            holders: vec![NONE; plan.chunks as usize * (plan.copies + SPARE)],
            bad: BTreeSet::new(),
            lacking: BTreeMap::new(),
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            load: vec![0; servers],
            load_max: 0,
            broken: None,
            lost: BTreeSet::new(),
            lacking_max: 0,
            lacked: times(),
            endangered: times(),
            whole_at: None,
            made: 0,
            deleted: 0,
            failed: 0,
            found_bad: 0,
            units: 0,
            crowded: 0,
            orders: 0,
            made_on: vec![0; servers],
            read_from: vec![0; servers],
            digest: Digest::default(),
            plan: plan.clone(),
        };
        let mut servers = Vec::new();
        for chunk in 0..plan.chunks {
            first_servers(plan, chunk, &mut servers);
            judge.row(chunk)[..servers.len()].copy_from_slice(&servers);
        }
        judge
    }

    fn row(&mut self, chunk: u32) -> &mut [u16] {
        let width = self.plan.copies + SPARE;
        let at = chunk as usize * width;
        &mut self.holders[at..at + width]
    }

    fn holders(&self, chunk: u32) -> impl Iterator<Item = u16> + '_ {
        let width = self.plan.copies + SPARE;
        let at = chunk as usize * width;
        let row = self.holders[at..at + width].iter().copied();
        row.filter(|server| *server != NONE)
    }

    /// Who has copies that are not known to be bad.
    fn good(&self, chunk: u32) -> impl Iterator<Item = u16> + '_ {
        self.holders(chunk)
            .filter(move |server| !self.bad.contains(&(chunk, *server)))
    }

    fn break_promise(&mut self, promise: &'static str, how: String) {
        self.broken.get_or_insert((promise, how));
    }

    pub(super) fn broken(&self) -> Option<&Broken> {
        self.broken.as_ref()
    }

    /// Chunks that lack copies now: with none of the good ones, one, and more.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        let one_left = |one: &&Lacking| one.one_left.is_some();
        let one = self.lacking.values().filter(one_left).count() as u64;
        (self.lost.len() as u64, one, self.lacking.len() as u64 - one)
    }

    pub(super) fn lacking(&self) -> usize {
        self.lacking.len()
    }

    /// One of the chunks that lack copies.
    pub(super) fn an_example(&self) -> Option<String> {
        let (chunk, one) = self.lacking.first_key_value()?;
        let on: Vec<String> = self
            .good(*chunk)
            .map(|server| (server + 1).to_string())
            .collect();
        Some(format!(
            "chunk {} has copies on servers {} alone since {} s",
            chunk + 1,
            on.join(", "),
            one.since / 1_000_000_000
        ))
    }
}

/// What happens.
impl Judge {
    /// Servers are gone for good, with all they held.
    pub(super) fn on_servers_lost(&mut self, now: Nanos, servers: &[u16]) {
        let mut gone = vec![false; usize::from(self.plan.servers)];
        for server in servers {
            gone[usize::from(*server)] = true;
        }
        self.bad.retain(|(_, server)| !gone[usize::from(*server)]);
        for chunk in 0..self.plan.chunks {
            let mut hit = false;
            for slot in self.row(chunk) {
                if *slot != NONE && gone[usize::from(*slot)] {
                    (*slot, hit) = (NONE, true);
                }
            }
            if hit {
                self.recount(now, chunk);
            }
        }
    }

    /// The master had a copy made.
    pub(super) fn on_begun(&mut self, now: Nanos, chunk: u32, source: u16, target: u16) {
        self.digest
            .word(now)
            .word(u64::from(chunk))
            .word(u64::from(target));
        self.judge_order(now, chunk, target);
        self.end_running(chunk);
        self.waiting.remove(&chunk);
        self.running.insert(chunk, Running { source, target });
        for server in [source, target] {
            let load = &mut self.load[usize::from(server)];
            *load += 1;
            self.load_max = self.load_max.max(*load);
        }
    }

    /// A chunk with one copy left is not passed over while its server has room, and the
    /// target of what is preferred to it could have taken its copy.
    fn judge_order(&mut self, now: Nanos, chunk: u32, target: u16) {
        if self.good(chunk).count() < 2 || self.waiting.is_empty() {
            return;
        }
        self.orders += 1;
        let bulk = self.plan.chunk_size > u64::from(REPAIR_BULK_BYTES);
        let most = if bulk {
            REPAIR_BULK_MAX
        } else {
            REPAIR_INFLIGHT_MAX
        };
        let looked: Vec<u32> = self
            .waiting
            .iter()
            .filter(|(_, due)| **due <= now)
            .map(|(one, _)| *one)
            .take(LOOKS)
            .collect();
        for one in looked {
            let from = self.good(one).next();
            let can = from.is_some_and(|from| {
                from != target && usize::from(self.load[usize::from(from)]) < most
            });
            if can {
                let how = format!(
                    "chunk {} with {} copies left is repaired before chunk {} with one, whose \
                     server has room",
                    chunk + 1,
                    self.good(chunk).count(),
                    one + 1
                );
                self.break_promise("order of repair", how);
            }
        }
    }

    /// The end of a copy reached the master.
    pub(super) fn on_ended(&mut self, now: Nanos, chunk: u32) {
        self.end_running(chunk);
        self.recount(now, chunk);
    }

    fn end_running(&mut self, chunk: u32) {
        if let Some(one) = self.running.remove(&chunk) {
            for server in [one.source, one.target] {
                self.load[usize::from(server)] -= 1;
            }
        }
    }

    /// The master knows that a server is gone: what it had begun there is over.
    pub(super) fn on_server_noticed(&mut self, now: Nanos, server: u16) {
        let at = |one: &Running| one.target == server;
        let over: Vec<u32> = self
            .running
            .iter()
            .filter(|(_, one)| at(one))
            .map(|(chunk, _)| *chunk)
            .collect();
        for chunk in over {
            self.on_ended(now, chunk);
        }
    }

    pub(super) fn on_deed(&mut self, now: Nanos, deed: Deed) {
        match deed {
            Deed::Made {
                chunk,
                server,
                source,
                rotten,
            } => self.on_made(now, chunk, (source, server), rotten),
            Deed::Gone {
                chunk,
                server,
                deleted,
            } => self.on_gone(now, chunk, server, deleted),
            Deed::FoundBad { chunk, server } => {
                self.found_bad += 1;
                self.bad.insert((chunk, server));
                self.recount(now, chunk);
            }
            Deed::Failed { chunk } => {
                self.failed += 1;
                self.recount(now, chunk);
            }
        }
    }

    fn on_made(
        &mut self,
        now: Nanos,
        chunk: u32,
        (source, server): (u16, u16),
        rotten: Option<Flip>,
    ) {
        self.made += 1;
        self.made_on[usize::from(server)] += 1;
        self.read_from[usize::from(source)] += 1;
        if self.holders(chunk).any(|other| other == server) {
            let how = format!("chunk {} twice on server {}", chunk + 1, server + 1);
            self.break_promise("one copy on a server", how);
            return;
        }
        let rack = self.plan.rack_of(server);
        let crowds = self.good(chunk).any(|one| self.plan.rack_of(one) == rack);
        self.crowded += u64::from(crowds);
        self.compare(chunk, server, rotten);
        let free = self.row(chunk).iter().position(|slot| *slot == NONE);
        match free {
            Some(free) => self.row(chunk)[free] = server,
            None => self.break_promise(
                "copies as many as wanted",
                format!("chunk {} has {SPARE} copies too many", chunk + 1),
            ),
        }
        self.recount(now, chunk);
    }

    /// Reads units of a new copy: one at random, and where a copy of the chunk rotted.
    fn compare(&mut self, chunk: u32, server: u16, rotten: Option<Flip>) {
        let sample = self.contents.sample(chunk, self.made);
        let risky = self.contents.rotten(chunk).map(|(_, flip)| flip.unit);
        let mut bytes = [0; UNIT_SIZE];
        for unit in [Some(sample), risky].into_iter().flatten() {
            self.contents.read(chunk, unit, rotten, &mut bytes);
            self.units += 1;
            if !self.contents.is_written(chunk, unit, &bytes) {
                let how = format!(
                    "the copy of chunk {} that was made on server {} does not hold what was \
                     written at byte {}",
                    chunk + 1,
                    server + 1,
                    unit * UNIT_SIZE as u64
                );
                self.break_promise("bytes", how);
            }
        }
    }

    fn on_gone(&mut self, now: Nanos, chunk: u32, server: u16, deleted: bool) {
        self.deleted += u64::from(deleted);
        let was_good = !self.bad.remove(&(chunk, server));
        for slot in self.row(chunk) {
            if *slot == server {
                *slot = NONE;
            }
        }
        if deleted && was_good && self.good(chunk).next().is_none() {
            let how = format!("the last copy of chunk {} was deleted", chunk + 1);
            self.break_promise("redundancy", how);
        }
        self.recount(now, chunk);
    }

    /// Brings what is known of a chunk up to date.
    fn recount(&mut self, now: Nanos, chunk: u32) {
        let left = self.good(chunk).count();
        let before = self.lacking.get(&chunk).copied();
        let one_left = match left == 1 && self.plan.copies > 1 {
            true => before.and_then(|one| one.one_left).or(Some(now)),
            false => None,
        };
        let was_one = before.and_then(|one| one.one_left);
        if let Some(since) = was_one.filter(|_| one_left.is_none()) {
            record(&mut self.endangered, now - since);
        }
        if left == 0 {
            self.lost.insert(chunk);
            self.lacking.remove(&chunk);
        } else if left >= self.plan.copies {
            if let Some(one) = self.lacking.remove(&chunk) {
                record(&mut self.lacked, now - one.since);
                self.whole_at = Some(now);
            }
        } else {
            let since = before.map_or(now, |one| one.since);
            let one = Lacking {
                since,
                left: left as u8,
                one_left,
            };
            self.lacking.insert(chunk, one);
        }
        self.lacking_max = self.lacking_max.max(self.lacking.len() as u64);
        let waits = one_left.is_some() && !self.running.contains_key(&chunk);
        match waits {
            true => {
                self.waiting.insert(chunk, now + GRACE);
            }
            false => {
                self.waiting.remove(&chunk);
            }
        }
    }

    /// What must hold of the books.
    pub(super) fn check_invariants(&self) {
        for (chunk, one) in &self.lacking {
            let left = self.good(*chunk).count();
            assert_eq!(left, usize::from(one.left), "chunk {chunk} in the books");
            assert!(left > 0 && left < self.plan.copies, "chunk {chunk} lacks");
        }
    }
}

fn record(times: &mut Times, nanos: Nanos) {
    let recorded = times.record(nanos / 1_000_000);
    recorded.expect("a histogram without bounds takes any number");
}

/// The deviation of counts from their mean, in per cent of it.
pub(super) fn deviation(counts: &[u32]) -> f64 {
    let count = counts.len().max(1) as f64;
    let mean = counts.iter().map(|&one| f64::from(one)).sum::<f64>() / count;
    let square = |&one: &u32| (f64::from(one) - mean).powi(2);
    let variance = counts.iter().map(square).sum::<f64>() / count;
    100.0 * variance.sqrt() / mean.max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::super::spec::parse;
    use super::*;

    fn judge() -> Judge {
        let text = "# shows\n[scale]\nracks = 8\nservers = 8\nchunks = 100\n";
        let scenario = parse("s.toml", text).expect("valid");
        Judge::new(&ScalePlan::draw(&scenario, 1).expect("it fits"))
    }

    fn made(chunk: u32, source: u16, server: u16) -> Deed {
        Deed::Made {
            chunk,
            server,
            source,
            rotten: None,
        }
    }

    fn gone(chunk: u32, server: u16) -> Deed {
        Deed::Gone {
            chunk,
            server,
            deleted: true,
        }
    }

    fn promise(judge: &Judge) -> &'static str {
        judge.broken().map_or("", |(promise, _)| *promise)
    }

    #[test]
    fn a_second_copy_on_a_server_is_a_broken_promise() {
        let mut judge = judge();
        let holder = judge.holders(5).next().expect("it has copies");
        judge.on_deed(1, made(5, holder, holder));
        assert_eq!(promise(&judge), "one copy on a server");
    }

    #[test]
    fn the_last_good_copy_must_not_be_deleted() {
        let mut judge = judge();
        let holders: Vec<u16> = judge.holders(5).collect();
        let found = Deed::FoundBad {
            chunk: 5,
            server: holders[0],
        };
        judge.on_deed(1, found);
        judge.on_deed(2, gone(5, holders[1]));
        assert_eq!((promise(&judge), judge.counts()), ("", (0, 1, 0)));
        judge.on_deed(3, gone(5, holders[2]));
        assert_eq!((promise(&judge), judge.counts()), ("redundancy", (1, 0, 0)));
    }

    #[test]
    fn one_with_a_copy_left_comes_before_one_with_two() {
        for busy in [true, false] {
            let mut judge = judge();
            let holders: Vec<u16> = judge.holders(5).collect();
            judge.on_deed(1, gone(5, holders[0]));
            judge.on_deed(1, gone(5, holders[1]));
            let other = (0..100)
                .find(|one| *one != 5 && judge.holders(*one).all(|server| server != holders[2]));
            let other = other.expect("there are many");
            let sources: Vec<u16> = judge.holders(other).collect();
            judge.on_deed(1, gone(other, sources[0]));
            if busy {
                judge.load[usize::from(holders[2])] = REPAIR_BULK_MAX as u16;
            }
            let target = (0..8).find(|one| *one != holders[2] && !sources.contains(one));
            judge.on_begun(
                GRACE + 1,
                other,
                sources[1],
                target.expect("there are eight"),
            );
            let expected = if busy { "" } else { "order of repair" };
            assert_eq!(promise(&judge), expected);
        }
    }

    #[test]
    fn books_follow_a_loss_and_a_repair() {
        let mut judge = judge();
        let holders: Vec<u16> = judge.holders(5).collect();
        judge.on_servers_lost(1, &holders[..2]);
        judge.check_invariants();
        assert_eq!(judge.holders(5).collect::<Vec<u16>>(), holders[2..]);
        let free: Vec<u16> = (0..8).filter(|one| !holders.contains(one)).collect();
        judge.on_deed(5_000_000, made(5, holders[2], free[0]));
        judge.on_deed(9_000_000, made(5, holders[2], free[1]));
        judge.check_invariants();
        assert_eq!((judge.endangered.max(), judge.lacked.max()), (4, 8));
        assert_eq!(promise(&judge), "");
    }
}
