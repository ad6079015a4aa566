//! The function's calls against real APIs over HTTP.

mod documents;
mod instances;
mod invocation;
mod memory;
mod support;
