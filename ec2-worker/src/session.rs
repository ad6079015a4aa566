//! Sessions: a sealed cookie, no table.
//!
//! The cookie is an AES-256-GCM box bound to the cookie's name, so its content is neither readable
//! nor changeable outside. The box knows no expiry and no user: age is checked here, and that the
//! user still is the one who signed in is checked by whoever opens the session.
//!
//! | limit | value | why |
//! |---|---|---|
//! | absolute | 12 h from signing in | a working day |
//! | idle | 30 min since the cookie was issued | an unattended browser |
//! | re-issue | when older than 5 min | bounds how early an active user can be idled out |
//!
//! Ending one session on all workers before its time needs a shared list, which is not here yet:
//! signing out makes this browser forget the cookie.

use axum::http::HeaderMap;
use axum_extra::extract::cookie::{Cookie, CookieJar, Key, PrivateCookieJar, SameSite};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleet::Profile;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use users::random_id;

pub const COOKIE: &str = "vigia_session";

const ABSOLUTE: SignedDuration = SignedDuration::from_hours(12);
const IDLE: SignedDuration = SignedDuration::from_mins(30);
const REISSUE: SignedDuration = SignedDuration::from_mins(5);
/// How far another worker's clock may be ahead of ours. EC2 clocks agree within milliseconds.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(1);

/// A rotation needs two keys for the length of a session; more than a few are a mistake, and each
/// costs a try per request.
const MAX_KEYS: usize = 8;

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

    fn is_current(&self, now: Timestamp) -> bool {
        let since_sign_in = now.duration_since(self.iat);
        let since_seen = now.duration_since(self.seen);
        let from_the_future = since_sign_in < -CLOCK_SKEW || since_seen < -CLOCK_SKEW;
        !from_the_future && since_sign_in < ABSOLUTE && since_seen < IDLE
    }
}

/// The keys that seal sessions: the active one seals, any of them opens.
#[derive(Clone)]
pub struct KeyRing {
    active: Key,
    all: Vec<Key>,
}

/// Says nothing of the document's content, which is secret.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyRingError {
    #[error(
        "is not JSON of the form {{\"active\":\"k1\",\"keys\":[{{\"kid\":\"k1\",\"key\":\"<base64>\"}}]}}"
    )]
    Form,
    #[error("has no key, or more than {MAX_KEYS}")]
    Count,
    #[error("has a key that is not the base64 of 64 bytes")]
    Key,
    #[error("names an active key that is not among its keys")]
    Active,
}

#[derive(Deserialize)]
struct Document {
    active: String,
    keys: Vec<DocumentKey>,
}

#[derive(Deserialize)]
struct DocumentKey {
    kid: String,
    key: Secret,
}

/// Base64 text that is wiped when dropped.
#[derive(Deserialize)]
#[serde(from = "String")]
struct Secret(Zeroizing<String>);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl KeyRing {
    pub fn from_json(bytes: &[u8]) -> Result<Self, KeyRingError> {
        let document: Document = serde_json::from_slice(bytes).map_err(|_| KeyRingError::Form)?;
        if document.keys.is_empty() || document.keys.len() > MAX_KEYS {
            return Err(KeyRingError::Count);
        }
        let mut active = None;
        let mut all = Vec::with_capacity(document.keys.len());
        for entry in document.keys {
            let key = read_key(&entry.key.0)?;
            if entry.kid == document.active {
                active = Some(key.clone());
            }
            all.push(key);
        }
        Ok(Self { active: active.ok_or(KeyRingError::Active)?, all })
    }

    /// The `Set-Cookie` of a session.
    pub fn seal(&self, session: &Session) -> PrivateCookieJar {
        let value = serde_json::to_string(session).expect("a session is plain data");
        PrivateCookieJar::new(self.active.clone()).add(with_attributes(value))
    }

    /// The session in a request's cookies, when it is sealed by us, ours and in time.
    pub fn open(&self, headers: &HeaderMap, profile: Profile, now: Timestamp) -> Option<Session> {
        let value = self
            .all
            .iter()
            .find_map(|key| PrivateCookieJar::<Key>::from_headers(headers, key.clone()).get(COOKIE))?;
        let session: Session = serde_json::from_str(value.value()).ok()?;
        (session.profile == profile && session.is_current(now)).then_some(session)
    }
}

