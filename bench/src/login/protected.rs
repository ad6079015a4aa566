//! The page behind the session: a cookie is opened for each request, and S3 is read once in ten seconds for
//! each session.

use std::sync::Arc;
use std::time::Duration;

use accounts::Cost;
use anyhow::{Context as _, ensure};
use tokio::task::JoinSet;

use super::client::{Ask, Load, Pool};
use super::findings::Findings;
use super::ground::{Crowd, Ground, PASSWORD};
use super::worker::Worker;
use crate::balancer::statistics::Spread;
use crate::table::{progress, thousands};

const GOAL_PER_SECOND: f64 = 5000.0;

const SESSIONS: usize = 1000;
const CONNECTIONS: usize = 32;
/// As many as a worker with one core accepts.
const SIGN_INS_AT_ONCE: usize = 9;
const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(4);
/// Odd, so that the median is one of them.
const ROUNDS: usize = 3;

pub async fn measure(ground: &mut Ground) -> anyhow::Result<Findings> {
    let mut found = Findings::new(
        "GET /protected of one worker on one core, keep-alive: medians",
        ["answer", "sessions", "answers/s", "answers/CPU s", "CPU ms/1,000", "p50 ms", "p99 ms"],
    );
    // For the sign-ins, which are not measured here.
    let cost: Cost = "m=7168,t=5,p=1".parse()?;
    let crowd = Crowd::named("bob", SESSIONS);
    ground.clear();
    ground.settle(&crowd, &cost)?;
    let worker = Worker::start(ground, &cost).await?;
    progress(&format!("{} sessions begin", thousands(SESSIONS)));
    let sessions = Arc::new(sessions(&worker, crowd).await?);
    for (answer, is_page) in [("JSON", false), ("HTML", true)] {
        for number in [1, SESSIONS] {
            progress(&format!("/protected, {answer}, {}", thousands(number)));
            let (mut rates, mut costs, mut p50, mut p99) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                let sessions = Arc::clone(&sessions);
                let ask = move |turn| {
                    let ask = Ask::protected(sessions.get(turn % number).map_or("", String::as_str));
                    if is_page { ask.page() } else { ask }
                };
                let (pace, latency) = load().run(worker.addr, || worker.cpu(), ask).await?;
                rates.push(pace.per_second);
                costs.push(pace.cpu_ms * 1000.0);
                p50.push(latency.p50);
                p99.push(latency.p99);
            }
            let of = |values: Vec<f64>| Spread::of(values).context("there was no round");
            let (rate, cost) = (of(rates)?, of(costs)?);
            let per_core = 1e6 / cost.median;
            found.row([
                answer.to_owned(),
                thousands(number),
                rate.text(0),
                format!("{per_core:.0}"),
                cost.text(1),
                of(p50)?.text(2),
                of(p99)?.text(2),
            ]);
            found.goal(
                format!(
                    "GET /protected, {answer}, {} session(s): {:.0}/s on a core (goal: {GOAL_PER_SECOND})",
                    thousands(number),
                    rate.median
                ),
                rate.median >= GOAL_PER_SECOND,
            );
        }
    }
    found.notes.push(format!(
        "{ROUNDS} rounds of {} s (least..most); {CONNECTIONS} connections. Clients and S3 share the other core, which \
         limits answers/s; a second of the worker's core is good for answers/CPU s.",
        MEASURED.as_secs()
    ));
    Ok(found)
}

fn load() -> Load {
    let (connections, at_once) = (CONNECTIONS, CONNECTIONS);
    Load { connections, at_once, warm_up: WARM_UP, measured: MEASURED, expected: 200 }
}

/// Makes one session for each user.
async fn sessions(worker: &Worker, crowd: Crowd) -> anyhow::Result<Vec<String>> {
    let pool = Arc::new(Pool::open(worker.addr, SIGN_INS_AT_ONCE).await?);
    let crowd = Arc::new(crowd);
    let mut clients = JoinSet::new();
    for client in 0..SIGN_INS_AT_ONCE {
        let (pool, crowd) = (Arc::clone(&pool), Arc::clone(&crowd));
        clients.spawn(async move {
            let mut sessions = Vec::new();
            for login in crowd.logins.iter().skip(client).step_by(SIGN_INS_AT_ONCE) {
                let answer = pool.send(&Ask::sign_in(login, PASSWORD)).await?;
                ensure!(answer.status == 303, "answered {}: {:?}", answer.status, answer.body);
                sessions.push(answer.session().context("no session")?.to_owned());
            }
            Ok(sessions)
        });
    }
    let mut sessions = Vec::new();
    while let Some(client) = clients.join_next().await {
        sessions.append(&mut client??);
    }
    Ok(sessions)
}
