//! Workers as processes, so that killing one has the same effect as in production.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::child::Program;

/// A worker listens as soon as it runs; only a dead one takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Worker {
    pub addr: SocketAddr,
    pause: Duration,
    program: PathBuf,
    log: PathBuf,
    running: Option<Program>,
}

impl Worker {
    /// Makes a worker that waits before each answer. It is not started yet.
    pub fn new(program: &Path, dir: &Path, addr: SocketAddr, pause: Duration) -> Self {
        let log = dir.join(format!("worker-{}.log", addr.port()));
        Self { addr, pause, program: program.to_owned(), log, running: None }
    }

    pub fn start(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(&self.program);
        command.arg(format!("--listen={}", self.addr));
        command.arg(format!("--pause-milliseconds={}", self.pause.as_millis()));
        let running = self.running.insert(Program::start(&mut command, &self.log)?);
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.addr).is_err() {
            let is_alive = running.ended()?.is_none() && Instant::now() < deadline;
            ensure!(is_alive, "the worker at {} does not listen: {}", self.addr, running.last_words());
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        self.running = None;
    }

    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }
}
