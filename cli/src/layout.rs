//! The folder of a cluster that `antler up` runs: which daemons belong to it,
//! where their files are, and the configurations that are written for them.
//!
//! ```text
//! DIR/cluster.toml            what was chosen: counts, copies, the mount point
//! DIR/cluster.key             the cluster's key
//! DIR/master-1/               config.toml, pid, log, identity, journal/
//! DIR/metalogger-1/           the same
//! DIR/chunkserver-1/          config.toml, pid, log, identity, disk-1/
//! DIR/mount-1/                pid, log
//! ```
//!
//! Everything written here is durable before it is used. Configurations are
//! written once and then belong to whoever edits them.

use crate::failure::{At, Failure, OrFail, Outcome};
use antler_core::ids::Address;
use antler_net::config::{Member, MemberRole};
use antler_net::identity::{self, Credential};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Metaloggers' numbers in the masters' group begin above this.
pub(crate) const METALOGGERS_FROM: u64 = 100;
const CLUSTER_FILE: &str = "cluster.toml";
const KEY_FILE: &str = "cluster.key";
/// Ports are looked for from a place within this range that depends on the folder:
/// below the range that systems hand out for outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// What was chosen for a cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Chosen {
    pub(crate) masters: u16,
    pub(crate) metaloggers: u16,
    pub(crate) chunkservers: u16,
    pub(crate) copies: u16,
    /// Where it is mounted.
    pub(crate) mount: PathBuf,
}

/// A cluster's folder.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// Absolute.
    pub(crate) dir: PathBuf,
    pub(crate) chosen: Chosen,
}

/// What a daemon of the cluster is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    Master,
    Metalogger,
    ChunkServer,
    Mount,
}

impl Kind {
    /// The name of its folders, and of the subcommand that runs it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Metalogger => "metalogger",
            Self::ChunkServer => "chunkserver",
            Self::Mount => "mount",
        }
    }
}

/// One daemon of the cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Unit {
    pub(crate) kind: Kind,
    /// From 1.
    pub(crate) number: u16,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.kind.name(), self.number)
    }
}

impl Layout {
    /// The cluster in a folder.
    pub(crate) fn load(dir: &Path) -> Outcome<Self> {
        match Self::find(dir)? {
            Some(layout) => Ok(layout),
            None => Err(Failure::undone(format_args!(
                "{}: no cluster of `antler up` is here ({CLUSTER_FILE} is missing); \
                 name its folder with --dir",
                dir.display()
            ))),
        }
    }

