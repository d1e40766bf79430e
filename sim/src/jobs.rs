//! Runs on several threads whose results come out in order.
//!
//! Invariant: what is handed on, and in which order, does not depend on how many
//! threads there are.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

/// As many threads as the machine runs at once.
pub(crate) fn cores() -> NonZero<usize> {
    thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN)
}

/// Calls `run` for each number on `jobs` threads and hands the results to `take` in
/// the order of the numbers, until it breaks off.
pub(crate) fn in_order<T: Send>(
    jobs: NonZero<usize>,
    numbers: Range<u64>,
    run: impl Fn(u64) -> T + Sync,
    mut take: impl FnMut(T) -> ControlFlow<()>,
) {
    let next = AtomicU64::new(numbers.start);
    let over = AtomicBool::new(false);
    let (sender, results) = mpsc::channel();
    let work = |sender: Sender<(u64, T)>| {
        while !over.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= numbers.end || sender.send((number, run(number))).is_err() {
                break;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs.get() {
            let (work, sender) = (&work, sender.clone());
            scope.spawn(move || work(sender));
        }
        // From now on a channel without senders tells that no worker is left.
        drop(sender);
        let mut early = BTreeMap::new();
        for number in numbers.clone() {
            let result = wait_for(number, &mut early, &results);
            if result.is_none_or(|result| take(result).is_break()) {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
    });
}

/// The result of one number, keeping those that come before their turn.
fn wait_for<T>(
    number: u64,
    early: &mut BTreeMap<u64, T>,
    results: &Receiver<(u64, T)>,
) -> Option<T> {
    loop {
        if let Some(result) = early.remove(&number) {
            return Some(result);
        }
        let (other, result) = results.recv().ok()?;
        early.insert(other, result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn taken(jobs: usize, upto: u64) -> Vec<u64> {
        let mut taken = Vec::new();
        let late = |number: u64| {
            thread::sleep(Duration::from_micros(number * 7919 % 1000));
            number
        };
        in_order(NonZero::new(jobs).unwrap(), 3..100, late, |number| {
            taken.push(number);
            match number < upto {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
        taken
    }

    #[test]
    fn results_come_in_order_whatever_the_number_of_threads() {
        for jobs in [1, 2, 7] {
            assert_eq!(taken(jobs, 200), (3..100).collect::<Vec<_>>());
            assert_eq!(taken(jobs, 20), (3..=20).collect::<Vec<_>>());
        }
    }
}
