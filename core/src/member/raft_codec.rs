//! Raft's messages in an encoding of our own: CBOR with numbered fields, and the
//! membership entries' bytes. What peers send is never parsed by protobuf.
//!
//! Owns the bounds: a message decodes into something that Raft may be fed, or
//! not at all (kinds that only live inside one process, entries with gaps, and
//! more entries than the bound are faults of the peer). The content of normal
//! entries is left to `super::entry_codec`.

use bytes::Bytes;
use minicbor::{Decode, Encode};
use raft::eraftpb;
use raft::eraftpb::{ConfState, Entry, EntryType, MessageType};

/// Entries in one message.
pub(super) const ENTRIES_MAX: usize = 64 << 10;
/// Members of a group, as voters and as learners.
pub(super) const MEMBERS_MAX: usize = 255;
/// Bytes of the context of a heartbeat or a vote.
const CONTEXT_MAX: usize = 64;

/// A fault of the peer: its link is closed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CodecError {
    /// The bytes do not decode.
    #[error("a message of the group does not decode: {0}")]
    Body(String),
    /// A kind that is not sent between members.
    #[error("unknown kind of message {0}")]
    Kind(u8),
    /// A list or a string is longer than its bound.
    #[error("a message of the group beyond the bounds")]
    Bound,
    /// Entries that don't follow each other, or belong to a later term than the message.
    #[error("the entries of a message do not follow each other")]
    Entries,
    /// The sender is not who is at the other end, or the receiver is somebody else.
    #[error("a message from {from} to {to} on the wrong link")]
    Misdirected {
        /// The sender that it names.
        from: u64,
        /// The receiver that it names.
        to: u64,
    },
}

#[derive(Encode, Decode)]
struct WireMessage<'b> {
    #[n(0)]
    kind: u8,
    #[n(1)]
    from: u64,
    #[n(2)]
    to: u64,
    #[n(3)]
    term: u64,
    #[n(4)]
    log_term: u64,
    #[n(5)]
    index: u64,
    #[n(6)]
    commit: u64,
    #[n(7)]
    commit_term: u64,
    #[n(8)]
    reject: bool,
    #[n(9)]
    reject_hint: u64,
    #[n(10)]
    request_snapshot: u64,
    #[n(11)]
    priority: i64,
    #[cbor(b(12), with = "minicbor::bytes")]
    context: &'b [u8],
    #[b(13)]
    entries: Vec<WireEntry<'b>>,
    #[n(14)]
    snapshot: Option<WireSnapshot>,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct WireEntry<'b> {
    #[n(0)]
    kind: u8,
    #[n(1)]
    term: u64,
    #[n(2)]
    index: u64,
    #[cbor(b(3), with = "minicbor::bytes")]
    data: &'b [u8],
}

#[derive(Encode, Decode)]
struct WireSnapshot {
    #[n(0)]
    index: u64,
    #[n(1)]
    term: u64,
    #[n(2)]
    voters: Vec<u64>,
    #[n(3)]
    learners: Vec<u64>,
}

/// The bytes of a message.
pub(super) fn encode(message: &eraftpb::Message) -> Bytes {
    let size: usize = message
        .entries
        .iter()
        .map(|entry| entry.data.len() + 32)
        .sum();
    let mut bytes = Vec::with_capacity(size + 128);
    let wire = WireMessage {
        kind: kind_number(message.get_msg_type()),
        from: message.from,
        to: message.to,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        commit: message.commit,
        commit_term: message.commit_term,
        reject: message.reject,
        reject_hint: message.reject_hint,
        request_snapshot: message.request_snapshot,
        priority: message.priority,
        context: &message.context,
        entries: message.entries.iter().map(wire_entry).collect(),
        snapshot: message.snapshot.as_ref().map(wire_snapshot),
    };
    minicbor::encode(&wire, &mut bytes).expect("writing to memory does not fail");
    Bytes::from(bytes)
}

