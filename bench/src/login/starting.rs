//! How long a worker takes to start, and its memory when idle.

use std::time::Duration;

use accounts::Cost;
use anyhow::Context as _;

use super::client::float;
use super::findings::Findings;
use super::ground::Ground;
use super::worker::Worker;
use crate::balancer::statistics::Spread;
use crate::process;
use crate::table::progress;

const STARTS: usize = 10;
/// For memory that is given back late.
const REST: Duration = Duration::from_secs(1);

pub async fn measure(ground: &mut Ground) -> anyhow::Result<Findings> {
    progress(&format!("{STARTS} starts"));
    let cost = Cost::default();
    ground.clear();
    let (mut times, mut cpu, mut resident, mut own) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let worker = Worker::start(ground, &cost).await?;
        times.push(super::client::milliseconds(worker.started_in));
        cpu.push(super::client::milliseconds(worker.cpu()?));
        tokio::time::sleep(REST).await;
        resident.push(float(worker.resident_kib()?) / 1024.0);
        own.push(float(process::family_pss_kib(worker.pid())?) / 1024.0);
    }
    let text =
        |values: Vec<f64>| Spread::of(values).context("there was no start").map(|spread| spread.text(1));
    let mut found = Findings::new(
        "A worker's start, and a worker that is idle: medians of 10",
        ["first healthy answer ms", "CPU ms", "resident MiB", "PSS MiB"],
    );
    found.row([text(times)?, text(cpu)?, text(resident)?, text(own)?]);
    found.notes.push(
        "The start makes four calls to S3, three of them one after the other; 19 MiB are the arena."
            .to_owned(),
    );
    Ok(found)
}
