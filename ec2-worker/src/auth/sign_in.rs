//! Signing in: one answer for all failures, and one price.
//!
//! In the secure profile every attempt that is not refused before costs exactly one evaluation of
//! argon2 and the same calls to S3, whether the login exists or not, so that the time tells no more
//! than the answer. User objects are not cached here: a cached user would be a faster one.

use accounts::{Login, Password, SignIn, object_key, random_id};
use fleet::Profile;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use super::error::AccountError;
use super::stored::{Found, MAX_TRIES, fetch, find, pause, understand, verify_nothing};
use crate::client::Client;
use crate::extract::Credentials;
use crate::hash_pool::{HashError, PasswordCheck, Ticket};
use crate::session::Session;
use crate::throttle::{self, Attempt, Throttle, ThrottleError};
use crate::user::{self, User};
use crate::{Worker, audit};
use aws::bucket::{Expect, Object, Write};

/// Of sign-ins that follow each other more closely only the first is kept: a program that signs in
/// for every request would otherwise write as often.
const KEPT_EVERY: SignedDuration = SignedDuration::from_mins(1);

/// A browser in which this user has signed in before, with the current password.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Device {
    login: String,
    uid: String,
    epoch: u64,
    id: String,
    since: Timestamp,
}

/// How long a browser stays known. After that time it counts as a stranger until its next sign-in.
const KNOWN_FOR: SignedDuration = SignedDuration::from_hours(90 * 24);

impl Device {
    fn new(login: &Login, user: &User) -> Self {
        Self {
            login: login.as_str().to_owned(),
            uid: user.uid().to_owned(),
            epoch: user.epoch(),
            id: random_id(),
            since: Timestamp::now(),
        }
    }

    /// Returns the device cookie of a browser in which the password was changed. The browser stays known
    /// under a new id, so that failures counted for a stolen copy of the old cookie do not count for it.
    pub fn after_change(&self, session: &Session) -> Option<Self> {
        let is_theirs = self.uid == session.uid;
        is_theirs.then(|| Self { epoch: session.epoch, id: random_id(), ..self.clone() })
    }

    fn is_current(&self, now: Timestamp) -> bool {
        now.duration_since(self.since) < KNOWN_FOR
    }

    fn knows(&self, user: &User) -> bool {
        self.uid == user.uid() && self.epoch == user.epoch()
    }
}

pub struct SignedIn {
    pub session: Session,
    /// For the browser to keep.
    pub device: Option<Device>,
}

/// Begins a session, or refuses with one error for all reasons.
pub async fn sign_in(
    worker: &Worker,
    client: &Client,
    device: Option<Device>,
    given: &Credentials,
) -> Result<SignedIn, AccountError> {
    let login = Login::parse(worker.profile, &given.login).ok();
    let password = Password::given(worker.profile, given.password()).ok();
    match worker.profile {
        Profile::Classic => classic(worker, client, login, password).await,
        Profile::Secure => {
            charge(worker, client)?;
            worker.limits.failed_sign_ins.take(client).map_err(|wait| {
                audit::refused(worker, client, "too many failures from this address");
                AccountError::too_many_requests(wait)
            })?;
            let outcome = secure(worker, client, device, given, login, password).await;
            if !matches!(outcome, Err(AccountError::WrongCredentials)) {
                worker.limits.failed_sign_ins.give_back(client);
            }
            outcome
        }
    }
}

/// Counts an attempt to prove a password for its address, before it costs anything.
pub(super) fn charge(worker: &Worker, client: &Client) -> Result<(), AccountError> {
    worker.limits.attempts.take(client).map_err(|wait| {
        audit::refused(worker, client, "too many attempts from this address");
        AccountError::too_many_requests(wait)
    })
}

async fn classic(
    worker: &Worker,
    client: &Client,
    login: Option<Login>,
    password: Option<Password>,
) -> Result<SignedIn, AccountError> {
    let (Some(login), Some(password)) = (login, password) else { return Err(AccountError::WrongCredentials) };
    let found = understand(worker, fetch(worker, &login).await?)?;
    let Some(Found { user, .. }) = found else { return Err(AccountError::WrongCredentials) };
    let is_right = match &user {
        User::Classic { password: stored, .. } => bool::from(stored.ct_eq(password.as_bytes())),
        User::Secure(_) => false,
    };
    if !is_right {
        return Err(AccountError::WrongCredentials);
    }
    audit::signed_in(worker, client, &login);
    Ok(SignedIn { session: begin_session(worker, &login, &user), device: None })
}

