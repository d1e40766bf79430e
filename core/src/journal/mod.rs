//! A member's storage: the log and the images, over the trait of files.
//!
//! Owns the bytes and what recovery makes of them; leaves to `member` when
//! something is appended, imaged or sent. The log and the images are two objects
//! with a handle each, so that a driver can run them beside each other.
//!
//! What is assumed of the medium (beyond `vfs`): a sector of 512 bytes is old or
//! new, never a mixture; a torn write damages nothing outside the 4 KiB blocks that
//! it covers; a sync that returned well was a sync. What is not assumed: that
//! unsynced writes reach the medium in order, or at all, or that bytes stay as they
//! were (a checksum stands over everything that is read).
//!
//! Invariants: what completed is there after any crash, byte for byte; behind it at
//! most the one append that was under way, whole or not at all. A log that lost
//! something in its middle is refused, with the file and the offset, never cut. A
//! tail that rots after it was synced, before anything was appended behind it,
//! looks like a torn write: only another member can tell.

mod format;
mod image;
mod log;
pub mod operation;
mod recover;

pub use image::Images;
pub use log::Log;
pub use recover::LogWatch;

use crate::ids::{ClusterId, LogPosition, MemberId, Term};
use crate::limits::LOG_SEGMENT_SIZE;
use crate::marks::{Mark, Marks};
use crate::namespace::{DecodeError, Section, SectionId, State, StateLoader};
use crate::vfs::{Vfs, VfsError};
use image::ImageError;
use log::End;
use operation::{HardState, ImageMeta, LogEntry};
use recover::{Scan, Segment, list_segments, scan};

/// Decodes sections of an image, in order; a driver may use its threads for it.
pub type DecodeSections = fn(Vec<(SectionId, Vec<u8>)>) -> Vec<Result<Section, DecodeError>>;

/// Whose folder it is, and how it begins when it is empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Founding {
    /// The cluster; another one's folder is refused.
    pub cluster: ClusterId,
    /// The member; another one's folder is refused.
    pub member: MemberId,
    /// Who votes in the beginning.
    pub voters: Vec<u64>,
    /// Who else is told in the beginning.
    pub learners: Vec<u64>,
    /// Bytes of a log segment: `LOG_SEGMENT_SIZE`, less in the simulator.
    pub segment_size: u64,
}

impl Founding {
    /// The founding of a group, with segments of `LOG_SEGMENT_SIZE`.
    #[must_use]
    pub fn new(cluster: ClusterId, member: MemberId, voters: Vec<u64>, learners: Vec<u64>) -> Self {
        Self {
            cluster,
            member,
            voters,
            learners,
            segment_size: LOG_SEGMENT_SIZE,
        }
    }
}

/// What a member goes on from.
#[derive(Debug)]
pub struct Recovered {
    /// What Raft must not forget.
    pub hard: HardState,
    /// The log behind the image, without a gap.
    pub entries: Vec<LogEntry>,
    /// What the image covers: position 0 with the founding members if there is none.
    pub meta: ImageMeta,
    /// The image's state: empty if there is none.
    pub state: State,
    /// The rare events that recovery met.
    pub marks: Marks,
}

