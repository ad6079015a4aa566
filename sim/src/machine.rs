//! An instance as it truly is: what EC2 knows of it, and how its program does.
//!
//! Everything that time changes by itself (a boot, a restart, the end of a hang) is a function of
//! the time, not an event: a machine that is never probed costs nothing.

use std::net::{IpAddr, Ipv4Addr};

use fleet::WorkerId;
use jiff::Timestamp;
use planner::observation::{Instance, Probe, Role, State};

use crate::clock::{Millis, NEVER, SECOND};

/// EC2 shows an instance this long after its end.
const SHOWN_AFTER_END: Millis = 3_600 * SECOND;

/// From the end of a program that crashes until systemd has started it again.
const DOWN: Millis = 300;

/// What ails a program, until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ailment {
    /// No program listens: the kernel refuses.
    Refuses,
    /// It holds the connection and says nothing.
    Hangs,
    /// Silent and well in turns of this length.
    Flaps(Millis),
    /// A load balancer that cannot read the registry answers its health check with 503.
    Unready,
}

pub struct Machine {
    /// What EC2 shows: state, and address where it is known, are filled in at the time.
    pub row: Instance,
    /// Index of the zone.
    pub zone: usize,
    pub token: String,
    /// Whether the stack's tags are on it, and it came about without us.
    pub is_orphan: bool,
    pub launched: Millis,
    /// When the memory was written that intends its launch.
    pub intended: Millis,
    /// EC2's listing leaves it out until then.
    pub visible_from: Millis,
    runs_from: Millis,
    /// When the kernel answers for the first time, and the program.
    net_from: Millis,
    serves_from: Millis,
    ailment: Option<(Ailment, Millis)>,
    crashing: Option<Crashing>,
    /// When the program was started again after it had refused.
    restarts: Vec<Millis>,
    is_host_dead: bool,
    ended: Option<(State, Millis)>,
    gone_from: Millis,
    /// It may spend only the CPU credits that it earns.
    pub is_capped: bool,
    /// How often this was asked for since.
    pub asked_again: u32,
    /// What reconciler and probes learned, as the simulator saw it.
    pub record: Record,
}

/// What probes heard of a machine.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Rounds of probes without an answer in a row: their times and their results.
    pub failures: Vec<(Millis, Probe)>,
    /// It was in a registry: it had traffic.
    pub was_published: bool,
    /// It was on its way out once; it may have been taken back when its slot had another.
    pub was_leaving: bool,
    /// When a listing showed it last to a memory that was written.
    pub shown: Millis,
    /// Memory forgot it when it had not been shown for long.
    pub was_given_up: bool,
}

impl Machine {
    #[expect(clippy::too_many_arguments, reason = "the parts of an instance")]
    pub fn new(
        number: u32,
        role: Role,
        zone: usize,
        subnet: &str,
        tags: (Option<u32>, Option<u32>, &str),
        token: String,
        launched: Millis,
        boot: Boot,
    ) -> Self {
        let [_, _, high, low] = number.to_be_bytes();
        #[expect(clippy::cast_possible_truncation, reason = "there are two or three zones")]
        let address = IpAddr::V4(Ipv4Addr::new(10, zone as u8, high, low));
        let row = Instance {
            id: format!("i-{number:017x}").parse::<WorkerId>().expect("hexadecimal"),
            role,
            state: State::Pending,
            address: Some(address),
            subnet: subnet.to_owned(),
            zone: zone_name(zone).to_owned(),
            slot: tags.0,
            attempt: tags.1,
            release: tags.2.to_owned(),
            // EC2 gives whole seconds.
            launched: Some(
                Timestamp::from_second(crate::clock::timestamp(launched).as_second()).expect("a time"),
            ),
        };
        Self {
            row,
            zone,
            token,
            is_orphan: false,
            launched,
            intended: launched,
            visible_from: launched,
            runs_from: launched + boot.pending,
            net_from: launched + boot.pending + boot.network,
            serves_from: boot.serves.map_or(NEVER, |after| launched + after),
            ailment: boot.ailment.map(|ailment| (ailment, NEVER)),
            crashing: None,
            restarts: Vec::new(),
            is_host_dead: false,
            ended: None,
            gone_from: NEVER,
            is_capped: false,
            asked_again: 0,
            record: Record::default(),
        }
    }

    pub fn state(&self, now: Millis) -> State {
        match self.ended {
            Some((State::Stopped, _)) => State::Stopped,
            Some((_, at)) if now >= at => State::Terminated,
            Some(_) => State::ShuttingDown,
            None if now >= self.runs_from => State::Running,
            None => State::Pending,
        }
    }

    pub fn is_live(&self) -> bool {
        self.ended.is_none()
    }

    /// EC2 has forgotten it.
    pub fn is_forgotten(&self, now: Millis) -> bool {
        now >= self.gone_from
    }

