//! Turns facts into checks. Pure, so that a table can test it.

use jiff::SignedDuration;

use crate::check::{Check, Verdict};

/// AWS refuses requests whose time is 5 minutes off; some services allow 15.
const REFUSED: SignedDuration = SignedDuration::from_secs(5 * 60);
/// A synchronised clock is right within a second or two; Date has whole seconds.
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
    check.hint(
        "Set the clock (systemd: `timedatectl set-ntp true`): AWS refuses requests that are 5 minutes \
        off.",
    )
}

/// `zones` are the zones of the stack's subnets, present or planned; `offered` those where EC2 has the type.
pub(super) fn zones_of_type(kind: &str, zones: &[String], offered: &[String]) -> Check {
    let name = "instance type";
    let missing: Vec<&str> =
        zones.iter().filter(|zone| !offered.contains(zone)).map(String::as_str).collect();
    let hint = "Choose another with --instance-type (make: INSTANCE_TYPE=…), or another region.";
    if zones.is_empty() || offered.is_empty() {
        return Check::new(name, Verdict::Failed, format!("{kind} is not offered here")).hint(hint);
    }
    match (missing.len(), zones.len()) {
        (0, 1) => Check::new(
            name,
            Verdict::Warning,
            format!("{kind} is offered in {} only; if that zone fails, the stack is down", zones[0]),
        ),
        (0, _) => Check::new(name, Verdict::Ok, format!("{kind} in {}", zones.join(" and "))),
        (missing_zones, all) if missing_zones < all => {
            let detail =
                format!("{kind} is not offered in {}; workers all start elsewhere", missing.join(" and "));
            Check::new(name, Verdict::Warning, detail).hint(hint)
        }
        _ => Check::new(name, Verdict::Failed, format!("{kind} is offered in none of {}", zones.join(", ")))
            .hint(hint),
    }
}

/// Checks for resources that carry the stack's name although there is no stack.
pub(super) fn leftovers(stack: &str, found: &[String], kept: Option<&str>) -> Check {
    let name = "leftovers";
    if found.is_empty() {
        let detail = match kept {
            None => "none".to_owned(),
            Some(bucket) => format!("only the users, which were kept in {bucket}"),
        };
        return Check::new(name, Verdict::Ok, detail);
    }
    let detail = format!("there is no stack {stack}, but {}", found.join(", "));
    Check::new(name, Verdict::Warning, detail)
        .hint("`make deploy` reuses them. `make destroy` removes them, so that they no longer cost money.")
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
