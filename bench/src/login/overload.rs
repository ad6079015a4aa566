//! Ten times as many sign-ins as one core can handle, sent whether or not it answers.
//!
//! A second flood asks for logins that no account can have. They are hashed as others are, but nothing is
//! read from S3 before, nor written after: it shows the cost of turning away if it came first.
//!
//! Memory is bounded by the base, an arena of 19 MiB for each permit, and a fifth. The pool writes to its
//! arenas when it is made, so they are resident from the start: the base is the memory resident after the
//! start, less the arenas. The kernel's list of mappings must confirm that.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use accounts::Cost;
use anyhow::{Context as _, ensure};
use axum::http::header::RETRY_AFTER;
use tokio::sync::oneshot::Receiver;
use tokio::task::JoinSet;

use super::bare;
use super::client::{Ask, Connection, Pool, float, milliseconds, per_second};
use super::findings::Findings;
use super::ground::{Crowd, Ground, PASSWORD};
use super::worker::Worker;
use crate::load::report::{Latencies, Latency};
use crate::table::progress;

const TIMES: f64 = 10.0;
const USERS: usize = 10_000;
/// A worker on one core has one permit.
const PERMITS: usize = 1;
const BARE: Duration = Duration::from_secs(5);
/// Until the worker is fully loaded.
const WARM_UP: Duration = Duration::from_secs(1);
const HEALTH_EVERY: Duration = Duration::from_millis(50);
const LOOK_EVERY: Duration = Duration::from_millis(100);

const GOAL_SERVED: f64 = 0.9;
const GOAL_HEALTH_MS: f64 = 50.0;
const GOAL_SERVED_MS: f64 = 2500.0;
const GOAL_MEMORY: f64 = 1.2;

struct Outcome {
    status: u16,
    says_when: bool,
    /// Since the moment it was due.
    took: Duration,
    at: Instant,
}

/// The worker's state during the flood.
struct Seen {
    outcomes: Vec<Outcome>,
    health: Latency,
    unhealthy: usize,
    resident_kib: usize,
    cores_used: f64,
    descriptors: usize,
}

/// The requests of a flood.
#[derive(Clone, Copy)]
enum Kind {
    SignIn,
    /// Its login breaks a rule.
    Impossible,
}

impl Kind {
    fn ask(self, login: &str) -> Ask {
        match self {
            Self::SignIn => Ask::sign_in(login, PASSWORD),
            Self::Impossible => Ask::sign_in(&format!("{login} / {login}"), PASSWORD),
        }
    }

    /// Returns the status of a hashed sign-in.
    fn served(self) -> u16 {
        match self {
            Self::SignIn => 303,
            Self::Impossible => 401,
        }
    }
}

