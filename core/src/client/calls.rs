//! Mutations and questions to the leader: numbering, the window, resending with
//! the same number, retries of EAGAIN, giving up. Leaves the link to `session` and
//! the meaning of answers to `answers`.
//!
//! Invariant: a mutation keeps its number until its answer came or its session
//! ended, so that it happens once; at most `session_window` lie between the
//! oldest unanswered number and the newest.

use super::Client;
use super::then::Then;
use crate::attributes::{Credentials, FileKind};
use crate::errno::Errno;
use crate::ids::RequestId;
use crate::marks::Mark;
use crate::namespace::record::Mutation;
use crate::wire::client_master::{Answer, ClientToMaster, Query};
use std::collections::{BTreeMap, VecDeque};

/// What the leader is asked.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Mutation(Mutation),
    Query(Query),
}

/// Where a call stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// For a link, or for room in the window.
    Waiting,
    /// Sent as this mutation of the session.
    Mutation(u64),
    /// Sent as this question of the link.
    Question(u64),
    /// Answered EAGAIN; asked again after a pause.
    Resting,
}

#[derive(Debug)]
struct Call {
    ask: Ask,
    credentials: Credentials,
    then: Then,
    attempts: u32,
    place: Place,
    /// Pushes that had come when it was made.
    pushes: u64,
}

/// Everything asked of the leader and not answered for good.
#[derive(Debug, Default)]
pub(super) struct Calls {
    calls: BTreeMap<u64, Call>,
    next: u64,
    mutations: BTreeMap<u64, u64>,
    last_mutation: u64,
    questions: BTreeMap<u64, u64>,
    last_question: u64,
    waiting: VecDeque<u64>,
    /// Mutations and questions by number that the link's version has no words for.
    unspoken: Vec<(bool, RequestId)>,
}

impl Calls {
    pub(super) fn count(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn last_mutation(&self) -> u64 {
        self.last_mutation
    }

    /// Mutations that make a regular file, sent and not answered: at most a window.
    pub(super) fn creating(&self) -> Vec<RequestId> {
        let creates = |id: &u64| {
            matches!(
                self.calls[id].ask,
                Ask::Mutation(Mutation::Create {
                    kind: FileKind::Regular,
                    ..
                })
            )
        };
        let sent = self.mutations.iter().filter(|(_, id)| creates(id));
        sent.map(|(number, _)| RequestId(*number)).collect()
    }

    fn has_room(&self, window: u64) -> bool {
        self.mutations
            .keys()
            .next()
            .is_none_or(|oldest| self.last_mutation + 1 - oldest < window)
    }

    /// Asserts the invariant stated above.
    pub(super) fn check(&self, window: u64) {
        for (number, id) in &self.mutations {
            assert_eq!(self.calls[id].place, Place::Mutation(*number));
        }
        if let Some(oldest) = self.mutations.keys().next() {
            assert!(
                self.last_mutation - oldest < window,
                "the window bounds what is unanswered"
            );
        }
    }
}

impl Client {
    /// Asks for a change.
    pub(super) fn mutate(&mut self, credentials: &Credentials, mutation: Mutation, then: Then) {
        self.call(credentials, Ask::Mutation(mutation), then);
    }

    /// Asks a question.
    pub(super) fn ask(&mut self, credentials: &Credentials, query: Query, then: Then) {
        self.call(credentials, Ask::Query(query), then);
    }

    fn call(&mut self, credentials: &Credentials, ask: Ask, then: Then) {
        let id = self.calls.next;
        self.calls.next += 1;
        if let Some(patience) = self.config.retry_for
            && !then.is_patient()
        {
            self.timers
                .set(super::timers::Timer::GiveUp(id), self.now.mono + patience);
        }
        let call = Call {
            ask,
            credentials: credentials.clone(),
            then,
            attempts: 0,
            place: Place::Waiting,
            pushes: self.cache.pushes(),
        };
        if let Ask::Mutation(mutation) = &call.ask {
            self.cache.begin_change(&mutation.names());
        }
        self.calls.calls.insert(id, call);
        self.start_call(id);
    }

