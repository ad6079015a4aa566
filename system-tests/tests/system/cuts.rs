//! A fault at every call: `deploy` and `destroy` are cut after each call that changes something. The call
//! is carried out, its reply never comes, and the process is killed before it does anything more. Run
//! again, they complete; nothing is there twice and nothing is left.
//!
//! | form | each cut point | run by |
//! |---|---|---|
//! | chain | in one stack, one after the other: each run goes one change further than the one before | `make cuts` |
//! | short chain | the same, and each run goes twelve changes further | `make test` |
//! | matrix | in a stack of its own, and the next run is not cut | `make cuts` |
//!
//! Another form kills no command: the first reply to each change (in `make test`, to one in four) is lost, so
//! that the SDK, or the code that calls it, sends the change once more. That must not make two of anything either.
//!
//! `cargo lambda` calls with the same key, so its calls are cut as well.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use process::settings::{Env, Vars as _};
use rand::RngExt as _;
use serde_json::{Value, json};

use crate::census::{Census, Observer};
use crate::support::{Cloud, bootstrap_command, deployer_of, eventually, say, stripped};

/// Limit of one run of a command, which takes a few seconds.
const RUN: Duration = Duration::from_secs(180);
/// A schedule that was just missed, and a launch.
const SETTLED: Duration = Duration::from_secs(90);
/// Far more than there are; the limit reveals a run that makes no progress.
const MOST_CUTS: usize = 400;

/// Minutes on two cores: about 150 runs, one after the other.
#[test]
#[ignore = "`make cuts` runs it, before the full matrix"]
fn cut_after_any_change_both_are_completed_by_the_next_run() {
    cut_both(Which { every: 1, first: 0 });
}

#[test]
fn cut_after_some_changes_both_are_completed_by_the_next_run() {
    cut_both(Which::draw(12));
}

/// The changes of a command that are disturbed, by number.
#[derive(Clone, Copy)]
struct Which {
    every: usize,
    first: usize,
}

impl Which {
    /// Draws which one of this many it is, so that many runs of the tests disturb each of them.
    fn draw(every: usize) -> Self {
        let first = rand::rng().random_range(0..every);
        say(&format!("disturbs each change whose number is {first} more than a multiple of {every}"));
        Self { every, first }
    }

    fn has(self, number: usize) -> bool {
        number % self.every == self.first
    }
}

fn cut_both(which: Which) {
    let cloud = Cloud::start();
    let observer = &cloud.observer;
    let whole = undisturbed(&cloud, observer, "whole");
    let cutter = Cutter { cloud: &cloud, stack: "cut" };

    let deployed = cutter.chain(&DEPLOY, which);
    settled(observer, "cut", &whole).unwrap_or_else(|wrong| panic!("after {deployed} cuts: {wrong}"));
    let said = cutter.run(&DEPLOY).unwrap_or_else(|said| panic!("{said}"));
    assert!(said.contains("nothing changed"), "{said}");

    let destroyed = cutter.chain(&DESTROY, which);
    gone(observer, "cut").unwrap_or_else(|left| panic!("after {destroyed} cuts: {left}"));
    let said = cutter.run(&DESTROY).unwrap_or_else(|said| panic!("{said}"));
    assert!(said.contains("nothing to remove"), "{said}");
    assert!(observer.census("whole").must_be(&whole).is_ok(), "the other stack was touched");
    Cutter { cloud: &cloud, stack: "whole" }.run(&DESTROY).unwrap_or_else(|said| panic!("{said}"));
    gone(observer, "whole").unwrap_or_else(|left| panic!("undisturbed: {left}"));
    assert_eq!(observer.stray_roles(), Vec::<String>::new());
    assert!(deployed > 0 && destroyed > 0, "{deployed} and {destroyed} cuts");
    say(&format!("{deployed} cut points of deploy, {destroyed} of destroy: 0 duplicated, 0 leaked"));
}

