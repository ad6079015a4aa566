//! Makes the number of workers right.

use std::collections::BTreeMap;

use fleet::memory::{LeavingStage, Memory, Phase, Slot};
use fleet::release::SubnetSpec;
use jiff::{SignedDuration, Timestamp};

use super::{Launch, Tick};
use crate::observation::Observation;

/// EC2 takes five launches at once and two a second after that.
const LAUNCHES_PER_TICK: usize = 20;
/// Boot failures in a row before launches slow down: one may be bad luck, three are a bad release.
const BOOT_LOOP: u32 = 3;
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(30);

/// Takes the desired count over if it is a good one.
pub(super) fn take_desired(observation: &Observation, memory: &mut Memory, now: Timestamp) {
    match &observation.desired {
        Ok(desired) => {
            if memory.desired != Some(*desired) {
                let before = memory.desired.map_or("nothing".to_owned(), |count| count.to_string());
                memory.record(now, format!("Desired count changed from {before} to {desired}."));
            }
            memory.desired = Some(*desired);
            memory.notice = None;
        }
        Err(why) => {
            let rest = memory
                .desired
                .map_or("nothing is in force".to_owned(), |count| format!("{count} stays in force"));
            let notice = format!("{why}; {rest}");
            if memory.notice.as_ref() != Some(&notice) {
                memory.record(now, format!("{notice}."));
            }
            memory.held.push(notice.clone());
            memory.notice = Some(notice);
        }
    }
}

impl Tick<'_> {
    pub(super) fn desired(&self) -> Option<usize> {
        self.memory.desired.map(|count| count.get() as usize)
    }

    /// Workers that serve or will; a dead one that waits for a brake does not count.
    fn live(&self) -> usize {
        self.memory.slots.values().filter(|slot| self.counts(slot)).count()
    }

    /// Where nobody is desired the dead count as well: they would wait for ever for a replacement
    /// that answers, and to remove them is the operator's wish, not a verdict.
    fn counts(&self, slot: &Slot) -> bool {
        slot.phase != Phase::Dead || self.desired() == Some(0)
    }

    pub(super) fn shrink(&mut self) {
        let Some(desired) = self.desired() else { return };
        let surplus = self.live().saturating_sub(desired);
        for _ in 0..surplus {
            let Some(number) = self.least_needed() else { return };
            let Some(slot) = self.memory.slots.get(&number) else { return };
            // One that never served has nothing to drain.
            let stage = match slot.phase {
                Phase::Launching | Phase::Booting => LeavingStage::Terminating,
                Phase::Healthy | Phase::Suspect | Phase::Dead => LeavingStage::Draining,
            };
            let who = slot.worker.as_ref().map_or_else(|| format!("slot {number}"), ToString::to_string);
            self.launches.retain(|launch| launch.slot != number);
            self.record(format!("Removing {who}: {desired} workers are desired."));
            self.retire(number, stage, "more workers than desired");
        }
    }

    /// Who goes first when there are too many.
    fn least_needed(&self) -> Option<u32> {
        let zones = self.zones();
        let order = |number: u32, slot: &Slot| {
            let usefulness = match slot.phase {
                Phase::Launching => 0,
                Phase::Booting => 1,
                Phase::Suspect => 2,
                Phase::Healthy | Phase::Dead => 3,
            };
            let crowd = zones.get(slot.zone.as_str()).copied().unwrap_or(0);
            (usefulness, std::cmp::Reverse(crowd), std::cmp::Reverse(number))
        };
        let live = self.memory.slots.iter().filter(|(_, slot)| self.counts(slot));
        live.min_by_key(|(number, slot)| order(**number, slot)).map(|(number, _)| *number)
    }

    fn zones(&self) -> BTreeMap<&str, usize> {
        let mut zones = BTreeMap::new();
        for slot in self.memory.slots.values() {
            *zones.entry(slot.zone.as_str()).or_insert(0) += 1;
        }
        zones
    }

    pub(super) fn grow(&mut self) {
        let Some(desired) = self.desired() else { return };
        let missing = desired.saturating_sub(self.live());
        if missing == 0 {
            return;
        }
        let mut allowed = missing.min(LAUNCHES_PER_TICK.saturating_sub(self.launches.len()));
        if self.memory.boot_failures >= BOOT_LOOP {
            let pause = pause(self.memory.boot_failures);
            let since = self.memory.last_boot_failure.unwrap_or(Timestamp::UNIX_EPOCH);
            let is_booting =
                self.memory.slots.values().any(|s| matches!(s.phase, Phase::Launching | Phase::Booting));
            allowed = allowed.min(1);
            if is_booting || self.now.duration_since(since) < pause {
                self.hold(format!(
                    "{missing} launches: {} boots in a row failed; one is tried every {} min",
                    self.memory.boot_failures,
                    pause.as_mins()
                ));
                return;
            }
        }
        for _ in 0..allowed {
            let Some(subnet) = self.emptiest_subnet() else {
                self.hold("launches: the release names no subnet".to_owned());
                return;
            };
            self.open_slot(&subnet);
        }
    }

    fn open_slot(&mut self, subnet: &SubnetSpec) {
        let free = (0..).find(|number| !self.memory.slots.contains_key(number));
        let Some(number) = free else { return };
        let attempt = self.memory.attempts.get(&number).copied().unwrap_or(0) + 1;
        self.memory.attempts.insert(number, attempt);
        let slot = Slot {
            attempt,
            release: self.release.id.clone(),
            subnet: subnet.id.clone(),
            zone: subnet.zone.clone(),
            phase: Phase::Launching,
            since: self.now,
            worker: None,
            addr: None,
            missing_since: None,
        };
        self.memory.slots.insert(number, slot);
        self.launches.push(Launch { slot: number, attempt, subnet: subnet.id.clone() });
    }

    /// The subnet in the zone with fewest workers; zones without capacity only if there is no other.
    fn emptiest_subnet(&mut self) -> Option<SubnetSpec> {
        let now = self.now;
        self.memory.avoid.retain(|_, until| *until > now);
        let zones = self.zones();
        let subnets = self.release.worker.subnets.iter();
        subnets
            .min_by_key(|subnet| {
                let crowd = zones.get(subnet.zone.as_str()).copied().unwrap_or(0);
                (self.memory.avoid.contains_key(&subnet.id), crowd)
            })
            .cloned()
    }
}

/// 1, 2, 4 … 30 minutes.
fn pause(failures: u32) -> SignedDuration {
    let doublings = (failures - BOOT_LOOP).min(5);
    SignedDuration::from_mins(1 << doublings).min(LONGEST_PAUSE)
}
