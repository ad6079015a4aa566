//! Faults that happen by themselves: to machines, to the network, to EC2, to the bucket, by people.

use std::sync::Arc;

use fastrand::Rng;
use fleet::DesiredCount;
use planner::observation::{Role, State};

use crate::clock::{MINUTE, Millis, NEVER, SECOND};
use crate::fault::Kind;
use crate::machine::{Ailment, Boot};
use crate::s3::StateObject;
use crate::world::{BALANCER, World, balancer, release};

/// Shorter ones matter most, and a few last.
fn a_while(rng: &mut Rng) -> Millis {
    match rng.u8(0..10) {
        0..5 => rng.i64(1..60) * SECOND,
        5..9 => rng.i64(1..6) * MINUTE,
        _ => rng.i64(5..25) * MINUTE,
    }
}

impl World {
    pub fn strike(&mut self, kind: Kind) {
        let now = self.now;
        let while_ = a_while(self.faults.rng(kind));
        match kind {
            Kind::Restart => {
                let until = now + self.faults.rng(kind).i64(500..3_000);
                self.ail(kind, Ailment::Refuses, until);
            }
            Kind::ProgramDead => self.ail(kind, Ailment::Refuses, NEVER),
            Kind::Hang => {
                let until = if self.faults.rng(kind).bool() { NEVER } else { now + while_ };
                self.ail(kind, Ailment::Hangs, until);
            }
            Kind::Flap => {
                let turn = self.faults.rng(kind).i64(5..60) * SECOND;
                self.ail(kind, Ailment::Flaps(turn), now + 10 * while_);
            }
            Kind::HostDead => {
                if let Some(index) = self.victim(kind) {
                    self.ec2.machines[index].kill_host();
                }
            }
            Kind::Terminated => self.end_behind_our_back(kind, State::Terminated),
            Kind::Stopped => self.end_behind_our_back(kind, State::Stopped),
            Kind::Orphan => self.add_orphan(kind),
            Kind::Overload => {
                let share = self.faults.rng(kind).usize(30..120);
                self.weather.overload = Some((now + while_, (self.desired() * share).div_ceil(100)));
            }
            Kind::CutAll => self.weather.cut_all_until = now + while_,
            Kind::CutZone => {
                let zone = self.any_zone(kind);
                // Longer than a zone is spared, it is judged like others: that is the rule, not a fault.
                self.weather.cut_zone_until[zone] = now + while_.min(14 * MINUTE);
            }
            Kind::CutOne => {
                if let Some(index) = self.victim(kind) {
                    self.weather.cut_machine = Some((index, now + while_));
                }
            }
            Kind::ZoneOutage => {
                let zone = self.any_zone(kind);
                self.ec2.out_until[zone] = now + while_;
            }
            Kind::Throttle => self.ec2.throttled_until = now + while_,
            Kind::NoCapacity => {
                let zone = self.any_zone(kind);
                self.ec2.full_until[zone] = now + while_;
            }
            Kind::QuotaFull => self.ec2.full_until.fill(now + while_),
            Kind::AddressTaken => self.ec2.holder = None,
            Kind::S3Outage => self.weather.s3_out_until = now + while_,
            Kind::MemoryDeleted => {
                self.forget();
                self.s3.spoil_memory(None);
            }
            Kind::MemoryGarbage => {
                self.forget();
                self.s3.spoil_memory(Some(StateObject::Garbage));
            }
            Kind::DesiredChanged => self.change_desired(kind),
            Kind::DesiredGarbage => {
                let text = ["", "banana", "-1", "1e9"][self.faults.rng(kind).usize(0..4)];
                self.s3.desired =
                    DesiredCount::from_object(text.as_bytes()).map_err(|error| error.to_string());
            }
            Kind::AccountLimit => {
                let fewer = self.faults.rng(kind).usize(0..3);
                let live = self.ec2.counted(now).saturating_sub(fewer);
                self.tell(|| format!("      {live} instances"));
                self.ec2.lowered = (live, now + while_);
            }
            Kind::Unverified => self.ec2.unverified_until = now + while_,
            Kind::Deployed => self.deploy(true),
            Kind::BadRelease => self.deploy(false),
            Kind::ImageGone => {
                let released = [self.s3.release.id.clone(), balancer(&self.s3.release)];
                let gone = released[self.faults.rng(kind).usize(0..2)].clone();
                self.tell(|| format!("      {gone}"));
                self.ec2.unlaunchable.insert(gone);
            }
            Kind::RefusedRelease => {
                self.deploy(true);
                self.ec2.unlaunchable.extend([self.s3.release.id.clone(), balancer(&self.s3.release)]);
            }
            Kind::TypeNotOffered => {
                let zone = self.any_zone(kind);
                let kind = self.s3.release.worker.instance_type.clone();
                self.ec2.not_offered.insert((zone, kind));
            }
            Kind::TypeNowhere => {
                let kind = self.s3.release.worker.instance_type.clone();
                let everywhere = (0..self.ec2.zones()).map(|zone| (zone, kind.clone()));
                self.ec2.not_offered.extend(everywhere);
            }
            Kind::TypeFull => {
                let kind = self.s3.release.worker.instance_type.clone();
                self.ec2.types_full_until.insert(kind, now + while_);
            }
            Kind::LaunchDenied => self.ec2.denied_until = now + while_,
            Kind::RegistryDeleted => {
                self.read_registry();
                self.s3.delete_registry();
            }
            Kind::AllDeleted => {
                self.read_registry();
                self.s3.delete_registry();
                self.forget();
                self.s3.spoil_memory(None);
            }
            Kind::Unready => {
                if let Some(index) = self.a_balancer(kind) {
                    self.ec2.machines[index].ail(Ailment::Unready, now + while_);
                }
            }
            Kind::StoppedBalancer => {
                if let Some(index) = self.a_balancer(kind) {
                    self.ec2.machines[index].end(State::Stopped, now, 0);
                }
            }
            Kind::AllDead => {
                let live: Vec<usize> = self.ec2.live(Role::Worker).map(|(index, _)| index).collect();
                live.into_iter().for_each(|index| self.ec2.machines[index].kill_host());
                self.weather.dead_until = now + self.faults.rng(kind).i64(4..14) * MINUTE;
            }
            Kind::LongOutage => {
                let zone = self.any_zone(kind);
                self.ec2.out_until[zone] = now + self.faults.rng(kind).i64(3..15) * MINUTE;
            }
            Kind::CrashLoop => {
                if let Some(index) = self.a_balancer(kind) {
                    let until = if self.faults.rng(kind).bool() { NEVER } else { now + while_ };
                    let every = self.faults.rng(kind).i64(3..60) * SECOND;
                    self.ec2.machines[index].crash(every, now, until);
                    let id = &self.ec2.machines[index].row.id;
                    self.tell(|| format!("      {id}, every {} s", every / SECOND));
                }
            }
            Kind::CrashingRelease => self.deploy_crashing(kind),
            _ => unreachable!("the others strike a call"),
        }
    }

