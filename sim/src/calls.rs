//! The services: what each does with an effect that arrives, and its answer, if there is one.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet::WorkerId;
use fleet::aws_code::AwsErrorKind;
use fleet::memory::Memory;
use jiff::Timestamp;
use planner::effect::{Effect, Event, Failure, Launch, Written};
use planner::observation::{Address, Instance, Observation, Role, State};

use crate::clock::{Millis, SECOND, timestamp};
use crate::ec2::{ALLOCATION, Ran};
use crate::fault::Kind;
use crate::machine::{Ailment, Boot, Machine};
use crate::world::World;

/// The clients' own time-outs.
const S3_TIMEOUT: Millis = 5 * SECOND;
const EC2_TIMEOUT: Millis = 8 * SECOND;

impl World {
    pub fn arrive(&mut self, number: usize, effect: Effect) {
        match effect {
            Effect::ReadMemory => self.read_memory(number),
            Effect::WriteMemory { memory, if_match } => {
                self.write_memory(number, &memory, if_match.as_deref())
            }
            Effect::Survey => self.survey(number),
            Effect::Describe { zone, ids } => self.describe(number, zone, &ids),
            Effect::Probe { targets, knocking } => self.begin_round(number, targets, knocking),
            Effect::Publish { registry, if_match } => {
                let back = self.way_back(number);
                if self.is_s3_out() || self.faults.strikes(Kind::RegistryFails) {
                    let event = Event::Published(Written::Unknown("no answer in time".to_owned()));
                    return self.answer_at(number, self.now + S3_TIMEOUT, event);
                }
                let before = self.s3.registry().cloned();
                self.read_registry();
                let written = self.s3.publish(&registry, if_match.as_deref());
                if matches!(written, Written::Done { .. }) {
                    self.mix_number(registry.revision);
                    self.tell(|| {
                        format!(
                            "  {number}: registry {} names {:?}",
                            registry.revision,
                            registry.workers.keys()
                        )
                    });
                    self.check_publish(number, before.as_deref(), &registry);
                    self.check_first_traffic(before.as_deref(), &registry);
                }
                self.answer_at(number, back, Event::Published(written));
            }
            Effect::Refresh { .. } => {
                let back = self.way_back(number);
                self.answer_at(number, back, Event::Refreshed);
            }
            Effect::Launch(launch) => self.launch(number, launch),
            Effect::Terminate(id) => self.terminate(number, id),
            Effect::Associate { allocation, instance } => self.associate(number, &allocation, instance),
            Effect::CapCredits(id) => self.cap_credits(number, &id),
            // Handled where it is issued.
            Effect::Sleep { .. } => {}
        }
    }

    fn is_s3_out(&self) -> bool {
        self.now < self.weather.s3_out_until
    }

    // --- S3 ---------------------------------------------------------------------------------------

    fn read_memory(&mut self, number: usize) {
        if self.is_s3_out() || self.faults.strikes(Kind::ReadFails) {
            let event = Event::MemoryRead { object: Err("no answer in time".to_owned()), date: None };
            return self.answer_at(number, self.now + S3_TIMEOUT, event);
        }
        let date = Timestamp::from_second(timestamp(self.now).as_second()).ok();
        let event = Event::MemoryRead { object: Ok(self.s3.read_memory()), date };
        let back = self.way_back(number);
        let memory = self.s3.memory().cloned();
        if let Some(running) = self.invocations[number].as_mut() {
            running.read = memory;
        }
        self.answer_at(number, back, event);
    }