pub async fn measure(ground: &mut Ground, lasts: Duration) -> anyhow::Result<Findings> {
    let cost = Cost::default();
    let crowd = Crowd::named("eva", USERS);
    ground.clear();
    ground.settle(&crowd, &cost)?;
    let worker = Worker::start(ground, &cost).await?;
    // Memory that it needs only to start is given back.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let arena_kib = cost.memory_kib() as usize;
    let start_kib = worker.resident_kib()?;
    let arenas = resident_mappings(worker.pid(), arena_kib)?;
    ensure!(arenas >= PERMITS, "the arenas are not resident after the start; the base would be wrong");
    let base_kib = start_kib - PERMITS * arena_kib;
    progress("hashes alone");
    let before = bare::measure(ground.core, &cost, BARE).await?;
    let rate = before.per_second * TIMES;
    progress(&format!("{rate:.0} sign-ins/s for {} s", lasts.as_secs()));
    let (seen, window) = flood(&worker, &crowd, Kind::SignIn, rate, lasts).await?;
    let after = bare::measure(ground.core, &cost, BARE).await?;
    // Before the second flood: the first one's memory is not given back.
    progress("the same for logins that no account can have");
    let (without, without_window) = flood(&worker, &crowd, Kind::Impossible, rate, lasts).await?;
    let bare = f64::midpoint(before.per_second, after.per_second);
    let bare_cpu = f64::midpoint(before.cpu_ms, after.cpu_ms);

    let served: Vec<&Outcome> = seen.outcomes.iter().filter(|outcome| outcome.status == 303).collect();
    let times = seen.served(Kind::SignIn, &window);
    let served_rate = per_second(&times).context("no request was served")?;
    let others: Vec<&Outcome> = seen.outcomes.iter().filter(|outcome| outcome.status != 303).collect();
    let is_proper = |outcome: &Outcome| matches!(outcome.status, 429 | 503) && outcome.says_when;
    let improper = others.iter().filter(|outcome| !is_proper(outcome)).count();
    let latency = |outcomes: &[&Outcome]| {
        let mut latencies = Latencies::new();
        outcomes.iter().for_each(|outcome| latencies.record(outcome.took));
        latencies.summary()
    };
    let (served_latency, other_latency) = (latency(&served), latency(&others));
    let limit_kib = float(base_kib + PERMITS * arena_kib) * GOAL_MEMORY;

    let mut found = Findings::new(
        "Ten times as many sign-ins as one core can do",
        ["what", "asked", "per second", "p50 ms", "p99 ms", "max ms"],
    );
    let mut row = |what: &str, number: usize, per_second: f64, latency: Latency| {
        let ms = |value: f64| format!("{value:.0}");
        found.row([
            what.to_owned(),
            number.to_string(),
            format!("{per_second:.1}"),
            ms(latency.p50),
            ms(latency.p99),
            ms(latency.max),
        ]);
    };
    row("served", served.len(), served_rate, served_latency);
    row("turned away", others.len(), float(others.len()) / lasts.as_secs_f64(), other_latency);
    row("health checks", seen.health_checks(lasts), 1.0 / HEALTH_EVERY.as_secs_f64(), seen.health);
    let window_ms = milliseconds(window.end.duration_since(window.start));
    let hashing_ms = float(times.len()) * bare_cpu;
    let answered = seen.outcomes.iter().filter(|outcome| window.contains(&outcome.at)).count();
    found.notes.push(format!(
        "The worker had {:.3} of its core, {:.3} for hashing; the rest is {:.2} ms for each request that was \
            served or turned away.",
        seen.cores_used,
        hashing_ms / window_ms,
        (seen.cores_used * window_ms - hashing_ms) / float(answered)
    ));
    found.notes.push(format!("It had at most {} descriptors open.", seen.descriptors));
    let hashed: Vec<Instant> = without.served(Kind::Impossible, &without_window);
    let hashed_rate = per_second(&hashed).context("no request was served")?;
    found.notes.push(format!(
        "The same for logins that no account can have, for which S3 is not asked: {hashed_rate:.1} hashed \
            per second, {:.3} of the core, health p99 {:.1} ms.",
        without.cores_used, without.health.p99
    ));
    found.notes.push(format!(
        "Hashes alone: {:.1}/s before, {:.1}/s after, {bare_cpu:.1} CPU ms each.",
        before.per_second, after.per_second
    ));
    found.notes.push(format!(
        "Resident after the start {:.1} MiB, of which {PERMITS} arena of {:.1} MiB (written when the pool is made), so the base is {:.1} MiB.",
        mib(start_kib),
        mib(arena_kib),
        mib(base_kib)
    ));
    found.goal(
        format!(
            "memory in a flood: at most {:.1} MiB resident (goal: base {:.1} + {PERMITS} x {:.1} MiB + 20 % = {:.1} MiB)",
            mib(seen.resident_kib),
            mib(base_kib),
            mib(arena_kib),
            limit_kib / 1024.0
        ),
        float(seen.resident_kib) <= limit_kib,
    );
    found.goal(
        format!(
            "health checks in a flood: p99 {:.1} ms, {} failed (goal: under {GOAL_HEALTH_MS} ms, none)",
            seen.health.p99, seen.unhealthy
        ),
        seen.health.p99 < GOAL_HEALTH_MS && seen.unhealthy == 0,
    );
    let ratio = served_rate / bare;
    found.goal(
        format!("sign-ins served in a flood: {served_rate:.1}/s, {ratio:.3} of {bare:.1} hashes/s (goal: at least {GOAL_SERVED})"),
        ratio >= GOAL_SERVED,
    );
    found.goal(
        format!(
            "all other sign-ins are told to come back: {improper} of {} are not 429 or 503 with Retry-After \
                (goal: 0); {}",
            others.len(),
            statuses(&seen.outcomes)
        ),
        improper == 0,
    );
    found.goal(
        format!(
            "sign-ins served in a flood: p99 {:.0} ms (goal: at most {GOAL_SERVED_MS} ms)",
            served_latency.p99
        ),
        served_latency.p99 <= GOAL_SERVED_MS,
    );
    Ok(found)
}

impl Seen {
    /// Returns the times of the hashed sign-ins within the window.
    fn served(&self, kind: Kind, window: &std::ops::Range<Instant>) -> Vec<Instant> {
        let served = self.outcomes.iter().filter(|outcome| outcome.status == kind.served());
        served.map(|outcome| outcome.at).filter(|at| window.contains(at)).collect()
    }

