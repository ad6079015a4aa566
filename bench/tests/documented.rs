//! The commands of README and docs, from a fresh clone with an empty environment.
//!
//! | command | how it is run |
//! |---|---|
//! | each `make …` of each document | `make -n`: the target is there, and each variable is looked at |
//! | `make help` | as it stands |
//! | the benchmarks | as they stand, with programs that take the place of the built ones |
//!
//! A variable that no recipe looks at is ignored by make, and an option that is documented and does
//! nothing is worse than an error.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// The files that git would put into a new directory, including uncommitted changes.
struct FreshClone(TempDir);

impl FreshClone {
    fn new() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the repository");
        let listed = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .expect("git is there");
        assert!(listed.status.success(), "{}", text(&listed));
        // With a space, on which an unquoted path breaks.
        let dir = tempfile::Builder::new().prefix("a clone ").tempdir().expect("a directory");
        let files = String::from_utf8(listed.stdout).expect("names are text");
        // Git also lists a removed file until the removal is committed.
        for file in files.split_terminator('\0').filter(|file| root.join(file).is_file()) {
            let to = dir.path().join(file);
            fs::create_dir_all(to.parent().expect("it is in the clone")).expect("a directory");
            fs::copy(root.join(file), to).expect("a copy");
        }
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn read(&self, file: &Path) -> String {
        fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    }

    fn make<S: AsRef<str>>(&self, words: &[S]) -> Output {
        let stubs = self.path().join("stubs").display().to_string();
        let path = format!("{stubs}:/usr/local/bin:/usr/bin:/bin:/usr/sbin");
        Command::new("make")
            .args(words.iter().map(AsRef::as_ref))
            .env_clear()
            .env("PATH", path)
            .current_dir(self.path())
            .output()
            .expect("make is there")
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("it is in the clone")).expect("a directory");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
    }

    /// As after a build: the benchmarks are the real ones, and the measured programs are scripts.
    fn build(&self, measured: &str) {
        for (name, program) in [
            ("bench-balancer", env!("CARGO_BIN_EXE_bench-balancer")),
            ("bench-login", env!("CARGO_BIN_EXE_bench-login")),
            ("bench-reconciler", env!("CARGO_BIN_EXE_bench-reconciler")),
        ] {
            for profile in ["release", "sim"] {
                let dir = self.path().join("target").join(profile);
                fs::create_dir_all(&dir).expect("a directory");
                symlink(program, dir.join(name)).expect("a link");
            }
        }
        for program in ["release/ec2-lb", "release/ec2-worker", "debug/reconciler"] {
            self.program(&format!("target/{program}"), measured);
        }
        // Make's targets are in xtask. A copy, so that it is younger than the clone's sources.
        let xtask = Path::new(env!("CARGO_BIN_EXE_bench-balancer")).with_file_name("xtask");
        fs::copy(&xtask, self.path().join("target/debug/xtask"))
            .expect("`cargo build -p xtask` has run, as make does");
        // Nothing is compiled here, and nothing is installed.
        for stub in ["cargo", "nginx", "haproxy"] {
            self.program(&format!("stubs/{stub}"), "exit 0");
        }
    }

    /// Returns all documents, by their paths in the clone.
    fn documents(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut dirs = vec![self.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).expect("a directory") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    dirs.push(path);
                } else if path.extension().is_some_and(|extension| extension == "md") {
                    found.push(path);
                }
            }
        }
        found
    }
}

fn text(output: &Output) -> String {
    let parts = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    parts.concat()
}

/// Returns the commands of a document: spans and lines of code blocks that begin with `make`, or contain
/// `$(make …)`; and the variables that a table explains.
fn commands(document: &str) -> Vec<Documented> {
    let mut found = Vec::new();
    let mut is_block = false;
    for line in document.lines() {
        if line.trim_start().starts_with("```") {
            is_block = !is_block;
        } else if is_block {
            let calls = line.match_indices("make ").filter(|(at, _)| *at == 0 || line[..*at].ends_with("$("));
            found.extend(calls.map(|(at, call)| Documented::read(&line[at + call.len()..])));
        } else {
            // A table of variables has one at the front of each row.
            let row = line.strip_prefix("| `").and_then(variable).filter(|name| !name.starts_with("VIGIA_"));
            found.extend(
                row.map(|name| Documented {
                    words: Vec::new(),
                    variables: BTreeSet::from([name.to_owned()]),
                }),
            );
            let spans = line.split('`').skip(1).step_by(2);
            found.extend(spans.filter_map(|span| span.strip_prefix("make ")).map(Documented::read));
        }
    }
    found
}

