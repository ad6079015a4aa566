//! An instance as processes of this machine: a root directory, a metadata service on the private
//! address, and the services that its user data enables.
//!
//! A service's absolute paths are looked up below the instance's root directory. Paths inside a service's own
//! scripts are not translated, so scripts must use paths relative to their working directory.

pub mod processes;

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::addresses::METADATA_PORT;
use crate::cloud_config::{CloudConfig, Step};
use crate::cpu::{Cpu, Credits, Policy};
use crate::imds::{self, Metadata};
use crate::unit::{Unit, environment_file};
use processes::Processes;

/// EC2 keeps the last 64 KiB of the console.
const CONSOLE_BYTES: u64 = 64 * 1024;

/// A console file that has grown to this size is emptied: a thousand times the readable part, and a service
/// that logs in a loop does not fill the disk.
const CONSOLE_FILE_BYTES: u64 = 64 * 1024 * 1024;
const CONSOLE_CHECK: Duration = Duration::from_secs(10);

/// An instance's definition.
pub struct Image {
    pub root: PathBuf,
    pub address: Ipv4Addr,
    pub metadata: Arc<Metadata>,
    pub endpoint: String,
    /// Directory of the AWS CLI, as on an Amazon Linux image.
    pub aws_cli: PathBuf,
    /// `None` for a type that is not burstable.
    pub credits: Option<Credits>,
    pub cpu: Policy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    On,
    /// As by TerminateInstances: services are told to stop.
    ShuttingDown,
    /// As by a power cut: processes get no signal to stop, and nothing restarts.
    Dead,
}

pub struct Machine {
    pub id: String,
    pub address: Ipv4Addr,
    pub instance_type: String,
    pub region: String,
    pub cpu: Arc<Cpu>,
    power: watch::Sender<Power>,
    processes: Arc<Processes>,
    /// Closed when no process of the instance runs any more.
    life: watch::Receiver<()>,
}

impl Machine {
    /// Switches the instance on. `metadata_port` is already bound on its address.
    pub fn boot(image: Image, metadata_port: TcpListener) -> Self {
        let (power, power_seen) = watch::channel(Power::On);
        let processes = Arc::<Processes>::default();
        let (metadata, address) = (image.metadata.clone(), image.address);
        let id = metadata.instance_id.clone();
        let cpu = Arc::new(Cpu::new(&id, image.cpu, image.credits, processes.clone()));
        let (alive, life) = watch::channel(());
        let running = live(image, metadata_port, processes.clone(), cpu.clone(), power_seen);
        tokio::spawn(async move {
            running.await;
            drop(alive);
        });
        let (instance_type, region) = (metadata.instance_type.clone(), metadata.region.clone());
        Self { id, address, instance_type, region, cpu, power, processes, life }
    }

    /// Returns whether the host has power; a dead host does not, although EC2 says `running`.
    pub fn is_on(&self) -> bool {
        *self.power.borrow() == Power::On
    }

    /// Returns a watch of the power.
    pub fn power(&self) -> watch::Receiver<Power> {
        self.power.subscribe()
    }

    /// Ends the main process of each service as by a crash; systemd would start it again.
    pub fn crash(&self) {
        self.processes.signal(Signal::SIGKILL);
    }

    /// Stops the processes (SIGSTOP), so that they do not answer.
    pub fn hang(&self) {
        self.processes.hang();
    }

    pub fn resume(&self) {
        self.processes.resume();
    }

    /// Kills the host: all processes end and nothing restarts them, while EC2 says `running`.
    pub fn kill_host(&self) {
        self.power.send_replace(Power::Dead);
    }

    /// Powers off in order; the services may finish their work within their stop timeout.
    pub fn shut_down(&self) {
        self.power.send_if_modified(|power| {
            let changes = *power == Power::On;
            if changes {
                *power = Power::ShuttingDown;
            }
            changes
        });
    }

    /// Waits until no process of the instance runs any more.
    pub async fn ended(&self) {
        let mut life = self.life.clone();
        while life.changed().await.is_ok() {}
    }
}

