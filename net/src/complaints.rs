//! What goes wrong with connections, said once: a peer that stays away is tried
//! again and again, and the log should tell why without repeating it.

use crate::clock;
use crate::connection::ConnectionError;
use antler_core::time::Instant;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// How often at most strangers that are refused are logged.
const STRANGERS_EVERY: Duration = Duration::from_secs(1);

/// The last failure of each address that we connect to, and refused strangers.
#[derive(Debug, Default)]
pub struct Complaints(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// With the reason, and whether we were refused rather than not answered.
    addresses: BTreeMap<String, (String, bool)>,
    strangers_next: Instant,
    strangers_unsaid: u64,
}

impl Complaints {
    /// An address could not be connected to. Logged when the reason is a new one.
    pub fn note(&self, address: &str, error: &ConnectionError) {
        let reason = error.to_string();
        let is_refused = matches!(error, ConnectionError::Hello(_));
        let now = (reason.clone(), is_refused);
        let before = self.lock().addresses.insert(address.to_owned(), now);
        if before.is_some_and(|(before, _)| before == reason) {
            return;
        }
        if is_refused {
            tracing::error!("{address}: {reason}");
        } else {
            tracing::warn!("{address}: {reason}; trying on");
        }
    }

    /// An address was connected to.
    pub fn settle(&self, address: &str) {
        if self.lock().addresses.remove(address).is_some() {
            tracing::info!("{address}: connected");
        }
    }

    /// A connection that was made to us came to nothing.
    pub fn on_stranger(&self, from: &str, error: &ConnectionError) {
        let mut state = self.lock();
        let now = clock::mono();
        if now < state.strangers_next {
            state.strangers_unsaid += 1;
            return;
        }
        state.strangers_next = now + STRANGERS_EVERY;
        let unsaid = std::mem::take(&mut state.strangers_unsaid);
        drop(state);
        tracing::warn!(unsaid, "refused a connection from {from}: {error}");
    }

    /// Every address that can't be connected to now, with the reason.
    #[must_use]
    pub fn unreachable(&self) -> Vec<(String, String)> {
        let addresses = self.lock().addresses.clone();
        addresses
            .into_iter()
            .map(|(address, (reason, _))| (address, reason))
            .collect()
    }

    /// Whether every address that can't be connected to refuses us, and there is one:
    /// then trying on is of no use.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        let state = self.lock();
        !state.addresses.is_empty() && state.addresses.values().all(|(_, refused)| *refused)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("a panic ends the process")
    }
}
