//! Reading a range of a chunk that lies in the parts of an erasure code: from the parts
//! that have it, or from as many others as it takes.
//!
//! Owns what is asked of which part and the computing; `fetch` asks and checks what
//! comes. Invariant: what is put together is of parts of one version and one stripe,
//! each byte of which passed its checksum, and of as many as the code needs: never fewer.

use crate::chunk::erasure::StripeCoder;
use crate::chunk::geometry::PartRead;
use crate::chunk::stripe::Stripe;
use crate::ids::ServerId;
use crate::wire::client_master::LocatedCopy;
use antler_simd::PartSet;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;

/// A range of a chunk, being put together.
#[derive(Debug)]
pub(super) struct Parts {
    coder: StripeCoder,
    range: Range<u32>,
    sources: BTreeMap<usize, LocatedCopy>,
    /// Of no use in this round.
    failed: PartSet,
    /// Asked only if there is no other way.
    slow: PartSet,
    /// Those of which it is being put together.
    basis: PartSet,
    /// What was asked and has not come, by its number.
    asked: BTreeMap<u64, PartRead>,
    got: BTreeMap<usize, (Range<u32>, Bytes)>,
    /// Something of it was made of other parts.
    decoded: bool,
}

impl Parts {
    /// `None` when what is told of the chunk makes no sense.
    pub(super) fn new(stripe: Stripe, copies: &[LocatedCopy], range: Range<u32>) -> Option<Self> {
        if !stripe.is_sound() {
            return None;
        }
        let mut sources = BTreeMap::new();
        for copy in copies {
            let index = stripe.shape.index_of(copy.capability.part)?;
            sources.entry(index).or_insert_with(|| copy.clone());
        }
        Some(Self {
            coder: StripeCoder::new(stripe.layout()),
            range,
            sources,
            failed: PartSet::first(0),
            slow: PartSet::first(0),
            basis: PartSet::first(0),
            asked: BTreeMap::new(),
            got: BTreeMap::new(),
            decoded: false,
        })
    }

    /// Servers that are better not asked.
    pub(super) fn avoid(&mut self, is_doubtful: impl Fn(&LocatedCopy) -> bool) {
        let doubtful = self.sources.iter().filter(|(_, copy)| is_doubtful(copy));
        let doubtful: PartSet = doubtful.map(|(part, _)| *part).collect();
        self.slow = self.slow.union(doubtful);
    }

    /// What was asked and has not come is slow.
    pub(super) fn hedge(&mut self) {
        let asked: PartSet = self.asked.values().map(|read| read.part).collect();
        self.slow = self.slow.union(asked);
    }

    /// What to ask now, numbered from `next` on; `None` when too few parts are left.
    pub(super) fn ask(&mut self, next: &mut u64) -> Option<Vec<(u64, PartRead, LocatedCopy)>> {
        let there: PartSet = self.sources.keys().copied().collect();
        let there = there.without(self.failed);
        let layout = self.coder.layout();
        let sets = [there.without(self.slow), there].into_iter();
        let mut plans = sets.map(|set| Some((set, layout.plan(self.range.clone(), set).ok()?)));
        let (basis, plan) = plans.find_map(|plan| plan)?;
        self.basis = basis;
        let mut asks = Vec::new();
        for read in plan.reads {
            let coming = self
                .asked
                .values()
                .any(|asked| asked.part == read.part && contains(&asked.range, &read.range));
            if coming || self.has(&read) {
                continue;
            }
            self.asked.insert(*next, read.clone());
            let source = self.sources[&read.part].clone();
            asks.push((*next, read, source));
            *next += 1;
        }
        Some(asks)
    }

    fn has(&self, read: &PartRead) -> bool {
        let got = self.got.get(&read.part);
        got.is_some_and(|(range, _)| contains(range, &read.range))
    }

    /// What a number was asked for, if it is of this round.
    pub(super) fn answered(&mut self, number: u64) -> Option<PartRead> {
        self.asked.remove(&number)
    }

    pub(super) fn take(&mut self, read: PartRead, data: Bytes) {
        assert_eq!(read.range.len(), data.len(), "what was asked for");
        // What was asked of it before may have been more.
        if !self.has(&read) {
            self.got.insert(read.part, (read.range, data));
        }
    }

    pub(super) fn fail(&mut self, server: ServerId) {
        let own = self
            .sources
            .iter()
            .filter(|(_, copy)| copy.server == server);
        let own: PartSet = own.map(|(part, _)| *part).collect();
        self.failed = self.failed.union(own);
    }

