//! The workers' surroundings: S3 with the objects of a stack, a core, and users.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use accounts::phc::{self, Arena};
use accounts::{Cost, Login, Record, object_key};
use data_encoding::{BASE64, HEXLOWER};
use fleet::{Profile, keys};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::s3::{Latency, S3};
use crate::balancer::ports::Ports;

pub const DATA: &str = "vigia-bench-data";
pub const CONTROL: &str = "vigia-bench-control";
pub const ADMIN_TOKEN: &str = "bench-admin-token";
pub const PASSWORD: &str = "zzyzx road";

pub struct Ground {
    pub s3: S3,
    pub endpoint: SocketAddr,
    pub dir: TempDir,
    /// The worker program.
    pub program: PathBuf,
    /// The workers' core.
    pub core: usize,
    ports: Ports,
    /// S3 stops with the set.
    _servers: JoinSet<()>,
}

/// Users with one common password.
pub struct Crowd {
    pub logins: Vec<String>,
}

impl Crowd {
    pub fn named(name: &str, size: usize) -> Self {
        Self { logins: (0..size).map(|number| format!("{name}-{number:05}")).collect() }
    }

    /// Returns the users in turn, without end.
    pub fn login(&self, turn: usize) -> &str {
        self.logins.get(turn % self.logins.len().max(1)).map_or("", String::as_str)
    }
}

impl Ground {
    pub async fn prepare(program: &Path, core: usize, latency: Latency) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = listener.local_addr()?;
        let s3 = S3::new(latency, DATA);
        let mut servers = JoinSet::new();
        let served = s3.clone();
        servers.spawn(async move {
            served.serve(listener).await.ok();
        });
        let program = program.to_owned();
        let dir = tempfile::tempdir()?;
        Ok(Self { s3, endpoint, dir, program, core, ports: Ports::new(), _servers: servers })
    }

    pub fn port(&mut self) -> anyhow::Result<SocketAddr> {
        self.ports.take()
    }

    /// Resets to a stack without users.
    pub fn clear(&self) {
        self.s3.clear();
        let halves = ["0", "1"].map(Sha256::digest);
        let key = BASE64.encode(&halves.concat());
        let ring = serde_json::json!({"active": "k1", "keys": [{"kid": "k1", "key": key}]});
        self.s3.put(&format!("{CONTROL}/{}", keys::SESSION_KEYS), ring.to_string());
        let hash = HEXLOWER.encode(&Sha256::digest(ADMIN_TOKEN));
        self.s3.put(&format!("{CONTROL}/{}", keys::ADMIN_TOKEN_HASH), hash);
    }

    /// Registers users at this cost. They share one salt, which makes no evaluation cheaper.
    pub fn settle(&self, crowd: &Crowd, cost: &Cost) -> anyhow::Result<()> {
        let phc = phc::hash(&mut Arena::new(cost), cost, PASSWORD.as_bytes());
        for name in &crowd.logins {
            let login = Login::parse(Profile::Secure, name)?;
            let record = Record::new(&login, phc.clone(), Timestamp::now());
            self.s3.put(&format!("{DATA}/{}", object_key(Profile::Secure, &login)), record.to_json());
        }
        Ok(())
    }
}
