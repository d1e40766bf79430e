//! `antler recover`: after every master was lost, a metalogger's folder becomes a
//! new single master, in a new life of the cluster.
//!
//! The whole log is applied, not only what was known to be committed: whatever
//! reached the metalogger counts. A `Recover` record then ends every session and
//! moves all ids and epochs far ahead, the term moves ahead too, and the new life's
//! number makes every server refuse the old masters should they come back. The new
//! folder is made beside and renamed when it is whole; nothing is deleted.

use crate::arguments::Recover;
use crate::daemons::{JOURNAL, open_journal};
use crate::failure::{At, Failure, OrFail, Outcome};
use crate::layout::{Kind, Layout, Unit, make_folder, member_configuration};
use antler_core::ids::{LogPosition, MemberId, Term, Token};
use antler_core::journal::operation::{HardState, ImageMeta, JournalOperation};
use antler_core::journal::{Founding, Recovered, open};
use antler_core::member::entry_codec::decode_entry;
use antler_core::namespace::State;
use antler_core::namespace::record::{Record, RecordBody};
use antler_core::time::Timestamp;
use antler_net::clock;
use antler_net::config::{Member, MemberRole, MemberSettings};
use antler_net::disk::FolderVfs;
use antler_net::identity::{self, Registered};
use antler_net::pid;
use std::fs;
use std::path::{Path, PathBuf};

/// How far the term moves ahead: farther than any master that was lost can have come.
const TERM_LEAP: u64 = 1 << 20;

/// What a member's folder holds.
struct Holding {
    state: State,
    /// The last position and its term.
    position: LogPosition,
    term: Term,
    /// Up to where it was known to be committed.
    committed: LogPosition,
    /// When the last record was made.
    time: Option<Timestamp>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Recover) -> Outcome<()> {
    let from = fs::canonicalize(&arguments.from).at(&arguments.from)?;
    let dir = match &arguments.dir {
        Some(dir) => dir.clone(),
        None => from.parent().unwrap_or(&from).to_owned(),
    };
    let settings = settings(&from)?;
    let home = new_home(&settings, &dir)?;
    if let Some(pid) = pid::running(&from.join("pid")) {
        return Err(Failure::undone(format_args!(
            "{}: process {pid} runs on it; stop it first",
            from.display()
        )));
    }
    let holding = read(&from.join(JOURNAL), &settings)?;
    print!("{}", told(&from, &holding));
    let life = holding.state.incarnation().0 + 1;
    let members = survivors(&settings, &home);
    build(&home, &settings, holding, life, &members)?;
    println!(
        "made {}: life {life} of the cluster, a group of one",
        home.folder.display()
    );
    put_aside(&from, &settings, life)?;
    settle(&dir, &home, &members, life)
}

/// The configuration beside the journal.
fn settings(from: &Path) -> Outcome<MemberSettings> {
    let config = from.join("config.toml");
    MemberSettings::load(&config, MemberRole::Metalogger)
        .or_else(|_| MemberSettings::load(&config, MemberRole::Master))
        .map_err(|mistakes| {
            Failure::usage(format_args!(
                "--from must be a metalogger's folder, with its config.toml:\n{mistakes}"
            ))
        })
}

/// The new master: the first of the lost ones, so that everybody knows its address.
struct Home {
    folder: PathBuf,
    member: Member,
}

fn new_home(settings: &MemberSettings, dir: &Path) -> Outcome<Home> {
    let masters = settings
        .members
        .iter()
        .filter(|member| member.role == MemberRole::Master);
    let member = masters
        .min_by_key(|member| member.number)
        .expect("checked settings name a master")
        .clone();
    for master in settings
        .members
        .iter()
        .filter(|m| m.role == MemberRole::Master)
    {
        let folder = dir.join(format!("master-{}", master.number));
        if folder.join(JOURNAL).exists() && folder != settings.data {
            return Err(Failure::undone(format_args!(
                "{}: is still there. If it can be started, recovery is not needed; if it is \
                 lost for good, move it away first",
                folder.display()
            )));
        }
    }
    let folder = dir.join(format!("master-{}", member.number));
    Ok(Home { folder, member })
}

