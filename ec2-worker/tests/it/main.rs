//! The HTTP contract, route by route and in both profiles, against a real S3 API.

#[path = "../support/mod.rs"]
mod support;

mod accounts;
mod amounts;
mod changes;
mod classic;
mod contract;
mod dashboard;
mod edges;
mod lists;
mod pages;
mod sessions;
mod starvation;
mod throttling;
