//! Chunkservers.

use super::reload::Reloader;
use super::{Home, begin, listen, refused};
use crate::failure::{Failure, OrFail, Outcome};
use antler_core::chunkserver::{ChunkServer, ChunkServerConfig, Limits};
use antler_core::ids::ServerId;
use antler_core::machine::Role;
use antler_core::version::FeatureLevel;
use antler_net::clock;
use antler_net::config::ChunkServerSettings;
use antler_net::daemon;
use antler_net::driver::{Driver, Parts};
use antler_net::identity::Identity;
use antler_net::storage::{DiskQueues, Disks};
use std::path::Path;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Runs `antler chunkserver`.
pub(crate) fn run(path: &Path) -> Outcome<ExitCode> {
    let settings = ChunkServerSettings::load(path).map_err(|error| refused(&error))?;
    begin(&settings.log);
    let cluster = settings.credential.cluster;
    let home = Home::take(&settings.data, cluster, "chunkserver", None)?;
    let server = ServerId(home.registered.id);
    let runtime = daemon::runtime().or_fail()?;
    runtime.block_on(async {
        // Until it serves, one that comes waits.
        let hangups = signal(SignalKind::hangup()).or_fail()?;
        let listener = listen(&settings.listen).await?;
        let mut disks = open_disks(&settings, server)?;
        let served = settings.listen.clone();
        let identity = Identity::new(settings.credential.clone(), Role::ChunkServer, server.0);
        let config = ChunkServerConfig {
            server,
            boot: identity.boot,
            address: settings.address.clone(),
            labels: settings.labels.clone(),
            masters: settings.masters.clone(),
            incarnation: home.incarnation(),
            limits: Limits::default(),
            scrub: settings.scrub,
            repair_slowdown: settings.repair_slowdown,
            care: settings.care,
            speaks: FeatureLevel::NEWEST,
        };
        let opened = disks.opened();
        let queues = DiskQueues::default();
        let workers = disks.join(&queues);
        let ids = opened.iter().map(|disk| (disk.path.clone(), disk.disk));
        let ids = ids.collect();
        let used = queues.clone();
        let driver = Driver::start(Parts {
            machine: ChunkServer::new(config, opened, clock::random_id(), clock::now()),
            identity,
            incarnation: home.incarnation(),
            storage: Box::new(move |operation| queues.push(operation)),
            answers: Box::new(|_, _| {}),
            runtime: tokio::runtime::Handle::current(),
        });
        for worker in workers {
            worker.start(driver.clone()).or_fail()?;
        }
        let reloader = Reloader {
            path: path.to_owned(),
            settings,
            server,
            ids,
            queues: used,
            driver: driver.clone(),
        };
        tokio::spawn(reloader.run(hangups));
        tracing::info!("chunkserver {server} serves on {served}");
        Ok(home.run(driver, listener).await)
    })
}

fn open_disks(settings: &ChunkServerSettings, server: ServerId) -> Outcome<Disks> {
    let mut disks = Disks::default();
    for disk in &settings.disks {
        disks
            .open(
                (&disk.folder, disk.rules),
                settings.credential.cluster,
                server,
            )
            .or_fail()?;
    }
    if disks.is_any_usable() {
        return Ok(disks);
    }
    Err(Failure::undone(
        "no disk can be used; see the reason of each above",
    ))
}
