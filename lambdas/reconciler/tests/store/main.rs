//! The store against a real S3 API over HTTP.

mod documents;
mod memory;
mod proxy;
mod support;
