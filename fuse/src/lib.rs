//! The FUSE client: kernel requests to the client machine's requests and back,
//! and nothing else. What a request means is decided in `antler_core::client`.
//!
//! Reading order: [`mount`] (the desk where replies wait), `attach` (mounting), then
//! `filesystem` (one method per kernel request), `waiting` (what the kernel waits
//! for, and how an answer is put), `notices` (what the kernel must forget),
//! `convert` (types), `directory` (buffers of directory handles), `caller` (who
//! asks), `virtual_attributes` (the tools' way through a mount).
//!
//! Deliberately not here: caches, retries, permissions, buffers of data.

mod attach;
mod caller;
mod convert;
mod directory;
mod filesystem;
pub mod mount;
mod notices;
pub mod virtual_attributes;
mod waiting;

pub use fuser::MountOption;
pub use mount::{Desk, Feed, MountSettings, Mounted};
