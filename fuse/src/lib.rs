//! The FUSE client: kernel requests to the client machine's requests and back,
//! and nothing else. What a request means is decided in `antler_core::client`.
//!
//! Reading order: [`mount`] (mounting, and the threads around it), then
//! `filesystem` (one method per kernel request), `waiting` (what the kernel waits
//! for, and how an answer is put), `convert` (types), `directory` (buffers of
//! directory handles), `caller` (who asks).
//!
//! Deliberately not here: caches, retries, permissions, buffers of data.

mod caller;
mod convert;
mod directory;
mod filesystem;
pub mod mount;
mod waiting;

pub use mount::{Feed, Mount, MountSettings, Mounted};
