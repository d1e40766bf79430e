//! Threads that do the same work at the same time, and how long each step took.
//!
//! Owns the barrier at the start and the histogram of every thread. What the
//! work is belongs to the caller. The clock runs from the first thread's start
//! to the last one's end, so a straggler counts for everybody.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::failure::{Failure, Outcome};

/// Nanoseconds that the histograms can tell: one to an hour.
const LATENCY_MAX: u64 = 3_600_000_000_000;

/// Latencies of one kind of operation, in nanoseconds, to three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX, 3).expect("the bounds are in order")
}

/// Adds one latency to `into`; an hour stands for everything longer.
pub(crate) fn record(into: &mut Histogram<u64>, latency: Duration) {
    let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
    into.saturating_record(nanoseconds.max(1));
}

/// One thread's place in the crew, with its stop-watch.
pub(crate) struct Worker {
    /// Which thread this is, from 0.
    pub(crate) index: u32,
    latency: Histogram<u64>,
}

impl Worker {
    /// Does one operation and notes how long it took.
    pub(crate) fn time<T>(&mut self, operation: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        let begin = Instant::now();
        let answer = operation()?;
        record(&mut self.latency, begin.elapsed());
        Ok(answer)
    }
}

/// What one crew did in one round.
pub(crate) struct Measured {
    /// First start to last end.
    pub(crate) elapsed: Duration,
    /// One latency for each operation of every thread.
    pub(crate) latency: Histogram<u64>,
}

impl Measured {
    /// Operations per second.
    pub(crate) fn rate(&self) -> f64 {
        self.latency.len() as f64 / self.elapsed.as_secs_f64()
    }
}

/// Runs `work` on `threads` threads at once; the first failure is the crew's.
pub(crate) fn run<W>(threads: u32, work: W) -> Outcome<Measured>
where
    W: Fn(&mut Worker) -> Outcome<()> + Sync,
{
    assert!(threads > 0, "a crew has at least one thread");
    let barrier = Barrier::new(threads as usize);
    let shifts: Vec<Outcome<Shift>> = thread::scope(|scope| {
        let start = |index| {
            scope.spawn({
                let (barrier, work) = (&barrier, &work);
                move || shift(index, barrier, work)
            })
        };
        let running: Vec<_> = (0..threads).map(start).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| match thread.join() {
            Ok(shift) => shift,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        running.into_iter().map(join).collect()
    });
    combine(shifts.into_iter().collect::<Result<_, Failure>>()?)
}

struct Shift {
    begin: Instant,
    end: Instant,
    latency: Histogram<u64>,
}

fn shift<W>(index: u32, barrier: &Barrier, work: &W) -> Outcome<Shift>
where
    W: Fn(&mut Worker) -> Outcome<()>,
{
    let mut worker = Worker {
        index,
        latency: histogram(),
    };
    barrier.wait();
    let begin = Instant::now();
    work(&mut worker)?;
    Ok(Shift {
        begin,
        end: Instant::now(),
        latency: worker.latency,
    })
}

fn combine(shifts: Vec<Shift>) -> Outcome<Measured> {
    let begin = shifts.iter().map(|shift| shift.begin).min();
    let end = shifts.iter().map(|shift| shift.end).max();
    let (begin, end) = begin.zip(end).expect("a crew has at least one thread");
    let mut latency = histogram();
    for shift in &shifts {
        latency.add(&shift.latency).expect("equal bounds");
    }
    Ok(Measured {
        elapsed: end - begin,
        latency,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_of_every_thread_counts_once() {
        let measured = run(3, |worker| {
            for _ in 0..5 {
                worker.time(|| Ok(()))?;
            }
            Ok(())
        })
        .expect("nothing fails");
        assert_eq!(measured.latency.len(), 15);
        assert!(measured.rate() > 0.0);
    }

    #[test]
    fn a_failure_in_one_thread_is_the_crews() {
        let outcome = run(2, |worker| match worker.index {
            1 => Err(Failure::Wrong("planted".into())),
            _ => Ok(()),
        });
        assert!(matches!(outcome, Err(Failure::Wrong(_))));
    }
}
