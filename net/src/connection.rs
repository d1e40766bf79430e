//! One TCP connection: the first exchange under a time limit, then frames in
//! until it ends. Sending is the link's affair ([`crate::link`]).
//!
//! Every length is checked before anything is allocated (in `wire`). Bulk data
//! beyond [`DIRECT_DATA_MIN`] is read straight into a buffer of its own, which is
//! then shared and never copied; all frames that one read brought are handed over
//! at once, so that their answers leave in one write.

use crate::clock;
use crate::driver::Driver;
use crate::link::Link;
use antler_core::ids::LinkId;
use antler_core::machine::{Input, Machine, Peer, Role};
use antler_core::version::FeatureLevel;
use antler_core::wire::hello::{Agreed, Hello, HelloError};
use antler_core::wire::{HEADER_SIZE, Header, Message, WireError};
use bytes::{BufMut, Bytes};
use socket2::{SockRef, TcpKeepalive};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;

/// How long making a connection may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the first exchange may take.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a peer's kernel may leave sent bytes unacknowledged: a write that is on its way
/// to a host that died without a word waits for so long.
pub const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(5);
/// Bulk data from this length on gets a buffer of its own.
pub const DIRECT_DATA_MIN: usize = 16 << 10;
/// Bytes asked for by one read of heads and small frames.
const READ_SIZE: usize = 64 << 10;
/// Frames handed over at once.
const BATCH_MAX: usize = 256;

/// Why a connection ended or could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The system says no.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The first exchange failed.
    #[error("{0}")]
    Hello(#[from] HelloError),
    /// Nobody answered in time.
    #[error("no answer within {0:?}")]
    Silence(Duration),
    /// The peer sent what is no frame.
    #[error("the peer broke the protocol: {0}")]
    Wire(#[from] WireError),
    /// The peer closed the connection.
    #[error("the other end closed the connection")]
    End,
    /// It was ended here.
    #[error("{0}")]
    Here(String),
}

/// Connects to `address` for the link that the machine asked for, and serves it
/// until it ends; whatever happens, the machine learns it.
pub(crate) async fn connect<M: Machine + Send + 'static>(
    driver: Driver<M>,
    link: Arc<Link>,
    address: String,
    role: Role,
) {
    let made = async {
        let stream = within(CONNECT_TIMEOUT, TcpStream::connect(&address)).await??;
        tune(&stream)?;
        let hello = driver.identity().connect(driver.says(), role);
        greet(stream, hello).await
    };
    let made = tokio::select! {
        made = made => made,
        () = link.ended() => Err(ConnectionError::Here("closed while connecting".into())),
    };
    match made {
        Ok(ready) => {
            driver.complaints().settle(&address);
            serve(driver, link, ready, Side::Connected).await;
        }
        Err(error) => {
            driver.complaints().note(&address, &error);
            driver.on_closed(&link, format!("{address}: {error}"));
        }
    }
}

/// Runs the first exchange on an accepted stream and serves it until it ends.
pub(crate) async fn accept<M: Machine + Send + 'static>(driver: Driver<M>, stream: TcpStream) {
    let from = stream
        .peer_addr()
        .map_or_else(|_| "?".to_owned(), |address| address.to_string());
    let hello = driver.identity().accept(driver.says());
    let ready = match tune(&stream) {
        Ok(()) => greet(stream, hello).await,
        Err(error) => Err(error.into()),
    };
    match ready {
        Ok(ready) => {
            let link = driver.adopt_link();
            serve(driver, link, ready, Side::Accepted).await;
        }
        Err(error) => driver.complaints().on_stranger(&from, &error),
    }
}

/// Which end made a connection.
#[derive(Clone, Copy)]
enum Side {
    Connected,
    Accepted,
}

/// A connection past its first exchange.
struct Ready {
    stream: TcpStream,
    peer: Peer,
    /// What is spoken.
    version: FeatureLevel,
    /// Bytes that came behind the exchange.
    rest: Vec<u8>,
}

fn tune(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(5))
        .with_interval(Duration::from_secs(2))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))
}

async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, ConnectionError> {
    tokio::time::timeout(limit, work)
        .await
        .map_err(|_| ConnectionError::Silence(limit))
}

async fn greet(mut stream: TcpStream, mut hello: Hello) -> Result<Ready, ConnectionError> {
    let exchange = async {
        let mut buffer = vec![0; 4096];
        loop {
            if let Some(bytes) = hello.poll_transmit() {
                stream.write_all(&bytes).await?;
            }
            let count = stream.read(&mut buffer).await?;
            if count == 0 {
                return Err(ConnectionError::End);
            }
            let used = hello.receive(&buffer[..count]);
            if let Some(outcome) = hello.poll_outcome() {
                if let Some(bytes) = hello.poll_transmit() {
                    stream.write_all(&bytes).await?;
                }
                return Ok((outcome?, buffer[used..count].to_vec()));
            }
        }
    };
    let (agreed, rest) = within(HELLO_TIMEOUT, exchange).await??;
    let Agreed { peer, version } = agreed;
    Ok(Ready {
        stream,
        peer,
        version,
        rest,
    })
}

