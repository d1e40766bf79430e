//! What a medium does beside crashing: rot, loss, errors, no space. A log that lost
//! something synced is refused; what can be spared is spared.

use super::disk::Disk;
use super::model::{BLOCK, append, entry, founding, state, write_image};
use antler_core::ids::{ClusterId, LogPosition, MemberId, Term, Token};
use antler_core::journal::operation::{HardState, JournalError, JournalOperation, JournalReply};
use antler_core::journal::{Founding, Images, Log, OpenError, Recovered, open};
use antler_core::marks::Mark;
use antler_core::rng::Rng;

type Opened = (Log<Disk>, Images<Disk>, Recovered);

fn open_on(disk: &Disk) -> Result<Opened, OpenError> {
    open(disk.clone(), disk.clone(), &founding())
}

fn opened(disk: &Disk) -> Opened {
    open_on(disk).unwrap_or_else(|error| panic!("refused: {error}"))
}

fn done(completion: antler_core::journal::operation::JournalCompletion) {
    assert!(
        matches!(completion.result, Ok(JournalReply::Done)),
        "{completion:?}"
    );
}

fn hard(commit: u64) -> HardState {
    HardState {
        term: Term(1),
        vote: 1,
        commit: LogPosition(commit),
    }
}

/// Appends entries of a block each, one by one.
fn fill(log: &mut Log<Disk>, positions: std::ops::RangeInclusive<u64>) {
    for position in positions {
        let commit = Some(hard(position - 1));
        done(log.execute(append(vec![entry(position, 1, 3000)], commit)));
    }
}

/// A disk with ten entries, in three segments.
fn filled() -> Disk {
    let disk = Disk::default();
    let (mut log, _, _) = opened(&disk);
    fill(&mut log, 1..=10);
    disk
}

fn segment(sequence: u64) -> String {
    format!("log-{sequence:016x}")
}

fn positions(recovered: &Recovered) -> Vec<u64> {
    recovered
        .entries
        .iter()
        .map(|entry| entry.position.0)
        .collect()
}

#[test]
fn a_hole_in_the_middle_is_refused_with_its_place() {
    let disk = filled();
    disk.tamper(&segment(1), |bytes| bytes[2 * BLOCK as usize + 100] ^= 1);
    let Err(OpenError::Hole { file, offset, .. }) = open_on(&disk) else {
        panic!("it was opened");
    };
    assert_eq!((file, offset), (segment(1), 2 * BLOCK));
}

#[test]
fn a_hole_at_the_end_of_a_segment_is_refused() {
    let disk = filled();
    disk.tamper(&segment(1), |bytes| bytes[4 * BLOCK as usize] ^= 1);
    assert!(matches!(open_on(&disk), Err(OpenError::Hole { .. })));
}

#[test]
fn a_lost_segment_in_the_middle_is_refused() {
    let disk = filled();
    disk.delete(&segment(2));
    assert!(matches!(open_on(&disk), Err(OpenError::Hole { .. })));
}

#[test]
fn a_lost_first_segment_is_refused() {
    let disk = filled();
    disk.delete(&segment(1));
    let refused = open_on(&disk);
    assert!(
        matches!(refused, Err(OpenError::Missing { .. })),
        "{:?}",
        refused.err()
    );
}

#[test]
fn a_damaged_header_of_the_last_segment_loses_nothing() {
    let disk = filled();
    disk.tamper(&segment(3), |bytes| bytes[20] ^= 1);
    assert_eq!(positions(&opened(&disk).2), (1..=10).collect::<Vec<_>>());
}

#[test]
fn a_torn_last_batch_is_cut_for_good() {
    let disk = filled();
    disk.tamper(&segment(3), |bytes| {
        let last = bytes
            .chunks(BLOCK as usize)
            .rposition(|block| block.starts_with(b"BTCH"));
        bytes[last.expect("there are batches") * BLOCK as usize + 200] ^= 1;
    });
    let (mut log, _, recovered) = opened(&disk);
    assert_eq!(positions(&recovered), (1..=9).collect::<Vec<_>>());
    assert!(recovered.marks.has(Mark::TornTail));
    done(log.execute(append(vec![entry(10, 2, 10)], None)));
    let (_, _, recovered) = opened(&disk);
    assert_eq!(recovered.entries.last(), Some(&entry(10, 2, 10)));
    assert!(!recovered.marks.has(Mark::TornTail));
}

