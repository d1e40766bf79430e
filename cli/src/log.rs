//! Logs: lines on standard error or in a file, filtered as `tracing` filters
//! (`info`, `antler_core=debug,warn`, ...). ANTLER_LOG overrides what is configured.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Mutex;
use tracing_subscriber::EnvFilter;

/// Begins to log, once in a process.
pub(crate) fn start(filter: &str, file: Option<File>) {
    let filter = std::env::var("ANTLER_LOG").unwrap_or_else(|_| filter.to_owned());
    let filter = EnvFilter::try_new(&filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let output: Box<dyn Write + Send> = match file {
        Some(file) => Box::new(file),
        None => Box::new(io::stderr()),
    };
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(false)
        .with_writer(Mutex::new(output))
        .try_init();
}
