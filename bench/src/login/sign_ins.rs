//! Sign-ins, compared with the hashes of one thread that does nothing else on the same core.
//!
//! The two alternate, so that other work of the machine meets both. Both are given as a rate and as time on
//! the core, because the rate alone is wrong when another process uses a part of the core. A sign-in here is
//! a good one: two reads of S3, one evaluation, and one write that keeps it for the user to see.

use std::sync::Arc;
use std::time::Duration;

use accounts::Cost;
use anyhow::Context as _;

use super::bare;
use super::client::{Ask, Load, Pace};
use super::findings::Findings;
use super::ground::{Crowd, Ground, PASSWORD};
use super::worker::Worker;
use crate::balancer::statistics::Spread;
use crate::table::progress;

const GOAL: f64 = 0.9;
/// <https://www.keycloak.org/high-availability/multi-cluster/concepts-memory-and-cpu-sizing>: "15
/// password-based user logins per second" for each vCPU.
const KEYCLOAK_PER_SECOND: f64 = 15.0;
const KEYCLOAK: &str = "m=7168,t=5,p=1";

const USERS: usize = 10_000;
const CONNECTIONS: usize = 64;
/// One is hashed and eight may wait: none is turned away, and the core never waits.
const AT_ONCE: usize = 9;

const BARE: Duration = Duration::from_secs(4);
const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(6);

pub async fn measure(ground: &mut Ground, rounds: usize) -> anyhow::Result<Findings> {
    let mut found = Findings::new(
        "Sign-ins of one worker on one core, and hashes alone on the same core, by turns: medians",
        [
            "parameters",
            "sign-ins/s",
            "hashes/s",
            "ratio",
            "CPU ms/sign-in",
            "CPU ms/hash",
            "ratio",
            "p50 ms",
            "p99 ms",
        ],
    );
    let keycloak: Cost = KEYCLOAK.parse()?;
    for cost in [Cost::default(), keycloak.clone()] {
        progress(&format!("sign-ins at {cost}"));
        let crowd = Arc::new(Crowd::named("ana", USERS));
        ground.clear();
        ground.settle(&crowd, &cost)?;
        let worker = Worker::start(ground, &cost).await?;
        let (mut hashes, mut sign_ins, mut latencies) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            hashes.push(bare::measure(ground.core, &cost, BARE).await?);
            let crowd = Arc::clone(&crowd);
            let ask = move |turn| Ask::sign_in(crowd.login(turn + round * USERS / 7), PASSWORD);
            let (pace, latency) = load().run(worker.addr, || worker.cpu(), ask).await?;
            progress(&format!(
                "  {:.2} hashes/s, {:.2} sign-ins/s",
                hashes[round].per_second, pace.per_second
            ));
            sign_ins.push(pace);
            latencies.push(latency);
        }
        let of = |paces: &[Pace], part: fn(&Pace) -> f64| {
            Spread::of(paces.iter().map(part)).context("there was no round")
        };
        let (served, bare) = (of(&sign_ins, |pace| pace.per_second)?, of(&hashes, |pace| pace.per_second)?);
        let (served_cpu, bare_cpu) = (of(&sign_ins, |pace| pace.cpu_ms)?, of(&hashes, |pace| pace.cpu_ms)?);
        let median = |values: Vec<f64>| Spread::of(values).map_or(0.0, |spread| spread.median);
        found.row([
            cost.to_string(),
            served.text(1),
            bare.text(1),
            format!("{:.3}", served.median / bare.median),
            served_cpu.text(1),
            bare_cpu.text(1),
            format!("{:.3}", bare_cpu.median / served_cpu.median),
            format!("{:.0}", median(latencies.iter().map(|latency| latency.p50).collect())),
            format!("{:.0}", median(latencies.iter().map(|latency| latency.p99).collect())),
        ]);
        // On a shared core one of the two may have had more of it; on an exclusive core both ratios are the
        // same.
        let ratio = (served.median / bare.median).min(bare_cpu.median / served_cpu.median);
        found.goal(
            format!(
                "sign-ins at {cost}: {:.1}/s; the core alone makes {:.1} hashes/s; the lower ratio, of rates \
                    or of time on the core, is {ratio:.3} (goal: at least {GOAL})",
                served.median, bare.median
            ),
            ratio >= GOAL,
        );
        if cost == keycloak {
            found.goal(
                format!(
                    "sign-ins at Keycloak's parameters ({cost}): {:.1}/s on a core (goal: Keycloak's own sizing, \
                     {KEYCLOAK_PER_SECOND} password logins per second and vCPU)",
                    served.median
                ),
                served.median >= KEYCLOAK_PER_SECOND,
            );
        }
    }
    found.notes.push(format!(
        "{rounds} rounds (least..most); {USERS} users, {CONNECTIONS} connections, {AT_ONCE} sign-ins at once. The second ratio \
         is that of the time"
    ));
    found.notes.push("on the core, which others on the machine change less.".to_owned());
    Ok(found)
}

fn load() -> Load {
    Load { connections: CONNECTIONS, at_once: AT_ONCE, warm_up: WARM_UP, measured: MEASURED, expected: 303 }
}
