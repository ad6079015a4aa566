//! The limit of hashing alone: one thread, one arena, no other work.

use std::time::{Duration, Instant};

use accounts::Cost;
use accounts::phc::{self, Arena, Phc};
use anyhow::{Context as _, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::client::{Pace, float, milliseconds};
use super::ground::PASSWORD;

/// Hashes on this core for this long.
pub async fn measure(core: usize, cost: &Cost, lasts: Duration) -> anyhow::Result<Pace> {
    let cost = cost.clone();
    let (send, receive) = tokio::sync::oneshot::channel();
    // On a thread of its own, because it moves to another core.
    let thread = std::thread::spawn(move || send.send(evaluate(core, &cost, lasts)).ok());
    let pace = receive.await.context("hashing panicked")?;
    thread.join().ok();
    pace
}

fn evaluate(core: usize, cost: &Cost, lasts: Duration) -> anyhow::Result<Pace> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &cores)?;
    let mut arena = Arena::new(cost);
    // The first hash touches the arena.
    let text = phc::hash(&mut arena, cost, PASSWORD.as_bytes());
    let record = Phc::parse(&text, cost)?;
    let (since, cpu) = (Instant::now(), own_cpu()?);
    let mut evaluations = 0_usize;
    while since.elapsed() < lasts {
        ensure!(record.verify(&mut arena, PASSWORD.as_bytes()), "its own record");
        evaluations += 1;
    }
    let (wall, cpu) = (since.elapsed(), own_cpu()?.saturating_sub(cpu));
    let evaluations = float(evaluations);
    Ok(Pace { per_second: evaluations / wall.as_secs_f64(), cpu_ms: milliseconds(cpu) / evaluations })
}

/// Returns the CPU time of this thread.
fn own_cpu() -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(Duration::from_nanos(text.split(' ').next().context("schedstat is empty")?.parse()?))
}