    fn write_memory(&mut self, number: usize, memory: &Arc<Memory>, if_match: Option<&str>) {
        let answer = Event::MemoryWritten;
        let unknown = || answer(Written::Unknown("no answer in time".to_owned()));
        let timed_out = self.now + S3_TIMEOUT;
        if self.is_s3_out() || self.faults.strikes(Kind::WriteLost) {
            return self.answer_at(number, timed_out, unknown());
        }
        if self.faults.strikes(Kind::WriteConflict) {
            let back = self.way_back(number);
            return self.answer_at(number, back, answer(Written::Conflict));
        }
        if !self.is_late && self.faults.strikes(Kind::WriteLate) {
            let late = timed_out + self.faults.rng(Kind::WriteLate).i64(-4_000..30_000);
            let effect =
                Effect::WriteMemory { memory: memory.clone(), if_match: if_match.map(str::to_owned) };
            self.arrive_late(number, late, effect);
            return self.answer_at(number, timed_out, unknown());
        }
        let before = self.s3.memory().cloned();
        let written = self.s3.write_memory(memory, if_match);
        if matches!(written, Written::Done { .. }) {
            self.written(number, before.as_deref(), memory);
        }
        let back = self.way_back(number);
        if self.faults.strikes(Kind::WriteReplyLost) {
            self.answer_at(number, timed_out, unknown());
        } else if self.faults.strikes(Kind::WriteMetItself) {
            self.answer_at(number, back, answer(Written::Conflict));
        } else {
            self.answer_at(number, back, answer(written));
        }
    }

    fn written(&mut self, number: usize, before: Option<&Memory>, memory: &Arc<Memory>) {
        self.mix_number(memory.slots.len() as u64);
        self.mix(memory.events.last().map_or("", |event| event.text.as_str()));
        self.tell_news(number, memory);
        self.check_commit(before, memory);
        if let Some(running) = self.invocations[number].as_mut() {
            running.committed = Some(memory.clone());
            running.has_launched = false;
            running.committed_at = self.now;
        }
    }

    // --- EC2 reads --------------------------------------------------------------------------------

    fn survey(&mut self, number: usize) {
        let failed = |what: &str| format!("{what} cannot be read");
        let is_out = self.is_s3_out();
        let desired = if is_out || self.faults.strikes(Kind::DesiredFails) {
            Err(failed("desired-count"))
        } else {
            self.checks.read_count(self.s3.desired.as_ref().ok().copied());
            self.s3.desired.clone()
        };
        let release = if is_out || self.faults.strikes(Kind::ReleaseFails) {
            Err(failed("the release"))
        } else {
            Ok(Some(self.s3.release.clone()))
        };
        let registry = if is_out || self.faults.strikes(Kind::RegistryFails) {
            Err(failed("the registry"))
        } else {
            Ok(self.s3.registry().cloned())
        };
        let instances = self.list();
        let is_dead = |row: &&Instance| matches!(row.state, State::Terminated);
        let shown_dead: Vec<WorkerId> =
            instances.iter().flatten().filter(is_dead).map(|row| row.id.clone()).collect();
        let addresses = if self.faults.strikes(Kind::AddressFails) {
            Err(failed("the address"))
        } else {
            let instance = self.ec2.holder.map(|index| self.ec2.machines[index].row.id.clone());
            Ok(vec![Address { allocation: ALLOCATION.to_owned(), instance }])
        };
        // Without its release it goes on with the last one, and without the registry it heals.
        let is_blind = instances.is_err();
        let back = self.way_back(number);
        if let Some(running) = self.invocations[number].as_mut() {
            running.is_blind = is_blind;
            running.reachable = is_blind.then(Vec::new);
            running.shown = instances.iter().flatten().filter_map(|row| self.ec2.find(&row.id)).collect();
            running.shown_dead = shown_dead;
        }
        let observation = Observation {
            desired,
            release,
            registry,
            registry_etag: self.s3.registry_etag(),
            instances,
            addresses,
            dark: BTreeMap::new(),
            is_partial: false,
            probes: BTreeMap::new(),
            started: BTreeMap::new(),
        };
        self.answer_at(number, back, Event::Surveyed(Box::new(observation)));
    }

