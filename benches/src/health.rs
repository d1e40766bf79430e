//! How many chunks are below goal, asked of either system.
//!
//! Antler answers in JSON on standard input (`antler status --json`), MooseFS
//! over TCP. MooseFS is asked in its own protocol because its command-line tool
//! costs a tenth of a second of processor for each answer, which would be taken
//! from the rebuild that is being timed. The invariant: what can't be
//! understood is an error, never a zero.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::failure::{Doing, Failure, Outcome};

/// Arguments of `health`.
#[derive(Args)]
pub(crate) struct HealthArgs {
    #[command(subcommand)]
    source: Source,
}

#[derive(Subcommand)]
enum Source {
    /// Add up numbers of a JSON document on standard input
    Json {
        /// Where the numbers are, as in `/chunks/missing`
        #[arg(required = true)]
        pointers: Vec<String>,
    },
    /// Ask a MooseFS 3 master
    Moosefs {
        /// Address of the master's client port, as in `10.0.0.1:9421`
        master: String,
    },
}

/// Prints the number of chunks below goal.
pub(crate) fn health(args: &HealthArgs) -> Outcome<()> {
    let below_goal = match &args.source {
        Source::Json { pointers } => {
            let mut text = String::new();
            io::stdin()
                .read_to_string(&mut text)
                .doing(|| "reading the status".into())?;
            sum(&text, pointers)?
        }
        Source::Moosefs { master } => moosefs(master)?,
    };
    println!("{below_goal}");
    Ok(())
}

fn sum(text: &str, pointers: &[String]) -> Outcome<u64> {
    let status: Value = serde_json::from_str(text)
        .map_err(|error| Failure::Command(format!("the status is not JSON: {error}")))?;
    let number = |pointer: &String| {
        let value = status.pointer(pointer).and_then(Value::as_u64);
        value.ok_or_else(|| Failure::Command(format!("the status has no number at {pointer}")))
    };
    pointers.iter().map(number).sum()
}

/// Command and answer of the master's table of chunks by goal and copies.
const MATRIX_ASKED: u32 = 516;
const MATRIX_ANSWERED: u32 = 517;

/// Rows (goals) and columns (copies) of the table: 0 to 9, and 10 or more.
const MATRIX_SIDE: usize = 11;

/// A byte of progress and two tables of 32-bit counts, big-endian.
const MATRIX_LENGTH: usize = 1 + 2 * MATRIX_SIDE * MATRIX_SIDE * 4;

fn moosefs(master: &str) -> Outcome<u64> {
    let asked = || format!("asking the master at {master}");
    let mut connection = TcpStream::connect(master).doing(asked)?;
    let patience = Some(Duration::from_secs(10));
    connection.set_read_timeout(patience).doing(asked)?;
    let mut question = MATRIX_ASKED.to_be_bytes().to_vec();
    question.extend(0_u32.to_be_bytes());
    connection.write_all(&question).doing(asked)?;
    let mut header = [0; 8];
    connection.read_exact(&mut header).doing(asked)?;
    if (word(&header, 0), word(&header, 1)) != (MATRIX_ANSWERED, MATRIX_LENGTH as u32) {
        let what = format!("{master} answers {header:?}, not as a MooseFS 3 master");
        return Err(Failure::Command(what));
    }
    let mut matrix = [0; MATRIX_LENGTH];
    connection.read_exact(&mut matrix).doing(asked)?;
    Ok(below_goal(&matrix))
}

/// Chunks with fewer copies than their goal, of the second table, which leaves
/// out disks marked for removal. While the master still counts what a lost
/// server held, the table lags, so the answer is not zero.
fn below_goal(matrix: &[u8; MATRIX_LENGTH]) -> u64 {
    let regular = &matrix[1 + MATRIX_SIDE * MATRIX_SIDE * 4..];
    let cell = |goal, copies| u64::from(word(regular, goal * MATRIX_SIDE + copies));
    let row = |goal| (0..goal).map(|copies| cell(goal, copies)).sum::<u64>();
    let below = (0..MATRIX_SIDE).map(row).sum::<u64>();
    let counting = matrix[0] != 0;
    below.max(u64::from(counting))
}

/// The big-endian 32-bit word at `index` of `bytes`.
fn word(bytes: &[u8], index: usize) -> u32 {
    let bytes = &bytes[index * 4..index * 4 + 4];
    u32::from_be_bytes(bytes.try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_added_and_a_missing_one_is_an_error() {
        let text = r#"{"chunks": {"missing": 1, "under": 2, "at_goal": 9}}"#;
        let both = ["/chunks/missing".to_owned(), "/chunks/under".to_owned()];
        assert_eq!(sum(text, &both).expect("both are there"), 3);
        assert!(sum(text, &["/chunks/lost".to_owned()]).is_err());
        assert!(sum("nonsense", &both).is_err());
    }

    #[test]
    fn only_fewer_copies_than_the_goal_count() {
        let mut matrix = [0; MATRIX_LENGTH];
        let mut set = |table: usize, goal: usize, copies: usize, chunks: u32| {
            let index = table * MATRIX_SIDE * MATRIX_SIDE + goal * MATRIX_SIDE + copies;
            matrix[1 + index * 4..5 + index * 4].copy_from_slice(&chunks.to_be_bytes());
        };
        set(1, 2, 1, 5);
        set(1, 2, 2, 100);
        set(1, 3, 0, 2);
        set(0, 2, 0, 1000);
        assert_eq!(below_goal(&matrix), 7);
    }

    #[test]
    fn a_master_that_is_still_counting_is_not_healthy() {
        let mut matrix = [0; MATRIX_LENGTH];
        assert_eq!(below_goal(&matrix), 0);
        matrix[0] = 1;
        assert_eq!(below_goal(&matrix), 1);
    }
}