#[test]
fn bytes_of_an_older_use_of_a_segment_are_not_mistaken() {
    let disk = Disk::default();
    let (mut log, mut images, _) = opened(&disk);
    let mut last = 0;
    for round in 1..=30 {
        fill(&mut log, last + 1..=last + 5);
        last += 5;
        done(images.execute(write_image(last - 1, Term(1))));
        done(log.execute(JournalOperation::Shorten {
            token: Token(1),
            upto: LogPosition(last - 1),
        }));
        let (again, more, recovered) = opened(&disk);
        assert_eq!(positions(&recovered), [last], "round {round}");
        (log, images) = (again, more);
    }
    assert!(
        disk.names().len() < 10,
        "old segments go: {:?}",
        disk.names()
    );
}

#[test]
fn another_folder_is_refused() {
    let disk = filled();
    for founding in [
        Founding {
            member: MemberId(2),
            ..founding()
        },
        Founding {
            cluster: ClusterId(8),
            ..founding()
        },
    ] {
        let refused = open(disk.clone(), disk.clone(), &founding);
        assert!(matches!(refused, Err(OpenError::Foreign { .. })));
    }
}

#[test]
fn a_newer_format_is_refused() {
    let disk = filled();
    disk.tamper(&segment(1), |bytes| {
        bytes[8] = 2;
        let checksum = crc32fast::hash(&bytes[..60]);
        bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
    });
    assert!(matches!(
        open_on(&disk),
        Err(OpenError::Version { version: 2, .. })
    ));
}

#[test]
fn the_founding_holds_though_the_configuration_changes() {
    let disk = filled();
    let later = Founding {
        voters: vec![9],
        learners: vec![],
        ..founding()
    };
    let (_, _, recovered) = open(disk.clone(), disk, &later).expect("it is ours");
    assert_eq!(recovered.meta.voters, [1, 2, 3]);
}

#[test]
fn a_damaged_image_is_passed_over_for_the_one_before() {
    let disk = filled();
    let (_, mut images, _) = opened(&disk);
    done(images.execute(write_image(5, Term(1))));
    done(images.execute(write_image(8, Term(1))));
    disk.tamper("image-0000000000000008", |bytes| bytes[80] ^= 1);
    let (_, _, recovered) = opened(&disk);
    assert_eq!(recovered.meta.position, LogPosition(5));
    assert_eq!(recovered.state.digest(), state(5).digest());
    assert_eq!(positions(&recovered), [6, 7, 8, 9, 10]);
    assert!(recovered.marks.has(Mark::ImageSkipped));
    assert!(!disk.names().contains(&"image-0000000000000008".to_owned()));
}

#[test]
fn images_that_are_all_damaged_are_refused() {
    let disk = filled();
    let (_, mut images, _) = opened(&disk);
    done(images.execute(write_image(5, Term(1))));
    disk.tamper("image-0000000000000005", |bytes| bytes[3] ^= 1);
    assert!(matches!(open_on(&disk), Err(OpenError::Image { .. })));
}

#[test]
fn a_log_that_is_gone_is_not_founded_anew_beside_an_image() {
    let disk = filled();
    let (_, mut images, _) = opened(&disk);
    done(images.execute(write_image(5, Term(1))));
    for name in disk.names() {
        if name.starts_with("log-") {
            disk.delete(&name);
        }
    }
    assert!(matches!(open_on(&disk), Err(OpenError::NoLog { .. })));
}

#[test]
fn damage_that_an_image_covers_is_spared() {
    let disk = filled();
    let (_, mut images, _) = opened(&disk);
    done(images.execute(write_image(9, Term(1))));
    disk.tamper(&segment(1), |bytes| bytes[2 * BLOCK as usize] ^= 1);
    assert_eq!(positions(&opened(&disk).2), [10]);
    assert_eq!(positions(&opened(&disk).2), [10]);
}

#[test]
fn an_append_is_one_write_and_one_sync() {
    let disk = Disk::default();
    let (mut log, _, _) = opened(&disk);
    while log.prepare() {}
    let before = disk.counts();
    fill(&mut log, 1..=3);
    let after = disk.counts();
    assert_eq!((after.0 - before.0, after.1 - before.1), (3, 3));
}

#[test]
fn nothing_is_accepted_after_a_failed_sync() {
    let disk = Disk::default();
    let (mut log, _, _) = opened(&disk);
    disk.fail_sync_after(0);
    for _ in 0..3 {
        let completion = log.execute(append(vec![entry(1, 1, 10)], None));
        assert!(matches!(completion.result, Err(JournalError::Medium(_))));
    }
}

