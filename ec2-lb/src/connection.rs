//! A client's connection, between requests and during them.
//!
//! ```text
//!  TLS handshake ─> waiting ─(a whole head, or one to refuse)─> serving
//!                      ^                                           │
//!                      └───────────────(answered)──────────────────┘
//! ```
//!
//! It is written as a future by hand for its size: ten thousand of them wait on a small machine. A
//! head that comes in pieces is kept here, so that a slow one costs no more than its bytes, and is
//! counted among the arriving (`shares.rs`).

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use http1::head::{self, MAX_REQUEST_HEAD, Scan};
use tokio::net::TcpStream;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::{Accept, TlsAcceptor};

use crate::client::Client;
use crate::deadline::Key;
use crate::forward;
use crate::lane::{Done, Job, Lane};
use crate::limits::Kind;
use crate::place::Place;
use crate::refusal::Refusal;
use crate::retry::UploadFault;
use crate::shares::Arrival;
use crate::socket::Socket;
use crate::thread::Thread;

pub(crate) struct Connection {
    thread: Rc<Thread>,
    peer: IpAddr,
    place: Place,
    key: Key,
    state: State,
}

enum State {
    New(Socket),
    Handshake(Box<(Accept<TcpStream>, Arrival)>),
    /// Waits for a request, of whose head this much has come.
    Waiting(Client, Option<Box<Begun>>),
    Serving(Lane),
    Over,
}

/// The first bytes of a head that is not whole yet. It is boxed, so that an idle connection holds one word.
struct Begun {
    bytes: Vec<u8>,
    arrival: Arrival,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Connection {
    pub(crate) fn plain(thread: Rc<Thread>, socket: Socket, peer: IpAddr, place: Place) -> Self {
        Self::new(thread, peer, place, |_| State::New(socket))
    }

    /// Begins a handshake; none if there are too many.
    pub(crate) fn tls(
        thread: Rc<Thread>,
        stream: TcpStream,
        peer: IpAddr,
        place: Place,
        config: Arc<ServerConfig>,
    ) -> Self {
        Self::new(thread, peer, place, |this| match this.thread.arrive(Kind::Handshake, place, this.key) {
            Ok(arrival) => State::Handshake(Box::new((TlsAcceptor::from(config).accept(stream), arrival))),
            Err(_) => State::Over,
        })
    }

    fn new(thread: Rc<Thread>, peer: IpAddr, place: Place, begin: impl FnOnce(&Self) -> State) -> Self {
        let key = thread.deadlines.insert(place);
        thread.deadlines.set(key, thread.limits().head);
        thread.opened(place);
        let mut this = Self { thread, peer, place, key, state: State::Over };
        this.state = begin(&this);
        this
    }

    fn wait(&mut self, client: Client) {
        self.thread.deadlines.set_idle(self.key, self.thread.limits().idle_client);
        self.state = State::Waiting(client, None);
    }

    /// Waits for the rest of a head, if there is room for one more.
    fn begin(&mut self, bytes: &[u8]) -> Result<Box<Begun>, Refusal> {
        self.thread.deadlines.set(self.key, self.thread.limits().head);
        let arrival = self.thread.arrive(Kind::Arriving, self.place, self.key)?;
        arrival.moved(bytes.len(), self.thread.deadlines.now_ms());
        Ok(Box::new(Begun { bytes: bytes.to_vec(), arrival }))
    }

    /// Hands the connection to a lane, with the bytes that have come. If they are not a whole head, the
    /// lane answers with `why_not`.
    fn serve(&mut self, client: Client, bytes: &[u8], why_not: Refusal) {
        let spare = self.thread.spare_lane();
        let lane = spare.unwrap_or_else(|| forward::lane(Rc::clone(&self.thread)));
        lane.begin(Job { client, peer: self.peer, place: self.place, key: self.key, why_not }, bytes);
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
            match &mut begun {
                None if is_to_serve(bytes, 0) => {
                    self.serve(client, bytes, Refusal::SlowHead);
                    return Poll::Pending;
                }
                None => match self.begin(bytes) {
                    Ok(first) => begun = Some(first),
                    Err(refusal) => {
                        self.serve(client, bytes, refusal);
                        return Poll::Pending;
                    }
                },
                Some(begun) => {
                    let seen = begun.bytes.len();
                    begun.bytes.extend_from_slice(bytes);
                    begun.arrival.moved(bytes.len(), thread.deadlines.now_ms());
                    if is_to_serve(&begun.bytes, seen) {
                        self.serve(client, &begun.bytes, Refusal::SlowHead);
                        return Poll::Pending;
                    }
                }
            }
        }
        let is_over = thread.deadlines.is_over(self.key);
        match begun {
            // Silence is answered with silence, and a head that does not end with a refusal.
            None if is_over || thread.is_draining() => return Poll::Ready(()),
            Some(begun) if begun.arrival.is_dropped() => {
                self.serve(client, &begun.bytes, Refusal::Upload(UploadFault::Dropped));
                return Poll::Pending;
            }
            Some(begun) if is_over => {
                self.serve(client, &begun.bytes, Refusal::SlowHead);
                return Poll::Pending;
            }
            Some(begun) => {
                begun.arrival.waits(thread.deadlines.now_ms());
                self.state = State::Waiting(client, Some(begun));
            }
            None => self.state = State::Waiting(client, None),
        }
        Poll::Pending
    }

    /// Goes on with a connection whose last request is answered, and of whose next this much has come.
    fn go_on(&mut self, client: Client, rest: &[u8]) {
        if rest.is_empty() {
            return self.wait(client);
        }
        match self.begin(rest) {
            Ok(begun) => self.state = State::Waiting(client, Some(begun)),
            Err(refusal) => self.serve(client, rest, refusal),
        }
    }
}

/// Whether `bytes` hold a whole head or bytes that must be refused. The first `seen` of them did not.
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
                State::New(socket) => {
                    this.thread.deadlines.register(this.key, cx.waker());
                    this.wait(Client::Plain(socket));
                }
                State::Handshake(mut handshake) => match Pin::new(&mut handshake.0).poll(cx) {
                    Poll::Ready(Ok(stream)) => this.wait(Client::Tls(Box::new(stream))),
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => {
                        this.thread.deadlines.register(this.key, cx.waker());
                        let is_over = this.thread.deadlines.is_over(this.key);
                        if is_over || handshake.1.is_dropped() || this.thread.is_draining() {
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
                    match done {
                        Done::Open(client) => lane.with_rest(|rest| this.go_on(client, rest)),
                        Done::Closed => {
                            this.thread.put_back(lane);
                            return Poll::Ready(());
                        }
                    }
                    this.thread.put_back(lane);
                }
                State::Over => return Poll::Ready(()),
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The state's counts are given back before the place is.
        self.state = State::Over;
        self.thread.deadlines.remove(self.key);
        self.thread.closed(self.place);
    }
}