/// Minutes on two cores: the SDK waits before each repetition.
#[test]
#[ignore = "`make cuts` runs it, before the full matrix"]
fn no_change_whose_reply_is_lost_is_made_twice() {
    lose_replies(Which { every: 1, first: 0 });
}

#[test]
fn some_changes_whose_reply_is_lost_are_not_made_twice() {
    lose_replies(Which::draw(4));
}

fn lose_replies(which: Which) {
    let cloud = Cloud::start();
    let observer = &cloud.observer;
    let whole = undisturbed(&cloud, observer, "whole");
    let cutter = Cutter { cloud: &cloud, stack: "lossy" };
    let deployed = cutter.lossy(&DEPLOY, which);
    settled(observer, "lossy", &whole)
        .unwrap_or_else(|wrong| panic!("after {deployed} lost replies: {wrong}"));
    let destroyed = cutter.lossy(&DESTROY, which);
    gone(observer, "lossy").unwrap_or_else(|left| panic!("after {destroyed} lost replies: {left}"));
    Cutter { cloud: &cloud, stack: "whole" }.run(&DESTROY).unwrap_or_else(|said| panic!("{said}"));
    assert!(deployed > 0 && destroyed > 0, "{deployed} and {destroyed} lost replies");
    say(&format!("{deployed} lost replies of deploy, {destroyed} of destroy: 0 duplicated, 0 leaked"));
}

/// `make cuts`: half an hour or more on two cores.
#[test]
#[ignore = "the full matrix; `make cuts` runs it"]
fn matrix() {
    let number = |name: &str| Env.get(name).and_then(|text| text.parse::<u32>().ok());
    let wanted = number("VIGIA_CUTS_FROM").unwrap_or(1)..=number("VIGIA_CUTS_TO").unwrap_or(u32::MAX);
    let cloud = Cloud::start();
    let observer = &cloud.observer;
    let whole = undisturbed(&cloud, observer, "whole");
    say(&format!("an undisturbed stack has {} things", whole.len()));
    let matrix = Matrix {
        cloud: &cloud,
        observer,
        whole: &whole,
        next: AtomicU32::new(*wanted.start()),
        wanted,
        tally: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let matrix = &matrix;
            scope.spawn(move || matrix.work());
        }
    });
    let tally = matrix.tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    let strays = observer.stray_roles();
    for wrong in &tally.wrong {
        say(&format!("WRONG: {wrong}"));
    }
    let summary = format!(
        "{} cut points of deploy, {} of destroy: {} duplicated, {} leaked",
        tally.deploy,
        tally.destroy,
        tally.duplicated,
        tally.leaked + strays.len()
    );
    say(&summary);
    if let Some(file) = std::env::var_os("VIGIA_CUTS_REPORT") {
        std::fs::write(file, format!("{summary}\n")).expect("the report is written");
    }
    assert!(tally.deploy > 0 && tally.destroy > 0, "nothing was tried");
    assert_eq!((tally.wrong.len(), strays), (0, Vec::new()), "{summary}");
}

/// One worker is enough, and no run waits for it: only the account's contents matter.
const DEPLOY: [&str; 4] = ["deploy", "--workers", "1", "--no-wait"];
const DESTROY: [&str; 2] = ["destroy", "--yes"];

/// Returns the census of a stack whose deployment was not disturbed.
fn undisturbed(cloud: &Cloud, observer: &Observer, stack: &str) -> Census {
    Cutter { cloud, stack }.run(&DEPLOY).unwrap_or_else(|said| panic!("{said}"));
    eventually("an undisturbed stack has a load balancer and a worker", SETTLED, || {
        let census = observer.census(stack);
        let text = census.to_string();
        let has = |role: &str| text.lines().filter(|line| line.trim_start().starts_with(role)).count();
        if has("worker t") == 1 && has("lb t") == 1 { Ok(census) } else { Err(text) }
    })
}

