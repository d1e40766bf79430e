//! After the loss of every master: a metalogger's folder becomes that of a new
//! group in which it is the only voter.
//!
//! Owns the two steps: [`Takeover::open`] reads and applies the whole log, not only
//! what was known to be committed, and tells what there is; [`Takeover::finish`]
//! begins a new life of the cluster (the record `Recover`), moves the term far
//! ahead, and makes that durable as an image with an empty log behind it. A crash in
//! between leaves a folder on which it can be done again. Leaves to the operator
//! that the old masters are gone; if they come back, the new life's number refuses
//! them.

use super::entry_codec::decode_entry;
use crate::ids::{Incarnation, LogPosition, MemberId, Term, Token};
use crate::journal::operation::{HardState, ImageMeta, JournalError, JournalOperation, LogEntry};
use crate::journal::{Founding, Images, Log, OpenError, Recovered, open};
use crate::namespace::State;
use crate::namespace::record::{Record, RecordBody};
use crate::time::Timestamp;
use crate::version::FeatureLevel;
use crate::vfs::Vfs;

/// How far the term moves: beyond any that the old group can have reached unseen.
const TERM_LEAP: u64 = 1 << 20;

/// A folder that is being taken over.
#[derive(Debug)]
pub struct Takeover<V> {
    log: Log<V>,
    images: Images<V>,
    state: State,
    holding: Holding,
    last_term: Term,
    hard: HardState,
    member: u64,
}

/// What a folder holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holding {
    /// The last position of its log.
    pub position: LogPosition,
    /// Up to here it knew the log to be committed: what lies beyond may have been
    /// unanswered.
    pub committed: LogPosition,
    /// When the last record was proposed, by the old leader's clock; `None` when the
    /// log behind the image is empty.
    pub time: Option<Timestamp>,
    /// The life of the cluster that it belongs to.
    pub incarnation: Incarnation,
}

/// Why a folder can't be taken over.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TakeoverError {
    /// The folder can't be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It never heard of a founded cluster.
    #[error("the folder holds no cluster")]
    Empty,
    /// An entry is not understood: a newer version wrote it.
    #[error("the entry at {position} is not understood: {reason}")]
    Entry {
        /// Where.
        position: LogPosition,
        /// Why.
        reason: String,
    },
    /// It is of a feature level that this version does not know.
    #[error("the folder is at feature level {level}, this version knows levels up to {known}")]
    Level {
        /// The folder's.
        level: FeatureLevel,
        /// The newest that is known here.
        known: FeatureLevel,
    },
    /// The new beginning could not be written; nothing is lost, try again.
    #[error(transparent)]
    Write(#[from] JournalError),
}

impl<V: Vfs> Takeover<V> {
    /// Reads a folder and applies its whole log. `founding` names the cluster and
    /// the member that it belongs to.
    ///
    /// # Errors
    /// When the folder can't be read, is empty, or holds what is not understood.
    pub fn open(log: V, images: V, founding: &Founding) -> Result<Self, TakeoverError> {
        let (log, images, recovered) = open(log, images, founding)?;
        let Recovered {
            hard,
            entries,
            meta,
            mut state,
            ..
        } = recovered;
        let last = entries.last();
        let last = last.map_or((meta.position, meta.term), |entry| {
            (entry.position, entry.term)
        });
        let time = apply_all(&mut state, &entries)?;
        if !state.is_founded() {
            return Err(TakeoverError::Empty);
        }
        let (level, known) = (state.feature_level(), FeatureLevel::NEWEST);
        if level > known {
            return Err(TakeoverError::Level { level, known });
        }
        let holding = Holding {
            position: last.0,
            committed: hard.commit,
            time,
            incarnation: state.incarnation(),
        };
        Ok(Self {
            log,
            images,
            state,
            holding,
            last_term: last.1,
            hard,
            member: founding.member.0,
        })
    }

    /// What the folder holds.
    #[must_use]
    pub fn holding(&self) -> Holding {
        self.holding
    }

    /// The state with the whole log applied.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Begins the new life: the folder opens from now on as that of a group of one.
    /// `time` is the wall clock. Returns the new life's number.
    ///
    /// # Errors
    /// When the medium failed or is full.
    pub fn finish(mut self, time: Timestamp) -> Result<Incarnation, TakeoverError> {
        self.begin_anew(&[], time)
    }

    /// As [`Takeover::finish`], but in another folder, just founded for `member`; the
    /// one that was read stays as it is. The metaloggers named in `learners` belong to
    /// the new group from the beginning and learn everything from an image: what they
    /// hold of the old life must be put aside.
    ///
    /// # Errors
    /// When the medium failed or is full.
    pub fn finish_elsewhere(
        mut self,
        (log, images): (Log<V>, Images<V>),
        member: MemberId,
        learners: &[u64],
        time: Timestamp,
    ) -> Result<Incarnation, TakeoverError> {
        self.log = log;
        self.images = images;
        self.member = member.0;
        self.begin_anew(learners, time)
    }

    fn begin_anew(
        &mut self,
        learners: &[u64],
        time: Timestamp,
    ) -> Result<Incarnation, TakeoverError> {
        let position = self.holding.position.next();
        let term = Term(self.last_term.max(self.hard.term).0 + TERM_LEAP);
        let incarnation = self.holding.incarnation.next();
        for body in self.new_beginning(incarnation, learners) {
            self.state.apply(position, &Record { time, body });
        }
        let write = JournalOperation::WriteImage {
            token: Token(0),
            meta: ImageMeta {
                position,
                term,
                voters: vec![self.member],
                learners: learners.to_vec(),
            },
            state: Box::new(self.state.clone()),
        };
        self.images.execute(write).result?;
        let restart = JournalOperation::Restart {
            token: Token(0),
            position,
            term,
            hard: HardState {
                term,
                vote: 0,
                commit: position,
            },
        };
        self.log.execute(restart).result?;
        Ok(incarnation)
    }

    /// The cluster's new life, and the other members gone.
    fn new_beginning(&self, incarnation: Incarnation, learners: &[u64]) -> Vec<RecordBody> {
        let others = self.state.members().map(|(member, _)| member);
        let leave = |member: u64| RecordBody::Member {
            member,
            address: String::new(),
        };
        let stays = |member: &u64| *member == self.member || learners.contains(member);
        let gone = others.filter(|member| !stays(member)).map(leave);
        let recover = RecordBody::Recover {
            incarnation: incarnation.0,
        };
        std::iter::once(recover).chain(gone).collect()
    }
}

/// Applies the records of every entry, and tells when the last one was proposed.
/// Changes of membership mean nothing to the new group.
fn apply_all(state: &mut State, entries: &[LogEntry]) -> Result<Option<Timestamp>, TakeoverError> {
    let mut time = None;
    for entry in entries.iter().filter(|entry| entry.kind == 0) {
        let records = decode_entry(&entry.data).map_err(|error| TakeoverError::Entry {
            position: entry.position,
            reason: error.to_string(),
        })?;
        for record in records {
            time = Some(record.time);
            state.apply(entry.position, &record);
        }
    }
    Ok(time)
}
