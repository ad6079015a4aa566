//! Everything around a proxy: workers behind it, the registry, and a load in front of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tempfile::TempDir;

use super::certificate::Certificate;
use super::config::{Posts, Settings};
use super::control::Control;
use super::cores::Cores;
use super::interrupt;
use super::peer::{Entrant, Peer};
use super::ports::Ports;
use super::proxy::{Ground, Proxy};
use super::workers::Worker;
use crate::load::{Plan, Report};

/// Peers allocate memory for their maximum of connections: this is enough for the most crowded ordinary
/// scenario, with room.
pub const CONNECTIONS: usize = 8192;

/// A proxy with ten thousand clients has up to two for each, and a peer reserves some as well.
const DESCRIPTORS: u64 = 65_536;

pub struct Rig {
    pub dir: TempDir,
    pub cores: Cores,
    pub control: Control,
    pub workers: Vec<Worker>,
    certificate: Certificate,
    ports: Ports,
    /// Directory of this package's programs.
    programs: PathBuf,
}

/// How a proxy is to run.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub tls: bool,
    pub posts: Posts,
    pub connections: usize,
}

impl Way {
    /// Returns the settings that the peers' operators would use.
    pub fn usual(peer: Peer) -> Self {
        // Without exceptions by method HAProxy has one rule less to evaluate.
        let posts = if peer == Peer::Haproxy { Posts::Retried } else { Posts::Once };
        Self { tls: false, posts, connections: CONNECTIONS }
    }
}

impl Rig {
    /// Makes this many workers, each of which waits before it answers.
    pub fn new(workers: usize, pause: Duration) -> anyhow::Result<Self> {
        let cores = Cores::split()?;
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        // Only root may raise the hard limit.
        let wanted = most.max(DESCRIPTORS);
        setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted)
            .or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, most, most))?;
        let dir = tempfile::Builder::new().prefix("vigia-bench-").tempdir()?;
        interrupt::watch(dir.path().to_owned())?;
        let program = std::env::current_exe()?;
        let programs = program.parent().context("a program is in a directory")?.to_owned();
        let mut ports = Ports::new();
        let control = Control::start(ports.take()?)?;
        let certificate = Certificate::generate(dir.path())?;
        let mut rig = Self { dir, cores, control, workers: Vec::new(), certificate, ports, programs };
        let backend = rig.program("bench-backend")?;
        for _ in 0..workers {
            let mut worker = Worker::new(&backend, rig.dir.path(), rig.ports.take()?, pause);
            worker.start()?;
            rig.workers.push(worker);
        }
        rig.control.publish(&rig.addresses())?;
        Ok(rig)
    }

    pub fn program(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.programs.join(name);
        ensure!(path.is_file(), "{name} is not built");
        Ok(path)
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.workers.iter().map(|worker| worker.addr).collect()
    }

    /// Starts the dead workers.
    pub fn revive(&mut self) -> anyhow::Result<()> {
        self.workers.iter_mut().filter(|worker| !worker.is_running()).try_for_each(Worker::start)
    }

    pub fn start(&mut self, entrant: &Entrant, way: Way) -> anyhow::Result<Proxy> {
        let workers = self.addresses();
        let listen = self.ports.take()?;
        let tls = self.ports.take()?;
        let settings = Settings {
            listen,
            tls: way.tls.then_some((tls, &self.certificate)),
            workers: &workers,
            posts: way.posts,
            connections: way.connections,
        };
        let admin = self.ports.take()?;
        let ground = Ground { dir: self.dir.path(), cores: self.cores, control: &self.control, admin };
        Proxy::start(entrant, &settings, &ground)
    }

    /// Starts each proxy with each of its settings, and ends it. A proxy that does not start is found before
    /// others have been measured for minutes.
    pub fn try_each<const N: usize>(
        &mut self,
        entrants: &[Entrant],
        ways: impl Fn(Peer) -> [Way; N],
    ) -> anyhow::Result<()> {
        for entrant in entrants {
            for way in ways(entrant.peer) {
                let program = entrant.program.display();
                self.start(entrant, way)
                    .with_context(|| format!("nothing was measured: {program} cannot be run"))?;
            }
        }
        Ok(())
    }

    /// Returns the certificate that a TLS client trusts.
    pub fn certificate(&self) -> &Path {
        &self.certificate.certificate
    }

    /// Runs a load in parallel to this program.
    pub fn begin(&self, plan: &Plan) -> anyhow::Result<Load> {
        let mut command = Command::new(self.program("bench-load")?);
        command.args(plan.flags()).stdin(Stdio::null()).stdout(Stdio::piped());
        Ok(Load(command.spawn().context("cannot start the load")?))
    }

    pub fn load(&self, plan: &Plan) -> anyhow::Result<Report> {
        self.begin(plan)?.report()
    }
}

/// A running load.
pub struct Load(Child);

impl Load {
    /// Waits for its end.
    pub fn report(self) -> anyhow::Result<Report> {
        let output = self.0.wait_with_output()?;
        ensure!(output.status.success(), "the load ended with {}", output.status);
        serde_json::from_slice(&output.stdout).context("the load's report cannot be read")
    }
}