/// Returns the end of the console of the instance with this root directory; it outlives the instance.
pub fn console(root: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(console_path(root))?;
    let start = file.metadata()?.len().saturating_sub(CONSOLE_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut text = Vec::new();
    file.take(CONSOLE_BYTES).read_to_end(&mut text)?;
    Ok(text)
}

async fn live(
    image: Image,
    metadata_port: TcpListener,
    processes: Arc<Processes>,
    cpu: Arc<Cpu>,
    mut power: watch::Receiver<Power>,
) {
    let metadata =
        tokio::spawn(axum::serve(metadata_port, imds::router(image.metadata.clone())).into_future());
    log(&image.root, &format!("booting {} at {}", image.metadata.instance_id, image.address));
    match prepare(&image) {
        Ok(units) => {
            let services = units.into_iter().map(|(name, unit)| {
                let service = Service { name, unit, image: &image, processes: &processes, cpu: &cpu };
                let power = power.clone();
                async move { service.supervise(power).await }
            });
            tokio::select! {
                _ = futures::future::join_all(services) => (),
                () = limit_console(&image.root) => (),
                () = cpu.enforce() => (),
            }
        }
        Err(error) => log(&image.root, &format!("cloud-init failed: {error:#}")),
    }
    // An instance without a service still exists until it is switched off.
    power_lost(&mut power).await;
    log(&image.root, "powered off");
    remove_disk(&image.root);
    cpu.end();
    image.metadata.credentials.forget_instance(&image.metadata.instance_id);
    // Last: its port holds the address, and it is closed when this returns.
    metadata.abort();
    drop(metadata.await);
}

/// Keeps a console file from growing without end. Writers append, so they continue at its new end.
async fn limit_console(root: &Path) {
    loop {
        tokio::time::sleep(CONSOLE_CHECK).await;
        let is_full = std::fs::metadata(console_path(root)).is_ok_and(|file| file.len() > CONSOLE_FILE_BYTES);
        if is_full && open_console(root).and_then(|console| Ok(console.set_len(0)?)).is_ok() {
            log(root, "the console was full and starts empty");
        }
    }
}

/// Removes all but the console: otherwise each instance would leave a program of tens of megabytes.
fn remove_disk(root: &Path) {
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let path = entry.path();
        if path == console_path(root) {
            continue;
        }
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_dir { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        if let Err(error) = removed {
            tracing::warn!(%error, path = %path.display(), "cannot remove what an instance left");
        }
    }
}

/// Waits until the power goes, and returns how.
async fn power_lost(power: &mut watch::Receiver<Power>) -> Power {
    // The sender lives in the machine; a dropped machine counts as dead.
    power.wait_for(|power| *power != Power::On).await.map_or(Power::Dead, |power| *power)
}

/// Carries out the user data up to the point where services start.
fn prepare(image: &Image) -> anyhow::Result<Vec<(String, Unit)>> {
    if image.metadata.user_data.is_empty() {
        return Ok(Vec::new());
    }
    let config = CloudConfig::parse(&image.metadata.user_data)?;
    for file in &config.write_files {
        let path = below(&image.root, &file.path)?;
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, &file.content).with_context(|| format!("cannot write {}", path.display()))?;
        let mode = u32::from_str_radix(file.permissions.as_deref().unwrap_or("0644"), 8)
            .with_context(|| format!("permissions of {}", file.path))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
        log(&image.root, &format!("cloud-init wrote {}", file.path));
    }
    let mut units = Vec::new();
    for step in config.steps() {
        match step {
            Step::Nothing => {}
            Step::Unknown(command) => log(&image.root, &format!("the local cloud does not run: {command}")),
            Step::EnableNow(name) => {
                let path = below(&image.root, &format!("/etc/systemd/system/{name}"))?;
                let text = std::fs::read_to_string(&path).with_context(|| format!("no unit {name}"))?;
                units.push((name, Unit::parse(&text)?));
            }
        }
    }
    Ok(units)
}

struct Service<'a> {
    name: String,
    unit: Unit,
    image: &'a Image,
    processes: &'a Processes,
    cpu: &'a Cpu,
}

