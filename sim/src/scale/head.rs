//! The master of a scale run: the real machine over the real log and image code on a
//! simulated disk, as in every other scenario, alone in its group.
//!
//! Owns how it begins (from an image of what founded the cluster) and how long it works;
//! leaves what it sends to the run. Invariant: nothing of its soft state is set from
//! outside, all comes by messages.

use super::founding::{self, WRITTEN};
use super::spec::ScalePlan;
use crate::disk::{DiskOptions, DiskSpeed, SimDisk};
use crate::network::Nanos;
use crate::process::{Act, MemberMachine, MemberProcess, Moment, Process, Stimulus};
use antler_core::ids::{Address, ClusterId, MemberId, Term, Token};
use antler_core::journal::operation::{HardState, ImageMeta, JournalOperation, JournalReply};
use antler_core::journal::{self, Founding};
use antler_core::master::{Master, MasterConfig};
use antler_core::member::{MemberConfig, MemberInfo};
use antler_core::namespace::State;
use antler_core::time::{Instant, Now, Timestamp};
use std::time::Instant as WallInstant;

const MEMBER: MemberId = MemberId(1);
const ADDRESS: &str = "master-1:9420";

/// The master at work.
pub(super) struct Head {
    process: Process,
    /// When it is to be woken.
    pub(super) wake: Nanos,
    /// Seconds of wall time that it worked, heartbeats apart, and its longest input.
    pub(super) busy: f64,
    pub(super) longest: f64,
}

/// What it began with.
pub(super) struct Begun {
    /// Seconds of wall time to apply all records.
    pub(super) applied: f64,
    /// Seconds to write the image and recover from it.
    pub(super) recovered: f64,
    /// Bytes of the state's tables.
    pub(super) state_bytes: u64,
    /// When it is ready.
    pub(super) ready: Nanos,
}

fn moment(now: Nanos) -> Moment {
    let nanos = i64::try_from(now).expect("a run is short");
    Moment {
        world: now,
        local: Now {
            mono: Instant(now),
            wall: Timestamp {
                seconds: WRITTEN + 86_400 + nanos / 1_000_000_000,
                nanos: (nanos % 1_000_000_000) as u32,
            },
        },
    }
}

impl Head {
    /// Founds the cluster and recovers from that.
    pub(super) fn begin(plan: &ScalePlan) -> (Self, Begun) {
        let clock = WallInstant::now();
        let secret: Vec<u8> = plan.seed.to_le_bytes().repeat(4);
        let state = founding::state_of(plan, &secret);
        let applied = clock.elapsed().as_secs_f64();
        let (disk, founding) = (new_disk(plan.seed), founding_of());
        write_image(&disk, &founding, state);
        let (log, images, recovered) = journal::open(disk.clone(), disk.clone(), &founding)
            .expect("what was just written is there");
        let state_bytes = recovered.state.memory();
        let marks = recovered.marks;
        let mut config = MasterConfig::new(MemberConfig::new(MEMBER, members()), secret);
        config.copies = plan.copies as u8;
        let ready = disk.cursor();
        let machine = Master::new(config, recovered, plan.seed, moment(ready).local);
        let process = MemberProcess::new(MemberMachine::Master(machine), log, images, disk, marks);
        let head = Self {
            process: Process::Member(Box::new(process)),
            wake: ready,
            busy: 0.0,
            longest: 0.0,
        };
        let begun = Begun {
            applied,
            recovered: clock.elapsed().as_secs_f64() - applied,
            state_bytes,
            ready,
        };
        (head, begun)
    }

    /// Gives it an input; what it does is appended.
    pub(super) fn feed(&mut self, now: Nanos, stimulus: Stimulus, acts: &mut Vec<Act>) {
        let clock = WallInstant::now();
        self.feed_unmeasured(now, stimulus, acts);
        let took = clock.elapsed().as_secs_f64();
        self.busy += took;
        self.longest = self.longest.max(took);
    }

    /// The same, for what comes by the million and is short.
    pub(super) fn feed_unmeasured(&mut self, now: Nanos, stimulus: Stimulus, acts: &mut Vec<Act>) {
        self.process.handle(moment(now), stimulus, acts);
        self.wake = self
            .process
            .poll_timeout()
            .map_or(Nanos::MAX, |at| at.0.max(now));
    }

    pub(super) fn master(&self) -> &Master {
        match &self.process {
            Process::Member(process) => match &process.machine {
                MemberMachine::Master(master) => master,
                MemberMachine::Metalogger(_) => unreachable!("it was begun as a master"),
            },
            _ => unreachable!("it was begun as a member"),
        }
    }

    pub(super) fn marks(&mut self) -> antler_core::marks::Marks {
        self.process.marks()
    }

    pub(super) fn digest(&self, digest: &mut antler_core::hash::Digest) {
        self.process.digest(digest);
    }

    pub(super) fn check_invariants(&self, whole: bool) {
        self.process.check_invariants(whole);
    }
}

fn members() -> Vec<MemberInfo> {
    vec![MemberInfo {
        member: MEMBER,
        address: Address::from(ADDRESS),
        voter: true,
    }]
}

fn founding_of() -> Founding {
    Founding::new(ClusterId(1), MEMBER, vec![MEMBER.0], Vec::new())
}

fn new_disk(seed: u64) -> SimDisk {
    let options = DiskOptions {
        capacity: 1 << 40,
        speed: DiskSpeed::FLASH,
    };
    SimDisk::new(options, seed)
}

/// Makes a master's folder in which the log begins behind an image of the state.
fn write_image(disk: &SimDisk, founding: &Founding, state: State) {
    let opened = journal::open(disk.clone(), disk.clone(), founding);
    let (mut log, mut images, _) = opened.expect("an empty disk can be founded");
    let (position, term) = (state.applied(), Term(1));
    let meta = ImageMeta {
        position,
        term,
        voters: founding.voters.clone(),
        learners: Vec::new(),
    };
    let image = images.execute(JournalOperation::WriteImage {
        token: Token(1),
        meta,
        state: Box::new(state),
    });
    let hard = HardState {
        term,
        vote: 0,
        commit: position,
    };
    let restart = log.execute(JournalOperation::Restart {
        token: Token(2),
        position,
        term,
        hard,
    });
    for completion in [image, restart] {
        assert!(
            matches!(completion.result, Ok(JournalReply::Done)),
            "a disk without faults takes it: {:?}",
            completion.result
        );
    }
    // Whoever had it open is gone; what it synced stays.
    disk.settle(disk.cursor());
    disk.kill(disk.cursor());
}
