//! A daemon's settings: the raw TOML is checked whole, and every mistake is told
//! at once with its file, its line and what is allowed. What comes out is of
//! another type and holds nothing unchecked. Paths are relative to the file.

mod disks;
mod reader;

pub use disks::DiskSettings;
pub use reader::{Mistake, Mistakes};

use crate::identity::Credential;
use antler_core::chunkserver::DiskCare;
use antler_core::ids::Address;
use antler_core::limits::{BALANCE_PERCENT, COPIES_MAX};
use antler_core::time::Duration;
use reader::{Placed, Reader, Section};
use std::path::{Path, PathBuf};

/// The highest number of a member of the masters' group.
pub const MEMBER_NUMBER_MAX: u64 = 999;
const ADDRESS: &str = "`host:port`, the port from 1 to 65535";

/// A member of the masters' group: a master or a metalogger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberRole {
    /// Votes, leads, serves clients.
    Master,
    /// Learns everything.
    Metalogger,
}

impl MemberRole {
    /// As it stands in files and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Metalogger => "metalogger",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Master, Self::Metalogger]
            .into_iter()
            .find(|role| role.name() == text)
    }
}

/// One line of the list of members.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its number, never used for another one.
    pub number: u64,
    /// What it is.
    pub role: MemberRole,
    /// Where the others reach it.
    pub address: Address,
}

/// Settings of a master or a metalogger.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberSettings {
    /// What it is.
    pub role: MemberRole,
    /// Its number.
    pub number: u64,
    /// Where it listens.
    pub listen: String,
    /// The cluster and its key.
    pub credential: Credential,
    /// The folder of its files.
    pub data: PathBuf,
    /// Everybody in the group when the cluster is founded, itself included.
    pub members: Vec<Member>,
    /// Copies that the root directory of a new cluster asks for.
    pub copies: u8,
    /// Copies move from a server to one of which so much less of the space is used, in
    /// percent of it; 0: they stay where they are.
    pub balance: u8,
    /// What is logged, as `tracing` filters it.
    pub log: String,
}

/// Settings of a chunkserver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChunkServerSettings {
    /// Where it listens.
    pub listen: String,
    /// Where others reach it.
    pub address: Address,
    /// The cluster and its key.
    pub credential: Credential,
    /// The folder of its own small files.
    pub data: PathBuf,
    /// Its disks.
    pub disks: Vec<DiskSettings>,
    /// Every master.
    pub masters: Vec<Address>,
    /// Where it stands and what it is.
    pub labels: Vec<(String, String)>,
    /// Bytes a second at which each disk is scrubbed; 0: not at all.
    pub scrub: u64,
    /// The 99th percentile of clients' operations beside repair, in percent of what it is
    /// without: repair takes less of the server when it is more. At least 100.
    pub repair_slowdown: u32,
    /// What is done about disks without an order.
    pub care: DiskCare,
    /// What is logged, as `tracing` filters it.
    pub log: String,
}

impl MemberSettings {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn load(path: &Path, role: MemberRole) -> Result<Self, Mistakes> {
        Self::check(path, &read(path)?, role)
    }

    fn check(path: &Path, text: &str, role: MemberRole) -> Result<Self, Mistakes> {
        let (mut reader, table) = Reader::parse(path, text);
        let mut top = Reader::top(&table);
        let number = reader.need_number(&mut top, "number", 1..=MEMBER_NUMBER_MAX);
        let common = Common::check(&mut reader, &mut top, path);
        let copies = match role {
            MemberRole::Master => reader.number(&mut top, "copies", 1..=COPIES_MAX.into()),
            MemberRole::Metalogger => None,
        };
        let balance = match role {
            MemberRole::Master => reader.number(&mut top, "balance", 0..=100),
            MemberRole::Metalogger => None,
        };
        let members = members(&mut reader, &mut top);
        reader.end(&top);
        if let Some(number) = &number {
            find_self(&mut reader, &members, number, role);
        }
        let settings = number.zip(common).map(|(number, common)| Self {
            role,
            number: number.value,
            listen: common.listen,
            credential: common.credential,
            data: common.data,
            members,
            copies: copies.map_or(2, |copies| {
                u8::try_from(copies.value).expect("within the range")
            }),
            balance: balance.map_or(BALANCE_PERCENT, |percent| {
                u8::try_from(percent.value).expect("within the range")
            }),
            log: common.log,
        });
        reader.finish(settings)
    }
}

impl ChunkServerSettings {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn load(path: &Path) -> Result<Self, Mistakes> {
        Self::check(path, &read(path)?)
    }

