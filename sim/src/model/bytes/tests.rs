//! What reads may find, case by case.

use super::*;
use crate::model::content::WriteId;

const SEED: u64 = 5;
const W1: Source = Source::Write(WriteId(1));
const W2: Source = Source::Write(WriteId(2));

fn bytes(source: Source, offset: u64, length: usize) -> Vec<u8> {
    let mut buffer = vec![0; length];
    source.fill(SEED, offset, &mut buffer);
    buffer
}

/// Which of some sources a read of 100 bytes at 0 may find.
fn readable(file: &mut FileBytes, mount: MountId) -> Vec<Source> {
    let allowed = |source: &Source| {
        let mut file = file.clone();
        file.begin_read(1, mount, 0, 100);
        file.end_read(1, SEED, 100, &bytes(*source, 0, 100)).is_ok()
    };
    [Source::Zero, W1, W2].into_iter().filter(allowed).collect()
}

fn write(file: &mut FileBytes, mount: MountId, source: Source) -> ChangeId {
    let change = file.begin_write(mount, source, 0, 100);
    file.answer_write(mount, change, 100);
    change
}

/// A flush or fsync of a mount, from its beginning to its answer.
fn done(file: &mut FileBytes, mount: MountId, how: Commit) {
    let upto = file.begin_commit();
    file.commit(mount, upto, how);
}

fn committed(source: Source, how: Commit) -> FileBytes {
    let mut file = FileBytes::default();
    write(&mut file, 1, source);
    done(&mut file, 1, how);
    file
}

#[test]
fn a_mount_sees_its_own_write_and_others_may() {
    let mut file = FileBytes::default();
    let change = file.begin_write(1, W1, 0, 100);
    assert_eq!(
        readable(&mut file, 1),
        [Source::Zero, W1],
        "not answered yet"
    );
    file.answer_write(1, change, 100);
    assert_eq!(readable(&mut file, 1), [W1]);
    assert_eq!(readable(&mut file, 2), [Source::Zero, W1]);
    done(&mut file, 1, Commit::Visible);
    assert_eq!(readable(&mut file, 2), [W1]);
}

#[test]
fn what_was_synced_survives_servers_and_what_was_only_closed_may_not() {
    let mut synced = committed(W1, Commit::Durable);
    synced.lose_server();
    assert_eq!(readable(&mut synced, 2), [W1]);
    let mut closed = committed(W1, Commit::Visible);
    closed.lose_server();
    assert_eq!(readable(&mut closed, 2), [Source::Zero, W1]);
}

#[test]
fn a_dead_mount_leaves_old_or_new_until_something_certain() {
    let mut file = committed(W1, Commit::Durable);
    write(&mut file, 1, W2);
    file.lose_mount(1);
    assert_eq!(readable(&mut file, 2), [W1, W2]);
    write(&mut file, 3, W1);
    done(&mut file, 3, Commit::Durable);
    assert_eq!(readable(&mut file, 2), [W1]);
}

#[test]
fn two_mounts_that_write_at_once_end_with_either() {
    let mut file = FileBytes::default();
    write(&mut file, 1, W1);
    write(&mut file, 2, W2);
    done(&mut file, 1, Commit::Durable);
    assert_eq!(readable(&mut file, 3), [W1, W2]);
    assert_eq!(readable(&mut file, 2), [W1, W2]);
    done(&mut file, 2, Commit::Durable);
    assert_eq!(readable(&mut file, 3), [W1, W2]);
    write(&mut file, 1, W1);
    done(&mut file, 1, Commit::Durable);
    assert_eq!(readable(&mut file, 3), [W1]);
}

#[test]
fn a_truncation_makes_zeros_and_bounds_the_length() {
    let mut file = committed(W1, Commit::Durable);
    let change = file.begin_truncate(1, 50);
    assert_eq!(file.size(2), (50, 100));
    file.answer_truncate(1, change, 50);
    assert_eq!(file.size(2), (50, 50));
    let change = file.begin_truncate(2, 100);
    file.answer_truncate(2, change, 100);
    file.begin_read(1, 1, 0, 200);
    let mut expected = bytes(W1, 0, 50);
    expected.resize(100, 0);
    assert_eq!(file.end_read(1, SEED, 200, &expected), Ok(()));
    file.begin_read(2, 1, 0, 200);
    let resurrected = bytes(W1, 0, 100);
    assert_eq!(
        file.end_read(2, SEED, 200, &resurrected)
            .expect_err("garbage")
            .offset,
        50
    );
}

