//! A second, independent evaluator of IAM policies checks the same permissions: LocalEmu's, by
//! `second_judge/judge.py`. Each disagreement is an error of one of the two, or explained here.
//!
//! It checks the permissions that the local cloud has found for each call; it is not asked which permissions
//! a call needs.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Cloud, say, text, workspace};

/// Actions on which the two may disagree, and why.
const EXPLAINED: &[(&str, &str)] = &[];

/// The action that needs no permission, so that no policy mentions it.
const FREE: &str = "sts:GetCallerIdentity";

/// Policies of users and roles, by their ARNs, while they exist.
#[derive(Default)]
pub(crate) struct Principals(BTreeMap<String, Value>);

impl Principals {
    pub(crate) fn add(&mut self, arn: String, policy: &Value) {
        self.0.insert(arn, json!({"identity": [policy], "boundary": null}));
    }
}

/// Compares the verdicts of a local cloud with those of the second evaluator, and prints both.
pub(crate) fn must_agree(cloud: &Cloud, principals: &Principals, uses: &[Value]) {
    let calls = cloud.control("iam");
    let count = |name: &str| calls[name].as_u64().expect("a number");
    say(&format!(
        "calls judged: {}, allowed: {}, denied: {}",
        count("judged"),
        count("allowed"),
        count("denied")
    ));
    let Some(second) = judged(principals, uses) else {
        say("NOT RUN: there is no second evaluator of IAM policies; `make second-judge` installs it");
        return;
    };
    let disagreements = second["disagreements"].as_array().expect("a list");
    let (explained, unexplained): (Vec<&Value>, Vec<&Value>) =
        disagreements.iter().partition(|one| EXPLAINED.iter().any(|(action, _)| one["action"] == *action));
    say(&format!(
        "permissions judged twice: {}, allowed: {}, denied: {}, disagreements: {} ({} unexplained)",
        second["judged"],
        second["allowed"],
        second["denied"],
        disagreements.len(),
        unexplained.len()
    ));
    assert!(unexplained.is_empty(), "{unexplained:#?}");
    let needless: Vec<_> =
        EXPLAINED.iter().filter(|(action, _)| explained.iter().all(|one| one["action"] != *action)).collect();
    assert!(needless.is_empty(), "the judges agree about {needless:?}");
    assert!(
        second["judged"].as_u64().is_some_and(|judged| judged > 20),
        "hardly anything was judged: {second}"
    );
}

/// Returns the second evaluator's verdicts; `None` if it is not installed.
fn judged(principals: &Principals, uses: &[Value]) -> Option<Value> {
    let known = |one: &&Value| {
        one["principal"].as_str().is_some_and(|arn| principals.0.contains_key(arn)) && one["action"] != FREE
    };
    let uses: Vec<&Value> = uses.iter().filter(known).collect();
    let of: BTreeSet<&str> = uses.iter().filter_map(|one| one["principal"].as_str()).collect();
    let policies: BTreeMap<_, _> = principals.0.iter().filter(|(arn, _)| of.contains(arn.as_str())).collect();
    let question = json!({"policies": policies, "uses": uses}).to_string();
    let mut child = Command::new(python()?)
        .arg(workspace().join("system-tests/second_judge/judge.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Python runs");
    let mut stdin = child.stdin.take().expect("it is a pipe");
    // On a thread: either side may fill its pipe.
    let writer = std::thread::spawn(move || stdin.write_all(question.as_bytes()));
    let output = child.wait_with_output().expect("Python ends");
    writer.join().expect("no panic").expect("the question is read");
    assert!(output.status.success(), "judge.py: {}", text(&output));
    Some(serde_json::from_slice(&output.stdout).expect("JSON"))
}

fn python() -> Option<PathBuf> {
    let tools = workspace().join(".tools/second-judge");
    Some(tools.join("bin/python")).filter(|_| tools.join(".installed").exists())
}

/// The comparison can fail: it notices a wrong verdict.
#[test]
fn a_wrong_verdict_is_a_disagreement() {
    let arn = "arn:aws:iam::000000000000:user/u";
    let mut principals = Principals::default();
    let policy = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "ec2:TerminateInstances", "Resource": "arn:aws:ec2:r:0:instance/*",
         "Condition": {"StringEquals": {"aws:ResourceTag/vigia:stack": "a"}}}]});
    principals.add(arn.to_owned(), &policy);
    let verdict = |stack: &str, decision: &str| {
        json!({"principal": arn, "action": "ec2:TerminateInstances", "resource": "arn:aws:ec2:r:0:instance/i-1",
               "context": {"aws:ResourceTag/vigia:stack": stack}, "decision": decision})
    };
    let uses = [verdict("a", "allowed"), verdict("b", "not-allowed"), verdict("b", "allowed")];
    let Some(judged) = judged(&principals, &uses) else {
        say("NOT RUN: there is no second evaluator of IAM policies; `make second-judge` installs it");
        return;
    };
    assert_eq!((&judged["judged"], &judged["denied"]), (&json!(3), &json!(2)));
    let disagreements = judged["disagreements"].as_array().expect("a list");
    assert_eq!(disagreements.len(), 1, "{judged}");
    assert_eq!(disagreements[0]["context"]["aws:ResourceTag/vigia:stack"], "b");
}
