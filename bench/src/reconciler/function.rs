//! The function as it is deployed: the program itself, in a process of its own, between stand-ins for its
//! peers.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use axum::body::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::cloud::{BUCKET, Cloud};
use super::runtime::{Runtime, Said};
use super::stack::NAME;
use crate::process;

/// Longer than an invocation may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Function {
    child: Child,
    runtime: Runtime,
    pub cold_start: Duration,
    /// The stand-ins, which stop with it.
    _servers: JoinSet<()>,
}

/// The cost of one invocation.
#[derive(Clone, Debug)]
pub struct Cost {
    pub wall: Duration,
    pub cpu: Duration,
    /// The function's own report.
    pub report: serde_json::Value,
}

impl Function {
    /// Starts it, and waits until it requests its first invocation.
    pub async fn start(program: &Path, cloud: &Cloud) -> anyhow::Result<Self> {
        let mut servers = JoinSet::new();
        let aws = TcpListener::bind("127.0.0.1:0").await?;
        let api = TcpListener::bind("127.0.0.1:0").await?;
        let (aws_at, api_at) = (aws.local_addr()?, api.local_addr()?);
        let cloud = cloud.clone();
        servers.spawn(async move {
            cloud.serve(aws).await.ok();
        });
        let mut runtime = Runtime::start(api, &mut servers);
        let since = Instant::now();
        let mut child = Command::new(program)
            .env_clear()
            .envs([
                ("AWS_LAMBDA_RUNTIME_API", api_at.to_string()),
                ("AWS_LAMBDA_FUNCTION_NAME", "bench".to_owned()),
                ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
                ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256".to_owned()),
                ("AWS_REGION", "us-east-1".to_owned()),
                ("AWS_ACCESS_KEY_ID", "test".to_owned()),
                ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
                ("AWS_ENDPOINT_URL", format!("http://{aws_at}")),
                ("VIGIA_STACK", NAME.to_owned()),
                ("VIGIA_CONTROL_BUCKET", BUCKET.to_owned()),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let said = tokio::select! {
            said = timeout(PATIENCE, runtime.said.recv()) => said.context("the function does not ask for work")?,
            ended = child.wait() => bail!("the function ended: {}", ended?),
        };
        let cold_start = match said {
            Some(Said::Ready(at)) => at.duration_since(since),
            other => bail!("the function did not start: {other:?}"),
        };
        Ok(Self { child, runtime, cold_start, _servers: servers })
    }

    pub fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("the function has ended")
    }

    /// Makes one invocation so late in its minute that only its last tick is left.
    pub async fn tick(&mut self) -> anyhow::Result<Cost> {
        let scheduled = Timestamp::now() - SignedDuration::from_secs(50);
        let pid = self.pid()?;
        let cpu = process::cpu(pid)?;
        let since = Instant::now();
        self.runtime.invoke(serde_json::json!({ "time": scheduled }).to_string()).await?;
        let (at, body) = self.answer().await?;
        let cost = Cost {
            wall: at.duration_since(since),
            cpu: process::cpu(pid)?.saturating_sub(cpu),
            report: serde_json::from_slice(&body)?,
        };
        // It requests the next one.
        match timeout(PATIENCE, self.runtime.said.recv()).await? {
            Some(Said::Ready(_)) => Ok(cost),
            other => bail!("the function does not go on: {other:?}"),
        }
    }

    async fn answer(&mut self) -> anyhow::Result<(Instant, Bytes)> {
        match timeout(PATIENCE, self.runtime.said.recv()).await? {
            Some(Said::Done(at, body)) => Ok((at, body)),
            other => bail!("the tick failed: {other:?}"),
        }
    }

    pub async fn stop(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }
}
