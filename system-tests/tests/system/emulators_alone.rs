//! Second opinions: the same commands against each emulator by itself, without `local-cloud` in front of it,
//! so that no quirk of an emulator, or of `local-cloud`, becomes our belief about AWS.
//!
//! The limit of each emulator is data ([`Emulator::ends`]): when it learns more, its test fails and the row
//! goes. Neither refuses anything. Features that no emulator has (instances that run, and with them a URL)
//! are left out. So the programs exit at once, the function included, which ministack would run.

use std::path::{Path, PathBuf};
use std::process::Output;

use local_cloud::emulators::Emulator as Process;
use serde_json::json;

use crate::census::Observer;
use crate::support::{bootstrap, say, text, venv};

struct Emulator {
    name: &'static str,
    /// Where a deployment ends, in its own words, and why.
    ends: Option<(&'static str, &'static str)>,
}

const MOTO: Emulator = Emulator {
    name: "moto",
    ends: Some(("the IPv6 block of subnet-", "it does not show the IPv6 blocks of subnets")),
};

const MINISTACK: Emulator = Emulator {
    name: "ministack",
    ends: Some(("the IPv6 block of vpc-", "it knows no IPv6 blocks, and without one no stack works")),
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

/// moto would start a container for an invocation; it only has to accept it.
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
    match emulator.ends {
        None => must(&deploy),
        Some((says, _)) => {
            let patience = [&deploy[..], &["--patience", "2"]].concat();
            let output = bootstrap(endpoint, ("test", "test"), STACK, &dir.join("token"), &patience);
            let said = text(&output);
            assert!(output.status.code() == Some(1) && said.contains(says), "{name}: {said}");
            said
        }
    };
    let first = observer.census(STACK);
    match emulator.ends {
        None => {
            assert!(first.len() > 25, "{name}: {first}");
            let said = must(&deploy);
            assert_eq!(changed(&said), [""; 0], "{name}: {said}");
            observer.census(STACK).must_be(&first).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
        }
        Some(_) => assert!(first.len() > 5, "{name}: {first}"),
    }
    let said = must(&["destroy", "--yes"]);
    assert!(said.contains("is removed"), "{name}: {said}");
    let left = observer.census(STACK);
    assert!(left.is_empty(), "{name}: these are left:\n{left}");
    let said = must(&["destroy", "--yes"]);
    assert!(said.contains("nothing to remove"), "{name}: {said}");
    let why = emulator.ends.map(|(_, why)| format!("; there it ends: {why}")).unwrap_or_default();
    say(&format!("{name} by itself: {} things made and removed{why}", first.len()));
}

/// Returns the steps that changed something, by the lines of progress. The first tick follows from that.
fn changed(said: &str) -> Vec<&str> {
    said.lines().filter_map(step_of).collect()
}

fn step_of(line: &str) -> Option<&str> {
    let (step, outcome) = line.split_once("  ")?;
    let outcome = outcome.trim_start();
    let is_change = ["created (", "updated (", "removed ("].iter().any(|word| outcome.starts_with(word));
    is_change.then(|| step.trim())
}

/// Makes programs that can be uploaded and that do nothing.
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
