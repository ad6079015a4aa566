//! Counts the checked calls and keeps the denied ones.

use std::collections::VecDeque;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::evaluate::Decision;
use super::{Identity, Judgement};

/// A deployment without permissions makes a few dozen calls; a fleet without its role makes them for ever.
const MAX_DENIED: usize = 1000;

/// The answer of `/_local-cloud/iam`, since the local cloud was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Calls of users and roles; calls of the root are not counted here.
    pub judged: u64,
    pub allowed: u64,
    pub denied: u64,
    /// Calls of the root, which may do everything that no bucket's policy denies.
    pub root: u64,
    /// The last denied calls, oldest first.
    pub denials: Vec<Denial>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    pub principal: String,
    pub action: String,
    pub resource: String,
    pub decision: Decision,
}

#[derive(Debug, Default)]
pub(crate) struct Verdicts(Mutex<(Report, VecDeque<Denial>)>);

impl Verdicts {
    pub(crate) fn add(&self, judgement: &Judgement) {
        let mut seen = self.0.lock();
        let (report, denials) = &mut *seen;
        let denied = judgement.denied();
        if judgement.identity == Identity::Root && denied.is_none() {
            report.root += 1;
            return;
        }
        report.judged += 1;
        let Some(denied) = denied else {
            report.allowed += 1;
            return;
        };
        report.denied += 1;
        if denials.len() >= MAX_DENIED {
            denials.pop_front();
        }
        denials.push_back(Denial {
            principal: judgement.identity.arn(),
            action: denied.asked.action.clone(),
            resource: denied.asked.resource.clone(),
            decision: denied.decision,
        });
    }

    pub(crate) fn report(&self) -> Report {
        let seen = self.0.lock();
        Report { denials: seen.1.iter().cloned().collect(), ..seen.0.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::iam::Judged;
    use crate::needs::Asked;

    fn judgement(identity: Identity, decisions: &[Decision]) -> Judgement {
        let asked = |action: String| Asked { action, resource: "*".to_owned(), context: BTreeMap::new() };
        let all = decisions.iter().enumerate();
        let all = all.map(|(n, decision)| Judged { asked: asked(format!("s3:{n}")), decision: *decision });
        Judgement { identity, all: all.collect() }
    }

    #[test]
    fn a_call_is_denied_when_one_of_its_permissions_is() {
        let verdicts = Verdicts::default();
        let user = || Identity::User("u".to_owned());
        verdicts.add(&judgement(user(), &[Decision::Allowed, Decision::Allowed]));
        verdicts.add(&judgement(user(), &[Decision::Allowed, Decision::NotAllowed]));
        verdicts.add(&judgement(Identity::Root, &[Decision::Allowed]));
        let report = verdicts.report();
        assert_eq!((report.judged, report.allowed, report.denied, report.root), (2, 1, 1, 1));
        assert_eq!(report.denials[0].action, "s3:1");
        assert_eq!(report.denials[0].principal, user().arn());
    }

    #[test]
    fn only_the_last_denials_are_kept() {
        let verdicts = Verdicts::default();
        for _ in 0..MAX_DENIED + 1 {
            verdicts.add(&judgement(Identity::Unknown, &[Decision::NotAllowed]));
        }
        let report = verdicts.report();
        assert_eq!((report.denied, report.denials.len()), (MAX_DENIED as u64 + 1, MAX_DENIED));
    }
}
