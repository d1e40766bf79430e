//! What goes into a member and what comes out: closed enums, so that the roles
//! on top of it see every case.

use crate::ids::{LinkId, LogPosition, MemberId, Term};
use crate::journal::operation::{JournalCompletion, JournalOperation};
use crate::machine::{Effect, Peer};
use crate::namespace::Applied;
use crate::namespace::record::Record;
use crate::wire::master_peer::PeerMessage;

/// What happened, as far as it concerns a member.
#[derive(Debug)]
pub enum MemberInput {
    /// Another member connected.
    Accepted {
        /// The new link.
        link: LinkId,
        /// Who it is.
        peer: Peer,
    },
    /// A link that the member asked for is up.
    Connected {
        /// Which.
        link: LinkId,
        /// Who is there.
        peer: Peer,
    },
    /// A link that it asked for, or that another member made, is down.
    Closed {
        /// Which.
        link: LinkId,
    },
    /// Another member says something.
    Message {
        /// On which link.
        link: LinkId,
        /// What.
        message: PeerMessage,
    },
    /// A storage operation ended.
    Completed(JournalCompletion),
    /// The time that `poll_timeout` named has come (or any later time).
    Timeout,
}

/// What a member wants done, or tells.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every event is the large one, and is moved once"
)]
#[derive(Debug)]
pub enum MemberEvent {
    /// To be passed on as it is.
    Effect(Effect<JournalOperation, ()>),
    /// A record was applied to the state. Records of one log entry share its position.
    Applied {
        /// Where in the log.
        position: LogPosition,
        /// Who proposed it, if that was here, in this term.
        ticket: Option<u64>,
        /// What.
        record: Record,
        /// What came of it.
        applied: Applied,
    },
    /// A barrier that waited: reads of the state are fresh now.
    ReadReady {
        /// Which.
        ticket: u64,
    },
    /// The leadership was lost first. A proposal's outcome is unknown: it may still
    /// be applied, and then comes as `Applied` without a ticket.
    Dropped {
        /// Of a proposal or a barrier.
        ticket: u64,
    },
    /// This member leads, and everything of earlier terms is applied.
    Leads {
        /// Its term.
        term: Term,
    },
    /// Another member leads, or nobody does.
    Follows {
        /// Who.
        leader: Option<MemberId>,
    },
    /// The whole state was replaced by an image: forget what was derived from it.
    Replaced,
}

/// The answer to the question whether a read may be answered now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Barrier {
    /// Now.
    Pass,
    /// `ReadReady` or `Dropped` follows.
    Wait,
    /// Another member leads, or nobody does.
    NotLeader,
}

/// A change of the group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MemberChange {
    /// A new member that does not vote, or a voter that stops voting.
    Learner {
        /// Who.
        member: MemberId,
        /// Where it listens.
        address: crate::ids::Address,
    },
    /// A new voter, or a learner that votes from now on (let it catch up first).
    Voter {
        /// Who.
        member: MemberId,
        /// Where it listens.
        address: crate::ids::Address,
    },
    /// It leaves.
    Remove {
        /// Who.
        member: MemberId,
    },
}
