//! Doing what Raft wants: its `Ready`s go to the log, to the state and to the
//! other members, until there is nothing left to do.
//!
//! Owns the order of these steps. Invariant: `settle` leaves nothing undone that
//! could be done without waiting for the disk or for another member.

use super::event::MemberEvent;
use super::persist::{Pending, Persisted};
use super::store::StoredImage;
use super::{Member, Standing, membership, raft_codec};
use crate::hash::mix;
use crate::ids::{LogPosition, MemberId, Term};
use crate::journal::operation::{HardState, JournalCompletion, JournalError, JournalReply};
use crate::machine::{Effect, Level};
use crate::marks::Mark;
use crate::namespace::record::{Record, RecordBody};
use crate::planted::{self, Planted};
use crate::wire::Message;
use crate::wire::master_peer::PeerMessage;
use raft::eraftpb::{Entry, EntryType, Message as RaftMessage, MessageType};
use raft::{Ready, StateRole};

impl Member {
    /// Everything that can be done now.
    pub(super) fn settle(&mut self) {
        while !self.stopped {
            if self.raft.has_ready() {
                self.on_ready();
            } else if let Some(persisted) = self.persist.poll_idle() {
                self.on_persisted(persisted);
            } else if !self.begin_more() {
                break;
            }
            self.note_standing();
        }
    }

    /// Begins what waits for nothing: proposals, a read round, an operation.
    fn begin_more(&mut self) -> bool {
        if self.may_propose() && !self.persist.is_busy() && self.pump(self.config.log_batch_max) {
            return true;
        }
        if self.led == Some(self.term()) && self.begin_round() {
            return true;
        }
        self.begin_log_operation() | self.begin_image_operations()
    }

    /// Proposes queued groups, up to `most` bytes; whether there were any.
    pub(super) fn pump(&mut self, most: usize) -> bool {
        let (mut size, mut any) = (0, false);
        while size < most {
            let Some(group) = self.proposals.poll_group() else {
                break;
            };
            any = true;
            size += group.size();
            if group.len() > 1 {
                self.marks.reach(Mark::RecordsGrouped);
            }
            let (data, records) = group.into_parts();
            match self.raft.propose(Vec::new(), data) {
                Ok(()) => {
                    let position = self.raft.raft.raft_log.last_index();
                    self.proposals
                        .on_proposed(position, self.raft.raft.term, records);
                }
                Err(_) => {
                    let tickets = records
                        .into_iter()
                        .filter_map(|(ticket, _)| ticket)
                        .collect();
                    self.drop_tickets(tickets);
                }
            }
        }
        any
    }

    fn begin_round(&mut self) -> bool {
        if self.is_alone() {
            let tickets = self.barriers.release_all();
            self.tell_ready(&tickets);
            return false;
        }
        if !self.barriers.wants_round(self.now, self.lease_used) {
            return false;
        }
        self.lease_used = false;
        let context = self.barriers.begin(self.now, self.term());
        self.raft.read_index(context);
        true
    }

    fn tell_ready(&mut self, tickets: &[u64]) {
        self.events.extend(
            tickets
                .iter()
                .map(|&ticket| MemberEvent::ReadReady { ticket }),
        );
    }

    fn begin_log_operation(&mut self) -> bool {
        let token = self.token();
        let Some(operation) = self.persist.poll_operation(token) else {
            return false;
        };
        self.log_began = self.now;
        self.effect(Effect::Operate(operation));
        if planted::is(Planted::AcknowledgeBeforeSync)
            && let Some(persisted) = self.persist.take_early()
        {
            self.on_persisted(persisted);
        }
        true
    }

    fn on_ready(&mut self) {
        let mut ready = self.raft.ready();
        let sendable = ready.take_messages();
        let mut pending = Pending {
            number: ready.number(),
            must_sync: ready.must_sync(),
            hard: ready.hs().map(hard_state),
            messages: ready.take_persisted_messages(),
            ..Pending::default()
        };
        self.restart(&ready, &mut pending);
        pending.entries = ready.take_entries();
        if self.raft.mut_store().append(&pending.entries) {
            self.marks.reach(Mark::LogCut);
        }
        if let Some(hard) = ready.hs() {
            self.raft.mut_store().set_hard(hard.clone());
        }
        let term_is_durable = self.persist.durable_term() == self.term();
        if term_is_durable {
            self.persist.push(pending);
            self.send_all(sendable);
        } else {
            // A leader without other voters has told nobody of its term: if it spoke
            // before the term is durable, a crash could make it lead the same term
            // again, with other entries.
            pending.messages.extend(sendable);
            self.persist.push(pending);
        }
        let (reads, committed) = (ready.take_read_states(), ready.take_committed_entries());
        self.raft.advance_append_async(ready);
        for read in reads {
            let term = self.term();
            let released = self.barriers.on_answered(self.now, term, &read.request_ctx);
            self.tell_ready(&released.tickets);
        }
        self.apply_all(committed);
    }

