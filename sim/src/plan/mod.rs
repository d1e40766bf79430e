//! The plan of one run: everything that is drawn from a scenario and a seed
//! before the run begins. It is data: printed first, kept when it fails, shrunk, and run
//! again.

mod documents;
mod programs;
mod sites;
pub mod year;

pub use programs::{FileOperation, Program, Step};
pub(crate) use sites::Place;
pub use sites::{LinkPlan, SitePlan};
pub use year::{Stretch, YearPlan};

use crate::network::{Nanos, NetworkSpeed};
use crate::scenario::expect::Residency;
use crate::scenario::{
    Action, Build, DiskKind, Errors, Expect, Fault, LimitsPlan, Order, Profile, Range, Scenario,
    Trigger, Who, Workload, read_label,
};
use antler_core::machine::Role;
use antler_core::placement::label::{DRAIN, Expression};
use antler_core::rng::Rng;
use serde::{Deserialize, Serialize};

/// A run, drawn.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The seed of the run: also of machines, disks and the network.
    pub seed: u64,
    /// The cluster.
    pub cluster: ClusterPlan,
    /// Its places, if it is told by them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<SitePlan>,
    /// The network's quantities.
    pub network: NetworkPlan,
    /// What lies between two sites, where that differs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<LinkPlan>,
    /// How everything is kept from the beginning, if not as so many copies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StoragePlan>,
    /// The year that is played, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub year: Option<YearPlan>,
    /// The machines' bounds.
    #[serde(default)]
    pub limits: LimitsPlan,
    /// For how long operations are begun.
    pub duration: Nanos,
    /// What each program does.
    pub programs: Vec<Program>,
    /// What goes wrong, in the scenario's order.
    pub faults: Vec<FaultPlan>,
    /// How soon after healing all operations have ended.
    pub finish: Nanos,
    /// How soon after that redundancy is back.
    pub redundancy: Nanos,
    /// Which errors programs may see.
    pub errors: Errors,
    /// What an operator expects of the run's figures.
    #[serde(default, skip_serializing_if = "FiguresPlan::is_empty")]
    pub figures: FiguresPlan,
}

/// The policies of everything, from the beginning.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoragePlan {
    /// At rest.
    pub keep: String,
    /// While it is written, if that differs.
    pub create: Option<String>,
}

/// What is expected of the figures of a run.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FiguresPlan {
    /// Millionths of what programs of each site ask that are answered in time.
    pub available: Option<u64>,
    /// What that is.
    pub within: Nanos,
    /// How soon after a lost disk every chunk has its copies again.
    pub full_redundancy: Option<Nanos>,
    /// What 99 % of the reads and of the writes of each site take at most.
    pub p99: Option<Nanos>,
    /// How much more of its space the fullest chunkserver uses at the end than the emptiest,
    /// in millionths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balanced: Option<u64>,
    /// Where copies may lie, whatever the policies say.
    pub residency: Option<String>,
}

impl FiguresPlan {
    fn draw(expect: &Expect, rng: &mut Rng) -> Self {
        let within = match &expect.residency {
            Some(Residency::Within(place)) => Some(place.to_string()),
            _ => None,
        };
        Self {
            available: expect.available.map(|share| share.0),
            within: expect.within.draw(rng),
            full_redundancy: expect.full_redundancy.map(|most| most.draw(rng)),
            p99: expect.p99.map(|most| most.draw(rng)),
            balanced: expect.balanced.map(|share| share.0),
            residency: within,
        }
    }

    /// Whether the run must be observed for them.
    #[must_use]
    pub fn are_judged(&self) -> bool {
        self.available.is_some() || self.full_redundancy.is_some() || self.p99.is_some()
    }

    fn is_empty(&self) -> bool {
        !self.are_judged() && self.residency.is_none() && self.balanced.is_none()
    }
}

