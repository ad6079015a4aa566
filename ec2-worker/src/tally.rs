//! Which events get a log line, and how many are only counted: by kind, address and minute.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::client::Client;

pub const MINUTE: Duration = Duration::from_secs(60);

/// Lines for each kind that a user causes, from one address in a minute. Each sign-in of an office at nine
/// gets a line; a program that signs in for each request does not.
const OF_A_USER: u32 = 20;
/// Of a kind that any client can cause.
const OF_ANYBODY: u32 = 1;
/// Lines that clients without an account can cause, all kinds and addresses together, of some 400 bytes
/// each: 16 KiB at once and 37 KiB a day. At double, a day of them would fill the 64 KiB of a console.
const AT_ONCE: u32 = 40;
const THEN_ONE_EACH: Duration = Duration::from_secs(15 * 60);
/// Addresses and kinds that are counted apart within a minute, some 100 bytes each.
const MAX_COUNTS: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    SignedUp,
    SignedIn,
    SignedOut,
    SignedOutEverywhere,
    PasswordChanged,
    ProofFailed,
    AccountDeleted,
    AdminSignedIn,
    UsersListed,
    AmountSet,
    SignInFailed,
    Throttled,
    SignUpRefused,
    Refused,
    AdminRefused,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::SignedUp => "signed_up",
            Self::SignedIn => "signed_in",
            Self::SignedOut => "signed_out",
            Self::SignedOutEverywhere => "signed_out_everywhere",
            Self::PasswordChanged => "password_changed",
            Self::ProofFailed => "proof_failed",
            Self::AccountDeleted => "account_deleted",
            Self::AdminSignedIn => "admin_signed_in",
            Self::UsersListed => "users_listed",
            Self::AmountSet => "amount_set",
            Self::SignInFailed => "sign_in_failed",
            Self::Throttled => "throttled",
            Self::SignUpRefused => "sign_up_refused",
            Self::Refused => "refused",
            Self::AdminRefused => "admin_refused",
        }
    }

    /// Whether a client without proof of an identity can cause it.
    pub const fn is_anonymous(self) -> bool {
        self.each_minute() == OF_ANYBODY
    }

    const fn each_minute(self) -> u32 {
        match self {
            Self::AdminSignedIn | Self::UsersListed | Self::AmountSet => u32::MAX,
            Self::SignedUp
            | Self::SignedIn
            | Self::SignedOut
            | Self::SignedOutEverywhere
            | Self::PasswordChanged
            | Self::ProofFailed
            | Self::AccountDeleted => OF_A_USER,
            Self::SignInFailed
            | Self::Throttled
            | Self::SignUpRefused
            | Self::Refused
            | Self::AdminRefused => OF_ANYBODY,
        }
    }
}

/// Events of one kind that were counted without a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    pub kind: Kind,
    /// `None`: from several addresses.
    pub from: Option<IpAddr>,
    pub more: u64,
    pub addresses: usize,
}

pub struct Tally(Mutex<State>);

struct State {
    counts: HashMap<(Kind, Option<IpAddr>), Count>,
    lines: u32,
    since: Instant,
}

#[derive(Default)]
struct Count {
    said: u32,
    more: u64,
    /// Addresses in a count that is carried over; 0 means one address.
    addresses: usize,
}

impl Default for Tally {
    fn default() -> Self {
        Self(Mutex::new(State { counts: HashMap::new(), lines: AT_ONCE, since: Instant::now() }))
    }
}

impl Tally {
    /// Whether this event gets a line; otherwise it is counted.
    pub fn says(&self, kind: Kind, client: &Client) -> bool {
        let mut state = self.0.lock();
        let mut key = (kind, client.block());
        // Too many addresses to tell apart.
        if state.counts.len() >= MAX_COUNTS && !state.counts.contains_key(&key) {
            key = (kind, None);
        }
        let is_due = state.counts.get(&key).is_none_or(|count| count.said < kind.each_minute());
        let is_said = is_due && (!kind.is_anonymous() || state.takes_line(1));
        let count = state.counts.entry(key).or_default();
        if is_said {
            count.said += 1;
        } else {
            count.more += 1;
        }
        is_said
    }