/// The `Set-Cookie` that makes a browser forget its session.
pub fn forget() -> CookieJar {
    let mut cookie = with_attributes(String::new());
    cookie.make_removal();
    CookieJar::new().add(cookie)
}

/// `Strict` works with the redirect after signing in, because the navigation begins on our own page
/// or in the address bar. No `Secure` and no `__Host-` yet: the load balancer speaks plain HTTP. No
/// `Max-Age`: the browser forgets it when it closes, and we check the age ourselves.
fn with_attributes(value: String) -> Cookie<'static> {
    Cookie::build((COOKIE, value)).path("/").http_only(true).same_site(SameSite::Strict).build()
}

fn read_key(base64: &str) -> Result<Key, KeyRingError> {
    let bytes = Zeroizing::new(STANDARD.decode(base64).map_err(|_| KeyRingError::Key)?);
    if bytes.len() != 64 {
        return Err(KeyRingError::Key);
    }
    Key::try_from(bytes.as_slice()).map_err(|_| KeyRingError::Key)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use axum::http::header::{COOKIE as COOKIE_HEADER, SET_COOKIE};
    use axum::response::IntoResponse as _;
    use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, percent_encode};

    use super::*;

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
        let response = ring.seal(session).into_response();
        let set = response.headers()[SET_COOKIE].to_str().expect("ASCII");
        set.split(';').next().expect("name=value").to_owned()
    }

    fn cookies(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(COOKIE_HEADER, HeaderValue::from_str(text).expect("a header value"))])
    }

    fn open(ring: &KeyRing, cookie: &str, now: Timestamp) -> Option<Session> {
        ring.open(&cookies(cookie), Profile::Secure, now)
    }

    #[test]
    fn what_is_sealed_opens() {
        let ring = ring("k1", &["k1"]);
        let cookie = sealed(&ring, &session());
        assert_eq!(open(&ring, &cookie, NOW).map(|s| s.login).as_deref(), Some("ana"));
        assert!(!cookie.contains("ana"));
        assert_eq!(ring.open(&cookies(&cookie), Profile::Classic, NOW), None, "the profiles do not mix");
    }

    #[test]
    fn the_cookie_is_for_this_site_and_not_for_scripts() {
        let response = ring("k1", &["k1"]).seal(&session()).into_response();
        let set = response.headers()[SET_COOKIE].to_str().expect("ASCII");
        for attribute in ["; HttpOnly", "; SameSite=Strict", "; Path=/"] {
            assert!(set.contains(attribute), "{set}");
        }
        assert!(!set.contains("Domain") && !set.contains("Max-Age"), "{set}");
        let response = forget().into_response();
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
    fn every_changed_bit_is_refused() {
        let ring = ring("k1", &["k1"]);
        let cookie = sealed(&ring, &session());
        // Of the value itself: `%2B` and `%2b` are one value in two spellings.
        let value = percent_decode_str(&cookie[COOKIE.len() + 1..]).collect::<Vec<u8>>();
        let respelt = |value: &[u8]| format!("{COOKIE}={}", percent_encode(value, NON_ALPHANUMERIC));
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

    #[test]
    fn bad_key_rings_are_refused_without_showing_them() {
        let good = STANDARD.encode([7; 64]);
        let short = STANDARD.encode([7; 32]);
        let table = [
            ("sentinel".to_owned(), KeyRingError::Form),
            (r#"{"active":"k1","keys":"sentinel"}"#.to_owned(), KeyRingError::Form),
            (r#"{"active":"k1","keys":[]}"#.to_owned(), KeyRingError::Count),
            (format!(r#"{{"active":"k1","keys":[{{"kid":"k1","key":"{short}"}}]}}"#), KeyRingError::Key),
            (r#"{"active":"k1","keys":[{"kid":"k1","key":"sentinel!"}]}"#.to_owned(), KeyRingError::Key),
            (format!(r#"{{"active":"k2","keys":[{{"kid":"k1","key":"{good}"}}]}}"#), KeyRingError::Active),
        ];
        for (text, expected) in table {
            let error = KeyRing::from_json(text.as_bytes()).err().expect("refused");
            assert_eq!(error, expected, "{text}");
            assert!(!error.to_string().contains("sentinel"));
        }
    }
}
