//! All hostile clients.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use mio::{Events, Poll, Token};

use super::client::{Client, Kind};
use crate::table::line;

#[derive(Args, Clone, Debug)]
pub struct Crowd {
    #[arg(long)]
    pub target: SocketAddr,
    /// Clients that make one request, then stay connected.
    #[arg(long, default_value_t = 5000)]
    pub idle: usize,
    /// Clients whose heads arrive a byte a second.
    #[arg(long, default_value_t = 2500)]
    pub slow_heads: usize,
    /// Clients whose bodies arrive a byte a second.
    #[arg(long, default_value_t = 2000)]
    pub slow_bodies: usize,
    /// Clients that do not read a response of 16 MiB.
    #[arg(long, default_value_t = 500)]
    pub deaf: usize,
}

const TICK: Duration = Duration::from_millis(10);
/// Connections begun in a tick: more would overflow a backlog, which slow clients do not do.
const OPENED_AT_ONCE: usize = 20;

impl Crowd {
    fn kinds(&self) -> Vec<Kind> {
        let groups = [
            (Kind::Idle, self.idle),
            (Kind::SlowHead, self.slow_heads),
            (Kind::SlowBody, self.slow_bodies),
            (Kind::Deaf, self.deaf),
        ];
        groups.iter().flat_map(|(kind, count)| std::iter::repeat_n(*kind, *count)).collect()
    }
}

/// Attacks until standard input ends. Prints each second how many connections are open and how often the
/// other side closed one.
pub fn run(crowd: &Crowd) -> anyhow::Result<()> {
    let is_over = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&is_over);
    std::thread::spawn(move || {
        io::copy(&mut io::stdin(), &mut io::sink()).ok();
        end.store(true, Ordering::Relaxed);
    });
    let mut attack = Attack::new(crowd)?;
    let mut events = Events::with_capacity(4096);
    let mut last_tick = Instant::now();
    let mut last_word = last_tick;
    while !is_over.load(Ordering::Relaxed) {
        match attack.poll.poll(&mut events, Some(TICK)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            attack.wake(event.token().0, event.is_read_closed() || event.is_error());
        }
        if last_tick.elapsed() >= TICK {
            let elapsed = std::mem::replace(&mut last_tick, Instant::now()).elapsed();
            attack.tick(elapsed);
        }
        if last_word.elapsed() >= Duration::from_secs(1) {
            last_word = Instant::now();
            line(&attack.word());
        }
    }
    Ok(())
}

struct Attack {
    target: SocketAddr,
    poll: Poll,
    kinds: Vec<Kind>,
    clients: Vec<Option<Client>>,
    /// Clients that have still to connect.
    outside: VecDeque<usize>,
    /// The next client to send a byte.
    next: usize,
    turned_away: u64,
    buffer: Vec<u8>,
}

impl Attack {
    fn new(crowd: &Crowd) -> io::Result<Self> {
        let kinds = crowd.kinds();
        let mut outside: Vec<usize> = (0..kinds.len()).collect();
        fastrand::shuffle(&mut outside);
        Ok(Self {
            target: crowd.target,
            poll: Poll::new()?,
            clients: kinds.iter().map(|_| None).collect(),
            kinds,
            outside: outside.into(),
            next: 0,
            turned_away: 0,
            buffer: vec![0; 16 * 1024],
        })
    }

    fn wake(&mut self, index: usize, is_closed: bool) {
        let Some(Some(client)) = self.clients.get_mut(index) else { return };
        let is_fine = client.greet().is_ok() && client.hear(&mut self.buffer, is_closed);
        if !is_fine {
            self.lose(index);
        }
    }

    fn lose(&mut self, index: usize) {
        if let Some(slot) = self.clients.get_mut(index) {
            *slot = None;
        }
        self.turned_away += 1;
        self.outside.push_back(index);
    }

    fn tick(&mut self, elapsed: Duration) {
        for _ in 0..OPENED_AT_ONCE.min(self.outside.len()) {
            let Some(index) = self.outside.pop_front() else { break };
            let kind = self.kinds.get(index).copied().unwrap_or(Kind::Idle);
            match Client::open(kind, self.target, self.poll.registry(), Token(index)) {
                Ok(client) => {
                    if let Some(slot) = self.clients.get_mut(index) {
                        *slot = Some(client);
                    }
                }
                Err(_) => self.outside.push_back(index),
            }
        }
        // Each client has its turn once a second.
        let all = self.clients.len();
        let turns = (elapsed.as_micros() * all as u128 / 1_000_000).min(all as u128);
        for _ in 0..turns {
            let index = self.next;
            self.next = (self.next + 1) % all.max(1);
            let Some(Some(client)) = self.clients.get_mut(index) else { continue };
            if client.drip().is_err() {
                self.lose(index);
            }
        }
    }

    fn word(&self) -> String {
        let open = self.clients.iter().flatten().filter(|client| client.is_greeted).count();
        format!("{open} open, {} turned away", self.turned_away)
    }
}
