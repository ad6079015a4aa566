//! Elastic IPs as TCP forwards: a connection to the public address goes to the instance that the address is
//! associated with, on each port that the instance's security groups open to the world.
//!
//! The instance sees each client's own address, and the client sees the instance's behaviour (`flow.rs`). The
//! only limit is the number of open files of this process, two for each connection.

mod black_hole;
mod flow;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::machine::Power;
use black_hole::BlackHole;

/// The destinations of public addresses, according to EC2.
pub type Wanted = BTreeMap<SocketAddr, Target>;

/// A port of an instance.
#[derive(Clone, Debug)]
pub struct Target {
    pub address: SocketAddr,
    /// The power of the instance's host: packets to a host without power vanish.
    pub power: watch::Receiver<Power>,
}

#[derive(Default)]
pub struct ElasticIps {
    forwards: BTreeMap<SocketAddr, Forward>,
}

struct Forward {
    target: watch::Sender<Target>,
    task: JoinHandle<()>,
}

impl Target {
    fn is_dead(&self) -> bool {
        *self.power.borrow() == Power::Dead
    }

    /// Waits until the host loses its power.
    async fn dies(&self) {
        let died = self.power.clone().wait_for(|power| *power == Power::Dead).await.is_ok();
        if !died {
            // The instance ended in order, and the forward will end too.
            std::future::pending().await
        }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ElasticIps {
    /// Makes the forwards match `wanted`. Open connections of a removed forward are cut, those of a moved one
    /// stay where they are, like established flows of a real Elastic IP.
    ///
    /// If one address cannot be bound, the others still are; the error names it.
    pub async fn apply(&mut self, wanted: &Wanted) -> anyhow::Result<()> {
        let removed: Vec<SocketAddr> =
            self.forwards.keys().filter(|public| !wanted.contains_key(public)).copied().collect();
        for mut forward in removed.iter().filter_map(|public| self.forwards.remove(public)) {
            forward.task.abort();
            // The port is free when this returns: it may be needed again at once.
            drop((&mut forward.task).await);
        }
        let mut outcome = Ok(());
        for (public, private) in wanted {
            if let Some(forward) = self.forwards.get(public) {
                forward.target.send_replace(private.clone());
                continue;
            }
            let bound = flow::listen(*public).with_context(|| {
                format!(
                    "port {} of {} is taken by another program on this machine",
                    public.port(),
                    public.ip()
                )
            });
            let listener = match bound {
                Ok(listener) => listener,
                Err(error) => {
                    outcome = Err(error);
                    continue;
                }
            };
            let (target, seen) = watch::channel(private.clone());
            self.forwards.insert(*public, Forward { target, task: tokio::spawn(accept(listener, seen)) });
        }
        outcome
    }

    pub fn addresses(&self) -> Vec<(SocketAddr, SocketAddr)> {
        self.forwards.iter().map(|(public, forward)| (*public, forward.target.borrow().address)).collect()
    }
}

async fn accept(listener: TcpListener, mut target: watch::Receiver<Target>) {
    // Owns the connections: they end with the forward.
    let mut connections = JoinSet::new();
    let mut is_full = false;
    loop {
        let current = target.borrow_and_update().clone();
        if current.is_dead() {
            let hole = BlackHole::dig(&listener).await;
            let is_moved = target.changed().await.is_ok();
            hole.fill(&listener);
            if is_moved {
                continue;
            }
            return;
        }
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, from)) => {
                    is_full = false;
                    connections.spawn(flow::carry(client, from, current));
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_full, true) {
                        tracing::warn!(%error, "an Elastic IP takes no more connections for now");
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            },
            moved = target.changed() => if moved.is_err() { return },
            () = current.dies() => {}
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Returns the first address of the pool that is not in `used`.
pub fn next_free(pool: &[Ipv4Addr], used: &[Ipv4Addr]) -> Option<Ipv4Addr> {
    pool.iter().find(|address| !used.contains(address)).copied()
}

#[cfg(test)]
mod tests;
