//! The state as an image: sections that are written from a clone while the state
//! goes on, and that can be read in parallel.
//!
//! ```text
//! header section   CBOR: format, counters, digest, and per table how many
//!                  sections and entries it has
//! table section    CBOR: an array of key, value, key, value ... in ascending
//!                  order, at most SECTION_ENTRIES of them
//!
//! table         key                  value
//!  1 inodes     inode                attributes, parent, content or the only chunk
//!  2 dentries   directory, cookie    inode, name
//!  3 extents    inode, index         chunk, valid: of files with further chunks
//!  4 chunks     chunk                its place, version, epoch, references, copies
//!  5 leases     chunk                the state of each chunk that is not settled
//!  6 xattrs     inode, name          value
//!  7 sessions   session              name, nonce, oldest unanswered request
//!  8 replies    session, request     the remembered outcome
//!  9 orphans    inode, session       nothing: the session keeps the inode
//! 10 members    member               address
//! 11 lost       first chunk          the first chunk behind the lost range
//! 12 classes    class                name, policies: of operators' classes
//! 13 servers    server               labels as configured, labels set over them
//! 14 losses     chunk                versions under which unsynced writes may be lost
//! 15 stripes    chunk                its erasure code, units, stamp; whether it left its parts
//! 16 archived   inode                nothing: the file has been left alone
//! 17 patterns   inode                globs of names and their classes, of a directory
//! ```
//!
//! The counters have the cluster's feature level; where they have none it is 1. Tables 12
//! and 13 came with level 2, 15 and 16 with level 3: below, the header does not name them.
//!
//! Values are arrays with numbered fields (the `n` of each struct), so that fields
//! can be added; what is not known is skipped.
//!
//! Owns what is in a section; leaves files, lengths and checksums to `journal`.
//! Invariant: what loads has every section, the digest that the header names and
//! tables that agree with each other; anything else is an error, never a panic.
//! A count is checked before anything is allocated for it.

use super::archive::Archived;
use super::chunks::{CHUNKS_MAX, Extent, StoredChunk};
use super::class::{ServerLabels, StoredClass};
use super::dentry::{COOKIE_MIN, Dentry, check_name};
use super::inode::{Content, Inode, Orphan};
use super::name::Name;
use super::pattern::Patterns;
use super::record::Loss;
use super::session::{RememberedReply, Session};
use super::state::{Derived, LeaseState, Scalars, State};
use super::stripes::Coded;
use super::table::{Entity, Table, TableRun};
use super::xattr::XattrValue;
use crate::attributes::FileKind;
use crate::ids::{ChunkId, InodeId, RequestId, ServerId, SessionId};
use crate::limits::{CHUNK_SIZE, FILE_SIZE_MAX, XATTR_NAME_MAX, XATTR_VALUE_MAX};
use crate::placement::ClassId;
use crate::version::FeatureLevel;
use minicbor::{Decode, Decoder, Encode, Encoder};
use std::collections::BTreeMap;
use std::fmt;

/// The layout that this code writes and reads.
const FORMAT: u32 = 1;
/// Most entries of a table section.
const SECTION_ENTRIES: u64 = 4096;
/// Tables that not every feature level has.
const CLASSES: u8 = 12;
const SERVERS: u8 = 13;
const STRIPES: u8 = 15;
const ARCHIVED: u8 = 16;
const PATTERNS: u8 = 17;
const HEADER: SectionId = SectionId { table: 0, path: 0 };

/// Names a section of one state's image; sections sort in the order of their content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub struct SectionId {
    /// 0 for the header.
    #[n(0)]
    table: u8,
    /// Where in the table.
    #[n(1)]
    path: u64,
}

impl fmt::Display for SectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:o}", self.table, self.path)
    }
}

/// Why an image is not a state.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// The image has a layout that this version does not know.
    #[error("image format {0} is not known")]
    Format(u32),
    /// The section is of a table that this version does not know.
    #[error("section {0} is of an unknown table")]
    Table(SectionId),
    /// The section's bytes do not decode.
    #[error("section {section} is damaged: {reason}")]
    Damaged {
        /// Which.
        section: SectionId,
        /// How.
        reason: String,
    },
    /// The section was added twice.
    #[error("section {0} is there twice")]
    Twice(SectionId),
    /// There is no header.
    #[error("the header section is missing")]
    NoHeader,
    /// Sections of a table are missing or too many.
    #[error("table {table} has {found} of {wanted} {what}")]
    Count {
        /// Which table.
        table: u8,
        /// Of what.
        what: &'static str,
        /// So many are there.
        found: u64,
        /// So many the header names.
        wanted: u64,
    },
    /// Sections of a table overlap.
    #[error("the sections of table {0} are not in order")]
    Order(u8),
    /// The digest is not the one that the header names.
    #[error("the digest is {found:016x}, the header says {wanted:016x}")]
    Digest {
        /// Of what was loaded.
        found: u64,
        /// As the header says.
        wanted: u64,
    },
    /// The tables contradict each other.
    #[error("the tables disagree: {0}")]
    Disagree(String),
}