#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Documented {
    /// Options, targets and variables.
    words: Vec<String>,
    /// Variables of the command, and variables that the remark next to it names.
    variables: BTreeSet<String>,
}

impl Documented {
    fn read(call: &str) -> Self {
        let (command, remark) = call.split_once(" #").unwrap_or((call, ""));
        let command = command.split(" | ").next().unwrap_or_default();
        let command = command.split([')', '"', '>', '<', '&']).next().unwrap_or_default();
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        let named = words.iter().map(String::as_str).chain(remark.split_whitespace());
        let variables = named.filter_map(variable).map(str::to_owned).collect();
        Self { words, variables }
    }
}

/// Returns the name in `NAME=value`.
fn variable(word: &str) -> Option<&str> {
    let (name, _) = word.trim_start_matches(['(', '[']).split_once('=')?;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    is_name.then_some(name)
}

#[test]
fn make_knows_each_documented_command() {
    let clone = FreshClone::new();
    let makefile = clone.read(&clone.path().join("Makefile"));
    let documents = clone.documents();
    let found: BTreeSet<Documented> = documents.iter().flat_map(|path| commands(&clone.read(path))).collect();
    assert!(found.len() > 40, "only {} commands are understood: {found:?}", found.len());
    let mut faults = Vec::new();
    for Documented { words, variables } in &found {
        let unread = variables.iter().filter(|name| !makefile.contains(&format!("$({name})")));
        faults.extend(unread.map(|name| format!("make {}: {name} is not looked at", words.join(" "))));
        if words.is_empty() {
            continue;
        }
        let output = clone.make(&[&["-n".to_owned()], &words[..]].concat());
        if !output.status.success() {
            faults.push(format!("make -n {}: {}", words.join(" "), text(&output)));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn help_needs_nothing_and_names_each_target_it_has() {
    let output = FreshClone::new().make(&["-s", "help"]);
    assert!(output.status.success(), "{}", text(&output));
    for target in ["local", "deploy", "test", "check", "bench-lb", "destroy"] {
        assert!(text(&output).contains(target), "{target}: {}", text(&output));
    }
}

/// The programs' paths are relative, as without `CARGO_TARGET_DIR`, and proxies run in a directory of
/// their own.
#[test]
fn a_benchmark_measures_what_a_fresh_clone_has_built() {
    let clone = FreshClone::new();
    let backend = env!("CARGO_BIN_EXE_bench-backend");
    clone.build(&format!("exec \"{backend}\" --listen=\"$VIGIA_LISTEN\""));
    let output = clone.make(&["-s", "bench-soak", "MINUTES=0.01"]);
    let said = text(&output);
    let answered = said.lines().find_map(|line| line.trim().split_once(" GETs answered"));
    let count: u64 = answered.and_then(|(count, _)| count.parse().ok()).unwrap_or_else(|| panic!("{said}"));
    assert!(count > 0, "{said}");
}

#[test]
fn no_benchmark_measures_before_all_programs_have_started() {
    let clone = FreshClone::new();
    clone.build("echo broken >&2; exit 1");
    for target in ["bench-lb", "bench-kill", "bench-slow", "bench-soak", "bench-login", "bench-reconciler"] {
        let output = clone.make(&["-s", target, "PEERS=ours"]);
        let said = text(&output);
        assert!(!output.status.success(), "{target}: {said}");
        assert!(said.contains("nothing was measured: "), "{target}: {said}");
        assert!(!said.contains("round 1") && !said.contains("MISSED"), "{target}: {said}");
    }
}

#[test]
fn commands_are_found_and_a_missing_target_is_noticed() {
    let found = commands(
        "| `LBS=2` | two |\n| `VIGIA_TLS=1` | none of make's |\nRun `make local N=3`, not `makes`.\n```sh\nmake -s man | man -l -   # WIDTH=\ncurl \"$(make -s local-url)/\"\n```",
    );
    let words: Vec<_> = found.iter().map(|found| found.words.join(" ")).collect();
    assert_eq!(words, ["", "local N=3", "-s man", "-s local-url"]);
    let variables: Vec<_> = found.iter().flat_map(|found| &found.variables).collect();
    assert_eq!(variables, ["LBS", "N", "WIDTH"]);
    let output = FreshClone::new().make(&["-n", "no-such-target"]);
    assert!(!output.status.success());
}