    /// Raft took an image in: its state replaces ours, its membership holds.
    fn restart(&mut self, ready: &Ready, pending: &mut Pending) {
        if ready.snapshot().is_empty() {
            return;
        }
        let (image, state) = self
            .installed
            .take()
            .expect("Raft restores what was installed");
        let meta = ready.snapshot().get_metadata();
        assert_eq!(
            (image.index, image.term),
            (meta.index, meta.term),
            "it is that image"
        );
        pending.restart = Some((LogPosition(image.index), Term(image.term)));
        self.state = *state;
        self.applied = LogPosition(image.index);
        self.applied_term = Term(image.term);
        self.images.on_installed(self.applied);
        self.raft.mut_store().restart(image);
        self.marks.reach(Mark::ImageInstalled);
        if !self.knows_level() {
            return;
        }
        self.learn_addresses();
        self.events.push_back(MemberEvent::Replaced);
    }

    fn on_persisted(&mut self, persisted: Persisted) {
        self.send_all(persisted.messages);
        self.raft.on_persist_ready(persisted.number);
        if let Some(position) = persisted.restarted {
            self.raft.advance_apply_to(position.0);
        }
    }

    /// A storage operation ended.
    pub(super) fn on_completed(&mut self, completion: JournalCompletion) {
        let JournalCompletion { token, result } = completion;
        if let Err(JournalError::Medium(reason)) = &result {
            self.fail(format!(
                "the storage of {} failed: {reason}",
                self.config.member
            ));
        } else if self.persist.owns(token) {
            assert!(
                matches!(result, Ok(JournalReply::Done)),
                "a log operation is done or the medium failed, not {result:?}"
            );
            if let Some(persisted) = self.persist.on_done(token) {
                self.on_persisted(persisted);
            }
        } else {
            self.on_image_completed(token, result);
        }
    }

    fn apply_all(&mut self, entries: Vec<Entry>) {
        let Some(last) = entries.last().map(|entry| entry.index) else {
            return;
        };
        for entry in entries {
            self.apply(entry);
            if self.stopped {
                return;
            }
        }
        self.raft.advance_apply_to(last);
    }

    fn apply(&mut self, entry: Entry) {
        let position = LogPosition(entry.index);
        assert_eq!(
            position,
            self.applied.next(),
            "entries are applied in order, once"
        );
        match entry.get_entry_type() {
            EntryType::EntryNormal => self.apply_records(position, &entry),
            EntryType::EntryConfChange => self.apply_change(&entry),
            EntryType::EntryConfChangeV2 => panic!("the group changes one member at a time"),
        }
        self.applied = position;
        self.applied_term = Term(entry.term);
        self.images.on_applied(entry.data.len());
        if self.is_leader() && entry.term == self.raft.raft.term && self.led.is_none() {
            self.begin_reign();
        }
    }

    fn begin_reign(&mut self) {
        let term = self.term();
        self.led = Some(term);
        self.marks.reach(Mark::LeaderElected);
        self.log(
            Level::Info,
            format!("{} leads in {term}", self.config.member),
        );
        self.events.push_back(MemberEvent::Leads { term });
    }

    fn apply_records(&mut self, position: LogPosition, entry: &Entry) {
        let own = self.proposals.take(entry.index, entry.term);
        let records = match own.map_or_else(|| decode_records(entry), Ok) {
            Ok(records) => records,
            Err(error) => {
                return self.fail(format!(
                    "the committed entry at {position} is not understood, a newer version \
                     wrote it: {error}"
                ));
            }
        };
        for (ticket, record) in records {
            self.apply_record(position, ticket, record);
            if self.stopped {
                break;
            }
        }
    }

