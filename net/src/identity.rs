//! Who a process is, and the cluster's key: the two small files behind the first
//! exchange, and how they are made.
//!
//! The key file (mode 0600) is TOML with `cluster` (16 hex digits) and `key` (64).
//! The identity file in a daemon's data folder holds the ids that were drawn when
//! it was first started, and the newest life of the cluster that it has seen; it
//! is replaced by a durable rename. Never overwritten: a key, and an identity's role or id.

use crate::clock;
use antler_core::ids::{BootId, ClusterId, Incarnation};
use antler_core::machine::Role;
use antler_core::version::FeatureLevel;
use antler_core::wire::hello::{ClusterKey, Hello, Local};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A cluster's name and secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credential {
    /// Names the cluster for life.
    pub cluster: ClusterId,
    /// What its members and clients prove to have.
    pub key: ClusterKey,
}

/// Why a key or identity file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It can't be read or written.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It does not hold what it should.
    #[error("{path}: {reason}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and what is allowed.
        reason: String,
    },
    /// Others may read the secret.
    #[error("{path}: mode {mode:04o} lets others read the cluster's secret; run: chmod 600 {path}")]
    Mode {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl IdentityError {
    fn io(path: &Path, error: io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            error,
        }
    }

    fn content(path: &Path, reason: impl Into<String>) -> Self {
        Self::Content {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCredential {
    cluster: String,
    key: String,
}

impl Credential {
    /// A new cluster.
    #[must_use]
    pub fn generate() -> Self {
        Self {
            cluster: ClusterId(clock::random_id()),
            key: ClusterKey(clock::random()),
        }
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// When it is not there, malformed, or readable by others than its owner.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let mut file = File::open(path).map_err(|error| IdentityError::io(path, error))?;
        let metadata = file
            .metadata()
            .map_err(|error| IdentityError::io(path, error))?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::Mode {
                path: path.to_owned(),
                mode,
            });
        }
        let mut text = String::new();
        io::Read::read_to_string(&mut file, &mut text)
            .map_err(|error| IdentityError::io(path, error))?;
        Self::parse(&text).map_err(|reason| IdentityError::content(path, reason))
    }

    fn parse(text: &str) -> Result<Self, String> {
        // A parser's message would quote the line, which is the secret.
        let raw: RawCredential = toml::from_str(text)
            .map_err(|_| "not a key file: `cluster` and `key` are expected".to_owned())?;
        let cluster = unhex::<8>(&raw.cluster).ok_or("`cluster` must be 16 hex digits")?;
        let key = unhex::<32>(&raw.key).ok_or("`key` must be 64 hex digits")?;
        Ok(Self {
            cluster: ClusterId(u64::from_be_bytes(cluster)),
            key: ClusterKey(key),
        })
    }

    /// The content of a key file: a secret.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!(
            "# An Antler cluster's key: whoever can read it may join the cluster.\n\
             cluster = \"{}\"\nkey = \"{}\"\n",
            hex(&self.cluster.0.to_be_bytes()),
            hex(&self.key.0)
        )
    }

    /// Writes a key file that must not be there yet, readable by its owner alone.
    ///
    /// # Errors
    /// When it exists or can't be written.
    pub fn store(&self, path: &Path) -> Result<(), IdentityError> {
        let text = self.to_text();
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(path);
        file.and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .map_err(|error| IdentityError::io(path, error))
    }
}

/// What a process says and proves in the first exchange of each of its links.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The cluster and its key.
    pub credential: Credential,
    /// What the process is.
    pub role: Role,
    /// Its number: the member's, the server's, 0 for a client.
    pub id: u64,
    /// This life of it.
    pub boot: BootId,
}

impl Identity {
    /// An identity in a new life.
    #[must_use]
    pub fn new(credential: Credential, role: Role, id: u64) -> Self {
        Self {
            credential,
            role,
            id,
            boot: BootId(clock::random_id()),
        }
    }

    /// The exchange of a connection that we make to `wanted`.
    #[must_use]
    pub fn connect(&self, says: Says, wanted: Role) -> Hello {
        let key = self.credential.key.clone();
        Hello::connect(self.local(says), key, clock::random(), wanted)
    }

    /// The exchange of a connection that was made to us.
    #[must_use]
    pub fn accept(&self, says: Says) -> Hello {
        let key = self.credential.key.clone();
        Hello::accept(self.local(says), key, clock::random())
    }

    fn local(&self, says: Says) -> Local {
        Local {
            cluster: self.credential.cluster,
            role: self.role,
            id: self.id,
            boot: self.boot,
            incarnation: says.incarnation,
            speaks: says.speaks,
        }
    }
}

