//! What can go wrong, and whether it does now.
//!
//! Each kind has its own stream of random numbers, so that leaving one fault out changes as little
//! as possible of the rest: that is what makes a failing seed shrink.

use std::collections::BTreeSet;
use std::fmt;

use fastrand::Rng;

macro_rules! kinds {
    ($($kind:ident $name:literal $class:ident $rate:literal),* $(,)?) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $($kind),* }

        impl Kind {
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name),* }
            }

            const fn class(self) -> Class {
                match self { $(Self::$kind => Class::$class),* }
            }

            /// How often, while the kind is switched on: of 1,000 opportunities for a `Reply`, per
            /// hour for an `Event`.
            const fn rate(self) -> u32 {
                match self { $(Self::$kind => $rate),* }
            }
        }
    };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Happens to a call, an invocation or an instance at the moment it comes about.
    Reply,
    /// Happens by itself, now and then.
    Event,
}

kinds! {
    // --- Machines ---
    Restart "program restarts" Event 6,
    ProgramDead "program dead" Event 4,
    Hang "program hangs" Event 4,
    HostDead "host dead" Event 4,
    Flap "worker flaps" Event 2,
    Terminated "terminated by a person" Event 3,
    Stopped "stopped by a person" Event 2,
    Orphan "stranger with our tags" Event 1,
    BootFails "boot fails" Reply 150,
    BootSlow "boot slow" Reply 150,
    Overload "overload" Event 2,
    // --- Network ---
    CutAll "prober cut off from all" Event 2,
    CutZone "prober cut off from a zone" Event 2,
    CutOne "prober cut off from one" Event 4,
    PacketLost "probe lost" Reply 30,
    ZoneOutage "zone outage" Event 1,
    // --- EC2's API ---
    DescribeFails "listing fails" Reply 50,
    DescribeEmpty "listing empty" Reply 10,
    RowMissing "row missing" Reply 10,
    AddressMissing "address missing" Reply 20,
    StateStale "state stale" Reply 300,
    VisibleLate "instance visible late" Reply 200,
    LaunchReplyLost "launch done, reply lost" Reply 100,
    LaunchLost "launch not done, no reply" Reply 50,
    LaunchLate "launch done after its time-out" Reply 50,
    LaunchTwice "launch delivered twice" Reply 100,
    TokenMismatch "token mismatch" Reply 20,
    Throttle "EC2 throttles" Event 3,
    NoCapacity "no capacity in a zone" Event 3,
    QuotaFull "no capacity anywhere" Event 1,
    TerminateReplyLost "termination done, reply lost" Reply 50,
    TerminateLost "termination not done" Reply 50,
    TerminateLate "termination late" Reply 30,
    AssociateFails "address does not move" Reply 100,
    AssociateReplyLost "address moved, reply lost" Reply 50,
    AddressFails "address not told" Reply 20,
    AddressTaken "address taken away by hand" Event 1,
    // --- The function ---
    InvocationMissed "invocation missed" Reply 50,
    InvocationLate "invocation late" Reply 100,
    InvocationTwice "invocation twice" Reply 100,
    InvocationSlow "invocation slow" Reply 50,
    InvocationKilled "killed between two effects" Reply 4,
    ClockSkew "clock skew" Reply 50,
    // --- S3 ---
    ReadFails "read fails" Reply 5,
    WriteReplyLost "write done, reply lost" Reply 10,
    WriteMetItself "write done, repeated and refused" Reply 10,
    WriteConflict "write refused for nothing" Reply 5,
    WriteLost "write not done, no reply" Reply 5,
    WriteLate "write done after its time-out" Reply 5,
    S3Outage "S3 outage" Event 1,
    RegistryFails "registry not read or written" Reply 10,
    MemoryDeleted "memory deleted" Event 1,
    MemoryGarbage "memory overwritten with garbage" Event 1,
    ReleaseFails "release not read" Reply 10,
    // --- People ---
    DesiredChanged "desired count changed" Event 4,
    DesiredGarbage "desired count garbage" Event 2,
    DesiredFails "desired count not read" Reply 10,
    Deployed "release deployed" Event 2,
    BadRelease "bad release deployed" Event 1,
    // --- The account; last, so that the others keep their streams ---
    AccountLimit "account limit lowered" Event 2,
    Unverified "account not verified" Event 1,
    CapFails "credits not capped" Reply 200,
    CapReplyLost "credits capped, reply lost" Reply 50,
    // --- Later ones, for the same reason at the end ---
    ImageGone "image of the release deleted" Event 1,
    RefusedRelease "release that EC2 refuses deployed" Event 1,
    TypeNotOffered "type not offered in a zone" Event 1,
    TypeNowhere "type not offered anywhere" Event 1,
    TypeFull "no capacity for the type anywhere" Event 2,
    LaunchDenied "launch not permitted" Event 1,
    RegistryDeleted "registry deleted" Event 1,
    AllDeleted "memory and registry deleted" Event 1,
    Unready "load balancer answers 503" Event 4,
    StoppedBalancer "load balancer stopped" Event 2,
    LongOutage "zone outage of minutes" Event 2,
    AllDead "all workers dead, and all that boot" Event 1,
    CrashLoop "load balancer keeps crashing" Event 4,
    CrashingRelease "load balancer that crashes deployed" Event 1,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The n-th time that a kind struck in a run.
pub type Strike = (Kind, u32);

/// The faults of one run.
pub struct Faults {
    streams: Vec<Rng>,
    /// Chance per opportunity or per hour; zero for kinds that are off in this storm.
    rates: Vec<f64>,
    pub counts: Vec<u32>,
    /// Strikes that are left out, to see whether the run fails without them.
    suppressed: BTreeSet<Strike>,
    pub struck: Vec<Strike>,
}

impl Faults {
    pub fn new(seed: u64, suppressed: BTreeSet<Strike>) -> Self {
        let stream =
            |kind: usize| Rng::with_seed(seed ^ (kind as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self {
            streams: (0..Kind::ALL.len()).map(stream).collect(),
            rates: vec![0.0; Kind::ALL.len()],
            counts: vec![0; Kind::ALL.len()],
            suppressed,
            struck: Vec::new(),
        }
    }

    /// A storm: some kinds, some often and some seldom. Seeds differ most in what does not happen.
    pub fn storm(&mut self, rng: &mut Rng) {
        let share = [0.05, 0.15, 0.3, 0.5][rng.usize(0..4)];
        for kind in Kind::ALL {
            let is_on = rng.f64() < share;
            let intensity = [0.3, 1.0, 1.0, 3.0][rng.usize(0..4)];
            let base = match kind.class() {
                Class::Reply => f64::from(kind.rate()) / 1000.0,
                Class::Event => f64::from(kind.rate()),
            };
            self.rates[*kind as usize] = if is_on { base * intensity } else { 0.0 };
        }
    }

    /// Events of a kind, per hour, whether the storm has them or not.
    pub fn insist(&mut self, kind: Kind, per_hour: f64) {
        self.rates[kind as usize] = per_hour;
    }

    pub fn calm(&mut self) {
        self.rates.fill(0.0);
    }

    /// Whether this fault happens at this opportunity.
    pub fn strikes(&mut self, kind: Kind) -> bool {
        let rate = self.rates[kind as usize];
        if rate == 0.0 || self.streams[kind as usize].f64() >= rate {
            return false;
        }
        self.strike(kind)
    }

    fn strike(&mut self, kind: Kind) -> bool {
        let strike = (kind, self.counts[kind as usize]);
        self.counts[kind as usize] += 1;
        if self.suppressed.contains(&strike) {
            return false;
        }
        self.struck.push(strike);
        true
    }

    /// Milliseconds until each kind of event happens next.
    pub fn next_events(&mut self) -> Vec<(Kind, i64)> {
        let mut next = Vec::new();
        for kind in Kind::ALL.iter().copied().filter(|kind| kind.class() == Class::Event) {
            if let Some(after) = self.next_event(kind) {
                next.push((kind, after));
            }
        }
        next
    }

    pub fn next_event(&mut self, kind: Kind) -> Option<i64> {
        let per_hour = self.rates[kind as usize];
        if per_hour == 0.0 {
            return None;
        }
        let uniform = self.streams[kind as usize].f64().max(1e-9);
        let hours = -uniform.ln() / per_hour;
        #[expect(clippy::cast_possible_truncation, reason = "at most some days in milliseconds")]
        let after = (hours * 3_600_000.0).min(1e9) as i64;
        Some(after.max(1))
    }

    /// An event of this kind is due; says whether it is to happen.
    pub fn happens(&mut self, kind: Kind) -> bool {
        self.strike(kind)
    }

    /// The random numbers of a kind, for how long and to whom.
    pub fn rng(&mut self, kind: Kind) -> &mut Rng {
        &mut self.streams[kind as usize]
    }
}