async fn secure(
    worker: &Worker,
    client: &Client,
    device: Option<Device>,
    given: &Credentials,
    login: Option<Login>,
    password: Option<Password>,
) -> Result<SignedIn, AccountError> {
    let Some(login) = login else {
        // No user can have it, so there is nothing to count; it costs the same.
        verify_nothing(worker, worker.hashes.ticket(client)?, password).await?;
        audit::sign_in_failed(worker, client, &given.login, None);
        return Err(AccountError::WrongCredentials);
    };
    let now = Timestamp::now();
    let mut device = device.filter(|device| device.login == login.as_str() && device.is_current(now));
    let (attempt, ticket, found) = loop {
        let count = match &device {
            Some(device) => own_count_of(worker, &login, &device.id),
            None => throttle::count_name(worker.secrets().ring_for_names(), login.as_str()),
        };
        let (attempt, ticket, object) = enter(worker, client, count, &login).await?;
        let found = understand(worker, object)?;
        // It knew an earlier password, or another user of this name.
        let is_stranger = |device: &Device| !found.as_ref().is_some_and(|found| device.knows(&found.user));
        if device.as_ref().is_some_and(is_stranger) {
            device = None;
            continue;
        }
        break (attempt, ticket, found);
    };
    let Some(found) = found else {
        verify_nothing(worker, ticket, password).await?;
        return Err(fail(worker, client, attempt, &login).await);
    };
    let Some(verdict) = verify(worker, ticket, &found.user, password.clone()).await? else {
        return Err(AccountError::WrongCredentials);
    };
    let PasswordCheck::Right { is_dated } = verdict else {
        return Err(fail(worker, client, attempt, &login).await);
    };
    attempt.succeeded().await;
    audit::signed_in(worker, client, &login);
    let device = device.unwrap_or_else(|| Device::new(&login, &found.user));
    let session = begin_session(worker, &login, &found.user);
    remember(worker, client, &login, found, password.filter(|_| is_dated)).await;
    Ok(SignedIn { session, device: Some(device) })
}

fn begin_session(worker: &Worker, login: &Login, user: &User) -> Session {
    Session::begin(login.as_str(), user.uid(), user.epoch(), worker.profile, Timestamp::now())
}

/// Returns the name of the failure count that a proven owner's browser or session has at a login.
pub(super) fn own_count_of(worker: &Worker, login: &Login, who: &str) -> String {
    throttle::own_count_name(worker.secrets().ring_for_names(), login.as_str(), who)
}

/// Waits for a place for an attempt and returns it with the user's object, read while it holds the place.
pub(super) async fn enter<'a>(
    worker: &'a Worker,
    client: &Client,
    name: String,
    login: &Login,
) -> Result<(Attempt<'a>, Ticket, Option<Object>), AccountError> {
    let throttle: &Throttle = &worker.throttle;
    let entered = throttle.enter(name, client, &worker.hashes, || fetch(worker, login), Timestamp::now).await;
    entered.map_err(|error| match error {
        ThrottleError::Busy => AccountError::Busy,
        ThrottleError::Store(error) => error.into(),
        ThrottleError::Wait(wait) => {
            audit::throttled(worker, client, login.as_str());
            AccountError::too_many_attempts(wait.unsigned_abs())
        }
    })
}

pub(super) async fn fail(
    worker: &Worker,
    client: &Client,
    attempt: Attempt<'_>,
    login: &Login,
) -> AccountError {
    let failures = attempt.failed(Timestamp::now()).await;
    audit::sign_in_failed(worker, client, login.as_str(), Some(failures));
    AccountError::WrongCredentials
}

/// Runs argon2 exactly once, even for a password no account can have. Returns `None` for a user of the other
/// profile.
pub(super) async fn verify(
    worker: &Worker,
    ticket: Ticket,
    user: &User,
    password: Option<Password>,
) -> Result<Option<PasswordCheck>, AccountError> {
    match (user, password) {
        (User::Classic { .. }, _) => Ok(None),
        (User::Secure(record), Some(password)) => {
            Ok(Some(worker.hashes.verify(ticket, password, &record.phc).await?))
        }
        (User::Secure(_), None) => {
            verify_nothing(worker, ticket, None).await?;
            Ok(Some(PasswordCheck::Wrong))
        }
    }
}

