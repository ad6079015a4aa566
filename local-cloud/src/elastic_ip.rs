//! Elastic IPs as TCP forwards: a connection to the public address goes to the instance that the
//! address is associated with, on each port that the instance's security groups open to the world.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Where public addresses lead, as EC2 has it now.
pub type Wanted = BTreeMap<SocketAddr, SocketAddr>;

#[derive(Default)]
pub struct ElasticIps {
    forwards: BTreeMap<SocketAddr, Forward>,
}

struct Forward {
    target: watch::Sender<SocketAddr>,
    task: JoinHandle<()>,
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ElasticIps {
    /// Makes the forwards what `wanted` says. Open connections of a removed forward are cut, those
    /// of a moved one stay where they are, as with a real Elastic IP's established flows.
    ///
    /// An address that cannot be had does not keep the others from theirs; the error names it.
    pub async fn apply(&mut self, wanted: &Wanted) -> anyhow::Result<()> {
        let removed: Vec<SocketAddr> =
            self.forwards.keys().filter(|public| !wanted.contains_key(public)).copied().collect();
        for mut forward in removed.iter().filter_map(|public| self.forwards.remove(public)) {
            forward.task.abort();
            // The port is free when we return: it may be wanted again at once.
            drop((&mut forward.task).await);
        }
        let mut outcome = Ok(());
        for (public, private) in wanted {
            if let Some(forward) = self.forwards.get(public) {
                forward.target.send_replace(*private);
                continue;
            }
            let bound = TcpListener::bind(public).await.with_context(|| {
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
            let (target, seen) = watch::channel(*private);
            self.forwards.insert(*public, Forward { target, task: tokio::spawn(accept(listener, seen)) });
        }
        outcome
    }

    pub fn addresses(&self) -> Vec<(SocketAddr, SocketAddr)> {
        self.forwards.iter().map(|(public, forward)| (*public, *forward.target.borrow())).collect()
    }
}

async fn accept(listener: TcpListener, target: watch::Receiver<SocketAddr>) {
    // Owns the connections: they end with the forward.
    let mut connections = JoinSet::new();
    loop {
        let Ok((mut client, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let target = *target.borrow();
        connections.spawn(async move {
            if let Ok(mut server) = TcpStream::connect(target).await {
                drop(client.set_nodelay(true));
                drop(server.set_nodelay(true));
                drop(copy_bidirectional(&mut client, &mut server).await);
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// The first address of the pool that is not in `used`.
pub fn next_free(pool: &[Ipv4Addr], used: &[Ipv4Addr]) -> Option<Ipv4Addr> {
    pool.iter().find(|address| !used.contains(address)).copied()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        (listener, address)
    }

    async fn free_address() -> SocketAddr {
        listener().await.1
    }

    /// Answers each connection, at its end, with a name and what was sent.
    async fn server(name: &'static str) -> SocketAddr {
        let (listener, address) = listener().await;
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut sent = String::from(name);
                    client.read_to_string(&mut sent).await.expect("readable");
                    client.write_all(sent.as_bytes()).await.expect("writable");
                });
            }
        });
        address
    }

    async fn answer(mut client: TcpStream, text: &str) -> String {
        client.write_all(text.as_bytes()).await.expect("writable");
        client.shutdown().await.expect("half closed");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("readable");
        answer
    }

    #[tokio::test]
    async fn a_half_closed_connection_is_answered() {
        let (public, mut forwards) = (free_address().await, ElasticIps::default());
        forwards.apply(&[(public, server("a:").await)].into()).await.expect("forwarded");
        let client = TcpStream::connect(public).await.expect("connected");
        assert_eq!(answer(client, "hello").await, "a:hello");
    }

    #[tokio::test]
    async fn a_moved_forward_leaves_open_connections_where_they_are() {
        let (public, mut forwards) = (free_address().await, ElasticIps::default());
        let (first, second) = (listener().await, server("b:").await);
        forwards.apply(&[(public, first.1)].into()).await.expect("forwarded");
        let old = TcpStream::connect(public).await.expect("connected");
        let (mut served, _) = first.0.accept().await.expect("forwarded");
        forwards.apply(&[(public, second)].into()).await.expect("moved");
        let new = TcpStream::connect(public).await.expect("connected");
        assert_eq!(answer(new, "new").await, "b:new");
        let serve = async {
            let mut sent = String::new();
            served.read_to_string(&mut sent).await.expect("readable");
            served.write_all(format!("a:{sent}").as_bytes()).await.expect("writable");
            drop(served);
        };
        assert_eq!(tokio::join!(answer(old, "old"), serve).0, "a:old");
    }

    #[tokio::test]
    async fn a_removed_forward_cuts_connections_and_frees_its_port() {
        let (public, mut forwards) = (free_address().await, ElasticIps::default());
        forwards.apply(&[(public, server("a:").await)].into()).await.expect("forwarded");
        let mut client = TcpStream::connect(public).await.expect("connected");
        forwards.apply(&Wanted::new()).await.expect("removed");
        assert!(TcpListener::bind(public).await.is_ok(), "the port is not free");
        // Closed or reset, as it happens; what matters is that it does not wait for an answer.
        let ended = client.read(&mut [0; 8]).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }

    #[tokio::test]
    async fn one_taken_port_does_not_keep_the_others() {
        let (taken, free) = (listener().await, free_address().await);
        let mut forwards = ElasticIps::default();
        let target = server("a:").await;
        let error = forwards.apply(&[(taken.1, target), (free, target)].into()).await.expect_err("taken");
        assert!(error.to_string().contains(&taken.1.port().to_string()), "{error}");
        assert_eq!(forwards.addresses(), [(free, target)]);
        let public = taken.1;
        drop(taken);
        forwards.apply(&[(public, target), (free, target)].into()).await.expect("free meanwhile");
    }
}
