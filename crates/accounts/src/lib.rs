//! What a user is: a login, a password, and the record that is stored of them.
//!
//! Two programs must agree on this to the byte: the workers, and the command line's `migrate-profile`.
//! There is no AWS SDK, no socket and no clock in here.

pub mod login;
pub mod password;
pub mod phc;
pub mod record;

pub use login::{Login, LoginError, login_of, object_key};
pub use password::{Password, PasswordError};
pub use phc::{Arena, Cost, CostError, Phc, Unreadable};
pub use record::{Record, SignIn, random_id};