    fn health_checks(&self, lasts: Duration) -> usize {
        usize::try_from(lasts.as_millis() / HEALTH_EVERY.as_millis()).unwrap_or(usize::MAX)
    }
}

/// Returns the worker's state, and the time in which it was as busy as it gets.
async fn flood(
    worker: &Worker,
    crowd: &Crowd,
    kind: Kind,
    rate: f64,
    lasts: Duration,
) -> anyhow::Result<(Seen, std::ops::Range<Instant>)> {
    let begins = Instant::now() + Duration::from_millis(100);
    let window = begins + WARM_UP..begins + lasts;
    let health = check_health(worker.addr, begins, lasts);
    let asking = async {
        let pool = Arc::new(Pool::open(worker.addr, 0).await?);
        let mut asked = JoinSet::new();
        let mut turn = 0_u32;
        loop {
            let due = begins + Duration::from_secs_f64(f64::from(turn) / rate);
            if due >= begins + lasts {
                break;
            }
            tokio::time::sleep_until(due.into()).await;
            let (pool, ask) = (Arc::clone(&pool), kind.ask(crowd.login(turn as usize)));
            asked.spawn(async move { outcome(pool.send(&ask).await, due) });
            turn += 1;
        }
        Ok::<_, anyhow::Error>(asked.join_all().await)
    };
    let looking = async {
        let (mut most_kib, mut most_descriptors) = (0, 0);
        tokio::time::sleep_until(window.start.into()).await;
        let cpu = worker.cpu()?;
        while Instant::now() < window.end {
            most_kib = most_kib.max(worker.resident_kib()?);
            most_descriptors = most_descriptors.max(worker.descriptors()?);
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let used = worker.cpu()?.saturating_sub(cpu);
        let cores_used = used.as_secs_f64() / window.start.elapsed().as_secs_f64();
        Ok::<_, anyhow::Error>((most_kib, most_descriptors, cores_used))
    };
    let (outcomes, (resident_kib, descriptors, cores_used)) = tokio::try_join!(asking, looking)?;
    let (health, unhealthy) = health.await.context("the health checks panicked")??;
    // The start's own peak does not count.
    let resident_kib = resident_kib.max(worker.resident_kib()?);
    Ok((Seen { outcomes, health, unhealthy, resident_kib, cores_used, descriptors }, window))
}

fn outcome(answer: anyhow::Result<super::client::Answer>, due: Instant) -> Outcome {
    let (status, says_when) =
        answer.map_or((0, false), |answer| (answer.status, answer.headers.contains_key(RETRY_AFTER)));
    Outcome { status, says_when, took: due.elapsed(), at: Instant::now() }
}

/// Measures latencies since each check was due, and counts checks without a good answer. On a thread of its
/// own, so that no other answer delays them.
fn check_health(
    addr: SocketAddr,
    begins: Instant,
    lasts: Duration,
) -> Receiver<anyhow::Result<(Latency, usize)>> {
    let (send, receive) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let checks =
            runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(checks(addr, begins, lasts)));
        send.send(checks).ok();
    });
    receive
}

async fn checks(addr: SocketAddr, begins: Instant, lasts: Duration) -> anyhow::Result<(Latency, usize)> {
    let mut connection = Connection::open(addr).await?;
    let (mut latencies, mut failed) = (Latencies::new(), 0);
    let ask = Ask::get("/healthcheck");
    let mut due = begins;
    while due < begins + lasts {
        tokio::time::sleep_until(due.into()).await;
        let answer = connection.send(&ask).await;
        latencies.record(due.elapsed());
        if answer.map_or(true, |answer| answer.status != 200) {
            failed += 1;
        }
        due += HEALTH_EVERY;
    }
    Ok((latencies.summary(), failed))
}

fn statuses(outcomes: &[Outcome]) -> String {
    let mut counts = std::collections::BTreeMap::<u16, usize>::new();
    for outcome in outcomes {
        *counts.entry(outcome.status).or_default() += 1;
    }
    let name = |status: u16| if status == 0 { "no answer".to_owned() } else { status.to_string() };
    let counts: Vec<String> =
        counts.into_iter().map(|(status, count)| format!("{}: {count}", name(status))).collect();
    counts.join(", ")
}

/// Returns how many arenas of this size the large resident mappings without a file can hold.
fn resident_mappings(pid: u32, arena_kib: usize) -> anyhow::Result<usize> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let resident = maps.lines().filter_map(|line| line.strip_prefix("Rss:"));
    let kib = resident.filter_map(|rest| rest.split_whitespace().next()?.parse::<usize>().ok());
    Ok(kib.map(|kib| kib / arena_kib).sum())
}

fn mib(kib: usize) -> f64 {
    float(kib) / 1024.0
}
