//! Masters and metaloggers: the members of the masters' group.

use super::{Home, begin, listen, refused, subfolder};
use crate::failure::{Failure, OrFail, Outcome};
use antler_core::ids::MemberId;
use antler_core::journal::operation::{JournalCompletion, JournalOperation};
use antler_core::journal::{Founding, Images, Log, Recovered, open_with};
use antler_core::machine::{Machine, Role, ServerRequest};
use antler_core::master::{Master, MasterConfig};
use antler_core::member::{MemberConfig, MemberInfo};
use antler_core::metalogger::Metalogger;
use antler_net::clock;
use antler_net::config::{MemberRole, MemberSettings};
use antler_net::daemon;
use antler_net::disk::FolderVfs;
use antler_net::driver::{Driver, Parts};
use antler_net::identity::{Identity, hex};
use antler_net::images::decode_in_parallel;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::channel;

/// The folder of the log and the images below a member's own.
pub(crate) const JOURNAL: &str = "journal";

/// Runs `antler master`.
pub(crate) fn master(config: &Path) -> Outcome<ExitCode> {
    let settings =
        MemberSettings::load(config, MemberRole::Master).map_err(|error| refused(&error))?;
    serve(&settings, Role::Master, |config, recovered| {
        let config = MasterConfig {
            cluster: hex(&settings.credential.cluster.0.to_be_bytes()),
            copies: settings.copies,
            balance: settings.balance,
            ..MasterConfig::new(config, clock::random::<32>().to_vec())
        };
        Master::new(config, recovered, clock::random_id(), clock::now())
    })
}

/// Runs `antler metalogger`.
pub(crate) fn metalogger(config: &Path) -> Outcome<ExitCode> {
    let settings =
        MemberSettings::load(config, MemberRole::Metalogger).map_err(|error| refused(&error))?;
    serve(&settings, Role::Metalogger, |config, recovered| {
        Metalogger::new(config, recovered, clock::random_id(), clock::now())
    })
}

fn serve<M>(
    settings: &MemberSettings,
    role: Role,
    make: impl FnOnce(MemberConfig, Recovered) -> M,
) -> Outcome<ExitCode>
where
    M: Machine<
            Operation = JournalOperation,
            Completion = JournalCompletion,
            Request = ServerRequest,
            Answer = (),
        > + Send
        + 'static,
{
    begin(&settings.log);
    let cluster = settings.credential.cluster;
    let number = Some(settings.number);
    let home = Home::take(&settings.data, cluster, settings.role.name(), number)?;
    let runtime = daemon::runtime().or_fail()?;
    runtime.block_on(async {
        let listener = listen(&settings.listen).await?;
        let journal = subfolder(&home.data, JOURNAL)?;
        let (log, images, recovered) = open_journal(&journal, settings)?;
        let identity = Identity::new(settings.credential.clone(), role, settings.number);
        let (to_log, log_jobs) = channel();
        let (to_images, image_jobs) = channel();
        let driver = Driver::start(Parts {
            machine: make(member_config(settings), recovered),
            identity,
            incarnation: home.incarnation(),
            storage: Box::new(move |operation: JournalOperation| {
                let queue = if operation.is_image() {
                    &to_images
                } else {
                    &to_log
                };
                let sent = queue.send(operation);
                assert!(
                    sent.is_ok(),
                    "a thread of storage lives as long as the process"
                );
            }),
            answers: Box::new(|_, _| {}),
            runtime: tokio::runtime::Handle::current(),
        });
        daemon::spawn_storage("log", driver.clone(), log_jobs, log).or_fail()?;
        daemon::spawn_storage("images", driver.clone(), image_jobs, images).or_fail()?;
        tracing::info!(
            "{} {} serves on {}",
            settings.role.name(),
            settings.number,
            settings.listen
        );
        Ok(home.run(driver, listener).await)
    })
}

fn member_config(settings: &MemberSettings) -> MemberConfig {
    let members = settings.members.iter().map(|member| MemberInfo {
        member: MemberId(member.number),
        address: member.address.clone(),
        voter: member.role == MemberRole::Master,
    });
    MemberConfig::new(MemberId(settings.number), members.collect())
}

/// The numbers of the members of one role.
fn numbers(settings: &MemberSettings, role: MemberRole) -> Vec<u64> {
    let of_role = settings.members.iter().filter(|member| member.role == role);
    of_role.map(|member| member.number).collect()
}

/// A member's storage, and what it goes on from.
type Journal = (Log<FolderVfs>, Images<FolderVfs>, Recovered);

/// Whose folder a member's is, and how its group began.
pub(crate) fn founding(settings: &MemberSettings) -> Founding {
    Founding::new(
        settings.credential.cluster,
        MemberId(settings.number),
        numbers(settings, MemberRole::Master),
        numbers(settings, MemberRole::Metalogger),
    )
}

/// Opens a member's log and images, and recovers what they hold.
fn open_journal(folder: &Path, settings: &MemberSettings) -> Outcome<Journal> {
    let vfs = FolderVfs::open_patiently(folder).or_fail()?;
    let another = vfs.another();
    let opened = open_with(vfs, another, &founding(settings), decode_in_parallel);
    let journal =
        opened.map_err(|error| Failure::undone(format_args!("{}: {error}", folder.display())))?;
    let recovered = &journal.2;
    tracing::info!(
        "recovered: an image at {}, {} entries of log behind it",
        recovered.meta.position,
        recovered.entries.len()
    );
    Ok(journal)
}
