//! The sending half of one connection: a bounded queue of messages and the
//! writes that empty it.
//!
//! Whoever gives a link something to send also writes it, without a hop to
//! another thread, unless somebody is writing there already: then that one takes
//! it along. So frames that pile up while a write is under way leave together.
//! The queue's lock is never held across a write. When the socket is full, the
//! connection's task goes on once it can take more.
//!
//! A queue has two bounds, [`QUEUE_MESSAGES_MAX`] and [`QUEUE_BYTES_MAX`]; a peer
//! that lets either be reached does not take what is sent, and loses its link.

use antler_core::ids::LinkId;
use antler_core::version::FeatureLevel;
use antler_core::wire::Message;
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Messages that wait on one link.
pub const QUEUE_MESSAGES_MAX: usize = 64 << 10;
/// Bytes of bulk data that wait on one link.
pub const QUEUE_BYTES_MAX: usize = 256 << 20;
/// Bulk data up to this length is copied behind its head instead of getting an
/// element of its own in the vectored write.
const COPIED_DATA_MAX: usize = 2 << 10;
/// Messages and bytes that one vectored write is made of, about.
const FLIGHT_MESSAGES: usize = 128;
const FLIGHT_BYTES: usize = 2 << 20;
/// Elements of one vectored write (the kernel takes 1024).
const SLICES_MAX: usize = 64;

/// One connection as the driver holds it.
#[derive(Debug)]
pub struct Link {
    /// Its number.
    pub id: LinkId,
    queue: Mutex<Queue>,
    /// Set once, when the first exchange is over.
    socket: OnceLock<OwnedWriteHalf>,
    /// What both ends speak; set just before.
    version: OnceLock<FeatureLevel>,
    /// The socket is full: the connection's task waits for it.
    full: Notify,
    /// Something was queued in the present drain of effects.
    touched: AtomicBool,
    /// Ends the connection's task.
    cancel: CancellationToken,
    /// Why it ended, where the sending half found out.
    failure: OnceLock<String>,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Message>,
    /// Of bulk data.
    bytes: usize,
    /// What was encoded and not wholly written.
    flight: Flight,
    state: Writing,
    /// Shut the connection down when everything is written.
    closing: bool,
}

/// Who empties the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Writing {
    /// Nobody: the next who queues something does.
    #[default]
    Nobody,
    /// A thread is at it.
    Somebody,
    /// The connection's task, once the socket has room.
    SocketFull,
    /// Nobody any more: the connection failed.
    Failed,
}

/// The link's queue reached its bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Overflow;

impl Link {
    /// A link whose connection is still to be made.
    #[must_use]
    pub fn new(id: LinkId) -> Self {
        Self {
            id,
            queue: Mutex::default(),
            socket: OnceLock::new(),
            version: OnceLock::new(),
            full: Notify::new(),
            touched: AtomicBool::new(false),
            cancel: CancellationToken::new(),
            failure: OnceLock::new(),
        }
    }

    /// Queues a message; [`Link::flush`] sends it. One that the other end's version has
    /// no words for is a fault of the machine, and ends the link instead.
    ///
    /// # Errors
    /// When the queue is at its bound.
    pub fn push(&self, mut message: Message) -> Result<(), Overflow> {
        if let Some(version) = self.version.get() {
            if message.since() > *version {
                self.fail(format!("a message is not of version {version}"));
                return Ok(());
            }
            message.lower(*version);
        }
        let mut queue = self.lock();
        let bytes = queue.bytes + message.data().len();
        if queue.messages.len() >= QUEUE_MESSAGES_MAX || bytes > QUEUE_BYTES_MAX {
            return Err(Overflow);
        }
        queue.bytes = bytes;
        queue.messages.push_back(message);
        Ok(())
    }

    /// Whether this is the first call since the last [`Link::flush`].
    pub fn touch(&self) -> bool {
        !self.touched.swap(true, Ordering::AcqRel)
    }

    /// Sends what is queued, as far as the socket takes it and nobody else does already.
    pub fn flush(&self) {
        self.touched.swap(false, Ordering::AcqRel);
        let Some(socket) = self.socket.get() else {
            return;
        };
        while let Some(mut flight) = self.begin() {
            let written = flight.write(socket);
            if !self.end(flight, written) {
                return;
            }
        }
    }