/// What the header section says.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
struct Header {
    #[n(0)]
    format: u32,
    #[n(1)]
    scalars: Scalars,
    #[n(2)]
    digest: u64,
    #[n(3)]
    tables: Vec<TableSize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
struct TableSize {
    #[n(0)]
    table: u8,
    #[n(1)]
    sections: u64,
    #[n(2)]
    entries: u64,
}

/// Numbers the tables of an image; a number is never used for another table.
macro_rules! tables {
    ($($number:literal $variant:ident $field:ident: $key:ty => $value:ty;)*) => {
        enum Body {
            Header(Box<Header>),
            $($variant(TableRun<$key, $value>),)*
        }

        #[derive(Default)]
        struct Runs {
            $($field: BTreeMap<u64, TableRun<$key, $value>>,)*
        }

        impl Runs {
            /// False when it is there already.
            fn add(&mut self, path: u64, body: Body) -> bool {
                match body {
                    Body::Header(_) => false,
                    $(Body::$variant(run) => self.$field.insert(path, run).is_none(),)*
                }
            }

            fn join(self, header: &Header) -> Result<State, DecodeError> {
                Ok(State {
                    scalars: header.scalars.clone(),
                    $($field: join($number, self.$field, header)?,)*
                    nonces: Table::default(),
                    kept: Table::default(),
                    held: Table::default(),
                    users: Table::default(),
                })
            }
        }

        impl State {
            fn table_parts(&self) -> Vec<(TableSize, Vec<u64>)> {
                vec![$({
                    let (entries, parts) = (self.$field.len() as u64, self.$field.parts());
                    (TableSize { table: $number, sections: parts.len() as u64, entries }, parts)
                },)*]
            }

            fn encode_table(&self, id: SectionId, out: &mut Vec<u8>) {
                match id.table {
                    $($number => encode(self.$field.part(id.path), out),)*
                    _ => panic!("section {id} is not of this state"),
                }
            }
        }

        fn decode_table(id: SectionId, bytes: &[u8]) -> Result<Body, DecodeError> {
            let result = match id.table {
                $($number => decode(bytes).map(Body::$variant),)*
                _ => return Err(DecodeError::Table(id)),
            };
            result.map_err(|reason| DecodeError::Damaged { section: id, reason })
        }
    };
}

tables! {
    1 Inodes inodes: InodeId => Inode;
    2 Dentries dentries: (InodeId, u64) => Dentry;
    3 Extents extents: (InodeId, u32) => Extent;
    4 Chunks chunks: ChunkId => StoredChunk;
    5 Leases leases: ChunkId => LeaseState;
    6 Xattrs xattrs: (InodeId, Name) => XattrValue;
    7 Sessions sessions: SessionId => Session;
    8 Replies replies: (SessionId, RequestId) => RememberedReply;
    9 Orphans orphans: (InodeId, SessionId) => Orphan;
    10 Members members: u64 => Name;
    11 Lost lost: ChunkId => ChunkId;
    12 Classes classes: ClassId => StoredClass;
    13 Servers servers: ServerId => ServerLabels;
    14 Losses losses: ChunkId => Loss;
    15 Stripes stripes: ChunkId => Coded;
    16 Archived archived: InodeId => Archived;
    17 Patterns patterns: InodeId => Patterns;
}

impl State {
    /// The sections that together are this state, in order. Each can be encoded by
    /// itself, in any order, by any thread that has a clone.
    #[must_use]
    pub fn sections(&self) -> Vec<SectionId> {
        let mut sections = vec![HEADER];
        for (size, parts) in self.table_parts() {
            let table = size.table;
            sections.extend(parts.into_iter().map(|path| SectionId { table, path }));
        }
        sections
    }

    /// Appends a section's bytes.
    ///
    /// # Panics
    /// When the section is not one of this state's.
    pub fn encode_section(&self, section: SectionId, out: &mut Vec<u8>) {
        if section == HEADER {
            let header = self.header();
            minicbor::encode(header, out).expect("writing to memory does not fail");
        } else {
            self.encode_table(section, out);
        }
    }

    fn header(&self) -> Header {
        Header {
            format: FORMAT,
            scalars: self.scalars.clone(),
            digest: self.digest(),
            tables: self
                .table_parts()
                .into_iter()
                .map(|(size, _)| size)
                .filter(|size| table_since(size.table) <= self.feature_level())
                .collect(),
        }
    }
}

/// The feature level that a table came with: an image of a lower one does not name it.
fn table_since(table: u8) -> FeatureLevel {
    match table {
        CLASSES | SERVERS => FeatureLevel::CLASSES,
        STRIPES | ARCHIVED => FeatureLevel::CODES,
        PATTERNS => FeatureLevel::PATTERNS,
        _ => FeatureLevel::FIRST,
    }
}

/// A decoded section.
pub struct Section {
    id: SectionId,
    body: Body,
}

impl fmt::Debug for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Section({})", self.id)
    }
}