    /// The cluster in a folder, if there is one.
    pub(crate) fn find(dir: &Path) -> Outcome<Option<Self>> {
        let file = dir.join(CLUSTER_FILE);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).at(&file),
        };
        let chosen = toml::from_str(&text).at(&file)?;
        let dir = fs::canonicalize(dir).at(dir)?;
        Ok(Some(Self { dir, chosen }))
    }

    /// A new cluster in a folder that is not there or empty.
    pub(crate) fn found(dir: &Path, chosen: Chosen) -> Outcome<Self> {
        make_folder(dir)?;
        if fs::read_dir(dir).at(dir)?.next().is_some() {
            return Err(Failure::usage(format_args!(
                "{}: holds files, but no cluster; name an empty folder with --dir",
                dir.display()
            )));
        }
        let dir = fs::canonicalize(dir).at(dir)?;
        let layout = Self { dir, chosen };
        Credential::generate().store(&layout.key()).or_fail()?;
        layout.save()?;
        Ok(layout)
    }

    /// Writes what was chosen.
    pub(crate) fn save(&self) -> Outcome<()> {
        let head = "# What `antler up` runs here.\n";
        let text = toml::to_string(&self.chosen).expect("numbers and a path are TOML");
        let file = self.dir.join(CLUSTER_FILE);
        identity::replace(&file, format!("{head}{text}").as_bytes()).at(&file)
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.dir.join(KEY_FILE)
    }

    /// The daemons that belong to the cluster, in the order in which they start.
    pub(crate) fn units(&self) -> Vec<Unit> {
        let counts = [
            (Kind::Master, self.chosen.masters),
            (Kind::Metalogger, self.chosen.metaloggers),
            (Kind::ChunkServer, self.chosen.chunkservers),
        ];
        counts
            .into_iter()
            .flat_map(|(kind, count)| (1..=count).map(move |number| Unit { kind, number }))
            .collect()
    }

    pub(crate) fn folder(&self, unit: Unit) -> PathBuf {
        self.dir.join(unit.to_string())
    }

    pub(crate) fn config(&self, unit: Unit) -> PathBuf {
        self.folder(unit).join("config.toml")
    }

    pub(crate) fn pid(&self, unit: Unit) -> PathBuf {
        self.folder(unit).join("pid")
    }

    pub(crate) fn log(&self, unit: Unit) -> PathBuf {
        self.folder(unit).join("log")
    }

    /// The process of a unit that runs.
    pub(crate) fn running(&self, unit: Unit) -> Option<u32> {
        antler_net::pid::running(&self.pid(unit))
    }

    /// Where a daemon listens, as its configuration says.
    pub(crate) fn address(&self, unit: Unit) -> Option<String> {
        let text = fs::read_to_string(self.config(unit)).ok()?;
        let table: toml::Table = text.parse().ok()?;
        Some(table.get("listen")?.as_str()?.to_owned())
    }

    /// The masters' addresses.
    pub(crate) fn masters(&self) -> Vec<String> {
        self.units()
            .into_iter()
            .filter(|unit| unit.kind == Kind::Master)
            .filter_map(|unit| self.address(unit))
            .collect()
    }

    /// Makes the folders and configurations that are missing, all of them durable.
    pub(crate) fn complete(&self) -> Outcome<()> {
        let units = self.units();
        let missing: Vec<Unit> = units
            .iter()
            .copied()
            .filter(|unit| !self.config(*unit).exists())
            .collect();
        let mut taken: BTreeSet<String> = units
            .iter()
            .filter_map(|unit| self.address(*unit))
            .collect();
        let mut addresses = Vec::new();
        for unit in &missing {
            let address = free_address(&self.dir, &taken)?;
            taken.insert(address.clone());
            addresses.push((*unit, address));
        }
        for (unit, address) in &addresses {
            make_folder(&self.folder(*unit))?;
            let text = self.configuration(*unit, address, &addresses);
            let file = self.config(*unit);
            identity::replace(&file, text.as_bytes()).at(&file)?;
        }
        for unit in units.iter().filter(|unit| unit.kind == Kind::ChunkServer) {
            make_folder(&self.folder(*unit).join("disk-1"))?;
        }
        Ok(())
    }

    fn configuration(&self, unit: Unit, address: &str, fresh: &[(Unit, String)]) -> String {
        let place = |unit: Unit| {
            fresh
                .iter()
                .find(|(other, _)| *other == unit)
                .map(|(_, address)| address.clone())
                .or_else(|| self.address(unit))
        };
        let others = self.units().into_iter();
        let places = others.filter_map(|unit| Some((unit, place(unit)?)));
        let head = format!("# {unit} of {}\n", self.dir.display());
        if unit.kind == Kind::ChunkServer {
            let masters: Vec<String> = places
                .filter(|(unit, _)| unit.kind == Kind::Master)
                .map(|(_, address)| address)
                .collect();
            return format!(
                "{head}listen = {address:?}\nkey = \"../{KEY_FILE}\"\n\
                 masters = {masters:?}\ndisks = [\"disk-1\"]\n"
            );
        }
        let members: Vec<Member> = places
            .filter_map(|(unit, address)| member(unit, address))
            .collect();
        let copies = (unit.kind == Kind::Master).then_some(self.chosen.copies);
        let key = format!("../{KEY_FILE}");
        head + &member_configuration(member_number(unit), &key, copies, &members)
    }
}

/// A unit as a member of the masters' group, if it is one.
fn member(unit: Unit, address: String) -> Option<Member> {
    let role = match unit.kind {
        Kind::Master => MemberRole::Master,
        Kind::Metalogger => MemberRole::Metalogger,
        Kind::ChunkServer | Kind::Mount => return None,
    };
    Some(Member {
        number: member_number(unit),
        role,
        address: Address(address),
    })
}

/// The configuration of one of `members`.
pub(crate) fn member_configuration(
    number: u64,
    key: &str,
    copies: Option<u16>,
    members: &[Member],
) -> String {
    let own = members.iter().find(|member| member.number == number);
    let listen = &own.expect("a member is one of the members").address.0;
    let mut text = format!("number = {number}\nlisten = {listen:?}\nkey = {key:?}\n");
    if let Some(copies) = copies {
        text += &format!("copies = {copies}\n");
    }
    for member in members {
        text += &format!(
            "\n[[member]]\nnumber = {}\nrole = {:?}\naddress = {:?}\n",
            member.number,
            member.role.name(),
            member.address.0
        );
    }
    text
}

