//! Mount options: `-o` of `antler mount` and of /etc/fstab.

use antler_core::placement::label::Expression;
use antler_core::placement::nearness::{PREFER, PREFERENCE_MAX, PREFERENCES_MAX};
use antler_fuse::MountOption;
use antler_net::config::is_label;
use std::path::PathBuf;
use std::time::Duration;

/// Where a cluster's key is looked for unless told otherwise.
pub(crate) const KEY: &str = "/etc/antler/cluster.key";
/// The port of a master that is named without one.
pub(crate) const PORT: u16 = 7420;

pub(crate) const HELP: &str = "\
Options:
  key=FILE            the cluster's key [default: /etc/antler/cluster.key]
  retry=SECONDS       after how long a request that gets nowhere fails; `forever`
                      (the default) waits until the cluster is back
  mount_timeout=SECONDS  how long to try to mount [default: 60]
  label=KEY=VALUE     where this host is (dc=west, rack=r2); near copies are read first
  prefer=WHERE[;WHERE...]  copies to read and write first, in this order, be they near or
                      not: `prefer=dc=west;tier=ssd` (and, or, not as in a storage class)
  prefer_file=FILE    the same, a line for each; lines that begin with # are passed over
  threads=N           threads that serve the kernel [default: one per processor, at most 8]
  log=FILE            where the process in the background logs [default: nowhere]
  pid=FILE            its pid file [default: none]
  allow_other         other users may use the mount [default for root]
  ro rw suid nosuid dev nodev exec noexec atime noatime sync async dirsync
                      as mount(8) says
  defaults auto noauto user users nofail _netdev x-... and the like
                      are for mount(8) and systemd, and passed over

A line of /etc/fstab (needs a link: ln -s /usr/bin/antler /sbin/mount.antler):
  m1:7420,m2:7420:/  /srv/docs  antler  _netdev,noatime,key=/etc/antler/cluster.key  0 0";

/// Options for mount(8), systemd and others, of no meaning here.
const PASSED_OVER: &[&str] = &[
    "_netdev",
    "_rnetdev",
    "auto",
    "comment",
    "default_permissions",
    "defaults",
    "diratime",
    "fsname",
    "group",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noauto",
    "nodiratime",
    "nofail",
    "nogroup",
    "noiversion",
    "nolazytime",
    "nomand",
    "noowner",
    "norelatime",
    "nostrictatime",
    "nouser",
    "nousers",
    "owner",
    "relatime",
    "rw",
    "silent",
    "strictatime",
    "subtype",
    "user",
    "users",
];

/// What `-o` says, checked.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Options {
    pub(crate) key: PathBuf,
    pub(crate) retry_for: Option<Duration>,
    pub(crate) mount_timeout: Duration,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) threads: usize,
    pub(crate) log: Option<PathBuf>,
    pub(crate) pid: Option<PathBuf>,
    pub(crate) allow_other: bool,
    pub(crate) kernel: Vec<MountOption>,
}