/// The cluster of a run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ClusterPlan {
    /// Voters of the masters' group.
    pub masters: u64,
    /// Learners of it.
    pub metaloggers: u64,
    /// Chunkservers.
    pub chunkservers: u64,
    /// Disks of each.
    pub disks: u64,
    /// Mounts.
    pub clients: u64,
    /// Copies of a chunk.
    pub copies: u64,
    /// Places.
    pub datacentres: u64,
    /// Where all masters are; 0: they are spread too.
    #[serde(default)]
    pub masters_in: u64,
    /// What the disks are.
    pub disk: DiskKind,
    /// Bytes of a chunkserver's disk.
    pub disk_size: u64,
    /// Clocks run fast or slow.
    pub drift: bool,
    /// As which version every node begins.
    #[serde(default)]
    pub version: Build,
    /// Bytes of log after which an image is written.
    pub image_every: u64,
    /// Bytes a second at which disks are scrubbed; 0: not at all.
    #[serde(default, skip_serializing_if = "is_none")]
    pub scrub: u64,
}

fn is_none(number: &u64) -> bool {
    *number == 0
}

impl ClusterPlan {
    /// Where a node is, by its role and its number from 1.
    #[must_use]
    pub fn datacentre_of(&self, role: Role, number: u64) -> u64 {
        let spread = (number - 1) % self.datacentres + 1;
        match (role, self.masters_in) {
            (Role::Master, place @ 1..) => place.min(self.datacentres),
            _ => spread,
        }
    }
}

/// The network of a run: [`NetworkSpeed`] as data.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct NetworkPlan {
    /// One way within a datacentre.
    pub latency: Nanos,
    /// One way between datacentres.
    pub between: Nanos,
    /// At most added to each message.
    pub jitter: Nanos,
    /// Bytes a second of an ordered pair.
    pub bandwidth: u64,
    /// In a thousand messages.
    pub retransmits: u64,
}

impl NetworkPlan {
    /// As the network takes it.
    #[must_use]
    pub fn speed(self) -> NetworkSpeed {
        NetworkSpeed {
            latency: self.latency,
            between: self.between,
            jitter: self.jitter,
            bandwidth: self.bandwidth,
            retransmits: self.retransmits,
        }
    }
}

/// When a fault strikes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum When {
    /// At a time.
    At(Nanos),
    /// When an event has happened so many times and once more.
    On {
        /// Which event.
        trigger: Trigger,
        /// How many pass first.
        skip: u64,
    },
}

/// One fault of a run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct FaultPlan {
    /// When.
    pub when: When,
    /// What.
    pub action: Action,
    /// To whom.
    pub who: Who,
    /// Cut off from whom.
    pub from: Option<Who>,
    /// In one direction only.
    pub one_way: bool,
    /// For how long; for good or until the end without it.
    pub lasts: Option<Nanos>,
    /// How many times as slow.
    pub factor: u64,
    /// How far a clock jumps.
    #[serde(default)]
    pub by: Nanos,
    /// Only the next call fails.
    pub once: bool,
    /// What is settled and can still be read need not have another copy.
    #[serde(default)]
    pub hasty: bool,
    /// Draws the target when it strikes.
    pub pick: u64,
    /// When it is in the year that is played.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<Nanos>,
    /// How long after it an empty disk takes the place of the one that it hit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<Nanos>,
}

