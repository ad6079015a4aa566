//! One run: a stack, its faults, and the real reconciler in virtual time.
//!
//! A queue of what happens next, one thing at a time; nothing is concurrent and nothing is random
//! but by the seed. An effect of an invocation arrives at its service after a while, and its answer
//! arrives after another while; each of the two can be lost, late, doubled or wrong, and the
//! invocation can die in between.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use fastrand::Rng;
use fleet::memory::Memory;
use fleet::release::{BalancerSpec, Credits, InstanceSpec, Market, Release, SubnetSpec};
use fleet::{DesiredCount, Profile, WorkerId};
use jiff::Timestamp;
use planner::effect::{Effect, Event, Knocking};
use planner::invocation::Invocation;
use planner::observation::{Probe, Role, Target};

use crate::clock::{HOUR, MINUTE, Millis, SECOND, millis, timestamp};
use crate::course::Course;
use crate::ec2::Ec2;
use crate::fault::{Faults, Kind};
use crate::ledger::Checks;
use crate::machine::{Boot, subnet_name, zone_name};
use crate::s3::S3;
use crate::scenario::{Scenario, Single};

/// Lambda cuts the function after this.
const CUT: Millis = 55 * SECOND;

pub struct World {
    pub now: Millis,
    pub scenario: Scenario,
    pub rng: Rng,
    pub faults: Faults,
    pub ec2: Ec2,
    pub s3: S3,
    pub weather: Weather,
    pub checks: Checks,
    pub stats: Stats,
    pub invocations: Vec<Option<Running>>,
    queue: BinaryHeap<Reverse<(Millis, u64, Happening)>>,
    sequence: u64,
    trace: Trace,
    /// Releases that never serve.
    pub bad_releases: Vec<String>,
    pub deployments: u32,
    /// What became of a single fault.
    pub course: Course,
    /// The effect that arrives now was given up by its sender.
    pub is_late: bool,
    /// When the memory was written that intends it.
    pub intended: Millis,
    /// The highest revision of a registry that load balancers have read, by their indices.
    pub readers: HashMap<usize, u64>,
}

/// Conditions that last for a while.
#[derive(Clone, Debug, Default)]
pub struct Weather {
    /// Raised with each storm and each calm: faults planned in an earlier storm do not happen.
    pub storm: u64,
    pub is_storm: bool,
    pub cut_all_until: Millis,
    pub cut_zone_until: Vec<Millis>,
    pub cut_machine: Option<(usize, Millis)>,
    pub s3_out_until: Millis,
    /// Until when no instance that is launched ever says a word.
    pub dead_until: Millis,
    /// Until when the load is too much for fewer than so many workers.
    pub overload: Option<(Millis, usize)>,
}

#[derive(Clone, Debug, Default)]
pub struct Stats {
    pub ticks: u64,
    pub invocations: u64,
    pub launches: u64,
    pub terminations: u64,
    pub moves: u64,
    /// From the end of a storm to full capacity, in milliseconds.
    pub recoveries: Vec<Millis>,
    pub slow_recoveries: u32,
}

/// An invocation under way.
pub struct Running {
    pub machine: Invocation,
    /// How far its clock is ahead.
    skew: Millis,
    /// How many times slower than usual everything is.
    slowness: i64,
    /// Its last survey learned too little, so that it must do nothing.
    pub is_blind: bool,
    /// The last round of probes.
    pub round: Round,
    pub surveyed: Millis,
    /// Whom EC2 showed, until it is in a memory that was written.
    pub shown: Vec<usize>,
    /// Whom EC2 showed as terminated.
    pub shown_dead: Vec<WorkerId>,
    /// Zones that EC2 answered for in this tick, where it did not list all instances.
    pub reachable: Option<Vec<usize>>,
    /// Launches that were sent and not answered.
    pub launches_in_flight: usize,
    /// Launches were sent since memory was written.
    pub has_launched: bool,
    /// The memory it works from.
    pub read: Option<Arc<Memory>>,
    /// The memory it wrote last, as the bucket has it.
    pub committed: Option<Arc<Memory>>,
    pub committed_at: Millis,
}

