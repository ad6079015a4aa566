//! What HTTP/1.1 asks of the load balancer, as data: `vectors/*.json`, read by `raw/vector.rs`.
//!
//! The program runs as on an instance and is known only by its bytes. Each vector runs several
//! times, whole and cut in pieces, and must end the same. A request counts as refused only if no byte of it,
//! and no byte sent after it, reached the worker.

use std::collections::BTreeSet;

use crate::raw::run::Bench;
use crate::raw::shown;
use crate::raw::split::{Dice, Split};
use crate::raw::vector::Vector;
use crate::raw::verdict::compare;

/// What vectors are there, and how they run.
const FILES: [(&str, &str); 9] = [
    ("framing", include_str!("../vectors/framing.json")),
    ("heads", include_str!("../vectors/heads.json")),
    ("targets", include_str!("../vectors/targets.json")),
    ("limits", include_str!("../vectors/limits.json")),
    ("chunks", include_str!("../vectors/chunks.json")),
    ("requests", include_str!("../vectors/requests.json")),
    ("forwarding", include_str!("../vectors/forwarding.json")),
    ("bad_responses", include_str!("../vectors/bad_responses.json")),
    ("responses", include_str!("../vectors/responses.json")),
];

/// Random cuts of each vector, in addition to whole and byte by byte.
const RANDOM_SPLITS: usize = 2;

fn vectors(file: &str) -> Vec<Vector> {
    let (_, json) = FILES.iter().find(|(name, _)| *name == file).expect("it is in the list");
    Vector::all(json)
}

/// The seed of the random cuts: 1, or `VIGIA_VECTORS_SEED`.
fn seed() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a person repeats a failing run with it")]
    let given = std::env::var("VIGIA_VECTORS_SEED").ok();
    given.map_or(1, |given| given.parse().expect("VIGIA_VECTORS_SEED is a number"))
}

/// Runs the vectors of a file on a load balancer of their own and tells all that is wrong.
fn hold(file: &str) {
    let (bench, vectors) = (Bench::start(env!("CARGO_BIN_EXE_ec2-lb")), vectors(file));
    let mut dice = Dice(seed());
    let mut reports = Vec::new();
    for vector in &vectors {
        let random = (0..RANDOM_SPLITS).map(|_| Split::Random(dice.next())).collect::<Vec<_>>();
        for split in [Split::Whole, Split::Bytes].into_iter().chain(random) {
            let outcome = bench.run(vector, split);
            let wrongs = compare(vector, &outcome);
            if wrongs.is_empty() {
                continue;
            }
            reports.push(format!(
                "{}, sent as {split:?}\n  rule: {}\n  sent: {}\n  got: {}\n  {}\n",
                vector.name,
                vector.rule,
                shown(&outcome.sent),
                shown(&outcome.received),
                wrongs.join("\n  "),
            ));
            // The same again in other pieces would say nothing more.
            break;
        }
    }
    let (failed, all) = (reports.len(), vectors.len());
    assert!(
        reports.is_empty(),
        "{failed} of {all} vectors in {file}.json do not hold (VIGIA_VECTORS_SEED={}):\n\n{}\nThe load balancer said:\n{}",
        seed(),
        reports.join("\n"),
        bench.lb.log(),
    );
}

#[test]
fn the_length_of_a_request_is_never_in_doubt() {
    hold("framing");
}

#[test]
fn heads_are_read_to_the_letter() {
    hold("heads");
}

#[test]
fn targets_and_hosts_are_read_to_the_letter() {
    hold("targets");
}

#[test]
fn too_large_messages_are_refused() {
    hold("limits");
}

#[test]
fn chunks_are_read_to_the_letter() {
    hold("chunks");
}

#[test]
fn requests_arrive_as_they_were_meant() {
    hold("requests");
}

#[test]
fn only_end_to_end_header_lines_pass() {
    hold("forwarding");
}

#[test]
fn bad_responses_reach_no_client() {
    hold("bad_responses");
}

#[test]
fn responses_arrive_as_they_were_meant() {
    hold("responses");
}

#[test]
fn each_vector_has_a_name_of_its_own_and_a_rule() {
    let mut names = BTreeSet::new();
    for (file, json) in FILES {
        for vector in Vector::all(json) {
            let name = &vector.name;
            assert!(names.insert(name.clone()), "{file}.json: {name} is there twice");
            assert!(vector.rule.len() > 20, "{file}.json: {name} has no rule");
            let says_something =
                vector.refused.is_some() || !vector.passed.is_empty() || !vector.gets.is_empty();
            assert!(says_something, "{file}.json: {name} expects nothing");
            let is_alternative = !vector.or_passed.is_empty();
            assert!(!is_alternative || vector.passed.is_empty() && vector.refused.is_some(), "{name}");
        }
    }
    assert!(names.len() >= 150, "only {} vectors", names.len());
}