/// Makes a state of sections, decoded in any order and by any thread.
#[derive(Default)]
pub struct StateLoader {
    header: Option<Header>,
    runs: Runs,
    twice: Option<SectionId>,
}

impl fmt::Debug for StateLoader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateLoader")
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

impl StateLoader {
    /// A loader that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes and checks one section by itself.
    ///
    /// # Errors
    /// When it is damaged, or of a format or table that is not known.
    pub fn decode_section(id: SectionId, bytes: &[u8]) -> Result<Section, DecodeError> {
        let body = if id == HEADER {
            Body::Header(Box::new(decode_header(bytes)?))
        } else {
            decode_table(id, bytes)?
        };
        Ok(Section { id, body })
    }

    /// Takes a section in.
    pub fn add(&mut self, section: Section) {
        let Section { id, body } = section;
        let new = match body {
            Body::Header(header) => self.header.replace(*header).is_none(),
            body => self.runs.add(id.path, body),
        };
        if !new {
            self.twice = Some(id);
        }
    }

    /// The state, once every section was added.
    ///
    /// # Errors
    /// When sections are missing, doubled or out of order, when the digest is not the
    /// header's, or when the tables contradict each other.
    pub fn finish(self) -> Result<State, DecodeError> {
        if let Some(section) = self.twice {
            return Err(DecodeError::Twice(section));
        }
        let header = self.header.ok_or(DecodeError::NoHeader)?;
        let mut state = self.runs.join(&header)?;
        state.derive();
        let (found, wanted) = (state.digest(), header.digest);
        if found != wanted {
            return Err(DecodeError::Digest { found, wanted });
        }
        state.agree_but_names().map_err(DecodeError::Disagree)?;
        Ok(state)
    }
}

impl State {
    /// Makes the tables that follow from others.
    fn derive(&mut self) {
        for (session, known) in self.sessions.iter() {
            self.nonces.insert(known.nonce, Derived(*session));
        }
        for ((inode, session), _) in self.orphans.iter() {
            self.kept.insert((*session, *inode), ());
        }
        for (chunk, lease) in self.leases.iter() {
            if let Some(session) = lease.holder() {
                self.held.insert((session, *chunk), ());
            }
        }
        if self.classes.len() > 0 {
            self.count_users();
        }
    }
}

fn decode_header(bytes: &[u8]) -> Result<Header, DecodeError> {
    let damaged = |error: minicbor::decode::Error| DecodeError::Damaged {
        section: HEADER,
        reason: error.to_string(),
    };
    let mut decoder = Decoder::new(bytes);
    let header: Header = decoder.decode().map_err(damaged)?;
    if header.format != FORMAT {
        return Err(DecodeError::Format(header.format));
    }
    if decoder.position() < bytes.len() {
        return Err(damaged(minicbor::decode::Error::message(
            "bytes behind the header",
        )));
    }
    Ok(header)
}

fn encode<'a, K, V>(entries: impl Iterator<Item = (&'a K, &'a V)> + Clone, out: &mut Vec<u8>)
where
    K: Encode<()> + 'a,
    V: Encode<()> + 'a,
{
    const FITS: &str = "writing to memory does not fail";
    let count = entries.clone().count() as u64;
    let mut encoder = Encoder::new(out);
    encoder.array(count * 2).expect(FITS);
    for (key, value) in entries {
        encoder.encode(key).expect(FITS);
        encoder.encode(value).expect(FITS);
    }
}

fn decode<'b, K, V>(bytes: &'b [u8]) -> Result<TableRun<K, V>, String>
where
    K: Decode<'b, ()> + Ord + Clone,
    V: Decode<'b, ()> + Sound<K>,
{
    let mut decoder = Decoder::new(bytes);
    let count = decoder
        .array()
        .map_err(|error| error.to_string())?
        .unwrap_or(0);
    if count == 0 || count % 2 > 0 || count > SECTION_ENTRIES * 2 {
        return Err(format!("{count} items in a section"));
    }
    let mut entries = Vec::with_capacity(usize::try_from(count / 2).expect("checked above"));
    for _ in 0..count / 2 {
        let key: K = decoder.decode().map_err(|error| error.to_string())?;
        let value: V = decoder.decode().map_err(|error| error.to_string())?;
        if !value.is_sound(&key) {
            return Err(format!("entry {} is out of bounds", entries.len()));
        }
        entries.push((key, value));
    }
    if decoder.position() < bytes.len() {
        return Err("bytes behind the last entry".to_owned());
    }
    TableRun::new(entries).ok_or_else(|| "entries are not in order".to_owned())
}

