//! Reasons other than permissions for which this account gets no instance: quotas, AWS's verification of the
//! account, and the instance types that each zone offers. All can be changed while the local cloud runs.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use crate::quotas::{Quota, Quotas, standard_vcpus};

/// An error code of EC2 and its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: &'static str,
    pub message: String,
}

impl Refusal {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub fn vpcs() -> Self {
        Self::new("VpcLimitExceeded", "The maximum number of VPCs has been reached.")
    }

    pub fn addresses() -> Self {
        Self::new("AddressLimitExceeded", "The maximum number of addresses has been reached.")
    }
}

/// AWS's verification of the account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state", deny_unknown_fields)]
pub enum Verification {
    #[default]
    Done,
    /// A new account's first launches in a region. Ends after this many seconds or refused launches; without
    /// either it does not end by itself.
    Pending {
        seconds: Option<u64>,
        launches: Option<u32>,
    },
    Blocked,
}

/// How a launch is paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Market {
    OnDemand,
    Spot,
}

/// An instance that uses vCPUs of a quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    pub instance_type: String,
    pub market: Market,
}

/// An instance type that a zone does not offer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Gap {
    pub zone: String,
    pub instance_type: String,
}

/// The readable state of all of this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct View {
    pub quotas: Quotas,
    pub verification: Verification,
    pub not_offered: BTreeSet<Gap>,
}

#[derive(Debug)]
pub struct Account {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    quotas: Quotas,
    verification: Verification,
    since: Instant,
    gaps: BTreeSet<Gap>,
}

impl Account {
    pub fn new(quotas: Quotas) -> Self {
        let state =
            State { quotas, verification: Verification::Done, since: Instant::now(), gaps: BTreeSet::new() };
        Self { state: Mutex::new(state) }
    }

    pub fn view(&self, now: Instant) -> View {
        let mut state = self.lock();
        state.verify(now);
        View {
            quotas: state.quotas.clone(),
            verification: state.verification,
            not_offered: state.gaps.clone(),
        }
    }

    pub fn quota(&self, quota: Quota) -> u32 {
        self.lock().quotas.of(quota)
    }

    pub fn change_quotas(&self, changes: &Quotas) {
        let mut state = self.lock();
        state.quotas = state.quotas.clone().change(changes);
    }

    pub fn set_verification(&self, verification: Verification, now: Instant) {
        let mut state = self.lock();
        (state.verification, state.since) = (verification, now);
    }

    pub fn set_offered(&self, gap: Gap, is_offered: bool) {
        let mut state = self.lock();
        let _changed = if is_offered { state.gaps.remove(&gap) } else { state.gaps.insert(gap) };
    }

    pub fn offers(&self, zone: &str, instance_type: &str) -> bool {
        let gap = Gap { zone: zone.to_owned(), instance_type: instance_type.to_owned() };
        !self.lock().gaps.contains(&gap)
    }

    /// Returns whether this account may launch anything now. Counts the launch if not.
    pub fn may_launch(&self, now: Instant) -> Result<(), Refusal> {
        let mut state = self.lock();
        state.verify(now);
        match &mut state.verification {
            Verification::Done => Ok(()),
            Verification::Pending { launches, .. } => {
                *launches = launches.map(|launches| launches.saturating_sub(1));
                Err(Refusal::new("PendingVerification", PENDING))
            }
            Verification::Blocked => Err(Refusal::new("Blocked", BLOCKED)),
        }
    }

