//! A running proxy, alone on its core.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::child::Program;
use super::config::{self, Posts, Settings};
use super::control::{self, Control};
use super::cores::Cores;
use super::peer::{Entrant, Peer};
use crate::process;

/// All proxies answer within a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Proxy {
    pub addr: SocketAddr,
    pub tls: Option<SocketAddr>,
    /// Only ec2-lb has one.
    pub admin: SocketAddr,
    program: Program,
}

/// The surroundings that it is started with, its own settings apart.
pub struct Ground<'a> {
    pub dir: &'a Path,
    pub cores: Cores,
    pub control: &'a Control,
    pub admin: SocketAddr,
}

impl Proxy {
    /// Starts it, and returns when it answers.
    pub fn start(entrant: &Entrant, settings: &Settings<'_>, ground: &Ground<'_>) -> anyhow::Result<Self> {
        let words = words(entrant, settings, ground)?;
        let mut command = Command::new("taskset");
        command.args(["-c", &ground.cores.proxy.to_string()]).arg(&entrant.program).args(words);
        command.current_dir(ground.dir);
        match entrant.peer {
            Peer::Ours => environment(&mut command, settings, ground),
            Peer::Caddy => {
                let dir = ground.dir;
                command.env("GOMAXPROCS", "1").env("XDG_DATA_HOME", dir).env("XDG_CONFIG_HOME", dir);
            }
            Peer::Nginx | Peer::Haproxy | Peer::Pingora => {}
        }
        let log = ground.dir.join(format!("{}.log", entrant.peer));
        let program = Program::start(&mut command, &log)?;
        let tls = settings.tls.map(|(addr, _)| addr);
        let mut proxy = Self { addr: settings.listen, tls, admin: ground.admin, program };
        proxy.wait().with_context(|| format!("{} does not serve", entrant.peer))?;
        Ok(proxy)
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let asked = get(self.addr, "/").and_then(|text| {
                self.tls.map_or(Ok(()), |tls| TcpStream::connect(tls).map(drop)).map(|()| text)
            });
            if asked.as_ref().is_ok_and(|text| text.starts_with("HTTP/1.1 200")) {
                return Ok(());
            }
            let ended = self.program.ended()?;
            if ended.is_some() || Instant::now() > deadline {
                let answer = asked.map(|text| text.lines().next().unwrap_or_default().to_owned());
                let ended = ended.map_or_else(String::new, |status| format!("; it ended ({status})"));
                bail!("it answers {answer:?}{ended}; its output: {}", self.program.last_words());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn pid(&self) -> u32 {
        self.program.pid()
    }

    pub fn pss_kib(&self) -> anyhow::Result<usize> {
        process::family_pss_kib(self.pid())
    }

    /// Makes ec2-lb read the registry now, as the reconciler does after a change.
    pub fn refresh(&self) -> std::io::Result<()> {
        exchange(
            self.admin,
            "POST /refresh HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        )
        .map(drop)
    }

    /// Returns an error if it has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.program.ended()? {
            None => Ok(()),
            Some(status) => bail!("the proxy ended ({status}); its output: {}", self.program.last_words()),
        }
    }
}

/// Writes the configuration, and returns the arguments.
fn words(entrant: &Entrant, settings: &Settings<'_>, ground: &Ground<'_>) -> anyhow::Result<Vec<String>> {
    let file = |name: &str, text: String| -> anyhow::Result<String> {
        let path: PathBuf = ground.dir.join(name);
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    Ok(match entrant.peer {
        Peer::Ours => Vec::new(),
        Peer::Nginx => {
            let prefix = ground.dir.display().to_string();
            vec!["-p".to_owned(), prefix, "-c".to_owned(), file("nginx.conf", config::nginx(settings))?]
        }
        Peer::Haproxy => vec!["-f".to_owned(), file("haproxy.cfg", config::haproxy(settings))?],
        Peer::Pingora => {
            let workers: Vec<String> = settings.workers.iter().map(ToString::to_string).collect();
            vec![settings.listen.to_string(), workers.join(",")]
        }
        Peer::Caddy => {
            let path = file("Caddyfile", config::caddy(settings))?;
            ["run", "--adapter", "caddyfile", "--config", &path].map(str::to_owned).to_vec()
        }
    })
}

fn environment(command: &mut Command, settings: &Settings<'_>, ground: &Ground<'_>) {
    for name in ["AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION"] {
        command.env_remove(name);
    }
    command
        .env("VIGIA_STACK", "vigia")
        .env("VIGIA_CONTROL_BUCKET", control::BUCKET)
        .env("VIGIA_LISTEN", settings.listen.to_string())
        .env("VIGIA_ADMIN_LISTEN", ground.admin.to_string())
        .env("VIGIA_LOG", "warn")
        .env("AWS_ENDPOINT_URL", format!("http://{}", ground.control.addr))
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "id")
        .env("AWS_SECRET_ACCESS_KEY", "key");
    if let Some((addr, files)) = settings.tls {
        command
            .env("VIGIA_TLS_LISTEN", addr.to_string())
            .env("VIGIA_TLS_CERT", &files.certificate)
            .env("VIGIA_TLS_KEY", &files.key);
    }
    match settings.posts {
        Posts::Once => {}
        Posts::Retried => {
            command.env("VIGIA_RETRY_NON_IDEMPOTENT", "1");
        }
    }
}

/// Returns the whole answer.
pub fn get(addr: SocketAddr, path: &str) -> std::io::Result<String> {
    exchange(addr, &format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n"))
}

fn exchange(addr: SocketAddr, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