/// Everything that a member's log and images hold, applied.
fn read(journal: &Path, settings: &MemberSettings) -> Outcome<Holding> {
    let (_, _, recovered) = open_journal(journal, settings)?;
    let Recovered {
        hard,
        entries,
        meta,
        mut state,
        ..
    } = recovered;
    let mut holding = Holding {
        position: meta.position,
        term: meta.term,
        committed: hard.commit,
        time: None,
        state: State::default(),
    };
    for entry in entries {
        if entry.kind == 0 {
            let records = decode_entry(&entry.data)
                .map_err(|error| Failure::undone(format_args!("{}: {error}", entry.position)))?;
            for record in records {
                state.apply(entry.position, &record);
                holding.time = Some(record.time);
            }
        }
        state.pass(entry.position);
        (holding.position, holding.term) = (entry.position, entry.term);
    }
    if !state.is_founded() {
        return Err(Failure::undone(format_args!(
            "{}: holds no cluster: the log is empty",
            journal.display()
        )));
    }
    holding.term = holding.term.max(hard.term);
    holding.state = state;
    Ok(holding)
}

fn told(from: &Path, holding: &Holding) -> String {
    let counts = holding.state.counts();
    let time = holding.time.map_or_else(
        || "the time of its last image".to_owned(),
        |time| format!("{} UTC", civil(time)),
    );
    format!(
        "{} holds the log up to position {} (known to be committed: {}), as of {time}:\n\
         \x20 {} objects, {} chunks\n\
         Missing is what the lost masters acknowledged after that position. Chunks written \
         since are quarantined, not deleted.\n",
        from.display(),
        holding.position.0,
        holding.committed.0,
        counts.inodes,
        counts.chunks
    )
}

/// The members of the new life: the new master and every metalogger.
fn survivors(settings: &MemberSettings, home: &Home) -> Vec<Member> {
    let metaloggers = settings
        .members
        .iter()
        .filter(|member| member.role == MemberRole::Metalogger);
    std::iter::once(&home.member)
        .chain(metaloggers)
        .cloned()
        .collect()
}

/// Makes the new master's folder: its image, an empty log behind that, its identity
/// and configuration.
fn build(
    home: &Home,
    settings: &MemberSettings,
    holding: Holding,
    life: u64,
    members: &[Member],
) -> Outcome<()> {
    let unfinished = home.folder.with_extension("unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).at(&unfinished)?;
    }
    let journal = unfinished.join(JOURNAL);
    make_folder(&journal)?;
    write_journal(&journal, home, settings, holding, life)?;
    let cluster = identity::hex(&settings.credential.cluster.0.to_be_bytes());
    let registered = Registered {
        cluster,
        role: "master".to_owned(),
        id: home.member.number,
        incarnation: life,
    };
    registered.write(&unfinished.join("identity")).or_fail()?;
    let file = unfinished.join("config.toml");
    let text = member_configuration(
        home.member.number,
        "../cluster.key",
        Some(settings.copies.into()),
        members,
    );
    identity::replace(&file, text.as_bytes()).at(&file)?;
    let parent = home.folder.parent().unwrap_or_else(|| Path::new("."));
    if home.folder.exists() {
        // A folder without a journal: a log file, perhaps.
        let aside = home.folder.with_extension(format!("before-life-{life}"));
        fs::rename(&home.folder, &aside).at(&home.folder)?;
    }
    fs::rename(&unfinished, &home.folder).at(&home.folder)?;
    fs::File::open(parent)
        .and_then(|parent| parent.sync_all())
        .at(parent)
}

