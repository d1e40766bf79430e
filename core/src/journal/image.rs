//! Images: the whole state at one position of the log, in one file.
//!
//! ```text
//! file "image-PPPPPPPPPPPPPPPP" (the position in hex); little-endian
//! 0   8   magic "ANTLRIMG"
//! 8   4   format version, 1
//! 12  4   bytes of the table
//! 16  8   cluster
//! 24  8   where the table begins: behind the last section
//! 32  8   bytes of the file
//! 40  8   the state's digest
//! 48  8   zero
//! 56  4   CRC-32 of the table
//! 60  4   CRC-32 of the 60 bytes before
//! 64  ..  the sections, one behind the other (their content: namespace::image)
//! ..  ..  the table: CBOR, the position, term and membership, and of each section
//!         its id, where it begins, its length and its CRC-32
//! ```
//!
//! An image is written to "image.new" (a received one to "image.part"), synced,
//! renamed and the folder synced, so a file with an image's name is whole unless the
//! medium damaged it. Owns writing, reading, checking and pruning them; leaves what
//! a section holds to `namespace`.

use super::format::{get_u32, get_u64, put_u32, put_u64};
use super::operation::{
    ImageMeta, JournalCompletion, JournalError, JournalOperation, JournalReply,
};
use super::{DecodeSections, Founding};
use crate::ids::{ClusterId, LogPosition};
use crate::limits::IMAGE_PIECE_SIZE;
use crate::marks::{Mark, Marks};
use crate::namespace::{SectionId, State, StateLoader};
use crate::planted::{self, Planted};
use crate::vfs::{FileId, Vfs, VfsError, VfsResult};
use bytes::Bytes;
use minicbor::{Decode, Encode};

const HEADER_SIZE: usize = 64;
const MAGIC: &[u8; 8] = b"ANTLRIMG";
const VERSION: u32 = 1;
/// Bytes of a table that is read: some million sections.
const TABLE_MAX: u32 = 256 << 20;
/// Bytes of a section that is read.
const SECTION_MAX: u64 = 1 << 30;
/// Bytes of sections that are decoded together.
const GROUP_BYTES: u64 = 32 << 20;
/// Images that are kept: a damaged newest one costs a longer log, nothing else.
const KEPT: usize = 2;
const WRITING: &str = "image.new";
const RECEIVING: &str = "image.part";

/// The images of one member.
#[derive(Debug)]
pub struct Images<V> {
    vfs: V,
    cluster: ClusterId,
    decode: DecodeSections,
    /// Positions of the images that are there, ascending.
    positions: Vec<LogPosition>,
    reading: Option<OpenImage>,
    receiving: Option<Receiving>,
    poisoned: Option<String>,
    marks: Marks,
}

#[derive(Debug)]
struct OpenImage {
    file: FileId,
    meta: ImageMeta,
    total: u64,
}

#[derive(Debug)]
struct Receiving {
    file: FileId,
    position: LogPosition,
    total: u64,
    received: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
struct Table {
    #[n(0)]
    meta: ImageMeta,
    #[n(1)]
    sections: Vec<SectionPlace>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
struct SectionPlace {
    #[n(0)]
    id: SectionId,
    #[n(1)]
    offset: u64,
    #[n(2)]
    length: u64,
    #[n(3)]
    checksum: u32,
}

/// Why a file is not an image that can be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum ImageError {
    #[error(transparent)]
    Medium(#[from] VfsError),
    #[error("{0}")]
    Damaged(String),
    #[error("it belongs to another cluster, {0}")]
    Foreign(ClusterId),
    #[error("it has format {0}, which this version does not know")]
    Version(u32),
}

impl<V: Vfs> Images<V> {
    /// The images of a folder; what an interrupted write left behind goes.
    pub(super) fn open(mut vfs: V, founding: &Founding, decode: DecodeSections) -> VfsResult<Self> {
        let names = vfs.list("")?;
        for left in [WRITING, RECEIVING] {
            if names.iter().any(|name| name == left) {
                vfs.remove(left)?;
            }
        }
        let mut positions: Vec<LogPosition> = names
            .iter()
            .filter_map(|name| image_position(name))
            .collect();
        positions.sort_unstable();
        Ok(Self {
            vfs,
            cluster: founding.cluster,
            decode,
            positions,
            reading: None,
            receiving: None,
            poisoned: None,
            marks: Marks::default(),
        })
    }