/// What the machine has the first exchange say of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Says {
    /// The newest life of the cluster that it knows.
    pub incarnation: Incarnation,
    /// The newest version that it speaks.
    pub speaks: FeatureLevel,
}

/// What a daemon's data folder says about whose it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registered {
    /// The cluster, 16 hex digits.
    pub cluster: String,
    /// `master`, `metalogger`, `chunkserver`.
    pub role: String,
    /// The member's number, or the id drawn for a chunkserver (decimal).
    pub id: u64,
    /// The newest life of the cluster that it has seen.
    pub incarnation: u64,
}

impl Registered {
    /// Reads the identity file, or makes it with `id` on the first start.
    ///
    /// # Errors
    /// When the folder belongs to another cluster, role or number, or the file
    /// can't be read or written.
    pub fn open(
        path: &Path,
        cluster: ClusterId,
        role: &str,
        id: Option<u64>,
    ) -> Result<Self, IdentityError> {
        let cluster = hex(&cluster.0.to_be_bytes());
        let Some(found) = Self::read(path)? else {
            let fresh = Self {
                cluster,
                role: role.to_owned(),
                id: id.unwrap_or_else(clock::random_id),
                incarnation: 0,
            };
            fresh.write(path)?;
            return Ok(fresh);
        };
        let wrong = |what: &str, there: &str, here: &str| {
            let reason = format!("this folder belongs to {what} {there}, not to {here}");
            Err(IdentityError::content(path, reason))
        };
        if found.cluster != cluster {
            return wrong("cluster", &found.cluster, &cluster);
        }
        if found.role != role {
            return wrong("a", &found.role, role);
        }
        match id {
            Some(id) if id != found.id => wrong("number", &found.id.to_string(), &id.to_string()),
            _ => Ok(found),
        }
    }

    /// Reads the identity file, if it is there.
    ///
    /// # Errors
    /// When it is malformed or can't be read.
    pub fn read(path: &Path) -> Result<Option<Self>, IdentityError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(IdentityError::io(path, error)),
        };
        let parsed = toml::from_str(&text)
            .map_err(|error| IdentityError::content(path, error.message().to_owned()))?;
        Ok(Some(parsed))
    }

    /// Replaces the identity file, durably.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, path: &Path) -> Result<(), IdentityError> {
        let text = toml::to_string(self).expect("strings and numbers are TOML");
        replace(path, text.as_bytes()).map_err(|error| IdentityError::io(path, error))
    }
}

/// Replaces a small file so that after a crash it is the old or the new one.
///
/// # Errors
/// What the system says.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    let folder = path.parent().filter(|parent| *parent != Path::new(""));
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

/// Lower-case hex digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_comes_back_and_is_never_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("cluster.key");
        let credential = Credential::generate();
        credential.store(&path).expect("written");
        assert_eq!(Credential::load(&path).expect("read"), credential);
        let again = Credential::generate().store(&path);
        assert!(matches!(again, Err(IdentityError::Io { .. })));
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("cluster.key");
        Credential::generate().store(&path).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
        let error = Credential::load(&path).expect_err("refused").to_string();
        assert!(error.contains("mode 0644") && error.contains("chmod 600"));
    }

    #[test]
    fn a_bad_key_file_does_not_print_the_secret() {
        let secret = "00112233445566778899aabbccddeeff";
        let text = format!("cluster = 5\nkey = \"{secret}\n");
        let error = Credential::parse(&text).expect_err("refused");
        assert!(!error.contains(secret), "{error}");
        assert!(Credential::parse("cluster = \"00\"\nkey = \"\"").is_err());
    }

    #[test]
    fn a_folder_knows_its_owner() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("identity");
        let cluster = ClusterId(5);
        let first = Registered::open(&path, cluster, "chunkserver", None).expect("made");
        let mut second = Registered::open(&path, cluster, "chunkserver", None).expect("read");
        assert_eq!(first, second);
        second.incarnation = 4;
        second.write(&path).expect("written");
        let third = Registered::open(&path, cluster, "chunkserver", Some(first.id));
        assert_eq!(third.expect("read").incarnation, 4);
        for refused in [
            Registered::open(&path, ClusterId(6), "chunkserver", None),
            Registered::open(&path, cluster, "master", None),
            Registered::open(&path, cluster, "chunkserver", Some(first.id ^ 1)),
        ] {
            let error = refused.expect_err("refused").to_string();
            assert!(error.contains("belongs to"), "{error}");
        }
    }
}
