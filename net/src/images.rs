//! Decoding an image's sections on all processors, at a start and when a member
//! receives an image.

use antler_core::namespace::{DecodeError, Section, SectionId, StateLoader};
use std::sync::Mutex;
use std::thread;

type Encoded = (SectionId, Vec<u8>);
type Decoded = Result<Section, DecodeError>;

/// Decodes sections beside each other; the result is in the order of the sections.
#[must_use]
pub fn decode_in_parallel(sections: Vec<Encoded>) -> Vec<Decoded> {
    let count = sections.len();
    let work = Mutex::new(sections.into_iter().enumerate());
    let done: Mutex<Vec<Option<Decoded>>> = Mutex::new((0..count).map(|_| None).collect());
    let processors = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..processors.min(count) {
            scope.spawn(|| decode_some(&work, &done));
        }
    });
    let done = done.into_inner().expect("a panic ends the process");
    done.into_iter()
        .map(|section| section.expect("every section was taken"))
        .collect()
}

fn decode_some(
    work: &Mutex<impl Iterator<Item = (usize, Encoded)>>,
    done: &Mutex<Vec<Option<Decoded>>>,
) {
    loop {
        let next = work.lock().expect("a panic ends the process").next();
        let Some((at, (id, bytes))) = next else {
            return;
        };
        let section = StateLoader::decode_section(id, &bytes);
        done.lock().expect("a panic ends the process")[at] = Some(section);
    }
}
