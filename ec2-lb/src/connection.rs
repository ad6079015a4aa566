//! A client's connection, between requests and during them.
//!
//! ```text
//!  TLS handshake ─> waiting ─(a whole head, or one to refuse)─> serving
//!                      ^                                           │
//!                      └───────────────(answered)──────────────────┘
//! ```
//!
//! It is written as a future by hand for its size: ten thousand of them wait on a small machine. A
//! head that comes in pieces is kept here, so that a slow one costs no more than its bytes.

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::net::TcpStream;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::{Accept, TlsAcceptor};

use crate::client::Client;
use crate::deadline::Key;
use crate::http::head::{self, MAX_REQUEST_HEAD, Scan};
use crate::lane::{Done, Job, Lane};
use crate::thread::Thread;

pub(crate) struct Connection {
    thread: Rc<Thread>,
    peer: IpAddr,
    key: Key,
    state: State,
}

enum State {
    New(TcpStream),
    Handshake(Box<Accept<TcpStream>>),
    /// Waits for a request, of whose head this much has come.
    Waiting(Client, Option<Box<Begun>>),
    Serving(Lane),
    Over,
}

/// The begin of a head. Boxed it is one word, of which every idle connection has one.
#[derive(Debug)]
pub(crate) struct Begun(pub(crate) Vec<u8>);

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Connection {
    pub(crate) fn plain(thread: Rc<Thread>, stream: TcpStream, peer: IpAddr) -> Self {
        Self::new(thread, peer, State::New(stream))
    }

    pub(crate) fn tls(
        thread: Rc<Thread>,
        stream: TcpStream,
        peer: IpAddr,
        config: Arc<ServerConfig>,
    ) -> Self {
        let handshake = Box::new(TlsAcceptor::from(config).accept(stream));
        Self::new(thread, peer, State::Handshake(handshake))
    }

    fn new(thread: Rc<Thread>, peer: IpAddr, state: State) -> Self {
        let key = thread.deadlines.insert();
        thread.deadlines.set(key, thread.limits().head);
        Self { thread, peer, key, state }
    }

    fn wait(&mut self, client: Client, begun: Option<Box<Begun>>) {
        match begun {
            None => self.thread.deadlines.set_idle(self.key, self.thread.limits().idle_client),
            Some(_) => self.thread.deadlines.set(self.key, self.thread.limits().head),
        }
        self.state = State::Waiting(client, begun);
    }

    /// Hands the connection to a lane, with the bytes that have come.
    fn serve(&mut self, client: Client, bytes: &[u8]) {
        let lane = self.thread.lane();
        lane.begin(Job { client, peer: self.peer, key: self.key }, bytes);
        self.state = State::Serving(lane);
    }

    /// Reads until there is something to serve, or nothing more to read.
    fn poll_waiting(
        &mut self,
        mut client: Client,
        mut begun: Option<Box<Begun>>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let thread = Rc::clone(&self.thread);
        let scratch = &mut **thread.scratch.borrow_mut();
        while let Poll::Ready(read) = client.poll_receive(cx, scratch) {
            let bytes = match read {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(count) => &scratch[..count],
            };
            let is_first = begun.is_none();
            match &mut begun {
                None if is_to_serve(bytes, 0) => {
                    self.serve(client, bytes);
                    return Poll::Pending;
                }
                None => begun = Some(Box::new(Begun(bytes.to_vec()))),
                Some(begun) => {
                    let begun = &mut begun.0;
                    let seen = begun.len();
                    begun.extend_from_slice(bytes);
                    if is_to_serve(begun, seen) {
                        self.serve(client, begun);
                        return Poll::Pending;
                    }
                }
            }
            if is_first {
                thread.deadlines.set(self.key, thread.limits().head);
            }
        }
        let is_over = thread.deadlines.is_over(self.key);
        match begun {
            // Silence is answered with silence, and a head that does not end with a refusal.
            None if is_over || thread.is_draining() => return Poll::Ready(()),
            Some(begun) if is_over => {
                self.serve(client, &begun.0);
                return Poll::Pending;
            }
            begun => self.state = State::Waiting(client, begun),
        }
        Poll::Pending
    }
}

/// Whether `bytes` hold a whole head or what must be refused; `seen` of them did not.
fn is_to_serve(bytes: &[u8], seen: usize) -> bool {
    let empty = head::empty_lines(bytes);
    let text = &bytes[empty..];
    !text.is_empty()
        && (head::scan(text, seen.saturating_sub(empty)) != Scan::Incomplete || text.len() > MAX_REQUEST_HEAD)
}

impl Future for Connection {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            match std::mem::replace(&mut this.state, State::Over) {
                State::New(stream) => {
                    this.thread.deadlines.register(this.key, cx.waker());
                    this.wait(Client::Plain(stream), None);
                }
                State::Handshake(mut handshake) => match Pin::new(&mut *handshake).poll(cx) {
                    Poll::Ready(Ok(stream)) => this.wait(Client::Tls(Box::new(stream)), None),
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => {
                        this.thread.deadlines.register(this.key, cx.waker());
                        if this.thread.deadlines.is_over(this.key) || this.thread.is_draining() {
                            return Poll::Ready(());
                        }
                        this.state = State::Handshake(handshake);
                        return Poll::Pending;
                    }
                },
                State::Waiting(client, begun) => {
                    let polled = this.poll_waiting(client, begun, cx);
                    if !matches!(this.state, State::Serving(_)) {
                        return polled;
                    }
                }
                State::Serving(mut lane) => {
                    let Poll::Ready(done) = lane.poll(cx) else {
                        this.state = State::Serving(lane);
                        return Poll::Pending;
                    };
                    let rest = lane.take_rest();
                    this.thread.put_back(lane);
                    match done {
                        Done::Open(client) => this.wait(client, rest),
                        Done::Closed => return Poll::Ready(()),
                    }
                }
                State::Over => return Poll::Ready(()),
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.thread.deadlines.remove(self.key);
        self.thread.closed();
    }
}