    /// Ends it: the program at once, EC2's books when `after` has passed.
    pub fn end(&mut self, state: State, now: Millis, after: Millis) {
        if self.ended.is_none_or(|(ended, _)| ended == State::Stopped) {
            self.ended = Some((state, now + after));
            if state == State::Terminated {
                self.gone_from = now + SHOWN_AFTER_END;
            }
        }
    }

    pub fn ail(&mut self, ailment: Ailment, until: Millis) {
        self.ailment = Some((ailment, until));
        if ailment == Ailment::Refuses && until != NEVER {
            self.restarts.push(until);
        }
    }

    /// From now on the program crashes each time that it has run for so long. If its definition is the cause,
    /// nothing ends that.
    pub fn crash(&mut self, every: Millis, from: Millis, until: Millis) {
        if self.crashing.is_some_and(|crashing| crashing.until == NEVER) {
            return;
        }
        let before = self.crashing.into_iter().flat_map(|crashing| crashing.starts(from));
        self.restarts.extend(before);
        self.crashing = Some(Crashing { every, from, until });
    }

    /// Whether the program crashes over and over.
    pub fn keeps_crashing(&self, now: Millis) -> bool {
        self.crashing.is_some_and(|crashing| crashing.from <= now && now < crashing.until)
    }

    /// The latest starts of the program, the last one first.
    pub fn starts(&self, now: Millis) -> impl Iterator<Item = Millis> {
        let crashes = self.crashing.into_iter().flat_map(move |crashing| crashing.starts(now));
        let starts = crashes.chain(self.restarts.iter().copied()).chain([self.serves_from]);
        let mut starts: Vec<Millis> = starts.filter(|at| *at <= now).collect();
        starts.sort_unstable();
        starts.into_iter().rev()
    }

    pub fn kill_host(&mut self) {
        self.is_host_dead = true;
    }

    /// Nothing that ends by itself lasts longer than this.
    pub fn end_passing_ailment(&mut self, now: Millis) {
        if let Some((ailment, until)) = self.ailment
            && (until != NEVER || matches!(ailment, Ailment::Flaps(_)))
        {
            self.ailment = Some((ailment, until.min(now)));
        }
        if let Some(crashing) = self.crashing.as_mut().filter(|crashing| crashing.until != NEVER) {
            crashing.until = crashing.until.min(now);
        }
        self.restarts.iter_mut().for_each(|at| *at = (*at).min(now));
    }

    /// What one knock at its port hears, if the network is well.
    pub fn knock(&self, now: Millis) -> Probe {
        if self.ended.is_some() || self.is_host_dead || now < self.net_from {
            return Probe::Silent;
        }
        match self.ailment {
            Some((Ailment::Refuses, until)) if now < until => Probe::Refused,
            // The prober takes an answer that is no success for none.
            Some((Ailment::Hangs | Ailment::Unready, until)) if now < until => Probe::Silent,
            Some((Ailment::Flaps(turn), until)) if now < until && (now / turn) % 2 == 0 => Probe::Silent,
            _ if now < self.serves_from => Probe::Refused,
            _ if self.crashing.is_some_and(|crashing| crashing.is_down(now)) => Probe::Refused,
            _ => Probe::Answered,
        }
    }

    /// Whether it serves, reachable or not.
    pub fn is_up(&self, now: Millis) -> bool {
        self.knock(now) == Probe::Answered
    }

    pub fn serves_from(&self) -> Millis {
        self.serves_from
    }
}

/// A program that crashes, and that systemd starts again at once.
#[derive(Clone, Copy, Debug)]
struct Crashing {
    every: Millis,
    from: Millis,
    until: Millis,
}

impl Crashing {
    fn is_down(self, now: Millis) -> bool {
        (self.from..self.until).contains(&now) && (now - self.from) % self.every < DOWN
    }

    /// The latest starts: a few, because the reconciler judges by three.
    fn starts(self, now: Millis) -> impl Iterator<Item = Millis> {
        let last = now.min(self.until - 1) - DOWN;
        let number = if last < self.from { 0 } else { 1 + (last - self.from) / self.every };
        (0..number).rev().take(5).map(move |n| self.from + n * self.every + DOWN)
    }
}

/// How a boot goes, in milliseconds after the launch.
#[derive(Clone, Copy, Debug)]
pub struct Boot {
    pub pending: Millis,
    pub network: Millis,
    /// `None`: never.
    pub serves: Option<Millis>,
    pub ailment: Option<Ailment>,
}

pub fn zone_name(zone: usize) -> &'static str {
    ["eu-west-1a", "eu-west-1b", "eu-west-1c"][zone]
}

pub fn subnet_name(zone: usize) -> &'static str {
    ["subnet-a", "subnet-b", "subnet-c"][zone]
}
