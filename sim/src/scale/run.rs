//! One scale run: the master, the servers and the judge, moved from event to event.
//!
//! Heartbeats are no events of the heap: they come round and round at even distances,
//! and their answers are noted at once, as nothing depends on when they arrive but the
//! servers' leases. Invariant: everything that reaches the master has its place in the
//! order of simulated time, and in the digest.

use super::agenda::{Agenda, Event};
use super::fleet::{Fleet, without_term};
use super::founding::{chunk_of, server_id, server_of};
use super::head::Head;
use super::judge::Judge;
use super::report::{Sample, ScaleReport, Walls, resident_peak};
use super::spec::ScalePlan;
use crate::host::Verdict;
use crate::network::Nanos;
use crate::process::{Act, Stimulus};
use antler_core::hash::Digest;
use antler_core::ids::{Incarnation, LinkId};
use antler_core::limits::{HEARTBEAT, SERVE_LEASE};
use antler_core::machine::{Peer, Role};
use antler_core::version::FeatureLevel;
use antler_core::wire::Message;
use antler_core::wire::chunk_master::{ChunkToMaster, Command, CommandResult, MasterToChunk};
use std::collections::BTreeMap;
use std::time::Instant as WallInstant;

/// All servers register within this time.
const JOINING: Nanos = 1_000_000_000;
/// Between two messages of a report.
const REPORTING: Nanos = 1_000_000;
/// Between two looks for the report, while copies are lacking and otherwise.
const SAMPLE_SOON: Nanos = 5_000_000_000;
const SAMPLE_LATE: Nanos = 600_000_000_000;
/// Chunks up to which the machines' own books are checked whole at the end.
const WHOLE_CHECK_MAX: u32 = 1_000_000;

/// How to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScaleOptions {
    /// The servers do not look at checksums, so that the judge has something to find.
    pub blind: bool,
}

/// Runs a plan to its end.
#[must_use]
pub fn run(plan: &ScalePlan, options: ScaleOptions) -> ScaleReport {
    let clock = WallInstant::now();
    let mut run = Run::begin(plan, options);
    let verdict = run.play();
    run.end(verdict, clock.elapsed().as_secs_f64())
}

struct Run {
    plan: ScalePlan,
    now: Nanos,
    head: Head,
    fleet: Fleet,
    judge: Judge,
    agenda: Agenda,
    acts: Vec<Act>,
    /// Who is on a link to the master, and since when it may be heard.
    linked: Vec<bool>,
    /// When each last heard the master.
    heard: Vec<Nanos>,
    unheard_max: Nanos,
    /// The next heartbeat, counted over all servers.
    beat: u64,
    begun: Nanos,
    commands: BTreeMap<u64, u32>,
    stopped: Option<Verdict>,
    samples: Vec<Sample>,
    sample_due: Nanos,
    events: u64,
    beats: u64,
    relinked: u64,
    queue_max: u64,
    digest: Digest,
    walls: Walls,
}

impl Run {
    fn begin(plan: &ScalePlan, options: ScaleOptions) -> Self {
        let (head, begun) = Head::begin(plan);
        let clock = WallInstant::now();
        let servers = usize::from(plan.servers);
        let mut run = Self {
            now: begun.ready,
            head,
            fleet: Fleet::new(plan, options.blind),
            judge: Judge::new(plan),
            agenda: Agenda::default(),
            acts: Vec::new(),
            linked: vec![false; servers],
            heard: vec![begun.ready; servers],
            unheard_max: 0,
            beat: 0,
            begun: begun.ready,
            commands: BTreeMap::new(),
            stopped: None,
            samples: Vec::new(),
            sample_due: 0,
            events: 0,
            beats: 0,
            relinked: 0,
            queue_max: 0,
            digest: Digest::default(),
            walls: Walls {
                applied: begun.applied,
                recovered: begun.recovered,
                state_bytes: begun.state_bytes,
                founded_rss: resident_peak(),
                ..Walls::default()
            },
            plan: plan.clone(),
        };
        run.walls.books = clock.elapsed().as_secs_f64();
        run.schedule();
        run
    }

    fn schedule(&mut self) {
        let servers = u64::from(self.plan.servers);
        for server in 0..self.plan.servers {
            let at = self.begun + JOINING * u64::from(server) / servers;
            self.agenda.put(at, Event::Join(server));
        }
        for (number, loss) in self.plan.losses.iter().enumerate() {
            self.agenda.put(self.begun + loss.at, Event::Loss(number));
        }
        self.sample_at(self.begun + 2 * JOINING);
    }

