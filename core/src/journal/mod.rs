//! A member's storage: the log and the images.

pub mod operation;