    /// The positions of the images that are there, ascending.
    pub(super) fn positions(&self) -> &[LogPosition] {
        &self.positions
    }

    /// Loads an image whole, with every check.
    pub(super) fn load(&mut self, position: LogPosition) -> Result<(ImageMeta, State), ImageError> {
        let file = self.vfs.open(&image_name(position))?;
        let loaded = self.load_file(file, position);
        self.vfs.close(file);
        loaded
    }

    /// Forgets an image that can't be used, once another one is in use.
    pub(super) fn remove(&mut self, position: LogPosition) -> VfsResult<()> {
        self.positions.retain(|&known| known != position);
        self.vfs.remove(&image_name(position))?;
        self.vfs.sync_dir("")
    }

    /// Executes `WriteImage`, `ReadImage` or `ReceiveImage`.
    ///
    /// # Panics
    /// On an operation on the log.
    pub fn execute(&mut self, operation: JournalOperation) -> JournalCompletion {
        let token = operation.token();
        let result = match &self.poisoned {
            Some(reason) => Err(JournalError::Medium(reason.clone())),
            None => self.perform(operation),
        };
        if let Err(JournalError::Medium(reason)) = &result {
            self.poisoned = Some(reason.clone());
        }
        JournalCompletion { token, result }
    }

    /// The rare events met.
    #[must_use]
    pub fn marks(&self) -> Marks {
        self.marks
    }

    fn perform(&mut self, operation: JournalOperation) -> Result<JournalReply, JournalError> {
        match operation {
            JournalOperation::WriteImage { meta, state, .. } => self.write(&meta, &state),
            JournalOperation::ReadImage {
                position,
                offset,
                length,
                ..
            } => self.read(position, offset, length),
            JournalOperation::ReceiveImage {
                position,
                offset,
                total,
                data,
                ..
            } => self.receive(position, offset, total, &data),
            other => panic!("{other:?} is for the log"),
        }
    }

    fn write(&mut self, meta: &ImageMeta, state: &State) -> Result<JournalReply, JournalError> {
        match self.write_new(meta, state) {
            Ok(()) => {
                self.marks.reach(Mark::ImageWritten);
                Ok(JournalReply::Done)
            }
            Err(VfsError::Full) => {
                self.drop_file(WRITING).map_err(medium)?;
                Err(JournalError::Full)
            }
            Err(error) => Err(medium(error)),
        }
    }

    fn write_new(&mut self, meta: &ImageMeta, state: &State) -> VfsResult<()> {
        self.drop_file(WRITING)?;
        let file = self.vfs.create(WRITING)?;
        let written = write_image(&mut self.vfs, file, self.cluster, meta, state);
        self.vfs.close(file);
        written?;
        self.put_in_use(WRITING, meta.position)
    }

    /// Gives a whole, synced file its name, and lets old images go.
    fn put_in_use(&mut self, name: &str, position: LogPosition) -> VfsResult<()> {
        self.vfs.rename(name, &image_name(position))?;
        self.vfs.sync_dir("")?;
        if !self.positions.contains(&position) {
            self.positions.push(position);
            self.positions.sort_unstable();
        }
        self.prune()
    }