#[test]
fn a_batch_whose_sync_failed_is_no_hole_after_two_more_lives() {
    let disk = Disk::default();
    let (mut log, _, _) = opened(&disk);
    fill(&mut log, 1..=2);
    disk.fail_sync_after(0);
    let failed = log.execute(append(vec![entry(3, 1, 3000)], None));
    assert!(failed.result.is_err());
    // The power stays: the next life reads what the failed sync left in memory.
    let (mut log, _, recovered) = opened(&disk);
    assert_eq!(positions(&recovered), [1, 2, 3]);
    done(log.execute(append(vec![entry(4, 1, 10)], None)));
    disk.crash(&mut Rng::new(1));
    assert_eq!(positions(&opened(&disk).2), [1, 2, 3, 4]);
}

#[test]
fn an_image_that_finds_no_space_costs_nothing() {
    let disk = filled();
    let (mut log, mut images, _) = opened(&disk);
    let names = disk.names();
    disk.limit(Some(0));
    let completion = images.execute(write_image(5, Term(1)));
    assert_eq!(completion.result.err(), Some(JournalError::Full));
    assert_eq!(disk.names(), names);
    disk.limit(None);
    done(images.execute(write_image(5, Term(1))));
    done(log.execute(append(vec![entry(11, 1, 10)], None)));
}

/// Copies an image from one folder to another, piece by piece.
fn copy(from: &mut Images<Disk>, to: &mut Images<Disk>, piece: usize) -> JournalReply {
    let mut offset = 0;
    loop {
        let read = from.execute(JournalOperation::ReadImage {
            token: Token(1),
            position: LogPosition(5),
            offset,
            length: piece,
        });
        let Ok(JournalReply::Piece { meta, total, data }) = read.result else {
            panic!("{read:?}");
        };
        let length = data.len() as u64;
        let stored = to.execute(JournalOperation::ReceiveImage {
            token: Token(2),
            position: meta.position,
            offset,
            total,
            data,
        });
        offset += length;
        match stored.result {
            Ok(JournalReply::Done) if offset < total => {}
            Ok(reply) => return reply,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn an_image_is_received_and_used_even_before_the_log_follows() {
    let source = filled();
    let (_, mut from, _) = opened(&source);
    done(from.execute(write_image(5, Term(1))));
    let disk = Disk::default();
    let (log, mut to, _) = opened(&disk);
    let JournalReply::Installed {
        meta,
        state: loaded,
    } = copy(&mut from, &mut to, 100)
    else {
        panic!("it is whole");
    };
    assert_eq!(
        (meta.position, loaded.digest()),
        (LogPosition(5), state(5).digest())
    );
    drop(log);
    let (mut log, _, recovered) = opened(&disk);
    assert_eq!(recovered.meta.position, LogPosition(5));
    assert_eq!(recovered.hard.commit, LogPosition(5));
    done(log.execute(append(vec![entry(6, 1, 10)], None)));
    assert_eq!(positions(&opened(&disk).2), [6]);
}

#[test]
fn a_damaged_received_image_is_dropped() {
    let disk = Disk::default();
    let (_, mut images, _) = opened(&disk);
    let completion = images.execute(JournalOperation::ReceiveImage {
        token: Token(2),
        position: LogPosition(5),
        offset: 0,
        total: 500,
        data: bytes::Bytes::from(vec![1; 500]),
    });
    assert!(matches!(completion.result, Err(JournalError::Damaged(_))));
    assert!(!disk.names().iter().any(|name| name.starts_with("image")));
}

#[test]
fn a_slow_receiver_finishes_the_image_it_began() {
    let disk = filled();
    let (_, mut images, _) = opened(&disk);
    done(images.execute(write_image(5, Term(1))));
    let read = |images: &mut Images<Disk>, offset| {
        let completion = images.execute(JournalOperation::ReadImage {
            token: Token(1),
            position: LogPosition(5),
            offset,
            length: 10,
        });
        match completion.result {
            Ok(JournalReply::Piece { meta, .. }) => meta.position.0,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(read(&mut images, 0), 5);
    for position in 6..=9 {
        done(images.execute(write_image(position, Term(1))));
    }
    assert_eq!(read(&mut images, 10), 5);
}
