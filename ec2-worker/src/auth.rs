//! Accounts: making one, proving to be its owner, changing and deleting it, and whose session it is.
//!
//! A guess to avoid: a 412 does not mean that somebody else was faster. The SDK repeats a write whose
//! reply was lost, and then our own object refuses it; the nonce tells which of the two it was.

mod error;
mod stored;

mod change;
#[cfg(test)]
mod interleavings;
mod sign_in;
mod sign_up;
mod validity;

pub use change::{change_password, delete, end_all_sessions};
pub use error::AccountError;
pub use sign_in::{Device, SignedIn, sign_in};
pub use sign_up::sign_up;
pub use validity::{end_session, has_ended, put_mark, user_of};