    /// Returns whether one more instance has room among the pending and running ones.
    pub fn has_room(&self, wanted: &Running, running: &[Running]) -> Result<(), Refusal> {
        let Some(needed) = standard_vcpus(&wanted.instance_type) else { return Ok(()) };
        let same = running.iter().filter(|other| other.market == wanted.market);
        let used: u32 = same.filter_map(|other| standard_vcpus(&other.instance_type)).sum();
        let (quota, refuse): (_, fn(u32) -> Refusal) = match wanted.market {
            Market::OnDemand => (Quota::Vcpus, vcpu_limit),
            Market::Spot => (Quota::SpotVcpus, spot_limit),
        };
        let limit = self.quota(quota);
        if used.saturating_add(needed) <= limit { Ok(()) } else { Err(refuse(limit)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    /// Ends a verification that is due.
    fn verify(&mut self, now: Instant) {
        let Verification::Pending { seconds, launches } = self.verification else { return };
        let waited = now.saturating_duration_since(self.since);
        let is_over = seconds.is_some_and(|seconds| waited >= Duration::from_secs(seconds));
        if is_over || launches == Some(0) {
            self.verification = Verification::Done;
        }
    }
}

/// Returns the error for a zone that does not offer the type, with the zones that do.
pub fn not_offered(instance_type: &str, zone: &str, others: &[String]) -> Refusal {
    let message = format!(
        "Your requested instance type ({instance_type}) is not supported in your requested Availability Zone \
         ({zone}). Please retry your request by not specifying an Availability Zone or choosing {}.",
        others.join(", ")
    );
    Refusal::new("Unsupported", message)
}

fn vcpu_limit(limit: u32) -> Refusal {
    let message = format!(
        "You have requested more vCPU capacity than your current vCPU limit of {limit} allows for the instance \
         bucket that the specified instance type belongs to. Please visit \
         http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit."
    );
    Refusal::new("VcpuLimitExceeded", message)
}

fn spot_limit(_: u32) -> Refusal {
    Refusal::new("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
}

const PENDING: &str = "Your request for accessing resources in this region is being validated, and you will not \
    be able to launch additional resources in this region until the validation is complete. We will notify you \
    by email once your request has been validated. While normally resolved within minutes, please allow up to 4 \
    hours for this process to complete. If the issue still persists, please let us know by writing to \
    aws-verification@amazon.com for further assistance.";

const BLOCKED: &str = "This account is currently blocked and not recognized as a valid account. Please contact \
    aws-verification@amazon.com if you have questions.";

#[cfg(test)]
mod tests {
    use super::*;

    fn account(vcpus: u32, spot: u32) -> Account {
        let changes = Quotas::parse(&[(Quota::Vcpus, vcpus), (Quota::SpotVcpus, spot)]);
        Account::new(Quotas::generous(1).change(&changes))
    }

    fn nano(market: Market) -> Running {
        Running { instance_type: "t4g.nano".to_owned(), market }
    }

    #[test]
    fn the_last_vcpu_of_the_quota_can_be_had() {
        let account = account(4, 0);
        let one = nano(Market::OnDemand);
        assert_eq!(account.has_room(&one, std::slice::from_ref(&one)), Ok(()));
        let refused = account.has_room(&one, &[one.clone(), one.clone()]).expect_err("full");
        assert_eq!(refused.code, "VcpuLimitExceeded");
        assert!(refused.message.contains("current vCPU limit of 4 allows"), "{}", refused.message);
    }

    #[test]
    fn spot_and_on_demand_do_not_count_together() {
        let account = account(2, 2);
        let (bought, spot) = (nano(Market::OnDemand), nano(Market::Spot));
        assert_eq!(account.has_room(&spot, std::slice::from_ref(&bought)), Ok(()));
        let refused = account.has_room(&spot, &[bought, spot.clone()]).expect_err("full");
        assert_eq!(refused, Refusal::new("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded"));
    }

    #[test]
    fn families_with_quotas_of_their_own_are_not_counted() {
        let account = account(2, 0);
        let other = Running { instance_type: "g5.xlarge".to_owned(), market: Market::OnDemand };
        assert_eq!(account.has_room(&nano(Market::OnDemand), std::slice::from_ref(&other)), Ok(()));
        assert_eq!(account.has_room(&other, &[nano(Market::OnDemand)]), Ok(()));
    }

    #[test]
    fn a_pending_verification_is_over_after_its_launches() {
        let (account, now) = (account(9, 9), Instant::now());
        account.set_verification(Verification::Pending { seconds: None, launches: Some(2) }, now);
        let codes = [(); 3].map(|()| account.may_launch(now).map_err(|refusal| refusal.code));
        assert_eq!(codes, [Err("PendingVerification"), Err("PendingVerification"), Ok(())]);
    }

    #[test]
    fn a_pending_verification_is_over_after_its_seconds() {
        let (account, now) = (account(9, 9), Instant::now());
        account.set_verification(Verification::Pending { seconds: Some(5), launches: None }, now);
        assert!(account.may_launch(now + Duration::from_millis(4999)).is_err());
        assert_eq!(account.may_launch(now + Duration::from_secs(5)), Ok(()));
    }

    #[test]
    fn a_blocked_account_stays_blocked() {
        let (account, now) = (account(9, 9), Instant::now());
        account.set_verification(Verification::Blocked, now);
        let much_later = now + Duration::from_secs(86_400);
        assert_eq!(account.may_launch(much_later).map_err(|refusal| refusal.code), Err("Blocked"));
    }
}
