//! Labels of servers and clients, and expressions over them.
//!
//! Owns what a label may be, how far two places are apart, and the expressions
//! of placement terms. An expression is kept flat, in postfix order, so that one
//! that comes from a peer is checked in one pass and needs no recursion.
//! Invariant: what `Expression::is_sound` accepts is evaluated without a panic.

use minicbor::{Decode, Encode};
use std::fmt;

/// Labels of a server or a client: `(key, value)`.
pub type Labels = Vec<(String, String)>;

/// Labels that one server has at most.
pub const LABELS_MAX: usize = 32;
/// Operations of one expression at most.
pub const OPERATIONS_MAX: usize = 64;
/// Bytes of a key or a value.
const LABEL_MAX: usize = 64;

/// What an operator sets as a label of a server that is to be emptied.
pub const DRAIN: &str = "antler.drain";
/// What he sets of one whose absence is not to be made up for: up to when, in seconds since 1970.
pub const MAINTENANCE: &str = "antler.maintenance";

/// Whether a key is one of those that carry orders about a server. No expression sees
/// them: they do not say where it stands.
#[must_use]
pub fn is_reserved(key: &str) -> bool {
    key.starts_with("antler.")
}

/// Whether a text may be the key or the value of a label: 1 to 64 of
/// `a-z A-Z 0-9 . _ -`.
#[must_use]
pub fn is_label(text: &str) -> bool {
    (1..=LABEL_MAX).contains(&text.len()) && text.bytes().all(is_label_byte)
}

/// Whether a label may contain the byte.
#[must_use]
pub fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

/// The value of a label.
#[must_use]
pub fn label<'a>(labels: &'a Labels, key: &str) -> Option<&'a str> {
    labels
        .iter()
        .find(|(k, _)| k == key)
        .map(|(_, value)| value.as_str())
}

/// How far two places are apart: 0 the same rack, 1 the same datacentre, 2 else.
/// A place without labels counts as one of its own kind.
#[must_use]
pub fn distance(left: &Labels, right: &Labels) -> u8 {
    let same = |key| label(left, key) == label(right, key);
    match (same("dc"), same("rack")) {
        (true, true) => 0,
        (true, false) => 1,
        (false, _) => 2,
    }
}

/// One step of an expression in postfix order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
pub enum Operation {
    /// Whether a label has this value.
    #[n(0)]
    Is {
        /// Which label.
        #[n(0)]
        key: String,
        /// Its value.
        #[n(1)]
        value: String,
    },
    /// Turns the last result round.
    #[n(1)]
    Not,
    /// Both of the last two.
    #[n(2)]
    And,
    /// Either of the last two.
    #[n(3)]
    Or,
}

/// Which servers a term means.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
pub struct Expression {
    /// In postfix order.
    #[n(0)]
    pub operations: Vec<Operation>,
}

impl Expression {
    /// That one label has a value.
    #[must_use]
    pub fn is(key: &str, value: &str) -> Self {
        let (key, value) = (key.to_owned(), value.to_owned());
        Self {
            operations: vec![Operation::Is { key, value }],
        }
    }

    /// Whether it can be evaluated: it yields one result, within the bounds.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let mut depth = 0_usize;
        for operation in &self.operations {
            let (takes, fits) = match operation {
                Operation::Is { key, value } => (0, is_label(key) && is_label(value)),
                Operation::Not => (1, true),
                Operation::And | Operation::Or => (2, true),
            };
            if !fits || depth < takes {
                return false;
            }
            depth = depth - takes + 1;
        }
        depth == 1 && self.operations.len() <= OPERATIONS_MAX
    }

    /// Whether a place is meant.
    ///
    /// # Panics
    /// When the expression is not sound.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        const SOUND: &str = "a sound expression has its operands";
        let mut stack: Vec<bool> = Vec::new();
        for operation in &self.operations {
            let result = match operation {
                Operation::Is { key, value } => label(labels, key) == Some(value),
                Operation::Not => !stack.pop().expect(SOUND),
                Operation::And => stack.pop().expect(SOUND) & stack.pop().expect(SOUND),
                Operation::Or => stack.pop().expect(SOUND) | stack.pop().expect(SOUND),
            };
            stack.push(result);
        }
        stack.pop().expect(SOUND)
    }

    /// Bytes of memory beside the struct.
    pub(crate) fn heap(&self) -> usize {
        let texts = self.operations.iter().map(|operation| match operation {
            Operation::Is { key, value } => key.len() + value.len(),
            _ => 0,
        });
        size_of_val(self.operations.as_slice()) + texts.sum::<usize>()
    }
}

/// How tightly the text of a part binds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Binding {
    Or,
    And,
    Tight,
}

/// As the parser reads it, with the fewest parentheses.
impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut stack: Vec<(String, Binding)> = Vec::new();
        let shut = |(text, has): (String, Binding), needs: Binding| {
            if has < needs {
                format!("({text})")
            } else {
                text
            }
        };
        for operation in &self.operations {
            let part = match operation {
                Operation::Is { key, value } => (format!("{key}={value}"), Binding::Tight),
                Operation::Not => {
                    let inner = stack.pop().ok_or(fmt::Error)?;
                    (
                        format!("not {}", shut(inner, Binding::Tight)),
                        Binding::Tight,
                    )
                }
                Operation::And | Operation::Or => {
                    let right = stack.pop().ok_or(fmt::Error)?;
                    let left = stack.pop().ok_or(fmt::Error)?;
                    let (word, binding, next) = match operation {
                        Operation::And => ("and", Binding::And, Binding::Tight),
                        _ => ("or", Binding::Or, Binding::And),
                    };
                    let (left, right) = (shut(left, binding), shut(right, next));
                    (format!("{left} {word} {right}"), binding)
                }
            };
            stack.push(part);
        }
        f.write_str(&stack.pop().ok_or(fmt::Error)?.0)
    }
}
