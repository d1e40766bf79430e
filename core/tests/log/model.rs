//! What a journal must hold: the same operations on plain values.

use antler_core::ids::{ClusterId, LogPosition, MemberId, Term, Token};
use antler_core::journal::operation::{HardState, ImageMeta, JournalOperation, LogEntry};
use antler_core::journal::{Founding, Recovered};
use antler_core::namespace::State;
use antler_core::namespace::record::{Record, RecordBody};
use antler_core::time::Timestamp;
use antler_core::version::FeatureLevel;
use bytes::Bytes;

pub const BLOCK: u64 = 4096;

/// A small folder: segments of five blocks.
pub fn founding() -> Founding {
    Founding {
        segment_size: 5 * BLOCK,
        ..Founding::new(ClusterId(7), MemberId(1), vec![1, 2, 3], vec![4])
    }
}

/// What is durable.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    pub hard: HardState,
    /// Entries from position 1 on, whatever was forgotten (a restart fills up).
    pub entries: Vec<Option<LogEntry>>,
    pub image: LogPosition,
    pub image_term: Term,
}

impl Model {
    pub fn last(&self) -> u64 {
        self.entries.len() as u64
    }

    pub fn term_at(&self, position: u64) -> Term {
        if position == self.image.0 {
            return self.image_term;
        }
        let entry = position
            .checked_sub(1)
            .and_then(|at| self.entries[at as usize].as_ref());
        entry.map_or(Term(0), |entry| entry.term)
    }

    /// What the operation changes once it completed.
    pub fn apply(&mut self, operation: &JournalOperation) {
        match operation {
            JournalOperation::Append { entries, hard, .. } => {
                for entry in entries {
                    self.entries.truncate(entry.position.0 as usize - 1);
                    self.entries.push(Some(entry.clone()));
                }
                self.hard = hard.unwrap_or(self.hard);
            }
            JournalOperation::Restart {
                position,
                term,
                hard,
                ..
            } => {
                self.entries = vec![None; position.0 as usize];
                (self.image, self.image_term) = (*position, *term);
                self.hard = *hard;
            }
            JournalOperation::WriteImage { meta, .. } if meta.position > self.image => {
                (self.image, self.image_term) = (meta.position, meta.term);
            }
            _ => {}
        }
    }

    /// Whether this is exactly what was recovered.
    pub fn matches(&self, recovered: &Recovered) -> Result<(), String> {
        let image = recovered.meta.position;
        let hard = HardState {
            commit: self.hard.commit.max(image),
            ..self.hard
        };
        let behind = self.entries.get(image.0 as usize..).unwrap_or_default();
        let behind: Vec<LogEntry> = behind.iter().flatten().cloned().collect();
        let wanted = (self.image, self.image_term, hard, behind);
        let found = (
            image,
            recovered.meta.term,
            recovered.hard,
            recovered.entries.clone(),
        );
        if wanted != found {
            return Err(format!("wanted {wanted:?}\nfound  {found:?}"));
        }
        Ok(())
    }
}

pub fn entry(position: u64, term: u64, bytes: usize) -> LogEntry {
    let fill = (position * 31 + term) as u8;
    LogEntry {
        position: LogPosition(position),
        term: Term(term),
        kind: u8::from(position.is_multiple_of(13)),
        data: Bytes::from(vec![fill; bytes]),
    }
}

pub fn append(entries: Vec<LogEntry>, hard: Option<HardState>) -> JournalOperation {
    JournalOperation::Append {
        token: Token(1),
        entries,
        hard,
    }
}

/// A founded state with as many sessions as `seed` says.
pub fn state(seed: u64) -> State {
    let mut state = State::default();
    let found = RecordBody::Found {
        capability_secret: vec![1; 32],
        copies: 2,
        level: FeatureLevel::NEWEST,
    };
    let sessions = (0..seed % 7).map(|nonce| RecordBody::BeginSession {
        name: format!("host{nonce}"),
        nonce: seed * 100 + nonce,
    });
    for (at, body) in std::iter::once(found).chain(sessions).enumerate() {
        let time = Timestamp::default();
        state.apply(LogPosition(at as u64 + 1), &Record { time, body });
    }
    state
}

pub fn write_image(position: u64, term: Term) -> JournalOperation {
    JournalOperation::WriteImage {
        token: Token(2),
        meta: ImageMeta {
            position: LogPosition(position),
            term,
            voters: vec![1, 2, 3],
            learners: vec![4],
        },
        state: Box::new(state(position)),
    }
}
