//! The two Python emulators as supervised children: ministack (everything but EC2) and moto (EC2).
//!
//! A child must not outlive the local cloud even when that is killed with SIGKILL, so it is started through
//! `setpriv --pdeathsig` (util-linux, on every Linux). Its environment starts empty: the emulators read
//! dozens of variables, and ministack hands its own environment on to Lambda functions.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::ACCOUNT;
use crate::addresses::unused;

/// An emulator imports its libraries in one to three seconds; a cold disk and two busy cores can
/// make it ten times that.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// ministack writes its state to disk when it is told to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

pub struct Emulator {
    name: &'static str,
    endpoint: String,
    addr: SocketAddr,
    child: Child,
    group: Pid,
}

impl Emulator {
    /// Starts ministack with its state and S3 objects below `dir`. `lambda_secret` becomes the
    /// secret key in the environment of the functions that it runs.
    pub async fn start_ministack_with(venv: &Path, dir: &Path, lambda_secret: &str) -> anyhow::Result<Self> {
        let mut command = python(venv);
        command
            .args(["-m", "ministack"])
            .env("PERSIST_STATE", "1")
            .env("STATE_DIR", dir.join("state"))
            .env("S3_PERSIST", "1")
            .env("S3_DATA_DIR", dir.join("s3"))
            .env("MINISTACK_ACCOUNT_ID", ACCOUNT)
            .env("AWS_SECRET_ACCESS_KEY", lambda_secret)
            .env("LAMBDA_EXECUTOR", "local")
            // Both would listen on fixed ports of all interfaces.
            .env("IOT_MTLS_ENABLED", "0")
            .env("SFTP_ENABLED", "0");
        Self::start("ministack", command, dir, |command, at| {
            command.env("BIND_HOST", at.ip().to_string()).env("GATEWAY_PORT", at.port().to_string());
        })
        .await
    }

    /// Starts ministack for a test: everything below `dir`, with the virtual environment of this workspace.
    pub async fn start_ministack(dir: &Path) -> anyhow::Result<Self> {
        Self::start_ministack_with(&default_venv(), dir, "test").await
    }

    pub async fn start_moto(venv: &Path, dir: &Path) -> anyhow::Result<Self> {
        let server = venv.join("bin/moto_server");
        let mut command = python(venv);
        command.arg(server).env("MOTO_ACCOUNT_ID", ACCOUNT);
        Self::start("moto", command, dir, |command, at| {
            command.args(["-H", &at.ip().to_string(), "-p", &at.port().to_string()]);
        })
        .await
    }

    /// `http://<loopback address>:<port>`
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns an error once the emulator has ended by itself.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait().with_context(|| format!("cannot look after {}", self.name))? {
            None => Ok(()),
            Some(status) => bail!("the emulator {} ended by itself: {status}", self.name),
        }
    }

    /// Tells the emulator to stop and waits until it and all its children are gone.
    pub async fn stop(mut self) {
        killpg(self.group, Signal::SIGTERM).ok();
        if tokio::time::timeout(STOP_DEADLINE, self.child.wait()).await.is_err() {
            tracing::warn!(emulator = self.name, "did not stop within 10 s and is killed");
        }
    }

    async fn start(
        name: &'static str,
        mut command: Command,
        dir: &Path,
        with_address: impl FnOnce(&mut Command, SocketAddr),
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let log_path = dir.join(format!("{name}.log"));
        let log = std::fs::File::create(&log_path)
            .with_context(|| format!("cannot create {}", log_path.display()))?;
        let addr = unused().context("no loopback address for an emulator")?;
        with_address(&mut command, addr);
        let child = command
            .env("HOME", dir)
            .env("TMPDIR", make_dir(dir.join("tmp"))?)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}: is `setpriv` (of util-linux) installed?"))?;
        let pid = child.id().context("a child that was just started has a process id")?;
        let group = Pid::from_raw(i32::try_from(pid).context("process ids fit an i32")?);
        let mut emulator = Self { name, endpoint: format!("http://{addr}"), addr, child, group };
        let deadline = Instant::now() + START_DEADLINE;
        while TcpStream::connect(addr).await.is_err() {
            emulator.check().with_context(|| format!("its log is {}", log_path.display()))?;
            if Instant::now() > deadline {
                bail!("{name} does not answer on {addr}; its log is {}", log_path.display());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(emulator)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // The group, not the child alone: ministack's Lambda functions are in it.
        killpg(self.group, Signal::SIGKILL).ok();
    }
}

/// Returns the virtual environment that `make` installs at the workspace's root.
pub fn default_venv() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).join(".venv")
}

fn python(venv: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(venv.join("bin/python"))
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("PYTHONUNBUFFERED", "1");
    command
}

fn make_dir(path: PathBuf) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
    Ok(path)
}
