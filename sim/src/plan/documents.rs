//! The profile `documents`: what an office does with files. Documents are made whole,
//! read whole, by anybody, changed a little in place, and removed when there are enough.
//!
//! A step of an office is several operations of a program (open, read, close); `rate`
//! counts the steps, and the operations of one follow each other at once.

use super::programs::{FileOperation, Program, Step};
use crate::network::Nanos;
use crate::scenario::Range;
use antler_core::rng::Rng;

/// Steps of one program at most.
const STEPS_MAX: u64 = 20_000;
/// The one file that a program has open at a time.
const SLOT: usize = 0;

/// What a program is drawn from.
#[derive(Clone, Debug)]
pub(super) struct Office {
    pub(super) number: u64,
    pub(super) client: u64,
    /// Programs in all: everybody reads everybody's documents.
    pub(super) programs: u64,
    /// Documents that a program keeps.
    pub(super) files: u64,
    pub(super) size: Range,
    /// In a hundred.
    pub(super) reads: u64,
    pub(super) synced: u64,
    /// From the beginning of a step to that of the next, on average.
    pub(super) pace: Nanos,
    pub(super) duration: Nanos,
    pub(super) write_max: u64,
}

/// Draws a program.
pub(super) fn draw(office: &Office, rng: Rng) -> Program {
    let mut drawing = Drawing {
        office,
        rng,
        made: 0,
        sizes: Vec::new(),
        steps: Vec::new(),
    };
    for folder in (0..office.programs).map(folder_of) {
        drawing.push(0, FileOperation::MakeDirectory { path: folder });
    }
    let count = (office.duration / office.pace.max(1)).clamp(10, STEPS_MAX);
    for _ in 0..count {
        drawing.next_step();
    }
    Program {
        client: office.client,
        steps: drawing.steps,
    }
}

fn folder_of(program: u64) -> String {
    format!("a{program}")
}

struct Drawing<'a> {
    office: &'a Office,
    rng: Rng,
    /// Documents that it made so far.
    made: u64,
    /// The sizes of those that it keeps, by their place.
    sizes: Vec<u64>,
    steps: Vec<Step>,
}

impl Drawing<'_> {
    fn push(&mut self, think: Nanos, operation: FileOperation) {
        self.steps.push(Step { think, operation });
    }

    fn next_step(&mut self) {
        let think = self.rng.between(0, self.office.pace * 2);
        let reads = self.rng.below(100) < self.office.reads;
        match (self.sizes.is_empty(), reads) {
            (false, true) => self.read(think),
            (false, false) if self.rng.one_in(3) => self.change(think),
            _ => self.make(think),
        }
    }

    fn own_path(&self, place: u64) -> String {
        format!("{}/doc{place}", folder_of(self.office.number))
    }

    /// Makes a document in the place of the oldest.
    fn make(&mut self, think: Nanos) {
        let place = self.made % self.office.files;
        let size = self.office.size.draw(&mut self.rng);
        let path = self.own_path(place);
        let mut think = think;
        if self.made >= self.office.files {
            let path = path.clone();
            self.push(think, FileOperation::Unlink { path });
            think = 0;
        }
        self.made += 1;
        match self.sizes.get_mut(place as usize) {
            Some(known) => *known = size,
            None => self.sizes.push(size),
        }
        self.push(
            think,
            FileOperation::Create {
                path,
                slot: SLOT,
                exclusive: false,
            },
        );
        self.write(0, size);
        self.end();
    }

    /// Reads a document: three in four its own, else somebody's.
    fn read(&mut self, think: Nanos) {
        let whose = match self.rng.one_in(4) {
            true => self.rng.below(self.office.programs),
            false => self.office.number,
        };
        let place = self.rng.below(self.sizes.len() as u64);
        let path = format!("{}/doc{place}", folder_of(whose));
        self.push(
            think,
            FileOperation::Open {
                path,
                slot: SLOT,
                write: false,
                truncate: false,
            },
        );
        let length = self.office.size.high;
        self.push(
            0,
            FileOperation::Read {
                slot: SLOT,
                offset: 0,
                length,
            },
        );
        self.push(0, FileOperation::Close { slot: SLOT });
    }

    /// Changes a piece of one of its documents.
    fn change(&mut self, think: Nanos) {
        let place = self.rng.below(self.sizes.len() as u64);
        let size = self.sizes[place as usize];
        let path = self.own_path(place);
        self.push(
            think,
            FileOperation::Open {
                path,
                slot: SLOT,
                write: true,
                truncate: false,
            },
        );
        let offset = self.rng.below(size);
        let length = self.rng.between(1, (size - offset).min(8 << 10));
        self.write(offset, length);
        self.end();
    }

    fn write(&mut self, from: u64, length: u64) {
        let mut offset = from;
        while offset < from + length {
            let piece = (from + length - offset).min(self.office.write_max);
            self.push(
                0,
                FileOperation::Write {
                    slot: SLOT,
                    offset,
                    length: piece,
                },
            );
            offset += piece;
        }
    }

    fn end(&mut self) {
        if self.rng.below(100) < self.office.synced {
            self.push(0, FileOperation::Fsync { slot: SLOT });
        }
        self.push(0, FileOperation::Close { slot: SLOT });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_office_reads_as_often_as_is_said_and_keeps_so_many_documents() {
        let office = Office {
            number: 1,
            client: 0,
            programs: 2,
            files: 5,
            size: Range {
                low: 1000,
                high: 100_000,
            },
            reads: 75,
            synced: 100,
            pace: 1_000_000_000,
            duration: 4_000_000_000_000,
            write_max: 64 << 10,
        };
        let program = draw(&office, Rng::new(3));
        let count = |test: fn(&FileOperation) -> bool| {
            let steps = program.steps.iter();
            steps.filter(|step| test(&step.operation)).count()
        };
        let reads = count(|one| matches!(one, FileOperation::Read { .. }));
        assert!((2900..3100).contains(&reads), "{reads} of 4000");
        let made = count(|one| matches!(one, FileOperation::Create { .. }));
        let gone = count(|one| matches!(one, FileOperation::Unlink { .. }));
        assert_eq!(made, gone + 5);
        let synced = count(|one| matches!(one, FileOperation::Fsync { .. }));
        assert_eq!(synced + reads, 4000);
        let waited: Nanos = program.steps.iter().map(|step| step.think).sum();
        assert!(
            (3_800..4_200).contains(&(waited / 1_000_000_000)),
            "{waited}"
        );
    }
}