fn write_journal(
    journal: &Path,
    home: &Home,
    settings: &MemberSettings,
    mut holding: Holding,
    life: u64,
) -> Outcome<()> {
    let position = holding.position.next();
    renounce(&mut holding.state, position, life, settings, home);
    let learners: Vec<u64> = settings
        .members
        .iter()
        .filter(|member| member.role == MemberRole::Metalogger)
        .map(|member| member.number)
        .collect();
    let meta = ImageMeta {
        position,
        term: Term(holding.term.0 + TERM_LEAP),
        voters: vec![home.member.number],
        learners,
    };
    let vfs = FolderVfs::open(journal).or_fail()?;
    let founding = Founding::new(
        settings.credential.cluster,
        MemberId(home.member.number),
        meta.voters.clone(),
        meta.learners.clone(),
    );
    let another = vfs.another();
    let (mut log, mut images, _) = open(vfs, another, &founding).at(journal)?;
    let term = meta.term;
    let image = JournalOperation::WriteImage {
        token: Token(1),
        meta,
        state: Box::new(holding.state),
    };
    images.execute(image).result.at(journal)?;
    let behind = JournalOperation::Restart {
        token: Token(2),
        position,
        term,
        hard: HardState {
            term,
            vote: 0,
            commit: position,
        },
    };
    log.execute(behind).result.at(journal)?;
    Ok(())
}

/// The records that end the old life.
fn renounce(
    state: &mut State,
    position: LogPosition,
    life: u64,
    settings: &MemberSettings,
    home: &Home,
) {
    let mut bodies = vec![RecordBody::Recover { incarnation: life }];
    for member in &settings.members {
        if member.role == MemberRole::Master && member.number != home.member.number {
            bodies.push(RecordBody::Member {
                member: member.number,
                address: String::new(),
            });
        }
    }
    let time = clock::wall();
    for body in bodies {
        state.apply(position, &Record { time, body });
    }
    assert_eq!(state.incarnation().0, life, "a founded state is recovered");
}

/// The metalogger's own journal belongs to the old life: it learns everything anew.
fn put_aside(from: &Path, settings: &MemberSettings, life: u64) -> Outcome<()> {
    if settings.role == MemberRole::Master {
        return Ok(());
    }
    let journal = from.join(JOURNAL);
    let aside = from.join(format!("{JOURNAL}.before-life-{life}"));
    fs::rename(&journal, &aside).at(&journal)?;
    println!("its own log is kept as {}", aside.display());
    Ok(())
}

/// In a folder of `antler up`, the other daemons follow; elsewhere the operator is
/// told what to do.
fn settle(dir: &Path, home: &Home, members: &[Member], life: u64) -> Outcome<()> {
    let Some(mut layout) = Layout::find(dir)? else {
        println!(
            "Next: start it with `antler master --config {}`; empty the data folders of the \
             other metaloggers, and take the lost masters out of every configuration.",
            home.folder.join("config.toml").display()
        );
        return Ok(());
    };
    layout.chosen.masters = u16::try_from(home.member.number).unwrap_or(1);
    layout.save()?;
    for unit in layout.units() {
        if unit.kind == Kind::Metalogger {
            rewrite_metalogger(&layout, unit, members, life)?;
        }
    }
    println!("Next: antler up --dir {}", dir.display());
    Ok(())
}

/// A metalogger's configuration names the lost masters no more, and a log of the old
/// life is put aside.
fn rewrite_metalogger(layout: &Layout, unit: Unit, members: &[Member], life: u64) -> Outcome<()> {
    let number = crate::layout::member_number(unit);
    let file = layout.config(unit);
    let text = member_configuration(number, "../cluster.key", None, members);
    identity::replace(&file, text.as_bytes()).at(&file)?;
    let journal = layout.folder(unit).join(JOURNAL);
    if journal.exists() {
        let aside = journal.with_extension("before-recovery");
        fs::rename(&journal, &aside).at(&journal)?;
    }
    let identity = layout.folder(unit).join("identity");
    if let Some(mut registered) = Registered::read(&identity).or_fail()? {
        registered.incarnation = life;
        registered.write(&identity).or_fail()?;
    }
    Ok(())
}

/// A time as `2026-11-23 17:04:05` (the calendar of Hinnant's days_from_civil).
fn civil(time: Timestamp) -> String {
    let days = time.seconds.div_euclid(86_400);
    let second = time.seconds.rem_euclid(86_400);
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates() {
        let at = |seconds| civil(Timestamp { seconds, nanos: 0 });
        assert_eq!(at(0), "1970-01-01 00:00:00");
        assert_eq!(at(951_782_399), "2000-02-28 23:59:59");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(at(1_795_453_445), "2026-11-23 17:04:05");
        assert_eq!(at(-1), "1969-12-31 23:59:59");
    }
}
