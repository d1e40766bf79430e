//! Capabilities: rights on one copy that a chunkserver verifies without asking
//! the master. HMAC-SHA-256 (RFC 2104), truncated to 16 bytes, over every field.
//!
//! A capability is bound to a server and to one life of it (boot id), so that
//! none outlives a restart; it names a key generation, and keys are retired by
//! the leader, so that none lives for ever.

use crate::ids::{BootId, ChunkVersion, Epoch, PartId, ServerId};
use crate::wire::chunk_master::CapabilityKey;
use hmac::{Hmac, KeyInit, Mac};
use minicbor::{Decode, Encode};
use sha2::Sha256;

/// What may be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(index_only)]
pub enum Right {
    /// Read a copy whose version is at least this one. (Under an open lease the leader
    /// names the lease's `base`, since the first write raises the copy.)
    #[n(0)]
    Read,
    /// Read, write and sync under this epoch.
    #[n(1)]
    Write,
}

/// A right on one copy.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Capability {
    /// On which part.
    #[n(0)]
    pub part: PartId,
    /// At which version.
    #[n(1)]
    pub version: ChunkVersion,
    /// Under which epoch.
    #[n(2)]
    pub epoch: Epoch,
    /// To do what.
    #[n(3)]
    pub right: Right,
    /// Which generation of the key.
    #[n(4)]
    pub generation: u64,
    /// The code over all that, the server and its boot id.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub code: [u8; 16],
}

impl Capability {
    /// Makes a capability for `server` in its life `boot`.
    #[must_use]
    pub fn mint(key: &CapabilityKey, server: ServerId, boot: BootId, grant: Grant) -> Self {
        let code = code(key, server, boot, grant);
        let Grant {
            part,
            version,
            epoch,
            right,
        } = grant;
        Self {
            part,
            version,
            epoch,
            right,
            generation: key.generation,
            code,
        }
    }

    /// What it grants.
    #[must_use]
    pub fn grant(&self) -> Grant {
        Grant {
            part: self.part,
            version: self.version,
            epoch: self.epoch,
            right: self.right,
        }
    }

    /// Whether it was made with one of `keys` for this server in this life.
    #[must_use]
    pub fn verify(&self, keys: &[CapabilityKey], server: ServerId, boot: BootId) -> bool {
        keys.iter()
            .filter(|key| key.generation == self.generation)
            .any(|key| same(&code(key, server, boot, self.grant()), &self.code))
    }
}

/// The content of a capability, before it is keyed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grant {
    /// On which part.
    pub part: PartId,
    /// At which version.
    pub version: ChunkVersion,
    /// Under which epoch.
    pub epoch: Epoch,
    /// To do what.
    pub right: Right,
}

/// The secret of one generation, from the cluster's capability secret.
#[must_use]
pub fn derive_key(secret: &[u8], generation: u64) -> CapabilityKey {
    let mut mac = keyed(secret);
    mac.update(b"antler capability key");
    mac.update(&generation.to_le_bytes());
    CapabilityKey {
        generation,
        key: mac.finalize().into_bytes().to_vec(),
    }
}

fn code(key: &CapabilityKey, server: ServerId, boot: BootId, grant: Grant) -> [u8; 16] {
    let mut mac = keyed(&key.key);
    let right = match grant.right {
        Right::Read => 0,
        Right::Write => 1,
    };
    mac.update(&[grant.part.part, right]);
    let words = [
        key.generation,
        server.0,
        boot.0,
        grant.part.chunk.0,
        grant.version.0,
        grant.epoch.0,
    ];
    for word in words {
        mac.update(&word.to_le_bytes());
    }
    let whole = mac.finalize().into_bytes();
    let mut short = [0; 16];
    short.copy_from_slice(&whole[..16]);
    short
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// Compares without telling by its time where the difference lies.
fn same(left: &[u8; 16], right: &[u8; 16]) -> bool {
    left.iter().zip(right).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}
