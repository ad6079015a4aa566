//! The cost of a tick of the function: a whole tick, with real probes of real sockets, the SDK's parsing of
//! EC2's answers, and both documents written.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use fleet::keys;
use fleet::memory::Memory;
use jiff::Timestamp;
use serde_json::Value;

use super::cloud::Cloud;
use super::function::{Cost, Function};
use super::stack::Stack;
use super::workers;
use crate::process::{self, Share};
use crate::table::{Figure, median, progress, seconds, thousands};

/// Ticks after the first, which also opens connections.
const TICKS: usize = 5;
/// A function with this much memory has one core.
const MB_OF_A_CORE: f64 = 1769.0;
/// Sizes that are also measured on a share of a core.
const SHARED: RangeInclusive<usize> = 100..=1000;
const MEMORIES_MB: [u32; 5] = [128, 256, 512, 1024, 1769];

/// The goal of issue 3.
const GOAL_SIZE: usize = 1000;
const GOAL: Duration = Duration::from_secs(3);
const GOAL_KIB: usize = 128 * 1024;

/// The ticks of one function over one stack.
struct Measured {
    size: usize,
    first: Cost,
    /// Medians of the ticks after it.
    wall: Duration,
    cpu: Duration,
    peak_kib: usize,
    /// The most workers that were not heard.
    silent: usize,
    memory_bytes: usize,
    registry_bytes: usize,
    listing_bytes: usize,
}

/// The measurements at all sizes.
pub struct Ticks {
    /// A row for each size.
    pub costs: Vec<Vec<String>>,
    /// The same on a share of a core.
    pub shares: Vec<Vec<String>>,
    pub figures: Vec<Figure>,
}

pub async fn measure(program: &Path, sizes: &[usize]) -> anyhow::Result<Ticks> {
    let heads = [
        "answering workers",
        "wall s",
        "CPU s",
        "first: wall s",
        "CPU s",
        "peak MiB",
        "not heard",
        "state.json KB",
        "registry.json KB",
        "DescribeInstances KB",
        "",
    ];
    let mut costs = vec![heads.map(str::to_owned).to_vec()];
    let heads = [
        "answering workers",
        "function MB",
        "share of a core",
        "CPU s / share",
        "measured s",
        "first s",
        "not heard",
    ];
    let mut shares = vec![heads.map(str::to_owned).to_vec()];
    let mut figures = Vec::new();
    for size in sizes {
        progress(&format!("ticks over {} workers", thousands(*size)));
        let stack = Stack::new(*size, Timestamp::now());
        let mut workers = workers::start(&stack).await?;
        let whole = ticks(program, *size, None).await?;
        costs.push(whole.row());
        if *size == GOAL_SIZE {
            figures.push(whole.figure());
        }
        let memories = if SHARED.contains(size) { &MEMORIES_MB[..] } else { &[] };
        for memory_mb in memories.iter().copied() {
            let share = f64::from(memory_mb) / MB_OF_A_CORE;
            let mut row = vec![thousands(*size), memory_mb.to_string(), format!("{share:.3}")];
            row.push(seconds(whole.cpu.div_f64(share)));
            match Share::new(share) {
                Ok(share) => {
                    let slow = ticks(program, *size, Some(&share)).await?;
                    row.extend([seconds(slow.wall), seconds(slow.first.wall), slow.silent.to_string()]);
                }
                Err(error) => row.push(format!("(no cgroup: {error})")),
            }
            shares.push(row);
        }
        // Their addresses are free again once they have ended.
        workers.shutdown().await;
    }
    Ok(Ticks { costs, shares, figures })
}

async fn ticks(program: &Path, size: usize, share: Option<&Share>) -> anyhow::Result<Measured> {
    let cloud = Cloud::new(&Stack::new(size, Timestamp::now()))?;
    let mut function = Function::start(program, &cloud).await?;
    let pid = function.pid()?;
    if let Some(share) = share {
        share.hold(pid).context("cannot limit the function")?;
    }
    let mut costs = Vec::new();
    let mut silent = 0;
    for _ in 0..=TICKS {
        cloud.reset(&Stack::new(size, Timestamp::now()))?;
        let cost = function.tick().await?;
        let memory = cloud.memory()?;
        check(&cost.report, &memory)?;
        silent = silent.max(size - memory.healthy());
        costs.push(cost);
    }
    let peak_kib = process::resident_kib(pid, "VmHWM")?;
    function.stop().await?;
    let first = costs.remove(0);
    let of =
        |part: fn(&Cost) -> Duration| median(&costs.iter().map(part).collect::<Vec<_>>()).unwrap_or_default();
    Ok(Measured {
        size,
        first,
        wall: of(|cost| cost.wall),
        cpu: of(|cost| cost.cpu),
        peak_kib,
        silent,
        memory_bytes: cloud.size(keys::STATE),
        registry_bytes: cloud.size(keys::REGISTRY),
        listing_bytes: cloud.listing_size(),
    })
}

/// Checks that it was one tick, and that nothing failed except the table's remark.
fn check(report: &Value, memory: &Memory) -> anyhow::Result<()> {
    let failures = report["failures"].as_array().context("a report lists failures")?;
    let is_told =
        |failure: &Value| failure.as_str().is_some_and(|text| text.contains("the state begins empty"));
    ensure!(report["ticks"] == 1 && failures.iter().all(is_told), "this was no tick at rest: {report}");
    ensure!(memory.leaving.is_empty(), "a worker is removed: {:?}", memory.held);
    Ok(())
}

impl Measured {
    fn figure(&self) -> Figure {
        let text = format!(
            "a tick over {} answering workers: {} s (goal: under {} s), {} CPU s, {} MiB resident (goal: under {})",
            thousands(self.size),
            seconds(self.wall),
            GOAL.as_secs(),
            seconds(self.cpu),
            self.peak_kib / 1024,
            GOAL_KIB / 1024,
        );
        Figure { text, is_met: self.wall < GOAL && self.peak_kib < GOAL_KIB && self.silent == 0 }
    }

    fn row(&self) -> Vec<String> {
        let kb = |bytes: usize| thousands(bytes / 1000);
        let is_too_large = self.memory_bytes > Memory::MAX_BYTES;
        let remark = if is_too_large {
            "state.json is larger than is read: the state begins empty in each tick"
        } else if Stack::new(self.size, Timestamp::now()).is_surplus() {
            "more than the desired maximum: none is removed, because memory is young"
        } else {
            ""
        };
        vec![
            thousands(self.size),
            seconds(self.wall),
            seconds(self.cpu),
            seconds(self.first.wall),
            seconds(self.first.cpu),
            (self.peak_kib / 1024).to_string(),
            self.silent.to_string(),
            kb(self.memory_bytes),
            kb(self.registry_bytes),
            kb(self.listing_bytes),
            remark.to_owned(),
        ]
    }
}