/// The message in `bytes`; the data of its entries are slices of them.
///
/// # Errors
/// When it is not one that a member may send.
pub(super) fn decode(bytes: &Bytes) -> Result<eraftpb::Message, CodecError> {
    let wire: WireMessage<'_> =
        minicbor::decode(bytes).map_err(|error| CodecError::Body(error.to_string()))?;
    check_bounds(&wire)?;
    let mut message = eraftpb::Message::default();
    message.set_msg_type(kind_of(wire.kind)?);
    message.from = wire.from;
    message.to = wire.to;
    message.term = wire.term;
    message.log_term = wire.log_term;
    message.index = wire.index;
    message.commit = wire.commit;
    message.commit_term = wire.commit_term;
    message.reject = wire.reject;
    message.reject_hint = wire.reject_hint;
    message.request_snapshot = wire.request_snapshot;
    message.priority = wire.priority;
    message.context = Bytes::copy_from_slice(wire.context);
    let entries: Result<Vec<Entry>, CodecError> = wire
        .entries
        .iter()
        .map(|entry| entry_of(bytes, entry))
        .collect();
    message.set_entries(entries?.into());
    if let Some(snapshot) = wire.snapshot {
        message.set_snapshot(snapshot_of(snapshot));
    }
    Ok(message)
}

fn check_bounds(wire: &WireMessage<'_>) -> Result<(), CodecError> {
    let snapshot = wire.snapshot.as_ref();
    let members = snapshot.map_or(0, |it| it.voters.len().max(it.learners.len()));
    if wire.entries.len() > ENTRIES_MAX || members > MEMBERS_MAX || wire.context.len() > CONTEXT_MAX
    {
        return Err(CodecError::Bound);
    }
    let follow = |(at, entry): (usize, &WireEntry<'_>)| {
        Some(entry.index) == wire.index.checked_add(at as u64 + 1) && entry.term <= wire.term
    };
    if !wire.entries.iter().enumerate().all(follow) {
        return Err(CodecError::Entries);
    }
    Ok(())
}

fn wire_entry(entry: &Entry) -> WireEntry<'_> {
    WireEntry {
        kind: entry_kind_number(entry.get_entry_type()),
        term: entry.term,
        index: entry.index,
        data: &entry.data,
    }
}

fn entry_of(bytes: &Bytes, wire: &WireEntry<'_>) -> Result<Entry, CodecError> {
    let kind = entry_kind(wire.kind).ok_or(CodecError::Kind(wire.kind))?;
    Ok(make_entry(
        kind,
        wire.term,
        wire.index,
        bytes.slice_ref(wire.data),
    ))
}

/// An entry as Raft knows it.
pub(super) fn make_entry(kind: EntryType, term: u64, index: u64, data: Bytes) -> Entry {
    let mut entry = Entry::default();
    entry.set_entry_type(kind);
    entry.term = term;
    entry.index = index;
    entry.data = data;
    entry
}

/// Raft's type of entry by its stored number.
pub(super) fn entry_kind(number: u8) -> Option<EntryType> {
    match number {
        0 => Some(EntryType::EntryNormal),
        1 => Some(EntryType::EntryConfChange),
        _ => None,
    }
}

/// The stored number of Raft's type of entry.
///
/// # Panics
/// On a joint change, which this code never proposes.
pub(super) fn entry_kind_number(kind: EntryType) -> u8 {
    match kind {
        EntryType::EntryNormal => 0,
        EntryType::EntryConfChange => 1,
        EntryType::EntryConfChangeV2 => panic!("the group changes one member at a time"),
    }
}

fn wire_snapshot(snapshot: &eraftpb::Snapshot) -> WireSnapshot {
    let meta = snapshot.get_metadata();
    WireSnapshot {
        index: meta.index,
        term: meta.term,
        voters: meta.get_conf_state().voters.clone(),
        learners: meta.get_conf_state().learners.clone(),
    }
}

fn snapshot_of(wire: WireSnapshot) -> eraftpb::Snapshot {
    make_snapshot(
        wire.index,
        wire.term,
        conf_state(&wire.voters, &wire.learners),
    )
}

/// A snapshot as Raft knows it: only what it covers; the image travels apart.
pub(super) fn make_snapshot(index: u64, term: u64, conf: ConfState) -> eraftpb::Snapshot {
    let mut snapshot = eraftpb::Snapshot::default();
    let meta = snapshot.mut_metadata();
    meta.index = index;
    meta.term = term;
    meta.set_conf_state(conf);
    snapshot
}

