//! A clean fault and no other: how long until it is noticed, acted upon, and repaired.

use fleet::memory::{Memory, Phase};
use planner::observation::{Role, State};

use crate::clock::{MINUTE, Millis, NEVER};
use crate::machine::{Ailment, Boot};
use crate::report::{line, quantiles};
use crate::run::run_seed;
use crate::scenario::{Scenario, Single};
use crate::world::World;

/// How long the prober hears no instance.
const BROKEN: Millis = 120 * MINUTE;

/// What became of a single fault; times in milliseconds since the beginning of the run.
#[derive(Clone, Debug, Default)]
pub struct Course {
    struck: Option<Millis>,
    victim: Option<usize>,
    decided: Option<Millis>,
    launched: Option<Millis>,
    ended: Option<Millis>,
    whole: Option<Millis>,
    /// Instances launched and ended since.
    launches: Vec<Millis>,
    ends: Vec<Millis>,
    wants_stuck_boot: bool,
}

impl Course {
    pub fn launched(&mut self, now: Millis) {
        if self.struck.is_some() {
            self.launched.get_or_insert(now);
            self.launches.push(now);
        }
    }

    pub fn ended(&mut self, index: usize, now: Millis) {
        if self.struck.is_some() {
            self.ends.push(now);
        }
        if self.victim == Some(index) {
            self.ended.get_or_insert(now);
        }
    }

    /// Whether the instance that is launched now never serves.
    pub fn takes_stuck_boot(&mut self) -> bool {
        std::mem::take(&mut self.wants_stuck_boot)
    }
}

impl World {
    pub fn begin_single(&mut self, single: Single) {
        self.tell(|| format!("FAULT {single:?}"));
        let now = self.now;
        self.course.struck = Some(now);
        let role = if single == Single::BalancerDead { Role::LoadBalancer } else { Role::Worker };
        let live: Vec<usize> = self.ec2.live(role).map(|(index, _)| index).collect();
        let pick = self.rng.usize(..);
        let victim = pick.checked_rem(live.len()).map(|n| live[n]);
        self.course.victim = victim;
        match (single, victim) {
            (Single::ProgramDead, Some(index)) => self.ec2.machines[index].ail(Ailment::Refuses, NEVER),
            (Single::Hang, Some(index)) => self.ec2.machines[index].ail(Ailment::Hangs, NEVER),
            (Single::HostDead | Single::BalancerDead, Some(index)) => self.ec2.machines[index].kill_host(),
            (Single::Terminated, Some(index)) => self.ec2.machines[index].end(State::Terminated, now, 0),
            (Single::BootStuck, Some(index)) => {
                self.ec2.machines[index].end(State::Terminated, now, 0);
                self.course.wants_stuck_boot = true;
            }
            (Single::Orphan, _) => {
                let boot = Boot { pending: 5_000, network: 5_000, serves: Some(20_000), ailment: None };
                let release = self.s3.release.id.clone();
                // Its slot is taken: adoption is not measured here.
                let tags = (Some(0), Some(1), release.as_str());
                let index = self.ec2.add(Role::Worker, 0, tags, String::new(), now, boot);
                self.ec2.machines[index].is_orphan = true;
                self.course.victim = Some(index);
            }
            (Single::ProberBroken, _) => self.weather.cut_all_until = now + BROKEN,
            (Single::ReleaseBroken, _) => self.bad_releases.push(self.s3.release.id.clone()),
            (_, None) => {}
        }
    }

    /// Notes what a written memory says about the fault.
    pub fn follow_course(&mut self, memory: &Memory) {
        if self.course.struck.is_none() {
            return;
        }
        let Some(index) = self.course.victim else { return };
        let id = &self.ec2.machines[index].row.id;
        let is_out = memory.leaving.contains_key(id)
            || memory.balancer.former.contains(id)
            || memory
                .slots
                .values()
                .any(|slot| slot.worker.as_ref() == Some(id) && slot.phase == Phase::Dead)
            || memory.balancer.successor.is_some()
            || (self.is_worker(index) && !memory.slots.values().any(|slot| slot.worker.as_ref() == Some(id)));
        if is_out {
            self.course.decided.get_or_insert(self.now);
        }
        let wanted = memory.desired.map_or(0, |desired| desired.get() as usize);
        let workers = self.ec2.live(Role::Worker).filter(|(_, machine)| machine.is_up(self.now)).count();
        let is_balanced = self.ec2.holder.is_some_and(|index| self.ec2.machines[index].is_up(self.now));
        let is_whole = memory.healthy() >= wanted && workers >= wanted && is_balanced;
        if is_whole && self.course.decided.is_some() {
            self.course.whole.get_or_insert(self.now);
        }
    }
}