#[derive(Default)]
pub struct Round {
    targets: Vec<(Target, usize)>,
    knocking: Option<Knocking>,
    made: u32,
    heard: Vec<Option<Probe>>,
    pub results: Vec<(usize, Probe)>,
    /// The results, until they are in a memory that was written; of a single try only answers count.
    pub noted: Vec<(usize, Probe, Millis)>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Minute,
    /// The schedule's event, of the minute that began then.
    Invoke(Millis),
    Arrive(usize, Box<Parcel>),
    /// A request whose sender has given up waiting: the answer is lost.
    ArriveLate(usize, Box<Parcel>),
    Answer(usize, Box<Parcel>),
    Knock(usize),
    Cut(usize),
    /// In which storm it was planned, and what.
    Strike(u64, Kind),
    Single(Single),
    StormBegins,
    StormEnds,
    CalmEnds,
}

/// An effect or its answer on the way. The queue orders by time alone.
pub struct Parcel {
    effect: Option<Effect>,
    event: Option<Event>,
    intended: Millis,
}

impl PartialEq for Parcel {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Parcel {}
impl PartialOrd for Parcel {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Parcel {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

/// A hash over all that happened, and the story in words if it is wanted.
pub struct Trace {
    pub hash: u64,
    is_told: bool,
}

impl Trace {
    fn mix(&mut self, value: u64) {
        self.hash = (self.hash.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn mix_text(&mut self, text: &str) {
        for chunk in text.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }
}

impl World {
    pub fn new(scenario: Scenario, faults: Faults, is_told: bool) -> Self {
        let mut rng = Rng::with_seed(scenario.seed);
        let mut release = release(1, 1, scenario.zones);
        release.rollout = scenario.rollout;
        release.policy = scenario.policy.clone();
        let release = Arc::new(release);
        let mut ec2 = Ec2::new(scenario.zones);
        ec2.counts_leaving = scenario.counts_leaving;
        ec2.unverified_until = scenario.verified_from;
        let holder = balancer(&release);
        let tags = (None, Some(1), holder.as_str());
        let boot = Boot { pending: 0, network: 0, serves: Some(0), ailment: None };
        let index = ec2.add(Role::LoadBalancer, 0, tags, "deployed".to_owned(), 0, boot);
        ec2.holder = Some(index);
        let desired = DesiredCount::try_from(scenario.workers).expect("within bounds");
        let mut world = Self {
            now: 0,
            rng: rng.fork(),
            faults,
            ec2,
            s3: S3::new(desired, release),
            weather: Weather { cut_zone_until: vec![0; scenario.zones], ..Weather::default() },
            checks: Checks::default(),
            stats: Stats::default(),
            invocations: Vec::new(),
            queue: BinaryHeap::new(),
            sequence: 0,
            trace: Trace { hash: scenario.seed, is_told },
            bad_releases: Vec::new(),
            deployments: 1,
            course: Course::default(),
            is_late: false,
            intended: 0,
            readers: HashMap::new(),
            scenario,
        };
        world.at(0, Happening::Minute);
        if let Some(first) = world.scenario.first_storm {
            world.at(first, Happening::StormBegins);
        }
        if let Some((at, single)) = world.scenario.single {
            world.at(at, Happening::Single(single));
        }
        world
    }

    /// Runs to the end, or to the first violation.
    pub fn run(&mut self) {
        while self.checks.violation.is_none()
            && let Some(Reverse((at, _, happening))) = self.queue.pop()
        {
            if at > self.scenario.length {
                break;
            }
            self.now = at;
            self.happen(happening);
        }
    }

    pub fn hash(&self) -> u64 {
        self.trace.hash
    }

    fn at(&mut self, at: Millis, happening: Happening) {
        self.sequence += 1;
        self.queue.push(Reverse((at, self.sequence, happening)));
    }

    fn happen(&mut self, happening: Happening) {
        #[expect(clippy::cast_sign_loss, reason = "time is positive")]
        self.trace.mix(self.now as u64);
        match happening {
            Happening::Minute => self.minute(),
            Happening::Invoke(scheduled) => self.invoke(scheduled),
            Happening::Arrive(number, parcel) => {
                if let Some(effect) = parcel.effect {
                    self.intended = parcel.intended;
                    self.arrive(number, effect);
                }
            }
            Happening::ArriveLate(number, parcel) => {
                if let Some(effect) = parcel.effect {
                    self.intended = parcel.intended;
                    self.is_late = true;
                    self.arrive(number, effect);
                    self.is_late = false;
                }
            }
            Happening::Answer(number, parcel) => {
                if let Some(event) = parcel.event {
                    self.answer(number, event);
                }
            }
            Happening::Knock(number) => self.knock(number),
            Happening::Cut(number) => {
                if self.invocations[number].is_some() {
                    self.tell(|| format!("invocation {number} is cut by its time-out"));
                    self.invocations[number] = None;
                }
            }
            Happening::Strike(storm, kind) => {
                if storm == self.weather.storm {
                    if self.faults.happens(kind) {
                        self.tell(|| format!("FAULT {kind}"));
                        self.strike(kind);
                    }
                    self.plan_next(kind);
                }
            }
            Happening::Single(single) => self.begin_single(single),
            Happening::StormBegins => self.begin_storm(),
            Happening::StormEnds => self.end_storm(),
            Happening::CalmEnds => self.check_rest(),
        }
    }

    // --- Weather ----------------------------------------------------------------------------------

    fn begin_storm(&mut self) {
        self.weather.storm += 1;
        self.weather.is_storm = true;
        let mut rng = self.rng.fork();
        self.faults.storm(&mut rng);
        if self.scenario.has_outages {
            self.faults.insist(Kind::LongOutage, 6.0);
        }
        let length = self.rng.i64(5..60) * MINUTE;
        self.tell(|| format!("STORM for {} min", length / MINUTE));
        for (kind, after) in self.faults.next_events() {
            self.at(self.now + after, Happening::Strike(self.weather.storm, kind));
        }
        self.at(self.now + length, Happening::StormEnds);
    }

    fn plan_next(&mut self, kind: Kind) {
        if let Some(after) = self.faults.next_event(kind) {
            self.at(self.now + after, Happening::Strike(self.weather.storm, kind));
        }
    }

    fn end_storm(&mut self) {
        self.tell(|| "CALM".to_owned());
        self.weather.storm += 1;
        self.weather.is_storm = false;
        self.faults.calm();
        self.clear_up();
        // If no worker is left, the first launch may wait for half an hour. The dead count as a dark zone
        // for a quarter of an hour after that, and then go one a minute.
        let is_anybody_up = self.ec2.live(Role::Worker).any(|(_, machine)| machine.is_up(self.now));
        let longer = if is_anybody_up { 0 } else { 30 * MINUTE };
        let deadline = self.now + self.scenario.calm + longer;
        self.checks.begin_calm(self.now, &self.s3, &self.ec2, self.scenario.is_tight);
        self.at(deadline, Happening::CalmEnds);
        self.at(deadline, Happening::StormBegins);
    }

    // --- Invocations ------------------------------------------------------------------------------

    fn minute(&mut self) {
        let scheduled = self.now;
        self.at(self.now + MINUTE, Happening::Minute);
        if self.faults.strikes(Kind::InvocationMissed) {
            return self.tell(|| "FAULT invocation missed".to_owned());
        }
        // EventBridge keeps its minute, give or take some seconds.
        let delay = self.rng.i64(200..2_000);
        let late = if self.faults.strikes(Kind::InvocationLate) {
            self.faults.rng(Kind::InvocationLate).i64(1..70) * SECOND
        } else {
            0
        };
        self.at(self.now + delay + late, Happening::Invoke(scheduled));
        if self.faults.strikes(Kind::InvocationTwice) {
            let after = self.faults.rng(Kind::InvocationTwice).i64(0..60_000);
            self.at(self.now + after, Happening::Invoke(scheduled));
        }
    }

    fn invoke(&mut self, scheduled: Millis) {
        let number = self.invocations.len();
        let skew = if self.faults.strikes(Kind::ClockSkew) {
            self.faults.rng(Kind::ClockSkew).i64(-30_000..30_000)
        } else {
            self.rng.i64(-50..50)
        };
        let slowness = if self.faults.strikes(Kind::InvocationSlow) {
            self.faults.rng(Kind::InvocationSlow).i64(3..40)
        } else {
            1
        };
        let local = timestamp(self.now + skew);
        let (machine, effects) = Invocation::start(timestamp(scheduled), format!("n{number}"), local);
        self.stats.invocations += 1;
        self.invocations.push(Some(Running {
            machine,
            skew,
            slowness,
            is_blind: false,
            round: Round::default(),
            surveyed: self.now,
            shown: Vec::new(),
            shown_dead: Vec::new(),
            reachable: None,
            launches_in_flight: 0,
            has_launched: false,
            read: None,
            committed: None,
            committed_at: 0,
        }));
        self.tell(|| format!("invocation {number} begins (skew {skew} ms, slowness {slowness})"));
        self.at(self.now + CUT, Happening::Cut(number));
        self.issue(number, effects);
    }

    /// Sends effects on their way.
    fn issue(&mut self, number: usize, effects: Vec<Effect>) {
        for effect in effects {
            if self.faults.strikes(Kind::InvocationKilled) {
                self.tell(|| format!("FAULT invocation {number} is killed"));
                self.retire(number);
                return;
            }
            let Some(running) = self.invocations[number].as_ref() else { return };
            let intended = running.committed_at;
            if let Effect::Sleep { until } = effect {
                let until = until.as_millisecond() - timestamp(0).as_millisecond() - running.skew;
                self.answer_at(number, until.max(self.now + 1), Event::Woke);
                continue;
            }
            let way = self.rng.i64(2..20) * running.slowness;
            if let Effect::WriteMemory { memory, .. } = &effect {
                self.keep_notes(number, memory);
            }
            self.check_issue(number, &effect);
            if effect == Effect::Survey {
                let now = self.now;
                running_mut(&mut self.invocations, number, |running| running.surveyed = now);
            }
            if self.checks.violation.is_some() {
                return;
            }
            let parcel = Parcel { effect: Some(effect), event: None, intended };
            self.at(self.now + way, Happening::Arrive(number, Box::new(parcel)));
        }
    }

    fn answer(&mut self, number: usize, event: Event) {
        let Some(running) = self.invocations[number].as_mut() else { return };
        if matches!(event, Event::Launched { .. }) {
            running.launches_in_flight = running.launches_in_flight.saturating_sub(1);
        }
        let local = timestamp(self.now + running.skew);
        let effects = running.machine.step(event, local);
        let is_done = running.machine.is_done();
        self.trace.mix(effects.len() as u64);
        if is_done {
            self.retire(number);
        } else {
            self.issue(number, effects);
        }
    }

    fn retire(&mut self, number: usize) {
        if let Some(running) = self.invocations[number].take() {
            self.stats.ticks += u64::from(running.machine.report().ticks);
        }
    }

    pub fn answer_at(&mut self, number: usize, at: Millis, event: Event) {
        if self.is_late {
            return;
        }
        let parcel = Parcel { effect: None, event: Some(event), intended: self.intended };
        self.at(at, Happening::Answer(number, Box::new(parcel)));
    }

    /// The way back takes this long.
    pub fn way_back(&mut self, number: usize) -> Millis {
        let slowness = self.invocations[number].as_ref().map_or(1, |running| running.slowness);
        self.now + self.rng.i64(2..40) * slowness
    }

    pub fn arrive_late(&mut self, number: usize, at: Millis, effect: Effect) {
        let parcel = Parcel { effect: Some(effect), event: None, intended: self.intended };
        self.at(at, Happening::ArriveLate(number, Box::new(parcel)));
    }

    // --- Probes -----------------------------------------------------------------------------------

    pub fn begin_round(&mut self, number: usize, targets: Vec<Target>, knocking: Knocking) {
        let targets: Vec<(Target, usize)> = targets
            .into_iter()
            .filter_map(|target| self.ec2.find(&target.id).map(|index| (target, index)))
            .collect();
        if let Some(running) = self.invocations[number].as_mut() {
            let heard = vec![None; targets.len()];
            let knocking = Some(knocking);
            running.round =
                Round { targets, knocking, made: 0, heard, results: Vec::new(), noted: Vec::new() };
            self.knock(number);
        }
    }

    /// One try, of all that have not answered yet.
    fn knock(&mut self, number: usize) {
        let Some(running) = self.invocations[number].as_mut() else { return };
        let mut round = std::mem::take(&mut running.round);
        let Some(knocking) = round.knocking else { return };
        let skew = running.skew;
        let mut is_anybody_silent = false;
        for n in 0..round.targets.len() {
            if round.heard[n] == Some(Probe::Answered) {
                continue;
            }
            let heard = self.hear(round.targets[n].1);
            is_anybody_silent |= heard == Probe::Silent;
            // One silent try makes the round silent.
            round.heard[n] = Some(match (round.heard[n], heard) {
                (_, Probe::Answered) => Probe::Answered,
                (Some(Probe::Silent), _) | (_, Probe::Silent) => Probe::Silent,
                (_, Probe::Refused) => Probe::Refused,
            });
        }
        round.made += 1;
        let is_over =
            round.made >= knocking.tries || round.heard.iter().all(|heard| *heard == Some(Probe::Answered));
        if is_over {
            let after = if is_anybody_silent { millis(knocking.timeout) } else { 5 };
            round.results = round
                .targets
                .iter()
                .zip(&round.heard)
                .map(|((_, index), heard)| (*index, heard.unwrap_or(Probe::Silent)))
                .collect();
            let told: Vec<(WorkerId, Probe)> = round
                .targets
                .iter()
                .zip(&round.results)
                .map(|((target, _), (_, probe))| (target.id.clone(), *probe))
                .collect();
            let answered = told.iter().zip(&round.results).filter(|((_, p), _)| *p == Probe::Answered);
            let started: Vec<(WorkerId, Timestamp)> = answered
                .filter_map(|((id, _), (index, _))| Some((id.clone(), self.started(*index, skew)?)))
                .collect();
            let is_single = knocking.tries == 1;
            let results = round.results.iter().filter(|(_, probe)| !is_single || *probe == Probe::Answered);
            round.noted = results.map(|(index, probe)| (*index, *probe, self.now)).collect();
            if let Some(running) = self.invocations[number].as_mut() {
                running.round = round;
            }
            self.answer_at(number, self.now + after, Event::Probed { probes: told, started });
        } else {
            running_mut(&mut self.invocations, number, |running| running.round = round);
            self.at(self.now + millis(knocking.spacing), Happening::Knock(number));
        }
    }

    /// What one knock hears, network included.
    fn hear(&mut self, index: usize) -> Probe {
        let machine = &self.ec2.machines[index];
        let weather = &self.weather;
        let is_cut = self.now < weather.cut_all_until
            || self.now < weather.cut_zone_until[machine.zone]
            || weather.cut_machine.is_some_and(|(cut, until)| cut == index && self.now < until)
            || self.ec2.is_out(machine.zone, self.now);
        if is_cut || self.faults.strikes(Kind::PacketLost) {
            return Probe::Silent;
        }
        let heard = machine.knock(self.now);
        if heard == Probe::Answered
            && machine.row.role == Role::Worker
            && self.is_overloaded()
            && self.rng.u8(..) < 180
        {
            return Probe::Silent;
        }
        heard
    }

    /// When a program started, by the prober's clock: the answer has an uptime in whole seconds.
    fn started(&self, index: usize, skew: Millis) -> Option<Timestamp> {
        let start = self.ec2.machines[index].starts(self.now).next()?;
        let uptime = (self.now - start) / SECOND * SECOND;
        Some(timestamp(self.now + skew - uptime))
    }

    fn is_overloaded(&self) -> bool {
        self.weather.overload.is_some_and(|(until, needed)| {
            self.now < until
                && self.ec2.live(Role::Worker).filter(|(_, m)| m.is_up(self.now)).count() < needed
        })
    }

    /// Load balancers that serve look every two seconds, and ignore a revision that is lower than theirs.
    pub fn read_registry(&mut self) {
        let Some(revision) = self.s3.registry().map(|registry| registry.revision) else { return };
        let serving = self.ec2.live(Role::LoadBalancer).filter(|(_, machine)| machine.is_up(self.now));
        for index in serving.map(|(index, _)| index).collect::<Vec<_>>() {
            let held = self.readers.entry(index).or_default();
            *held = (*held).max(revision);
        }
    }

    // --- The story --------------------------------------------------------------------------------

    pub fn tell(&self, what: impl FnOnce() -> String) {
        if self.trace.is_told {
            let seconds = self.now / SECOND;
            let (hours, minutes) = (self.now / HOUR, self.now / MINUTE % 60);
            let line =
                format!("{hours:02}:{minutes:02}:{:02}.{:03}  {}", seconds % 60, self.now % SECOND, what());
            crate::output::story(&line);
        }
    }

    /// What a memory says that the one before did not.
    pub fn tell_news(&self, number: usize, memory: &Memory) {
        let before = self.invocations[number].as_ref().and_then(|running| running.read.as_ref());
        let last = before.and_then(|before| before.events.last());
        let news = memory.events.iter().rev().take_while(|event| Some(*event) != last).count();
        for event in &memory.events[memory.events.len() - news..] {
            self.tell(|| format!("  {number}: {}", event.text));
        }
        for held in memory.held.iter().filter(|held| before.is_none_or(|before| !before.held.contains(held)))
        {
            self.tell(|| format!("  {number}: held back: {held}"));
        }
    }

    pub fn mix(&mut self, text: &str) {
        self.trace.mix_text(text);
    }

    pub fn mix_number(&mut self, number: u64) {
        self.trace.mix(number);
    }
}

fn running_mut(invocations: &mut [Option<Running>], number: usize, change: impl FnOnce(&mut Running)) {
    if let Some(running) = invocations[number].as_mut() {
        change(running);
    }
}

/// The n-th release that was deployed, with a definition of the load balancer that may be older.
pub fn release(number: u32, balancer: u32, zones: usize) -> Release {
    let subnets: Vec<SubnetSpec> = (0..zones)
        .map(|zone| SubnetSpec { id: subnet_name(zone).to_owned(), zone: zone_name(zone).to_owned() })
        .collect();
    let spec = |what: &str| InstanceSpec {
        ami: format!("ami-{what}"),
        instance_type: TYPES[number as usize % TYPES.len()].to_owned(),
        security_group: "sg-1".to_owned(),
        instance_profile: what.to_owned(),
        subnets: subnets.clone(),
        user_data: String::new(),
        market: Market::OnDemand,
        credits: Credits::Standard,
    };
    let stack = "sim".parse().expect("a name");
    let mut release =
        Release::new(stack, Profile::Secure, number.to_string(), spec(&format!("worker-{number}")));
    let instance = spec(&format!("lb-{balancer}"));
    release.balancer = Some(BalancerSpec {
        more_allocations: Vec::new(),
        id: format!("{BALANCER}{balancer}"),
        allocation: crate::ec2::ALLOCATION.to_owned(),
        instance,
    });
    release
}

/// Each deployment takes another type: EC2 may refuse the first and grant the next.
const TYPES: [&str; 3] = ["t4g.nano", "t4g.micro", "t4g.small"];

/// How the ids of definitions of the load balancer begin; the number follows.
pub const BALANCER: &str = "balancer-";

pub fn balancer(release: &Release) -> String {
    release.balancer.as_ref().expect("there is one").id.clone()
}
