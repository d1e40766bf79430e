//! How a command fails: a sentence that says what, where, and what to do, and the
//! exit code. Every module of this crate ends in one.

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

/// A command's end that is no success.
#[derive(Debug)]
pub(crate) struct Failure {
    text: String,
    kind: Kind,
}

/// Whose fault it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// It could not be done: exit code 1.
    Undone,
    /// It was asked wrongly (arguments, configuration): exit code 2.
    Usage,
}

/// The result of a command or a step of it.
pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    pub(crate) fn undone(text: impl fmt::Display) -> Self {
        Self {
            text: text.to_string(),
            kind: Kind::Undone,
        }
    }

    pub(crate) fn usage(text: impl fmt::Display) -> Self {
        Self {
            text: text.to_string(),
            kind: Kind::Usage,
        }
    }

    pub(crate) fn code(&self) -> ExitCode {
        match self.kind {
            Kind::Undone => ExitCode::from(1),
            Kind::Usage => ExitCode::from(2),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Says of which path an error of the system is.
pub(crate) trait At<T> {
    fn at(self, path: &Path) -> Outcome<T>;
}

impl<T, E: fmt::Display> At<T> for Result<T, E> {
    fn at(self, path: &Path) -> Outcome<T> {
        self.map_err(|error| Failure::undone(format_args!("{}: {error}", path.display())))
    }
}

/// Turns an error that says everything itself into a failure.
pub(crate) trait OrFail<T> {
    fn or_fail(self) -> Outcome<T>;
}

impl<T, E: fmt::Display> OrFail<T> for Result<T, E> {
    fn or_fail(self) -> Outcome<T> {
        self.map_err(Failure::undone)
    }
}
