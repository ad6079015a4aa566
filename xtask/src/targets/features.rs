//! Programs and tests must have the same features below the AWS SDK, or it is compiled twice: five minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use crate::cargo::cargo;
use crate::failure::{output_of, stop};

/// Fails if a package below the AWS SDK has other features for tests than for programs.
pub(super) fn check() -> Result<()> {
    let manifest = std::fs::read_to_string("Cargo.toml").context("cannot read Cargo.toml")?;
    let sdk = sdk(&manifest).flat_map(|name| ["--package", name]);
    let below = tree(&[&["--edges", "normal"], &sdk.collect::<Vec<_>>()[..]].concat())?;
    let all = |edges: &str| tree(&["--workspace", "--format", "{p} {f}", "--edges", edges]);
    let differing = differing(&below, &all("normal")?, &all("normal,dev")?);
    if differing.is_empty() {
        return Ok(());
    }
    let mut said =
        String::from("tests switch other features on than programs, so the AWS SDK is compiled twice:\n");
    for (programs, tests) in differing {
        // Writing to a string does not fail.
        let _ = writeln!(said, "  programs: {programs}\n  tests:    {tests}");
    }
    said += "  Name the features in the root's Cargo.toml for both.";
    Err(stop(1, said))
}

/// The crates of the SDK that the workspace uses.
fn sdk(manifest: &str) -> impl Iterator<Item = &str> {
    manifest
        .lines()
        .filter(|line| line.starts_with("aws-sdk-"))
        .filter_map(|line| line.split([' ', '=', '.']).next())
}

fn tree(arguments: &[&str]) -> Result<String> {
    output_of(cargo().args(["tree", "--locked", "--prefix", "none"]).args(arguments))
}

/// Features by package and version. A package may be there with several.
fn features(tree: &str) -> BTreeMap<(&str, &str), BTreeSet<&str>> {
    let mut found: BTreeMap<_, BTreeSet<&str>> = BTreeMap::new();
    for line in tree.lines().map(|line| line.trim_end_matches(" (*)")) {
        if let Some(package) = package(line) {
            found.entry(package).or_default().insert(line);
        }
    }
    found
}

fn package(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_whitespace();
    Some((words.next()?, words.next()?))
}

/// Returns the lines that differ, of packages that both sides have and that are below the SDK.
fn differing(below: &str, programs: &str, tests: &str) -> Vec<(String, String)> {
    let below: BTreeSet<_> = below.lines().filter_map(package).collect();
    let (programs, tests) = (features(programs), features(tests));
    let mut found = Vec::new();
    for (package, of_programs) in programs.iter().filter(|(package, _)| below.contains(*package)) {
        let Some(of_tests) = tests.get(package) else { continue };
        let only = |these: &BTreeSet<&str>, those: &BTreeSet<&str>| {
            these.difference(those).copied().collect::<Vec<_>>().join("; ")
        };
        let (by_programs, by_tests) = (only(of_programs, of_tests), only(of_tests, of_programs));
        if !by_programs.is_empty() || !by_tests.is_empty() {
            found.push((by_programs, by_tests));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_of_tests_alone_is_found_below_the_sdk() {
        let programs = "aws-sdk-s3 v1.0 default\nrand v0.9 std\nproptest v1 x\nown v0.1 (/a) \n";
        let tests = "aws-sdk-s3 v1.0 default (*)\nrand v0.9 std,small\nproptest v1 x,y\nown v0.1 (/a) \n";
        let found = differing("aws-sdk-s3 v1.0\nrand v0.9 (*)\n", programs, tests);
        assert_eq!(found, [("rand v0.9 std".to_owned(), "rand v0.9 std,small".to_owned())]);
    }

    #[test]
    fn the_sdk_is_read_from_the_manifest() {
        let manifest = "aws-config = 1\naws-sdk-ec2 = { version = \"1\" }\naws-sdk-s3.workspace = true\n";
        assert_eq!(sdk(manifest).collect::<Vec<_>>(), ["aws-sdk-ec2", "aws-sdk-s3"]);
    }
}