/// Announces the link, then reads from it until it ends, and says so.
async fn serve<M: Machine + Send + 'static>(
    driver: Driver<M>,
    link: Arc<Link>,
    ready: Ready,
    side: Side,
) {
    let (read, write) = ready.stream.into_split();
    link.attach(write, ready.version);
    let (id, peer) = (link.id, ready.peer);
    driver.feed(match side {
        Side::Connected => Input::Connected { link: id, peer },
        Side::Accepted => Input::Accepted { link: id, peer },
    });
    link.flush();
    let mut reader = Reader::new(read, ready.rest, ready.version);
    let ended = tokio::select! {
        error = read_all(&driver, link.id, &mut reader) => error,
        error = link.write_when_there_is_room() => error.into(),
        () = link.ended() => ConnectionError::Here("closed".into()),
    };
    let reason = link.failure().cloned().unwrap_or_else(|| ended.to_string());
    let _ = SockRef::from(reader.socket.as_ref()).shutdown(Shutdown::Both);
    driver.on_closed(&link, reason);
}

async fn read_all<M: Machine + Send + 'static>(
    driver: &Driver<M>,
    link: LinkId,
    reader: &mut Reader,
) -> ConnectionError {
    loop {
        match reader.next_batch().await {
            Ok(batch) => {
                let inputs = batch
                    .into_iter()
                    .map(|message| Input::Message { link, message });
                driver.feed_all(inputs);
            }
            Err(error) => return error,
        }
    }
}

/// Cuts frames out of a stream.
#[derive(Debug)]
struct Reader {
    socket: OwnedReadHalf,
    /// What both ends speak.
    version: FeatureLevel,
    /// What was read and not yet used, from `start` on.
    buffer: Vec<u8>,
    start: usize,
    /// A frame whose bulk data goes into a buffer of its own.
    bulk: Option<Bulk>,
}

#[derive(Debug)]
struct Bulk {
    header: Header,
    body: Vec<u8>,
    data: Vec<u8>,
}

impl Reader {
    fn new(socket: OwnedReadHalf, buffer: Vec<u8>, version: FeatureLevel) -> Self {
        Self {
            socket,
            version,
            buffer,
            start: 0,
            bulk: None,
        }
    }

    /// Every whole frame that is there; waits for one if there is none.
    async fn next_batch(&mut self) -> Result<Vec<Message>, ConnectionError> {
        let mut batch = Vec::new();
        loop {
            while self.bulk.is_none() && batch.len() < BATCH_MAX {
                match self.cut()? {
                    Some(message) => batch.push(message),
                    None => break,
                }
            }
            if !batch.is_empty() {
                return Ok(batch);
            }
            match &mut self.bulk {
                Some(_) => batch.push(self.read_bulk().await?),
                None => self.read_more().await?,
            }
        }
    }

    /// The frame at the front of the buffer. `None` when more must be read first:
    /// into `bulk`, if that is set then.
    fn cut(&mut self) -> Result<Option<Message>, WireError> {
        let rest = &self.buffer[self.start..];
        let Some((header, behind)) = rest.split_first_chunk::<HEADER_SIZE>() else {
            return Ok(None);
        };
        let header = Header::decode(header)?;
        if behind.len() < header.body {
            return Ok(None);
        }
        let (body, behind) = behind.split_at(header.body);
        if behind.len() >= header.data {
            let data = Bytes::copy_from_slice(&behind[..header.data]);
            let message = Message::decode(header, body, data)?;
            message.demand_version(self.version)?;
            self.start += HEADER_SIZE + header.body + header.data;
            return Ok(Some(message));
        }
        if header.data >= DIRECT_DATA_MIN {
            let mut data = Vec::with_capacity(header.data);
            data.extend_from_slice(behind);
            self.bulk = Some(Bulk {
                header,
                body: body.to_vec(),
                data,
            });
            self.start = self.buffer.len();
        }
        Ok(None)
    }

    async fn read_bulk(&mut self) -> Result<Message, ConnectionError> {
        let bulk = self.bulk.as_mut().expect("called for a frame under way");
        while bulk.data.len() < bulk.header.data {
            let missing = bulk.header.data - bulk.data.len();
            let mut target = (&mut bulk.data).limit(missing);
            if self.socket.read_buf(&mut target).await? == 0 {
                return Err(ConnectionError::End);
            }
        }
        let Bulk { header, body, data } = self.bulk.take().expect("it was there");
        let message = Message::decode(header, &body, data.into())?;
        message.demand_version(self.version)?;
        Ok(message)
    }

    async fn read_more(&mut self) -> Result<(), ConnectionError> {
        self.make_room();
        let mut target = (&mut self.buffer).limit(READ_SIZE);
        if self.socket.read_buf(&mut target).await? == 0 {
            return Err(ConnectionError::End);
        }
        Ok(())
    }

    /// Moves what is left to the front, and lets an outgrown buffer go.
    fn make_room(&mut self) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        if self.buffer.is_empty() && self.buffer.capacity() > 4 * READ_SIZE {
            self.buffer = Vec::new();
        }
        self.buffer.reserve(READ_SIZE);
    }
}

/// When the timer of a machine should fire, for tokio.
pub(crate) fn delay_until(deadline: antler_core::time::Instant) -> Duration {
    deadline.since(clock::mono())
}