    /// Returns the events counted since the last call, up to the limit of lines. Counts beyond the limit
    /// are kept for the next call.
    pub fn close_minute(&self) -> Vec<Summary> {
        let mut state = self.0.lock();
        let mut counts: Vec<_> =
            std::mem::take(&mut state.counts).into_iter().filter(|(_, count)| count.more > 0).collect();
        counts.sort_by_key(|((kind, block), count)| (std::cmp::Reverse(count.more), *kind, *block));
        let mut summaries = Vec::new();
        let mut rest: HashMap<Kind, Summary> = HashMap::new();
        for ((kind, from), Count { more, addresses, .. }) in counts {
            let addresses = addresses.max(1);
            if !kind.is_anonymous() || state.takes_line(1) {
                summaries.push(Summary { kind, from, more, addresses });
            } else {
                let all = rest.entry(kind).or_insert(Summary { kind, from: None, more: 0, addresses: 0 });
                all.more += more;
                all.addresses += addresses;
            }
        }
        let mut rest: Vec<_> = rest.into_values().collect();
        rest.sort_by_key(|summary| summary.kind);
        for summary in rest {
            if state.takes_line(0) {
                summaries.push(summary);
            } else {
                let count = state.counts.entry((summary.kind, None)).or_default();
                count.more += summary.more;
                count.addresses += summary.addresses;
            }
        }
        summaries
    }
}

impl State {
    /// Takes a line if more than `spare` are left: the last one is for all that is only counted.
    fn takes_line(&mut self, spare: u32) -> bool {
        let now = Instant::now();
        let earned = now.duration_since(self.since).as_secs() / THEN_ONE_EACH.as_secs();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.lines = self.lines.saturating_add(earned).min(AT_ONCE);
            self.since = now;
        }
        let is_left = self.lines > spare;
        self.lines -= u32::from(is_left);
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Client {
        Client { address: text.parse().ok(), ..Client::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_gets_one_line_and_a_count() {
        let (tally, thief) = (Tally::default(), client("192.0.2.7"));
        let said = (0..1000).filter(|_| tally.says(Kind::SignInFailed, &thief)).count();
        assert_eq!(said, 1);
        assert!(tally.says(Kind::Throttled, &thief), "another kind");
        assert!(tally.says(Kind::SignInFailed, &client("192.0.2.8")), "another address");
        let summary = Summary { kind: Kind::SignInFailed, from: thief.block(), more: 999, addresses: 1 };
        assert_eq!(tally.close_minute(), [summary]);
        assert!(tally.says(Kind::SignInFailed, &thief), "in the next minute");
        assert_eq!(tally.close_minute(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_cannot_fill_the_log_in_a_day() {
        let tally = Tally::default();
        let (mut lines, mut counted) = (0_u64, 0_u64);
        for minute in 0..24 * 60_u32 {
            for number in 0..200_u32 {
                let address = client(&format!("198.51.{}.{}", (minute + number) % 250, number));
                lines += u64::from(tally.says(Kind::SignInFailed, &address));
            }
            for summary in tally.close_minute() {
                lines += 1;
                counted += summary.more;
            }
            tokio::time::advance(MINUTE).await;
        }
        assert!((100..=140).contains(&lines), "{lines} lines");
        // All events but those of the last minutes have a line or are counted.
        assert!(counted > 200 * 24 * 60 - 200 * 20, "{counted}");
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_do_not_suppress_lines_of_users() {
        let (tally, ana) = (Tally::default(), client("192.0.2.7"));
        for number in 0..1000_u32 {
            tally.says(Kind::Refused, &client(&format!("198.51.{}.{}", number / 250, number % 250)));
        }
        assert!(!tally.says(Kind::Refused, &ana), "no line is left");
        let said = |kind| (0..100).filter(|_| tally.says(kind, &ana)).count();
        assert_eq!(said(Kind::SignedIn), 20);
        assert_eq!(said(Kind::AmountSet), 100);
        let summaries = tally.close_minute();
        assert!(summaries.iter().any(|summary| summary.kind == Kind::SignedIn && summary.more == 80));
    }

    #[tokio::test(start_paused = true)]
    async fn more_addresses_than_are_remembered_are_counted_together() {
        let tally = Tally::default();
        for number in 0..10_000_u32 {
            let address = format!("2001:db8:{:x}:{:x}::1", number / 256, number % 256);
            tally.says(Kind::Refused, &client(&address));
        }
        assert!(tally.0.lock().counts.len() <= MAX_COUNTS + 1);
    }
}
