//! Workers as the prober sees them: each at an address of its own, each with its own name.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::stack::{Stack, balancer_addr, worker_addr};

/// Listens on loopback for all of a stack, including its load balancer. They stop with the set.
pub async fn start(stack: &Stack) -> anyhow::Result<JoinSet<()>> {
    let mut servers = JoinSet::new();
    for (number, id) in stack.ids() {
        let body = format!(r#"{{"status":"ok","worker":"{id}","version":"0.1.0"}}"#);
        servers.spawn(serve(listen(worker_addr(number).0).await?, body));
    }
    let body = r#"{"status":"ok","revision":7,"age_seconds":1.234}"#.to_owned();
    servers.spawn(serve(listen(balancer_addr()).await?, body));
    Ok(servers)
}

async fn listen(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr).await.with_context(|| format!("cannot listen on {addr}"))
}

/// Answers as axum does, with a worker's headers.
async fn serve(listener: TcpListener, body: String) {
    let reply = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: 0123456789abcdef0123456789abcdef\r\n\
         cache-control: no-store\r\nx-content-type-options: nosniff\r\ncontent-length: {}\r\nconnection: close\r\n\
         date: Tue, 24 Nov 2026 20:22:01 GMT\r\n\r\n{body}",
        body.len()
    );
    while let Ok((stream, _)) = listener.accept().await {
        // One after the other: no worker is asked twice at a time. A client may disconnect early.
        reply_to(stream, &reply).await.ok();
    }
}

async fn reply_to(mut stream: TcpStream, reply: &str) -> std::io::Result<()> {
    let mut request = Vec::with_capacity(512);
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    stream.write_all(reply.as_bytes()).await?;
    stream.shutdown().await
}
