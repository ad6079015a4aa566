//! What the checks remember of a run.

use std::collections::{HashMap, HashSet, VecDeque};

use fleet::memory::{Memory, Phase, Slot};
use fleet::{DesiredCount, Registry, WorkerId};
use planner::observation::{Probe, Role};

use crate::clock::Millis;
use crate::ec2::Ec2;
use crate::machine::Machine;
use crate::s3::S3;

#[derive(Clone, Debug)]
pub struct Violation {
    pub rule: &'static str,
    pub at: Millis,
    pub what: String,
}

#[derive(Default)]
pub struct Checks {
    pub violation: Option<Violation>,
    /// Attempts that came to life.
    pub lives: HashMap<(Role, u32, u32, String), usize>,
    /// Terminations for health of workers that served: when, and whom.
    pub ended: VecDeque<(Millis, usize)>,
    pub condemned: HashSet<usize>,
    /// Since when each worker is out of the registry.
    pub unpublished: HashMap<usize, Millis>,
    pub launched: VecDeque<Millis>,
    /// When an instance was ended, by any party, or launched.
    pub ends: VecDeque<Millis>,
    /// Facts learned for memories that are on their way, by nonce.
    pub notes: HashMap<String, Notes>,
    /// Launches that people asked for within the hour: when, and how many.
    pub wanted: VecDeque<(Millis, usize)>,
    /// When memory was lost.
    pub lost: Vec<Millis>,
    pub calm: Option<Calm>,
    /// Desired counts that were read.
    pub counts: HashSet<DesiredCount>,
    /// Ticks in which a quota refused a launch, by their seconds.
    pub refused: VecDeque<Millis>,
    /// The same of other refusals, by definition.
    pub hammered: HashMap<String, VecDeque<Millis>>,
    /// Replacements of load balancers that crash, by definition and step.
    pub crashing: HashMap<(String, &'static str), VecDeque<Millis>>,
}

/// What a memory that is written next will know.
pub struct Notes {
    pub heard: Vec<(usize, Probe, Millis)>,
    /// Whom EC2 showed, and when.
    pub shown: Vec<usize>,
    pub surveyed: Millis,
}

/// The time after a storm.
pub struct Calm {
    pub since: Millis,
    pub restored: Option<Millis>,
    /// The reconciler is in a pause that it must keep.
    pub is_excused: bool,
    /// The account has no room, and no instance is left to show that probes arrive: an operator must help.
    pub is_stuck: bool,
    /// A rollout that was refused room in the storm goes on by stopping one worker first.
    pub stops_first: bool,
}

impl Checks {
    /// A survey reads the desired count.
    pub fn read_count(&mut self, count: Option<DesiredCount>) {
        self.counts.extend(count);
    }

    /// Memory is lost. With it go the spent budgets, and the knowledge of workers that served and are not in
    /// the registry any more.
    pub fn forget(&mut self, now: Millis, machines: &mut [Machine], registry: Option<&Registry>) {
        self.ended.clear();
        for machine in machines {
            let is_published =
                registry.is_some_and(|registry| registry.workers.contains_key(&machine.row.id));
            machine.record.was_published &= is_published;
        }
        self.lost.push(now);
    }

    pub fn deployed(&mut self, now: Millis) {
        self.wanted.push_back((now, 0));
        // Failures of a definition that is neither released nor proven are forgotten.
        self.crashing.clear();
    }

    pub fn begin_calm(&mut self, now: Millis, s3: &S3, ec2: &Ec2, is_tight: bool) {
        let desired = s3.desired.as_ref().map_or(0, |desired| desired.get() as usize);
        let mut live = ec2.live(Role::Worker).chain(ec2.live(Role::LoadBalancer));
        let is_stuck = is_tight && !live.any(|(_, machine)| machine.is_up(now));
        // Beyond three times the desired number and six nothing is launched: a person has to look.
        let nobody_is_up = !ec2.live(Role::Worker).any(|(_, machine)| machine.is_up(now));
        let is_stuck = is_stuck || nobody_is_up && ec2.live(Role::Worker).count() >= 3 * desired + 4;
        let is_excused = is_tight
            || s3.memory().is_none_or(|memory| {
                let rest = Rest { memory, now, ec2 };
                memory.boots.values().any(|boots| boots.failures >= 2)
                    || memory.losses.len() + rest.losses_to_come() >= 3 * desired + 10
                    || !memory.dark_zones.is_empty()
                    || rest.boots()
                    || rest.is_filled(desired)
                    || rest.waits_for_a_launch(&s3.release.id)
            });
        self.calm = Some(Calm { since: now, restored: None, is_excused, is_stuck, stops_first: false });
    }
}

/// What a storm has left, and what memory knows of it.
struct Rest<'a> {
    memory: &'a Memory,
    now: Millis,
    ec2: &'a Ec2,
}

impl Rest<'_> {
    fn is_up(&self, slot: &Slot) -> bool {
        let index = slot.worker.as_ref().and_then(|id| self.ec2.find(id));
        index.is_some_and(|index| self.ec2.machines[index].is_up(self.now))
    }

    /// Counts workers that memory may soon count as lost: dead workers that it was too blind to notice, and
    /// suspects that a round under way may not hear for the second time.
    fn losses_to_come(&self) -> usize {
        let is_at_risk = |slot: &&Slot| slot.phase == Phase::Suspect || !self.is_up(slot);
        let slots = self.memory.slots.values();
        slots.filter(|slot| slot.phase != Phase::Dead).filter(is_at_risk).count()
    }

    /// Whether a boot goes on that will fail, or was begun just now and may: it takes its three minutes
    /// first. An instance that does not answer is a boot to each memory that does not know that it
    /// served.
    fn boots(&self) -> bool {
        let has_served = |id: &WorkerId| {
            let is_its = |slot: &Slot| slot.served && slot.worker.as_ref() == Some(id);
            self.memory.leaving.contains_key(id) || self.memory.slots.values().any(is_its)
        };
        let mut silent = self.ec2.live(Role::Worker).filter(|(_, machine)| !machine.is_up(self.now));
        silent.any(|(_, machine)| !has_served(&machine.row.id))
    }

    /// The dead and the unknown leave fewer places below the cap than workers are missing: the dead go one
    /// a minute, the unknown after five.
    fn is_filled(&self, desired: usize) -> bool {
        let up = self.memory.slots.values().filter(|slot| self.is_up(slot)).count();
        self.number() + desired.saturating_sub(up) > 2 * desired + 2
    }

    /// Whether a launch has three minutes to show up: its definition is not known any more, so it is not
    /// repeated.
    fn waits_for_a_launch(&self, release: &str) -> bool {
        let is_known =
            |id: &str| id == release || self.memory.proven.as_ref().is_some_and(|proven| proven.id == id);
        let is_awaited = |slot: &Slot| slot.phase == Phase::Launching && slot.worker.is_none();
        self.memory.slots.values().any(|slot| is_awaited(slot) && !is_known(&slot.release))
    }

    fn number(&self) -> usize {
        let is_live =
            |id: &&WorkerId| self.ec2.find(id).is_some_and(|index| self.ec2.machines[index].is_live());
        self.memory.slots.len() + self.memory.leaving.keys().filter(is_live).count()
    }
}
