//! The client.

pub mod request;
