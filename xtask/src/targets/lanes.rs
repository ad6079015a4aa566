//! Runs several series of commands at the same time, because tests mostly wait.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::failure::{checked, stop};

/// Commands that run one after the other, until one fails.
pub(super) struct Lane {
    /// Stands before each line of their output.
    pub(super) name: &'static str,
    pub(super) commands: Vec<Command>,
}

/// Runs all lanes to their ends. A failure in one stops only that lane: the others say what else fails.
pub(super) fn run(lanes: Vec<Lane>) -> Result<()> {
    let ended: Vec<(&'static str, Duration, Result<()>)> = std::thread::scope(|scope| {
        let running: Vec<_> =
            lanes.into_iter().map(|lane| (lane.name, scope.spawn(|| run_one(lane)))).collect();
        let ended = running.into_iter().map(|(name, lane)| match lane.join() {
            Ok((time, result)) => (name, time, result),
            Err(_) => (name, Duration::ZERO, Err(stop(1, "the thread that ran it panicked"))),
        });
        ended.collect()
    });
    println!();
    for (name, time, result) in &ended {
        let outcome = if result.is_ok() { "ok" } else { "FAILED: its lines above begin with its name" };
        println!("{name:<10}{:>8.1} s  {outcome}", time.as_secs_f64());
    }
    ended.into_iter().try_for_each(|(_, _, result)| result)
}

fn run_one(lane: Lane) -> (Duration, Result<()>) {
    let start = Instant::now();
    let result = lane.commands.into_iter().try_for_each(|command| run_command(lane.name, command));
    (start.elapsed(), result)
}

fn run_command(lane: &str, mut command: Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        scope.spawn(|| out.map(|out| copy(lane, out)));
        scope.spawn(|| err.map(|err| copy(lane, err)));
    });
    checked(child.wait().with_context(|| format!("cannot wait for {program}"))?)
}

/// Prints each line with the name of its lane, in one write, so that lines of other lanes do not break it.
fn copy(lane: &str, from: impl Read) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while matches!(from.read_until(b'\n', &mut line), Ok(count) if count > 0) {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if !text.is_empty() {
            // If the output is closed, the tests go on all the same.
            let _ = writeln!(std::io::stdout().lock(), "{lane:<7} {text}");
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failure_ends_its_own_lane_only() {
        let dir = std::env::temp_dir().join(format!("vigia-lanes-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let made = |name: &str| shell(&format!("touch {}/{name}", dir.display()));
        let failing = Lane { name: "a", commands: vec![shell("exit 3"), made("never")] };
        let other = Lane { name: "b", commands: vec![shell("sleep 0.3"), made("late")] };
        let error = run(vec![failing, other]).expect_err("one lane fails");
        assert_eq!(error.to_string(), "exit code 3");
        let there = |name: &str| dir.join(name).exists();
        assert_eq!((there("never"), there("late")), (false, true));
        std::fs::remove_dir_all(&dir).expect("removed");
    }

    #[test]
    fn lanes_run_at_the_same_time() {
        // Each waits for the other's file.
        let dir = std::env::temp_dir().join(format!("vigia-lanes-two-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let meet = |own: &str, other: &str| {
            let dir = dir.display();
            let look =
                format!("for i in $(seq 100); do [ -e {dir}/{other} ] && exit 0; sleep 0.1; done; exit 1");
            shell(&format!("touch {dir}/{own}; {look}"))
        };
        let lanes = [("a", "b"), ("b", "a")];
        let lanes = lanes.map(|(own, other)| Lane { name: own, commands: vec![meet(own, other)] });
        run(lanes.into()).expect("they meet");
        std::fs::remove_dir_all(&dir).expect("removed");
    }
}
