//! `make bench-lb`: rounds in which each proxy, in random order, goes through the same scenarios.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use super::goals::{Goal, Outcome, judge};
use super::memory::{CLIENTS, Memory};
use super::peer::{Entrant, Entrants, Peer};
use super::plot;
use super::results::{MemorySample, Results, Sample};
use super::rig::{Rig, Way};
use super::scenario::Scenario;
use crate::table::{line, print, progress};

#[derive(Args, Debug)]
pub struct Compare {
    #[command(flatten)]
    pub entrants: Entrants,
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Seconds per proxy, scenario and round.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Directory for results and plot.
    #[arg(long)]
    pub out: PathBuf,
}

/// Returns whether no goal is missed.
pub fn run(compare: &Compare) -> anyhow::Result<bool> {
    let (entrants, missing) = compare.entrants.find()?;
    missing.iter().for_each(|sentence| line(sentence));
    let mut rig = Rig::new(2, Duration::ZERO)?;
    rig.try_each(&entrants, |peer| [Way::usual(peer), Way { tls: peer.speaks_tls(), ..Way::usual(peer) }])?;
    let machine = machine();
    line(&format!(
        "{machine}; the proxy alone on core {}, all others on {} more; {} rounds of {} s",
        rig.cores.proxy, rig.cores.others, compare.rounds, compare.seconds
    ));
    let mut results = Results::default();
    for round in 1..=compare.rounds {
        for scenario in Scenario::ALL {
            for entrant in by_chance(&entrants) {
                let name =
                    format!("round {round} of {}: {}: {}", compare.rounds, scenario.title(), entrant.peer);
                if scenario.is_tls() && !entrant.peer.speaks_tls() {
                    progress(&format!("{name} is built without TLS"));
                    continue;
                }
                progress(&name);
                // A proxy that fails is left out of the table, and the goals say so.
                match measure(&mut rig, entrant, scenario, compare.seconds) {
                    Ok(sample) => results.samples.push(Sample { round, ..sample }),
                    Err(error) => line(&format!("{name} was not measured: {error:#}")),
                }
            }
        }
        for entrant in by_chance(&entrants) {
            progress(&format!(
                "round {round} of {}: {CLIENTS} idle clients: {}",
                compare.rounds, entrant.peer
            ));
            let measured =
                rig.start(entrant, Way::usual(entrant.peer)).and_then(|proxy| Memory::measure(&proxy));
            match measured {
                Ok(memory) => results.memories.push(MemorySample { peer: entrant.peer, round, memory }),
                Err(error) => line(&format!("memory of {} was not measured: {error:#}", entrant.peer)),
            }
        }
    }
    let goals = judge(&results);
    show(&results, &goals);
    write(&compare.out, compare, &machine, &entrants, &results, &goals)?;
    Ok(goals.iter().all(|goal| goal.outcome != Outcome::Missed))
}

/// In random order, so that no proxy profits from its place.
pub fn by_chance(entrants: &[Entrant]) -> Vec<&Entrant> {
    let mut order: Vec<&Entrant> = entrants.iter().collect();
    fastrand::shuffle(&mut order);
    order
}

fn measure(rig: &mut Rig, entrant: &Entrant, scenario: Scenario, seconds: f64) -> anyhow::Result<Sample> {
    let way = Way { tls: scenario.is_tls(), ..Way::usual(entrant.peer) };
    let mut proxy = rig.start(entrant, way)?;
    let report = rig.load(&scenario.plan(&proxy, rig, seconds))?;
    proxy.check()?;
    Ok(Sample { scenario, peer: entrant.peer, round: 0, report })
}

fn show(results: &Results, goals: &[Goal]) {
    for scenario in Scenario::ALL {
        line(&format!("\n{}", scenario.title()));
        print(&results.table(scenario));
        let failures = results.samples.iter().filter(|sample| sample.scenario == scenario);
        for sample in failures.filter(|sample| !sample.report.failures.is_empty()) {
            line(&format!(
                "  {} failed in round {}: {:?}",
                sample.peer, sample.round, sample.report.failures
            ));
        }
    }
    line(&format!("\nmemory, alone and with {CLIENTS} idle clients that each made one request"));
    print(&results.memory_table());
    line("");
    goals.iter().for_each(|goal| line(&goal.line()));
    let count = |outcome| goals.iter().filter(|goal| goal.outcome == outcome).count();
    let not_measured = match count(Outcome::NotMeasured) {
        0 => String::new(),
        number => format!(", {number} not measured"),
    };
    line(&format!(
        "bench-lb: {} of {} goals met, {} missed{not_measured}",
        count(Outcome::Met),
        goals.len(),
        count(Outcome::Missed)
    ));
}

fn write(
    out: &Path,
    compare: &Compare,
    machine: &str,
    entrants: &[Entrant],
    results: &Results,
    goals: &[Goal],
) -> anyhow::Result<()> {
    let rows: Vec<_> = Scenario::ALL.into_iter().flat_map(|scenario| results.rows(scenario)).collect();
    let memory: Vec<_> = Peer::ALL.into_iter().filter_map(|peer| results.memory_row(peer)).collect();
    let versions: Vec<_> =
        entrants.iter().map(|entrant| json!({"peer": entrant.peer, "version": entrant.version})).collect();
    let document = json!({
        "measured_at": jiff::Timestamp::now(),
        "machine": machine,
        "entrants": versions,
        "rounds": compare.rounds,
        "seconds": compare.seconds,
        "medians": rows,
        "memory": memory,
        "goals": goals,
        "runs": results,
    });
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    fs::write(out.join("balancer.json"), serde_json::to_vec_pretty(&document)?)?;
    fs::write(out.join("balancer.svg"), plot::svg(results))?;
    progress(&format!("written to {}: balancer.json, balancer.svg", out.display()));
    Ok(())
}

/// Describes the machine, which figures depend on.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let load = read("/proc/loadavg");
    format!(
        "{}, Linux {}, load average {} at the start",
        model.map_or("an unknown processor", |(_, model)| model),
        read("/proc/sys/kernel/osrelease").trim(),
        load.split(' ').next().unwrap_or("unknown"),
    )
}
