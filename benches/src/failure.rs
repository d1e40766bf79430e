//! Why a measurement could not be finished.
//!
//! Owns the one error type of the harness. A failure always ends the run: a
//! score taken beside an error would be a score for less work. It leaves the
//! wording for the user to `Display` and the exit code to `main`.

use std::fmt;
use std::io;

/// A reason to end the run without a score.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A system call on the measured tree, or beside it, failed.
    Io {
        /// What was being done, for the user.
        doing: String,
        /// What the system answered.
        source: io::Error,
    },
    /// The file system answered without error, and the answer is wrong.
    Wrong(String),
    /// A command that the user named failed or printed nonsense.
    Command(String),
    /// What had to happen did not, within the time given.
    Late(String),
}

/// What the harness returns everywhere.
pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// An I/O failure with what was being done when it came.
    pub(crate) fn io(doing: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            doing: doing.into(),
            source,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { doing, source } => write!(f, "{doing}: {source}"),
            Self::Wrong(what) => write!(f, "wrong answer from the file system: {what}"),
            Self::Command(what) => write!(f, "command: {what}"),
            Self::Late(what) => write!(f, "gave up waiting: {what}"),
        }
    }
}

impl std::error::Error for Failure {}

/// Adds to an I/O error what was being done.
pub(crate) trait Doing<T> {
    /// Turns the error into a [`Failure`], naming the work by `what`.
    fn doing(self, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|source| Failure::io(what(), source))
    }
}
