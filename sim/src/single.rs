//! A clean fault and no other.

use fleet::memory::{Memory, Phase};
use planner::observation::{Role, State};

use crate::clock::NEVER;
use crate::course::BROKEN;
use crate::machine::{Ailment, Boot};
use crate::scenario::Single;
use crate::world::World;

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
