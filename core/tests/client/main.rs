//! Behaviour of the client machine against small fakes of its peers: the real
//! namespace behind a leader without a log, chunkservers in memory, links that
//! break. One file per behaviour.

mod master;
mod server;
mod world;

mod closed;
mod coherence;
mod copies;
mod failover;
mod fenced;
mod files;
mod model;
mod order;
mod trips;
mod turns;
mod unsettled;
