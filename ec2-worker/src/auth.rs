//! Accounts: making one, proving to be its owner, changing and deleting it, and whose session it is.
//!
//! A guess to avoid: a 412 does not mean that another request was faster. The SDK retries a write whose
//! reply was lost, and then the object of the first try refuses it. The nonce tells the two cases apart.

mod error;
mod stored;

mod change;
#[cfg(test)]
mod interleavings;
mod sign_in;
mod sign_up;
mod validity;

pub use change::{change_password, delete, end_all_sessions};
pub use error::{AccountError, Change, SessionError};
pub use sign_in::{Device, SignedIn, sign_in};
pub use sign_up::sign_up;
pub use validity::{end_session, has_ended, put_mark, user_of};