    fn apply_record(&mut self, position: LogPosition, ticket: Option<u64>, record: Record) {
        let before = self.state.feature_level();
        let applied = self.state.apply(position, &record);
        if self.state.feature_level() > before {
            if !self.knows_level() {
                return;
            }
            self.note_level(&record);
        }
        if let RecordBody::Member { member, address } = &record.body {
            self.learn_address(MemberId(*member), address.as_str().into());
        }
        self.events.push_back(MemberEvent::Applied {
            position,
            ticket,
            record,
            applied,
        });
    }

    fn note_level(&mut self, record: &Record) {
        if matches!(record.body, RecordBody::Client(_)) {
            self.marks.reach(Mark::LevelRaised);
        }
        let level = self.state.feature_level();
        self.log(
            Level::Info,
            format!("the cluster is at feature level {level}"),
        );
    }

    /// A change that contradicts the membership changes nothing, on every member alike.
    fn apply_change(&mut self, entry: &Entry) {
        let Some(change) = membership::decode(&entry.data) else {
            panic!("the committed change at {} is not understood", entry.index);
        };
        match self.raft.apply_conf_change(&change) {
            Ok(conf) => {
                self.raft.mut_store().set_conf(conf);
                self.learn_addresses();
            }
            Err(error) => self.log(Level::Warn, format!("the group stays as it is: {error}")),
        }
    }

    fn send_all(&mut self, messages: Vec<RaftMessage>) {
        for message in messages {
            self.send_raft(message);
        }
    }

    fn send_raft(&mut self, message: RaftMessage) {
        let to = MemberId(message.to);
        if message.get_msg_type() == MessageType::MsgSnapshot {
            self.images.begin_serving(self.now, to);
        }
        let from = self.config.member;
        let data = raft_codec::encode(&message);
        self.send(to, PeerMessage::Raft { from, data });
    }

    /// Sends to a member if the link is up; otherwise the message is lost, as any
    /// may be.
    pub(super) fn send(&mut self, to: MemberId, message: PeerMessage) {
        if let Some(link) = self.peers.link(to) {
            let message = Message::Peer(message);
            self.effect(Effect::Send { link, message });
        }
    }

    /// Tells who leads when that changed.
    fn note_standing(&mut self) {
        let standing = Standing {
            term: self.term(),
            role: self.raft.raft.state,
            leader: self.leader(),
        };
        if standing != self.standing {
            let before = std::mem::replace(&mut self.standing, standing);
            self.changes += 1;
            self.on_standing(before);
        }
        self.refresh_timeout();
    }

    fn on_standing(&mut self, before: Standing) {
        let led = before.role == StateRole::Leader;
        if led && (!self.is_leader() || before.term != self.term()) {
            self.led = None;
            let mut tickets = self.proposals.drop_all();
            tickets.extend(self.barriers.reset());
            self.drop_tickets(tickets);
        }
        let told = (before.leader, led) == (self.standing.leader, self.is_leader());
        if !self.is_leader() && !told {
            let leader = self.standing.leader;
            self.events.push_back(MemberEvent::Follows { leader });
        }
    }

    /// Raft draws its election timeout from a generator of its own: it is replaced
    /// by one that follows from the seed and from what happened.
    pub(super) fn refresh_timeout(&mut self) {
        let low = self.config.election_ticks;
        let draw = mix(self.seed ^ mix(self.raft.raft.term) ^ mix(self.changes << 1));
        let spread = usize::try_from(draw % low as u64).expect("less than a usize");
        self.raft.raft.set_randomized_election_timeout(low + spread);
    }

    /// The image of the state as it is now.
    pub(super) fn present_image(&self) -> StoredImage {
        StoredImage {
            index: self.applied.0,
            term: self.applied_term.0,
            conf: self.raft.store().conf().clone(),
        }
    }
}

/// The records of an entry that somebody else proposed, or that is read again.
fn decode_records(entry: &Entry) -> Result<Vec<(Option<u64>, Record)>, String> {
    let records = super::entry_codec::decode_entry(&entry.data);
    let records = records.map_err(|error| error.to_string())?;
    Ok(records.into_iter().map(|record| (None, record)).collect())
}

fn hard_state(hard: &raft::eraftpb::HardState) -> HardState {
    HardState {
        term: Term(hard.term),
        vote: hard.vote,
        commit: LogPosition(hard.commit),
    }
}
