use super::*;
use antler_core::chunk::rules::Amount;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Credential::generate()
            .store(&folder.path().join("cluster.key"))
            .expect("written");
        Self(folder)
    }

    fn member(&self, text: &str) -> Result<MemberSettings, String> {
        let path = self.0.path().join("config.toml");
        MemberSettings::check(&path, text, MemberRole::Master).map_err(|m| self.told(&m))
    }

    fn server(&self, text: &str) -> Result<ChunkServerSettings, String> {
        let path = self.0.path().join("config.toml");
        ChunkServerSettings::check(&path, text).map_err(|m| self.told(&m))
    }

    fn told(&self, mistakes: &Mistakes) -> String {
        let folder = format!("{}/", self.0.path().display());
        mistakes.to_string().replace(&folder, "")
    }
}

const MASTER: &str = r#"
number = 1
listen = "127.0.0.1:20001"
key = "cluster.key"
copies = 3

[[member]]
number = 1
role = "master"
address = "127.0.0.1:20001"

[[member]]
number = 101
role = "metalogger"
address = "127.0.0.1:20002"
"#;

#[test]
fn a_good_file_is_taken() {
    let folder = Folder::new();
    let settings = folder.member(MASTER).expect("right");
    assert_eq!((settings.number, settings.copies), (1, 3));
    assert_eq!(
        (settings.data.as_path(), settings.balance),
        (folder.0.path(), 10)
    );
    let still = folder.member(&MASTER.replace("copies = 3", "balance = 0"));
    assert_eq!(still.expect("right").balance, 0);
    let told = folder.member(&MASTER.replace("copies = 3", "balance = 101"));
    assert!(told.expect_err("too much").contains("balance"));
    assert_eq!(settings.members[1].role, MemberRole::Metalogger);
    let server = folder
        .server(
            "listen = \"[::1]:5\"\nkey = \"cluster.key\"\nmasters = [\"a:1\", \"b:2\"]\n\
             disks = [\"disk-1\", \"/srv/d\"]\n[labels]\ndc = \"west\"\n",
        )
        .expect("right");
    assert_eq!(server.address, Address("[::1]:5".into()));
    assert_eq!(server.disks[0].folder, folder.0.path().join("disk-1"));
    assert_eq!(server.disks[1].folder, Path::new("/srv/d"));
    assert_eq!(server.labels, [("dc".to_owned(), "west".to_owned())]);
    assert_eq!(server.scrub, 4 << 20);
    assert_eq!(server.repair_slowdown, 200);
    assert_eq!(server.care, DiskCare::default());
}

#[test]
fn what_is_done_about_disks_is_read_and_bounded() {
    let folder = Folder::new();
    let check = |lines: &str| {
        folder.server(&format!(
            "listen = \"[::1]:5\"\nkey = \"cluster.key\"\nmasters = [\"a:1\"]\ndisks = [\"d\"]\n{lines}\n"
        ))
    };
    let all = "disk_balance = 0\nsuspect_slow = 250\nsuspect_errors = 16";
    let care = check(all).expect("it is right").care;
    assert_eq!(
        (care.balance, care.slow, care.read_errors),
        (0, Duration::from_millis(250), 16)
    );
    for wrong in [
        "disk_balance = 101",
        "suspect_slow = -1",
        "suspect_errors = 17",
    ] {
        let key = wrong.split(' ').next().expect("it has a key");
        let told = check(wrong).expect_err("it is out of bounds");
        assert!(told.contains(key), "{told}");
    }
}

#[test]
fn a_slowdown_by_repair_is_a_percentage_of_at_least_100() {
    let folder = Folder::new();
    let file = |percent: &str| {
        format!(
            "listen = \"[::1]:5\"\nkey = \"cluster.key\"\nmasters = [\"a:1\"]\ndisks = [\"d\"]\nrepair_slowdown = {percent}\n"
        )
    };
    let server = folder.server(&file("150")).expect("right");
    assert_eq!(server.repair_slowdown, 150);
    for wrong in ["99", "10001", "2.5", "\"2x\""] {
        let told = folder.server(&file(wrong)).expect_err("wrong");
        assert!(
            told.contains("config.toml:5") && told.contains("100 to 10000"),
            "{told}"
        );
    }
}