    fn forget(&mut self) {
        let registry = self.s3.registry().cloned();
        self.checks.forget(self.now, &mut self.ec2.machines, registry.as_deref());
    }

    fn ail(&mut self, kind: Kind, ailment: Ailment, until: Millis) {
        if let Some(index) = self.victim(kind) {
            self.ec2.machines[index].ail(ailment, until);
            let id = &self.ec2.machines[index].row.id;
            self.tell(|| format!("      {id}"));
        }
    }

    /// A live instance; one in five times the load balancer.
    fn victim(&mut self, kind: Kind) -> Option<usize> {
        let rng = self.faults.rng(kind);
        let role = if rng.u8(0..5) == 0 { Role::LoadBalancer } else { Role::Worker };
        let live: Vec<usize> = self.ec2.live(role).map(|(index, _)| index).collect();
        let pick = self.faults.rng(kind).usize(..);
        live.get(pick.checked_rem(live.len())?).copied()
    }

    fn a_balancer(&mut self, kind: Kind) -> Option<usize> {
        let live: Vec<usize> = self.ec2.live(Role::LoadBalancer).map(|(index, _)| index).collect();
        let pick = self.faults.rng(kind).usize(..);
        live.get(pick.checked_rem(live.len())?).copied()
    }

    fn any_zone(&mut self, kind: Kind) -> usize {
        let zones = self.ec2.zones();
        self.faults.rng(kind).usize(0..zones)
    }

    fn end_behind_our_back(&mut self, kind: Kind, state: State) {
        let Some(index) = self.victim(kind) else { return };
        let id = &self.ec2.machines[index].row.id;
        self.tell(|| format!("      {id}"));
        self.ec2.machines[index].end(state, self.now, 20 * SECOND);
        // A stopped instance keeps its address, a terminated one does not.
        if state == State::Terminated && self.ec2.holder == Some(index) {
            self.ec2.holder = None;
        }
    }

