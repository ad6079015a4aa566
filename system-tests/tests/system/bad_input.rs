//! Wrong arguments and missing programs: each has a message that says what to do, and an exit code that the
//! README documents.

use std::path::Path;
use std::process::Command;

use crate::support::{bootstrap, text, workspace};

/// Nothing listens on the discard port of this address.
const UNREACHABLE: &str = "http://127.0.0.1:9";

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output =
        bootstrap(UNREACHABLE, ("test", "test"), "vigia", Path::new("/nonexistent/token"), arguments);
    (output.status.code(), text(&output))
}

#[test]
fn a_wrong_number_of_workers_is_refused_before_anything_happens() {
    for (n, says) in [
        ("0", "0 is out of range; choose a number from 1 to 100"),
        ("abc", "`abc` is not a whole number"),
        ("100000", "100000 is out of range; choose a number from 1 to 100"),
        ("-3", "-3 is out of range"),
        ("2.5", "`2.5` is not a whole number"),
        ("", "an empty text is not a whole number"),
    ] {
        let (code, said) = run(&["deploy", &format!("--workers={n}")]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(says), "{n}: {said}");
    }
}

#[test]
fn a_stack_name_that_aws_would_refuse_is_refused_here() {
    for name in ["Vigia", "a_b", "-a", "a-name-that-is-much-too-long"] {
        let (code, said) = run(&[&format!("--stack={name}"), "status"]);
        assert_eq!(code, Some(2), "{said}");
        assert!(
            said.contains("not a stack name") || said.contains("cannot be used multiple times"),
            "{said}"
        );
    }
}

#[test]
fn an_endpoint_that_does_not_answer_is_named() {
    let (code, said) = run(&["status"]);
    assert_eq!(code, Some(7), "{said}");
    assert!(
        said.contains(UNREACHABLE) && said.contains("does not answer") && said.contains("make local"),
        "{said}"
    );
}

#[test]
fn programs_that_are_not_built_are_named() {
    let (code, said) = run(&["deploy", "--artifacts", "/nonexistent"]);
    assert_eq!(code, Some(8), "{said}");
    assert!(said.contains("/nonexistent/ec2-lb") && said.contains("Build it first"), "{said}");
}