#[test]
fn a_rate_of_scrubbing_is_read_strictly() {
    for (text, wanted) in [
        ("0", Some(0)),
        ("512B/s", Some(512)),
        ("64KiB/s", Some(64 << 10)),
        ("10 MiB/s", Some(10 << 20)),
        ("1GiB/s", Some(1 << 30)),
        ("4MiB", None),
        ("4MB/s", None),
        ("-1B/s", None),
        ("MiB/s", None),
        ("99999999999GiB/s", None),
    ] {
        assert_eq!(rate(text), wanted, "{text}");
    }
    let folder = Folder::new();
    let file = |scrub: &str| {
        format!(
            "listen = \"[::1]:5\"\nkey = \"cluster.key\"\nmasters = [\"a:1\"]\ndisks = [\"d\"]\nscrub = {scrub}\n"
        )
    };
    assert_eq!(
        folder.server(&file("\"1MiB/s\"")).expect("right").scrub,
        1 << 20
    );
    let told = folder.server(&file("\"fast\"")).expect_err("wrong");
    assert!(
        told.contains("config.toml:5") && told.contains("4MiB/s"),
        "{told}"
    );
}

#[test]
fn what_is_ordered_of_a_disk_is_read_strictly() {
    let folder = Folder::new();
    let file = |disks: &str| {
        format!(
            "listen = \"[::1]:5\"\nkey = \"cluster.key\"\nmasters = [\"a:1\"]\ndisks = {disks}\n"
        )
    };
    let good = file(
        "[\"a\", { path = \"b\", keep_free = \"10GiB\" }, { path = \"/c\", keep_free = \"0%\",\n limit = \
         \"80%\" }, { path = \"d\", limit = \"1TiB\", drain = true }]",
    );
    let disks = folder.server(&good).expect("right").disks;
    let (percent, bytes) = (Amount::Percent, Amount::Bytes);
    let rules: Vec<_> = disks
        .iter()
        .map(|disk| (disk.rules.keep_free, disk.rules.limit, disk.rules.drain))
        .collect();
    let wanted = [
        (Some(percent(1)), None, false),
        (Some(bytes(10 << 30)), None, false),
        (Some(percent(0)), Some(percent(80)), false),
        (Some(percent(1)), Some(bytes(1 << 40)), true),
    ];
    assert_eq!(rules, wanted);
    assert_eq!(disks[1].folder, folder.0.path().join("b"));
    assert_eq!(disks[2].folder, Path::new("/c"));
    for (disks, line, told) in [
        ("[]", 4, "a list of folders"),
        ("\"a\"", 4, "a list of folders"),
        ("[\"a\",\n 5]", 5, "a list of folders"),
        ("[\"a\",\n { path = \"a\" }]", 5, "listed twice"),
        ("[\n{ limit = \"5%\" }]", 5, "`path` of `disks` is missing"),
        ("[{ path = \"a\", limit = \"0%\" }]", 4, "from 1% to 100%"),
        ("[{ path = \"a\", limit = \"101%\" }]", 4, "5%"),
        ("[{ path = \"a\", keep_free = \"10GB\" }]", 4, "10GiB"),
        ("[{ path = \"a\", keep_free = 5 }]", 4, "text in quotes"),
        ("[{ path = \"a\", drain = \"yes\" }]", 4, "true or false"),
        (
            "[{ path = \"a\", full = true }]",
            4,
            "path, keep_free, limit, drain",
        ),
    ] {
        let mistakes = folder.server(&file(disks)).expect_err("wrong");
        let at = format!("config.toml:{line}: ");
        assert!(
            mistakes.contains(&at) && mistakes.contains(told),
            "{disks}: {mistakes}"
        );
    }
}