    fn check(path: &Path, text: &str) -> Result<Self, Mistakes> {
        let (mut reader, table) = Reader::parse(path, text);
        let mut top = Reader::top(&table);
        let common = Common::check(&mut reader, &mut top, path);
        let own = reader.text(&mut top, "address");
        let own = own.map(|own| address(&mut reader, "address", own));
        let masters = reader.need_list(&mut top, "masters", "a list of the masters' `host:port`");
        let masters: Vec<Address> = masters
            .into_iter()
            .filter_map(|master| address(&mut reader, "masters", master))
            .collect();
        let disks = disks::read(&mut reader, &mut top, path);
        let scrub = scrub(&mut reader, &mut top);
        let slowdown = reader.number(&mut top, "repair_slowdown", 100..=10_000);
        let care = care(&mut reader, &mut top);
        let labels = labels(&mut reader, &mut top);
        reader.end(&top);
        let settings = common.map(|common| Self {
            address: own
                .flatten()
                .unwrap_or_else(|| Address(common.listen.clone())),
            listen: common.listen,
            credential: common.credential,
            data: common.data,
            disks,
            masters,
            labels,
            scrub,
            repair_slowdown: slowdown.map_or(REPAIR_SLOWDOWN, |percent| {
                u32::try_from(percent.value).expect("within the range")
            }),
            care,
            log: common.log,
        });
        reader.finish(settings)
    }
}

/// What is done about disks: as the file says, or as it is done unless it does.
fn care<'t>(reader: &mut Reader<'t>, top: &mut Section<'t>) -> DiskCare {
    let usual = DiskCare::default();
    let mut number = |key, most| {
        let told = reader.number(top, key, 0..=most)?;
        Some(u32::try_from(told.value).expect("within the range"))
    };
    let slow = number("suspect_slow", 60_000);
    DiskCare {
        balance: number("disk_balance", 100).unwrap_or(usual.balance),
        slow: slow.map_or(usual.slow, |millis| Duration::from_millis(millis.into())),
        read_errors: number("suspect_errors", 16).unwrap_or(usual.read_errors),
    }
}

/// Clients' operations may take twice as long beside repair, unless the file says otherwise.
const REPAIR_SLOWDOWN: u32 = 200;

/// At which rate disks are scrubbed unless the file says so.
const SCRUB: u64 = 4 << 20;

fn scrub<'t>(reader: &mut Reader<'t>, top: &mut Section<'t>) -> u64 {
    let Some(told) = reader.text(top, "scrub") else {
        return SCRUB;
    };
    rate(&told.value).unwrap_or_else(|| {
        let text =
            "`scrub` must be a rate like \"4MiB/s\" (B, KiB, MiB, GiB, TiB), or \"0\" for none";
        reader.mistake(told.line, text);
        SCRUB
    })
}

/// Reads bytes a second, like `4MiB/s`, or `0`; `None` of anything else.
#[must_use]
pub fn rate(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    size(text.strip_suffix("/s")?)
}

/// Bytes.
fn size(text: &str) -> Option<u64> {
    let units = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("B", 1),
    ];
    let mut found = units.iter().filter_map(|(unit, scale)| {
        let number: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        number.checked_mul(*scale)
    });
    found.next()
}

/// What every daemon is told.
struct Common {
    listen: String,
    credential: Credential,
    data: PathBuf,
    log: String,
}

impl Common {
    fn check<'t>(reader: &mut Reader<'t>, top: &mut Section<'t>, path: &Path) -> Option<Self> {
        let listen = reader.need_text(top, "listen", ADDRESS);
        let listen = listen.and_then(|listen| address(reader, "listen", listen));
        let key = reader.need_text(
            top,
            "key",
            "the cluster's key file, made by `antler keygen`",
        );
        let credential = key.and_then(|key| credential(reader, path, key));
        let data = reader
            .text(top, "data")
            .map(|data| beside(path, &data.value));
        let log = reader.text(top, "log").map(|log| log.value);
        Some(Self {
            listen: listen?.0,
            credential: credential?,
            data: data.unwrap_or_else(|| beside(path, ".")),
            log: log.unwrap_or_else(|| "info".to_owned()),
        })
    }
}

fn read(path: &Path) -> Result<String, Mistakes> {
    std::fs::read_to_string(path).map_err(|error| Mistakes {
        path: path.to_owned(),
        mistakes: vec![Mistake {
            line: 1,
            text: format!("can't be read: {error}"),
        }],
    })
}