    /// Nanoseconds since it began.
    fn since(&self, at: Nanos) -> Nanos {
        at - self.begun
    }

    /// When the next heartbeat is due: each server's own, one after the other.
    fn beat_time(&self) -> Nanos {
        let every = u128::from(HEARTBEAT.as_nanos() as u64);
        let at = u128::from(self.beat) * every / u128::from(self.plan.servers);
        self.begun + u64::try_from(at).expect("a run ends")
    }

    fn play(&mut self) -> Verdict {
        let clock = WallInstant::now();
        let end = self.begun + self.plan.duration;
        let mut beat = self.beat_time();
        loop {
            let next = self.agenda.next_time().min(beat).min(self.head.wake);
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if next == beat {
                self.on_beat();
                beat = self.beat_time();
            } else if next == self.head.wake {
                self.feed(Stimulus::Timeout);
            } else if let Some((_, event)) = self.agenda.pop() {
                self.events += 1;
                self.on_event(event);
            }
            if self.stopped.is_some() || self.judge.broken().is_some() {
                break;
            }
        }
        self.walls.played = clock.elapsed().as_secs_f64();
        self.verdict()
    }

    fn on_beat(&mut self) {
        let server = (self.beat % u64::from(self.plan.servers)) as u16;
        self.beat += 1;
        if !self.linked[usize::from(server)] || !self.fleet.is_there(server) {
            return;
        }
        self.beats += 1;
        let alive = ChunkToMaster::Alive {
            disks: self.fleet.disk_statuses(server),
            load: 0,
            sent: self.now,
        };
        let message = Message::ChunkToMaster(alive);
        self.digest.word(self.now).word(u64::from(server));
        let mut acts = std::mem::take(&mut self.acts);
        let stimulus = Stimulus::Message(link_of(server), message);
        self.head.feed_unmeasured(self.now, stimulus, &mut acts);
        self.act(&mut acts);
        self.acts = acts;
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Join(server) => self.join(server),
            Event::Report(server, from) => self.report(server, from),
            Event::Said(server, said) => self.hear(server, *said),
            Event::Command(server, command) => {
                let command = without_term(*command);
                let done = self
                    .fleet
                    .command(self.now, server, command, &mut self.agenda);
                if let Err(how) = done {
                    self.stopped = Some(Verdict::Broken(format!("commands: {how}")));
                }
            }
            Event::Arrived { flow, pace } => {
                self.fleet
                    .on_arrived(self.now, flow, pace, &mut self.agenda);
            }
            Event::GoOn { job, attempt, step } => {
                self.fleet
                    .go_on(self.now, job, attempt, step, &mut self.agenda);
            }
            Event::Stored(number) => self.feed(Stimulus::Due(number)),
            Event::Loss(number) => self.lose(number),
            Event::Sample => self.sample(),
        }
        self.judge_deeds();
    }

    fn judge_deeds(&mut self) {
        for deed in self.fleet.take_deeds() {
            self.judge.on_deed(self.now, deed);
        }
    }

    fn feed(&mut self, stimulus: Stimulus) {
        let mut acts = std::mem::take(&mut self.acts);
        self.digest.word(self.now);
        self.head.feed(self.now, stimulus, &mut acts);
        self.act(&mut acts);
        self.acts = acts;
    }

    /// Carries out what the master does.
    fn act(&mut self, acts: &mut Vec<Act>) {
        for act in acts.drain(..) {
            match act {
                Act::Send(link, Message::MasterToChunk(message)) => {
                    self.deliver(server_on(link), message);
                }
                Act::Close(link) => self.on_closed(server_on(link)),
                Act::Later(at, number) => self.agenda.put(at, Event::Stored(number)),
                Act::Stop { reason, .. } => {
                    self.stopped = Some(Verdict::Stuck(format!("the master stopped: {reason}")));
                }
                _ => {}
            }
        }
    }

    fn deliver(&mut self, server: u16, message: MasterToChunk) {
        match message {
            MasterToChunk::Heard { leader, .. } => {
                let heard = &mut self.heard[usize::from(server)];
                if leader {
                    self.unheard_max = self.unheard_max.max(self.now - *heard);
                    *heard = self.now;
                }
            }
            MasterToChunk::Refused { reason } => {
                self.stopped = Some(Verdict::Broken(format!("registration: {reason}")));
            }
            MasterToChunk::Command {
                command,
                term,
                body,
            } => {
                if let Command::Replicate { part, sources, .. } = &body
                    && let Some(chunk) = chunk_of(part.chunk, &self.plan)
                    && let Some(source) = sources.first()
                {
                    self.commands.insert(command, chunk);
                    let source = server_of(source.server);
                    self.judge.on_begun(self.now, chunk, source, server);
                }
                let event = Event::Command(server, Box::new((command, term, body)));
                self.agenda.put(self.now + self.plan.latency, event);
            }
        }
    }

    /// The master ended a link. A server that is there comes again.
    fn on_closed(&mut self, server: u16) {
        self.linked[usize::from(server)] = false;
        self.judge.on_server_noticed(self.now, server);
        if self.fleet.is_there(server) {
            self.relinked += 1;
            self.agenda.put(self.now + JOINING, Event::Join(server));
        }
    }

    fn join(&mut self, server: u16) {
        if !self.fleet.is_there(server) {
            return;
        }
        self.linked[usize::from(server)] = true;
        self.heard[usize::from(server)] = self.now;
        let peer = Peer {
            role: Role::ChunkServer,
            id: server_id(server).0,
            boot: self.fleet.boot(server),
            incarnation: Incarnation(0),
            speaks: FeatureLevel::NEWEST,
        };
        self.feed(Stimulus::Accepted(link_of(server), peer));
        let register = self.fleet.register(server);
        self.hear(server, register);
        self.agenda
            .put(self.now + REPORTING, Event::Report(server, 0));
    }

    fn report(&mut self, server: u16, from: usize) {
        if !self.linked[usize::from(server)] || !self.fleet.is_there(server) {
            return;
        }
        let clock = WallInstant::now();
        let (report, next) = self.fleet.report(server, from);
        let is_last = matches!(report, ChunkToMaster::Report { last: true, .. });
        self.hear(server, report);
        if !is_last {
            self.agenda
                .put(self.now + REPORTING, Event::Report(server, next));
        }
        self.walls.reports += clock.elapsed().as_secs_f64();
    }

    fn hear(&mut self, server: u16, said: ChunkToMaster) {
        if !self.linked[usize::from(server)] {
            return;
        }
        if let ChunkToMaster::CommandDone { command, result } = &said {
            let failed = matches!(result, CommandResult::Failed { .. });
            self.digest.word(*command).word(u64::from(failed));
            if let Some(chunk) = self.commands.remove(command) {
                self.judge.on_ended(self.now, chunk);
            }
        }
        self.digest.word(u64::from(server));
        let message = Message::ChunkToMaster(said);
        self.feed(Stimulus::Message(link_of(server), message));
    }

    fn lose(&mut self, number: usize) {
        let loss = self.plan.losses[number].clone();
        self.judge.on_servers_lost(self.now, &loss.servers);
        for &server in &loss.servers {
            self.fleet.lose_server(self.now, server, &mut self.agenda);
        }
        for &disk in &loss.disks {
            self.fleet.lose_disk(self.now, disk, &mut self.agenda);
        }
        self.judge_deeds();
        self.take_sample();
        self.sample_at(self.now + SAMPLE_SOON);
    }

    fn sample(&mut self) {
        if self.now != self.sample_due {
            return;
        }
        self.take_sample();
        self.judge_deadline();
        let deadline = self.deadline();
        let late = match self.now < deadline {
            true => (self.now + SAMPLE_LATE).min(deadline),
            false => self.now + SAMPLE_LATE,
        };
        match self.judge.lacking() {
            0 => self.sample_at(late),
            _ => self.sample_at(self.now + SAMPLE_SOON),
        }
    }

    fn sample_at(&mut self, at: Nanos) {
        self.sample_due = at;
        self.agenda.put(at, Event::Sample);
    }

    /// When redundancy must be back.
    fn deadline(&self) -> Nanos {
        let last = self.plan.losses.last().map_or(0, |loss| loss.at);
        self.begun + last + self.plan.redundancy
    }

    fn judge_deadline(&mut self) {
        let late = self.now >= self.deadline();
        if late && let Some(example) = self.judge.an_example() {
            self.stopped = Some(Verdict::Stuck(format!(
                "redundancy: {} chunks lack copies {} s after the last loss: {example}",
                self.judge.lacking(),
                self.plan.redundancy / 1_000_000_000
            )));
        }
    }

    fn take_sample(&mut self) {
        let (missing, one_left, under) = self.judge.counts();
        let (health, _) = self.head.master().health();
        self.queue_max = self.queue_max.max(health.endangered + health.under_goal);
        self.samples.push(Sample {
            at: self.since(self.now),
            missing,
            one_left,
            under,
            made: self.judge.made,
            running: self.fleet.under_way() as u64,
        });
    }

    fn verdict(&mut self) -> Verdict {
        if let Some((promise, how)) = self.judge.broken() {
            return Verdict::Broken(format!("{promise}: {how}"));
        }
        if let Some(verdict) = self.stopped.take() {
            return verdict;
        }
        self.judge.check_invariants();
        self.head
            .check_invariants(self.plan.chunks <= WHOLE_CHECK_MAX);
        if let Some(example) = self.judge.an_example() {
            return Verdict::Stuck(format!(
                "redundancy: {} chunks lack copies at the end: {example}",
                self.judge.lacking()
            ));
        }
        let lease = SERVE_LEASE.as_nanos() as u64;
        if self.unheard_max > lease {
            let seconds = self.unheard_max as f64 / 1e9;
            return Verdict::Broken(format!(
                "leases of servers: one went without the master for {seconds:.1} s"
            ));
        }
        self.judge_health()
    }

    /// The master must think of the chunks what the judge knows.
    fn judge_health(&self) -> Verdict {
        let (health, _) = self.head.master().health();
        let (lost, ..) = self.judge.counts();
        let chunks = u64::from(self.plan.chunks);
        match (health.missing, health.at_goal) == (lost, chunks - lost) {
            true => Verdict::Passed,
            false => Verdict::Broken(format!(
                "health: of {chunks} chunks {lost} are lost and the others are whole, but the \
                 master tells {health:?}"
            )),
        }
    }

    fn end(mut self, verdict: Verdict, seconds: f64) -> ScaleReport {
        self.take_sample();
        self.walls.whole = seconds;
        self.walls.busy = self.head.busy;
        self.walls.longest = self.head.longest;
        self.walls.peak_rss = resident_peak();
        self.head.digest(&mut self.digest);
        self.fleet.digest(&mut self.digest);
        self.digest.word(self.judge.digest.finish());
        let counting = self.plan.losses.iter().flat_map(|loss| &loss.servers);
        let mut gone = vec![false; usize::from(self.plan.servers)];
        for server in counting {
            gone[usize::from(*server)] = true;
        }
        let alive = |counts: &[u32]| -> Vec<u32> {
            let both = counts.iter().zip(&gone);
            both.filter(|(_, gone)| !**gone)
                .map(|(count, _)| *count)
                .collect()
        };
        ScaleReport {
            verdict,
            virtual_nanos: self.now - self.begun,
            digest: self.digest.finish(),
            events: self.events,
            beats: self.beats,
            relinked: self.relinked,
            unheard_max: self.unheard_max,
            queue_max: self.queue_max,
            made_on: alive(&self.judge.made_on),
            read_from: alive(&self.judge.read_from),
            whole_at: self.judge.whole_at.map(|at| self.since(at)),
            lost: self.judge.counts().0,
            lacking_max: self.judge.lacking_max,
            made: self.judge.made,
            deleted: self.judge.deleted,
            failed: self.judge.failed,
            found_bad: self.judge.found_bad,
            rot_met: self.fleet.rot_met,
            units: self.judge.units,
            crowded: self.judge.crowded,
            orders: self.judge.orders,
            load_max: self.judge.load_max,
            lacked: self.judge.lacked.clone(),
            endangered: self.judge.endangered.clone(),
            marks: self.head.marks(),
            samples: self.samples,
            walls: self.walls,
            plan: self.plan,
        }
    }
}

/// The master's links to servers have even numbers: they were accepted.
fn link_of(server: u16) -> LinkId {
    LinkId(2 * (u64::from(server) + 1))
}

fn server_on(link: LinkId) -> u16 {
    u16::try_from(link.0 / 2 - 1).expect("a link of a server")
}