#[test]
fn every_mistake_is_told_with_its_line() {
    let folder = Folder::new();
    let text = r#"number = 0
listen = "nowhere"
key = "lost.key"
copies = "two"
colour = 3

[[member]]
number = 1
role = "boss"
address = "127.0.0.1:70000"
rank = 1

[[member]]
number = 5
role = "metalogger"
address = "127.0.0.1:20002"

[[member]]
number = 5
role = "metalogger"
address = "127.0.0.1:20002"
"#;
    let told = folder.member(text).expect_err("wrong");
    let expected = "\
config.toml:1: `number` must be a whole number from 1 to 999
config.toml:2: `listen` is \"nowhere\", but must be `host:port`, the port from 1 to 65535
config.toml:3: `key`: lost.key: No such file or directory (os error 2)
config.toml:4: `copies` must be a whole number from 1 to 9
config.toml:5: unknown key `colour`; allowed here: number, listen, key, data, log, copies, balance, member
config.toml:9: `role` is \"boss\", but must be \"master\" or \"metalogger\"
config.toml:10: `address` is \"127.0.0.1:70000\", but must be `host:port`, the port from 1 to 65535
config.toml:11: unknown key `rank` of [[member]]; allowed here: number, role, address
config.toml:18: 127.0.0.1:20002 is listed twice; each member has its own
config.toml:19: member 5 is listed twice; numbers are unique";
    assert_eq!(told, expected);
}

#[test]
fn what_is_missing_is_told_too() {
    let folder = Folder::new();
    let told = folder.server("listen = 5\n").expect_err("wrong");
    let expected = "\
config.toml:1: `listen` must be a text in quotes
config.toml:1: `key` is missing: the cluster's key file, made by `antler keygen`
config.toml:1: `masters` is missing: a list of the masters' `host:port`
config.toml:1: `disks` is missing: a list of folders, one per disk; or of tables { path, keep_free, limit, drain }";
    assert_eq!(told, expected);
}

#[test]
fn a_member_must_be_in_its_own_list() {
    let folder = Folder::new();
    let told = folder.member(&MASTER.replacen("number = 1", "number = 2", 1));
    assert_eq!(
        told.expect_err("wrong"),
        "config.toml:2: `number` is 2, which no [[member]] has; listed are 1, 101"
    );
    let told = folder.member(&MASTER.replacen("number = 1", "number = 101", 1));
    assert!(
        told.expect_err("wrong")
            .contains("is listed as a metalogger")
    );
}

#[test]
fn broken_toml_is_told_with_every_line() {
    let folder = Folder::new();
    let told = folder
        .server("listen = \nkey = \"cluster.key\"\nmasters = [\"a:1\"\ndisks = [\"d\"]\n")
        .expect_err("wrong");
    assert!(told.starts_with("config.toml:1: "), "{told}");
    assert!(told.lines().count() >= 2, "{told}");
}

#[test]
fn labels_and_lists_are_checked() {
    let folder = Folder::new();
    let told = folder
        .server(
            "listen = \"a:1\"\nkey = \"cluster.key\"\nmasters = [\"a\", \"b:1\"]\n\
             disks = [1]\n[labels]\ndc = \"we st\"\nrack = 5\n",
        )
        .expect_err("wrong");
    let expected = "\
config.toml:3: `masters` is \"a\", but must be `host:port`, the port from 1 to 65535
config.toml:4: `disks` must be a list of folders, one per disk; or of tables { path, keep_free, limit, drain }
config.toml:6: label dc = \"we st\": both must be 1 to 64 of a-z A-Z 0-9 . _ -
config.toml:7: `labels.rack` must be a text in quotes";
    assert_eq!(told, expected);
}
