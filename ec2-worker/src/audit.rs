//! Lines in the log about security events.
//!
//! | field | meaning |
//! |---|---|
//! | `event` | what happened, one of a fixed set of words |
//! | `login` | of an event that proved to be the user's; never of a failure |
//! | `login_hash` | of a failure: a keyed hash, equal for equal logins, and the name of the login's object below `throttle/`. A login that does not exist is often a password in the wrong field |
//! | `from` | address of the client, as the load balancer saw it |
//! | `request` | the id that the answer carried as `X-Request-Id` |
//! | `more` | how many more of this kind came from this address within the same minute without a line of their own |
//!
//! | caused by | target | lines written |
//! |---|---|---|
//! | the operator | `audit` | all |
//! | a user who proved an identity | `audit` | 20 for each kind, address and minute |
//! | any other client | `audit::anonymous` | one for each kind, address and minute; of all these 40 at once, then one each 15 min |
//!
//! Events without a line are counted ([`tally`]). So a client without an account can fill at most 50 KiB of
//! log in a day, and `make logs`, which shows the last 64 KiB of a console, still shows the events of users
//! and operators.
//!
//! No password, token, cookie or session is ever in a line.

use std::net::IpAddr;

use accounts::Login;

use crate::client::Client;
use crate::tally::{self, Kind, Summary};
use crate::{Worker, throttle};

/// `process::telemetry` keeps room for lines of this target.
const AUDIT: &str = process::telemetry::AUDIT;
const ANONYMOUS: &str = "audit::anonymous";

macro_rules! event {
    ($level:ident, $target:expr, $worker:expr, $client:expr, $kind:ident, $($field:tt)*) => {
        if $worker.tally.says(Kind::$kind, $client) {
            tracing::$level!(
                target: $target,
                event = Kind::$kind.name(),
                from = $client.address.map(tracing::field::display),
                request = $client.request(),
                $($field)*
            )
        }
    };
}

pub fn signed_up(worker: &Worker, client: &Client, login: &Login) {
    event!(info, AUDIT, worker, client, SignedUp, login = login.as_str(), "a user has registered");
}

pub fn signed_in(worker: &Worker, client: &Client, login: &Login) {
    event!(info, AUDIT, worker, client, SignedIn, login = login.as_str(), "a user has signed in");
}

pub fn signed_out(worker: &Worker, client: &Client, login: &str) {
    event!(info, AUDIT, worker, client, SignedOut, login, "a user has signed out");
}

pub fn signed_out_everywhere(worker: &Worker, client: &Client, login: &Login) {
    let login = login.as_str();
    event!(info, AUDIT, worker, client, SignedOutEverywhere, login, "a user has ended all sessions");
}

pub fn password_changed(worker: &Worker, client: &Client, login: &Login) {
    let login = login.as_str();
    event!(info, AUDIT, worker, client, PasswordChanged, login, "a user has changed the password");
}

/// In a session, so the login is not a guess.
pub fn proof_failed(worker: &Worker, client: &Client, login: &Login) {
    let login = login.as_str();
    event!(warn, AUDIT, worker, client, ProofFailed, login, "a user did not know the current password");
}

pub fn account_deleted(worker: &Worker, client: &Client, login: &Login) {
    let login = login.as_str();
    event!(info, AUDIT, worker, client, AccountDeleted, login, "a user has deleted the account");
}

pub fn admin_signed_in(worker: &Worker, client: &Client) {
    event!(info, AUDIT, worker, client, AdminSignedIn, "the operator has opened the dashboard");
}

pub fn users_listed(worker: &Worker, client: &Client) {
    event!(info, AUDIT, worker, client, UsersListed, "the operator has read the list of users");
}

pub fn amount_set(worker: &Worker, client: &Client, desired: u32, previous: Option<u32>) {
    event!(info, AUDIT, worker, client, AmountSet, desired, previous, "the desired count is set");
}

/// `failures`: how many in a row, as far as they are counted.
pub fn sign_in_failed(worker: &Worker, client: &Client, login: &str, failures: Option<u32>) {
    event!(
        warn,
        ANONYMOUS,
        worker,
        client,
        SignInFailed,
        login_hash = hash(worker, login),
        failures,
        "the login or the password was wrong"
    );
}

pub fn throttled(worker: &Worker, client: &Client, login: &str) {
    event!(
        warn,
        ANONYMOUS,
        worker,
        client,
        Throttled,
        login_hash = hash(worker, login),
        "an attempt came too soon after failures at the same login"
    );
}

pub fn sign_up_refused(worker: &Worker, client: &Client) {
    event!(warn, ANONYMOUS, worker, client, SignUpRefused, "too many sign-ups from this address");
}

pub fn refused(worker: &Worker, client: &Client, why: &str) {
    event!(warn, ANONYMOUS, worker, client, Refused, why, "a request was refused");
}

pub fn admin_refused(worker: &Worker, client: &Client) {
    event!(
        warn,
        ANONYMOUS,
        worker,
        client,
        AdminRefused,
        "a client without the admin token asked for an admin page or action"
    );
}

/// Logs a summary of the counted events each minute; never returns.
pub async fn keep_summing(worker: Worker) {
    loop {
        tokio::time::sleep(tally::MINUTE).await;
        worker.tally.close_minute().iter().for_each(say);
    }
}

fn say(summary: &Summary) {
    let Summary { kind, from, more, addresses } = *summary;
    let (event, from) = (kind.name(), from.map(|block: IpAddr| tracing::field::display(block)));
    if kind.is_anonymous() {
        tracing::info!(target: ANONYMOUS, event, from, more, addresses, "more of the same within a minute");
    } else {
        tracing::info!(target: AUDIT, event, from, more, addresses, "more of the same within a minute");
    }
}

fn hash(worker: &Worker, login: &str) -> String {
    throttle::count_name(worker.secrets().ring_for_names(), login)
}
