//! What comes over the links between members: links coming and going, Raft's
//! messages, and the requests for images.
//!
//! Owns the checks that keep a peer's fault from becoming ours: who may say what,
//! and what Raft may be told. Leaves pieces of images to `super::keep`.

use super::raft_codec::{self, CodecError, make_snapshot};
use super::{Fetch, Member};
use crate::ids::{LinkId, LogPosition, MemberId};
use crate::machine::{Effect, Level, Peer};
use crate::marks::Mark;
use crate::wire::master_peer::PeerMessage;
use raft::eraftpb::{Message as RaftMessage, MessageType};
use raft::{ProgressState, SnapshotStatus};

/// The context of a vote that the leader itself asked for (Raft's own constant).
const BY_TRANSFER: &[u8] = b"CampaignTransfer";

impl Member {
    pub(super) fn on_accepted(&mut self, link: LinkId, peer: &Peer) {
        self.note_version(peer);
        match peer.member() {
            Some(member) if member != self.config.member => self.peers.on_accepted(link, member),
            _ => {
                let reason = "not another member of the group".to_owned();
                self.effect(Effect::Close { link, reason });
            }
        }
    }

    pub(super) fn on_connected(&mut self, link: LinkId, peer: &Peer) {
        self.note_version(peer);
        if !self.peers.on_connected(self.now, link, peer) {
            let reason = "another member answers at this address".to_owned();
            self.effect(Effect::Close { link, reason });
        }
    }

    fn note_version(&mut self, peer: &Peer) {
        if peer.speaks < self.config.speaks {
            self.marks.reach(Mark::SpokePrevious);
        }
    }

    pub(super) fn on_closed(&mut self, link: LinkId) {
        let Some(member) = self.peers.on_closed(self.now, link) else {
            if let Some(fetch) = &mut self.fetch {
                fetch.on_break();
            }
            return;
        };
        self.raft.report_unreachable(member.0);
        self.give_up_image_for(member);
    }

    /// A member that was told of an image will not go on with it: it is probed anew.
    pub(super) fn give_up_image_for(&mut self, member: MemberId) {
        let progress = self.raft.raft.prs().get(member.0);
        if progress.is_some_and(|progress| progress.state == ProgressState::Snapshot) {
            self.raft.report_snapshot(member.0, SnapshotStatus::Failure);
        }
    }

    pub(super) fn on_message(&mut self, link: LinkId, message: PeerMessage) {
        let Some(sender) = self.peers.sender(self.now, link) else {
            return;
        };
        match message {
            PeerMessage::Raft { data, .. } => match self.checked(sender, &data) {
                Ok(message) => self.on_raft(message),
                Err(error) => self.on_fault(link, sender, &error),
            },
            PeerMessage::ImageWanted { position, offset } => {
                self.on_wanted(sender, position, offset);
            }
            PeerMessage::ImagePiece {
                position,
                offset,
                total,
                data,
            } => self.on_piece(sender, position, offset, total, data),
        }
    }

    fn checked(&self, sender: MemberId, data: &bytes::Bytes) -> Result<RaftMessage, CodecError> {
        let message = raft_codec::decode(data)?;
        if message.from != sender.0 || message.to != self.config.member.0 {
            return Err(CodecError::Misdirected {
                from: message.from,
                to: message.to,
            });
        }
        Ok(message)
    }

    fn on_fault(&mut self, link: LinkId, sender: MemberId, error: &CodecError) {
        self.log(
            Level::Error,
            format!("{sender} says what it may not: {error}"),
        );
        self.peers.on_closed(self.now, link);
        let reason = error.to_string();
        self.effect(Effect::Close { link, reason });
    }

    fn on_raft(&mut self, mut message: RaftMessage) {
        match message.get_msg_type() {
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote
                if self.now < self.mute_until && *message.context != *BY_TRANSFER => {}
            MessageType::MsgHeartbeat => {
                let (from, term) = (message.from, message.term);
                // A member that lost its log is sent what it lacks like any other.
                message.commit = message.commit.min(self.raft.raft.raft_log.last_index());
                self.step(message);
                self.vouch_for(from, term);
            }
            MessageType::MsgSnapshot => self.on_snapshot(message),
            _ => self.step(message),
        }
    }

    /// Raft refuses what it can't use; that is no fault.
    fn step(&mut self, message: RaftMessage) {
        let _refused = self.raft.step(message);
    }

    /// This member's answer to a heartbeat lets the leader answer reads alone for a
    /// while: for as long it helps nobody else to lead.
    fn vouch_for(&mut self, leader: u64, term: u64) {
        let raft = &self.raft.raft;
        if raft.leader_id == leader && raft.term == term {
            let until = self.now + self.config.election_timeout();
            self.mute_until = self.mute_until.max(until);
        }
    }

    /// The leader's log does not reach back to ours: it names an image.
    fn on_snapshot(&mut self, message: RaftMessage) {
        if message.term < self.raft.raft.term {
            return;
        }
        let meta = message.get_snapshot().get_metadata();
        let (position, term) = (LogPosition(meta.index), meta.term);
        let log = &self.raft.raft.raft_log;
        if position.0 <= log.committed || log.match_term(position.0, term) {
            self.step(message);
            return;
        }
        let from = MemberId(message.from);
        self.hear_leader(&message);
        if self.installed.is_some() || self.fetch.as_ref().is_some_and(|it| it.from == from) {
            return;
        }
        self.log(
            Level::Info,
            format!("fetching the image at {position} from {from}"),
        );
        self.fetch = Some(Fetch::new(
            self.now,
            from,
            position,
            self.config.image_piece_size,
        ));
        self.ask_for_pieces();
    }

    /// The leader was heard, though what it sent is not passed on yet.
    fn hear_leader(&mut self, message: &RaftMessage) {
        let mut heartbeat = RaftMessage::default();
        heartbeat.set_msg_type(MessageType::MsgHeartbeat);
        heartbeat.from = message.from;
        heartbeat.to = message.to;
        heartbeat.term = message.term;
        self.step(heartbeat);
    }

    /// An image was received and loaded: Raft goes on behind it, unless the log
    /// got there by itself meanwhile.
    pub(super) fn restore(&mut self, image: &super::StoredImage) -> bool {
        let raft = &mut self.raft.raft;
        if raft.state != raft::StateRole::Follower {
            let term = raft.term;
            raft.become_follower(term, raft::INVALID_ID);
        }
        let snapshot = make_snapshot(image.index, image.term, image.conf.clone());
        let restored = raft.restore(snapshot);
        if raft.leader_id != raft::INVALID_ID {
            let mut answer = RaftMessage::default();
            answer.set_msg_type(MessageType::MsgAppendResponse);
            answer.from = raft.id;
            answer.to = raft.leader_id;
            answer.term = raft.term;
            answer.index = image.index;
            answer.commit = raft.raft_log.committed;
            raft.msgs.push(answer);
        }
        restored
    }
}
