//! The threads that carry packets: one reads each device, one delivers what is due.
//!
//! Invariant: a packet is decided about when it is read; what was under way when a
//! cut began still arrives, as on a real wire.

use crate::network::Network;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// More than any MTU.
const PACKET_MAX: usize = 65_536;

/// A packet under way: when it is due, its number (so that equals keep their order),
/// to whom, and its bytes.
type UnderWay = Reverse<(Duration, u64, usize, Vec<u8>)>;

struct State {
    network: Network,
    under_way: BinaryHeap<UnderWay>,
    numbers: u64,
}

/// The router at work.
pub(crate) struct Router {
    state: Mutex<State>,
    /// Something is due earlier than anything before.
    sooner: Condvar,
    devices: Vec<File>,
    begun: Instant,
}

impl Router {
    pub(crate) fn new(network: Network, devices: Vec<File>) -> Self {
        Self {
            state: Mutex::new(State {
                network,
                under_way: BinaryHeap::new(),
                numbers: 0,
            }),
            sooner: Condvar::new(),
            devices,
            begun: Instant::now(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a panic ends the process")
    }

    /// Lets a command look at the network, or change it.
    pub(crate) fn with_network<R>(&self, act: impl FnOnce(&mut Network) -> R) -> R {
        act(&mut self.lock().network)
    }

    /// Starts all threads.
    pub(crate) fn start(self: &Arc<Self>) -> Vec<JoinHandle<()>> {
        let readers = (0..self.devices.len()).map(|from| {
            let router = Arc::clone(self);
            thread::spawn(move || router.read_all(from))
        });
        let mut threads: Vec<_> = readers.collect();
        let router = Arc::clone(self);
        threads.push(thread::spawn(move || router.deliver_all()));
        threads
    }

    /// Takes what a node sends, until its device is gone. A device that is not up yet
    /// answers EIO.
    fn read_all(&self, from: usize) {
        let mut buffer = vec![0; PACKET_MAX];
        loop {
            match (&self.devices[from]).read(&mut buffer) {
                Ok(length) => self.take(from, &buffer[..length]),
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn take(&self, from: usize, packet: &[u8]) {
        let now = self.begun.elapsed();
        let state = &mut *self.lock();
        let Some((due, to)) = state.network.route(now, from, packet) else {
            return;
        };
        let first = state.under_way.peek().map(|Reverse((due, ..))| *due);
        state.numbers += 1;
        let one = (due, state.numbers, to, packet.to_vec());
        state.under_way.push(Reverse(one));
        if first.is_none_or(|first| due < first) {
            self.sooner.notify_one();
        }
    }

    fn deliver_all(&self) {
        let mut state = self.lock();
        loop {
            let now = self.begun.elapsed();
            let first = state.under_way.peek().map(|Reverse((due, ..))| *due);
            match first {
                None => state = self.sooner.wait(state).expect("a panic ends the process"),
                Some(due) if due > now => {
                    let waited = self.sooner.wait_timeout(state, due - now);
                    state = waited.expect("a panic ends the process").0;
                }
                Some(_) => {
                    let Reverse((_, _, to, packet)) = state.under_way.pop().expect("just seen");
                    drop(state);
                    // A node whose device is down or full loses packets, as others do.
                    let _ = (&self.devices[to]).write(&packet);
                    state = self.lock();
                }
            }
        }
    }
}