/// Why a folder can't be used. Nothing was changed in it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// The medium failed.
    #[error(transparent)]
    Medium(#[from] VfsError),
    /// The folder belongs to another member, or to another cluster.
    #[error("{file} belongs to {member} of {cluster}")]
    Foreign {
        /// Which file says so.
        file: String,
        /// Its cluster.
        cluster: ClusterId,
        /// Its member.
        member: MemberId,
    },
    /// A newer program wrote it.
    #[error("{file} has format {version}, which this version does not know")]
    Version {
        /// Which file.
        file: String,
        /// Its format.
        version: u32,
    },
    /// Something that was durable is damaged or gone.
    #[error("{file} has a hole at byte {offset}: {reason}")]
    Hole {
        /// Which file.
        file: String,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The log begins too far behind the newest usable image.
    #[error("{file} begins behind {upto}, but the log from {from} on is gone")]
    Missing {
        /// The first segment.
        file: String,
        /// The first position that is missing.
        from: LogPosition,
        /// The last one.
        upto: LogPosition,
    },
    /// There are images, but none can be used.
    #[error("{file} can't be used: {reason}")]
    Image {
        /// The newest one.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is an image, but no log at all.
    #[error("the image at {position} is there, but the log is gone")]
    NoLog {
        /// The image's position.
        position: LogPosition,
    },
}

/// Opens a member's folder, founding it when it is empty: `log` and `images` are
/// two handles on the same folder.
///
/// # Errors
/// When the folder is not this member's, or lost something that was durable.
pub fn open<V: Vfs>(
    log: V,
    images: V,
    first: &Founding,
) -> Result<(Log<V>, Images<V>, Recovered), OpenError> {
    open_with(log, images, first, decode_in_turn)
}

/// As [`open`], with images decoded by `decode`, now and when one is received.
///
/// # Errors
/// As [`open`].
pub fn open_with<V: Vfs>(
    mut log: V,
    images: V,
    first: &Founding,
    decode: DecodeSections,
) -> Result<(Log<V>, Images<V>, Recovered), OpenError> {
    let mut segments = list_segments(&mut log, first)?;
    let mut images = Images::open(images, first, decode)?;
    let loaded = load_newest(&mut images)?;
    let covered = loaded.meta.position;
    let Some(found) = scan(&mut log, &mut segments, covered)? else {
        return found_anew(log, images, first, segments, &loaded);
    };
    let skipped = loaded.skipped.clone();
    let last = found.last();
    let (found, recovered, anew) = join(found, loaded)?;
    let end = End {
        last,
        anew,
        hard: recovered.hard,
    };
    let mut log = Log::resume(log, first, &found, segments, &end)?;
    for position in skipped {
        images.remove(position)?;
    }
    let mut recovered = recovered;
    recovered.marks.merge(log.take_marks());
    Ok((log, images, recovered))
}

/// Decodes sections one after the other.
#[must_use]
pub fn decode_in_turn(sections: Vec<(SectionId, Vec<u8>)>) -> Vec<Result<Section, DecodeError>> {
    let decode = |(id, bytes): (SectionId, Vec<u8>)| StateLoader::decode_section(id, &bytes);
    sections.into_iter().map(decode).collect()
}

/// The newest image that can be used.
struct Loaded {
    meta: ImageMeta,
    state: State,
    /// Newer ones that can't.
    skipped: Vec<LogPosition>,
}

fn load_newest<V: Vfs>(images: &mut Images<V>) -> Result<Loaded, OpenError> {
    let mut refused = None;
    let mut skipped = Vec::new();
    for position in images.positions().to_vec().into_iter().rev() {
        match images.load(position) {
            Ok((meta, state)) => {
                return Ok(Loaded {
                    meta,
                    state,
                    skipped,
                });
            }
            Err(ImageError::Medium(error)) => return Err(OpenError::Medium(error)),
            Err(error) => {
                skipped.push(position);
                refused.get_or_insert((position, error));
            }
        }
    }
    match refused {
        None => Ok(Loaded {
            meta: ImageMeta::default(),
            state: State::default(),
            skipped,
        }),
        Some((position, error)) => Err(OpenError::Image {
            file: format!("image-{:016x}", position.0),
            reason: error.to_string(),
        }),
    }
}

/// No batch was ever written: the folder is new, or its founding was interrupted.
fn found_anew<V: Vfs>(
    mut log: V,
    images: Images<V>,
    first: &Founding,
    segments: Vec<Segment>,
    loaded: &Loaded,
) -> Result<(Log<V>, Images<V>, Recovered), OpenError> {
    let position = loaded.meta.position;
    if position > LogPosition(0) {
        return Err(OpenError::NoLog { position });
    }
    for segment in segments {
        log.close(segment.file);
        log.remove(&segment.name)?;
    }
    log.sync_dir("")?;
    let recovered = Recovered {
        hard: HardState::default(),
        entries: Vec::new(),
        meta: ImageMeta {
            voters: first.voters.clone(),
            learners: first.learners.clone(),
            ..ImageMeta::default()
        },
        state: State::default(),
        marks: Marks::default(),
    };
    Ok((Log::create(log, first)?, images, recovered))
}

/// What the log and the image say together: what the member goes on from, and
/// whether the log must be emptied behind the image, because that is ahead of it or
/// of another line.
type Joined = (Scan, Recovered, Option<(LogPosition, Term)>);

fn join(mut scan: Scan, loaded: Loaded) -> Result<Joined, OpenError> {
    let (position, term) = (loaded.meta.position, loaded.meta.term);
    if scan.base.0 > position {
        return Err(OpenError::Missing {
            file: scan.first_file(),
            from: position.next(),
            upto: scan.base.0,
        });
    }
    let fits = scan.term_at(position) == Some(term);
    let entries = if fits {
        scan.entries_behind(position)
    } else {
        Vec::new()
    };
    let last = LogPosition(position.0 + entries.len() as u64);
    if fits && scan.hard.commit > last {
        return Err(OpenError::Hole {
            file: format::segment_name(scan.tail.sequence),
            offset: scan.tail.offset,
            reason: format!(
                "the log ends at {last}, but {} was committed",
                scan.hard.commit
            ),
        });
    }
    let marks = join_marks(&loaded);
    let mut meta = loaded.meta;
    if position == LogPosition(0) {
        (meta.voters, meta.learners) = scan.members.clone();
    }
    let recovered = Recovered {
        hard: hard_state(scan.hard, &meta),
        entries,
        meta,
        state: loaded.state,
        marks,
    };
    Ok((scan, recovered, (!fits).then_some((position, term))))
}

/// The log's hard state, not behind what an image says that was just taken in.
fn hard_state(logged: HardState, meta: &ImageMeta) -> HardState {
    let commit = logged.commit.max(meta.position);
    if logged.term >= meta.term {
        return HardState { commit, ..logged };
    }
    HardState {
        term: meta.term,
        vote: 0,
        commit,
    }
}

fn join_marks(loaded: &Loaded) -> Marks {
    let mut marks = Marks::default();
    if loaded.meta.position > LogPosition(0) {
        marks.reach(Mark::ImageLoaded);
    }
    if !loaded.skipped.is_empty() {
        marks.reach(Mark::ImageSkipped);
    }
    marks
}