    fn list(&mut self) -> Result<Vec<Instance>, String> {
        if self.ec2.is_any_out(self.now) || self.faults.strikes(Kind::DescribeFails) {
            return Err("EC2 does not list the instances".to_owned());
        }
        if self.faults.strikes(Kind::DescribeEmpty) {
            return Ok(Vec::new());
        }
        let shown: Vec<usize> = (0..self.ec2.machines.len())
            .filter(|index| {
                let machine = &self.ec2.machines[*index];
                !machine.is_forgotten(self.now) && self.now >= machine.visible_from
            })
            .collect();
        let mut rows = Vec::with_capacity(shown.len());
        for index in shown {
            if !self.faults.strikes(Kind::RowMissing) {
                rows.push(self.row(index));
            }
        }
        Ok(rows)
    }

    fn row(&mut self, index: usize) -> Instance {
        let machine = &self.ec2.machines[index];
        let mut row = machine.row.clone();
        row.state = machine.state(self.now);
        // Books are some seconds behind.
        let before = machine.state(self.now - 4 * SECOND);
        if row.state != before
            && machine.launched < self.now - 4 * SECOND
            && self.faults.strikes(Kind::StateStale)
        {
            row.state = before;
        }
        if row.state == State::Terminated || self.faults.strikes(Kind::AddressMissing) {
            row.address = None;
        }
        row
    }

    fn describe(&mut self, number: usize, zone: String, ids: &[WorkerId]) {
        let indices: Vec<usize> = ids.iter().filter_map(|id| self.ec2.find(id)).collect();
        let is_out = indices.iter().any(|index| self.ec2.is_out(self.ec2.machines[*index].zone, self.now));
        let back = self.way_back(number);
        if is_out || self.faults.strikes(Kind::DescribeFails) {
            let event = Event::Described { zone, rows: Err("EC2 does not answer for this zone".to_owned()) };
            return self.answer_at(number, self.now + S3_TIMEOUT, event);
        }
        let is_shown = |machine: &Machine, now| !machine.is_forgotten(now) && now >= machine.visible_from;
        let shown: Vec<usize> =
            indices.iter().copied().filter(|index| is_shown(&self.ec2.machines[*index], self.now)).collect();
        let rows = shown.iter().map(|index| self.row(*index)).collect();
        if let Some(running) = self.invocations[number].as_mut() {
            running.shown.extend(shown);
            running.is_blind = false;
            let zones = indices.iter().map(|index| self.ec2.machines[*index].zone);
            running.reachable.get_or_insert_default().extend(zones);
        }
        self.answer_at(number, back, Event::Described { zone, rows: Ok(rows) });
    }

    // --- EC2 changes ------------------------------------------------------------------------------

    fn launch(&mut self, number: usize, launch: Launch) {
        let no_answer = Failure { kind: AwsErrorKind::Other, why: "no answer in time".to_owned() };
        let timed_out = self.now + EC2_TIMEOUT;
        let zone = (0..self.ec2.zones()).find(|zone| crate::machine::subnet_name(*zone) == launch.subnet);
        let is_out = zone.is_some_and(|zone| self.ec2.is_out(zone, self.now));
        if is_out || self.faults.strikes(Kind::LaunchLost) {
            return self.answer_at(number, timed_out, Event::Launched { launch, result: Err(no_answer) });
        }
        if !self.is_late && self.faults.strikes(Kind::LaunchLate) {
            let late = timed_out + self.faults.rng(Kind::LaunchLate).i64(-7_000..60_000);
            self.arrive_late(number, late, Effect::Launch(launch.clone()));
            return self.answer_at(number, timed_out, Event::Launched { launch, result: Err(no_answer) });
        }
        // EC2 finds only another life's parameters different, never those of an instance that it knows.
        let is_first = !self.ec2.knows(&launch);
        let result = if is_first && self.faults.strikes(Kind::TokenMismatch) {
            let why = "IdempotentParameterMismatch".to_owned();
            Err(Failure { kind: AwsErrorKind::TokenMismatch, why })
        } else {
            if self.faults.strikes(Kind::LaunchTwice) {
                self.run_instance(number, &launch).ok();
            }
            self.run_instance(number, &launch)
        };
        let back = self.way_back(number);
        if self.faults.strikes(Kind::LaunchReplyLost) {
            return self.answer_at(number, timed_out, Event::Launched { launch, result: Err(no_answer) });
        }
        self.answer_at(number, back, Event::Launched { launch, result });
    }

