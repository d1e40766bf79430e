//! The namespace, driven by records as the log would bring them.

mod chunks;
mod classes;
mod clones;
mod directory;
mod image;
mod lease;
mod level;
mod life;
mod model;
mod orphans;
mod patterns;
mod posix;
mod recover;
mod session;
mod stripes;
mod total;
mod world;
