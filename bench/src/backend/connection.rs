//! One connection of a worker: a request, perhaps a pause, an answer, and so on.

use std::io::{self, Read as _};

use mio::net::TcpStream;

use super::reply::{self, Reply};
use crate::wire;
use crate::wire::body::Body;

pub struct Connection {
    stream: TcpStream,
    /// Earlier pieces of a head, or bytes after a request.
    before: Vec<u8>,
    state: State,
    /// The ordinary answer, reused for every request.
    small: Reply,
    /// The request said that it is the last one.
    is_last: bool,
    /// Bytes may have arrived while the connection was not read.
    is_readable: bool,
    /// The other side has sent its last byte.
    is_ended: bool,
}

enum State {
    Head,
    Body(Body),
    Pause { content: u64 },
    Small,
    Large(Reply),
}

/// The next step of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Wait,
    /// An answer is due after a pause.
    Pause,
    Close,
}

/// Whether answers are sent at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delay {
    None,
    Some,
}

impl Connection {
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            before: Vec::new(),
            state: State::Head,
            small: Reply::new(reply::SMALL),
            is_last: false,
            is_readable: true,
            is_ended: false,
        }
    }

    /// Handles an event. A broken connection is closed, whichever side broke it.
    pub fn advance(&mut self, buffer: &mut [u8], delay: Delay, is_read_closed: bool) -> Next {
        self.is_readable = true;
        self.is_ended |= is_read_closed;
        self.go_on(buffer, delay).unwrap_or(Next::Close)
    }

    /// Continues after the pause.
    pub fn resume(&mut self, buffer: &mut [u8], delay: Delay) -> Next {
        if let State::Pause { content } = self.state {
            self.answer(content);
        }
        self.go_on(buffer, delay).unwrap_or(Next::Close)
    }

    fn go_on(&mut self, buffer: &mut [u8], delay: Delay) -> io::Result<Next> {
        loop {
            match &mut self.state {
                State::Pause { .. } => return Ok(Next::Wait),
                State::Small | State::Large(_) => {
                    let is_written = match &mut self.state {
                        State::Large(reply) => reply.write(&mut self.stream)?,
                        _ => self.small.write(&mut self.stream)?,
                    };
                    if !is_written {
                        return Ok(Next::Wait);
                    }
                    if self.is_last {
                        return Ok(Next::Close);
                    }
                    self.state = State::Head;
                }
                State::Head | State::Body(_) => {
                    let before = std::mem::take(&mut self.before);
                    if !before.is_empty() && self.take(&before, delay)? {
                        return Ok(Next::Pause);
                    }
                    if !matches!(self.state, State::Head | State::Body(_)) {
                        continue;
                    }
                    if !self.is_readable {
                        return Ok(Next::Wait);
                    }
                    let size = match self.stream.read(buffer) {
                        Ok(0) => return Ok(Next::Close),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            self.is_readable = false;
                            return Ok(Next::Wait);
                        }
                        read => read?,
                    };
                    // A short read has emptied the socket; later bytes are another event.
                    self.is_readable = size == buffer.len() || self.is_ended;
                    if self.take(buffer.get(..size).unwrap_or_default(), delay)? {
                        return Ok(Next::Pause);
                    }
                }
            }
        }
    }

    /// Takes bytes of a request; returns whether a pause begins.
    fn take(&mut self, bytes: &[u8], delay: Delay) -> io::Result<bool> {
        let joined;
        let mut bytes = bytes;
        if !self.before.is_empty() {
            self.before.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.before);
            bytes = &joined;
        }
        if matches!(self.state, State::Head) {
            let Some(head) = wire::request(bytes).map_err(malformed)? else {
                self.before = bytes.to_vec();
                return Ok(false);
            };
            self.is_last = head.is_last;
            let content = if head.body.is_done() { reply::length(head.path) } else { reply::SMALL };
            let is_check = head.path == b"/healthcheck";
            bytes = bytes.get(head.length..).unwrap_or_default();
            if head.body.is_done() {
                self.before = bytes.to_vec();
                return Ok(self.begin(content, if is_check { Delay::None } else { delay }));
            }
            self.state = State::Body(head.body);
        }
        let State::Body(body) = &mut self.state else { return Ok(false) };
        let taken = body.take(bytes).map_err(malformed)?;
        if !body.is_done() {
            return Ok(false);
        }
        self.before = bytes.get(taken.bytes..).unwrap_or_default().to_vec();
        Ok(self.begin(reply::SMALL, delay))
    }

    fn begin(&mut self, content: u64, delay: Delay) -> bool {
        match delay {
            Delay::None => self.answer(content),
            Delay::Some => self.state = State::Pause { content },
        }
        delay == Delay::Some
    }

    fn answer(&mut self, content: u64) {
        if content == reply::SMALL {
            self.small.restart(content);
            self.state = State::Small;
        } else {
            self.state = State::Large(Reply::new(content));
        }
    }
}

fn malformed(_: wire::Malformed) -> io::Error {
    io::ErrorKind::InvalidData.into()
}
