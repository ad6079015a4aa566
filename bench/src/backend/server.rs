//! The event loop: new connections, their events, and answers whose pause is over.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use super::connection::{Connection, Delay, Next};

const LISTENER: Token = Token(usize::MAX);
/// Larger than a proxy's pieces of a request body.
const BUFFER: usize = 128 * 1024;

/// Serves until the process is killed. Each answer waits for `pause` first; checks are answered at
/// once.
pub fn serve(addr: SocketAddr, pause: Duration) -> io::Result<Infallible> {
    let mut listener = TcpListener::bind(addr)?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut server = Server {
        listener,
        connections: Slab::new(),
        serial: 0,
        pause,
        pauses: VecDeque::new(),
        buffer: vec![0; BUFFER],
    };
    let mut events = Events::with_capacity(1024);
    loop {
        match poll.poll(&mut events, server.next_answer()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            server.handle(event, &poll)?;
        }
        server.end_pauses();
    }
}

struct Server {
    listener: TcpListener,
    connections: Slab<(u64, Connection)>,
    /// Numbers connections, because slots are reused.
    serial: u64,
    pause: Duration,
    /// Waiting answers, in the order of their times.
    pauses: VecDeque<(Instant, usize, u64)>,
    buffer: Vec<u8>,
}

impl Server {
    fn delay(&self) -> Delay {
        if self.pause.is_zero() { Delay::None } else { Delay::Some }
    }

    fn next_answer(&self) -> Option<Duration> {
        self.pauses.front().map(|(until, ..)| until.saturating_duration_since(Instant::now()))
    }

    fn handle(&mut self, event: &Event, poll: &Poll) -> io::Result<()> {
        if event.token() == LISTENER {
            return self.accept(poll);
        }
        let delay = self.delay();
        let index = event.token().0;
        if let Some((_, connection)) = self.connections.get_mut(index) {
            let next = connection.advance(&mut self.buffer, delay, event.is_read_closed());
            self.after(index, next);
        }
        Ok(())
    }

    fn accept(&mut self, poll: &Poll) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // The client disconnected before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true).ok();
            let slot = self.connections.vacant_entry();
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut stream, Token(slot.key()), interest)?;
            self.serial += 1;
            slot.insert((self.serial, Connection::new(stream)));
        }
    }

    fn after(&mut self, index: usize, next: Next) {
        match next {
            Next::Wait => {}
            Next::Pause => {
                let serial = self.connections.get(index).map_or(0, |(serial, _)| *serial);
                self.pauses.push_back((Instant::now() + self.pause, index, serial));
            }
            Next::Close => {
                self.connections.try_remove(index);
            }
        }
    }

    fn end_pauses(&mut self) {
        let now = Instant::now();
        while let Some((until, index, serial)) = self.pauses.front().copied()
            && until <= now
        {
            self.pauses.pop_front();
            let delay = self.delay();
            let same = self.connections.get_mut(index).filter(|(number, _)| *number == serial);
            if let Some((_, connection)) = same {
                let next = connection.resume(&mut self.buffer, delay);
                self.after(index, next);
            }
        }
    }
}
