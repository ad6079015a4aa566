//! A running load balancer, as clients and workers see it.
//!
//! `support` runs one inside this process, with fake workers. `raw` runs the program itself, and knows it
//! only by its bytes.

mod raw;
mod support;

mod proxying;
mod tls;

mod failover;

mod draining;

mod discovery;

mod limits;
mod shares;
mod slow_bodies;

mod vectors;

mod oracle;
mod oracle_hyper;

mod effort;

mod process;
