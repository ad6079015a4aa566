//! Second opinions: the same commands against each emulator by itself, without `local-cloud` in front of
//! it, so that no quirk of one of them, or of ours, becomes what we believe of AWS.
//!
//! What an emulator does otherwise is data ([`Emulator::again`]): when it learns, its test fails and the
//! row goes. Nothing is refused by either. What no emulator has (instances that run, and with them a URL)
//! is left out, so the programs are ones that end at once: the function as well, which ministack would run.

use std::path::{Path, PathBuf};
use std::process::Output;

use local_cloud::emulators::Emulator as Process;
use serde_json::json;

use crate::census::Observer;
use crate::support::{bootstrap, say, text, venv};

struct Emulator {
    name: &'static str,
    /// Steps of a second deployment that change something, and why.
    again: &'static [(&'static str, &'static str)],
}

const MOTO: Emulator = Emulator { name: "moto", again: &[] };

const MINISTACK: Emulator = Emulator {
    name: "ministack",
    again: &[("network", "it keeps routes of IPv6 without their destination, so they are never found again")],
};

const STACK: &str = "alone";

#[test]
fn each_emulator_by_itself_deploys_finds_again_and_destroys() {
    for emulator in [MOTO, MINISTACK] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let process = runtime.block_on(async {
            match emulator.name {
                "moto" => Process::start_moto(&venv(), dir.path()).await,
                _ => Process::start_ministack(dir.path()).await,
            }
        });
        let process = process.expect("the emulator starts");
        if emulator.name == "moto" {
            without_docker(process.endpoint());
        }
        story(&emulator, process.endpoint(), dir.path());
        runtime.block_on(process.stop());
    }
}

/// moto would start a container for an invocation; it only has to take it.
fn without_docker(endpoint: &str) {
    let url = format!("{endpoint}/moto-api/config");
    let config = json!({"lambda": {"use_docker": false}});
    let answer = reqwest::blocking::Client::new().post(url).json(&config).send().expect("an answer");
    assert!(answer.status().is_success(), "{answer:?}");
}

fn story(emulator: &Emulator, endpoint: &str, dir: &Path) {
    let name = emulator.name;
    let observer = Observer::new(endpoint);
    let artifacts = programs(dir).to_string_lossy().into_owned();
    let deploy = ["deploy", "--workers", "1", "--no-wait", "--artifacts", artifacts.as_str()];
    let must = |arguments: &[&str]| {
        let output: Output = bootstrap(endpoint, ("test", "test"), STACK, &dir.join("token"), arguments);
        assert!(output.status.success(), "{name}: {arguments:?}: {}", text(&output));
        text(&output)
    };
    must(&deploy);
    let first = observer.census(STACK);
    assert!(first.len() > 25, "{name}: {first}");
    let said = must(&deploy);
    let expected: Vec<&str> = emulator.again.iter().map(|(step, _)| *step).collect();
    assert_eq!(changed(&said), expected, "{name}: {said}");
    // Routes are lines of their tables, and a table that gets one route twice is the emulator's affair.
    if expected.is_empty() {
        observer.census(STACK).must_be(&first).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
    }
    let said = must(&["destroy", "--yes"]);
    assert!(said.contains("is removed"), "{name}: {said}");
    let left = observer.census(STACK);
    assert!(left.is_empty(), "{name}: these are left:\n{left}");
    let said = must(&["destroy", "--yes"]);
    assert!(said.contains("nothing to remove"), "{name}: {said}");
    let why: Vec<String> = emulator.again.iter().map(|(step, why)| format!("; {step} anew: {why}")).collect();
    say(&format!("{name} by itself: {} things made, found again, and removed{}", first.len(), why.concat()));
}

/// Steps that changed something, by the lines of progress. The first tick follows from that.
fn changed(said: &str) -> Vec<&str> {
    said.lines().filter_map(step_of).collect()
}

fn step_of(line: &str) -> Option<&str> {
    let (step, outcome) = line.split_once("  ")?;
    let outcome = outcome.trim_start();
    let is_change = ["created (", "updated (", "removed ("].iter().any(|word| outcome.starts_with(word));
    is_change.then(|| step.trim())
}

/// Programs that can be uploaded and that do nothing.
fn programs(dir: &Path) -> PathBuf {
    let directory = dir.join("programs");
    std::fs::create_dir_all(&directory).expect("a directory");
    for name in ["ec2-lb", "ec2-worker", "reconciler"] {
        let mut program = std::fs::read("/bin/true").expect("every Linux has it");
        program.extend(name.bytes());
        std::fs::write(directory.join(name), program).expect("writable");
    }
    directory
}