impl Plan {
    /// Draws a run of a scenario.
    #[must_use]
    pub fn draw(scenario: &Scenario, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        // What was added later has draws of its own, so that older ones stay as they are.
        let mut apart = Rng::new(seed ^ 0x0011_3175);
        let mut figures = Rng::new(seed ^ 0x0f19_0475);
        let mut places = Rng::new(seed ^ 0x0517_e500);
        let mut cluster = draw_cluster(scenario, &mut rng, &mut apart);
        let mut scrubbing = Rng::new(seed ^ 0x05c2_b000);
        cluster.scrub = scenario.cluster.scrub.draw(&mut scrubbing);
        let sites = scenario.sites.iter();
        let sites: Vec<SitePlan> = sites
            .map(|site| SitePlan::draw(site, &mut places))
            .collect();
        if !sites.is_empty() {
            cluster = sites::sum_up(cluster, scenario, &sites);
        }
        let network = draw_network(scenario, &mut rng);
        let links = scenario.links.iter();
        let links = links.map(|link| LinkPlan::draw(link, &scenario.sites, &mut places));
        let links = links.collect();
        let duration = scenario.workload.duration.draw(&mut rng);
        let (mut program_rng, mut fault_rng) = (rng.fork(), rng.fork());
        let faults = scenario.faults.iter();
        let mut faults: Vec<FaultPlan> = faults
            .flat_map(|fault| draw_fault(fault, &mut fault_rng))
            .collect();
        let finish = scenario.expect.finish.draw(&mut rng);
        let redundancy = scenario.expect.redundancy.draw(&mut rng);
        // Drawn last: a scenario without orders draws what it drew before.
        let mut orders = draw_orders(&scenario.operator, &mut rng);
        let year = draw_year(scenario, &sites, seed, (&mut faults, &mut orders));
        let duration = year.as_ref().map_or(duration, YearPlan::played);
        let profile = scenario.workload.profile.draw(&mut apart);
        let programs = draw_programs(
            (&scenario.workload, profile),
            &cluster,
            duration,
            &mut program_rng,
        );
        let mut plan = Self {
            seed,
            cluster,
            sites,
            network,
            links,
            storage: scenario.storage.as_ref().map(|storage| StoragePlan {
                keep: storage.keep.clone(),
                create: storage.create.clone(),
            }),
            year,
            limits: scenario.limits.draw(&mut apart),
            duration,
            programs,
            faults,
            finish,
            redundancy,
            errors: scenario.expect.errors,
            figures: FiguresPlan::draw(&scenario.expect, &mut figures),
        };
        if !scenario.operator.is_empty() {
            plan.programs.push(operator_of(orders));
        }
        plan
    }

    /// Whether placement is more than so many copies anywhere.
    #[must_use]
    pub fn has_classes(&self) -> bool {
        let mut steps = self.programs.iter().flat_map(|program| &program.steps);
        self.storage.is_some()
            || steps.any(|step| matches!(step.operation, FileOperation::ChangeClass { .. }))
    }

    /// Whether an operator wants to know what the run came to.
    pub(crate) fn has_figures(&self) -> bool {
        self.year.is_some() || self.figures.are_judged()
    }

    /// Where copies may lie, whatever the policies say.
    #[must_use]
    pub(crate) fn within(&self) -> Option<Expression> {
        let place = self.figures.residency.as_ref()?;
        Some(place.parse().expect("a plan was checked to name a place"))
    }

    /// # Errors
    /// When it describes no cluster that could run, as after an edit by hand.
    pub fn check(&self) -> Result<(), String> {
        let cluster = &self.cluster;
        let counts = [
            cluster.masters,
            cluster.disks,
            cluster.clients,
            cluster.copies,
        ];
        if counts.contains(&0) || cluster.datacentres == 0 {
            return Err("a cluster has masters, disks, clients, copies and a place".to_owned());
        }
        if cluster.chunkservers < cluster.copies {
            return Err("there are fewer chunkservers than copies".to_owned());
        }
        if let Some(place) = &self.figures.residency {
            let read: Result<Expression, _> = place.parse();
            read.map_err(|mistake| format!("{place:?}: {mistake}"))?;
        }
        if !self.fits_sites() {
            return Err("the counts of the cluster are not those of its sites".to_owned());
        }
        let mut programs = self.programs.iter();
        match programs.find(|program| program.client >= cluster.clients) {
            Some(program) => Err(format!("there is no client {}", program.client)),
            None => Ok(()),
        }
    }

