//! The local cloud in the background: starts it, finds it again, stops it.
//!
//! Its state is in its directory: `endpoint`, `pid` and the log. The process that answers at the endpoint is
//! asked for its id, so a stale `pid` file does no harm.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use crate::control::Status;
use crate::cpu::Percent;
use crate::options::Options;

/// Two emulators, a cold disk, two busy cores.
const UP_DEADLINE: Duration = Duration::from_secs(90);
/// Instances get ten seconds to power off and the emulators ten more.
const DOWN_DEADLINE: Duration = Duration::from_secs(30);

/// A port that another program holds, or a missing program: the person at the keyboard must act.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Prerequisite(pub String);

/// Starts the local cloud unless it is running. `reserved` are public addresses that must be free on this
/// machine, so that a later deployment does not fail on them.
pub async fn up(options: &Options, reserved: &[SocketAddr], owner: Option<u32>) -> anyhow::Result<()> {
    let endpoint = format!("http://{}", options.listen);
    if let Some(status) = status(&endpoint).await {
        let recorded = std::fs::read_to_string(pid_path(&options.dir)).unwrap_or_default();
        if recorded.trim() == status.pid.to_string() {
            eprintln_line(&format!("The local cloud is already running (process {}).", status.pid));
            return Ok(());
        }
        let text = format!(
            "another local cloud (process {}) answers at {endpoint}; stop it first: run `make \
             local-down` in its checkout",
            status.pid
        );
        return Err(Prerequisite(text).into());
    }
    if let Some(pid) = recorded_pid(&options.dir)
        && is_local_cloud(pid)
    {
        let old = std::fs::read_to_string(options.dir.join("endpoint")).unwrap_or_default();
        let text = format!(
            "the local cloud of {} (process {pid}) is at {old}; stop it first: run `make local-down`",
            options.dir.display()
        );
        return Err(Prerequisite(text).into());
    }
    for address in reserved.iter().chain([&options.listen]) {
        if std::net::TcpListener::bind(address).is_err() {
            let text = format!(
                "port {} of {} is taken by another program; stop that program \
                 (`ss -ltnp sport = :{}` shows it) and try again",
                address.port(),
                address.ip(),
                address.port()
            );
            return Err(Prerequisite(text).into());
        }
    }
    if !options.venv.join("bin/moto_server").exists() {
        let text = format!("{} has no emulators; run `make venv`", options.venv.display());
        return Err(Prerequisite(text).into());
    }
    std::fs::create_dir_all(&options.dir)?;
    let log_path = options.dir.join("local-cloud.log");
    let log =
        std::fs::File::create(&log_path).with_context(|| format!("cannot create {}", log_path.display()))?;
    let addresses: Vec<String> = options.elastic_ips.iter().map(ToString::to_string).collect();
    let seed = options.consistency_seed.map(|seed| format!("--consistency-seed={seed}"));
    let mut child = Command::new(std::env::current_exe()?)
        .arg("serve")
        .args(seed)
        .arg("--listen")
        .arg(options.listen.to_string())
        .arg("--dir")
        .arg(&options.dir)
        .arg("--venv")
        .arg(&options.venv)
        .arg("--elastic-ips")
        .arg(addresses.join(","))
        .args(options.quotas.pairs().flat_map(|pair| ["--quota".to_owned(), pair]))
        .args(percent("--cpu-quota", options.cpu.quota))
        .args(percent("--cpu-baseline", options.cpu.baseline))
        .args(owner.map(|pid| format!("--owner={pid}")))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Its own group: Ctrl-C at the terminal must not end it.
        .process_group(0)
        .spawn()?;
    std::fs::write(pid_path(&options.dir), child.id().to_string())?;
    std::fs::write(options.dir.join("endpoint"), &endpoint)?;
    let deadline = Instant::now() + UP_DEADLINE;
    while status(&endpoint).await.is_none() {
        if let Some(ended) = child.try_wait()? {
            bail!("the local cloud ended at once ({ended}); its log is {}", log_path.display());
        }
        if Instant::now() > deadline {
            bail!("the local cloud does not answer at {endpoint}; its log is {}", log_path.display());
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Returns when a process has ended; never without one.
pub async fn end_of(process: Option<u32>) {
    let Some(pid) = process else { return std::future::pending().await };
    // When it started tells it from a later process with the same id.
    let started = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may have spaces.
        let state_and_more = stat.rsplit_once(") ")?.1;
        state_and_more.split(' ').nth(19).filter(|_| !state_and_more.starts_with('Z')).map(str::to_owned)
    };
    let first = started();
    while first.is_some() && started() == first {
        sleep(Duration::from_millis(500)).await;
    }
}

fn percent(option: &str, value: Option<Percent>) -> Vec<String> {
    value.map(|percent| format!("{option}={}%", percent.get())).into_iter().collect()
}

/// Stops the local cloud of this directory and everything in it. Its S3 objects stay.
pub async fn down(dir: &Path) -> anyhow::Result<bool> {
    let Ok(text) = std::fs::read_to_string(pid_path(dir)) else { return Ok(false) };
    let pid = Pid::from_raw(
        text.trim().parse().with_context(|| format!("{} holds no process id", pid_path(dir).display()))?,
    );
    if !is_local_cloud(pid) {
        std::fs::remove_file(pid_path(dir))?;
        return Ok(false);
    }
    kill(pid, Signal::SIGTERM).ok();
    let deadline = Instant::now() + DOWN_DEADLINE;
    while is_local_cloud(pid) {
        if Instant::now() > deadline {
            eprintln_line("The local cloud did not stop in time. It and its processes are killed.");
            kill(pid, Signal::SIGKILL).ok();
            sleep(Duration::from_millis(500)).await;
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    std::fs::remove_file(pid_path(dir))?;
    Ok(true)
}

pub async fn status(endpoint: &str) -> Option<Status> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().ok()?;
    client.get(format!("{endpoint}/_local-cloud/status")).send().await.ok()?.json().await.ok()
}

/// Returns whether the process exists and is a local cloud: its id may have been reused by another.
fn is_local_cloud(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let is_zombie = stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'));
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    !is_zombie && String::from_utf8_lossy(&command).contains("local-cloud\0serve")
}

fn recorded_pid(dir: &Path) -> Option<Pid> {
    Some(Pid::from_raw(std::fs::read_to_string(pid_path(dir)).ok()?.trim().parse().ok()?))
}

fn pid_path(dir: &Path) -> PathBuf {
    dir.join("pid")
}

fn eprintln_line(text: &str) {
    use std::io::Write as _;
    drop(writeln!(std::io::stderr(), "{text}"));
}
