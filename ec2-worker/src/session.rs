//! Sessions: a sealed cookie, no table.
//!
//! The cookie says which user signed in, when, and when it was issued last. This module checks its age;
//! [`auth`] checks that the user is the same as at sign-in and has not ended the session.
//!
//! | limit | value | why |
//! |---|---|---|
//! | absolute | 12 h from signing in | a working day |
//! | idle | 30 min since the cookie was issued | an unattended browser |
//! | re-issue | when older than 5 min | bounds how early an active user can be idled out |
//!
//! [`auth`]: crate::auth

pub mod cache;

use accounts::random_id;
use axum::http::HeaderMap;
use axum_extra::extract::cookie::PrivateCookieJar;
use fleet::Profile;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::client::Transport;
use crate::cookies::{KeyRing, Kind};

pub const ABSOLUTE: SignedDuration = SignedDuration::from_hours(12);
const IDLE: SignedDuration = SignedDuration::from_mins(30);
const REISSUE: SignedDuration = SignedDuration::from_mins(5);
/// A sign-in this young need not be repeated to delete the account. Long enough to find the button,
/// shorter than most absences.
const FRESH: SignedDuration = SignedDuration::from_mins(5);
/// How far another worker's clock may be ahead of this one's. EC2 clocks agree within milliseconds.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(1);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub login: String,
    pub uid: String,
    pub epoch: u64,
    /// Names this session, so that a list of ended sessions can.
    pub sid: String,
    /// When the user signed in.
    pub iat: Timestamp,
    /// When the cookie was last issued.
    pub seen: Timestamp,
    pub profile: Profile,
}

impl Session {
    pub fn begin(login: &str, uid: &str, epoch: u64, profile: Profile, now: Timestamp) -> Self {
        Self {
            login: login.to_owned(),
            uid: uid.to_owned(),
            epoch,
            sid: random_id(),
            iat: now,
            seen: now,
            profile,
        }
    }

    pub fn age(&self, now: Timestamp) -> SignedDuration {
        now.duration_since(self.iat).max(SignedDuration::ZERO)
    }

    /// The session with a fresh idle time, when it is time to issue it again.
    pub fn renewed(&self, now: Timestamp) -> Option<Self> {
        (now.duration_since(self.seen) >= REISSUE).then(|| Self { seen: now, ..self.clone() })
    }

    /// Returns the session under a new epoch and a new id. It keeps its age and shares nothing else with a
    /// copy of the old cookie.
    pub fn reissued(&self, epoch: u64) -> Self {
        Self { epoch, sid: random_id(), ..self.clone() }
    }

    /// Whether the user has proved the password within the last minutes.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        self.age(now) < FRESH
    }

    /// Returns how long the session can last at the most, if it is not ended before.
    pub fn left(&self, now: Timestamp) -> SignedDuration {
        ABSOLUTE - self.age(now)
    }

    fn is_current(&self, now: Timestamp) -> bool {
        let since_sign_in = now.duration_since(self.iat);
        let since_seen = now.duration_since(self.seen);
        let from_the_future = since_sign_in < -CLOCK_SKEW || since_seen < -CLOCK_SKEW;
        !from_the_future && since_sign_in < ABSOLUTE && since_seen < IDLE
    }
}

impl Session {
    /// The session in a request's cookies, when it is sealed by us, ours and in time.
    pub fn open(
        ring: &KeyRing,
        headers: &HeaderMap,
        transport: Transport,
        profile: Profile,
        now: Timestamp,
    ) -> Option<Self> {
        let session: Self = ring.open(Kind::Session, transport, headers)?;
        (session.profile == profile && session.is_current(now)).then_some(session)
    }

    /// The `Set-Cookie` of the session.
    pub fn seal(&self, ring: &KeyRing, transport: Transport) -> PrivateCookieJar {
        ring.seal(Kind::Session, transport, self)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use axum::http::header::{COOKIE as COOKIE_HEADER, SET_COOKIE};
    use axum::response::IntoResponse as _;
    use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, percent_encode};
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::cookies::forget;

    const NAME: &str = Kind::Session.name(Transport::Plain);

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn ring(active: &str, kids: &[&str]) -> KeyRing {
        let key =
            |kid: &str| STANDARD.encode(kid.repeat(64).as_bytes().first_chunk::<64>().expect("64 bytes"));
        let keys: Vec<_> = kids.iter().map(|kid| serde_json::json!({"kid": kid, "key": key(kid)})).collect();
        let document = serde_json::json!({"active": active, "keys": keys});
        KeyRing::from_json(document.to_string().as_bytes()).expect("a ring")
    }

    fn session() -> Session {
        Session::begin("ana", "u1", 0, Profile::Secure, NOW)
    }

    /// `name=value` as a browser would send it back.
    fn sealed(ring: &KeyRing, session: &Session) -> String {
        let response = session.seal(ring, Transport::Plain).into_response();
        let set = response.headers()[SET_COOKIE].to_str().expect("ASCII");
        set.split(';').next().expect("name=value").to_owned()
    }