    /// Keeps the newest, and the one that is being sent to somebody.
    fn prune(&mut self) -> VfsResult<()> {
        let old = self.positions.len().saturating_sub(KEPT);
        let pinned = self.reading.as_ref().map(|image| image.meta.position);
        let (kept, gone): (Vec<_>, Vec<_>) = self.positions[..old]
            .iter()
            .partition(|&position| Some(*position) == pinned);
        self.positions.splice(..old, kept);
        for position in &gone {
            self.vfs.remove(&image_name(*position))?;
        }
        if gone.is_empty() {
            return Ok(());
        }
        self.vfs.sync_dir("")
    }

    fn read(
        &mut self,
        position: LogPosition,
        offset: u64,
        length: usize,
    ) -> Result<JournalReply, JournalError> {
        let image = self.image_to_read(position)?;
        let (file, total, meta) = (image.file, image.total, image.meta.clone());
        let rest = usize::try_from(total.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut data = vec![0; length.min(rest).min(IMAGE_PIECE_SIZE)];
        let read = self.vfs.read_at(file, offset, &mut data).map_err(medium)?;
        data.truncate(read);
        if offset + read as u64 >= total {
            self.close_reading();
            self.prune().map_err(medium)?;
        }
        Ok(JournalReply::Piece {
            meta,
            total,
            data: Bytes::from(data),
        })
    }

    /// The image asked for, or the newest when it is gone.
    fn image_to_read(&mut self, position: LogPosition) -> Result<&OpenImage, JournalError> {
        let newest = *self.positions.last().ok_or(JournalError::NoImage)?;
        let position = if self.positions.contains(&position) {
            position
        } else {
            newest
        };
        let is_open = self
            .reading
            .as_ref()
            .is_some_and(|open| open.meta.position == position);
        if !is_open {
            self.close_reading();
            self.prune().map_err(medium)?;
            let file = self.vfs.open(&image_name(position)).map_err(medium)?;
            let (header, table) = self
                .read_table(file, position)
                .map_err(|error| match error {
                    ImageError::Medium(error) => medium(error),
                    other => JournalError::Damaged(other.to_string()),
                })?;
            self.reading = Some(OpenImage {
                file,
                meta: table.meta,
                total: header.total,
            });
        }
        Ok(self.reading.as_ref().expect("it was opened if it was not"))
    }

    fn close_reading(&mut self) {
        if let Some(open) = self.reading.take() {
            self.vfs.close(open.file);
        }
    }

    fn receive(
        &mut self,
        position: LogPosition,
        offset: u64,
        total: u64,
        data: &Bytes,
    ) -> Result<JournalReply, JournalError> {
        match self.receive_piece(position, offset, total, data) {
            Ok(reply) => Ok(reply),
            Err(error) => {
                self.drop_receiving().map_err(medium)?;
                Err(match error {
                    ImageError::Medium(VfsError::Full) => JournalError::Full,
                    ImageError::Medium(error) => medium(error),
                    other => JournalError::Damaged(other.to_string()),
                })
            }
        }
    }

    fn receive_piece(
        &mut self,
        position: LogPosition,
        offset: u64,
        total: u64,
        data: &Bytes,
    ) -> Result<JournalReply, ImageError> {
        if offset == 0 {
            self.drop_receiving()?;
            self.receiving = Some(Receiving {
                file: self.vfs.create(RECEIVING)?,
                position,
                total,
                received: 0,
            });
        }
        let goes_on = |it: &&mut Receiving| {
            (it.position, it.total, it.received) == (position, total, offset)
                && data.len() as u64 <= total - offset
        };
        let Some(receiving) = self.receiving.as_mut().filter(goes_on) else {
            return Err(damaged("its pieces do not follow each other"));
        };
        self.vfs.write_at(receiving.file, offset, data)?;
        receiving.received += data.len() as u64;
        if receiving.received < total {
            return Ok(JournalReply::Done);
        }
        self.install()
    }

    /// The last byte of an image is here: it is checked before it is put in use.
    fn install(&mut self) -> Result<JournalReply, ImageError> {
        let receiving = self.receiving.as_ref().expect("the caller has it");
        let (file, position) = (receiving.file, receiving.position);
        sync(&mut self.vfs, file)?;
        let (meta, state) = self.load_file(file, position)?;
        self.receiving = None;
        self.vfs.close(file);
        self.put_in_use(RECEIVING, position)?;
        Ok(JournalReply::Installed {
            meta,
            state: Box::new(state),
        })
    }

    fn drop_receiving(&mut self) -> VfsResult<()> {
        if let Some(receiving) = self.receiving.take() {
            self.vfs.close(receiving.file);
        }
        self.drop_file(RECEIVING)
    }

    fn drop_file(&mut self, name: &str) -> VfsResult<()> {
        match self.vfs.remove(name) {
            Ok(()) => self.vfs.sync_dir(""),
            Err(VfsError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn load_file(
        &mut self,
        file: FileId,
        position: LogPosition,
    ) -> Result<(ImageMeta, State), ImageError> {
        let (header, table) = self.read_table(file, position)?;
        let mut loader = StateLoader::new();
        let mut places = table.sections.as_slice();
        while !places.is_empty() {
            let (group, rest) = places.split_at(group_length(places));
            places = rest;
            let sections = self.read_sections(file, group)?;
            for section in (self.decode)(sections) {
                loader.add(section.map_err(|error| damaged(&error.to_string()))?);
            }
        }
        let state = loader
            .finish()
            .map_err(|error| damaged(&error.to_string()))?;
        if state.digest() != header.digest {
            return Err(damaged("its digest is another"));
        }
        Ok((table.meta, state))
    }

    fn read_sections(
        &mut self,
        file: FileId,
        places: &[SectionPlace],
    ) -> Result<Vec<(SectionId, Vec<u8>)>, ImageError> {
        let mut sections = Vec::with_capacity(places.len());
        for place in places {
            let bytes = read_exactly(&mut self.vfs, file, place.offset, place.length)?;
            if crc32fast::hash(&bytes) != place.checksum {
                return Err(damaged(&format!(
                    "section {} has a wrong checksum",
                    place.id
                )));
            }
            sections.push((place.id, bytes));
        }
        Ok(sections)
    }

    fn read_table(
        &mut self,
        file: FileId,
        position: LogPosition,
    ) -> Result<(Header, Table), ImageError> {
        let length = self.vfs.len(file)?;
        let bytes = read_exactly(&mut self.vfs, file, 0, HEADER_SIZE as u64)?;
        let header = Header::decode(&bytes)?;
        if header.cluster != self.cluster {
            return Err(ImageError::Foreign(header.cluster));
        }
        let ends = header
            .table_offset
            .checked_add(u64::from(header.table_length));
        if header.total != length || ends != Some(length) || header.table_length > TABLE_MAX {
            return Err(damaged("its lengths do not add up"));
        }
        let table_length = u64::from(header.table_length);
        let bytes = read_exactly(&mut self.vfs, file, header.table_offset, table_length)?;
        if crc32fast::hash(&bytes) != header.table_checksum {
            return Err(damaged("its table has a wrong checksum"));
        }
        let table: Table =
            minicbor::decode(&bytes).map_err(|error| damaged(&format!("its table: {error}")))?;
        let inside = |place: &SectionPlace| {
            place.length <= SECTION_MAX
                && place
                    .offset
                    .checked_add(place.length)
                    .is_some_and(|end| end <= length)
        };
        if table.meta.position != position || !table.sections.iter().all(inside) {
            return Err(damaged("its table is of another image"));
        }
        Ok((header, table))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Header {
    cluster: ClusterId,
    table_offset: u64,
    table_length: u32,
    table_checksum: u32,
    total: u64,
    digest: u64,
}

impl Header {
    fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        bytes[..8].copy_from_slice(MAGIC);
        put_u32(&mut bytes, 8, VERSION);
        put_u32(&mut bytes, 12, self.table_length);
        put_u64(&mut bytes, 16, self.cluster.0);
        put_u64(&mut bytes, 24, self.table_offset);
        put_u64(&mut bytes, 32, self.total);
        put_u64(&mut bytes, 40, self.digest);
        put_u32(&mut bytes, 56, self.table_checksum);
        let checksum = crc32fast::hash(&bytes[..60]);
        put_u32(&mut bytes, 60, checksum);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, ImageError> {
        if bytes[..8] != *MAGIC || crc32fast::hash(&bytes[..60]) != get_u32(bytes, 60) {
            return Err(damaged("its header has a wrong checksum"));
        }
        if get_u32(bytes, 8) != VERSION {
            return Err(ImageError::Version(get_u32(bytes, 8)));
        }
        Ok(Self {
            cluster: ClusterId(get_u64(bytes, 16)),
            table_offset: get_u64(bytes, 24),
            table_length: get_u32(bytes, 12),
            table_checksum: get_u32(bytes, 56),
            total: get_u64(bytes, 32),
            digest: get_u64(bytes, 40),
        })
    }
}

/// Writes a whole image and makes its bytes durable; the header comes last.
fn write_image<V: Vfs>(
    vfs: &mut V,
    file: FileId,
    cluster: ClusterId,
    meta: &ImageMeta,
    state: &State,
) -> VfsResult<()> {
    let mut offset = HEADER_SIZE as u64;
    let mut table = Table {
        meta: meta.clone(),
        sections: Vec::new(),
    };
    let mut bytes = Vec::new();
    for id in state.sections() {
        bytes.clear();
        state.encode_section(id, &mut bytes);
        vfs.write_at(file, offset, &bytes)?;
        table.sections.push(SectionPlace {
            id,
            offset,
            length: bytes.len() as u64,
            checksum: crc32fast::hash(&bytes),
        });
        offset += bytes.len() as u64;
    }
    let encoded = minicbor::to_vec(&table).expect("writing to memory does not fail");
    vfs.write_at(file, offset, &encoded)?;
    let header = Header {
        cluster,
        table_offset: offset,
        table_length: u32::try_from(encoded.len()).expect("a table is far below 4 GiB"),
        table_checksum: crc32fast::hash(&encoded),
        total: offset + encoded.len() as u64,
        digest: state.digest(),
    };
    vfs.write_at(file, 0, &header.encode())?;
    sync(vfs, file)
}

/// How many of the sections are decoded together.
fn group_length(places: &[SectionPlace]) -> usize {
    let mut size = 0;
    let fits = |place: &&SectionPlace| {
        size += place.length;
        size <= GROUP_BYTES
    };
    places.iter().take_while(fits).count().max(1)
}

fn read_exactly<V: Vfs>(
    vfs: &mut V,
    file: FileId,
    offset: u64,
    length: u64,
) -> Result<Vec<u8>, ImageError> {
    let length = usize::try_from(length).map_err(|_| damaged("it is beyond this machine"))?;
    let mut bytes = vec![0; length];
    let read = vfs.read_at(file, offset, &mut bytes)?;
    if read < length {
        return Err(damaged("it is cut short"));
    }
    Ok(bytes)
}

fn sync<V: Vfs>(vfs: &mut V, file: FileId) -> VfsResult<()> {
    match vfs.sync(file) {
        Err(_) if planted::is(Planted::IgnoreSyncError) => Ok(()),
        result => result,
    }
}

fn image_name(position: LogPosition) -> String {
    format!("image-{:016x}", position.0)
}

fn image_position(name: &str) -> Option<LogPosition> {
    let digits = name.strip_prefix("image-")?;
    let well_formed = digits.len() == 16 && digits == digits.to_ascii_lowercase();
    let position = well_formed.then(|| u64::from_str_radix(digits, 16).ok())??;
    Some(LogPosition(position))
}

fn damaged(reason: &str) -> ImageError {
    ImageError::Damaged(reason.to_owned())
}

fn medium(error: VfsError) -> JournalError {
    JournalError::Medium(format!("the images: {error}"))
}
