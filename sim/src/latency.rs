//! Measures many clean faults, against goals.

use crate::clock::{MINUTE, Millis, NEVER};
use crate::course::{BROKEN, Course};
use crate::output::{line, quantiles};
use crate::run::run_seed;
use crate::scenario::{Scenario, Single};

/// Measures each kind of single fault over many seeds; says whether all goals are met.
pub fn measure(first_seed: u64, seeds: u64) -> bool {
    line(&format!("{seeds} seeds of each; from the fault, in seconds"));
    let mut is_met = true;
    let mut goal = |what: &str, is_reached: bool| {
        is_met &= is_reached;
        line(&format!("  goal: {what}: {}", if is_reached { "met" } else { "MISSED" }));
    };
    for (single, name, decision) in [
        (Single::ProgramDead, "worker's program dead", Some(25_000)),
        (Single::HostDead, "worker's host dead", Some(45_000)),
        (Single::Hang, "worker hung", Some(45_000)),
        (Single::Terminated, "worker terminated", Some(25_000)),
        (Single::BalancerDead, "load balancer's host dead", Some(45_000)),
    ] {
        let courses = run(single, first_seed, seeds);
        line(name);
        let decided = since(&courses, |course| course.decided);
        line(&format!("  to decision       {}", quantiles(&decided)));
        line(&format!("  to launch         {}", quantiles(&since(&courses, |course| course.launched))));
        line(&format!("  to full capacity  {}", quantiles(&since(&courses, |course| course.whole))));
        if let Some(most) = decision {
            goal(&format!("decision p99 within {} s", most / 1000), p99(&decided) <= most);
        }
    }
    let courses = run(Single::BootStuck, first_seed, seeds);
    let second: Vec<Millis> =
        courses.iter().filter_map(|course| Some(course.launches.get(1)? - course.launches[0])).collect();
    line("boot stuck");
    line(&format!("  launch to next launch  {}", quantiles(&second)));
    goal("the next launch within 300 s", worst(&second) <= 300_000);
    let courses = run(Single::Orphan, first_seed, seeds);
    let ended = since(&courses, |course| course.ended);
    line("orphan");
    line(&format!("  to its end        {}", quantiles(&ended)));
    goal("its end p99 within 140 s", p99(&ended) <= 140_000);
    let courses = run(Single::ReleaseBroken, first_seed, seeds);
    let early = |course: &Course| course.launches.iter().filter(|at| **at < 3 * MINUTE).count();
    let most = courses.iter().map(early).max().unwrap_or(0);
    let in_half_an_hour = courses.iter().map(|course| course.launches.len()).max().unwrap_or(0);
    line("release broken from the start");
    line(&format!(
        "  launches before the first pause: {most} at most; in the first 30 min: {in_half_an_hour} at most"
    ));
    goal("3 launches at most before the pause", most <= 3);
    let courses = run(Single::ProberBroken, first_seed, seeds / 4);
    let most = |counts: &dyn Fn(&Course) -> usize| courses.iter().map(counts).max().unwrap_or(0);
    let ends = |is_within: bool| {
        most(&|course: &Course| {
            let end = course.struck.map_or(0, |struck| struck + BROKEN);
            course.ends.iter().filter(|at| (**at < end) == is_within).count()
        })
    };
    let (within, after) = (ends(true), ends(false));
    line("prober broken for two hours");
    line(&format!("  launched: {} at most", most(&|course: &Course| course.launches.len())));
    line(&format!(
        "  terminated during the fault: {within} at most; afterwards, as surplus: {after} at most"
    ));
    goal("no worker is terminated during the fault", within == 0);
    is_met
}

fn run(single: Single, first_seed: u64, seeds: u64) -> Vec<Course> {
    let one = |seed| run_seed(Scenario::single(seed, single), Default::default(), false);
    (first_seed..first_seed + seeds).map(|seed| one(seed).course).collect()
}

fn since(courses: &[Course], of: impl Fn(&Course) -> Option<Millis>) -> Vec<Millis> {
    courses.iter().filter_map(|course| Some(of(course)? - course.struck?)).collect()
}

fn p99(durations: &[Millis]) -> Millis {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    sorted.get((sorted.len().saturating_sub(1)) * 99 / 100).copied().unwrap_or(NEVER)
}

fn worst(durations: &[Millis]) -> Millis {
    durations.iter().copied().max().unwrap_or(NEVER)
}