    /// The options that were drawn, on one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let cluster = &self.cluster;
        let steps: usize = self
            .programs
            .iter()
            .map(|program| program.steps.len())
            .sum();
        let mut line = format!(
            "seed {}: {} masters, {} metaloggers, {} chunkservers with {} disks ({:?}), {} clients, \
             {} copies, {} datacentres, latency {}us/{}us jitter {}us retransmits {}/1000, image \
             every {} KiB, {} programs with {steps} steps in {:.1}s",
            self.seed,
            cluster.masters,
            cluster.metaloggers,
            cluster.chunkservers,
            cluster.disks,
            cluster.disk,
            cluster.clients,
            cluster.copies,
            cluster.datacentres,
            self.network.latency / 1000,
            self.network.between / 1000,
            self.network.jitter / 1000,
            self.network.retransmits,
            cluster.image_every >> 10,
            self.programs.len(),
            self.duration as f64 / 1e9,
        );
        if cluster.version == Build::Previous {
            line.push_str(", begun as the previous version");
        }
        for site in &self.sites {
            line.push_str(&format!("\n  site: {site}"));
        }
        if let Some(storage) = &self.storage {
            line.push_str(&format!("\n  everything kept as {}", storage.keep));
        }
        if let Some(year) = &self.year {
            line.push_str(&format!("\n  {year}"));
        }
        for (name, value) in self.limits.unusual() {
            line.push_str(&format!(", {name} {value}"));
        }
        for fault in &self.faults {
            line.push_str(&format!("\n  fault: {fault}"));
        }
        line
    }
}

impl std::fmt::Display for FaultPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(date) = self.date {
            write!(f, "{}, ", year::shown(date))?;
        }
        match self.when {
            When::At(at) => write!(f, "at {:.3}s ", at as f64 / 1e9)?,
            When::On { trigger, skip } => write!(f, "on {trigger:?} no. {} ", skip + 1)?,
        }
        write!(f, "{} {}", self.action, self.who)?;
        if let Some(from) = self.from {
            let arrow = if self.one_way { "to" } else { "from" };
            write!(f, " {arrow} {from}")?;
        }
        if let Some(replaced) = self.replaced {
            write!(f, ", replaced after {:.3}s", replaced as f64 / 1e9)?;
        }
        match self.lasts {
            Some(lasts) => write!(f, " for {:.3}s", lasts as f64 / 1e9),
            None => Ok(()),
        }
    }
}

impl StoragePlan {
    /// The name of the class that it makes.
    pub const CLASS: &'static str = "everything";

    /// What makes the class and puts everything into it.
    pub(crate) fn program(&self) -> Program {
        let operations = [
            FileOperation::ChangeClass {
                name: Self::CLASS.to_owned(),
                keep: self.keep.clone(),
                create: self.create.clone(),
                archive: None,
            },
            FileOperation::SetClass {
                path: "/".to_owned(),
                class: Self::CLASS.to_owned(),
            },
        ];
        let steps = operations.map(|operation| Step {
            think: 0,
            operation,
        });
        Program {
            client: 0,
            steps: steps.to_vec(),
        }
    }
}

fn draw_cluster(scenario: &Scenario, rng: &mut Rng, apart: &mut Rng) -> ClusterPlan {
    let options = &scenario.cluster;
    ClusterPlan {
        masters: options.masters.draw(rng),
        metaloggers: options.metaloggers.draw(rng),
        chunkservers: options.chunkservers.draw(rng),
        disks: options.disks.draw(rng),
        clients: options.clients.draw(rng),
        copies: options.copies.draw(rng),
        datacentres: options.datacentres.draw(rng),
        masters_in: options.masters_in,
        disk: options.disk.draw(apart),
        disk_size: options.disk_size.draw(rng),
        drift: options.drift,
        version: options.version,
        image_every: options.image_every.draw(rng),
        scrub: 0,
    }
}

