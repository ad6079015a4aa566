//! A deployment's missing prerequisites are reported before anything is built or made: first by a shell
//! script, before cargo starts, then by the deployer alone, before the release builds.
//!
//! Make runs here with a `cargo` and a `cargo-lambda` that only write down their calls, and the deployer
//! calls an invented account ([`stub`]).

mod on_the_local_cloud;
mod stub;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use self::stub::Account;
use crate::support::{program, say, text, workspace};

/// A person's machine: a home, and programs that write down their calls.
struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { dir: tempfile::tempdir().expect("a temporary directory") };
        machine.program("bin/cargo", "true");
        // The directory that the real one names for a target's library; any directory will do.
        machine.program("bin/rustc", "echo /");
        machine.program("venv/bin/cargo-lambda", "false");
        std::fs::write(machine.path("venv/.installed"), "").expect("writable");
        std::fs::create_dir_all(machine.path("home/.aws")).expect("writable");
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a program that writes down its name and arguments, and then runs this.
    fn program(&self, name: &str, then: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("writable");
        let log = self.path("calls").display().to_string();
        let script = format!("#!/bin/sh\necho \"${{0##*/}} $*\" >> '{log}'\n{then}\n");
        std::fs::write(&path, script).expect("writable");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("ours");
    }

    /// Returns the calls, without calls that only ask rustc for its paths and without the build of xtask.
    fn calls(&self) -> Vec<String> {
        let calls = std::fs::read_to_string(self.path("calls")).unwrap_or_default();
        let is_preparation = |call: &&str| call.starts_with("rustc ") || call.ends_with(" --package xtask");
        calls.lines().filter(|call| !is_preparation(call)).map(str::to_owned).collect()
    }

    fn make(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let target = program("bootstrap").ancestors().nth(2).expect("target/debug/bootstrap").to_owned();
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        let mut command = Command::new("make");
        command
            .arg("-s")
            .args(arguments)
            .arg(format!("VENV={}", self.path("venv").display()))
            .current_dir(workspace())
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.path("home"))
            .env("CARGO_TARGET_DIR", target)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(environment.iter().copied());
        command.output().expect("make runs")
    }
}

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "unknown"), ("AWS_SECRET_ACCESS_KEY", "nothing")];

#[test]
fn make_asks_for_credentials_before_cargo_starts() {
    for (environment, says, code) in [
        (&[][..], "there are no AWS credentials", "Error 4"),
        (&KEYS[..1], "AWS_SECRET_ACCESS_KEY is not", "Error 4"),
        (&[("AWS_PROFILE", "work")], "no AWS credentials in the profile `work`", "Error 4"),
        (&KEYS[..], "no AWS region is set", "Error 2"),
    ] {
        for target in ["deploy", "plan"] {
            let machine = Machine::new();
            let since = Instant::now();
            let output = machine.make(&[target, "N=3"], environment);
            let (took, said) = (since.elapsed(), text(&output));
            assert!(!output.status.success() && said.contains(says) && said.contains(code), "{said}");
            assert!(said.contains("aws configure") && said.contains("nothing was built"), "{said}");
            assert!(!said.contains("nothing\n"), "no secret is shown: {said}");
            assert_eq!(machine.calls(), [""; 0], "{target}");
            say(&format!("make {target} stops after {:.2} s: {says}", took.as_secs_f64()));
        }
    }
}