    fn cookies(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(COOKIE_HEADER, HeaderValue::from_str(text).expect("a header value"))])
    }

    fn open(ring: &KeyRing, cookie: &str, now: Timestamp) -> Option<Session> {
        Session::open(ring, &cookies(cookie), Transport::Plain, Profile::Secure, now)
    }

    #[test]
    fn a_sealed_session_opens() {
        let ring = ring("k1", &["k1"]);
        let cookie = sealed(&ring, &session());
        assert_eq!(open(&ring, &cookie, NOW).map(|s| s.login).as_deref(), Some("ana"));
        assert!(!cookie.contains("ana"));
        assert_eq!(
            Session::open(&ring, &cookies(&cookie), Transport::Plain, Profile::Classic, NOW),
            None,
            "the profiles do not mix"
        );
    }

    #[test]
    fn the_cookie_is_for_this_site_and_not_for_scripts() {
        let response = session().seal(&ring("k1", &["k1"]), Transport::Plain).into_response();
        let set = response.headers()[SET_COOKIE].to_str().expect("ASCII");
        for attribute in ["; HttpOnly", "; SameSite=Strict", "; Path=/"] {
            assert!(set.contains(attribute), "{set}");
        }
        assert!(!set.contains("Domain") && !set.contains("Max-Age"), "{set}");
        let response = forget(Kind::Session, Transport::Plain).into_response();
        let set = response.headers()[SET_COOKIE].to_str().expect("ASCII");
        assert!(
            set.starts_with("vigia_session=;") && set.contains("Max-Age=0") && set.contains("Path=/"),
            "{set}"
        );
    }

    #[test]
    fn sessions_end_by_age_and_by_idleness() {
        let ring = ring("k1", &["k1"]);
        let hours = SignedDuration::from_hours;
        let minutes = SignedDuration::from_mins;
        let table = [
            (minutes(0), minutes(0), true),
            (minutes(29), minutes(29), true),
            (minutes(30), minutes(30), false),
            (hours(11), minutes(1), true),
            (hours(12), minutes(0), false),
            (minutes(-2), minutes(-2), false),
        ];
        for (age, idle, is_current) in table {
            let session = Session { iat: NOW - age, seen: NOW - idle, ..session() };
            let cookie = sealed(&ring, &session);
            assert_eq!(open(&ring, &cookie, NOW).is_some(), is_current, "{age} old, idle for {idle}");
        }
    }

    #[test]
    fn an_active_session_is_issued_again_and_keeps_its_age() {
        assert_eq!(session().renewed(NOW + SignedDuration::from_mins(4)), None);
        let later = NOW + SignedDuration::from_mins(5);
        let renewed = session().renewed(later).expect("five minutes old");
        assert_eq!((renewed.seen, renewed.iat), (later, NOW));
    }

    #[test]
    fn sessions_open_with_any_key_of_the_ring() {
        let cookie = sealed(&ring("k1", &["k1"]), &session());
        assert!(open(&ring("k2", &["k2", "k1"]), &cookie, NOW).is_some());
        assert!(open(&ring("k2", &["k2"]), &cookie, NOW).is_none());
    }

    #[test]
    fn forgeries_are_refused() {
        forge_on_two_threads(10_000);
    }

    #[test]
    #[ignore = "20 s of two cores; `make test-full` runs it"]
    fn a_million_forgeries_are_refused() {
        forge_on_two_threads(500_000);
    }

    /// Bytes, bits, cuts, additions and swaps of halves, by a generator whose seed is printed.
    fn forge_on_two_threads(rounds: u32) {
        let ring = ring("k1", &["k1"]);
        let originals: Vec<String> =
            (0..8).map(|_| sealed(&ring, &session())[NAME.len() + 1..].to_owned()).collect();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| forge(&ring, &originals, rand::random(), rounds));
            }
        });
    }

    fn forge(ring: &KeyRing, originals: &[String], seed: u64, rounds: u32) {
        const CHARS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=%";
        let names = [NAME, Kind::Device.name(Transport::Plain), Kind::Admin.name(Transport::Plain)];
        let mut rng = StdRng::seed_from_u64(seed);
        for round in 0..rounds {
            let original = originals[rng.random_range(0..originals.len())].as_bytes();
            let mut forged = original.to_vec();
            match rng.random_range(0..10) {
                0 => forged.truncate(rng.random_range(0..original.len())),
                1 => forged.push(CHARS[rng.random_range(0..CHARS.len())]),
                2 => {
                    let other = originals[rng.random_range(0..originals.len())].as_bytes();
                    let at = rng.random_range(1..original.len());
                    forged.truncate(at);
                    forged.extend_from_slice(&other[at.min(other.len())..]);
                }
                _ => {
                    let at = rng.random_range(0..original.len());
                    forged[at] = CHARS[rng.random_range(0..CHARS.len())];
                }
            }
            let name = names[if rng.random_range(0..20) == 0 { rng.random_range(1..3) } else { 0 }];
            let text = String::from_utf8(forged).expect("ASCII");
            let cookie = format!("{name}={text}");
            let opened = open(ring, &cookie, NOW);
            // The same bytes in another spelling are no forgery.
            let bytes = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
            let is_original = || originals.iter().any(|original| bytes(original) == bytes(&text));
            assert!(
                opened.is_none() || name == NAME && is_original(),
                "seed {seed}, round {round}: {cookie}"
            );
        }
    }

    #[test]
    fn every_changed_bit_is_refused() {
        let ring = ring("k1", &["k1"]);
        let cookie = sealed(&ring, &session());
        // Of the value itself: `%2B` and `%2b` are one value in two spellings.
        let value = percent_decode_str(&cookie[NAME.len() + 1..]).collect::<Vec<u8>>();
        let respelt = |value: &[u8]| format!("{NAME}={}", percent_encode(value, NON_ALPHANUMERIC));
        assert!(open(&ring, &respelt(&value), NOW).is_some());
        for at in 0..value.len() {
            for bit in 0..8 {
                let mut changed = value.clone();
                changed[at] ^= 1 << bit;
                assert_eq!(open(&ring, &respelt(&changed), NOW), None, "byte {at}, bit {bit}");
            }
        }
        let renamed = cookie.replacen("vigia_session", "vigia_sessiom", 1);
        assert!(open(&ring, &renamed, NOW).is_none());
    }
}
