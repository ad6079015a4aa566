//! A client that sends bytes as they are and reads what comes as strictly as the worker does.

use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::message::{self, Response};
use super::split::Split;
use super::{PATIENCE, latin1};

pub(crate) struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    pub(crate) has_ended: bool,
    /// Nothing more can be sent.
    is_deaf: bool,
    deadline: Instant,
}

/// What a client makes of the bytes it got.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    pub(crate) responses: Vec<Response>,
    /// Bytes after the last whole response.
    pub(crate) rest: String,
    pub(crate) fault: Option<String>,
}

impl Reading {
    pub(crate) fn finals(&self) -> impl Iterator<Item = &Response> {
        self.responses.iter().filter(|response| !response.is_interim())
    }
}

impl Client {
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).expect("it listens");
        stream.set_nodelay(true).expect("a socket option");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket option");
        let deadline = Instant::now() + PATIENCE;
        Self { stream, received: Vec::new(), has_ended: false, is_deaf: false, deadline }
    }

    /// The address the load balancer sees.
    pub(crate) fn ip(&self) -> IpAddr {
        self.stream.local_addr().expect("connected").ip()
    }

    /// Sends unless the other side has closed already, which the reading will show.
    pub(crate) fn send(&mut self, bytes: &[u8], split: Split) {
        if !self.is_deaf {
            self.is_deaf = split.write(&self.stream, bytes).is_err();
        }
    }

    pub(crate) fn finish(&mut self) {
        // A connection that has ended already is as good.
        drop(self.stream.shutdown(Shutdown::Write));
    }

    pub(crate) fn received(&self) -> String {
        latin1(&self.received)
    }

    /// Reads until `is_enough`, the end or the deadline. `methods` are those of the requests sent.
    pub(crate) fn read(&mut self, methods: &[String], is_enough: impl Fn(&Reading) -> bool) -> Reading {
        self.read_until(self.deadline, methods, is_enough)
    }

    /// Reads what comes within `patience`.
    pub(crate) fn read_for(&mut self, patience: Duration, methods: &[String]) -> Reading {
        self.read_until(Instant::now() + patience, methods, |_| false)
    }

    fn read_until(
        &mut self,
        deadline: Instant,
        methods: &[String],
        is_enough: impl Fn(&Reading) -> bool,
    ) -> Reading {
        let mut piece = vec![0; 64 * 1024];
        loop {
            let reading = self.reading(methods);
            if self.has_ended || reading.fault.is_some() || is_enough(&reading) {
                return reading;
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
            else {
                return reading;
            };
            self.stream.set_read_timeout(Some(left)).expect("a socket option");
            match self.stream.read(&mut piece) {
                Ok(0) => self.has_ended = true,
                Ok(read) => self.received.extend_from_slice(&piece[..read]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => self.has_ended = true,
            }
        }
    }

    fn reading(&self, methods: &[String]) -> Reading {
        let mut reading = Reading::default();
        let mut methods = methods.iter();
        let mut method = methods.next();
        let mut at = 0;
        while at < self.received.len() {
            let asked = method.map_or("GET", String::as_str);
            match message::response(&self.received[at..], asked, self.has_ended) {
                Ok(None) => break,
                Err(fault) => {
                    reading.fault = Some(fault);
                    break;
                }
                Ok(Some((mut response, length))) => {
                    at += length;
                    if !response.is_interim() {
                        method = methods.next();
                    }
                    let is_tunnel = response.status == 101;
                    if is_tunnel {
                        response.body.content = latin1(&self.received[at..]);
                        at = self.received.len();
                    }
                    reading.responses.push(response);
                }
            }
        }
        reading.rest = latin1(&self.received[at..]);
        reading
    }
}
