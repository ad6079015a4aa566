//! Checks this machine: its clock against that of AWS, and the tools that a deployment calls.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::process::Command;
use tokio::time::timeout;

use super::{PATIENCE, judge};
use crate::check::{Check, Verdict};
use crate::cli::{Arch, Doctor, Target};

/// A tool prints its version within milliseconds, at its first start from a cold disk within seconds.
const TOOL_PATIENCE: Duration = Duration::from_secs(15);

/// Any answer has a Date, even a refusal, so no credentials are needed.
pub(super) async fn clock(target: &Target) -> Check {
    let url = target.endpoint_url.clone().unwrap_or_else(|| match &target.region {
        Some(region) if region.starts_with("cn-") => format!("https://sts.{region}.amazonaws.com.cn"),
        Some(region) => format!("https://sts.{region}.amazonaws.com"),
        None => "https://sts.amazonaws.com".to_owned(),
    });
    let unknown = |why: String| Check::new("clock", Verdict::NotKnownHere, why);
    let Ok(client) = reqwest::Client::builder().timeout(PATIENCE).build() else {
        return unknown("no HTTP client".to_owned());
    };
    let before = Timestamp::now();
    let Ok(answer) = client.head(&url).send().await else {
        return unknown(format!("{url} does not answer"));
    };
    let after = Timestamp::now();
    let date = answer.headers().get("date").and_then(|date| date.to_str().ok());
    match date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok()) {
        Some(date) => judge::clock(skew(before, after, date.timestamp())),
        None => unknown(format!("{url} answers without the time (a Date header)")),
    }
}

/// Returns how far this clock is ahead, if the answer was written half-way. The time of the journey does not
/// count against the clock.
fn skew(before: Timestamp, after: Timestamp, date: Timestamp) -> SignedDuration {
    // Date has whole seconds, rounded down.
    let latest = date + SignedDuration::from_secs(1);
    if before > latest {
        before.duration_since(latest)
    } else if after < date {
        after.duration_since(date)
    } else {
        SignedDuration::ZERO
    }
}

pub(super) async fn tools(options: &Doctor, is_local: bool) -> Vec<Check> {
    let cargo_lambda = options.cargo_lambda.as_path();
    let beside = cargo_lambda.with_file_name("python-zig");
    let (cargo, lambda, zig, zig_beside, python, target) = tokio::join!(
        version(Path::new("cargo"), &["--version"]),
        version(cargo_lambda, &["lambda", "--version"]),
        version(Path::new("zig"), &["version"]),
        version(&beside, &["version"]),
        version(Path::new("python3"), &["-c", "import ensurepip, sys, venv; print(sys.version.split()[0])"]),
        version(Path::new("rustup"), &["target", "list", "--installed"]),
    );
    // Programs for AWS are linked against an older glibc, by zig; programs for a local cloud are not.
    let without_zig = if is_local { Verdict::Warning } else { Verdict::Failed };
    vec![
        tool("cargo", cargo, Verdict::Failed, "Install Rust: https://rustup.rs."),
        tool(
            "cargo-lambda",
            lambda,
            Verdict::Failed,
            "`make venv` installs it. To use another one, pass --cargo-lambda.",
        ),
        tool("zig", zig_beside.or(zig), without_zig, "`make venv` installs it together with cargo-lambda."),
        tool(
            "python3 with venv",
            python,
            without_zig,
            "Install it (Debian: apt-get install python3 python3-venv).",
        ),
        rust_target(options.arch, target.as_deref()),
    ]
}

fn tool(name: &'static str, version: Option<String>, missing: Verdict, hint: &str) -> Check {
    match version {
        Some(version) => Check::new(name, Verdict::Ok, version),
        None => Check::new(name, missing, "missing, or it does not print its version").hint(hint),
    }
}

/// Checks for the target. `installed` is rustup's list; a Rust that does not come from rustup has none.
fn rust_target(arch: Arch, installed: Option<&str>) -> Check {
    let name = "Rust target";
    let wanted = match arch {
        Arch::Arm64 => "aarch64-unknown-linux-gnu",
        Arch::X8664 => "x86_64-unknown-linux-gnu",
    };
    let hint = format!("rustup target add {wanted}");
    match installed {
        Some(list) if list.lines().any(|line| line.trim() == wanted) => Check::new(name, Verdict::Ok, wanted),
        Some(_) => Check::new(name, Verdict::Failed, format!("{wanted} is not installed")).hint(hint),
        None if arch == Arch::host() => {
            Check::new(name, Verdict::Ok, format!("{wanted}, this machine's own"))
        }
        None => Check::new(
            name,
            Verdict::NotKnownHere,
            format!("{wanted}; not checked, because rustup is missing"),
        )
        .hint(hint),
    }
}

/// Returns the first line that a tool prints, or all lines of a list; `None` if the tool cannot be run.
async fn version(program: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(TOOL_PATIENCE, command.output()).await.ok()?.ok()?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !said.is_empty()).then_some(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_is_no_skew() {
        let at = |seconds: i64| Timestamp::from_second(seconds).expect("in range");
        let skew = |before, after, date| skew(at(before), at(after), at(date)).as_secs();
        assert_eq!(skew(100, 120, 110), 0);
        assert_eq!(skew(100, 100, 99), 0, "the second is cut off");
        assert_eq!(skew(200, 210, 100), 99);
        assert_eq!(skew(100, 110, 200), -90);
    }

    #[test]
    fn a_processor_needs_its_target_of_rust() {
        let list = Some("wasm32-wasip1\nx86_64-unknown-linux-gnu\n");
        assert_eq!(rust_target(Arch::X8664, list).verdict, Verdict::Ok);
        let missing = rust_target(Arch::Arm64, list);
        assert_eq!(missing.verdict, Verdict::Failed);
        assert_eq!(missing.hint.as_deref(), Some("rustup target add aarch64-unknown-linux-gnu"));
        assert_eq!(rust_target(Arch::host(), None).verdict, Verdict::Ok);
    }

    #[tokio::test]
    async fn a_tool_that_fails_or_is_missing_has_no_version() {
        assert_eq!(version(Path::new("/bin/false"), &[]).await, None);
        assert_eq!(version(Path::new("/nonexistent/tool"), &[]).await, None);
        assert_eq!(version(Path::new("/bin/echo"), &["1.2"]).await.as_deref(), Some("1.2"));
    }
}
