//! Who may see the users and set the desired count.
//!
//! Secure: whoever has the admin token, of which only the SHA-256 is stored. A fast hash is right
//! here: the token is 256 random bits, which nobody guesses. Classic: everybody, as in the original.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use fleet::Profile;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::ApiError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminTokenHash([u8; 32]);

#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("is not the hexadecimal SHA-256 of a token")]
pub struct AdminTokenHashError;

impl AdminTokenHash {
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Reads the object, forgiving white space around it.
    pub fn from_object(bytes: &[u8]) -> Result<Self, AdminTokenHashError> {
        let digits = bytes.trim_ascii();
        let hash = data_encoding::HEXLOWER_PERMISSIVE.decode(digits).map_err(|_| AdminTokenHashError)?;
        hash.try_into().map(Self).map_err(|_| AdminTokenHashError)
    }
}

/// Passes the administrator on, and everybody in classic.
pub fn require(
    profile: Profile,
    configured: Option<&AdminTokenHash>,
    headers: &HeaderMap,
) -> Result<(), ApiError> {
    match profile {
        Profile::Classic => Ok(()),
        Profile::Secure => {
            let expected = configured.ok_or(ApiError::AdminNotConfigured)?;
            let token = bearer_token(headers).ok_or(ApiError::AdminOnly)?;
            let is_admin = bool::from(AdminTokenHash::of(token).0.ct_eq(&expected.0));
            if is_admin { Ok(()) } else { Err(ApiError::AdminOnly) }
        }
    }
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn ask(authorization: Option<&str>, configured: Option<&AdminTokenHash>) -> Result<(), ApiError> {
        let value = authorization.map(|text| HeaderValue::from_str(text).expect("a header value"));
        let headers = value.map(|value| (AUTHORIZATION, value)).into_iter().collect();
        require(Profile::Secure, configured, &headers)
    }

    #[test]
    fn only_the_token_opens() {
        let hash = AdminTokenHash::of("t0ken");
        for good in ["Bearer t0ken", "bearer t0ken", "BEARER  t0ken"] {
            assert!(ask(Some(good), Some(&hash)).is_ok(), "{good}");
        }
        for bad in
            [None, Some("t0ken"), Some("Basic t0ken"), Some("Bearer"), Some("Bearer t0kem"), Some("Bearer ")]
        {
            assert!(matches!(ask(bad, Some(&hash)), Err(ApiError::AdminOnly)), "{bad:?}");
        }
    }

    #[test]
    fn no_token_is_configured_means_nobody() {
        assert!(matches!(ask(Some("Bearer t0ken"), None), Err(ApiError::AdminNotConfigured)));
        assert!(require(Profile::Classic, None, &HeaderMap::new()).is_ok(), "classic is open");
    }

    #[test]
    fn the_object_is_hexadecimal_text() {
        let hex = data_encoding::HEXLOWER.encode(&Sha256::digest(b"t0ken"));
        for text in [hex.clone(), format!("{hex}\n"), hex.to_uppercase()] {
            assert_eq!(
                AdminTokenHash::from_object(text.as_bytes()),
                Ok(AdminTokenHash::of("t0ken")),
                "{text}"
            );
        }
        for text in ["", "t0ken", &hex[..62]] {
            assert_eq!(AdminTokenHash::from_object(text.as_bytes()), Err(AdminTokenHashError), "{text}");
        }
    }
}