/// The number of a master or metalogger in the masters' group.
pub(crate) fn member_number(unit: Unit) -> u64 {
    let from = match unit.kind {
        Kind::Metalogger => METALOGGERS_FROM,
        _ => 0,
    };
    from + u64::from(unit.number)
}

/// How a member of the group is called: `master-1`, `metalogger-1`.
pub(crate) fn member_name(role: &str, number: u64) -> String {
    match role {
        "metalogger" if number > METALOGGERS_FROM => {
            format!("metalogger-{}", number - METALOGGERS_FROM)
        }
        "metalogger" => format!("metalogger-{number}"),
        _ => format!("master-{number}"),
    }
}

/// Makes a folder (mode 0700) durable, with those above it that are missing.
pub(crate) fn make_folder(path: &Path) -> Outcome<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    let parent = parent.unwrap_or_else(|| Path::new("."));
    make_folder(parent)?;
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error).at(path);
        }
        _ => {}
    }
    fs::File::open(parent)
        .and_then(|parent| parent.sync_all())
        .at(parent)
}

/// An address on this machine that nobody listens on now.
fn free_address(dir: &Path, taken: &BTreeSet<String>) -> Outcome<String> {
    let mut hasher = DefaultHasher::new();
    dir.hash(&mut hasher);
    let count = u64::from(PORTS.end - PORTS.start);
    let start = hasher.finish() % count;
    for step in 0..count {
        let port = u64::from(PORTS.start) + (start + step) % count;
        let address = format!("127.0.0.1:{port}");
        if !taken.contains(&address) && TcpListener::bind(&address).is_ok() {
            return Ok(address);
        }
    }
    Err(Failure::undone(format_args!(
        "no free port on 127.0.0.1 from {} to {}",
        PORTS.start, PORTS.end
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use antler_net::config::{ChunkServerSettings, MemberRole, MemberSettings};

    fn layout(dir: &Path) -> Layout {
        let chosen = Chosen {
            masters: 3,
            metaloggers: 2,
            chunkservers: 4,
            copies: 2,
            mount: "/mnt".into(),
        };
        Layout::found(dir, chosen).expect("founded")
    }

    #[test]
    fn what_up_writes_is_what_daemons_accept() {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = layout(folder.path());
        layout.complete().expect("written");
        let masters = layout.masters();
        assert_eq!(masters.len(), 3);
        for unit in layout.units() {
            let config = layout.config(unit);
            match unit.kind {
                Kind::ChunkServer => {
                    let settings = ChunkServerSettings::load(&config).expect("right");
                    assert_eq!(settings.masters.len(), 3);
                    assert!(settings.disks[0].folder.is_dir());
                }
                kind => {
                    let role = match kind {
                        Kind::Master => MemberRole::Master,
                        _ => MemberRole::Metalogger,
                    };
                    let settings = MemberSettings::load(&config, role).expect("right");
                    assert_eq!(settings.members.len(), 5);
                    assert_eq!(settings.copies, 2);
                }
            }
        }
        assert_eq!(
            Layout::load(folder.path()).expect("there").chosen,
            layout.chosen
        );
    }

    #[test]
    fn what_is_there_stays_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut layout = layout(folder.path());
        layout.complete().expect("written");
        let config = layout.config(layout.units()[0]);
        let before = fs::read_to_string(&config).expect("there");
        layout.chosen.chunkservers = 6;
        layout.complete().expect("written");
        assert_eq!(fs::read_to_string(&config).expect("there"), before);
        let addresses: BTreeSet<_> = layout
            .units()
            .into_iter()
            .map(|unit| layout.address(unit).expect("known"))
            .collect();
        assert_eq!(addresses.len(), 11, "each has its own");
    }

    #[test]
    fn a_folder_with_files_is_not_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("letter"), "dear").expect("written");
        assert!(Layout::find(folder.path()).expect("looked").is_none());
        let chosen = Chosen {
            masters: 1,
            metaloggers: 0,
            chunkservers: 1,
            copies: 1,
            mount: "/mnt".into(),
        };
        let refused = Layout::found(folder.path(), chosen).expect_err("refused");
        assert!(refused.to_string().contains("holds files"));
    }

    #[test]
    fn members_are_named_as_their_folders() {
        assert_eq!(member_name("leader", 2), "master-2");
        assert_eq!(member_name("metalogger", 101), "metalogger-1");
    }
}
