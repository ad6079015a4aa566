//! The keys of all documents. They are part of the contract, because people edit `desired-count` by hand.

/// Control bucket: plain text integer.
pub const DESIRED_COUNT: &str = "desired-count";
/// Control bucket: see `release.rs`.
pub const RELEASE: &str = "fleet/release.json";
/// Control bucket: see `memory.rs`.
pub const STATE: &str = "fleet/state.json";
/// Control bucket: see `registry.rs`.
pub const REGISTRY: &str = "fleet/registry.json";
/// Control bucket: SHA-256 of the admin token, hexadecimal.
pub const ADMIN_TOKEN_HASH: &str = "secrets/admin-token.sha256";
/// Control bucket: the keys that seal session cookies.
pub const SESSION_KEYS: &str = "secrets/session-keys.json";
/// Control bucket: the load balancer's certificate, its chain and its private key, all in PEM and in
/// one object, so that they change together. Readable by the load balancer's role only.
pub const CERTIFICATE: &str = "tls/certificate.pem";
/// Data bucket: prefix of the user objects.
pub const USERS_PREFIX: &str = "users/";
/// Data bucket: the profile of the users.
pub const PROFILE_MARKER: &str = "meta/profile";

/// Content of the marker while classic users are converted to secure ones: no worker of either profile
/// starts.
pub const MIGRATING: &str = "migrating-to-secure";

/// Control bucket: a binary, named by its content, so that old and new fleets coexist.
pub fn artifact(sha256: &str, name: &str) -> String {
    format!("artifacts/{sha256}/{name}")
}