/// Each credential source of the SDK's documentation, alone.
#[test]
fn every_documented_source_of_credentials_is_found() {
    let config = |machine: &Machine, file: &str, content: &str| {
        std::fs::write(machine.path("home/.aws").join(file), content).expect("writable");
    };
    for (file, content, environment) in [
        ("credentials", "[default]\naws_access_key_id = A\naws_secret_access_key = B\n", &[][..]),
        ("credentials", "[work]\naws_access_key_id=A\n", &[("AWS_PROFILE", "work")]),
        ("config", "[profile work]\nsso_session = corp\n", &[("AWS_PROFILE", "work")]),
        ("config", "[default]\nlogin_session = arn:aws:iam::123456789012:user/ana\n", &[]),
        ("config", "[profile default]\r\ncredential_process = /bin/keys\r\n", &[]),
        ("config", "[ default ]\nrole_arn = arn:aws:iam::123456789012:role/ops\nsource_profile = x", &[]),
        ("config", "", &[("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r")]),
        ("config", "", &[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials")]),
        ("config", "", &KEYS),
    ] {
        let machine = Machine::new();
        config(&machine, file, content);
        let output = preflight(&machine, "eu-west-1", environment);
        assert!(output.status.success(), "{file} {content} {environment:?}: {}", text(&output));
    }
    for (file, content) in [
        ("config", "[profile other]\nrole_arn = arn\n[default]\nregion = eu-west-1\n"),
        ("config", "[default]\n# role_arn = arn\nrole_arn =\n"),
        ("credentials", "[other]\naws_access_key_id = A\n"),
    ] {
        let machine = Machine::new();
        config(&machine, file, content);
        let output = preflight(&machine, "eu-west-1", &[]);
        assert_eq!(output.status.code(), Some(4), "{content}: {}", text(&output));
    }
}

#[test]
fn every_documented_source_of_a_region_is_found() {
    for (region, content, more) in [
        ("eu-west-1", "", None),
        ("", "[default]\nregion = eu-west-1\n", None),
        ("", "", Some(("AWS_REGION", "eu-west-1"))),
        ("", "", Some(("AWS_DEFAULT_REGION", "eu-west-1"))),
    ] {
        let machine = Machine::new();
        std::fs::write(machine.path("home/.aws/config"), content).expect("writable");
        let environment: Vec<(&str, &str)> = KEYS.into_iter().chain(more).collect();
        let output = preflight(&machine, region, &environment);
        assert!(output.status.success(), "{region} {content} {more:?}: {}", text(&output));
    }
}

fn preflight(machine: &Machine, region: &str, environment: &[(&str, &str)]) -> Output {
    Command::new(workspace().join("bootstrap/preflight.sh"))
        .arg(region)
        .env_clear()
        // No other program is needed.
        .env("PATH", "/nonexistent")
        .env("HOME", machine.path("home"))
        .envs(environment.iter().copied())
        .output()
        .expect("sh runs")
}

const BUILDS_BOOTSTRAP: &str =
    "cargo build --message-format=json-render-diagnostics --workspace --bin bootstrap";

/// Returns make's output with this account, and the programs that it called.
fn make(account: &Account, arguments: &[&str]) -> (Output, Vec<String>) {
    let machine = Machine::new();
    let endpoint = account.endpoint();
    let environment = [&KEYS[..], &[("AWS_ENDPOINT_URL", endpoint.as_str())]].concat();
    let since = Instant::now();
    let output = machine.make(&[arguments, &["REGION=us-east-1", "ARCH=x86_64"]].concat(), &environment);
    say(&format!("make {arguments:?} ends after {:.2} s", since.elapsed().as_secs_f64()));
    assert_eq!(account.changes(), [""; 0], "nothing is made");
    (output, machine.calls())
}

#[test]
fn a_quota_that_is_too_small_stops_make_before_release_builds() {
    let account = Account::start(5, None);
    for target in ["deploy", "plan"] {
        let (output, calls) = make(&account, &[target, "N=3"]);
        let said = text(&output);
        assert!(said.contains("N=1 fits") && said.contains("L-1216C47A"), "{said}");
        assert!(said.contains("ask for 12") && said.contains("Error 1"), "{said}");
        assert_eq!(calls, [BUILDS_BOOTSTRAP], "{target}");
    }
}

#[test]
fn a_deployment_that_fits_goes_on_to_release_builds() {
    let account = Account::start(5, None);
    let (output, calls) = make(&account, &["deploy", "N=1"]);
    let said = text(&output);
    assert!(said.contains("warning") && said.contains("stops one machine"), "{said}");
    assert_eq!(calls.len(), 2, "{calls:?}: {said}");
    assert_eq!(calls[0], BUILDS_BOOTSTRAP);
    assert!(calls[1].starts_with("cargo-lambda lambda build --release"), "{calls:?}");
}

#[test]
fn a_denied_permission_stops_make_before_release_builds() {
    let account = Account::start(64, Some("CreateVpc"));
    let (output, calls) = make(&account, &["deploy", "N=3"]);
    let said = text(&output);
    assert!(said.contains("ec2:CreateVpc on arn:aws:ec2:us-east-1:123456789012:vpc/*"), "{said}");
    assert!(said.contains("`MakeTagged` of `bootstrap iam-policy`") && said.contains("Error 4"), "{said}");
    assert_eq!(calls, [BUILDS_BOOTSTRAP]);
}

/// The deployer checks by itself, because it may be called without make.
#[test]
fn a_deployment_without_make_makes_nothing_that_does_not_fit() {
    let account = Account::start(5, None);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let run = |arguments: &[&str]| {
        let (endpoint, token) = (account.endpoint(), dir.path().join("token"));
        let artifacts = program("bootstrap").with_file_name("");
        let arguments = [arguments, &["--artifacts", path(&artifacts)]].concat();
        crate::support::bootstrap(&endpoint, ("unknown", "nothing"), "vigia", &token, &arguments)
    };
    for command in ["deploy", "plan"] {
        let output = run(&[command, "--workers", "3"]);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("N=1 fits") && said.contains("Nothing was changed"), "{said}");
    }
    assert_eq!(account.changes(), [""; 0], "nothing is made");
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path of letters")
}