impl Options {
    fn new(is_root: bool) -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            key: KEY.into(),
            retry_for: None,
            mount_timeout: Duration::from_secs(60),
            labels: Vec::new(),
            threads: processors.clamp(2, 8),
            log: None,
            pid: None,
            allow_other: is_root,
            kernel: if is_root {
                vec![MountOption::Dev, MountOption::Suid]
            } else {
                Vec::new()
            },
        }
    }

    /// Reads every `-o`; later words win. With `sloppy`, unknown ones are passed over.
    ///
    /// # Errors
    /// Every word that is wrong, a line for each.
    pub(crate) fn parse(texts: &[String], is_root: bool, sloppy: bool) -> Result<Self, String> {
        let mut options = Self::new(is_root);
        let mut wrong = Vec::new();
        let words = texts.iter().flat_map(|text| text.split(','));
        for word in words.filter(|word| !word.is_empty()) {
            match options.take(word) {
                Ok(true) => {}
                Ok(false) if sloppy => {}
                Ok(false) => wrong.push(format!("unknown mount option {word:?}; see --help")),
                Err(reason) => wrong.push(reason),
            }
        }
        if wrong.is_empty() {
            Ok(options)
        } else {
            Err(wrong.join("\n"))
        }
    }

    /// Takes one word; false when nobody knows it.
    fn take(&mut self, word: &str) -> Result<bool, String> {
        let (name, value) = word
            .split_once('=')
            .map_or((word, None), |(name, value)| (name, Some(value)));
        if let Some(option) = kernel_option(word) {
            self.kernel.retain(|earlier| !excludes(earlier, &option));
            self.kernel.push(option);
            return Ok(true);
        }
        match (name, value) {
            ("rw", None) => self.kernel.retain(|option| *option != MountOption::RO),
            ("key", Some(file)) => self.key = file.into(),
            ("log", Some(file)) => self.log = Some(file.into()),
            ("pid", Some(file)) => self.pid = Some(file.into()),
            ("allow_other", None) => self.allow_other = true,
            ("retry", Some("forever")) => self.retry_for = None,
            ("retry", Some(text)) => self.retry_for = Some(seconds(name, text)?),
            ("mount_timeout", Some(text)) => self.mount_timeout = seconds(name, text)?,
            ("threads", Some(text)) => self.threads = threads(text)?,
            ("label", Some(text)) => self.labels.push(label(text)?),
            ("prefer", Some(text)) => self.prefer(text.split(';'), "prefer")?,
            ("prefer_file", Some(file)) => self.prefer_lines_of(file)?,
            _ => return Ok(name.starts_with("x-") || PASSED_OVER.contains(&name)),
        }
        Ok(true)
    }

    /// Adds expressions behind those that are preferred already.
    fn prefer<'t>(
        &mut self,
        expressions: impl Iterator<Item = &'t str>,
        source: &str,
    ) -> Result<(), String> {
        for text in expressions.map(str::trim).filter(|text| !text.is_empty()) {
            let parsed = text.parse::<Expression>();
            parsed.map_err(|mistake| format!("{source}={text}: {mistake}"))?;
            if text.len() > PREFERENCE_MAX {
                return Err(format!("{source}: at most {PREFERENCE_MAX} bytes each"));
            }
            self.labels.push((PREFER.to_owned(), text.to_owned()));
        }
        let count = self.labels.iter().filter(|(key, _)| key == PREFER).count();
        match count > PREFERENCES_MAX {
            true => Err(format!("{source}: {count} of at most {PREFERENCES_MAX}")),
            false => Ok(()),
        }
    }

    fn prefer_lines_of(&mut self, file: &str) -> Result<(), String> {
        let text = std::fs::read_to_string(file);
        let text = text.map_err(|error| format!("prefer_file={file}: {error}"))?;
        let lines = text.lines().map(str::trim);
        self.prefer(lines.filter(|line| !line.starts_with('#')), "prefer_file")
    }
}

fn kernel_option(word: &str) -> Option<MountOption> {
    Some(match word {
        "ro" => MountOption::RO,
        "suid" => MountOption::Suid,
        "nosuid" => MountOption::NoSuid,
        "dev" => MountOption::Dev,
        "nodev" => MountOption::NoDev,
        "exec" => MountOption::Exec,
        "noexec" => MountOption::NoExec,
        "atime" => MountOption::Atime,
        "noatime" => MountOption::NoAtime,
        "sync" => MountOption::Sync,
        "async" => MountOption::Async,
        "dirsync" => MountOption::DirSync,
        _ => return None,
    })
}

/// Whether two options are one, or each other's opposite.
fn excludes(one: &MountOption, other: &MountOption) -> bool {
    use MountOption::{Async, Atime, Dev, Exec, NoAtime, NoDev, NoExec, NoSuid, Suid, Sync};
    let pairs = [
        (Suid, NoSuid),
        (Dev, NoDev),
        (Exec, NoExec),
        (Atime, NoAtime),
        (Sync, Async),
    ];
    one == other
        || pairs
            .iter()
            .any(|(a, b)| (one == a && other == b) || (one == b && other == a))
}

fn seconds(name: &str, text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(Duration::from_secs(count)),
        _ => Err(format!(
            "{name}={text}: a number of seconds from 1 on is allowed"
        )),
    }
}

fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=64).contains(&count) => Ok(count),
        _ => Err(format!("threads={text}: 1 to 64 are allowed")),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    // With a colon as well: that is how it was written first.
    match text.split_once(['=', ':']) {
        Some((name, value)) if is_label(name) && is_label(value) && name != PREFER => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err(format!(
            "label={text}: KEY=VALUE is allowed, each 1 to 64 of a-z A-Z 0-9 . _ -"
        )),
    }
}

/// What is mounted: the masters and the folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Source {
    pub(crate) masters: Vec<String>,
    /// From the root, beginning with `/`.
    pub(crate) path: String,
}