/// Records the sign-in for the user to see, and hashes the password again if its record has another cost.
async fn remember(worker: &Worker, client: &Client, login: &Login, found: Found, dated: Option<Password>) {
    let phc = match dated {
        Some(password) => rehash(worker, client, password).await.ok(),
        None => None,
    };
    let kept = SignIn { at: Timestamp::now(), from: client.address.map(|address| address.to_string()) };
    if let Err(error) = keep(worker, login, found, &kept, phc.as_deref()).await {
        tracing::warn!(
            error = process::telemetry::error_chain(&error),
            "a sign-in is not recorded for the user"
        );
    }
}

/// Writes over the version that was read. When another write is faster, it reads and writes again, because
/// an attacker who signs in at the same moment as the owner must appear in the list.
async fn keep(
    worker: &Worker,
    login: &Login,
    found: Found,
    sign_in: &SignIn,
    phc: Option<&str>,
) -> Result<(), AccountError> {
    let Found { user: User::Secure(mut record), mut etag } = found else { return Ok(()) };
    let (key, epoch, dated) = (object_key(worker.profile, login), record.epoch, record.phc.clone());
    for _ in 0..MAX_TRIES {
        let is_kept =
            record.sign_ins.last().is_none_or(|last| sign_in.at.duration_since(last.at) >= KEPT_EVERY);
        // If the password was changed during the sign-in, the new one stays.
        let phc = phc.filter(|_| record.phc == dated);
        if !is_kept && phc.is_none() {
            return Ok(());
        }
        record.nonce = random_id();
        if is_kept {
            record.signed_in(sign_in.clone());
        }
        if let Some(phc) = phc {
            phc.clone_into(&mut record.phc);
        }
        match worker.data.put(&key, &user::secure_object(&record), &Expect::Unchanged(etag)).await? {
            Write::Done => return Ok(()),
            Write::Refused | Write::Raced => pause().await,
        }
        let written = record.nonce.clone();
        let Some(Found { user: User::Secure(now), etag: current }) = find(worker, login).await? else {
            return Ok(());
        };
        // Either the SDK's retry met the object of its first try, or all sessions have ended, this one too.
        if now.nonce == written || now.epoch != epoch || now.uid != record.uid {
            return Ok(());
        }
        (record, etag) = (now, current);
    }
    Err(AccountError::Contended)
}

async fn rehash(worker: &Worker, client: &Client, password: Password) -> Result<String, HashError> {
    worker.hashes.hash(worker.hashes.ticket(client)?, password).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::sign_up;
    use crate::memory_s3::MemoryS3;

    fn given(password: &str) -> Credentials {
        Credentials::new("ana", password)
    }

    #[tokio::test(start_paused = true)]
    async fn every_attempt_is_charged_to_its_address() {
        let worker = MemoryS3::default().worker();
        let from = |address: &str| Client { address: address.parse().ok(), ..Client::default() };
        let (ana, bob) = (from("192.0.2.7"), from("192.0.2.8"));
        sign_up(&worker, &bob, &given("correct horse")).await.expect("registered");
        // All but five of what an address may do at once.
        for _ in 0..295 {
            worker.limits.attempts.take(&ana).expect("within the burst");
        }
        for password in ["correct horse", "wrong horse", "wrong horse", "correct horse", "wrong horse"] {
            let outcome = sign_in(&worker, &ana, None, &given(password)).await;
            assert!(matches!(outcome, Ok(_) | Err(AccountError::WrongCredentials)));
        }
        let before = worker.hashes.evaluations();
        let outcome = sign_in(&worker, &ana, None, &given("correct horse")).await;
        assert!(matches!(outcome, Err(AccountError::TooManyRequests(_))));
        assert_eq!(worker.hashes.evaluations(), before, "it cost nothing");
        assert!(sign_in(&worker, &bob, None, &given("correct horse")).await.is_ok(), "another address");
    }

    #[test]
    fn a_change_of_password_gives_the_browser_another_id() {
        let session = Session::begin("ana", "u1", 1, Profile::Secure, Timestamp::now());
        let text = |text: &str| text.to_owned();
        let (login, uid, id, since) = (text("ana"), text("u1"), text("d1"), Timestamp::now());
        let before = Device { login, uid, epoch: 0, id, since };
        let after = before.after_change(&session).expect("a browser of the user");
        assert_eq!((&after.uid, after.epoch), (&before.uid, 1));
        assert_ne!(after.id, before.id);
    }
}