/// Returns whether the stack becomes like the undisturbed one.
fn settled(observer: &Observer, stack: &str, whole: &Census) -> Result<(), String> {
    within(SETTLED, || observer.census(stack).must_be(whole))
}

fn gone(observer: &Observer, stack: &str) -> Result<(), String> {
    let left = observer.census(stack);
    if left.is_empty() { Ok(()) } else { Err(format!("these are left:\n{left}")) }
}

/// [`eventually`] for a condition that may fail without ending the test.
fn within(limit: Duration, mut look: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    let since = Instant::now();
    loop {
        match look() {
            Err(_) if since.elapsed() < limit => std::thread::sleep(Duration::from_millis(250)),
            last => return last,
        }
    }
}

struct Matrix<'a> {
    cloud: &'a Cloud,
    observer: &'a Observer,
    whole: &'a Census,
    wanted: RangeInclusive<u32>,
    next: AtomicU32,
    tally: Mutex<Tally>,
}

#[derive(Default)]
struct Tally {
    deploy: u32,
    destroy: u32,
    duplicated: usize,
    leaked: usize,
    wrong: Vec<String>,
    /// Numbers beyond the last change of a command.
    deploy_has_ended: bool,
    destroy_has_ended: bool,
}

impl Matrix<'_> {
    fn work(&self) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let tally = self.tally();
            let is_over = tally.deploy_has_ended && tally.destroy_has_ended;
            drop(tally);
            if is_over || !self.wanted.contains(&number) {
                return;
            }
            let stack = format!("cut{number}");
            let cutter = Cutter { cloud: self.cloud, stack: &stack };
            if let Err(wrong) = self.one(&cutter, number) {
                self.tally().wrong.push(format!("after change {number}: {wrong}"));
            }
        }
    }

    fn one(&self, cutter: &Cutter<'_>, number: u32) -> Result<(), String> {
        let cut = cutter.cut_after(&DEPLOY, number)?;
        match &cut {
            Some(call) => {
                self.tally().deploy += 1;
                say(&format!("deploy cut after change {number}, {call}"));
                cutter.run(&DEPLOY).map_err(|said| format!("deploy again, after {call}: {said}"))?;
            }
            None => self.tally().deploy_has_ended = true,
        }
        if let Err(wrong) = settled(self.observer, cutter.stack, self.whole) {
            let census = self.observer.census(cutter.stack);
            self.tally().duplicated += census.beyond(self.whole).len();
            return Err(format!("deploy, after {cut:?}: {wrong}"));
        }
        let cut = cutter.cut_after(&DESTROY, number)?;
        match &cut {
            Some(call) => {
                self.tally().destroy += 1;
                say(&format!("destroy cut after change {number}, {call}"));
                cutter.run(&DESTROY).map_err(|said| format!("destroy again, after {call}: {said}"))?;
            }
            None => self.tally().destroy_has_ended = true,
        }
        gone(self.observer, cutter.stack).map_err(|left| {
            self.tally().leaked += self.observer.census(cutter.stack).len();
            format!("destroy, after {cut:?}: {left}")
        })
    }

    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stack whose commands are cut; its deployer is a user that no other stack has.
struct Cutter<'a> {
    cloud: &'a Cloud,
    stack: &'a str,
}

