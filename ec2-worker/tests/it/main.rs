//! The login service against a real S3 API: the HTTP contract route by route and in both profiles, a
//! failing S3, and the program itself.
//!
//! `secrets_sweep` is a program of its own, because it listens to the whole process's log.

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

mod storage_faults;

mod process;

mod documents;
