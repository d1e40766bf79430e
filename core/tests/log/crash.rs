//! After a crash at any call of the disk, what completed is there byte for byte,
//! and behind it at most what was under way.

use super::disk::Disk;
use super::model::{Model, append, entry, founding, state, write_image};
use antler_core::ids::{LogPosition, Term, Token};
use antler_core::journal::operation::{HardState, JournalOperation};
use antler_core::journal::{Images, Log, OpenError, Recovered, open};
use antler_core::marks::{Mark, Marks};
use antler_core::rng::Rng;

struct Run {
    rng: Rng,
    disk: Disk,
    model: Model,
    /// What was under way when the power went: it may be there, or not.
    pending: Option<Model>,
    /// The image before the newest: the log behind it is still wanted.
    previous: u64,
    marks: Marks,
}

type Opened = (Log<Disk>, Images<Disk>, Recovered);

fn try_open(disk: &Disk) -> Result<Opened, OpenError> {
    open(disk.clone(), disk.clone(), &founding())
}

impl Run {
    fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            disk: Disk::default(),
            model: Model::default(),
            pending: None,
            previous: 0,
            marks: Marks::default(),
        }
    }

    /// One life: opens (perhaps dying in it), works, dies.
    fn live(&mut self) {
        if self.rng.one_in(3) {
            let calls = self.rng.below(60);
            self.disk.fail_after(calls);
            match try_open(&self.disk) {
                Ok(_) => {}
                Err(OpenError::Medium(_)) => {}
                Err(error) => panic!("refused while dying: {error}"),
            }
            self.disk.crash(&mut self.rng);
        }
        let opened = try_open(&self.disk);
        let (log, images, recovered) = opened.unwrap_or_else(|error| panic!("refused: {error}"));
        self.check(&recovered);
        self.marks.merge(recovered.marks);
        self.work(log, images);
        self.disk.crash(&mut self.rng);
    }

    fn check(&mut self, recovered: &Recovered) {
        let pending = self.pending.take();
        if let Some(pending) = pending.filter(|model| model.matches(recovered).is_ok()) {
            self.model = pending;
        }
        if let Err(difference) = self.model.matches(recovered) {
            panic!("lost or made up:\n{difference}");
        }
        self.model.hard = recovered.hard;
        assert_eq!(recovered.meta.voters, [1, 2, 3]);
        assert_eq!(recovered.meta.learners, [4]);
        let digest = match recovered.meta.position.0 {
            0 => antler_core::namespace::State::default().digest(),
            position => state(position).digest(),
        };
        assert_eq!(recovered.state.digest(), digest);
    }

    fn work(&mut self, mut log: Log<Disk>, mut images: Images<Disk>) {
        if !self.rng.one_in(10) {
            let calls = self.rng.below(120);
            self.disk.fail_after(calls);
        }
        for _ in 0..self.rng.below(60) {
            if self.rng.one_in(4) {
                log.prepare();
            }
            let operation = self.operation();
            let mut after = self.model.clone();
            after.apply(&operation);
            let image = operation.is_image();
            let completion = if image {
                images.execute(operation)
            } else {
                log.execute(operation)
            };
            if completion.result.is_err() {
                assert!(self.disk.has_failed(), "it fails for no other reason");
                self.pending = Some(after);
                break;
            }
            if after.image != self.model.image {
                self.previous = self.model.image.0;
            }
            self.model = after;
        }
        self.marks.merge(log.marks());
        self.marks.merge(images.marks());
    }

    fn operation(&mut self) -> JournalOperation {
        match self.rng.below(20) {
            0 => self.image(),
            1 => JournalOperation::Shorten {
                token: Token(3),
                upto: LogPosition(self.previous),
            },
            2 if self.model.image.0 > 0 && self.model.image.0 == self.model.last() => {
                self.restart()
            }
            _ => self.append(),
        }
    }

    fn image(&mut self) -> JournalOperation {
        let position = self
            .rng
            .between(self.model.image.0, self.model.hard.commit.0);
        if position <= self.model.image.0 {
            return self.append();
        }
        write_image(position, self.model.term_at(position))
    }

    /// As after an installed image: only when the log ends where the image does,
    /// since the image itself is not received here.
    fn restart(&mut self) -> JournalOperation {
        JournalOperation::Restart {
            token: Token(4),
            position: self.model.image,
            term: self.model.image_term,
            hard: self.model.hard,
        }
    }

    fn append(&mut self) -> JournalOperation {
        let last = self.model.last();
        let settled = self.model.hard.commit.0.max(self.model.image.0);
        let conflict = last > settled && self.rng.one_in(5);
        let first = if conflict {
            self.rng.between(settled + 1, last)
        } else {
            last + 1
        };
        let term = self.model.hard.term.0 + u64::from(conflict || self.rng.one_in(9));
        let most = if self.rng.one_in(20) { 30_000 } else { 3000 };
        let count = self.rng.below(4);
        let entries: Vec<_> = (first..first + count)
            .map(|position| entry(position, term, self.rng.below(most) as usize))
            .collect();
        let end = if count == 0 { last } else { first + count - 1 };
        let hard = HardState {
            term: Term(term),
            vote: self.rng.below(4),
            commit: LogPosition(self.rng.between(settled, end.max(settled))),
        };
        let stores = term > self.model.hard.term.0 || self.rng.one_in(2);
        append(entries, stores.then_some(hard))
    }
}

#[test]
fn what_completed_is_there_after_any_crash() {
    let mut marks = Marks::default();
    for seed in 0..800 {
        let mut run = Run::new(seed);
        for life in 0..6 {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.live()));
            if let Err(cause) = outcome {
                eprintln!("seed {seed}, life {life}");
                std::panic::resume_unwind(cause);
            }
        }
        marks.merge(run.marks);
    }
    for mark in [
        Mark::TornTail,
        Mark::SegmentRolled,
        Mark::ImageWritten,
        Mark::ImageLoaded,
    ] {
        assert!(marks.has(mark), "{} was never reached", mark.name());
    }
}
