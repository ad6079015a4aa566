//! Access to the users, the fleet and the desired count.
//!
//! In the secure profile the admin token is needed; only its SHA-256 is stored. In classic every client may,
//! as in the original service.
//!
//! A program sends the token with each request. A browser sends it once and gets it back in a sealed
//! cookie. So when the token changes, cookies with the old token open nothing, and an attacker who knows
//! the session keys still needs the token to make a cookie.
//!
//! | limit of the cookie | value | why |
//! |---|---|---|
//! | absolute | 1 h from signing in | an open dashboard polls all the time and is never idle |
//! | idle | 15 min since it was issued | an unattended browser whose page is closed |
//! | re-issue | when older than 1 min | bounds how early an active operator can be idled out |

use std::fmt;

use accounts::random_id;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum_extra::extract::cookie::PrivateCookieJar;
use fleet::Profile;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::auth::SessionError;
use crate::client::{Client, Transport};
use crate::cookies::{KeyRing, Kind};
use crate::secrets::{NotInForce, Secrets};
use crate::{Worker, audit, auth};

const ABSOLUTE: SignedDuration = SignedDuration::from_hours(1);
const IDLE: SignedDuration = SignedDuration::from_mins(15);
const REISSUE: SignedDuration = SignedDuration::from_mins(1);
/// How far another worker's clock may be ahead of this one's.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(1);

/// The content of the admin cookie.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminSession {
    token: String,
    /// Names this session, so that a list of ended sessions can.
    sid: String,
    /// When the operator signed in.
    iat: Timestamp,
    /// When the cookie was last issued.
    seen: Timestamp,
}

/// Why an admin request was refused.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("this needs the admin token; send it as `Authorization: Bearer <token>`")]
    TokenNeeded,
    #[error("another site or a prefetch sent this request; open this address yourself")]
    CrossSite,
    #[error(transparent)]
    Secret(#[from] NotInForce),
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// The credential that lets a request in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Classic.
    Open,
    Token,
    Session(AdminSession),
}

/// Checks that the request comes from the operator. In classic it accepts every request.
pub async fn require(worker: &Worker, client: &Client, headers: &HeaderMap) -> Result<Access, AdminError> {
    let access = authorize(worker.profile, &worker.secrets(), client.transport, headers, Timestamp::now());
    if let Ok(Access::Session(session)) = &access
        && auth::has_ended(worker, &session.sid).await?
    {
        return Err(AdminError::TokenNeeded);
    }
    // A request without credentials is not audited: it is noise.
    if matches!(access, Err(AdminError::TokenNeeded)) && headers.contains_key(AUTHORIZATION) {
        audit::admin_refused(worker, client);
    }
    access
}

/// Checks as [`require`] does, for a GET that changes something. It accepts the cookie only from the
/// service's own pages, because a link in a mail must not work with the operator's cookie.
pub async fn require_change(worker: &Worker, client: &Client, headers: &HeaderMap) -> Result<(), AdminError> {
    match require(worker, client, headers).await? {
        Access::Session(_) if says_other_than(headers, &["same-origin"]) => Err(AdminError::CrossSite),
        Access::Session(_) | Access::Token | Access::Open => Ok(()),
    }
}

/// Ends the session of the request's cookie on all workers, when the operator signs out or signs in again.
/// A session that is over already is not an error.
pub async fn end_session(worker: &Worker, client: &Client, headers: &HeaderMap) -> Result<(), AdminError> {
    let session = worker.secrets().ring()?.open::<AdminSession>(Kind::Admin, client.transport, headers);
    if let Some(session) = session.filter(|session| session.is_current(Timestamp::now())) {
        auth::put_mark(worker, &session.sid).await?;
    }
    Ok(())
}

/// Returns a new session if `token` is the admin token.
pub fn sign_in(worker: &Worker, token: &str) -> Result<AdminSession, AdminError> {
    let secrets = worker.secrets();
    let expected = secrets.admin()?;
    if expected.is_of(token) {
        Ok(AdminSession::begin(token, Timestamp::now()))
    } else {
        Err(AdminError::TokenNeeded)
    }
}

impl fmt::Debug for AdminSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminSession").field("sid", &self.sid).finish_non_exhaustive()
    }
}

impl AdminSession {
    fn begin(token: &str, now: Timestamp) -> Self {
        Self { token: token.to_owned(), sid: random_id(), iat: now, seen: now }
    }

    /// The session with a fresh idle time, when it is time to issue it again.
    pub fn renewed(&self, now: Timestamp) -> Option<Self> {
        (now.duration_since(self.seen) >= REISSUE).then(|| Self { seen: now, ..self.clone() })
    }

    /// The `Set-Cookie` of the session.
    pub fn seal(&self, ring: &KeyRing, transport: Transport) -> PrivateCookieJar {
        ring.seal(Kind::Admin, transport, self)
    }

    fn is_current(&self, now: Timestamp) -> bool {
        let since_sign_in = now.duration_since(self.iat);
        let since_seen = now.duration_since(self.seen);
        let from_the_future = since_sign_in < -CLOCK_SKEW || since_seen < -CLOCK_SKEW;
        !from_the_future && since_sign_in < ABSOLUTE && since_seen < IDLE
    }
}

