//! `make mutants`: small changes of the planner that cargo-mutants makes up, and whether a test or the simulator notices.
//!
//! cargo-mutants only lists the changes, as diffs. Each is applied to a copy of the pure crates, and judged by the cheapest
//! check that can: fast unit tests, slow ones, then the simulator. A mutant that none of them notices is equivalent to
//! the code, or a test is missing.
//!
//! A run goes on where an earlier one was stopped: the outcomes are in a file, by the hash of the sources.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;

use super::deadline::{Ended, run_within};
use super::patch::Diff;
use super::scratch::Scratch;
use super::simulator::{Found, Simulator};
use crate::failure::{PREREQUISITE, USAGE, stop};
use crate::settings::Settings;

/// All fast tests need less than a second. Many tests tick until something happens, so about every tenth mutant is
/// endless and needs all of this; at half of it a busy machine would look endless.
const FAST: Duration = Duration::from_secs(15);
/// The slow tests need nine seconds.
const SLOW: Duration = Duration::from_secs(180);
/// Nearly all planted bugs need fewer.
const SEEDS: u64 = 300;
/// Tests that need seconds, by parts of their names.
const SLOW_TESTS: [&str; 2] = ["random::", "surplus::"];
/// So that tests are built in two seconds and run in one.
const PROFILE: [&str; 4] = [
    "--config",
    "profile.dev.package.planner.opt-level=1",
    "--config",
    "profile.dev.package.fleet.opt-level=1",
];

struct Mutant {
    /// File, line, column and change.
    name: String,
    diff: Diff,
}

/// What came of a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It does not compile.
    Unviable,
    FastTest,
    SlowTest,
    Simulator,
    Survived,
}

impl Verdict {
    const ALL: [Self; 5] = [Self::Unviable, Self::FastTest, Self::SlowTest, Self::Simulator, Self::Survived];

    const fn name(self) -> &'static str {
        match self {
            Self::Unviable => "does not compile",
            Self::FastTest => "fast test",
            Self::SlowTest => "slow test",
            Self::Simulator => "simulator",
            Self::Survived => "SURVIVED",
        }
    }

    fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.name() == name)
    }
}

