//! EC2 as the deployer and the reconciler use it. The load balancer and the workers never link this crate:
//! the SDK for EC2 takes minutes to compile.

pub mod launch;
