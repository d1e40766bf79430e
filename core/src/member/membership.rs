//! The bytes of an entry that changes the group's membership: what Raft itself
//! writes (a protobuf `ConfChange` of two numbers), read by a parser of our own,
//! since the bytes may come from a peer.
//!
//! ```text
//! 0x10 kind    0 voter, 1 leaves, 2 learner (absent: 0)
//! 0x18 member  a varint
//! ```

use raft::eraftpb::{ConfChange, ConfChangeType};

/// The change in an entry's bytes; `None` when they are something else.
pub(super) fn decode(mut data: &[u8]) -> Option<ConfChange> {
    let mut change = ConfChange::default();
    while let Some((&tag, rest)) = data.split_first() {
        let (value, rest) = varint(rest)?;
        match tag {
            0x10 => change.set_change_type(kind(value)?),
            0x18 => change.node_id = value,
            _ => return None,
        }
        data = rest;
    }
    (change.node_id != 0).then_some(change)
}

/// A change that `decode` reads back.
pub(super) fn change(kind: ConfChangeType, member: u64) -> ConfChange {
    let mut change = ConfChange::default();
    change.set_change_type(kind);
    change.node_id = member;
    change
}

fn kind(number: u64) -> Option<ConfChangeType> {
    match number {
        0 => Some(ConfChangeType::AddNode),
        1 => Some(ConfChangeType::RemoveNode),
        2 => Some(ConfChangeType::AddLearnerNode),
        _ => None,
    }
}

fn varint(data: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (at, &byte) in data.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(7 * u32::try_from(at).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((value, &data[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use protobuf::Message;

    #[test]
    fn reads_what_raft_writes() {
        for kind in [
            ConfChangeType::AddNode,
            ConfChangeType::RemoveNode,
            ConfChangeType::AddLearnerNode,
        ] {
            for member in [1, 127, 128, u64::MAX] {
                let wanted = change(kind, member);
                let bytes = wanted.write_to_bytes().expect("memory");
                assert_eq!(decode(&bytes), Some(wanted));
            }
        }
    }

    #[test]
    fn refuses_anything_else() {
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[0x10, 3, 0x18, 1]), None);
        assert_eq!(decode(&[0x18]), None);
        assert_eq!(decode(&[0x18, 0x80]), None);
        assert_eq!(decode(&[0x22, 0]), None);
    }
}
