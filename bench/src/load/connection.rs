//! One client: the request that it has sent, and the part of the answer that it has seen.

use std::io;
use std::time::Instant;

use super::method::Method;
use super::report::Failure;
use super::request::Requests;
use super::transport::Transport;
use crate::wire::body::Body;
use crate::wire::{self, Malformed};

pub struct Connection {
    transport: Transport,
    pub state: State,
}

pub enum State {
    Idle,
    Busy(Exchange),
    /// Answered; now the other side must close it.
    Ending(Instant),
}

pub struct Exchange {
    pub method: Method,
    /// When it was due, and when it was begun.
    pub due: Instant,
    pub begun: Instant,
    /// Bytes of the request that were sent.
    sent: usize,
    answer: Progress,
}

enum Progress {
    /// Earlier pieces of a head.
    Head(Vec<u8>),
    Body {
        status: u16,
        body: Body,
        content: u64,
        is_last: bool,
    },
}

/// The outcome of an event.
#[derive(Debug)]
pub enum Turn {
    /// Nothing to do until the next event.
    Pending,
    /// The exchange is complete and correct.
    Answered(After),
    Failed(Failure),
    /// The other side closed it with no request open.
    Closed,
}

/// The use of a connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Reuse,
    /// The other side will close it.
    Await,
    /// This side closes it.
    Drop,
}

impl Connection {
    pub fn new(transport: Transport) -> Self {
        Self { transport, state: State::Idle }
    }

    pub fn ask(&mut self, method: Method, due: Instant) {
        let answer = Progress::Head(Vec::new());
        self.state = State::Busy(Exchange { method, due, begun: Instant::now(), sent: 0, answer });
    }

    /// Writes all pending bytes. Must be called after `ask`, and by `advance`.
    pub fn write(&mut self, requests: &Requests) -> Turn {
        let State::Busy(exchange) = &mut self.state else {
            self.transport.flush().ok();
            return Turn::Pending;
        };
        let bytes = &requests.of_method(exchange.method).bytes;
        let written = loop {
            let Some(rest) = bytes.get(exchange.sent..).filter(|rest| !rest.is_empty()) else {
                break self.transport.flush();
            };
            match self.transport.write(rest) {
                Ok(taken) => exchange.sent += taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break self.transport.flush(),
                Err(error) => break Err(error),
            }
        };
        match written {
            Ok(()) => Turn::Pending,
            // It may have answered before it closed; only a refusal is certain.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Turn::Failed(Failure::Refused),
            Err(_) => Turn::Pending,
        }
    }

    /// Continues after an event.
    pub fn advance(&mut self, requests: &Requests, buffer: &mut [u8], is_read_closed: bool) -> Turn {
        if let failed @ Turn::Failed(_) = self.write(requests) {
            return failed;
        }
        loop {
            let (end, size) = match self.transport.read(buffer) {
                Ok(0) => (End::Whole, 0),
                Ok(size) => (End::None, size),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Turn::Pending,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => (End::Refused, 0),
                Err(_) => (End::Broken, 0),
            };
            if end != End::None {
                return self.ended(end, requests);
            }
            let State::Busy(exchange) = &mut self.state else {
                // Unexpected bytes: the connection will not be used again.
                return Turn::Closed;
            };
            match exchange.take(buffer.get(..size).unwrap_or_default()) {
                Ok(false) => {}
                Ok(true) => return self.answered(requests, is_read_closed),
                Err(Malformed) => return Turn::Failed(Failure::Malformed),
            }
            // More bytes, or the end, are another event.
            if size < buffer.len() && self.transport.short_read_is_last() && !is_read_closed {
                return Turn::Pending;
            }
        }
    }

    fn answered(&mut self, requests: &Requests, is_closed: bool) -> Turn {
        let State::Busy(exchange) = std::mem::replace(&mut self.state, State::Idle) else {
            return Turn::Closed;
        };
        let Progress::Body { status, content, is_last, .. } = exchange.answer else {
            return Turn::Failed(Failure::Malformed);
        };
        let request = requests.of_method(exchange.method);
        match request.check(status, content) {
            Ok(()) => {
                let is_sent = exchange.sent == request.bytes.len();
                Turn::Answered(match (is_closed, is_sent && !is_last) {
                    (true, _) => After::Drop,
                    (false, true) => After::Reuse,
                    (false, false) => After::Await,
                })
            }
            Err(failure) => Turn::Failed(failure),
        }
    }

    fn ended(&mut self, end: End, requests: &Requests) -> Turn {
        let State::Busy(exchange) = &mut self.state else { return Turn::Closed };
        match &exchange.answer {
            Progress::Head(seen) if seen.is_empty() => match end {
                End::Refused => Turn::Failed(Failure::Refused),
                End::None | End::Whole | End::Broken => Turn::Failed(Failure::Reset),
            },
            Progress::Body { body: Body::UntilEnd, .. } if end == End::Whole => self.answered(requests, true),
            Progress::Head(_) | Progress::Body { .. } => Turn::Failed(Failure::Truncated),
        }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    None,
    Whole,
    Broken,
    Refused,
}

impl Exchange {
    /// Takes bytes of an answer; returns whether it is complete.
    fn take(&mut self, bytes: &[u8]) -> Result<bool, Malformed> {
        match &mut self.answer {
            Progress::Head(before) if before.is_empty() => {
                let Some(used) = self.head(bytes)? else {
                    self.answer = Progress::Head(bytes.to_vec());
                    return Ok(false);
                };
                self.body(bytes.get(used..).unwrap_or_default())
            }
            Progress::Head(before) => {
                let mut all = std::mem::take(before);
                all.extend_from_slice(bytes);
                self.take(&all)
            }
            Progress::Body { .. } => self.body(bytes),
        }
    }

    /// Returns how many of the bytes were the head, if it is complete; informational heads are skipped.
    fn head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut used = 0;
        loop {
            let Some(head) = wire::response(bytes.get(used..).unwrap_or_default())? else { return Ok(None) };
            used += head.length;
            if head.status >= 200 {
                let (status, body, is_last) = (head.status, head.body, head.is_last);
                self.answer = Progress::Body { status, body, content: 0, is_last };
                return Ok(Some(used));
            }
        }
    }

    fn body(&mut self, bytes: &[u8]) -> Result<bool, Malformed> {
        let Progress::Body { body, content, .. } = &mut self.answer else { return Err(Malformed) };
        let taken = body.take(bytes)?;
        *content += taken.content;
        // Nothing may follow: the next request was not sent yet.
        if taken.bytes < bytes.len() { Err(Malformed) } else { Ok(body.is_done()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange() -> Exchange {
        let now = Instant::now();
        let answer = Progress::Head(Vec::new());
        Exchange { method: Method::Get, due: now, begun: now, sent: 0, answer }
    }

    #[test]
    fn an_answer_may_come_in_any_pieces() {
        let text =
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        for cut in 1..text.len() {
            let mut exchange = exchange();
            assert_eq!(exchange.take(&text[..cut]), Ok(false), "cut at {cut}");
            assert_eq!(exchange.take(&text[cut..]), Ok(true), "cut at {cut}");
            let Progress::Body { status, content, .. } = exchange.answer else { panic!("no body") };
            assert_eq!((status, content), (200, 5));
        }
    }

    #[test]
    fn nothing_may_follow_an_answer() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello!";
        assert_eq!(exchange().take(text), Err(Malformed));
    }
}