    fn run_instance(&mut self, number: usize, launch: &Launch) -> Result<WorkerId, Failure> {
        let boot = self.boot(&launch.release);
        self.ec2.quota = self.scenario.is_tight.then(|| self.wanted() + 1);
        let index = match self.ec2.run(launch, self.now, boot) {
            Ran::New(index) => index,
            Ran::Known(index) => return Ok(self.ec2.machines[index].row.id.clone()),
            Ran::Refused(failure) => {
                let is_full = |zone: &Millis| self.now < *zone;
                let kind = &launch.spec.instance_type;
                let is_full = self.ec2.full_until.iter().all(is_full)
                    || self.ec2.types_full_until.get(kind).is_some_and(is_full);
                match failure.kind {
                    AwsErrorKind::AccountLimit if !self.is_late => self.check_refused(launch),
                    AwsErrorKind::Definition if !self.is_late => self.check_hammered(launch, failure.kind),
                    AwsErrorKind::NoCapacity if !self.is_late && is_full => {
                        self.check_hammered(launch, failure.kind);
                    }
                    _ => {}
                }
                return Err(failure);
            }
        };
        self.stats.launches += 1;
        self.checks.ends.push_back(self.now);
        if self.faults.strikes(Kind::VisibleLate) {
            let lag = self.faults.rng(Kind::VisibleLate);
            let lag = if lag.bool() { lag.i64(0..10_000) } else { lag.i64(0..300_000) };
            self.ec2.machines[index].visible_from = self.now + lag;
        }
        let id = self.ec2.machines[index].row.id.clone();
        self.mix_number(index as u64);
        self.tell(|| {
            format!(
                "EC2 runs {id} for invocation {number} (slot {}, attempt {}, {})",
                launch.slot, launch.attempt, launch.subnet
            )
        });
        self.check_launched(index, launch);
        self.course.launched(self.now);
        Ok(id)
    }

    /// How the boot of a new instance goes. Most take 25 to 60 s.
    pub fn boot(&mut self, release: &str) -> Boot {
        let pending = self.rng.i64(2_000..8_000);
        let network = self.rng.i64(5_000..12_000);
        let mut serves = Some(pending + network + self.rng.i64(8_000..40_000));
        let mut ailment = None;
        if self.bad_releases.iter().any(|bad| bad == release) || self.course.takes_stuck_boot() {
            serves = None;
        }
        if self.now < self.weather.dead_until {
            (serves, ailment) = (None, Some(Ailment::Hangs));
        } else if self.faults.strikes(Kind::BootFails) {
            serves = None;
            if self.faults.rng(Kind::BootFails).bool() {
                ailment = Some(Ailment::Hangs);
            }
        } else if self.faults.strikes(Kind::BootSlow) {
            serves = serves.map(|serves| serves + self.faults.rng(Kind::BootSlow).i64(20_000..200_000));
        }
        Boot { pending, network, serves, ailment }
    }

