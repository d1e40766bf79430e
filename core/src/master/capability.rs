//! The leader's keys of capabilities: derived from the cluster's secret by
//! generation, so that every master derives the same; a generation is a term and
//! a count of hours in it.

use crate::ids::Term;
use crate::time::{Duration, Instant};
use crate::wire::capability::derive_key;
use crate::wire::chunk_master::CapabilityKey;

const ROTATION: Duration = Duration::from_secs(3600);
/// Terms before the present one whose first keys stay good, so that a failover
/// does not refuse what the leader before granted.
const OLD_TERMS: u64 = 3;

/// The keys in force.
#[derive(Clone, Debug, Default)]
pub(super) struct Keyring {
    term: Term,
    rotation: u64,
    since: Option<Instant>,
    keys: Vec<CapabilityKey>,
}

impl Keyring {
    /// A new reign begins.
    pub(super) fn begin(&mut self, secret: &[u8], term: Term, now: Instant) {
        *self = Self {
            term,
            rotation: 0,
            since: Some(now),
            keys: Vec::new(),
        };
        self.derive(secret);
    }

    /// Retires the oldest key when its time has come; true when the keys changed.
    pub(super) fn turn(&mut self, secret: &[u8], now: Instant) -> bool {
        let due = self.since.is_some_and(|since| now.since(since) >= ROTATION);
        if due {
            self.rotation += 1;
            self.since = Some(now);
            self.derive(secret);
        }
        due
    }

    fn derive(&mut self, secret: &[u8]) {
        let generation = |term: u64, rotation: u64| (term << 20) | rotation;
        let mut generations = vec![generation(self.term.0, self.rotation)];
        match self.rotation {
            0 => generations.extend(
                (1..=OLD_TERMS.min(self.term.0)).map(|back| generation(self.term.0 - back, 0)),
            ),
            _ => generations.push(generation(self.term.0, self.rotation - 1)),
        }
        self.keys = generations
            .into_iter()
            .map(|one| derive_key(secret, one))
            .collect();
    }

    pub(super) fn newest(&self) -> Option<&CapabilityKey> {
        self.keys.first()
    }

    pub(super) fn all(&self) -> &[CapabilityKey] {
        &self.keys
    }
}
