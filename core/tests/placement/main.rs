//! Placement: the grammar and the choice, as text cases and against an oracle.

mod cases;
mod oracle;