impl Cutter<'_> {
    /// Runs a command to its end; returns its output.
    fn run(&self, command: &[&str]) -> Result<String, String> {
        let mut run = self.start(command);
        within(RUN, || match run.child.try_wait() {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("it does not end: {other:?}")),
        })?;
        let status = run.child.wait().expect("it has ended");
        if status.success() { Ok(run.said()) } else { Err(format!("{status}: {}", run.said())) }
    }

    /// Cuts a command after its change of this number, counted from one; returns the call, or `None` if the
    /// command ends before that.
    fn cut_after(&self, command: &[&str], number: u32) -> Result<Option<String>, String> {
        let (seen, hold) = (self.cloud.last_call(), self.hold(number - 1));
        let mut run = self.start(command);
        let is_held = self.until_held(&mut run, hold)?;
        run.kill();
        let call = is_held.then(|| self.held_call(hold, seen));
        self.end(hold, seen);
        Ok(call.map(|call| describe(&call)))
    }

    /// Runs a command again and again, each time cut after the first of these changes that no earlier run
    /// made, until it completes; returns how often it was cut.
    fn chain(&self, command: &[&str], which: Which) -> usize {
        let mut known = BTreeSet::new();
        for cuts in 0.. {
            match self.run_disturbed(command, &mut known, Disturbance::Kill(which)) {
                Ok(Ended::Killed) => {}
                Ok(Ended::Completed) => return cuts,
                Err(wrong) => panic!("{command:?}, after {cuts} cuts: {wrong}"),
            }
        }
        unreachable!("the number of changes is limited")
    }

    /// Runs a command until it succeeds. The reply to each of these changes is lost the first time; returns how
    /// many were lost. A change that AWS refuses to make twice may end a run, and the next run finds it made.
    fn lossy(&self, command: &[&str], which: Which) -> usize {
        const RUNS: u32 = 12;
        let mut known = BTreeSet::new();
        for run in 1..=RUNS {
            match self.run_disturbed(command, &mut known, Disturbance::LoseReply(which)) {
                Ok(_) => {
                    let lost = (1..=known.len()).filter(|number| which.has(*number)).count();
                    say(&format!("{}: {lost} lost replies in {run} runs", command[0]));
                    return lost;
                }
                Err(said) => say(&format!("run {run} of {} ended: {}", command[0], last_line(&said))),
            }
        }
        panic!("{command:?} does not succeed in {RUNS} runs")
    }

    /// Runs a command and disturbs it after each unknown change.
    fn run_disturbed(
        &self,
        command: &[&str],
        known: &mut BTreeSet<String>,
        disturbance: Disturbance,
    ) -> Result<Ended, String> {
        let (seen, mut hold) = (self.cloud.last_call(), self.hold(0));
        let mut run = self.start(command);
        loop {
            match self.until_held(&mut run, hold) {
                Ok(true) => {}
                ended => {
                    self.end(hold, seen);
                    return ended.map(|_| Ended::Completed);
                }
            }
            let is_new = known.insert(identity(&self.held_call(hold, seen)));
            assert!(known.len() < MOST_CUTS, "no end after {}", known.len());
            let (Disturbance::Kill(which) | Disturbance::LoseReply(which)) = disturbance;
            let is_disturbed = is_new && which.has(known.len());
            if is_disturbed && matches!(disturbance, Disturbance::Kill(_)) {
                run.kill();
                self.end(hold, seen);
                return Ok(Ended::Killed);
            }
            // The next rules first, so that no change slips through.
            let next = self.hold(0);
            self.cloud.release_api_fault(hold.request);
            match is_disturbed {
                // The caller that waits for the reply sees the connection closed.
                true => self.cloud.clear_api_fault(hold.reply),
                false => self.cloud.release_api_fault(hold.reply),
            }
            hold = next;
        }
    }

    /// Lets this many changes of the deployer pass, holds the reply to the next, and then every other.
    fn hold(&self, after: u32) -> Hold {
        let calls = json!({"changing": true, "caller": deployer_of(self.stack)});
        let rule = |kind: &str, after: u32, limit: Value| {
            self.cloud
                .api_fault(&json!({"effect": {"kind": kind}, "calls": calls, "after": after, "limit": limit}))
        };
        let reply = rule("hold-reply", after, json!({"times": 1}));
        Hold { reply, request: rule("hold-request", after + 1, json!({"for_seconds": 600})) }
    }

    /// Waits until a reply is held, or the command has ended: then it must have succeeded.
    fn until_held(&self, run: &mut Run, hold: Hold) -> Result<bool, String> {
        let since = Instant::now();
        while since.elapsed() < RUN {
            // In this order: an ended command has made all its calls.
            let ended = run.child.try_wait().expect("a child can be waited for");
            if self.cloud.api_fault_view(hold.reply)["held"] == 1 {
                return Ok(true);
            }
            match ended {
                Some(status) if status.success() => return Ok(false),
                Some(status) => return Err(format!("{status}: {}", run.said())),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        run.kill();
        Err(format!("it neither ended nor changed anything for {RUN:?}: {}", run.said()))
    }

    fn held_call(&self, hold: Hold, seen: u64) -> Value {
        let calls = self.cloud.calls_since(seen);
        calls.into_iter().find(|call| call["fault"]["rule"] == hold.reply).expect("the held call is recorded")
    }

    /// Ends the hold, and waits for the calls that the killed command had begun: AWS would carry them out as
    /// well.
    fn end(&self, hold: Hold, seen: u64) {
        for rule in [hold.request, hold.reply] {
            self.cloud.clear_api_fault(rule);
        }
        let ended = within(RUN, || {
            let calls = self.cloud.calls_since(seen);
            let pending = calls
                .iter()
                .find(|call| call["caller"] == deployer_of(self.stack) && call["outcome"] == "pending");
            pending.map_or(Ok(()), |call| Err(call.to_string()))
        });
        ended.expect("every call ends");
    }

    fn start(&self, command: &[&str]) -> Run {
        let artifacts = stripped().to_string_lossy().into_owned();
        let more = if command[0] == "deploy" { vec!["--artifacts", &artifacts] } else { Vec::new() };
        let arguments = [command, &more[..]].concat();
        let log = self.cloud.dir.path().join(format!("{}.log", self.stack));
        let file = std::fs::File::create(&log).expect("a log");
        let (key, secret) = self.cloud.deployer(self.stack);
        let child = bootstrap_command(
            &self.cloud.endpoint,
            (&key, &secret),
            self.stack,
            &self.cloud.dir.path().join(format!("{}.token", self.stack)),
            &arguments,
        )
        // Files that a killed `cargo lambda` leaves are removed with the cloud.
        .env("TMPDIR", self.cloud.dir.path())
        .stdout(file.try_clone().expect("a log"))
        .stderr(file)
        .stdin(Stdio::null())
        // Its children are killed with it.
        .process_group(0)
        .spawn()
        .expect("bootstrap runs");
        Run { child, log }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    Killed,
    Completed,
}

/// The disturbance of a command after a change.
#[derive(Clone, Copy)]
enum Disturbance {
    Kill(Which),
    LoseReply(Which),
}

/// The two rules that hold a caller.
#[derive(Clone, Copy)]
struct Hold {
    reply: u64,
    request: u64,
}

struct Run {
    child: Child,
    log: PathBuf,
}

impl Run {
    fn kill(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let group = format!("kill -s KILL -- -{}", self.child.id());
            let killed = std::process::Command::new("sh").args(["-c", &group]).status().expect("a shell");
            assert!(killed.success(), "{} cannot be killed", self.child.id());
        }
        self.child.wait().expect("it has ended");
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.kill();
    }
}

fn last_line(said: &str) -> &str {
    said.lines().rev().find(|line| line.starts_with("error")).unwrap_or(said)
}

fn describe(call: &Value) -> String {
    let part = |key: &str| call[key].as_str().unwrap_or_default().to_owned();
    format!("{} {} {}", part("service"), part("action"), part("path")).trim_end().to_owned()
}

/// Identifies a change: a repeated call is the same change.
fn identity(call: &Value) -> String {
    // Each upload publishes a version with the next number, and each run deletes its own.
    let what = match describe(call).split_once("?Qualifier=") {
        Some((of, _)) => format!("{of}, a version"),
        None => describe(call),
    };
    format!("{what} {}", call["parameters"])
}