/// A membership as Raft knows it.
pub(super) fn conf_state(voters: &[u64], learners: &[u64]) -> ConfState {
    let mut conf = ConfState::default();
    conf.set_voters(voters.to_vec());
    conf.set_learners(learners.to_vec());
    conf
}

/// The kinds that members send each other, with their numbers. All others live
/// inside one process, or forward what clients ask, which is never done here.
const KINDS: [(u8, MessageType); 10] = [
    (1, MessageType::MsgAppend),
    (2, MessageType::MsgAppendResponse),
    (3, MessageType::MsgRequestVote),
    (4, MessageType::MsgRequestVoteResponse),
    (5, MessageType::MsgSnapshot),
    (6, MessageType::MsgHeartbeat),
    (7, MessageType::MsgHeartbeatResponse),
    (8, MessageType::MsgTimeoutNow),
    (9, MessageType::MsgRequestPreVote),
    (10, MessageType::MsgRequestPreVoteResponse),
];

fn kind_number(kind: MessageType) -> u8 {
    let found = KINDS.iter().find(|(_, of)| *of == kind);
    found.expect("Raft sends no other kind between members").0
}

fn kind_of(number: u8) -> Result<MessageType, CodecError> {
    let found = KINDS.iter().find(|(known, _)| *known == number);
    found.map(|(_, kind)| *kind).ok_or(CodecError::Kind(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append() -> eraftpb::Message {
        let mut message = eraftpb::Message::default();
        message.set_msg_type(MessageType::MsgAppend);
        (message.from, message.to, message.term) = (1, 2, 7);
        (message.index, message.log_term, message.commit) = (10, 6, 9);
        let entries = vec![
            make_entry(EntryType::EntryNormal, 6, 11, Bytes::from_static(b"one")),
            make_entry(EntryType::EntryConfChange, 7, 12, Bytes::from_static(b"")),
        ];
        message.set_entries(entries.into());
        message
    }

    #[test]
    fn every_field_comes_back() {
        let mut message = append();
        message.reject = true;
        message.reject_hint = 3;
        message.commit_term = 5;
        message.request_snapshot = 4;
        message.priority = -1;
        message.context = Bytes::from_static(b"round");
        message.set_snapshot(make_snapshot(8, 6, conf_state(&[1, 2, 3], &[4])));
        assert_eq!(decode(&encode(&message)), Ok(message));
    }

    #[test]
    fn every_kind_comes_back() {
        for (_, kind) in KINDS {
            let mut message = eraftpb::Message::default();
            message.set_msg_type(kind);
            assert_eq!(decode(&encode(&message)), Ok(message));
        }
    }

    #[test]
    fn entries_with_a_gap_or_of_a_later_term_are_refused() {
        let mut gap = append();
        gap.mut_entries()[1].index = 13;
        assert_eq!(decode(&encode(&gap)), Err(CodecError::Entries));
        let mut later = append();
        later.mut_entries()[1].term = 8;
        assert_eq!(decode(&encode(&later)), Err(CodecError::Entries));
        let mut wrapping = append();
        wrapping.index = u64::MAX;
        assert_eq!(decode(&encode(&wrapping)), Err(CodecError::Entries));
    }

    #[test]
    fn too_long_lists_are_refused() {
        let mut message = append();
        message.context = Bytes::from(vec![0; CONTEXT_MAX + 1]);
        assert_eq!(decode(&encode(&message)), Err(CodecError::Bound));
        let many: Vec<u64> = (1..=MEMBERS_MAX as u64 + 1).collect();
        let mut message = append();
        message.set_snapshot(make_snapshot(8, 6, conf_state(&many, &[])));
        assert_eq!(decode(&encode(&message)), Err(CodecError::Bound));
    }

    #[test]
    fn cut_messages_are_refused() {
        let whole = encode(&append());
        for length in 0..whole.len() {
            assert!(decode(&whole.slice(..length)).is_err());
        }
    }
}
