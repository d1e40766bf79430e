//! The real world under Antler's machines: sockets, disks, clocks, settings.
//!
//! Read in this order: [`driver`] (the one loop that every role runs in), [`link`]
//! and [`connection`] (bytes in and out), [`listener`], [`disk`] and [`storage`]
//! (files and the threads that wait for them), then [`identity`], [`config`] and
//! [`daemon`], which turn a folder and a TOML file into a running process.
//!
//! Everything that decides anything lives in `antler-core`; what is here waits,
//! copies nothing that it need not, and reports.

pub mod clock;
pub mod complaints;
pub mod config;
pub mod connection;
pub mod daemon;
pub mod disk;
pub mod driver;
pub mod identity;
pub mod images;
pub mod link;
pub mod listener;
pub mod pid;
pub mod storage;
