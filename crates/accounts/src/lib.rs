//! A user: a login, a password, and the stored record.
//!
//! Two programs must agree on this to the byte: the workers, and the command line's `migrate-profile`. There
//! is no AWS SDK, no socket and no clock in this crate.

pub mod login;
pub mod password;
pub mod phc;
pub mod record;

pub use login::{Login, LoginError, login_of, object_key};
pub use password::{Password, PasswordError};
pub use phc::{Arena, Cost, CostError, Phc, Unreadable};
pub use record::{Record, SignIn, random_id};
