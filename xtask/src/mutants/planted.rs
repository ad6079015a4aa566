//! `make sim-mutants`: plants one bug after the other, and searches the seeds until a check notices.
//!
//! A planted bug is a bad policy of the simulator, or a patch in `sim/mutants`. A seed that breaks a rule without the bug
//! as well proves nothing and does not count.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::patch::Patch;
use super::scratch::Scratch;
use super::simulator::{Found, Simulator};
use crate::cargo::compile;
use crate::failure::{USAGE, output_of, stop};
use crate::settings::Settings;
use crate::workspace::target;

const PATCHES: &str = "sim/mutants";
/// Seeds without a bug that have to be clean before any is planted.
const CLEAN: u64 = 300;
/// Bugs that need most seeds need hundreds.
const SEEDS: &str = "10000";

enum Bug {
    Policy { name: String, wrong: String },
    Rule(Patch),
}

impl Bug {
    fn name(&self) -> &str {
        match self {
            Self::Policy { name, .. } => name,
            Self::Rule(patch) => &patch.name,
        }
    }

    fn wrong(&self) -> &str {
        match self {
            Self::Policy { wrong, .. } => wrong,
            Self::Rule(patch) => &patch.wrong,
        }
    }
}

/// The seed that noticed a bug.
struct Catch {
    /// The number of seeds tried, with this seed.
    seeds: u64,
    seed: u64,
    rule: String,
}

struct Hunt {
    /// The simulator without a bug.
    sound: PathBuf,
    first_seed: u64,
    /// At the most, for each bug.
    seeds: u64,
}

pub(crate) fn run(settings: &Settings) -> Result<()> {
    let number = |name: &str, default: &str| {
        let text = settings.get_or(name, default).to_owned();
        text.parse().map_err(|_| stop(USAGE, format!("{name}={text} is no number")))
    };
    let (first_seed, seeds) = (number("FIRST_SEED", "1")?, number("SEEDS", SEEDS)?);
    compile("build", &["--profile", "sim", "-p", "sim"])?;
    let sound = target().join("sim/sim");
    let bugs = wanted(&sound, settings.get_or("ONLY", ""))?;
    let hunt = Hunt { sound, first_seed, seeds };
    hunt.check_sound()?;
    let scratch = Scratch::new("planted")?;
    println!(
        "{:<7} {:<31} {:>6} {:>7} {:>7}  {:<11} effect",
        "", "planted bug", "seeds", "build", "search", "rule"
    );
    let begun = Instant::now();
    let mut not_caught = Vec::new();
    for (n, bug) in bugs.iter().enumerate() {
        let (simulator, catch) = hunt.plant(&scratch, bug, &format!("{}/{}", n + 1, bugs.len()))?;
        match catch {
            Some(catch) if bugs.len() == 1 => simulator.tell_how_to_replay(catch.seed),
            Some(_) => {}
            None => not_caught.push(bug.name()),
        }
    }
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    println!(
        "{} of {} planted bugs caught in {minutes:.1} minutes",
        bugs.len() - not_caught.len(),
        bugs.len()
    );
    if not_caught.is_empty() {
        Ok(())
    } else {
        Err(stop(1, format!("not caught: {}", not_caught.join(", "))))
    }
}

/// Returns the planted bugs with this in their names: bad policies first, because they need no build.
fn wanted(sound: &Path, only: &str) -> Result<Vec<Bug>> {
    let policies = output_of(Command::new(sound).arg("bad-policies"))?;
    let policies = policies.lines().filter_map(|line| line.split_once('\t'));
    let policies =
        policies.map(|(name, wrong)| Bug::Policy { name: name.to_owned(), wrong: wrong.to_owned() });
    let mut bugs: Vec<Bug> = policies.collect();
    bugs.extend(Patch::all(Path::new(PATCHES))?.into_iter().map(Bug::Rule));
    // The name of a file is as good, and a whole name means this bug alone.
    let plain = |name: &str| name.replace('-', " ");
    let only = plain(only);
    let is_whole = bugs.iter().any(|bug| plain(bug.name()) == only);
    bugs.retain(|bug| if is_whole { plain(bug.name()) == only } else { plain(bug.name()).contains(&only) });
    if bugs.is_empty() {
        return Err(stop(
            USAGE,
            format!("no bad policy and no patch in {PATCHES} has ONLY={only} in its name"),
        ));
    }
    Ok(bugs)
}

impl Hunt {
    fn check_sound(&self) -> Result<()> {
        let simulator = Simulator { program: self.sound.clone(), bad_policy: None };
        match simulator.search(self.first_seed, CLEAN)? {
            Found::Nothing => println!("{CLEAN} seeds without a bug break no rule"),
            Found::Violation { seed, rule, what } => {
                return Err(stop(1, format!("seed {seed} breaks {rule} without any bug: {what}")));
            }
            Found::Failure(why) => return Err(stop(1, format!("the simulator without any bug: {why}"))),
        }
        Ok(())
    }

    /// Plants a bug and prints a line about it.
    fn plant(&self, scratch: &Scratch, bug: &Bug, place: &str) -> Result<(Simulator, Option<Catch>)> {
        let begun = Instant::now();
        let simulator = match bug {
            Bug::Policy { name, .. } => {
                Simulator { program: self.sound.clone(), bad_policy: Some(name.clone()) }
            }
            Bug::Rule(patch) => Simulator { program: built(scratch, patch)?, bad_policy: None },
        };
        let built = begun.elapsed();
        let catch = self.search(&simulator).with_context(|| format!("planted bug {}", bug.name()))?;
        println!("{}", row(place, bug, catch.as_ref(), built, begun.elapsed() - built));
        Ok((simulator, catch))
    }

    fn search(&self, simulator: &Simulator) -> Result<Option<Catch>> {
        let end = self.first_seed + self.seeds;
        let mut from = self.first_seed;
        loop {
            match simulator.search(from, end.saturating_sub(from))? {
                Found::Nothing => return Ok(None),
                Found::Failure(why) => {
                    return Err(stop(1, format!("the simulator broke no rule, but failed: {why}")));
                }
                Found::Violation { seed, rule, .. } => {
                    let sound = Simulator { program: self.sound.clone(), bad_policy: None };
                    if sound.search(seed, 1)? == Found::Nothing {
                        return Ok(Some(Catch { seeds: seed - self.first_seed + 1, seed, rule }));
                    }
                    from = seed + 1;
                }
            }
        }
    }
}

/// Builds the simulator with a broken rule.
fn built(scratch: &Scratch, patch: &Patch) -> Result<PathBuf> {
    let name = &patch.name;
    let file = format!("{PATCHES}/{}.patch", name.replace(' ', "-"));
    scratch.break_by(&patch.diff).with_context(|| format!("{file} does not apply"))?;
    scratch.build_simulator()?.map_err(|errors| stop(1, format!("{file} does not compile:\n{errors}")))
}

fn row(place: &str, bug: &Bug, catch: Option<&Catch>, build: Duration, search: Duration) -> String {
    let (seeds, rule) = match catch {
        Some(catch) => (catch.seeds.to_string(), catch.rule.as_str()),
        None => ("none".to_owned(), "NOT CAUGHT"),
    };
    let (build, search) = (build.as_secs_f64(), search.as_secs_f64());
    format!("{place:>7} {:<31} {seeds:>6} {build:>7.1} {search:>7.1}  {rule:<11} {}", bug.name(), bug.wrong())
}