#[test]
fn lengths_are_judged() {
    let mut file = committed(W1, Commit::Durable);
    file.begin_read(1, 2, 0, 200);
    let short = file.end_read(1, SEED, 200, &bytes(W1, 0, 60));
    assert_eq!(short.expect_err("too short").offset, 60);
    file.begin_read(2, 2, 0, 200);
    assert!(file.end_read(2, SEED, 200, &bytes(W1, 0, 150)).is_err());
    file.begin_read(3, 2, 100, 200);
    assert_eq!(file.end_read(3, SEED, 200, &[]), Ok(()));
}

#[test]
fn a_read_under_way_may_find_what_happens_meanwhile() {
    let mut file = committed(W1, Commit::Durable);
    file.begin_read(1, 2, 0, 100);
    write(&mut file, 1, W2);
    done(&mut file, 1, Commit::Durable);
    let mut other = file.clone();
    assert_eq!(file.end_read(1, SEED, 100, &bytes(W1, 0, 100)), Ok(()));
    assert_eq!(other.end_read(1, SEED, 100, &bytes(W2, 0, 100)), Ok(()));
}

#[test]
fn after_a_crash_old_and_new_alternate_only_at_the_grain() {
    let mut file = FileBytes::default();
    let change = file.begin_write(1, W1, 0, 8192);
    file.answer_write(1, change, 8192);
    done(&mut file, 1, Commit::Durable);
    file.begin_write(1, W2, 0, 8192);
    file.lose_mount(1);
    let mut mixed = bytes(W1, 0, 4096);
    mixed.extend(bytes(W2, 4096, 4096));
    file.begin_read(1, 2, 0, 8192);
    assert_eq!(file.end_read(1, SEED, 8192, &mixed), Ok(()));
    let mut torn = bytes(W1, 0, 2000);
    torn.extend(bytes(W2, 2000, 6192));
    file.begin_read(2, 2, 0, 8192);
    assert_eq!(
        file.end_read(2, SEED, 8192, &torn)
            .expect_err("torn")
            .offset,
        2000
    );
}

#[test]
fn a_failed_sync_leaves_it_open() {
    let mut file = committed(W1, Commit::Durable);
    let change = write(&mut file, 1, W2);
    file.fail_commit(1, change);
    assert_eq!(readable(&mut file, 1), [W1, W2]);
    assert_eq!(
        file.durable_ranges().count(),
        1,
        "only the zeros behind are certain"
    );
}

#[test]
fn what_was_written_behind_a_sync_that_fails_may_still_come_behind_what_others_write() {
    let mut file = FileBytes::default();
    let failing = file.begin_commit();
    write(&mut file, 1, W1);
    let own = file.begin_commit();
    file.fail_commit(1, failing);
    write(&mut file, 2, W2);
    done(&mut file, 2, Commit::Durable);
    assert_eq!(readable(&mut file, 2), [W1, W2]);
    file.fail_commit(1, own);
    write(&mut file, 2, W2);
    done(&mut file, 2, Commit::Durable);
    assert_eq!(readable(&mut file, 2), [W2], "it was given up");
}

#[test]
fn a_length_committed_while_another_mount_cuts_is_unknown() {
    let mut file = FileBytes::default();
    let cut = file.begin_truncate(1, 10);
    let write = file.begin_write(2, Source::Write(WriteId(1)), 0, 100);
    file.answer_write(2, write, 100);
    done(&mut file, 2, Commit::Visible);
    file.answer_truncate(1, cut, 10);
    assert_eq!(file.size(3), (10, 100));
}

#[test]
fn what_a_mount_overwrote_in_memory_another_may_still_read() {
    let mut file = FileBytes::default();
    for number in 1..=2 {
        let write = file.begin_write(1, Source::Write(WriteId(number)), 0, 8);
        file.answer_write(1, write, 8);
    }
    let mut older = vec![0; 8];
    Source::Write(WriteId(1)).fill(7, 0, &mut older);
    file.begin_read(1, 2, 0, 8);
    file.end_read(1, 7, 8, &older)
        .expect("another mount's view");
    file.begin_read(2, 1, 0, 8);
    file.end_read(2, 7, 8, &older).expect_err("its own view");
}

