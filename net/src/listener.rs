//! A daemon's port: accepts connections under a bound and hands them to the driver.
//!
//! A stranger holds a place only until the first exchange refuses or its time is
//! over; [`CONNECTIONS_MAX`] bounds all of them together. An accept that fails
//! (no more descriptors, say) is tried again after a pause, and said once.

use crate::driver::Driver;
use antler_core::machine::Machine;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections that one daemon serves at once; more wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 16 << 10;
const PAUSE: Duration = Duration::from_millis(200);

/// An open port.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
}

impl Listener {
    /// Opens `address` (`host:port`; port 0 lets the system choose).
    ///
    /// # Errors
    /// When the address can't be resolved or is in use.
    pub async fn bind(address: &str) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        Ok(Self { socket })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts for ever.
    pub async fn run<M: Machine + Send + 'static>(self, driver: Driver<M>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut is_failing = false;
        loop {
            let place = places.clone().acquire_owned().await;
            let place = place.expect("the semaphore is never closed");
            match self.socket.accept().await {
                Ok((stream, _)) => {
                    is_failing = false;
                    let driver = driver.clone();
                    tokio::spawn(async move {
                        driver.accept(stream).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    if !is_failing {
                        tracing::error!("can't accept connections: {error}");
                    }
                    is_failing = true;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}
