//! A connection that has switched to another protocol: bytes pass both ways until both have ended.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::client::poll_receive;
use crate::exchange::{Exchange, Fate, Wait, poll_write_all};
use crate::send::Answer;

/// Read at once in each direction. Messages on such connections are short.
const BUFFER: usize = 8 * 1024;

/// One direction.
struct Pipe {
    buffer: Vec<u8>,
    at: usize,
    is_ending: bool,
    has_ended: bool,
}

impl Pipe {
    /// `bytes` have been read already.
    fn new(bytes: Vec<u8>) -> Self {
        Self { buffer: bytes, at: 0, is_ending: false, has_ended: false }
    }

    /// Passes what can be passed; ready when the reader's end was passed on. Counts in `passed`.
    fn poll(
        &mut self,
        reader: &mut (impl AsyncRead + Unpin),
        writer: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
        passed: &mut usize,
    ) -> Poll<io::Result<()>> {
        while !self.has_ended {
            let before = self.at;
            let written = poll_write_all(writer, cx, &self.buffer, &mut self.at);
            *passed += self.at - before;
            ready!(written)?;
            if self.is_ending {
                ready!(Pin::new(&mut *writer).poll_shutdown(cx))?;
                self.has_ended = true;
                break;
            }
            self.at = 0;
            self.buffer.resize(BUFFER, 0);
            let read = poll_receive(reader, cx, &mut self.buffer);
            self.buffer.truncate(match &read {
                Poll::Ready(Ok(count)) => *count,
                Poll::Ready(Err(_)) | Poll::Pending => 0,
            });
            let count = ready!(read)?;
            *passed += count;
            self.is_ending = count == 0;
        }
        Poll::Ready(Ok(()))
    }
}

pub(crate) async fn run(exchange: &mut Exchange<'_>, answer: Answer, mut worker: TcpStream) -> Fate {
    let buffers = &mut *exchange.buffers;
    let mut to_client = std::mem::take(&mut buffers.reply);
    to_client.extend_from_slice(&buffers.response[answer.body_at..]);
    let mut down = Pipe::new(to_client);
    let mut up = Pipe::new(std::mem::take(&mut buffers.inbound));
    let mut wait = Wait::default();
    let (thread, key) = (exchange.thread, exchange.key);
    let patience = thread.limits().tunnel_pause;
    let client = &mut *exchange.client;
    poll_fn(|cx| {
        let mut passed = 0;
        let from_worker = down.poll(&mut worker, client, cx, &mut passed);
        let from_client = up.poll(client, &mut worker, cx, &mut passed);
        match (from_worker, from_client) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(()),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(()),
            _ if wait.is_over(thread, key, passed > 0, || patience) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    })
    .await;
    Fate::Close
}
