//! What facts mean: pure, so that a table can test it.

use jiff::SignedDuration;

use super::{Check, Verdict};

/// AWS refuses requests whose time is 5 minutes off, some services only at 15.
const REFUSED: SignedDuration = SignedDuration::from_secs(5 * 60);
/// A clock that is kept by anybody is within a second or two; Date has whole ones.
const KEPT: SignedDuration = SignedDuration::from_secs(30);

pub(super) fn clock(skew: SignedDuration) -> Check {
    let off = skew.abs();
    let way = if skew.is_negative() { "behind" } else { "ahead of" };
    let detail = format!("{} s {way} AWS", off.as_secs());
    let verdict = match off {
        off if off >= REFUSED => Verdict::Failed,
        off if off > KEPT => Verdict::Warning,
        _ => Verdict::Ok,
    };
    let check = Check::new("clock", verdict, detail);
    if verdict == Verdict::Ok {
        return check;
    }
    check.mend("Set it (systemd: `timedatectl set-ntp true`): AWS refuses requests that are 5 minutes off.")
}

/// So many of something that an account has a limit of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quota {
    pub limit: u32,
    /// By everything but this stack.
    pub used: u32,
    /// By this stack, at the most that it ever has.
    pub needed: u32,
}

pub(super) fn quota(name: &'static str, quota: Quota, what: &str, mend: &str) -> Check {
    let Quota { limit, used, needed } = quota;
    let detail = format!("{needed} {what} needed, {used} used by others, limit {limit}");
    let left = limit.saturating_sub(used);
    let verdict = match needed {
        needed if needed > left => Verdict::Failed,
        // The next stack, or twice as many workers, would fail.
        needed if needed * 2 > left => Verdict::Warning,
        _ => Verdict::Ok,
    };
    let check = Check::new(name, verdict, detail);
    if verdict == Verdict::Ok { check } else { check.mend(mend) }
}

/// vCPUs that a stack has at the most: workers, a tenth of them or one beyond while a release is rolled
/// out, the load balancer and its replacement.
pub(super) fn vcpus_needed(workers: u32, each: u32) -> u32 {
    (workers + workers.div_ceil(10).max(1) + 2) * each
}

pub(super) fn concurrency(limit: i32, unreserved: i32) -> Check {
    let detail =
        format!("{unreserved} of {limit} executions at once are left to functions without a reservation");
    let verdict = match unreserved {
        ..=0 => Verdict::Failed,
        // As new accounts have it: the reconciler needs one, and shares with everything else.
        1..=10 => Verdict::Warning,
        _ => Verdict::Ok,
    };
    let check = Check::new("Lambda concurrency", verdict, detail);
    if verdict == Verdict::Ok {
        return check;
    }
    check.mend("The reconciler needs one. Ask for more in the Service Quotas console: Lambda, Concurrent executions.")
}

/// `zones` are those that the stack has or would have subnets in; `offered` where EC2 has the type.
pub(super) fn zones_of_type(kind: &str, zones: &[String], offered: &[String]) -> Check {
    let name = "instance type";
    let missing: Vec<&str> =
        zones.iter().filter(|zone| !offered.contains(zone)).map(String::as_str).collect();
    let mend = "Choose another with --instance-type (make: INSTANCE_TYPE=…), or another region.";
    if zones.is_empty() || offered.is_empty() {
        return Check::new(name, Verdict::Failed, format!("{kind} is not offered here")).mend(mend);
    }
    match (missing.len(), zones.len()) {
        (0, 1) => Check::new(
            name,
            Verdict::Warning,
            format!("{kind} in {} alone; its loss takes the stack down", zones[0]),
        ),
        (0, _) => Check::new(name, Verdict::Ok, format!("{kind} in {}", zones.join(" and "))),
        (missing_zones, all) if missing_zones < all => {
            let detail =
                format!("{kind} is not offered in {}; workers all start elsewhere", missing.join(" and "));
            Check::new(name, Verdict::Warning, detail).mend(mend)
        }
        _ => Check::new(name, Verdict::Failed, format!("{kind} is offered in none of {}", zones.join(", ")))
            .mend(mend),
    }
}

/// What carries the stack's name although there is no stack.
pub(super) fn leftovers(stack: &str, found: &[String], kept: Option<&str>) -> Check {
    let name = "leftovers";
    if found.is_empty() {
        let detail = match kept {
            None => "none".to_owned(),
            Some(bucket) => format!("none but the users, which were kept in {bucket}"),
        };
        return Check::new(name, Verdict::Ok, detail);
    }
    let detail = format!("there is no stack {stack}, but {}", found.join(", "));
    Check::new(name, Verdict::Warning, detail).mend(
        "`make deploy` goes on with them; `make destroy` removes them, and what costs money among them.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_judged_as_aws_judges_it() {
        for (seconds, verdict) in [
            (0, Verdict::Ok),
            (-30, Verdict::Ok),
            (31, Verdict::Warning),
            (-299, Verdict::Warning),
            (300, Verdict::Failed),
            (-4000, Verdict::Failed),
        ] {
            assert_eq!(clock(SignedDuration::from_secs(seconds)).verdict, verdict, "{seconds}");
        }
        assert!(clock(SignedDuration::from_secs(-40)).detail.contains("40 s behind"));
    }

    #[test]
    fn a_quota_fails_when_this_stack_does_not_fit_and_warns_when_the_next_would_not() {
        let verdict = |limit, used, needed| quota("q", Quota { limit, used, needed }, "x", "ask").verdict;
        assert_eq!(verdict(5, 4, 1), Verdict::Warning);
        assert_eq!(verdict(5, 5, 1), Verdict::Failed);
        assert_eq!(verdict(5, 6, 1), Verdict::Failed);
        assert_eq!(verdict(5, 3, 1), Verdict::Ok);
        assert_eq!(verdict(5, 5, 0), Verdict::Ok, "the stack has its own already");
    }

    #[test]
    fn a_rollout_and_a_replaced_load_balancer_are_counted() {
        assert_eq!(
            [(3, 2), (1, 2), (100, 2)].map(|(workers, each)| vcpus_needed(workers, each)),
            [12, 8, 224]
        );
    }

    #[test]
    fn lambda_needs_one_execution_that_nobody_reserves() {
        assert_eq!(
            [0, 10, 1000].map(|left| concurrency(1000, left).verdict),
            [Verdict::Failed, Verdict::Warning, Verdict::Ok]
        );
    }

    #[test]
    fn a_type_has_to_be_in_the_zones_of_the_stack() {
        let zones = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let verdict =
            |ours: &[&str], offered: &[&str]| zones_of_type("t", &zones(ours), &zones(offered)).verdict;
        assert_eq!(verdict(&["a", "b"], &["a", "b", "c"]), Verdict::Ok);
        assert_eq!(verdict(&["a", "b"], &["b", "c"]), Verdict::Warning);
        assert_eq!(verdict(&["a", "b"], &["c"]), Verdict::Failed);
        assert_eq!(verdict(&["a", "b"], &[]), Verdict::Failed);
        assert_eq!(verdict(&["a"], &["a"]), Verdict::Warning);
    }

    #[test]
    fn users_that_were_kept_are_no_leftover() {
        assert_eq!(leftovers("a", &[], Some("b")).verdict, Verdict::Ok);
        let found = leftovers("a", &["VPC vpc-1".to_owned()], None);
        assert!(found.verdict == Verdict::Warning && found.detail.contains("vpc-1"), "{found:?}");
    }
}