impl Service<'_> {
    /// Runs the service until the power goes, restarting it as its unit says.
    async fn supervise(&self, mut power: watch::Receiver<Power>) {
        while *power.borrow() == Power::On {
            match self.run_once(&mut power).await {
                Ok(status) => self.log(&format!("ended: {status}")),
                Err(error) => self.log(&format!("did not start: {error:#}")),
            }
            if !self.unit.restarts_always {
                return;
            }
            // Either the delay passes or the power goes; both lead to the loop's condition.
            drop(tokio::time::timeout(self.unit.restart_delay, power_lost(&mut power)).await);
        }
    }

    async fn run_once(&self, power: &mut watch::Receiver<Power>) -> anyhow::Result<ExitStatus> {
        for argv in &self.unit.exec_start_pre {
            let child = self.spawn(argv)?;
            let status = self.wait(child, power).await?;
            if !status.success() {
                bail!("{} failed: {status}", argv.join(" "));
            }
        }
        let child = self.spawn(&self.unit.exec_start)?;
        self.log("started");
        self.wait(child, power).await
    }

    async fn wait(&self, mut child: Child, power: &mut watch::Receiver<Power>) -> anyhow::Result<ExitStatus> {
        let pid = child.id().context("a child that was just started has a process id")?;
        let group = Pid::from_raw(i32::try_from(pid).context("process ids fit an i32")?);
        self.processes.add(group);
        let status = tokio::select! {
            status = child.wait() => status,
            lost = power_lost(power) => {
                if lost == Power::ShuttingDown {
                    killpg(group, Signal::SIGTERM).ok();
                    // As systemd does: a stopped process receives SIGTERM only after SIGCONT.
                    killpg(group, Signal::SIGCONT).ok();
                    tokio::select! {
                        _ = tokio::time::timeout(self.unit.stop_timeout, child.wait()) => (),
                        // The power may go for good during the pause.
                        _ = power.wait_for(|power| *power == Power::Dead) => (),
                    }
                }
                killpg(group, Signal::SIGKILL).ok();
                child.wait().await
            }
        };
        // Children left behind by the main process end with it, as in a control group.
        killpg(group, Signal::SIGKILL).ok();
        self.processes.remove(group);
        Ok(status?)
    }

    fn spawn(&self, argv: &[String]) -> anyhow::Result<Child> {
        let image = self.image;
        let (program, arguments) = argv.split_first().context("empty command")?;
        let console = open_console(&image.root)?;
        // It ends with the local cloud even when that is killed.
        let mut command = match self.cpu.entrance() {
            // Before its first step, so that its children are limited with it.
            Some(entrance) => {
                let mut shell = Command::new("/bin/sh");
                shell.args(["-c", "echo $$ >\"$0\" && exec \"$@\""]).arg(entrance).arg("setpriv");
                shell
            }
            None => Command::new("setpriv"),
        };
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(below(&image.root, program)?)
            .args(arguments)
            .env_clear()
            .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", image.aws_cli.display()))
            .env("HOME", &image.root)
            .env("AWS_ENDPOINT_URL", &image.endpoint)
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("http://{}:{METADATA_PORT}", image.address))
            .envs(self.unit.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            .process_group(0)
            .kill_on_drop(true);
        for file in &self.unit.environment_files {
            let (name, may_be_missing) = match file.strip_prefix('-') {
                Some(name) => (name, true),
                None => (file.as_str(), false),
            };
            match std::fs::read_to_string(below(&image.root, name)?) {
                Ok(text) => drop(command.envs(environment_file(&text))),
                Err(error) if may_be_missing && error.kind() == ErrorKind::NotFound => (),
                Err(error) => return Err(error).with_context(|| format!("no {name}")),
            }
        }
        if let Some(directory) = &self.unit.working_directory {
            let directory = below(&image.root, directory)?;
            std::fs::create_dir_all(&directory)?;
            command.current_dir(directory);
        }
        command.spawn().with_context(|| format!("cannot run {program}"))
    }

    fn log(&self, text: &str) {
        log(&self.image.root, &format!("{}: {text}", self.name));
    }
}

/// Returns the path on this machine of an instance's absolute path.
fn below(root: &Path, path: &str) -> anyhow::Result<PathBuf> {
    let relative = path.strip_prefix('/').with_context(|| format!("{path} is not an absolute path"))?;
    if Path::new(relative).components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
        bail!("{path} leaves the instance's root directory");
    }
    Ok(root.join(relative))
}

fn console_path(root: &Path) -> PathBuf {
    root.join("console.log")
}

fn open_console(root: &Path) -> anyhow::Result<File> {
    std::fs::create_dir_all(root)?;
    Ok(OpenOptions::new().create(true).append(true).open(console_path(root))?)
}

fn log(root: &Path, text: &str) {
    let mut line = String::new();
    write!(line, "[{}] {text}", jiff::Timestamp::now()).expect("writing to a String cannot fail");
    let written = open_console(root).and_then(|mut console| Ok(writeln!(console, "{line}")?));
    if let Err(error) = written {
        tracing::warn!(%error, "cannot write to a console");
    }
}

/// How long an instance may take to power off when the whole local cloud stops.
pub const POWER_OFF_DEADLINE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_root() {
        let root = Path::new("/r");
        assert_eq!(below(root, "/etc/x").expect("fine"), Path::new("/r/etc/x"));
        for path in ["etc/x", "/../x", "/a/../../x"] {
            assert!(below(root, path).is_err(), "{path}");
        }
    }
}