impl Source {
    /// Reads `MASTER[,MASTER...]:/SUBPATH`.
    ///
    /// # Errors
    /// What is wrong with it, and what is allowed.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |reason: &str| {
            format!("{text:?}: {reason}; HOST:PORT[,HOST:PORT...]:/SUBPATH is allowed")
        };
        let at = text.find(":/").ok_or_else(|| wrong("no `:/` in it"))?;
        let masters = masters(&text[..at]).map_err(|reason| wrong(&reason))?;
        Ok(Self {
            masters,
            path: text[at + 1..].to_owned(),
        })
    }
}

/// Reads `HOST[:PORT][,HOST[:PORT]...]`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn masters(text: &str) -> Result<Vec<String>, String> {
    let complete = |host: &str| {
        if antler_net::config::is_address(host) {
            return Ok(host.to_owned());
        }
        let with_port = format!("{host}:{PORT}");
        if antler_net::config::is_address(&with_port) {
            Ok(with_port)
        } else {
            Err(format!("{host:?} is no HOST:PORT"))
        }
    };
    text.split(',').map(complete).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, String> {
        Options::parse(&[text.to_owned()], true, false)
    }

    #[test]
    fn a_line_of_fstab_is_understood() {
        let options = parse(
            "rw,_netdev,noatime,x-systemd.automount,x-systemd.device-timeout=10,nofail,\
             key=/k,retry=30,label=dc:west,label=rack:r1,subtype=antler,nosuid",
        )
        .expect("right");
        assert_eq!(options.key, PathBuf::from("/k"));
        assert_eq!(options.retry_for, Some(Duration::from_secs(30)));
        assert_eq!(options.labels[1], ("rack".into(), "r1".into()));
        let expected = [MountOption::Dev, MountOption::NoAtime, MountOption::NoSuid];
        assert_eq!(options.kernel, expected);
    }

    #[test]
    fn labels_may_be_written_like_those_of_servers() {
        let options = parse("label=dc=west,label=rack:r1").expect("right");
        assert_eq!(options.labels[0], ("dc".into(), "west".into()));
        assert_eq!(options.labels[1], ("rack".into(), "r1".into()));
    }

    #[test]
    fn preferences_keep_their_order_and_are_checked() {
        let options = parse("prefer=dc=west and tier=ssd; dc=west,prefer=not dc=east");
        let labels = options.expect("right").labels;
        let texts: Vec<&str> = labels.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["dc=west and tier=ssd", "dc=west", "not dc=east"]);
        assert!(labels.iter().all(|(key, _)| key == PREFER));
        for wrong in ["prefer=dc", "prefer=dc=west;tier=", "label=prefer=x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let many = format!("prefer={}", "dc=a;".repeat(PREFERENCES_MAX + 1));
        assert!(parse(&many).expect_err("too many").contains("at most"));
    }

    #[test]
    fn preferences_are_read_from_a_file() {
        let file = std::env::temp_dir().join(format!("antler-prefer-{}", std::process::id()));
        std::fs::write(&file, "# near first\ndc=west\n\ntier=ssd\n").expect("written");
        let options = parse(&format!("prefer_file={}", file.display()));
        std::fs::remove_file(&file).expect("it was written");
        let labels = options.expect("right").labels;
        assert_eq!(labels.len(), 2);
        assert_eq!(labels[1], (PREFER.into(), "tier=ssd".into()));
        let missing = parse("prefer_file=/no/such/file").expect_err("it is not there");
        assert!(missing.contains("/no/such/file"), "{missing}");
    }

    #[test]
    fn later_words_win() {
        let options = parse("ro,noexec,rw,exec").expect("right");
        let expected = [MountOption::Dev, MountOption::Suid, MountOption::Exec];
        assert_eq!(options.kernel, expected);
        assert!(
            !Options::parse(&[], false, false)
                .expect("right")
                .allow_other
        );
    }

    #[test]
    fn every_wrong_word_is_told() {
        let told = parse("colour=red,retry=soon,label=x,threads=0").expect_err("wrong");
        assert_eq!(told.lines().count(), 4);
        assert!(
            told.contains("unknown mount option \"colour=red\""),
            "{told}"
        );
        let sloppy = Options::parse(&["colour=red".into()], true, true);
        assert!(sloppy.is_ok());
    }

    #[test]
    fn sources_name_masters_and_a_folder() {
        let source = Source::parse("m1:5,[::1]:6,m3:/docs/a").expect("right");
        assert_eq!(source.masters, ["m1:5", "[::1]:6", "m3:7420"]);
        assert_eq!(source.path, "/docs/a");
        for wrong in ["m1:5", "m1:5:docs", "a b:1:/", ":/", "m1:5,:/"] {
            assert!(Source::parse(wrong).is_err(), "{wrong}");
        }
    }
}
