//! Commands that change a stack's objects in S3, against a real S3 API, cut after every single call.

mod migrate_profile;
mod session_keys;
mod support;
