//! Sealed cookies: a browser keeps them and can neither read nor change them.
//!
//! A cookie is an AES-256-GCM box bound to the cookie's name, so a session cannot be passed off as
//! an administrator's. The box has no expiry: the code that opens one checks the age of its content.
//!
//! | sent over | name | why |
//! |---|---|---|
//! | TLS | `__Host-…`, `Secure` | no other host, no plain HTTP response and no subdomain can have set it |
//! | plain HTTP | without the prefix | a browser drops `__Host-` cookies there |
//!
//! A request over TLS is read with the first name only, else a cookie planted over plain HTTP would
//! count there.

use axum::http::HeaderMap;
use axum_extra::extract::cookie::{Cookie, CookieJar, Key, PrivateCookieJar, SameSite};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use time::Duration;
use zeroize::Zeroizing;

use crate::client::Transport;

/// A rotation needs two keys for the length of a session; more than a few are a mistake, and each
/// costs a try per request.
const MAX_KEYS: usize = 8;
const KEY_BYTES: usize = 64;

/// One kind of cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Session,
    /// A browser in which the user has signed in before.
    Device,
    Admin,
}

impl Kind {
    pub const fn name(self, transport: Transport) -> &'static str {
        match (self, transport) {
            (Self::Session, Transport::Plain) => "vigia_session",
            (Self::Session, Transport::Tls) => "__Host-vigia_session",
            (Self::Device, Transport::Plain) => "vigia_device",
            (Self::Device, Transport::Tls) => "__Host-vigia_device",
            (Self::Admin, Transport::Plain) => "vigia_admin",
            (Self::Admin, Transport::Tls) => "__Host-vigia_admin",
        }
    }

    /// How long a browser keeps it. None: until it closes; we check the age ourselves.
    const fn max_age(self) -> Option<Duration> {
        match self {
            Self::Session | Self::Admin => None,
            Self::Device => Some(Duration::days(90)),
        }
    }
}

/// The keys that seal: the active one seals, any of them opens.
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
    #[error("has a key that is not the base64 of {KEY_BYTES} bytes")]
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

    /// The `Set-Cookie` with this content.
    pub fn seal(&self, kind: Kind, transport: Transport, content: &impl Serialize) -> PrivateCookieJar {
        let value = serde_json::to_string(content).expect("the content of a cookie is plain data");
        PrivateCookieJar::new(self.active.clone()).add(with_attributes(kind, transport, value))
    }

    /// Returns the content of a request's cookie, if this ring sealed it.
    pub fn open<T: DeserializeOwned>(
        &self,
        kind: Kind,
        transport: Transport,
        headers: &HeaderMap,
    ) -> Option<T> {
        let name = kind.name(transport);
        let value = self
            .all
            .iter()
            .find_map(|key| PrivateCookieJar::<Key>::from_headers(headers, key.clone()).get(name))?;
        serde_json::from_str(value.value()).ok()
    }

    /// A name for something secret that no one without the ring can guess or undo, for one purpose.
    pub fn pseudonym(&self, purpose: &str, text: &str) -> String {
        let derived = mac(self.active.master(), purpose.as_bytes());
        data_encoding::HEXLOWER.encode(&mac(&derived, text.as_bytes())[..16])
    }
}

fn mac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    mac.update(text);
    mac.finalize().into_bytes().into()
}

/// The `Set-Cookie` that makes a browser forget a cookie.
pub fn forget(kind: Kind, transport: Transport) -> CookieJar {
    let mut cookie = with_attributes(kind, transport, String::new());
    cookie.make_removal();
    CookieJar::new().add(cookie)
}

/// `Strict` works with the redirect after signing in, because the navigation begins on our own page
/// or in the address bar.
fn with_attributes(kind: Kind, transport: Transport, value: String) -> Cookie<'static> {
    let mut cookie = Cookie::build((kind.name(transport), value))
        .path("/")
        .http_only(true)
        .same_site(SameSite::Strict)
        .build();
    if transport == Transport::Tls {
        cookie.set_secure(true);
    }
    if let Some(age) = kind.max_age() {
        cookie.set_max_age(age);
    }
    cookie
}

fn read_key(base64: &str) -> Result<Key, KeyRingError> {
    let bytes = Zeroizing::new(STANDARD.decode(base64).map_err(|_| KeyRingError::Key)?);
    if bytes.len() != KEY_BYTES {
        return Err(KeyRingError::Key);
    }
    Key::try_from(bytes.as_slice()).map_err(|_| KeyRingError::Key)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use axum::http::header::{COOKIE, SET_COOKIE};
    use axum::response::IntoResponse as _;

    use super::*;

    const KINDS: [Kind; 3] = [Kind::Session, Kind::Device, Kind::Admin];
    const TRANSPORTS: [Transport; 2] = [Transport::Plain, Transport::Tls];

    fn ring() -> KeyRing {
        let key = STANDARD.encode([7; 64]);
        let text = format!(r#"{{"active":"k1","keys":[{{"kid":"k1","key":"{key}"}}]}}"#);
        KeyRing::from_json(text.as_bytes()).expect("a ring")
    }

    fn set_cookie(kind: Kind, transport: Transport) -> String {
        let response = ring().seal(kind, transport, &"content").into_response();
        response.headers()[SET_COOKIE].to_str().expect("ASCII").to_owned()
    }

    #[test]
    fn a_cookie_over_tls_is_for_this_host_only() {
        for kind in KINDS {
            let set = set_cookie(kind, Transport::Tls);
            assert!(set.starts_with("__Host-vigia_") && set.contains("; Secure"), "{set}");
            assert!(set.contains("; Path=/") && !set.contains("Domain"), "{set}");
            let set = set_cookie(kind, Transport::Plain);
            assert!(set.starts_with("vigia_") && !set.contains("Secure"), "{set}");
        }
        assert!(set_cookie(Kind::Device, Transport::Tls).contains("Max-Age=7776000"));
    }

    #[test]
    fn a_cookie_opens_as_what_it_was_sealed_as_and_nothing_else() {
        for kind in KINDS {
            for transport in TRANSPORTS {
                let set = set_cookie(kind, transport);
                let (_, value) = set.split(';').next().and_then(|pair| pair.split_once('=')).expect("a pair");
                for other in KINDS {
                    for over in TRANSPORTS {
                        let pair = format!("{}={value}", other.name(over));
                        let headers =
                            HeaderMap::from_iter([(COOKIE, HeaderValue::from_str(&pair).expect("a value"))]);
                        let opened: Option<String> = ring().open(other, over, &headers);
                        assert_eq!(opened.is_some(), (kind, transport) == (other, over), "{set} as {pair}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_pseudonym_is_for_one_purpose() {
        let ring = ring();
        assert_eq!(ring.pseudonym("a", "ana"), ring.pseudonym("a", "ana"));
        assert_ne!(ring.pseudonym("a", "ana"), ring.pseudonym("b", "ana"));
        assert_ne!(ring.pseudonym("a", "ana"), ring.pseudonym("a", "anb"));
        assert_eq!(ring.pseudonym("a", "ana").len(), 32);
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