    /// Sends a call if there is a session and room, otherwise queues it.
    fn start_call(&mut self, id: u64) {
        let window = self.config.limits.session_window;
        let call = self.calls.calls.get_mut(&id).expect("the caller has it");
        let room = match call.ask {
            Ask::Mutation(_) => self.calls.waiting.is_empty() && self.calls.has_room(window),
            Ask::Query(_) => true,
        };
        if self.session.is_standing() && room {
            self.number_call(id);
        } else {
            let call = self.calls.calls.get_mut(&id).expect("the caller has it");
            call.place = Place::Waiting;
            self.calls.waiting.push_back(id);
        }
    }

    fn number_call(&mut self, id: u64) {
        let calls = &mut self.calls;
        let call = calls.calls.get_mut(&id).expect("the caller has it");
        match call.ask {
            Ask::Mutation(_) => {
                calls.last_mutation += 1;
                call.place = Place::Mutation(calls.last_mutation);
                calls.mutations.insert(calls.last_mutation, id);
            }
            Ask::Query(_) => {
                calls.last_question += 1;
                call.place = Place::Question(calls.last_question);
                calls.questions.insert(calls.last_question, id);
            }
        }
        self.transmit_call(id);
    }

    fn transmit_call(&mut self, id: u64) {
        let call = &self.calls.calls[&id];
        let (since, number) = match (&call.ask, call.place) {
            (Ask::Mutation(mutation), Place::Mutation(number)) => (mutation.since(), number),
            (Ask::Query(query), Place::Question(number)) => (query.since(), number),
            _ => unreachable!("a call is numbered before it is sent"),
        };
        if since > self.session.version() {
            let is_mutation = matches!(call.ask, Ask::Mutation(_));
            let unspoken = (is_mutation, RequestId(number));
            return self.calls.unspoken.push(unspoken);
        }
        let credentials = call.credentials.clone();
        let message = match (&call.ask, call.place) {
            (Ask::Mutation(mutation), Place::Mutation(number)) => ClientToMaster::Mutate {
                request: RequestId(number),
                oldest: RequestId(*self.calls.mutations.keys().next().unwrap_or(&number)),
                credentials,
                mutation: mutation.clone(),
            },
            (Ask::Query(query), Place::Question(number)) => ClientToMaster::Ask {
                question: RequestId(number),
                credentials,
                query: query.clone(),
            },
            _ => unreachable!("a call is numbered before it is sent"),
        };
        self.tell_master(message);
    }

    /// What an older master would not understand is answered as one would that does:
    /// the cluster is not at its level.
    pub(super) fn refuse_unspoken(&mut self) {
        while let Some((is_mutation, number)) = self.calls.unspoken.pop() {
            self.marks.reach(Mark::LevelRefused);
            self.on_answer(is_mutation, number, Err(Errno::EOPNOTSUPP));
        }
    }

    /// A new link stands: everything unanswered is sent again, mutations with their
    /// numbers and in their order, then what waited.
    pub(super) fn resend_calls(&mut self) {
        let mutations: Vec<u64> = self.calls.mutations.values().copied().collect();
        for id in mutations {
            self.transmit_call(id);
        }
        self.calls.last_question = 0;
        let questions = std::mem::take(&mut self.calls.questions);
        for id in questions.into_values() {
            self.number_call(id);
        }
        self.start_waiting_calls();
    }

    fn start_waiting_calls(&mut self) {
        if self.calls.waiting.is_empty() || !self.session.is_standing() {
            return;
        }
        let window = self.config.limits.session_window;
        while let Some(&id) = self.calls.waiting.front() {
            let mutation = match self.calls.calls.get(&id) {
                None => false,
                Some(call) => matches!(call.ask, Ask::Mutation(_)),
            };
            if mutation && !self.calls.has_room(window) {
                break;
            }
            self.calls.waiting.pop_front();
            if self.calls.calls.contains_key(&id) {
                self.number_call(id);
            }
        }
    }