fn authorize(
    profile: Profile,
    secrets: &Secrets,
    transport: Transport,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<Access, AdminError> {
    if profile == Profile::Classic {
        return Ok(Access::Open);
    }
    let expected = secrets.admin()?;
    if headers.contains_key(AUTHORIZATION) {
        let is_admin = bearer_token(headers).is_some_and(|token| expected.is_of(token));
        return if is_admin { Ok(Access::Token) } else { Err(AdminError::TokenNeeded) };
    }
    let session: AdminSession =
        secrets.ring()?.open(Kind::Admin, transport, headers).ok_or(AdminError::TokenNeeded)?;
    if !expected.is_of(&session.token) || !session.is_current(now) {
        return Err(AdminError::TokenNeeded);
    }
    // No other site can add a token to a request. A cookie is added by the browser itself.
    if says_other_than(headers, &["same-origin", "none"]) {
        return Err(AdminError::CrossSite);
    }
    Ok(Access::Session(session))
}

/// Whether the browser names another origin of the request than `sites`: `none` is the address bar. Programs
/// do not send the header.
fn says_other_than(headers: &HeaderMap, sites: &[&str]) -> bool {
    headers.get_all("sec-fetch-site").into_iter().any(|site| !sites.iter().any(|own| site == own))
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use axum::http::header::SET_COOKIE;
    use axum::http::{HeaderName, HeaderValue};
    use axum::response::IntoResponse as _;
    use base64::Engine as _;

    use super::*;
    use crate::secrets::AdminTokenHash;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn secrets(token: Option<&str>) -> Secrets {
        let key = base64::engine::general_purpose::STANDARD.encode([7; 64]);
        let ring = format!(r#"{{"active":"k1","keys":[{{"kid":"k1","key":"{key}"}}]}}"#);
        Secrets::new(
            KeyRing::from_json(ring.as_bytes()).expect("a ring"),
            token.map(AdminTokenHash::of_token),
        )
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header value"))
        };
        pairs.iter().map(pair).collect()
    }

    fn ask(secrets: &Secrets, pairs: &[(&'static str, &str)]) -> Result<Access, AdminError> {
        authorize(Profile::Secure, secrets, Transport::Plain, &headers(pairs), NOW)
    }

    fn cookie(session: &AdminSession) -> String {
        let response = session.seal(secrets(None).ring_for_names(), Transport::Plain).into_response();
        let set = response.headers()[SET_COOKIE].to_str().expect("ASCII");
        set.split(';').next().expect("name=value").to_owned()
    }

    fn session() -> AdminSession {
        AdminSession { sid: "s1".to_owned(), ..AdminSession::begin("t0ken", NOW) }
    }

    #[test]
    fn only_the_token_opens() {
        let secrets = secrets(Some("t0ken"));
        for good in ["Bearer t0ken", "bearer t0ken", "BEARER  t0ken"] {
            assert_eq!(ask(&secrets, &[("authorization", good)]).ok(), Some(Access::Token), "{good}");
        }
        for bad in ["t0ken", "Basic t0ken", "Bearer", "Bearer t0kem", "Bearer "] {
            let answer = ask(&secrets, &[("authorization", bad)]);
            assert!(matches!(answer, Err(AdminError::TokenNeeded)), "{bad}");
        }
        assert!(matches!(ask(&secrets, &[]), Err(AdminError::TokenNeeded)));
    }

    #[test]
    fn a_stack_without_a_token_has_no_admin() {
        let (none, cookie) = (secrets(None), cookie(&session()));
        for pair in [("authorization", "Bearer t0ken"), ("cookie", &*cookie)] {
            assert!(matches!(ask(&none, &[pair]), Err(AdminError::Secret(NotInForce::NoAdminToken))));
        }
        let classic = authorize(Profile::Classic, &none, Transport::Plain, &HeaderMap::new(), NOW);
        assert_eq!(classic.ok(), Some(Access::Open), "classic is open");
    }

    #[test]
    fn a_session_is_for_the_token_it_was_made_with() {
        let cookie = cookie(&session());
        let with = |token| ask(&secrets(Some(token)), &[("cookie", &cookie)]);
        assert_eq!(with("t0ken").ok(), Some(Access::Session(session())));
        assert!(matches!(with("another"), Err(AdminError::TokenNeeded)));
        let both = [("cookie", cookie.as_str()), ("authorization", "Bearer wrong")];
        assert!(ask(&secrets(Some("t0ken")), &both).is_err(), "a wrong token is not made good by a cookie");
    }

    #[test]
    fn a_session_counts_on_our_own_pages_only() {
        let (secrets, cookie) = (secrets(Some("t0ken")), cookie(&session()));
        for (site, is_let_in) in
            [("same-origin", true), ("none", true), ("same-site", false), ("cross-site", false), ("", false)]
        {
            let answer = ask(&secrets, &[("cookie", &cookie), ("sec-fetch-site", site)]);
            assert_eq!(answer.is_ok(), is_let_in, "{site}");
            let answer = ask(&secrets, &[("authorization", "Bearer t0ken"), ("sec-fetch-site", site)]);
            assert!(answer.is_ok(), "no other site can send a token: {site}");
        }
    }

    #[test]
    fn sessions_end_by_age_and_by_idleness() {
        let minutes = SignedDuration::from_mins;
        for (age, idle, is_current) in
            [(0, 0, true), (14, 14, true), (15, 15, false), (59, 1, true), (60, 0, false), (-2, -2, false)]
        {
            let session = AdminSession { iat: NOW - minutes(age), seen: NOW - minutes(idle), ..session() };
            let answer = ask(&secrets(Some("t0ken")), &[("cookie", &cookie(&session))]);
            assert_eq!(answer.is_ok(), is_current, "{age} min old, idle for {idle}");
        }
        assert_eq!(session().renewed(NOW + SignedDuration::from_secs(59)), None);
        let renewed = session().renewed(NOW + minutes(1)).expect("a minute old");
        assert_eq!((renewed.iat, renewed.seen), (NOW, NOW + minutes(1)));
    }
}
