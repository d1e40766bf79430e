//! Images: writing them when they are due, sending their pieces to members that
//! fell behind, receiving them from the leader when this one did.

use super::Member;
use super::images::Wanted;
use super::raft_codec::{MEMBERS_MAX, conf_state};
use super::store::StoredImage;
use crate::ids::{LogPosition, MemberId, Term, Token};
use crate::journal::operation::{ImageMeta, JournalError, JournalOperation, JournalReply};
use crate::machine::{Effect, Level};
use crate::marks::Mark;
use crate::namespace::State;
use crate::time::Duration;
use crate::wire::master_peer::PeerMessage;
use bytes::Bytes;
use raft::Storage;

/// For how long an image that found no space waits.
const NO_SPACE_PAUSE: Duration = Duration::from_secs(30);
/// Bytes of the largest image that is taken in: 16 TiB, far above a billion files.
const IMAGE_SIZE_MAX: u64 = 16 << 40;

impl Member {
    /// Begins writing the image that is due, and reading the pieces that are wanted.
    pub(super) fn begin_image_operations(&mut self) -> bool {
        self.begin_image() | self.begin_read()
    }

    fn begin_image(&mut self) -> bool {
        let busy = self.fetch.is_some() || self.installed.is_some();
        let memory = self.state.memory();
        if busy || !self.images.is_due(self.now, self.applied, memory) {
            return false;
        }
        let token = self.token();
        let image = self.present_image();
        let operation = JournalOperation::WriteImage {
            token,
            meta: image_meta(&image),
            state: Box::new(self.state.clone()),
        };
        self.images.begin_write(token, image);
        self.effect(Effect::Operate(operation));
        true
    }

    fn begin_read(&mut self) -> bool {
        let token = self.token();
        let Some(wanted) = self.images.poll_read(token) else {
            return false;
        };
        self.effect(Effect::Operate(JournalOperation::ReadImage {
            token,
            position: wanted.position,
            offset: wanted.offset,
            length: self.config.image_piece_size,
        }));
        true
    }

    pub(super) fn on_image_completed(
        &mut self,
        token: Token,
        result: Result<JournalReply, JournalError>,
    ) {
        if let Some(image) = self.images.take_write(token) {
            self.on_written(image, result);
        } else if let Some(wanted) = self.images.take_read(token) {
            self.on_read(wanted, result);
        } else {
            self.on_received(result);
        }
    }

    fn on_written(&mut self, image: StoredImage, result: Result<JournalReply, JournalError>) {
        if let Err(error) = result {
            self.log(Level::Warn, format!("no image for now: {error}"));
            self.images.postpone(self.now + NO_SPACE_PAUSE);
            return;
        }
        let Some(upto) = self.images.on_written(LogPosition(image.index)) else {
            return;
        };
        self.marks.reach(Mark::ImageWritten);
        self.raft.mut_store().set_image(image);
        self.raft.mut_store().shorten(upto.0);
        self.persist.shorten(upto);
    }

    /// A member wants a piece of an image of ours.
    pub(super) fn on_wanted(&mut self, member: MemberId, position: LogPosition, offset: u64) {
        let wanted = Wanted {
            member,
            position,
            offset,
        };
        self.images.want(self.now, wanted);
    }

    fn on_read(&mut self, wanted: Wanted, result: Result<JournalReply, JournalError>) {
        if let Ok(JournalReply::Piece { meta, total, data }) = result {
            let piece = PeerMessage::ImagePiece {
                position: meta.position,
                offset: wanted.offset,
                total,
                data,
            };
            self.send(wanted.member, piece);
        }
    }

    /// A piece of an image came from another member.
    pub(super) fn on_piece(
        &mut self,
        from: MemberId,
        position: LogPosition,
        offset: u64,
        total: u64,
        data: Bytes,
    ) {
        let piece_max = self.config.image_piece_size;
        let Some(fetch) = self.fetch.as_mut().filter(|fetch| fetch.from == from) else {
            return;
        };
        if data.len() > piece_max || total > IMAGE_SIZE_MAX {
            return;
        }
        if fetch.on_piece(self.now, position, offset, total, &data) {
            let token = self.token();
            self.effect(Effect::Operate(JournalOperation::ReceiveImage {
                token,
                position,
                offset,
                total,
                data,
            }));
        }
        self.ask_for_pieces();
    }

    /// Asks for the pieces that the window has room for.
    pub(super) fn ask_for_pieces(&mut self) {
        let Some(mut fetch) = self.fetch.take() else {
            return;
        };
        while let Some(offset) = fetch.poll_wanted() {
            let position = fetch.position;
            self.send(fetch.from, PeerMessage::ImageWanted { position, offset });
        }
        self.fetch = Some(fetch);
    }

    fn on_received(&mut self, result: Result<JournalReply, JournalError>) {
        match result {
            Ok(JournalReply::Installed { meta, state }) => self.on_installed(&meta, state),
            Ok(_) => {
                if let Some(fetch) = &mut self.fetch {
                    fetch.on_stored();
                }
                self.ask_for_pieces();
            }
            Err(error) => {
                // The next message of the leader begins anew.
                self.log(
                    Level::Error,
                    format!("a received image is of no use: {error}"),
                );
                self.fetch = None;
            }
        }
    }

    fn on_installed(&mut self, meta: &ImageMeta, state: Box<State>) {
        self.fetch = None;
        if meta.voters.len().max(meta.learners.len()) > MEMBERS_MAX {
            return;
        }
        let image = StoredImage {
            index: meta.position.0,
            term: meta.term.0,
            conf: conf_state(&meta.voters, &meta.learners),
        };
        let first = self.raft.store().first_index().expect("it is known");
        if self.restore(&image) {
            self.installed = Some((image, state));
        } else if image.index + 1 >= first && self.images.on_written(meta.position).is_some() {
            self.raft.mut_store().set_image(image);
        }
    }

    /// Asks again what was not answered, and stops waiting for members that ask no more.
    pub(super) fn watch_images(&mut self) {
        let patience = self.patience();
        if let Some(fetch) = &mut self.fetch
            && fetch.retry(self.now, patience)
        {
            self.ask_for_pieces();
        }
        if !self.is_leader() {
            return;
        }
        let members: Vec<MemberId> = self
            .raft
            .raft
            .prs()
            .iter()
            .map(|(&member, _)| MemberId(member))
            .collect();
        for member in members {
            let asked = self.images.served_at(member);
            if asked.is_none_or(|asked| self.now.since(asked) >= patience) {
                self.give_up_image_for(member);
            }
        }
    }
}

fn image_meta(image: &StoredImage) -> ImageMeta {
    let sorted = |members: &[u64]| {
        let mut members = members.to_vec();
        members.sort_unstable();
        members
    };
    ImageMeta {
        position: LogPosition(image.index),
        term: Term(image.term),
        voters: sorted(&image.conf.voters),
        learners: sorted(&image.conf.learners),
    }
}
