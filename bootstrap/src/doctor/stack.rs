//! Checks the stack itself: whether it can be reached from here, and whether it matches its deployment.

use super::Subject;
use crate::check::{Check, Verdict};
use crate::error::Result;
use crate::status;

pub(super) async fn look(subject: &Subject<'_>) -> Result<Vec<Check>> {
    if subject.release.is_none() {
        let detail = format!("there is no stack {}", subject.aws.names.stack);
        return Ok(vec![Check::new("stack", Verdict::NotKnownHere, detail)]);
    }
    let status = status::look(subject.aws).await?;
    Ok(judge(&status))
}

fn judge(status: &status::Status) -> Vec<Check> {
    let url = status.url.as_deref().unwrap_or("none");
    let reach = match status.answers.as_str() {
        "yes" => Check::new("reachability", Verdict::Ok, format!("{url} answers")),
        why => Check::new("reachability", Verdict::Failed, format!("{url}: {why}")).hint(
            "`make status` shows what the reconciler does about it. If this machine is outside --allow-cidr, \
                it gets no answer.",
        ),
    };
    let healthy = u32::try_from(status.healthy).unwrap_or(u32::MAX);
    let detail =
        format!("{healthy} healthy of {} desired", status.desired.map_or("?".to_owned(), |n| n.to_string()));
    let workers = match status.desired {
        Some(desired) if healthy >= desired => Check::new("workers", Verdict::Ok, detail),
        Some(desired) if healthy == 0 && desired > 0 => Check::new("workers", Verdict::Failed, detail)
            .hint("`make status` and `make logs OF=worker` show why."),
        _ => Check::new("workers", Verdict::Warning, detail)
            .hint("`make status` shows, after `Held back`, why the reconciler does not change the number."),
    };
    let reconciler = match (status.last_tick, status.is_late) {
        (Some(_), false) => Check::new("reconciler", Verdict::Ok, "it ticks"),
        (Some(at), true) => {
            let detail = format!("its last tick was at {}", at.strftime("%F %H:%M:%SZ"));
            Check::new("reconciler", Verdict::Failed, detail).hint(
                "`make logs OF=reconciler` shows why. `make deploy` repairs the schedule and the \
                    function.",
            )
        }
        (None, _) => Check::new("reconciler", Verdict::Warning, "it has not ticked yet")
            .hint("It ticks every 20 s. Wait a minute, then run this again."),
    };
    let mut checks = vec![reach, workers, reconciler];
    checks.extend(status.problem.iter().map(|problem| {
        Check::new("desired count", Verdict::Warning, problem.clone())
            .hint("`make scale N=…` writes a valid number.")
    }));
    checks.push(match status.drift.len() {
        0 => Check::new("drift", Verdict::Ok, "the stack matches its deployment"),
        1 => Check::new("drift", Verdict::Warning, status.drift[0].clone()),
        n => Check::new("drift", Verdict::Warning, format!("{n} differences"))
            .hint("`make status` lists them."),
    });
    checks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Status;

    fn verdicts(change: impl Fn(&mut Status)) -> Vec<(&'static str, Verdict)> {
        let mut status = Status::healthy();
        change(&mut status);
        judge(&status)
            .iter()
            .filter(|check| check.verdict != Verdict::Ok)
            .map(|check| (check.name, check.verdict))
            .collect()
    }

    #[test]
    fn each_thing_that_is_wrong_with_a_stack_is_a_line() {
        assert_eq!(verdicts(|_| ()), []);
        assert_eq!(
            verdicts(|status| status.answers = "no: no connection".to_owned()),
            [("reachability", Verdict::Failed)]
        );
        assert_eq!(verdicts(|status| status.healthy = 2), [("workers", Verdict::Warning)]);
        assert_eq!(verdicts(|status| status.healthy = 0), [("workers", Verdict::Failed)]);
        assert_eq!(verdicts(|status| (status.healthy, status.desired) = (0, Some(0))), []);
        assert_eq!(verdicts(|status| status.is_late = true), [("reconciler", Verdict::Failed)]);
        assert_eq!(verdicts(|status| status.last_tick = None), [("reconciler", Verdict::Warning)]);
        assert_eq!(verdicts(|status| status.drift.push("x".to_owned())), [("drift", Verdict::Warning)]);
        assert_eq!(
            verdicts(|status| status.problem = Some("x".to_owned())),
            [("desired count", Verdict::Warning)]
        );
    }
}
