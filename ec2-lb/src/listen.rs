//! Sockets to listen on: one for each thread, all on the same port. The kernel spreads new
//! connections over them.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait to be accepted, per thread; the system's own limit is usually as much.
const BACKLOG: i32 = 4096;

/// Binds `addr` once for each of `threads`.
///
/// Sockets that share a port would also share it with another process of the same user, which would
/// then get half of the connections. So the port must be free first.
pub fn bind(addr: SocketAddr, threads: usize) -> io::Result<Vec<TcpListener>> {
    let probe = socket(addr)?;
    probe.bind(&addr.into())?;
    let addr = probe.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    drop(probe);
    (0..threads)
        .map(|_| {
            let socket = socket(addr)?;
            socket.set_reuse_port(true)?;
            socket.bind(&addr.into())?;
            // Accepted sockets inherit it.
            socket.set_tcp_nodelay(true)?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect()
}

fn socket(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the last connections of the process before.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_threads_of_one_process_share_a_port() {
        let any = "127.0.0.1:0".parse().expect("valid");
        let listeners = bind(any, 2).expect("a free port");
        let addr = listeners[0].local_addr().expect("bound");
        assert_eq!(listeners[1].local_addr().expect("bound"), addr);
        assert_eq!(bind(addr, 1).expect_err("it is taken").kind(), io::ErrorKind::AddrInUse);
    }
}
