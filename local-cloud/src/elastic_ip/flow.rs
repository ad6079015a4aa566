//! One TCP connection through an Elastic IP, as close to a direct connection as two sockets can be.
//!
//! | one side | the other side sees |
//! |---|---|
//! | connects from an address | a connection from the same address, from another port |
//! | refuses the connection | a reset |
//! | closes its half | that half closed; the other half goes on |
//! | resets the connection | what had arrived, then a reset |
//! | does not read | a full window, after the little that fits in between |
//! | loses power | nothing any more, not even the end |

use std::io::{Error, ErrorKind, Read as _, Result};
use std::net::{IpAddr, SocketAddr};

use nix::errno::Errno;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::Target;

/// Kernel buffer for each direction of each of the local cloud's sockets; the kernel doubles the value. A
/// client that does not read must stop the instance as soon as it would on a direct connection: with the
/// kernel's default, megabytes would fit in between. Half of this slows large answers down.
const SOCKET_BUFFER: usize = 32 * 1024;

/// Bytes read at a time. Memory is taken only while there is something to move.
const CHUNK: usize = 16 * 1024;

/// Connections that wait to be accepted, as many as the kernel allows: a full queue here would hide from the
/// instance the connections that it would get without the local cloud.
pub(super) const BACKLOG: i32 = 65_535;

/// Why a connection was cut.
enum Cut {
    /// One side reset it.
    Reset,
    /// The instance has no power and sends nothing.
    Silent,
}

/// Listens at a public address. The buffers of accepted connections are those of the listener.
pub(super) fn listen(public: SocketAddr) -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.bind(&public.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Carries a connection to its end.
pub(super) async fn carry(client: TcpStream, from: SocketAddr, target: Target) {
    let server = match begin_to_connect(from.ip(), target.address) {
        Ok(server) => server,
        Err(error) => {
            tracing::warn!(%error, %from, to = %target.address, "a connection to an Elastic IP failed");
            return reset(client);
        }
    };
    tokio::select! {
        _connected_or_refused = server.writable() => exchange(client, server, &target).await,
        // A client that resets while the instance does not accept has given up.
        _ = client.ready(Interest::ERROR) => {}
    }
}

/// Connects from the client's own address: on loopback every process may use any of them.
///
/// Not by tokio's `connect`, which looks for an error once the connection exists: an answer followed by a
/// reset would count as a refusal, and the answer would be lost.
fn begin_to_connect(from: IpAddr, to: SocketAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    // Without this, `bind` reserves a port exclusively, and 28,000 connections to all of the instances
    // together would exhaust an address.
    setsockopt(&socket, IpBindAddressNoPort, &true)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => Err(error),
        Ok(()) | Err(_) => TcpStream::from_std(socket.into()),
    }
}

async fn exchange(mut client: TcpStream, mut server: TcpStream, target: &Target) {
    for side in [&client, &server] {
        drop(side.set_nodelay(true));
    }
    let ended = {
        let (from_client, mut to_client) = client.split();
        let (from_server, mut to_server) = server.split();
        let up = pump(&from_client, &mut to_server, || false);
        let down = pump(&from_server, &mut to_client, || target.is_dead());
        tokio::try_join!(up, down)
    };
    // The dead host's sockets end because of this machine; on AWS the client would notice nothing.
    let cut = match ended {
        Ok(_) => return,
        Err(_) if target.is_dead() => Cut::Silent,
        Err(cut) => cut,
    };
    match cut {
        Cut::Silent => swallow(&client).await,
        Cut::Reset => {
            deliver_the_rest(&server, &client);
            deliver_the_rest(&client, &server);
            reset(server);
            reset(client);
        }
    }
}

/// Moves bytes in one direction until its end, and passes the end on.
async fn pump(
    from: &ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    is_silent: impl Fn() -> bool,
) -> std::result::Result<(), Cut> {
    loop {
        let ready = tokio::select! {
            ready = from.readable() => ready,
            _ = to.ready(Interest::ERROR) => Err(ErrorKind::ConnectionReset.into()),
        };
        ready?;
        let mut chunk = vec![0; CHUNK];
        match from.try_read(&mut chunk) {
            Ok(0) if is_silent() => return Err(Cut::Silent),
            Ok(0) => return Ok(to.shutdown().await?),
            Ok(length) => write_all(from, to, &chunk[..length]).await?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Writes all, unless the sending side is reset in between: a receiver that does not read must not keep the
/// reset from arriving. It still gets as many bytes as it has room for.
async fn write_all(from: &ReadHalf<'_>, to: &WriteHalf<'_>, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let ready = tokio::select! {
            ready = to.writable() => ready,
            _ = from.ready(Interest::ERROR) => {
                drop(SockRef::from(to.as_ref()).send(bytes));
                Err(ErrorKind::ConnectionReset.into())
            }
        };
        ready?;
        match to.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Passes on the bytes that had arrived before a reset, as far as possible without waiting. It asks the
/// kernel, because tokio does not know yet whether a new socket is ready.
fn deliver_the_rest(from: &TcpStream, to: &TcpStream) {
    let (from, to) = (SockRef::from(from), SockRef::from(to));
    let mut chunk = vec![0; CHUNK];
    while let Ok(length @ 1..) = (&*from).read(&mut chunk) {
        if to.send(&chunk[..length]).is_err() {
            return;
        }
    }
}

/// Reads the client's bytes and sends nothing until the client gives up.
async fn swallow(client: &TcpStream) {
    let mut chunk = vec![0; CHUNK];
    while client.readable().await.is_ok() {
        match client.try_read(&mut chunk) {
            Ok(1..) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return,
        }
    }
}

/// Closes the connection so that the other end sees a reset.
fn reset(stream: TcpStream) {
    drop(stream.set_zero_linger());
    drop(stream);
}

impl From<Error> for Cut {
    fn from(_: Error) -> Self {
        Self::Reset
    }
}
