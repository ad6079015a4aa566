//! A running worker, alone on its core.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use accounts::Cost;
use anyhow::bail;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use super::client::{Ask, Connection};
use super::ground::{CONTROL, DATA, Ground};
use crate::balancer::child::Program;
use crate::process;

/// A worker answers within a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Interval of the looks for its first answer, and so the precision of its start.
const LOOK: Duration = Duration::from_millis(2);

pub struct Worker {
    pub addr: SocketAddr,
    /// From the start of the process to the first healthy answer.
    pub started_in: Duration,
    program: Program,
}

impl Worker {
    /// Starts it, and returns when it is healthy. New records are made at this cost.
    pub async fn start(ground: &mut Ground, cost: &Cost) -> anyhow::Result<Self> {
        let addr = ground.port()?;
        let mut command = Command::new("taskset");
        command.args(["-c", &ground.core.to_string()]).arg(&ground.program);
        command.env_clear().envs([
            ("PATH", "/usr/bin:/bin".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("AWS_ENDPOINT_URL", format!("http://{}", ground.endpoint)),
            ("VIGIA_STACK", "bench".to_owned()),
            ("VIGIA_DATA_BUCKET", DATA.to_owned()),
            ("VIGIA_CONTROL_BUCKET", CONTROL.to_owned()),
            ("VIGIA_LISTEN", addr.to_string()),
            ("VIGIA_INSTANCE_ID", format!("i-{:017x}", addr.port())),
            ("VIGIA_ARGON2", cost.to_string()),
        ]);
        let since = Instant::now();
        let program = Program::start(&mut command, &ground.dir.path().join(format!("{}.log", addr.port())))?;
        let mut worker = Self { addr, started_in: Duration::ZERO, program };
        worker.wait(since).await?;
        worker.started_in = since.elapsed();
        Ok(worker)
    }

    async fn wait(&mut self, since: Instant) -> anyhow::Result<()> {
        loop {
            if let Ok(mut connection) = Connection::open(self.addr).await {
                let answer = connection.send(&Ask::get("/healthcheck")).await;
                if answer.is_ok_and(|answer| answer.status == 200) {
                    return Ok(());
                }
            }
            let ended = self.program.ended()?;
            if ended.is_some() || since.elapsed() > PATIENCE {
                bail!("the worker does not start ({ended:?}); its output: {}", self.program.last_words());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    pub fn pid(&self) -> u32 {
        self.program.pid()
    }

    pub fn resident_kib(&self) -> anyhow::Result<usize> {
        process::resident_kib(self.pid(), "VmRSS")
    }

    /// Returns the peak since [`Worker::forget_peak`], or since its start.
    pub fn peak_kib(&self) -> anyhow::Result<usize> {
        process::resident_kib(self.pid(), "VmHWM")
    }

    pub fn forget_peak(&self) -> anyhow::Result<()> {
        Ok(std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5")?)
    }

    /// Returns its time on the core so far, including ended threads: hashing threads end when they are idle.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(self.pid())?))?;
        Ok(clock_gettime(clock)?.into())
    }

    /// Returns the number of its open sockets and files.
    pub fn descriptors(&self) -> anyhow::Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.pid()))?.count())
    }
}
