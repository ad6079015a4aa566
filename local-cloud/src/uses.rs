//! The IAM permissions that callers used: the caller, the resource, and the number of uses. A test compares the report
//! with the policies, and has a second evaluator check it.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::call::Caller;
use crate::iam::Judgement;
use crate::iam::evaluate::Decision;
use crate::needs::Asked;

/// A stack with a hundred users needs a thousand; a benchmark with a million must not take all memory.
const MAX_USES: usize = 20_000;

/// More than one call names; S3 deletes at most this many objects at once.
const MAX_NAMES: usize = 1000;

/// A permission that a caller used.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Use {
    #[serde(flatten)]
    pub who: Who,
    #[serde(flatten)]
    pub asked: Asked,
    pub decision: Decision,
    /// Ids and values in the calls' parameters, at most a thousand: a read has no resource in IAM, but still
    /// names one.
    pub names: BTreeSet<String>,
    pub count: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Who {
    /// As in [`Caller`].
    pub caller: String,
    /// The Lambda function, if it is one.
    pub function: Option<String>,
    /// The ARN of the user or role whose policies count, or of the root.
    pub principal: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub uses: Vec<Use>,
    /// Number of uses that are not listed because there are too many.
    pub left_out: u64,
}

/// All uses since the local cloud was started.
#[derive(Debug, Default)]
pub struct Uses {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    uses: BTreeMap<(Who, Asked, Decision), (BTreeSet<String>, u64)>,
    left_out: u64,
}

impl Uses {
    pub(crate) fn add(&self, caller: &Caller, judgement: Judgement, named: &BTreeSet<String>) {
        let mut seen = self.seen.lock();
        let who = Who {
            caller: caller.name.clone(),
            function: caller.function.clone(),
            principal: judgement.identity.principal_arn(),
        };
        for one in judgement.all {
            let key = (who.clone(), one.asked, one.decision);
            if seen.uses.len() >= MAX_USES && !seen.uses.contains_key(&key) {
                seen.left_out += 1;
                continue;
            }
            let (names, count) = seen.uses.entry(key).or_default();
            *count += 1;
            for name in named {
                if names.len() < MAX_NAMES {
                    names.insert(name.clone());
                }
            }
        }
    }

    pub fn report(&self) -> Report {
        let seen = self.seen.lock();
        let uses = seen.uses.iter().map(|((who, asked, decision), (names, count))| Use {
            who: who.clone(),
            asked: asked.clone(),
            decision: *decision,
            names: names.clone(),
            count: *count,
        });
        Report { uses: uses.collect(), left_out: seen.left_out }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Principal;
    use crate::iam::{Identity, Judged};

    #[test]
    fn uses_are_counted_by_caller_up_to_a_bound() {
        let uses = Uses::default();
        let caller = |key: &str| Caller::new(key, &Principal::Operator);
        let read = |key: &str| Asked {
            action: "s3:GetObject".to_owned(),
            resource: format!("arn:aws:s3:::b/{key}"),
            context: BTreeMap::new(),
        };
        let add = |key: &str, asked: Asked| {
            let all = vec![Judged { asked, decision: Decision::Allowed }];
            uses.add(&caller(key), Judgement { identity: Identity::Root, all }, &BTreeSet::new());
        };
        add("one", read("k"));
        add("one", read("k"));
        add("two", read("k"));
        let counts: Vec<_> =
            uses.report().uses.iter().map(|used| (used.who.caller.clone(), used.count)).collect();
        assert_eq!(counts, [("one".to_owned(), 2), ("two".to_owned(), 1)]);
        for number in 0..MAX_USES {
            add("many", read(&number.to_string()));
        }
        add("one", read("k"));
        let report = uses.report();
        assert_eq!((report.uses.len(), report.left_out), (MAX_USES, 2));
        assert!(report.uses.iter().any(|used| used.who.caller == "one" && used.count == 3));
    }
}