fn draw_network(scenario: &Scenario, rng: &mut Rng) -> NetworkPlan {
    let options = &scenario.network;
    NetworkPlan {
        latency: options.latency.draw(rng),
        between: options.between.draw(rng),
        jitter: options.jitter.draw(rng),
        bandwidth: options.bandwidth.draw(rng),
        retransmits: options.retransmits.draw(rng),
    }
}

fn draw_programs(
    (workload, profile): (&Workload, Profile),
    cluster: &ClusterPlan,
    duration: Nanos,
    rng: &mut Rng,
) -> Vec<Program> {
    if profile == Profile::Documents {
        return draw_offices(workload, cluster, duration, rng);
    }
    let shared = workload.shared.draw(rng);
    let file_max = workload.file_max.draw(rng).max(1);
    let write_max = workload.write_max.draw(rng).clamp(1, file_max);
    let mut programs = Vec::new();
    for client in 0..cluster.clients {
        for _ in 0..workload.actors.draw(rng) {
            let options = programs::Options {
                number: programs.len() as u64,
                client,
                profile,
                shared,
                write_max,
                file_max,
                think: workload.think.range,
                duration,
            };
            programs.push(programs::draw(&options, rng.fork()));
        }
    }
    programs
}

/// What the operator does, and when.
fn draw_orders(orders: &[Order], rng: &mut Rng) -> Vec<(Nanos, FileOperation)> {
    let mut timed = Vec::new();
    for order in orders {
        let (at, chance) = (order.at.draw(rng), rng.below(100));
        let server = order.server.map_or(0, |server| server.draw(rng));
        if chance < order.chance.unwrap_or(100) {
            let lasts = order.maintenance.map(|lasts| lasts.draw(rng));
            timed.push((at, operation_of(order, server, lasts)));
        }
    }
    timed.sort_by_key(|(at, _)| *at);
    timed
}

/// The operator, on the first mount, in the order of time.
fn operator_of(timed: Vec<(Nanos, FileOperation)>) -> Program {
    let mut before = 0;
    let steps = timed.into_iter().map(|(at, operation)| {
        let think = at - std::mem::replace(&mut before, at);
        Step { think, operation }
    });
    let steps = steps.collect();
    Program { client: 0, steps }
}

/// The year that is played: its events join the faults, and everything gets the time in
/// the run at which it comes.
fn draw_year(
    scenario: &Scenario,
    sites: &[SitePlan],
    seed: u64,
    (faults, orders): (&mut Vec<FaultPlan>, &mut [(Nanos, FileOperation)]),
) -> Option<YearPlan> {
    let year = scenario.year.as_ref()?;
    let mut rng = Rng::new(seed ^ 0x0365_da75);
    let quiet = year.quiet.draw(&mut rng);
    faults.extend(year::draw_events((year, &scenario.rates), sites, &mut rng));
    let mut times: Vec<Nanos> = orders.iter().map(|(at, _)| *at).collect();
    let plan = year::compress((year.days, quiet), faults, &mut times);
    for ((at, _), time) in orders.iter_mut().zip(times) {
        *at = time;
    }
    Some(plan)
}

fn operation_of(order: &Order, server: u64, lasts: Option<Nanos>) -> FileOperation {
    if let Some(lasts) = lasts {
        return FileOperation::Maintain { server, lasts };
    }
    if let Some(drains) = order.drain {
        let (key, value) = (DRAIN.to_owned(), drains.then(|| "yes".to_owned()));
        return FileOperation::SetLabel { server, key, value };
    }
    if order.raise {
        return FileOperation::RaiseLevel;
    }
    if let (Some(name), Some(keep)) = (&order.class, &order.keep) {
        return FileOperation::ChangeClass {
            name: name.clone(),
            keep: keep.clone(),
            create: order.create.clone(),
            archive: order.archive.clone(),
        };
    }
    if let (Some(class), Some(path)) = (&order.set, &order.path) {
        let (class, path) = (class.clone(), path.clone());
        if let Some(glob) = order.names.clone() {
            return FileOperation::SetPattern { path, glob, class };
        }
        return FileOperation::SetClass { path, class };
    }
    let label = order.label.as_deref().map(read_label);
    let (key, value) = label
        .and_then(Result::ok)
        .expect("an order was checked to say what");
    FileOperation::SetLabel { server, key, value }
}

