//! A simulator of the reconciler: the real planner and the real step machine against an EC2, an S3,
//! workers and a load balancer that exist only in virtual time.
//!
//! A seed makes a run: a stack, storms of faults, and calms in between. After every effect the rules
//! of `check` are held against what truly is. The same seed gives the same run, to the last event.
//!
//! Modules, in the order a run meets them:

pub mod clock;
pub mod scenario;
pub mod fault;
pub mod machine;
pub mod ec2;
pub mod s3;
pub mod ledger;
pub mod course;
pub mod output;
pub mod world;
pub mod calls;
pub mod chaos;
pub mod check;
pub mod single;
pub mod run;
pub mod latency;
pub mod shrink;
pub mod bad_policy;
pub mod report;
