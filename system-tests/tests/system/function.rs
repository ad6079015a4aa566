//! The function is brought back to the wanted state, also where `cargo lambda deploy` would leave it as it
//! is.

use std::time::Duration;

use crate::support::{Cloud, eventually, say};

const STACK: &str = "function";
const FUNCTION: &str = "vigia-function-reconciler";

#[test]
fn the_next_deployment_repairs_every_change_of_the_function() {
    let cloud = Cloud::start();
    cloud.deploy(STACK, &["--workers", "1"]);
    is_ours(&cloud);

    // Another processor, and with it a program that does not even start.
    let zip = cloud.dir.path().join("other.zip");
    std::fs::write(&zip, EMPTY_ZIP).expect("writable");
    let file = format!("fileb://{}", zip.display());
    let moved = ["lambda", "update-function-code", "--function-name", FUNCTION, "--architectures", "arm64"];
    cloud.aws(&[&moved[..], &["--zip-file", &file, "--publish"]].concat());
    idle(&cloud);
    assert_eq!(configuration(&cloud, "Architectures[0]"), "arm64");
    set_right(&cloud, "another processor");

    // Only another role, which `cargo lambda deploy` does not count as a change.
    let role = configuration(&cloud, "Role").replace("-reconciler", "-worker");
    cloud.aws(&["lambda", "update-function-configuration", "--function-name", FUNCTION, "--role", &role]);
    idle(&cloud);
    set_right(&cloud, "another role");

    // Another user uploaded code, all else being equal. A run that was cut between settings and code leaves
    // the same.
    cloud.aws(&["lambda", "update-function-code", "--function-name", FUNCTION, "--zip-file", &file]);
    idle(&cloud);
    set_right(&cloud, "other code");
    cloud.must(STACK, &["destroy", "--yes"]);
}

fn set_right(cloud: &Cloud, what: &str) {
    let said = cloud.deploy(STACK, &[]);
    assert!(said.contains("is up: 1 change."), "{what}: {said}");
    is_ours(cloud);
    let said = cloud.deploy(STACK, &[]);
    assert!(said.contains("nothing changed"), "{what}: {said}");
    say(&format!("{what} is set right"));
}

/// Checks that it has the wanted configuration, that no version is left behind, and that it runs.
fn is_ours(cloud: &Cloud) {
    let processor = if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" };
    assert_eq!(configuration(cloud, "Architectures[0]"), processor);
    assert!(configuration(cloud, "Role").ends_with(":role/vigia-function-reconciler"));
    let versions = ["lambda", "list-versions-by-function", "--function-name", FUNCTION];
    assert_eq!(cloud.aws(&[&versions[..], &["--query", "Versions[].Version"]].concat()), "$LATEST");
    let before = cloud.status(STACK)["last_tick"].clone();
    eventually("a tick is made", Duration::from_secs(90), || {
        let status = cloud.status(STACK);
        let tick = &status["last_tick"];
        if *tick != before { Ok(()) } else { Err(tick.to_string()) }
    });
}

fn idle(cloud: &Cloud) {
    eventually("Lambda is done", Duration::from_secs(60), || {
        match configuration(cloud, "LastUpdateStatus") {
            done if done == "Successful" => Ok(()),
            other => Err(other),
        }
    });
}

fn configuration(cloud: &Cloud, query: &str) -> String {
    cloud.aws(&["lambda", "get-function-configuration", "--function-name", FUNCTION, "--query", query])
}

/// An empty archive.
const EMPTY_ZIP: [u8; 22] = *b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