#[test]
fn a_lost_mounts_write_may_lie_over_what_another_wrote_and_did_not_commit() {
    let mut file = FileBytes::default();
    for mount in [1, 2] {
        let write = file.begin_write(mount, Source::Write(WriteId(mount)), 0, 8);
        file.answer_write(mount, write, 8);
    }
    file.lose_mount(2);
    for found in [1, 2] {
        let mut bytes = vec![0; 8];
        Source::Write(WriteId(found)).fill(7, 0, &mut bytes);
        file.begin_read(found.into(), 1, 0, 8);
        file.end_read(found.into(), 7, 8, &bytes).expect("either");
    }
}

#[test]
fn a_write_of_unknown_rank_may_end_within_a_grain() {
    // A hole is made while another mount writes, and the writer cuts the file: the
    // write may have come behind the hole, and ends where the cut begins.
    let mut file = FileBytes::default();
    let hole = file.begin_zero(1, 0, 4096, 4096);
    let change = file.begin_write(2, W1, 0, 4096);
    file.answer_write(1, hole, 4096);
    file.answer_write(2, change, 4096);
    done(&mut file, 1, Commit::Durable);
    let cut = file.begin_truncate(2, 1000);
    file.answer_truncate(2, cut, 1000);
    done(&mut file, 2, Commit::Durable);
    let grown = file.begin_zero(2, 4096, 0, 4096);
    file.answer_write(2, grown, 4096);
    let mut found = bytes(W1, 0, 4096);
    found[1000..].fill(0);
    file.begin_read(1, 3, 0, 4096);
    file.end_read(1, SEED, 4096, &found)
        .expect("the write, cut");
    found[..500].fill(0);
    file.begin_read(2, 3, 0, 4096);
    let torn = file.end_read(2, SEED, 4096, &found);
    assert!(torn.is_err(), "no write ended at 500");
}

#[test]
fn a_write_over_the_end_of_the_content_may_show_up_to_there() {
    let mut file = FileBytes::default();
    let cut = file.begin_truncate(1, 1000);
    file.answer_truncate(1, cut, 1000);
    let grown = file.begin_zero(1, 4096, 0, 4096);
    file.answer_zero(1, grown, 4096);
    done(&mut file, 1, Commit::Durable);
    let change = file.begin_write(1, W1, 0, 4096);
    file.answer_write(1, change, 4096);
    let mut found = bytes(W1, 0, 4096);
    found[1000..].fill(0);
    file.begin_read(1, 2, 0, 4096);
    file.end_read(1, SEED, 4096, &found).expect("not committed");
    done(&mut file, 1, Commit::Visible);
    file.begin_read(2, 2, 0, 4096);
    assert!(file.end_read(2, SEED, 4096, &found).is_err(), "committed");
}

#[test]
fn a_file_that_is_cut_while_it_grows_has_either_length() {
    let mut file = FileBytes::default();
    let cut = file.begin_truncate(1, 0);
    let grown = file.begin_zero(2, 100, 100, 200);
    file.answer_truncate(1, cut, 0);
    file.answer_zero(2, grown, 200);
    assert_eq!(file.size(3), (0, 200));
}

#[test]
fn a_flush_tells_nothing_of_what_was_written_after_it_began() {
    let mut file = FileBytes::default();
    let long = file.begin_write(1, W1, 0, 9000);
    file.answer_write(1, long, 9000);
    let cut = file.begin_truncate(1, 1000);
    file.answer_truncate(1, cut, 1000);
    let covered = file.begin_write(1, W1, 1000, 500);
    file.answer_write(1, covered, 1500);
    let flush = file.begin_commit();
    let later = file.begin_write(1, W2, 5000, 1000);
    file.answer_write(1, later, 6000);
    file.commit(1, flush, Commit::Visible);
    assert_eq!(file.size(2), (1500, 6000));
    assert_eq!(file.size(1), (6000, 6000), "its own view");
    done(&mut file, 1, Commit::Visible);
    assert_eq!(file.size(2).0, 6000);
}