fn draw_fault(fault: &Fault, rng: &mut Rng) -> Vec<FaultPlan> {
    if rng.below(100) >= fault.chance.unwrap_or(100) {
        return Vec::new();
    }
    let times = fault.times.map_or(1, |times| times.draw(rng));
    let mut at = fault.at.map(|at| at.draw(rng));
    let mut plans = Vec::new();
    for _ in 0..times {
        let when = match (at, fault.on) {
            (Some(at), _) => When::At(at),
            (None, Some(trigger)) => {
                let skip = fault.skip.map_or(0, |skip| skip.draw(rng));
                When::On { trigger, skip }
            }
            (None, None) => unreachable!("a fault was checked to say when"),
        };
        plans.push(FaultPlan {
            when,
            action: fault.action,
            who: fault.who,
            from: fault.from,
            one_way: fault.one_way,
            lasts: fault.duration.map(|lasts| lasts.draw(rng)),
            factor: fault.factor.map_or(20, |factor| factor.draw(rng)),
            by: fault.by.map_or(0, |by| by.draw(rng)),
            once: fault.once,
            hasty: fault.hasty,
            pick: rng.word(),
            date: None,
            replaced: None,
        });
        at = at.map(|at| at + fault.every.map_or(0, |every| every.draw(rng)));
    }
    plans
}

fn draw_offices(
    workload: &Workload,
    cluster: &ClusterPlan,
    duration: Nanos,
    rng: &mut Rng,
) -> Vec<Program> {
    const MINUTE: Nanos = 60_000_000_000;
    let actors = workload.actors.draw(rng).max(1);
    let files = workload.files.draw(rng).div_ceil(actors).max(1);
    let (reads, synced) = (workload.reads.draw(rng), workload.synced.draw(rng));
    let pace = MINUTE * actors / workload.rate.draw(rng).max(1);
    let programs = cluster.clients * actors;
    let numbers = 0..programs;
    let office = |number| documents::Office {
        number,
        client: number / actors,
        programs,
        files,
        size: workload.size.range,
        reads,
        synced,
        pace,
        duration,
        write_max: workload.write_max.range.high.max(1),
    };
    numbers
        .map(|number| documents::draw(&office(number), rng.fork()))
        .collect()
}

/// What programs of a profile mostly do, and between which bounds they wait.
fn is_quick(profile: Profile, think: Range) -> bool {
    profile == Profile::Synced || think.high == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::parse;

    #[test]
    fn the_same_seed_draws_the_same_plan_and_it_survives_as_data() {
        let text = "# shows\n[cluster]\nclients = \"1..3\"\n[[fault]]\ndo = \"kill\"\nwho = \
                    \"master\"\nat = \"1s..2s\"\ntimes = \"2..4\"\nevery = \"1s\"\nfor = \"1s\"\n";
        let scenario = parse("s.toml", text).expect("valid");
        let plan = Plan::draw(&scenario, 7);
        let json = serde_json::to_string(&plan).expect("plain data");
        let again = serde_json::to_string(&Plan::draw(&scenario, 7)).expect("plain data");
        assert_eq!(json, again);
        let read: Plan = serde_json::from_str(&json).expect("what was written");
        assert_eq!(serde_json::to_string(&read).expect("plain data"), json);
        let other = serde_json::to_string(&Plan::draw(&scenario, 8)).expect("plain data");
        assert_ne!(json, other);
        assert!(plan.faults.len() >= 2 && plan.summary().contains("kill"));
    }
}