pub(crate) fn run(settings: &Settings) -> Result<()> {
    let scratch = Scratch::new("generated")?;
    let mutants = mutants(&scratch, settings)?;
    let mut outcomes = Outcomes::open(&scratch)?;
    scratch.restore()?;
    let sound = judge(&scratch)?;
    if sound != Verdict::Survived {
        return Err(stop(1, format!("without any change the planner fails: {}", sound.name())));
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut survivors = Vec::new();
    for (n, mutant) in mutants.iter().enumerate() {
        let begun = Instant::now();
        let verdict = match outcomes.known.get(&mutant.name) {
            Some(verdict) => *verdict,
            None => {
                scratch.break_by(&mutant.diff).with_context(|| mutant.name.clone())?;
                let verdict = judge(&scratch)?;
                outcomes.add(&mutant.name, verdict)?;
                let seconds = begun.elapsed().as_secs_f64();
                println!(
                    "{:>9} {seconds:>5.1} s  {:<16}  {}",
                    format!("{}/{}", n + 1, mutants.len()),
                    verdict.name(),
                    mutant.name
                );
                verdict
            }
        };
        *counts.entry(verdict.name()).or_default() += 1;
        if verdict == Verdict::Survived {
            survivors.push(mutant.name.as_str());
        }
    }
    report(&counts, &survivors);
    Ok(())
}

fn report(counts: &BTreeMap<&str, usize>, survivors: &[&str]) {
    let of = |verdict: Verdict| counts.get(verdict.name()).copied().unwrap_or(0);
    let killed = of(Verdict::FastTest) + of(Verdict::SlowTest) + of(Verdict::Simulator);
    let viable = killed + survivors.len();
    println!();
    for verdict in Verdict::ALL {
        println!("{:<17} {:>5}", verdict.name(), of(verdict));
    }
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let share = 100.0 * killed as f64 / viable.max(1) as f64;
    println!("{killed} of {viable} mutants are noticed: {share:.1} %");
    for name in survivors {
        println!("survived: {name}");
    }
}

/// Returns the changes that cargo-mutants makes up, or those of `SHARD=k/n`: each n-th, from the k-th on, counted from 0.
fn mutants(scratch: &Scratch, settings: &Settings) -> Result<Vec<Mutant>> {
    let mut command = scratch.command("cargo");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let tools = std::path::absolute(settings.tools().join("bin")).context("TOOLS is no path")?;
    let path = std::env::join_paths(std::iter::once(tools).chain(std::env::split_paths(&path)))?;
    command.env("PATH", path);
    command.args(["mutants", "--list", "--json", "--diff", "--package", "planner"]);
    if let Some(shard) = settings.get("SHARD") {
        command.args(["--sharding", "round-robin", "--shard", shard]);
    }
    let output = command.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    if !output.status.success() {
        let tools = settings.tools().display();
        return Err(match settings.get("SHARD") {
            Some(shard) => stop(
                USAGE,
                format!(
                    "cargo mutants lists nothing; SHARD={shard} should be k/n, as in 0/4, and cargo-mutants be installed"
                ),
            ),
            None => stop(
                PREREQUISITE,
                format!(
                    "cargo-mutants is not installed: cargo install --locked --root {tools} cargo-mutants"
                ),
            ),
        });
    }
    let listed: Vec<Value> =
        serde_json::from_slice(&output.stdout).context("the list of mutants is no JSON")?;
    listed.iter().map(Mutant::read).collect()
}

impl Mutant {
    fn read(listed: &Value) -> Result<Self> {
        let field = |name: &str| listed[name].as_str().ok_or_else(|| anyhow!("a mutant has no {name}"));
        let name = field("name")?.to_owned();
        let diff = Diff::parse(field("diff")?).with_context(|| name.clone())?;
        Ok(Self { name, diff })
    }
}

/// Builds and checks the copy. Returns the check that failed.
fn judge(scratch: &Scratch) -> Result<Verdict> {
    let Some(tests) = build_tests(scratch)? else { return Ok(Verdict::Unviable) };
    let crate_dir = scratch.root().join("crates/planner");
    let passes = |test: &Path, arguments: &[&str], longest| -> Result<bool> {
        let mut command = Command::new(test);
        command.args(arguments).current_dir(&crate_dir).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(matches!(run_within(&mut command, longest)?, Ended::With(status) if status.success()))
    };
    let skips: Vec<&str> = SLOW_TESTS.iter().flat_map(|name| ["--skip", name]).collect();
    for test in &tests {
        if !passes(test, &skips, FAST)? {
            return Ok(Verdict::FastTest);
        }
    }
    for test in &tests {
        if !passes(test, &SLOW_TESTS, SLOW)? {
            return Ok(Verdict::SlowTest);
        }
    }
    let Ok(program) = scratch.build_simulator()? else { return Ok(Verdict::Simulator) };
    match (Simulator { program, bad_policy: None }).search(1, SEEDS)? {
        Found::Nothing => Ok(Verdict::Survived),
        Found::Violation { .. } | Found::Failure(_) => Ok(Verdict::Simulator),
    }
}

/// Returns the programs of the unit tests and of `tests/steps.rs`; nothing if they do not compile. The model in
/// `tests/model.rs` needs half a minute.
fn build_tests(scratch: &Scratch) -> Result<Option<Vec<PathBuf>>> {
    let mut command = scratch.command("cargo");
    command.args(["test", "--quiet", "--package", "planner", "--lib", "--test", "steps", "--no-run"]);
    let output = command.arg("--message-format=json").args(PROFILE).output().context("cannot run cargo")?;
    if !output.status.success() {
        return Ok(None);
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(Some(messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).collect()))
}

/// The outcomes so far. A mutant that was noticed is noticed until the planner changes. A new test or check may notice
/// a survivor.
struct Outcomes {
    path: PathBuf,
    known: BTreeMap<String, Verdict>,
    checks: String,
}

impl Outcomes {
    fn open(scratch: &Scratch) -> Result<Self> {
        let is_check = |path: &Path| path.starts_with("sim") || path.to_string_lossy().contains("/tests/");
        let sources = hash(scratch, |path| !is_check(path));
        let checks = hash(scratch, is_check);
        let path = scratch.root().with_file_name(format!("outcomes-{sources}.tsv"));
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let known = text.lines().filter_map(|line| known(line, &checks)).collect();
        Ok(Self { path, known, checks })
    }

    fn add(&mut self, name: &str, verdict: Verdict) -> Result<()> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&self.path);
        file.and_then(|mut file| writeln!(file, "{}\t{}\t{name}", verdict.name(), self.checks))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

fn known(line: &str, checks: &str) -> Option<(String, Verdict)> {
    let mut fields = line.splitn(3, '\t');
    let (verdict, checks_then, name) = (Verdict::find(fields.next()?)?, fields.next()?, fields.next()?);
    let counts = verdict != Verdict::Survived || checks_then == checks;
    counts.then(|| (name.to_owned(), verdict))
}

fn hash(scratch: &Scratch, is_wanted: impl Fn(&Path) -> bool) -> String {
    let mut hasher = DefaultHasher::new();
    scratch.files().filter(|(path, _)| is_wanted(path)).for_each(|file| file.hash(&mut hasher));
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_survivor_is_known_for_the_same_checks_alone() {
        let line = |verdict: Verdict| format!("{}\tnow\ta.rs:1:2: x\ty", verdict.name());
        for verdict in Verdict::ALL {
            let found = Some(("a.rs:1:2: x\ty".to_owned(), verdict));
            assert_eq!(known(&line(verdict), "now"), found);
            let stays = verdict != Verdict::Survived;
            assert_eq!(known(&line(verdict), "later"), found.filter(|_| stays));
        }
        assert_eq!(known("a line that was cut", "now"), None);
    }

    #[test]
    fn a_mutant_is_read_with_its_diff() {
        let diff = "--- a.rs\n+++ replace f with 0\n@@ -1,1 +1,1 @@\n-1\n+0\n";
        let listed = serde_json::json!({ "name": "a.rs:1:1: replace f with 0", "diff": diff });
        assert_eq!(Mutant::read(&listed).expect("a mutant").name, "a.rs:1:1: replace f with 0");
        assert!(Mutant::read(&serde_json::json!({ "name": "x" })).is_err());
    }
}