    /// Takes the next flight, or tells that there is nothing for this thread to do.
    fn begin(&self) -> Option<Flight> {
        let mut queue = self.lock();
        if queue.state != Writing::Nobody {
            return None;
        }
        let mut flight = std::mem::take(&mut queue.flight);
        if flight.is_empty() {
            let taken = queue.take();
            if taken.is_empty() {
                if queue.closing {
                    self.cancel.cancel();
                }
                return None;
            }
            queue.state = Writing::Somebody;
            drop(queue);
            flight.encode(taken);
        } else {
            queue.state = Writing::Somebody;
        }
        Some(flight)
    }

    /// Notes how a flight went; true when it may go on.
    fn end(&self, flight: Flight, written: std::io::Result<()>) -> bool {
        let mut queue = self.lock();
        match written {
            Ok(()) => {
                queue.flight = flight;
                queue.state = Writing::Nobody;
                return true;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                queue.flight = flight;
                queue.state = Writing::SocketFull;
                self.full.notify_one();
            }
            Err(error) => {
                queue.state = Writing::Failed;
                drop(queue);
                self.fail(error.to_string());
            }
        }
        false
    }

    /// Ends the connection as soon as what is queued is written.
    pub fn close(&self) {
        self.lock().closing = true;
        if self.socket.get().is_none() {
            self.cancel.cancel();
        }
    }

    /// Ends the connection now.
    pub fn fail(&self, reason: String) {
        self.failure.get_or_init(|| reason);
        self.cancel.cancel();
    }

    /// Whether nothing waits to be sent.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let queue = self.lock();
        queue.messages.is_empty() && queue.flight.is_empty() && queue.state != Writing::Somebody
    }

    pub(crate) fn attach(&self, socket: OwnedWriteHalf, version: FeatureLevel) {
        let is_first = self.version.set(version).is_ok() && self.socket.set(socket).is_ok();
        assert!(is_first, "a link gets its connection once");
    }

    pub(crate) fn failure(&self) -> Option<&String> {
        self.failure.get()
    }

    /// Resolves when the link was closed or failed.
    pub(crate) async fn ended(&self) {
        self.cancel.cancelled().await;
    }

    /// Goes on writing whenever the socket was full and has room again.
    pub(crate) async fn write_when_there_is_room(&self) -> std::io::Error {
        let socket = self.socket.get().expect("called for a made connection");
        loop {
            self.full.notified().await;
            if let Err(error) = socket.writable().await {
                return error;
            }
            self.lock().resume();
            self.flush();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("a panic ends the process")
    }
}

impl Queue {
    fn take(&mut self) -> Vec<Message> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while taken.len() < FLIGHT_MESSAGES && bytes < FLIGHT_BYTES {
            let Some(message) = self.messages.pop_front() else {
                break;
            };
            let data = message.data().len();
            self.bytes -= data;
            bytes += data;
            taken.push(message);
        }
        taken
    }

    fn resume(&mut self) {
        if self.state == Writing::SocketFull {
            self.state = Writing::Nobody;
        }
    }
}

/// Encoded frames on their way: pieces of one buffer of heads, and bulk data.
#[derive(Debug, Default)]
struct Flight {
    heads: Vec<u8>,
    pieces: VecDeque<Piece>,
}

#[derive(Debug)]
enum Piece {
    /// A range of the heads.
    Heads(std::ops::Range<usize>),
    Data(Bytes),
}

impl Flight {
    fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    fn encode(&mut self, messages: Vec<Message>) {
        self.heads.clear();
        let mut start = 0;
        for message in messages {
            let data = message.encode_into(&mut self.heads);
            if data.len() <= COPIED_DATA_MAX {
                self.heads.extend_from_slice(&data);
            } else {
                self.pieces.push_back(Piece::Heads(start..self.heads.len()));
                self.pieces.push_back(Piece::Data(data));
                start = self.heads.len();
            }
        }
        if start < self.heads.len() {
            self.pieces.push_back(Piece::Heads(start..self.heads.len()));
        }
    }

    fn write(&mut self, socket: &OwnedWriteHalf) -> std::io::Result<()> {
        while !self.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.pieces.len().min(SLICES_MAX);
            for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                *slice = IoSlice::new(piece.bytes(&self.heads));
            }
            match socket.try_write_vectored(&slices[..count]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn advance(&mut self, mut written: usize) {
        while written > 0 {
            let first = self
                .pieces
                .front_mut()
                .expect("only what is there is written");
            let length = first.bytes(&self.heads).len();
            if written < length {
                first.advance(written);
                return;
            }
            written -= length;
            self.pieces.pop_front();
        }
    }
}

impl Piece {
    fn bytes<'a>(&'a self, heads: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Heads(range) => &heads[range.clone()],
            Self::Data(data) => data,
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Heads(range) => range.start += count,
            Self::Data(data) => Buf::advance(data, count),
        }
    }
}
