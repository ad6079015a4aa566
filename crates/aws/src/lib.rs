//! The AWS SDK as every program uses it: one configuration, one meaning for each error, one way to read
//! and replace a small object in S3.
//!
//! There is no EC2 in here, so the load balancer and the workers never link it; `aws-ec2` has that.

pub mod config;
pub mod error;
pub mod date;
pub mod bucket;
