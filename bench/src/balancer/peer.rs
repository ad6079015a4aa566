//! The compared proxies, and the paths of their programs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::process;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
pub enum Peer {
    Ours,
    Nginx,
    Haproxy,
    Pingora,
    Caddy,
}

impl Peer {
    pub const ALL: [Self; 5] = [Self::Ours, Self::Nginx, Self::Haproxy, Self::Pingora, Self::Caddy];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ec2-lb",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Pingora => "Pingora",
            Self::Caddy => "Caddy",
        }
    }

    /// Returns whether it serves TLS; Pingora is built without.
    pub fn speaks_tls(self) -> bool {
        self != Self::Pingora
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The programs that take part.
#[derive(Args, Clone, Debug)]
pub struct Entrants {
    /// The ec2-lb program.
    #[arg(long, value_parser = process::absolute)]
    pub ours: PathBuf,
    /// The Pingora peer, which `make bench-pingora` builds.
    #[arg(long, value_parser = process::absolute)]
    pub pingora: Option<PathBuf>,
    /// Peers, separated by commas [default: all that are installed].
    #[arg(long, value_delimiter = ',')]
    pub peers: Option<Vec<Peer>>,
}

/// A proxy that takes part.
#[derive(Clone, Debug)]
pub struct Entrant {
    pub peer: Peer,
    pub program: PathBuf,
    /// Its own version output.
    pub version: String,
}

impl Entrants {
    /// Returns the available proxies, ec2-lb first, and a sentence for each missing peer. Without ec2-lb
    /// there is nothing to compare.
    pub fn find(&self) -> anyhow::Result<(Vec<Entrant>, Vec<String>)> {
        let is_wanted =
            |peer: &Peer| *peer == Peer::Ours || self.peers.as_ref().is_none_or(|peers| peers.contains(peer));
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for peer in Peer::ALL.into_iter().filter(is_wanted) {
            match self.look(peer) {
                Ok(entrant) => found.push(entrant),
                Err(why) if peer == Peer::Ours => {
                    bail!("nothing was measured: {} cannot be run: {why}", self.ours.display())
                }
                Err(why) => missing.push(format!("{peer} is skipped: {why}")),
            }
        }
        Ok((found, missing))
    }

    fn look(&self, peer: Peer) -> Result<Entrant, String> {
        let (program, version) = match peer {
            Peer::Ours => (self.ours.clone(), built(&self.ours)?),
            Peer::Pingora => {
                let path = self.pingora.as_deref().ok_or("it is not built (run make bench-pingora)")?;
                (path.to_owned(), built(path).map_err(|why| format!("{why} (make bench-pingora)"))?)
            }
            Peer::Nginx => ("nginx".into(), version("nginx", "-v")?),
            Peer::Haproxy => ("haproxy".into(), version("haproxy", "-v")?),
            Peer::Caddy => ("caddy".into(), version("caddy", "version")?),
        };
        Ok(Entrant { peer, program, version })
    }
}

fn built(program: &Path) -> Result<String, String> {
    if program.is_file() { Ok("built here".to_owned()) } else { Err("it is not built".to_owned()) }
}

fn version(program: &str, flag: &str) -> Result<String, String> {
    let output = Command::new(program).arg(flag).output();
    let output = output.map_err(|error| format!("{program} cannot be run here: {error}"))?;
    let said = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&said);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_missing_is_said() {
        let ours = std::env::current_exe().expect("this runs");
        let entrants = Entrants { ours, pingora: None, peers: Some(vec![Peer::Pingora]) };
        let (found, missing) = entrants.find().expect("ours is there");
        assert_eq!(found.iter().map(|entrant| entrant.peer).collect::<Vec<_>>(), [Peer::Ours]);
        assert_eq!(missing, ["Pingora is skipped: it is not built (run make bench-pingora)"]);
    }

    #[test]
    fn without_ec2_lb_nothing_is_compared() {
        let entrants = Entrants { ours: "/nowhere/ec2-lb".into(), pingora: None, peers: Some(Vec::new()) };
        let error = entrants.find().expect_err("it is not there");
        assert_eq!(error.to_string(), "nothing was measured: /nowhere/ec2-lb cannot be run: it is not built");
    }
}
