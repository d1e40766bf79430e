//! `antler recover`: after every master was lost, a metalogger's folder becomes a
//! new single master, in a new life of the cluster.
//!
//! What a takeover means is in `antler_core::member`; here it is told and given a
//! folder. The new folder is made beside and renamed when it is whole; nothing is
//! deleted, and what is done twice is done right.

use crate::arguments::Recover;
use crate::daemons::{JOURNAL, founding};
use crate::failure::{At, Failure, OrFail, Outcome};
use crate::layout::{Kind, Layout, Unit, make_folder, member_configuration};
use crate::out::{say, say_part};
use antler_core::ids::MemberId;
use antler_core::journal::{Founding, open};
use antler_core::member::Takeover;
use antler_core::time::Timestamp;
use antler_net::clock;
use antler_net::config::{Member, MemberRole, MemberSettings};
use antler_net::disk::FolderVfs;
use antler_net::identity::{self, Registered};
use antler_net::pid;
use std::fs;
use std::path::{Path, PathBuf};

/// Runs the command.
pub(crate) fn run(arguments: &Recover) -> Outcome<()> {
    let from = fs::canonicalize(&arguments.from).at(&arguments.from)?;
    let dir = match &arguments.dir {
        Some(dir) => dir.clone(),
        None => from.parent().unwrap_or(&from).to_owned(),
    };
    let settings = settings(&from)?;
    let home = new_home(&settings, &dir);
    if let Some(pid) = pid::running(&from.join("pid")) {
        return Err(Failure::undone(format_args!(
            "{}: process {pid} runs on it; stop it first",
            from.display()
        )));
    }
    let takeover = read(&from.join(JOURNAL), &settings)?;
    say_part!("{}", told(&from, &takeover));
    let members = survivors(&settings, &home);
    let next = takeover.holding().incarnation.next().0;
    let life = if is_of_life(&home.folder, next)? {
        // An earlier run was interrupted behind this step.
        next
    } else {
        refuse_masters(&settings, &dir)?;
        build(&home, &settings, takeover, &members)?
    };
    say!(
        "made {}: life {life} of the cluster, a group of one",
        home.folder.display()
    );
    settle(&dir, &from, &home, &members, life)?;
    // Last, so that an interrupted recovery can be run again.
    if settings.role == MemberRole::Metalogger {
        put_aside(&from, life)?;
    }
    say!("Next: {}", advice(&dir, &home)?);
    Ok(())
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

fn new_home(settings: &MemberSettings, dir: &Path) -> Home {
    let masters = settings
        .members
        .iter()
        .filter(|member| member.role == MemberRole::Master);
    let member = masters
        .min_by_key(|member| member.number)
        .expect("checked settings name a master")
        .clone();
    let folder = dir.join(format!("master-{}", member.number));
    Home { folder, member }
}

/// Whether a folder was made by a recovery into this life of the cluster.
fn is_of_life(folder: &Path, life: u64) -> Outcome<bool> {
    let registered = Registered::read(&folder.join("identity")).or_fail()?;
    Ok(registered.is_some_and(|registered| registered.incarnation == life))
}

/// Masters that are still there need no recovery.
fn refuse_masters(settings: &MemberSettings, dir: &Path) -> Outcome<()> {
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
    Ok(())
}

/// Everything that a member's log and images hold, applied.
fn read(journal: &Path, settings: &MemberSettings) -> Outcome<Takeover<FolderVfs>> {
    let vfs = FolderVfs::open(journal).or_fail()?;
    let another = vfs.another();
    Takeover::open(vfs, another, &founding(settings)).at(journal)
}

fn told(from: &Path, takeover: &Takeover<FolderVfs>) -> String {
    let holding = takeover.holding();
    let counts = takeover.state().counts();
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
/// and configuration. Returns the new life's number.
fn build(
    home: &Home,
    settings: &MemberSettings,
    takeover: Takeover<FolderVfs>,
    members: &[Member],
) -> Outcome<u64> {
    let unfinished = home.folder.with_extension("unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).at(&unfinished)?;
    }
    let journal = unfinished.join(JOURNAL);
    make_folder(&journal)?;
    let life = write_journal(&journal, home, settings, takeover)?;
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
    put_in_place(&unfinished, &home.folder, life)?;
    Ok(life)
}

fn put_in_place(unfinished: &Path, folder: &Path, life: u64) -> Outcome<()> {
    if folder.exists() {
        // A folder without a journal: a log file, perhaps.
        let aside = folder.with_extension(format!("before-life-{life}"));
        fs::rename(folder, &aside).at(folder)?;
    }
    fs::rename(unfinished, folder).at(folder)?;
    let parent = folder.parent().unwrap_or_else(|| Path::new("."));
    fs::File::open(parent)
        .and_then(|parent| parent.sync_all())
        .at(parent)
}

fn write_journal(
    journal: &Path,
    home: &Home,
    settings: &MemberSettings,
    takeover: Takeover<FolderVfs>,
) -> Outcome<u64> {
    let learners: Vec<u64> = settings
        .members
        .iter()
        .filter(|member| member.role == MemberRole::Metalogger)
        .map(|member| member.number)
        .collect();
    let member = MemberId(home.member.number);
    let founding = Founding::new(
        settings.credential.cluster,
        member,
        vec![member.0],
        learners.clone(),
    );
    let vfs = FolderVfs::open(journal).or_fail()?;
    let another = vfs.another();
    let (log, images, _) = open(vfs, another, &founding).at(journal)?;
    let life = takeover.finish_elsewhere((log, images), member, &learners, clock::wall());
    Ok(life.at(journal)?.0)
}

/// A metalogger's journal belongs to the old life: it learns everything anew.
fn put_aside(folder: &Path, life: u64) -> Outcome<()> {
    let journal = folder.join(JOURNAL);
    if !journal.exists() {
        return Ok(());
    }
    let aside = folder.join(format!("{JOURNAL}.before-life-{life}"));
    fs::rename(&journal, &aside).at(&journal)?;
    say!("its log of the old life is kept as {}", aside.display());
    Ok(())
}

/// In a folder of `antler up`, the other daemons follow.
fn settle(dir: &Path, from: &Path, home: &Home, members: &[Member], life: u64) -> Outcome<()> {
    let Some(mut layout) = Layout::find(dir)? else {
        return Ok(());
    };
    layout.chosen.masters = u16::try_from(home.member.number).unwrap_or(1);
    layout.save()?;
    for unit in layout.units() {
        if unit.kind == Kind::Metalogger {
            rewrite_metalogger(&layout, unit, members, life)?;
            if layout.folder(unit) != from {
                put_aside(&layout.folder(unit), life)?;
            }
        }
    }
    Ok(())
}

/// A metalogger's configuration names the lost masters no more, and it refuses them.
fn rewrite_metalogger(layout: &Layout, unit: Unit, members: &[Member], life: u64) -> Outcome<()> {
    let folder = layout.folder(unit);
    let file = layout.config(unit);
    let number = crate::layout::member_number(unit);
    let text = member_configuration(number, "../cluster.key", None, members);
    identity::replace(&file, text.as_bytes()).at(&file)?;
    let identity = folder.join("identity");
    if let Some(mut registered) = Registered::read(&identity).or_fail()? {
        registered.incarnation = life;
        registered.write(&identity).or_fail()?;
    }
    Ok(())
}

/// What is left to do.
fn advice(dir: &Path, home: &Home) -> Outcome<String> {
    if Layout::find(dir)?.is_some() {
        return Ok(format!("antler up --dir {}", dir.display()));
    }
    Ok(format!(
        "start it with `antler master --config {}`; empty the data folders of the other \
         metaloggers, and take the lost masters out of every configuration.",
        home.folder.join("config.toml").display()
    ))
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
