//! A public address whose instance has no power: connections to it are neither accepted nor refused.
//!
//! The kernel completes a handshake on its own as long as there is room in the listener's queue. So the queue
//! is made as short as possible and filled with a connection of the local cloud itself. From then on the
//! kernel drops what clients send and they try again, as with packets that reach no host. A client that is
//! still trying when the address moves gets through.

use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::flow::BACKLOG;

/// On loopback a handshake takes microseconds; after this long it is not going to be completed.
const HANDSHAKE: Duration = Duration::from_millis(100);

/// Clients may be in the queue already; each filler that gets in is one more than the kernel should let in.
const MOST_FILLERS: usize = 8;

pub(super) struct BlackHole {
    _fillers: Vec<TcpStream>,
}

impl BlackHole {
    pub(super) async fn dig(listener: &TcpListener) -> Self {
        let mut fillers = Vec::new();
        resize(listener, 0);
        if let Ok(address) = listener.local_addr() {
            while fillers.len() < MOST_FILLERS
                && let Ok(Ok(filler)) = timeout(HANDSHAKE, TcpStream::connect(address)).await
            {
                fillers.push(filler);
            }
        }
        Self { _fillers: fillers }
    }

    /// Accepts connections again. The fillers are in the queue still; they end with the local cloud.
    pub(super) fn fill(self, listener: &TcpListener) {
        resize(listener, BACKLOG);
    }
}

fn resize(listener: &TcpListener, backlog: i32) {
    if let Err(error) = SockRef::from(listener).listen(backlog) {
        tracing::warn!(%error, "an Elastic IP's queue cannot be resized");
    }
}