/// A path of the file, which is relative to the file's folder.
fn beside(file: &Path, path: &str) -> PathBuf {
    let folder = file
        .parent()
        .filter(|folder| *folder != Path::new(""))
        .unwrap_or_else(|| Path::new("."));
    match path {
        "." => folder.to_owned(),
        path => folder.join(path),
    }
}

fn credential(reader: &mut Reader<'_>, file: &Path, key: Placed<String>) -> Option<Credential> {
    match Credential::load(&beside(file, &key.value)) {
        Ok(credential) => Some(credential),
        Err(error) => {
            reader.mistake(key.line, format!("`key`: {error}"));
            None
        }
    }
}

/// Whether a text is `host:port`.
#[must_use]
pub fn is_address(text: &str) -> bool {
    let parts = text.rsplit_once(':');
    parts.is_some_and(|(host, port)| {
        let is_bracketed = host.starts_with('[') && host.ends_with(']');
        let is_plain = !host.is_empty() && !host.contains([':', '/', ' ', '[', ']', ',']);
        (is_plain || is_bracketed) && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

fn address(reader: &mut Reader<'_>, key: &str, text: Placed<String>) -> Option<Address> {
    if is_address(&text.value) {
        return Some(Address(text.value));
    }
    let told = format!("`{key}` is {:?}, but must be {ADDRESS}", text.value);
    reader.mistake(text.line, told);
    None
}

fn members<'t>(reader: &mut Reader<'t>, top: &mut Section<'t>) -> Vec<Member> {
    let sections = reader.sections(top, "member");
    if sections.is_empty() {
        reader.mistake(
            top.line(),
            "no [[member]] is listed: every master and metalogger, this one included, \
             with number, role and address",
        );
    }
    let mut members: Vec<Member> = Vec::new();
    for mut section in sections {
        let number = reader.need_number(&mut section, "number", 1..=MEMBER_NUMBER_MAX);
        let role = reader.need_text(&mut section, "role", "\"master\" or \"metalogger\"");
        let role = role.and_then(|role| member_role(reader, role));
        let place = reader.need_text(&mut section, "address", ADDRESS);
        let place = place.and_then(|place| address(reader, "address", place));
        reader.end(&section);
        let (Some(number), Some(role), Some(address)) = (number, role, place) else {
            continue;
        };
        if members.iter().any(|member| member.number == number.value) {
            let text = format!(
                "member {} is listed twice; numbers are unique",
                number.value
            );
            reader.mistake(number.line, text);
        }
        if members.iter().any(|member| member.address == address) {
            let text = format!("{address} is listed twice; each member has its own");
            reader.mistake(section.line(), text);
        }
        members.push(Member {
            number: number.value,
            role,
            address,
        });
    }
    members
}

fn member_role(reader: &mut Reader<'_>, role: Placed<String>) -> Option<MemberRole> {
    let parsed = MemberRole::parse(&role.value);
    if parsed.is_none() {
        let text = format!(
            "`role` is {:?}, but must be \"master\" or \"metalogger\"",
            role.value
        );
        reader.mistake(role.line, text);
    }
    parsed
}

fn find_self(reader: &mut Reader<'_>, members: &[Member], number: &Placed<u64>, role: MemberRole) {
    let found = members.iter().find(|member| member.number == number.value);
    match found {
        Some(member) if member.role == role => {}
        Some(member) => {
            let text = format!(
                "member {} is listed as a {}, but this is the configuration of a {}",
                number.value,
                member.role.name(),
                role.name()
            );
            reader.mistake(number.line, text);
        }
        None if members.is_empty() => {}
        None => {
            let numbers: Vec<_> = members.iter().map(|m| m.number.to_string()).collect();
            let text = format!(
                "`number` is {}, which no [[member]] has; listed are {}",
                number.value,
                numbers.join(", ")
            );
            reader.mistake(number.line, text);
        }
    }
    if !members.is_empty() && members.iter().all(|m| m.role != MemberRole::Master) {
        reader.mistake(
            number.line,
            "no [[member]] is a master; at least one must be",
        );
    }
}

fn labels<'t>(reader: &mut Reader<'t>, top: &mut Section<'t>) -> Vec<(String, String)> {
    let texts = reader.texts(top, "labels");
    let mut labels = Vec::new();
    for (name, text) in texts {
        if is_label(&name) && is_label(&text.value) {
            labels.push((name, text.value));
        } else {
            let told = format!(
                "label {name} = {:?}: both must be 1 to 64 of a-z A-Z 0-9 . _ -",
                text.value
            );
            reader.mistake(text.line, told);
        }
    }
    labels
}

/// Whether a text may name or be a label.
#[must_use]
pub fn is_label(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests;