    /// The range, once enough has come: what was asked for last, or all of its own bytes.
    pub(super) fn assemble(&mut self) -> Option<Bytes> {
        let got: PartSet = self.got.keys().copied().collect();
        let layout = self.coder.layout();
        let plans = [self.basis, got].into_iter();
        let mut plans = plans.filter_map(|set| layout.plan(self.range.clone(), set).ok());
        let plan = plans.find(|plan| plan.reads.iter().all(|read| self.has(read)))?;
        let read = |read: &PartRead| {
            let (range, data) = &self.got[&read.part];
            let from = (read.range.start - range.start) as usize;
            data.slice(from..from + read.range.len())
        };
        let read: Vec<Bytes> = plan.reads.iter().map(read).collect();
        let read: Vec<&[u8]> = read.iter().map(|data| &data[..]).collect();
        let mut into = vec![0; plan.range.len()];
        self.decoded = !plan.rebuilt.is_empty();
        self.coder.assemble(&plan, &read, &mut into);
        Some(Bytes::from(into))
    }

    /// Whether something was made of other parts than its own.
    pub(super) fn was_decoded(&self) -> bool {
        self.decoded
    }
}

fn contains(outer: &Range<u32>, inner: &Range<u32>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::sample::Sample;
    use crate::limits::UNIT_SIZE;
    use crate::rng::Rng;

    /// Reads a range while the servers of `lost` fail, and answers come in any order, some
    /// after a hedge. `None`: there is no way to it.
    fn read(sample: &Sample, range: Range<u32>, lost: &[u8], rng: &mut Rng) -> Option<Bytes> {
        let all: Vec<LocatedCopy> = sample.numbers().into_iter().map(Sample::source).collect();
        let parts = Parts::new(sample.stripe, &all, range);
        let mut parts = parts.expect("it makes sense");
        let (mut next, mut waiting) = (0, Vec::new());
        loop {
            waiting.extend(parts.ask(&mut next)?);
            if rng.one_in(3) {
                parts.hedge();
                waiting.extend(parts.ask(&mut next)?);
            }
            if let Some(data) = parts.assemble() {
                return Some(data);
            }
            assert!(!waiting.is_empty(), "something is always under way");
            let at = rng.below(waiting.len() as u64) as usize;
            let (number, _, source) = waiting.swap_remove(at);
            let Some(read) = parts.answered(number) else {
                continue;
            };
            let part = source.capability.part.part;
            if lost.contains(&part) {
                parts.fail(source.server);
                continue;
            }
            let bytes = read.range.start as usize..read.range.end as usize;
            let data = Bytes::copy_from_slice(&sample.content(part)[bytes]);
            parts.take(read, data);
        }
    }

    #[test]
    fn any_range_is_read_whatever_is_lost_that_may_be() {
        for sample in Sample::several() {
            let shape = sample.stripe.shape;
            let mut rng = Rng::new(u64::from(sample.stripe.units) + shape.data() as u64);
            for _ in 0..60 {
                let units = u64::from(sample.stripe.units);
                let from = rng.below(units);
                let to = from + 1 + rng.below((units - from).min(64));
                let unit = UNIT_SIZE as u32;
                let range = from as u32 * unit..to as u32 * unit;
                let mut lost = sample.numbers();
                let left = rng.below(shape.parity() as u64 + 1) as usize;
                while lost.len() > left {
                    lost.swap_remove(rng.below(lost.len() as u64) as usize);
                }
                let data = read(&sample, range.clone(), &lost, &mut rng);
                let right = &sample.whole[range.start as usize..range.end as usize];
                assert_eq!(data.as_deref(), Some(right), "{shape} {range:?} {lost:?}");
            }
        }
    }

    #[test]
    fn one_loss_too_many_gives_no_data() {
        let mut rng = Rng::new(3);
        for (data, parity) in [(2, 1), (4, 2), (3, 3)] {
            let units = 16 * u32::from(data);
            let sample = Sample::new(data, parity, units, 5);
            let lost: Vec<u8> = (1..=parity + 1).collect();
            let range = 0..UNIT_SIZE as u32;
            assert_eq!(read(&sample, range, &lost, &mut rng), None);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let sample = Sample::new(4, 2, 64, 1);
        let whole = [Sample::source(0)];
        assert!(
            Parts::new(sample.stripe, &whole, 0..4096).is_none(),
            "a copy"
        );
        let seventh = [Sample::source(7)];
        assert!(Parts::new(sample.stripe, &seventh, 0..4096).is_none());
        let stripe = Stripe {
            units: u32::MAX,
            ..sample.stripe
        };
        assert!(Parts::new(stripe, &[], 0..4096).is_none());
    }
}
