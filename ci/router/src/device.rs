//! Nodes as they are named on the command line, and their TUN devices.
//!
//! A device is made from inside its namespace, by a thread that ends there; the
//! descriptor works from everywhere.

use crate::network::Place;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::str::FromStr;

/// A node and where it is.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    /// Its namespace, as `ip netns` names it.
    namespace: String,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.place.name, self.namespace)
    }
}

impl FromStr for Node {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected NAME=SITE,NAMESPACE,ADDRESS, not {text:?}");
        let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
        let words: Vec<&str> = rest.split(',').collect();
        let [site, namespace, address] = words[..] else {
            return Err(wrong());
        };
        Ok(Self {
            place: Place {
                name: name.to_owned(),
                site: site.to_owned(),
                address: address.parse().map_err(|_| wrong())?,
            },
            namespace: namespace.to_owned(),
        })
    }
}

impl Node {
    /// Makes the device in the node's namespace.
    pub(crate) fn open(&self, device: &str) -> io::Result<File> {
        let (namespace, device) = (self.namespace.clone(), device.to_owned());
        let made = std::thread::spawn(move || {
            enter(&namespace)?;
            tun(&device)
        });
        made.join().expect("nothing there panics")
    }
}

fn enter(namespace: &str) -> io::Result<()> {
    let path = format!("/run/netns/{namespace}");
    let file: OwnedFd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    move_into_link_name_space(
        std::os::fd::AsFd::as_fd(&file),
        Some(LinkNameSpaceType::Network),
    )?;
    Ok(())
}

/// A TUN device without packet information, in the namespace of this thread.
fn tun(device: &str) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    // SAFETY: all of `ifreq` is plain numbers, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if device.len() >= request.ifr_name.len() {
        return Err(io::Error::other("the device's name is too long"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).expect("two low bits");
    // SAFETY: the request is whole and outlives the call, which writes within it.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(file),
    }
}
