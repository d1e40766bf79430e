//! Sessions and exactly once: the requests of a session have their effect once
//! while it lives, and get their first reply again.
//!
//! Owns sessions and remembered replies. Invariants: a reply is remembered until
//! the session names an `oldest` request behind it; at most SESSION_WINDOW are;
//! nothing of an ended session is left, and none of its requests is ever run.

use super::apply::Step;
use super::digest;
use super::name::{Name, heap_of};
use super::record::{ClientRecord, Outcome, Reply};
use super::state::{Change, Derived, State};
use super::table::Entity;
use crate::errno::Errno;
use crate::ids::{ChunkId, InodeId, RequestId, SessionId};
use crate::limits::SESSION_WINDOW;
use crate::planted::{self, Planted};
use minicbor::{Decode, Encode};
use std::sync::Arc;

/// A mounted client.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct Session {
    #[n(0)]
    pub(crate) name: Name,
    #[n(1)]
    pub(crate) nonce: u64,
    /// Replies below are forgotten: the client has them.
    #[n(2)]
    pub(crate) oldest: RequestId,
}

impl Entity<SessionId> for Session {
    fn hash(&self, key: &SessionId) -> u64 {
        let name = digest::bytes(10, self.name.bytes());
        digest::words(10, &[key.0, name, self.nonce, self.oldest.0])
    }

    fn heap(&self, _: &SessionId) -> usize {
        self.name.heap()
    }
}

/// A reply with its hash (it is long, and hashed when it comes and when it goes).
#[derive(Clone, Debug)]
pub(crate) struct RememberedReply {
    outcome: Arc<Outcome>,
    hash: u64,
    bytes: u32,
}

impl RememberedReply {
    /// Remembers an outcome.
    pub(crate) fn new(outcome: Outcome) -> Self {
        let encoded = minicbor::to_vec(&outcome).expect("writing to memory does not fail");
        let heap = heap_of(16 + size_of::<Outcome>()) + encoded.len();
        Self {
            outcome: Arc::new(outcome),
            hash: digest::bytes(11, &encoded),
            bytes: u32::try_from(heap).expect("a reply is small"),
        }
    }

    /// The outcome.
    pub(crate) fn outcome(&self) -> &Outcome {
        &self.outcome
    }
}

impl Entity<(SessionId, RequestId)> for RememberedReply {
    fn hash(&self, (session, request): &(SessionId, RequestId)) -> u64 {
        digest::words(11, &[session.0, request.0, self.hash])
    }

    fn heap(&self, _: &(SessionId, RequestId)) -> usize {
        self.bytes as usize
    }
}

impl<C> Encode<C> for RememberedReply {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut minicbor::Encoder<W>,
        context: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        self.outcome().encode(encoder, context)
    }
}

impl<'b, C> Decode<'b, C> for RememberedReply {
    fn decode(
        decoder: &mut minicbor::Decoder<'b>,
        context: &mut C,
    ) -> Result<Self, minicbor::decode::Error> {
        Ok(Self::new(Outcome::decode(decoder, context)?))
    }
}

/// What is known of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remembered<'a> {
    /// It was run: this was the reply.
    Reply(&'a Outcome),
    /// It was not run yet.
    New,
    /// Its reply was seen by the client and is forgotten.
    TooOld,
    /// The session is over, or never was.
    NoSession,
    /// It is more than SESSION_WINDOW ahead of the oldest unanswered one.
    BeyondWindow,
}

impl State {
    /// What is known of a request of a session.
    #[must_use]
    pub fn remembered(&self, session: SessionId, request: RequestId) -> Remembered<'_> {
        let Some(known) = self.sessions.get(&session) else {
            return Remembered::NoSession;
        };
        if request < known.oldest {
            return Remembered::TooOld;
        }
        if request.0 - known.oldest.0 >= SESSION_WINDOW {
            return Remembered::BeyondWindow;
        }
        match self.replies.get(&(session, request)) {
            Some(_) if planted::is(Planted::ForgetReply) => Remembered::New,
            Some(reply) => Remembered::Reply(reply.outcome()),
            None => Remembered::New,
        }
    }

    /// `RecordBody::BeginSession`.
    pub(crate) fn begin_session(&mut self, name: &str, nonce: u64) -> Outcome {
        if !self.is_founded() {
            return Err(Errno::EAGAIN);
        }
        if let Some(Derived(session)) = self.nonces.get(&nonce) {
            return Ok(Reply::Session(*session));
        }
        let session = self.scalars.last_session.next();
        self.scalars.last_session = session;
        let begun = Session {
            name: Name::new(name.as_bytes()),
            nonce,
            oldest: RequestId(1),
        };
        self.sessions.add(session, begun);
        self.nonces.add(nonce, Derived(session));
        Ok(Reply::Session(session))
    }

    /// `RecordBody::EndSession`. `keep_empty`: chunks without committed content stay.
    pub(crate) fn end_session(
        &mut self,
        step: &mut Step<'_>,
        session: SessionId,
        keep_empty: bool,
    ) {
        let Some(ended) = self.sessions.remove(&session) else {
            return;
        };
        self.nonces.remove(&ended.nonce);
        self.forget_replies(session, RequestId(u64::MAX));
        let held: Vec<ChunkId> = self.held_by(session).collect();
        for chunk in held {
            self.break_lease(step, chunk, keep_empty);
        }
        let orphans: Vec<InodeId> = self.orphans_of(session).collect();
        for inode in orphans {
            self.close_orphan(step, session, inode);
        }
        step.changed(Change::SessionEnded(session));
    }

    /// Notes which replies the client has; they are forgotten.
    pub(crate) fn note_oldest(&mut self, session: SessionId, record: &ClientRecord) {
        let oldest = record.oldest.min(record.request);
        let known = self
            .sessions
            .get(&session)
            .is_some_and(|known| known.oldest >= oldest);
        if !known {
            self.sessions
                .update(&session, |known| known.oldest = oldest);
            self.forget_replies(session, oldest);
        }
    }

    fn forget_replies(&mut self, session: SessionId, before: RequestId) {
        while let Some((&key, _)) = self.replies.first_from(&(session, RequestId(0))) {
            if key.0 != session || key.1 >= before {
                break;
            }
            self.replies.remove(&key);
        }
    }

    /// The chunks whose lease a session holds.
    fn held_by(&self, session: SessionId) -> impl Iterator<Item = ChunkId> + '_ {
        let held = self.held.range(&(session, ChunkId(0)));
        let own = held.take_while(move |((holder, _), ())| *holder == session);
        own.map(|((_, chunk), ())| *chunk)
    }

    /// Whether a session keeps the orphan `inode`.
    #[must_use]
    pub fn is_orphan_of(&self, inode: InodeId, session: SessionId) -> bool {
        self.kept.has(&(session, inode))
    }

    /// The orphans that a session keeps.
    pub fn orphans_of(&self, session: SessionId) -> impl Iterator<Item = InodeId> + '_ {
        let kept = self.kept.range(&(session, InodeId(0)));
        let own = kept.take_while(move |((keeper, _), ())| *keeper == session);
        own.map(|((_, inode), ())| *inode)
    }
}