#[test]
fn an_fsync_says_nothing_of_a_write_that_was_answered_after_it_began() {
    let mut file = committed(W1, Commit::Durable);
    let change = file.begin_write(1, W2, 0, 100);
    let upto = file.begin_commit();
    file.answer_write(1, change, 100);
    file.commit(1, upto, Commit::Durable);
    assert_eq!(readable(&mut file, 2), [W1, W2]);
    done(&mut file, 1, Commit::Durable);
    assert_eq!(readable(&mut file, 2), [W2]);
}

#[test]
fn what_is_closed_while_a_server_dies_may_have_been_closed_before() {
    let mut file = committed(W1, Commit::Durable);
    let change = write(&mut file, 1, W2);
    let flush = file.begin_commit();
    file.lose_server();
    let mut synced = file.clone();
    file.commit(1, flush, Commit::Visible);
    assert_eq!(readable(&mut file, 2), [W1, W2]);
    synced.commit(1, flush, Commit::Durable);
    assert_eq!(readable(&mut synced, 2), [W2]);
    // A close that begins behind the death tells that the write is there.
    let mut file = committed(W1, Commit::Durable);
    write(&mut file, 1, W2);
    file.lose_server();
    let flush = file.begin_commit();
    assert_ne!(flush, change);
    file.commit(1, flush, Commit::Visible);
    assert_eq!(readable(&mut file, 2), [W2]);
}

#[test]
fn an_fsync_vouches_for_what_its_mount_closed_before() {
    let mut file = committed(W1, Commit::Durable);
    write(&mut file, 1, W2);
    done(&mut file, 1, Commit::Visible);
    file.lose_server();
    let upto = file.begin_commit();
    assert_eq!(readable(&mut file, 2), [W1, W2]);
    let mut synced = file.clone();
    synced.commit(1, upto, Commit::Durable);
    synced.lose_server();
    assert_eq!(readable(&mut synced, 2), [W2]);
    let mut elsewhere = file.clone();
    elsewhere.commit(2, upto, Commit::Durable);
    assert_eq!(readable(&mut elsewhere, 2), [W1, W2], "another mount's");
    // Once a program was told of the loss, nothing more is said of it.
    file.fail_commit(1, upto);
    file.commit(1, upto, Commit::Durable);
    assert_eq!(readable(&mut file, 2), [W1, W2]);
}

#[test]
fn an_fsync_says_nothing_of_what_another_mount_closed_since() {
    let mut file = committed(W1, Commit::Visible);
    write(&mut file, 2, W2);
    done(&mut file, 2, Commit::Visible);
    file.lose_server();
    done(&mut file, 1, Commit::Durable);
    assert_eq!(readable(&mut file, 1), [Source::Zero, W1, W2]);
}

#[test]
fn a_read_amid_a_truncation_may_find_old_blocks_and_zeros_and_no_mixed_block() {
    let found = |zeros_from: usize| {
        let mut file = FileBytes::default();
        let change = file.begin_write(1, W1, 100, 20_000);
        file.answer_write(1, change, 20_100);
        done(&mut file, 1, Commit::Durable);
        file.begin_read(1, 1, 200, 12_000);
        file.begin_truncate(1, 150);
        let mut content = bytes(W1, 200, 12_000);
        content[zeros_from..].fill(0);
        file.end_read(1, SEED, 12_000, &content).is_ok()
    };
    assert!(found(0) && found(12_000), "all new, all old");
    assert!(found(8192 - 200), "one block old, the next new");
    assert!(!found(8000), "half a block");
}

#[test]
fn a_write_that_was_not_answered_when_its_mount_cut_the_file_may_come_behind_the_cut() {
    let mut file = FileBytes::default();
    let write = file.begin_write(1, W1, 0, 100);
    let cut = file.begin_truncate(1, 0);
    file.answer_truncate(1, cut, 0);
    file.answer_write(1, write, 100);
    done(&mut file, 1, Commit::Visible);
    assert_eq!(file.size(2).1, 100);
    file.begin_read(1, 2, 0, 200);
    let found = file.end_read(1, SEED, 200, &bytes(W1, 0, 100));
    assert_eq!(found, Ok(()));
}
