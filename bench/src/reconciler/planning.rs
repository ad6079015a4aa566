//! The time of the pure part of a tick, on a stack of a given size.

use std::hint::black_box;
use std::time::{Duration, Instant};

use fleet::memory::{Memory, Phase};
use fleet::{DesiredCount, Policy};
use jiff::Timestamp;
use planner::observation::{Observation, Probe, Scope, targets};
use planner::plan::{look, plan};

use super::stack::Stack;
use crate::table::{Figure, median, milliseconds, thousands};

/// Repetitions end after this long; there are at least three.
const PATIENCE: Duration = Duration::from_secs(1);
const MOST_RUNS: usize = 50;

/// The goal of issue 3.
const GOAL_SIZE: usize = 10_000;
const GOAL: Duration = Duration::from_millis(20);

/// The observation and the memory.
struct Case {
    what: &'static str,
    seen: fn(&Stack) -> (Observation, Memory),
    is_goal: bool,
}

const CASES: [Case; 4] = [
    Case { what: "at rest: all workers answer", seen: at_rest, is_goal: true },
    Case { what: "every second worker silent for the second time", seen: half_silent, is_goal: false },
    Case { what: "all workers answer, one is desired", seen: scale_down, is_goal: false },
    Case { what: "memory lost: all workers are adopted", seen: memory_lost, is_goal: false },
];

fn at_rest(stack: &Stack) -> (Observation, Memory) {
    (stack.observation(|_| Probe::Answered), stack.memory())
}

fn half_silent(stack: &Stack) -> (Observation, Memory) {
    let is_silent = |number: u32| number % 4 < 2;
    let seen = stack.observation(|number| if is_silent(number) { Probe::Silent } else { Probe::Answered });
    let mut memory = Memory { began: Some(stack.ago(3600)), ..stack.memory() };
    for (_, slot) in memory.slots.iter_mut().filter(|(number, _)| is_silent(**number)) {
        slot.phase = Phase::Suspect;
        slot.since = stack.ago(20);
    }
    (seen, memory)
}

fn scale_down(stack: &Stack) -> (Observation, Memory) {
    let one = DesiredCount::try_from(1).expect("within bounds");
    let seen = Observation { desired: Ok(one), ..stack.observation(|_| Probe::Answered) };
    (seen, Memory { began: Some(stack.ago(3600)), desired: Some(one), ..stack.memory() })
}

fn memory_lost(stack: &Stack) -> (Observation, Memory) {
    (stack.observation(|_| Probe::Answered), Memory::default())
}

/// Returns a table with rows for each case at each size, and the goal if its size is among them.
pub fn measure(sizes: &[usize]) -> (Vec<Vec<String>>, Vec<Figure>) {
    let heads = ["case", "workers", "fastest ms", "median ms", "slowest ms", "leave", "in the new registry"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    let mut figures = Vec::new();
    for case in &CASES {
        for size in sizes {
            let (times, mut deeds) = planned(case, &Stack::new(*size, Timestamp::now()));
            let mut row = row(&format!("plan, {}", case.what), *size, &times);
            row.append(&mut deeds);
            rows.push(row);
            if case.is_goal && *size == GOAL_SIZE {
                figures.push(figure(*size, fastest(&times)));
            }
        }
    }
    for size in sizes {
        let times = looked(&Stack::new(*size, Timestamp::now()));
        rows.push(row("look between ticks, at rest", *size, &times));
    }
    (rows, figures)
}

fn row(what: &str, size: usize, times: &[Duration]) -> Vec<String> {
    let slowest = times.iter().max().copied().unwrap_or_default();
    let times = [fastest(times), median(times).unwrap_or_default(), slowest];
    [what.to_owned(), thousands(size)].into_iter().chain(times.map(milliseconds)).collect()
}

/// Other work on the cores only adds to it.
fn fastest(times: &[Duration]) -> Duration {
    times.iter().min().copied().unwrap_or_default()
}

fn figure(size: usize, time: Duration) -> Figure {
    let (size, ms, goal) = (thousands(size), milliseconds(time), GOAL.as_millis());
    let text = format!("a plan over {size} instances at rest: {ms} ms (goal: under {goal} ms)");
    Figure { text, is_met: time < GOAL }
}

/// Returns the time of each run, and the plan.
fn planned(case: &Case, stack: &Stack) -> (Vec<Duration>, Vec<String>) {
    let (seen, memory) = (case.seen)(stack);
    let mut times = Vec::new();
    let mut deeds = Vec::new();
    repeat(|| {
        let memory = memory.clone();
        let since = Instant::now();
        let planned = black_box(plan(&seen, memory, &Policy::default(), stack.now));
        times.push(since.elapsed());
        let registry = planned.registry.as_ref().map(|registry| thousands(registry.workers.len()));
        deeds = vec![thousands(planned.memory.leaving.len()), registry.unwrap_or("the same".to_owned())];
    });
    (times, deeds)
}

/// Measures a look between ticks: the targets of its probes, and its plan.
fn looked(stack: &Stack) -> Vec<Duration> {
    let (seen, memory) = at_rest(stack);
    let mut times = Vec::new();
    repeat(|| {
        let memory = memory.clone();
        let since = Instant::now();
        let rows = seen.instances.as_deref().unwrap_or_default();
        black_box(targets(rows, &memory, Scope::Boots));
        black_box(look(&seen, memory, &Policy::default(), stack.now).plan);
        times.push(since.elapsed());
    });
    times
}

fn repeat(mut run: impl FnMut()) {
    let end = Instant::now() + PATIENCE;
    for number in 0..MOST_RUNS {
        if number >= 3 && Instant::now() > end {
            return;
        }
        run();
    }
}