    fn terminate(&mut self, number: usize, id: WorkerId) {
        let no_answer = Failure { kind: AwsErrorKind::Other, why: "no answer in time".to_owned() };
        let Some(index) = self.ec2.find(&id) else { return };
        let timed_out = self.now + EC2_TIMEOUT;
        let zone = self.ec2.machines[index].zone;
        if self.ec2.is_out(zone, self.now) || self.faults.strikes(Kind::TerminateLost) {
            return self.answer_at(number, timed_out, Event::Terminated { id, result: Err(no_answer) });
        }
        if !self.is_late && self.faults.strikes(Kind::TerminateLate) {
            let late = timed_out + self.faults.rng(Kind::TerminateLate).i64(-7_000..20_000);
            self.arrive_late(number, late, Effect::Terminate(id.clone()));
            return self.answer_at(number, timed_out, Event::Terminated { id, result: Err(no_answer) });
        }
        if self.now < self.ec2.throttled_until {
            let why = "RequestLimitExceeded".to_owned();
            let result = Err(Failure { kind: AwsErrorKind::Throttled, why });
            let back = self.way_back(number);
            return self.answer_at(number, back, Event::Terminated { id, result });
        }
        if self.ec2.machines[index].is_live() {
            self.stats.terminations += 1;
            self.tell(|| format!("EC2 ends {id} for invocation {number}"));
        }
        self.checks.ends.push_back(self.now);
        self.mix_number(index as u64);
        let shutting_down = self.rng.i64(1_000..60_000);
        self.ec2.machines[index].end(State::Terminated, self.now, shutting_down);
        self.course.ended(index, self.now);
        if self.ec2.holder == Some(index) {
            self.ec2.holder = None;
        }
        if self.faults.strikes(Kind::TerminateReplyLost) {
            return self.answer_at(number, timed_out, Event::Terminated { id, result: Err(no_answer) });
        }
        let back = self.way_back(number);
        self.answer_at(number, back, Event::Terminated { id, result: Ok(()) });
    }

    fn associate(&mut self, number: usize, allocation: &str, instance: WorkerId) {
        let failure = |why: &str| Failure { kind: AwsErrorKind::Other, why: why.to_owned() };
        let timed_out = self.now + EC2_TIMEOUT;
        if allocation != ALLOCATION || self.faults.strikes(Kind::AssociateFails) {
            let result = Err(failure("no answer in time"));
            return self.answer_at(number, timed_out, Event::Associated { instance, result });
        }
        let back = self.way_back(number);
        let found = self.ec2.find(&instance);
        let running = found.filter(|index| self.ec2.machines[*index].state(self.now) == State::Running);
        let Some(index) = running else {
            let result = Err(failure("InvalidInstanceID"));
            return self.answer_at(number, back, Event::Associated { instance, result });
        };
        self.stats.moves += 1;
        self.ec2.holder = Some(index);
        self.mix_number(index as u64);
        self.tell(|| format!("the address moves to {instance} for invocation {number}"));
        if self.faults.strikes(Kind::AssociateReplyLost) {
            let result = Err(failure("no answer in time"));
            return self.answer_at(number, timed_out, Event::Associated { instance, result });
        }
        self.answer_at(number, back, Event::Associated { instance, result: Ok(()) });
    }

    fn cap_credits(&mut self, number: usize, id: &WorkerId) {
        let Some(index) = self.ec2.find(id) else { return };
        let answer = |result| Event::CreditsCapped { id: id.clone(), result };
        let failure = |kind, why: &str| Failure { kind, why: why.to_owned() };
        if self.faults.strikes(Kind::CapFails) {
            let result = Err(failure(AwsErrorKind::Denied, "UnauthorizedOperation"));
            let back = self.way_back(number);
            return self.answer_at(number, back, answer(result));
        }
        if !self.ec2.machines[index].is_live() {
            let result = Err(failure(AwsErrorKind::Other, "IncorrectInstanceState"));
            let back = self.way_back(number);
            return self.answer_at(number, back, answer(result));
        }
        self.check_cap(index);
        let machine = &mut self.ec2.machines[index];
        machine.asked_again += u32::from(machine.is_capped);
        machine.is_capped = true;
        self.mix_number(index as u64);
        if self.faults.strikes(Kind::CapReplyLost) {
            let result = Err(failure(AwsErrorKind::Other, "no answer in time"));
            return self.answer_at(number, self.now + EC2_TIMEOUT, answer(result));
        }
        let back = self.way_back(number);
        self.answer_at(number, back, answer(Ok(())));
    }

    pub fn is_worker(&self, index: usize) -> bool {
        self.ec2.machines[index].row.role == Role::Worker
    }
}