#[test]
fn an_unusable_certificate_is_refused_before_any_change() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let issued = rcgen::generate_simple_self_signed(["lb.test".to_owned()]).expect("a certificate");
    let other = rcgen::KeyPair::generate().expect("a key");
    for (name, content) in [
        ("certificate", issued.cert.pem()),
        ("key", issued.signing_key.serialize_pem()),
        ("other-key", other.serialize_pem()),
        ("large", "-".repeat(65 * 1024)),
    ] {
        std::fs::write(path(name), content).expect("writable");
    }
    for (certificate, key, says) in [
        ("certificate", "other-key", "cannot be used together"),
        ("key", "key", "no PEM certificate"),
        ("certificate", "certificate", "no PEM private key"),
        ("certificate", "none", "none cannot be read: No such file"),
        ("large", "key", "more than 65536 bytes"),
    ] {
        let pair = ["--tls-cert", &path(certificate), "--tls-key", &path(key)];
        // `make local` runs `--check` before it starts anything.
        for check in [&[][..], &["--check"]] {
            let (code, said) = run(&[&["deploy"], &pair[..], check].concat());
            assert_eq!(code, Some(2), "{said}");
            assert!(said.contains(says) && said.contains("Nothing was changed"), "{said}");
        }
    }
    let (code, said) =
        run(&["deploy", "--tls-cert", &path("certificate"), "--tls-key", &path("key"), "--check"]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn an_endpoint_without_a_scheme_is_explained() {
    let output = bootstrap("127.0.0.1:4566", ("test", "test"), "vigia", Path::new("none"), &["status"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("http://127.0.0.1:4566"), "{}", text(&output));
}

#[test]
fn without_credentials_it_says_how_to_get_some() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let output = Command::new(crate::support::program("bootstrap"))
        .args(["--endpoint-url", UNREACHABLE, "--region", "us-east-1", "status"])
        .env_clear()
        .env("HOME", home.path())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .output()
        .expect("bootstrap runs");
    assert_eq!(output.status.code(), Some(4), "{}", text(&output));
    assert!(text(&output).contains("aws configure"), "{}", text(&output));
}

#[test]
fn destroy_stops_if_it_cannot_ask_for_confirmation() {
    let (code, said) = run(&["destroy"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--yes"), "{said}");
}

/// Runs `make` with a search path that holds only the named tools.
fn make(tools: &[&str], arguments: &[&str]) -> String {
    let bin = tempfile::tempdir().expect("a temporary directory");
    let find = |tool: &str| {
        let found =
            ["/usr/bin", "/bin"].iter().map(|dir| Path::new(dir).join(tool)).find(|path| path.exists());
        found.expect(tool)
    };
    for tool in tools {
        std::os::unix::fs::symlink(find(tool), bin.path().join(tool)).expect("a link");
    }
    let output = Command::new(find("make"))
        .arg("-s")
        .args(arguments)
        .current_dir(workspace())
        .env_clear()
        .env("PATH", bin.path())
        // Make's targets are in xtask, which is built already.
        .env(
            "CARGO_TARGET_DIR",
            crate::support::program("xtask").ancestors().nth(2).expect("target/debug/xtask"),
        )
        .output()
        .expect("make runs");
    assert!(!output.status.success());
    text(&output)
}

#[test]
fn without_python_make_says_what_to_install() {
    let venv = tempfile::tempdir().expect("a temporary directory");
    let said = make(&["bash", "uname", "sed", "id"], &["venv", &format!("VENV={}/v", venv.path().display())]);
    assert!(
        said.contains("python3 is missing") && said.contains("Install Python") && said.contains("Error 8"),
        "{said}"
    );
}

/// Refused before any call to AWS: no endpoint is given here, so this is about AWS itself.
#[test]
fn a_program_that_would_not_start_on_aws_is_refused() {
    let built = crate::support::program("ec2-lb").with_file_name("");
    let (ours, other) = if cfg!(target_arch = "aarch64") { ("arm64", "x86_64") } else { ("x86_64", "arm64") };
    let output = Command::new(crate::support::program("bootstrap"))
        .args(["deploy", "--region", "us-east-1", "--arch", other, "--artifacts"])
        .arg(built)
        .env_remove("AWS_ENDPOINT_URL")
        .env("AWS_ACCESS_KEY_ID", "nogroup")
        .env("AWS_SECRET_ACCESS_KEY", "nogroup")
        .output()
        .expect("bootstrap runs");
    let said = text(&output);
    assert_eq!(output.status.code(), Some(8), "{said}");
    assert!(said.contains(&format!("built for {ours}, but the instances are {other}")), "{said}");
    assert!(said.contains("make deploy ARCH="), "{said}");
}

/// Refused before any call to AWS: a check with a wrong name would otherwise be left out without a word.
#[test]
fn an_unknown_check_of_the_acceptance_is_named() {
    let said = |only: &str| {
        let output = Command::new(crate::support::workspace().join("bootstrap/acceptance/run.sh"))
            .arg("ask")
            .envs([("BOOTSTRAP", "false"), ("ARTIFACTS", "none"), ("AWS", "false"), ("ONLY", only)])
            .envs([("ENDPOINT", "http://127.0.0.1:1"), ("YES", "1")])
            .output()
            .expect("bash runs");
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        text(&output)
    };
    let unknown = said("deployer,cadense");
    assert!(unknown.contains("there is no check `cadense`") && unknown.contains(" cadence "), "{unknown}");
    let spaced = said("deployer cadence");
    assert!(spaced.contains("has a space") && spaced.contains("commas"), "{spaced}");
}