/// Measures each kind of single fault over many seeds; says whether all goals are met.
pub fn measure(first_seed: u64, seeds: u64) -> bool {
    line(&format!("{seeds} seeds of each; from the fault, in seconds"));
    let mut is_met = true;
    let mut goal = |what: &str, is_reached: bool| {
        is_met &= is_reached;
        line(&format!("  goal: {what}: {}", if is_reached { "met" } else { "MISSED" }));
    };
    for (single, name, decision) in [
        (Single::ProgramDead, "worker's program dead", Some(25_000)),
        (Single::HostDead, "worker's host dead", Some(45_000)),
        (Single::Hang, "worker hung", Some(45_000)),
        (Single::Terminated, "worker terminated", Some(25_000)),
        (Single::BalancerDead, "load balancer's host dead", Some(45_000)),
    ] {
        let courses = run(single, first_seed, seeds);
        line(name);
        let decided = since(&courses, |course| course.decided);
        line(&format!("  to decision       {}", quantiles(&decided)));
        line(&format!("  to launch         {}", quantiles(&since(&courses, |course| course.launched))));
        line(&format!("  to full capacity  {}", quantiles(&since(&courses, |course| course.whole))));
        if let Some(most) = decision {
            goal(&format!("decision p99 within {} s", most / 1000), p99(&decided) <= most);
        }
    }
    let courses = run(Single::BootStuck, first_seed, seeds);
    let second: Vec<Millis> =
        courses.iter().filter_map(|course| Some(course.launches.get(1)? - course.launches[0])).collect();
    line("boot stuck");
    line(&format!("  launch to next launch  {}", quantiles(&second)));
    goal("the next launch within 300 s", worst(&second) <= 300_000);
    let courses = run(Single::Orphan, first_seed, seeds);
    let ended = since(&courses, |course| course.ended);
    line("orphan");
    line(&format!("  to its end        {}", quantiles(&ended)));
    goal("its end p99 within 140 s", p99(&ended) <= 140_000);
    let courses = run(Single::ReleaseBroken, first_seed, seeds);
    let early = |course: &Course| course.launches.iter().filter(|at| **at < 3 * MINUTE).count();
    let most = courses.iter().map(early).max().unwrap_or(0);
    let in_half_an_hour = courses.iter().map(|course| course.launches.len()).max().unwrap_or(0);
    line("release broken from the start");
    line(&format!(
        "  launches before the first pause: {most} at most; in the first 30 min: {in_half_an_hour} at most"
    ));
    goal("3 launches at most before the pause", most <= 3);
    let courses = run(Single::ProberBroken, first_seed, seeds / 4);
    let most = |counts: &dyn Fn(&Course) -> usize| courses.iter().map(counts).max().unwrap_or(0);
    let ends = |is_within: bool| {
        most(&|course: &Course| {
            let end = course.struck.map_or(0, |struck| struck + BROKEN);
            course.ends.iter().filter(|at| (**at < end) == is_within).count()
        })
    };
    let (within, after) = (ends(true), ends(false));
    line("prober broken for two hours");
    line(&format!("  launched: {} at most", most(&|course: &Course| course.launches.len())));
    line(&format!(
        "  terminated during the fault: {within} at most; afterwards, as surplus: {after} at most"
    ));
    goal("no worker is terminated during the fault", within == 0);
    is_met
}

fn run(single: Single, first_seed: u64, seeds: u64) -> Vec<Course> {
    let one = |seed| run_seed(Scenario::single(seed, single), Default::default(), false);
    (first_seed..first_seed + seeds).map(|seed| one(seed).course).collect()
}

fn since(courses: &[Course], of: impl Fn(&Course) -> Option<Millis>) -> Vec<Millis> {
    courses.iter().filter_map(|course| Some(of(course)? - course.struck?)).collect()
}

fn p99(durations: &[Millis]) -> Millis {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    sorted.get((sorted.len().saturating_sub(1)) * 99 / 100).copied().unwrap_or(NEVER)
}

fn worst(durations: &[Millis]) -> Millis {
    durations.iter().copied().max().unwrap_or(NEVER)
}