    /// A person launches a copy of a worker in the console: "launch more like this".
    fn add_orphan(&mut self, kind: Kind) {
        let zone = self.any_zone(kind);
        let slot = self.faults.rng(kind).u32(0..12);
        let attempt = self.faults.rng(kind).bool().then_some(1);
        let release = self.s3.release.id.clone();
        let serves = (!self.bad_releases.contains(&release)).then_some(20_000);
        let boot = Boot { pending: 5_000, network: 5_000, serves, ailment: None };
        let tags = (Some(slot), attempt, release.as_str());
        let index = self.ec2.add(Role::Worker, zone, tags, String::new(), self.now, boot);
        self.ec2.machines[index].is_orphan = true;
        // If it serves it ends a row of failures.
        self.checks.ends.push_back(self.now);
    }

    pub fn desired(&self) -> usize {
        let memory = self.s3.memory().and_then(|memory| memory.desired);
        memory.map_or(self.scenario.workers as usize, |desired| desired.get() as usize)
    }

    /// The most that is asked for, or in force: what the account has room for.
    pub fn wanted(&self) -> usize {
        let asked = self.s3.desired.as_ref().map_or(0, |desired| desired.get() as usize);
        self.desired().max(asked).max(self.scenario.workers as usize)
    }

    fn change_desired(&mut self, kind: Kind) {
        let most = self.scenario.most_workers;
        let rng = self.faults.rng(kind);
        let number = if rng.u8(0..20) == 0 { 0 } else { rng.u32(1..=most) };
        // A lone worker of an account without room is not replaced without notice: its own tests say so.
        let number = if self.scenario.is_tight && number == 1 { 2 } else { number };
        self.tell(|| format!("      {number}"));
        self.s3.desired = Ok(DesiredCount::try_from(number).expect("within bounds"));
    }

    fn deploy(&mut self, is_good: bool) {
        self.deployments += 1;
        let before = balancer(&self.s3.release);
        // Every second deployment changes the load balancer as well, and a broken one is repaired.
        let is_renewal = self.deployments.is_multiple_of(2) || self.is_bad(&before);
        let number = before.strip_prefix(BALANCER).and_then(|number| number.parse().ok());
        let number = if is_renewal { self.deployments } else { number.expect("a number of the simulator") };
        let mut next = release(self.deployments, number, self.ec2.zones());
        next.rollout = self.scenario.rollout;
        next.policy = self.scenario.policy.clone();
        let (worker, lb) = (next.id.clone(), balancer(&next));
        self.tell(|| format!("      {worker}, {lb} ({})", if is_good { "good" } else { "bad" }));
        if !is_good {
            self.bad_releases.push(worker);
            self.bad_releases.extend(is_renewal.then_some(lb));
        }
        self.s3.release = Arc::new(next);
        self.checks.deployed(self.now);
    }

    /// All load balancers of the definition crash from now on. If the deployment has not changed it, a poisonous
    /// request is the cause.
    fn deploy_crashing(&mut self, kind: Kind) {
        self.deploy(true);
        let released = balancer(&self.s3.release);
        let every = self.faults.rng(kind).i64(3..60) * SECOND;
        self.tell(|| format!("      {released} crashes every {} s", every / SECOND));
        for machine in self.ec2.machines.iter_mut().filter(|machine| machine.row.release == released) {
            machine.crash(every, self.now, NEVER);
        }
        self.ec2.crashing.insert(released, every);
    }

    /// Whether no instance of a definition ever serves for long.
    fn is_bad(&self, id: &String) -> bool {
        self.bad_releases.contains(id)
            || self.ec2.unlaunchable.contains(id)
            || self.ec2.crashing.contains_key(id)
    }

    /// Ends a storm: passing faults have passed, people undo their mistakes, and broken machines stay broken.
    pub fn clear_up(&mut self) {
        let now = self.now;
        let weather = &mut self.weather;
        weather.cut_all_until = now;
        weather.cut_zone_until.fill(now);
        weather.cut_machine = None;
        weather.s3_out_until = now;
        weather.overload = None;
        weather.dead_until = now;
        self.ec2.throttled_until = now;
        self.ec2.lowered = (0, now);
        self.ec2.unverified_until = now;
        self.ec2.full_until.fill(now);
        self.ec2.out_until.fill(now);
        self.ec2.not_offered.clear();
        self.ec2.types_full_until.clear();
        self.ec2.denied_until = now;
        for machine in &mut self.ec2.machines {
            machine.end_passing_ailment(now);
        }
        match &self.s3.desired {
            Ok(desired) if desired.get() > 0 => {}
            _ => {
                let workers = self.scenario.workers;
                self.s3.desired = Ok(DesiredCount::try_from(workers).expect("within bounds"));
            }
        }
        let released = [self.s3.release.id.clone(), balancer(&self.s3.release)];
        if released.iter().any(|id| self.is_bad(id)) {
            self.deploy(true);
        }
    }
}