    /// An answer of the leader.
    pub(super) fn on_answer(
        &mut self,
        mutation: bool,
        number: RequestId,
        result: Result<Answer, Errno>,
    ) {
        let table = if mutation {
            &mut self.calls.mutations
        } else {
            &mut self.calls.questions
        };
        // An answer nobody waits for: the first of two to a resent mutation.
        let Some(id) = table.remove(&number.0) else {
            return;
        };
        let call = self.calls.calls.get_mut(&id).expect("a number has a call");
        if result == Err(Errno::EAGAIN) && call.then.rests() {
            call.place = Place::Resting;
            call.attempts += 1;
            let attempts = call.attempts;
            let at = self.now.mono + self.backoff(attempts);
            self.timers.set(super::timers::Timer::Retry(id), at);
        } else {
            self.end_call(id, result);
        }
        self.start_waiting_calls();
    }

    fn end_call(&mut self, id: u64, result: Result<Answer, Errno>) {
        let call = self.calls.calls.remove(&id).expect("the caller has it");
        self.timers.cancel(super::timers::Timer::GiveUp(id));
        self.timers.cancel(super::timers::Timer::Retry(id));
        // The answer to a change waits until it was pushed everywhere; what was pushed
        // to this mount meanwhile may be newer than the answer.
        let is_change = matches!(call.ask, Ask::Mutation(_));
        let mut overtaken = is_change && call.pushes != self.cache.pushes();
        if let Ask::Mutation(mutation) = &call.ask {
            let names = mutation.names();
            self.cache.end_change(&names);
            // Or another change of the same name may have come behind it.
            let mut names = names.into_iter();
            overtaken |= names.any(|(parent, name)| self.cache.is_changing(parent, name));
        }
        if overtaken {
            self.marks.reach(Mark::AnswerOvertaken);
        }
        self.cache.set_overtaken(overtaken);
        self.on_call_ended(call.then, result);
        self.cache.set_overtaken(false);
    }

    /// The pause after EAGAIN is over.
    pub(super) fn on_retry_due(&mut self, id: u64) {
        if self.calls.calls.contains_key(&id) {
            self.start_call(id);
        }
    }

    /// A call got nowhere for as long as the mount said. A mutation that was sent
    /// stays numbered, because it may still happen; its caller is told now.
    pub(super) fn on_give_up_due(&mut self, id: u64) {
        let Some(call) = self.calls.calls.get_mut(&id) else {
            return;
        };
        if matches!(call.place, Place::Mutation(_) | Place::Resting)
            && let Some(caller) = call.then.exclusive_caller()
        {
            if let Some(operation) = caller.take() {
                self.answer(operation, Err(Errno::ETIMEDOUT));
            }
            return;
        }
        if matches!(call.place, Place::Mutation(_)) {
            let then = std::mem::replace(&mut call.then, Then::Abandoned);
            self.on_call_ended(then, Err(Errno::ETIMEDOUT));
            return;
        }
        if let Place::Question(number) = call.place {
            self.calls.questions.remove(&number);
        }
        self.end_call(id, Err(Errno::ETIMEDOUT));
    }

    /// The session ended: what was sent may or may not have happened, which is an
    /// error to its caller; what the client asked for its leases is void.
    pub(super) fn fail_calls(&mut self) {
        let sent: Vec<u64> = std::mem::take(&mut self.calls.mutations)
            .into_values()
            .collect();
        self.calls.last_mutation = 0;
        let void: Vec<u64> = self
            .calls
            .calls
            .iter()
            .filter(|(_, call)| call.then.ends_with_session())
            .map(|(&id, _)| id)
            .collect();
        for id in void {
            let call = self.calls.calls.remove(&id).expect("it was just found");
            if let Ask::Mutation(mutation) = &call.ask {
                self.cache.end_change(&mutation.names());
            }
            self.timers.cancel(super::timers::Timer::Retry(id));
        }
        for id in sent {
            if self.calls.calls.contains_key(&id) {
                self.end_call(id, Err(Errno::EIO));
            }
        }
    }
}
