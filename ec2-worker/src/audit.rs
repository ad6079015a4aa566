//! One line in the log for each security event, under the target `audit`.
//!
//! | field | meaning |
//! |---|---|
//! | `event` | what happened, one of a fixed set of words |
//! | `login` | of an event that proved to be the user's; never of a failure |
//! | `login_hash` | of a failure: a keyed hash, equal for equal logins, and the name of the login's object below `throttle/`. A login that does not exist is often a password in the wrong field |
//! | `from` | address of the client, as the load balancer saw it |
//! | `request` | the id that the answer carried as `X-Request-Id` |
//!
//! No password, token, cookie or session is ever in it.

use users::Login;

use crate::Worker;
use crate::client::Client;

macro_rules! event {
    ($level:ident, $client:expr, $event:literal, $($field:tt)*) => {
        tracing::$level!(
            target: "audit",
            event = $event,
            from = $client.address.map(tracing::field::display),
            request = $client.request(),
            $($field)*
        )
    };
}

pub fn signed_up(client: &Client, login: &Login) {
    event!(info, client, "signed_up", login = login.as_str(), "a user has registered");
}

pub fn signed_in(client: &Client, login: &Login) {
    event!(info, client, "signed_in", login = login.as_str(), "a user has signed in");
}

/// `failures`: how many in a row, as far as they are counted.
pub fn sign_in_failed(worker: &Worker, client: &Client, login: &str, failures: Option<u32>) {
    let login_hash = hash(worker, login);
    event!(warn, client, "sign_in_failed", login_hash, failures, "the login or the password was wrong");
}

pub fn throttled(worker: &Worker, client: &Client, login: &str) {
    let login_hash = hash(worker, login);
    event!(
        warn,
        client,
        "throttled",
        login_hash,
        "an attempt came too soon after failures at the same login"
    );
}

pub fn sign_up_refused(client: &Client) {
    event!(warn, client, "sign_up_refused", "too many sign-ups from this address");
}

pub fn users_listed(client: &Client) {
    event!(info, client, "users_listed", "the operator has read the list of users");
}

pub fn refused(client: &Client, why: &str) {
    event!(warn, client, "refused", why, "a request was refused");
}

pub fn signed_out(client: &Client, login: &str) {
    event!(info, client, "signed_out", login, "a user has signed out");
}

pub fn signed_out_everywhere(client: &Client, login: &Login) {
    event!(info, client, "signed_out_everywhere", login = login.as_str(), "a user has ended all sessions");
}

pub fn password_changed(client: &Client, login: &Login) {
    event!(info, client, "password_changed", login = login.as_str(), "a user has another password");
}

/// In a session, so the login is not a guess.
pub fn proof_failed(client: &Client, login: &Login) {
    event!(warn, client, "proof_failed", login = login.as_str(), "a user did not know the current password");
}

pub fn account_deleted(client: &Client, login: &Login) {
    event!(info, client, "account_deleted", login = login.as_str(), "a user has deleted the account");
}

pub fn admin_signed_in(client: &Client) {
    event!(info, client, "admin_signed_in", "the operator has opened the dashboard");
}

pub fn admin_refused(client: &Client) {
    event!(warn, client, "admin_refused", "somebody without the token asked for what is the operator's");
}

pub fn amount_set(client: &Client, desired: u32, previous: Option<u32>) {
    event!(info, client, "amount_set", desired, previous, "the desired count is set");
}

fn hash(worker: &Worker, login: &str) -> String {
    crate::accounts::count_of(worker, login)
}
