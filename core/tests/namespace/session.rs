//! Exactly once: effects, replies, and the window that bounds them.

use crate::world::{ROOT, World, root, servers};
use antler_core::attributes::FileKind;
use antler_core::errno::Errno;
use antler_core::ids::{RequestId, SessionId};
use antler_core::limits::SESSION_WINDOW;
use antler_core::namespace::record::{Choice, ClientRecord, Mutation, Outcome, RecordBody, Reply};
use antler_core::namespace::{Change, Remembered};

fn create(name: &str) -> Mutation {
    Mutation::Create {
        parent: ROOT,
        name: name.into(),
        kind: FileKind::Regular,
        mode: 0o644,
        device: 0,
        target: Vec::new(),
        exclusive: true,
        write: true,
    }
}

fn send(world: &mut World, request: u64, oldest: u64, mutation: Mutation) -> Outcome {
    let record = ClientRecord {
        session: world.session,
        request: RequestId(request),
        oldest: RequestId(oldest),
        credentials: root(),
        mutation,
        choice: Choice {
            copies: servers(2),
            open_by: Vec::new(),
        },
    };
    let applied = world.record(RecordBody::Client(record));
    assert_eq!(applied.session, Some((world.session, RequestId(request))));
    applied.outcome.expect("a client record is answered")
}

#[test]
fn a_resent_request_has_its_effect_once_and_its_first_reply() {
    let mut world = World::new();
    let first = send(&mut world, 1, 1, create("f"));
    let digest = world.state.digest();
    for _ in 0..3 {
        assert_eq!(send(&mut world, 1, 1, create("f")), first);
        assert_eq!(world.state.digest(), digest, "nothing changed");
    }
    let refused = send(&mut world, 2, 1, create("f"));
    assert_eq!(refused, Err(Errno::EEXIST));
    let unlink = Mutation::Unlink {
        parent: ROOT,
        name: b"f".to_vec(),
    };
    assert_eq!(send(&mut world, 3, 1, unlink), Ok(Reply::Done));
    assert_eq!(
        send(&mut world, 2, 1, create("f")),
        refused,
        "errors are replies, too"
    );
    assert_eq!(
        send(&mut world, 1, 1, create("f")),
        first,
        "though it is gone by now"
    );
    assert_eq!(world.state.path(b"f"), Err(Errno::ENOENT));
}

#[test]
fn a_reply_that_was_seen_is_forgotten_and_its_request_never_run_again() {
    let mut world = World::new();
    for n in 1..=5 {
        send(&mut world, n, 1, create(&format!("f{n}"))).expect("a new name");
    }
    send(&mut world, 6, 5, create("f6")).expect("a new name");
    let (state, session) = (&world.state, world.session);
    assert_eq!(state.remembered(session, RequestId(4)), Remembered::TooOld);
    assert!(matches!(
        state.remembered(session, RequestId(5)),
        Remembered::Reply(Ok(_))
    ));
    assert_eq!(state.remembered(session, RequestId(7)), Remembered::New);
    assert_eq!(send(&mut world, 4, 1, create("again")), Err(Errno::ESTALE));
    assert_eq!(world.state.path(b"again"), Err(Errno::ENOENT));
    // `oldest` never goes back, and never beyond the request itself.
    send(&mut world, 7, 100, create("f7")).expect("a new name");
    assert_eq!(
        world.state.remembered(session, RequestId(6)),
        Remembered::TooOld
    );
    assert!(matches!(
        world.state.remembered(session, RequestId(7)),
        Remembered::Reply(_)
    ));
}

#[test]
fn requests_come_in_any_order_within_the_window() {
    let mut world = World::new();
    world.checked = false;
    let last = SESSION_WINDOW;
    send(&mut world, last, 1, create("last")).expect("the end of the window");
    let beyond = send(&mut world, last + 1, 1, create("beyond"));
    assert_eq!(beyond, Err(Errno::EAGAIN));
    let session = world.session;
    assert_eq!(
        world.state.remembered(session, RequestId(last + 1)),
        Remembered::BeyondWindow
    );
    for n in (1..last).rev() {
        send(&mut world, n, 1, create(&format!("f{n}"))).expect("a new name");
    }
    send(&mut world, last + 1, 2, create("beyond")).expect("the window moved");
    assert_eq!(
        world.state.remembered(session, RequestId(1)),
        Remembered::TooOld
    );
    world.state.check_invariants(true);
}

#[test]
fn memory_for_replies_is_bounded() {
    let mut world = World::new();
    world.checked = false;
    let unlink = || Mutation::Unlink {
        parent: ROOT,
        name: b"f".to_vec(),
    };
    let mut most = 0;
    for n in 0..5000 {
        let oldest = (2 * n + 2_u64).saturating_sub(SESSION_WINDOW - 1).max(1);
        send(&mut world, 2 * n + 1, oldest, create("f")).expect("a new name");
        send(&mut world, 2 * n + 2, oldest, unlink()).expect("it is there");
        most = most.max(world.state.memory());
    }
    assert!(most < 1 << 20, "{most} bytes for 1024 replies");
}

#[test]
fn a_nonce_finds_its_session_while_it_lives() {
    let mut world = World::new();
    let session = world.session;
    assert_eq!(world.begin("test", 7), session);
    assert_eq!(world.state.find_session(7), Some(session));
    let other = world.begin("other", 8);
    assert_ne!(other, session);
    let names: Vec<_> = world.state.sessions().collect();
    assert_eq!(names, [(session, "test"), (other, "other")]);
    let applied = world.record(RecordBody::EndSession { session });
    assert_eq!(applied.changes, [Change::SessionEnded(session)]);
    assert_eq!(world.state.find_session(7), None);
    assert!(!world.state.has_session(session));
    assert!(
        world.begin("test", 7) > other,
        "a new session gets a new number"
    );
}

#[test]
fn an_ended_session_is_refused() {
    let mut world = World::new();
    let session = world.session;
    send(&mut world, 1, 1, create("f")).expect("a new name");
    world.record(RecordBody::EndSession { session });
    let digest = world.state.digest();
    assert_eq!(
        send(&mut world, 1, 1, create("f")),
        Err(Errno::ESTALE),
        "not even remembered"
    );
    assert_eq!(send(&mut world, 2, 1, create("g")), Err(Errno::ESTALE));
    assert_eq!(world.record(RecordBody::EndSession { session }).changes, []);
    assert_eq!(world.state.digest(), digest);
    assert_eq!(
        world.state.remembered(session, RequestId(1)),
        Remembered::NoSession
    );
    assert_eq!(
        world.state.remembered(SessionId(99), RequestId(1)),
        Remembered::NoSession
    );
}

#[test]
fn nobody_mounts_before_the_cluster_is_founded() {
    let mut world = World::new();
    world.state = antler_core::namespace::State::default();
    let name = String::new();
    let applied = world.record(RecordBody::BeginSession { name, nonce: 1 });
    assert_eq!(applied.outcome, Some(Err(Errno::EAGAIN)));
}