fn join<K: Ord + Clone, V: Entity<K>>(
    table: u8,
    runs: BTreeMap<u64, TableRun<K, V>>,
    header: &Header,
) -> Result<Table<K, V>, DecodeError> {
    let size = header.tables.iter().find(|size| size.table == table);
    let (sections, entries) = size.map_or((0, 0), |size| (size.sections, size.entries));
    let expect = |what, found, wanted| {
        let error = DecodeError::Count {
            table,
            what,
            found,
            wanted,
        };
        if found == wanted { Ok(()) } else { Err(error) }
    };
    expect("sections", runs.len() as u64, sections)?;
    expect(
        "entries",
        runs.values().map(|run| run.len() as u64).sum(),
        entries,
    )?;
    Table::from_runs(runs.into_values().collect()).ok_or(DecodeError::Order(table))
}

/// Bounds that a decoded entity must keep by itself.
trait Sound<K>: Entity<K> {
    fn is_sound(&self, key: &K) -> bool;
}

impl Sound<InodeId> for Inode {
    fn is_sound(&self, _: &InodeId) -> bool {
        let fits = match (self.kind, &self.content) {
            (FileKind::Regular, Content::One { valid, .. }) => u64::from(*valid) <= CHUNK_SIZE,
            (FileKind::Regular, Content::Many { chunks, .. }) => *chunks > 0,
            (FileKind::CharDevice | FileKind::BlockDevice, Content::Device(_)) => true,
            (FileKind::Symlink, Content::Target(target)) => {
                target.bytes().len() as u64 == self.size
            }
            (FileKind::CharDevice | FileKind::BlockDevice | FileKind::Symlink, _) => false,
            (_, content) => *content == Content::Nothing,
        };
        fits && self.mode <= 0o7777 && self.size <= FILE_SIZE_MAX
    }
}

impl Sound<(InodeId, u64)> for Dentry {
    fn is_sound(&self, (_, cookie): &(InodeId, u64)) -> bool {
        (COOKIE_MIN..1 << 63).contains(cookie) && check_name(self.name.bytes()).is_ok()
    }
}

impl Sound<(InodeId, u32)> for Extent {
    fn is_sound(&self, (_, index): &(InodeId, u32)) -> bool {
        *index < CHUNKS_MAX && u64::from(self.valid) <= CHUNK_SIZE
    }
}

impl Sound<ChunkId> for StoredChunk {
    fn is_sound(&self, _: &ChunkId) -> bool {
        self.references == 1
    }
}

impl Sound<ChunkId> for LeaseState {
    fn is_sound(&self, _: &ChunkId) -> bool {
        *self != Self::Settled
    }
}

impl Sound<ChunkId> for Loss {
    fn is_sound(&self, _: &ChunkId) -> bool {
        self.after < self.up_to
    }
}

impl Sound<InodeId> for Archived {
    fn is_sound(&self, _: &InodeId) -> bool {
        true
    }
}

impl Sound<InodeId> for Patterns {
    fn is_sound(&self, _: &InodeId) -> bool {
        Self::is_sound(self)
    }
}

impl Sound<ChunkId> for Coded {
    fn is_sound(&self, _: &ChunkId) -> bool {
        self.stripe.is_sound()
    }
}

impl Sound<(InodeId, Name)> for XattrValue {
    fn is_sound(&self, (_, name): &(InodeId, Name)) -> bool {
        name.bytes().len() <= XATTR_NAME_MAX && self.0.bytes().len() <= XATTR_VALUE_MAX
    }
}

impl Sound<SessionId> for Session {
    fn is_sound(&self, _: &SessionId) -> bool {
        std::str::from_utf8(self.name.bytes()).is_ok()
    }
}

impl Sound<(SessionId, RequestId)> for RememberedReply {
    fn is_sound(&self, _: &(SessionId, RequestId)) -> bool {
        true
    }
}

impl Sound<(InodeId, SessionId)> for Orphan {
    fn is_sound(&self, _: &(InodeId, SessionId)) -> bool {
        true
    }
}

impl Sound<u64> for Name {
    fn is_sound(&self, _: &u64) -> bool {
        std::str::from_utf8(self.bytes()).is_ok()
    }
}

impl Sound<Self> for ChunkId {
    fn is_sound(&self, from: &Self) -> bool {
        from < self
    }
}

impl Sound<ClassId> for StoredClass {
    fn is_sound(&self, class: &ClassId) -> bool {
        class.built_in().is_none() && self.is_sound()
    }
}

impl Sound<ServerId> for ServerLabels {
    fn is_sound(&self, _: &ServerId) -> bool {
        self.is_sound()
    }
}
