//! Registering with the masters and the lease to serve.

use crate::cluster::*;
use antler_core::chunk::operation::OpenedDisk;
use antler_core::chunk::rules::DiskRules;
use antler_core::chunkserver::{ChunkServer, ChunkServerConfig, DiskCare, Limits};
use antler_core::ids::{Address, BootId, DiskId, Incarnation, ServerId, Term};
use antler_core::limits::{HEARTBEAT, SERVE_LEASE, SERVER_TIMEOUT};
use antler_core::machine::{Effect, Input, Machine};
use antler_core::time::Now;
use antler_core::version::FeatureLevel;
use antler_core::vfs::Space;
use antler_core::wire::Message;
use antler_core::wire::capability::Right;
use antler_core::wire::chunk_master::{ChunkToMaster, MasterToChunk};
use antler_core::wire::client_chunk::ChunkErrorKind;

#[test]
fn a_server_registers_with_everything_it_has() {
    let mut cluster = Cluster::new(1, 3);
    for chunk in 0..5000 {
        let copy = cluster.copy(0, chunk, chunk + 1, Right::Write);
        cluster.write(&[copy], 0, b"x", false).unwrap();
    }
    cluster.pass(SERVE_LEASE * 2);
    cluster.restart(0, 1);
    let reports = cluster.reported(0);
    assert_eq!(reports.len(), 5000);
    for (chunk, report) in reports.iter().enumerate() {
        assert_eq!(
            (report.part, report.version.0),
            (part(chunk as u64), chunk as u64 + 1)
        );
    }
}

#[test]
fn nothing_is_served_without_the_leader() {
    let mut cluster = Cluster::new(1, 1);
    let copy = cluster.copy(0, 1, 1, Right::Write);
    cluster
        .write(std::slice::from_ref(&copy), 0, b"x", true)
        .unwrap();
    cluster.leader_speaks = false;
    cluster.pass(SERVE_LEASE - HEARTBEAT * 2);
    cluster.read(&copy, 0, 4096).unwrap();
    cluster.pass(HEARTBEAT * 3);
    assert_eq!(cluster.read(&copy, 0, 4096), Err(ChunkErrorKind::Busy));
    assert_eq!(
        cluster.sync(std::slice::from_ref(&copy)),
        Err(ChunkErrorKind::Busy)
    );
    cluster.leader_speaks = true;
    cluster.pass(SERVER_TIMEOUT * 2);
    cluster.read(&copy, 0, 4096).unwrap();
}

#[test]
fn unsolicited_news_does_not_prolong_the_lease() {
    let mut cluster = Cluster::new(1, 1);
    cluster.leader_speaks = false;
    let copy = cluster.copy(0, 1, 1, Right::Write);
    let heard = cluster.now.0;
    for _ in 0..(SERVE_LEASE.as_millis() / HEARTBEAT.as_millis() + 1) {
        let news = MasterToChunk::Heard {
            term: cluster.term,
            leader: true,
            incarnation: Incarnation(1),
            keys: vec![key()],
            heard: heard - HEARTBEAT.as_nanos() as u64,
        };
        let link = cluster.nodes[0].leader.unwrap();
        let message = Message::MasterToChunk(news);
        cluster.input(0, Input::Message { link, message });
        cluster.pass(HEARTBEAT);
    }
    assert_eq!(cluster.sync(&[copy]), Err(ChunkErrorKind::Busy));
}

#[test]
fn an_older_leader_gives_no_lease() {
    let mut cluster = Cluster::new(1, 1);
    cluster.term = Term(1);
    cluster.pass(SERVE_LEASE + HEARTBEAT);
    let copy = cluster.copy(0, 1, 1, Right::Write);
    assert_eq!(cluster.sync(&[copy]), Err(ChunkErrorKind::Busy));
}

#[test]
fn a_master_of_an_older_life_of_the_cluster_is_left() {
    let mut cluster = Cluster::new(1, 1);
    let newer = MasterToChunk::Heard {
        term: Term(9),
        leader: false,
        incarnation: Incarnation(2),
        keys: Vec::new(),
        heard: 0,
    };
    let link = cluster.nodes[0].leader.unwrap();
    cluster.input(
        0,
        Input::Message {
            link,
            message: Message::MasterToChunk(newer),
        },
    );
    assert_eq!(cluster.nodes[0].machine.incarnation(), Some(Incarnation(2)));
    cluster.pass(SERVE_LEASE + HEARTBEAT);
    let copy = cluster.copy(0, 1, 1, Right::Write);
    assert_eq!(cluster.sync(&[copy]), Err(ChunkErrorKind::Busy));
    let mut registers = cluster
        .from_servers
        .iter()
        .filter_map(|(_, said)| match said {
            ChunkToMaster::Register { incarnation, .. } => Some(*incarnation),
            _ => None,
        });
    assert_eq!(registers.next_back(), Some(Incarnation(2)));
}

#[test]
fn a_master_that_did_not_read_its_log_yet_is_kept_and_leads_nobody() {
    let mut cluster = Cluster::new(1, 1);
    let copy = cluster.copy(0, 1, 1, Right::Write);
    let written = cluster.write(std::slice::from_ref(&copy), 0, b"x", true);
    written.unwrap();
    cluster.leader_speaks = false;
    let link = cluster.nodes[0].leader.unwrap();
    for _ in 0..10 {
        let said = MasterToChunk::Heard {
            term: Term(cluster.term.0 + 9),
            leader: true,
            incarnation: Incarnation(0),
            keys: vec![key()],
            heard: cluster.now.0,
        };
        let message = Message::MasterToChunk(said);
        cluster.input(0, Input::Message { link, message });
        cluster.pass(HEARTBEAT);
    }
    assert_eq!(cluster.nodes[0].leader, Some(link), "it is heard, and kept");
    cluster.pass(SERVE_LEASE);
    assert_eq!(cluster.sync(&[copy]), Err(ChunkErrorKind::Busy));
}

#[test]
fn what_is_wrong_with_a_disk_is_told_with_the_first_input() {
    let disk = OpenedDisk {
        disk: DiskId(1),
        path: "/disk".into(),
        space: Space::default(),
        parts: Vec::new(),
        rules: DiskRules::default(),
        failed: Some("it is not there".into()),
    };
    let config = ChunkServerConfig {
        server: ServerId(1),
        boot: BootId(1),
        address: Address::from("cs"),
        labels: Vec::new(),
        masters: vec![Address::from("master")],
        incarnation: Incarnation(1),
        limits: Limits::default(),
        scrub: 0,
        repair_slowdown: 200,
        care: DiskCare::default(),
        speaks: FeatureLevel::NEWEST,
    };
    let mut server = ChunkServer::new(config, vec![disk], 1, Now::default());
    server.handle(Now::default(), Input::Timeout);
    let first = server.poll_effect();
    assert!(matches!(first, Some(Effect::Log { .. })), "{first:?}");
}
