//! The worker's S3 client, with the worker's time limits.

use std::time::Duration;

use aws::config::Limits;
use aws_sdk_s3::Client;

use crate::config::Addressing;

/// The text for a client whose request needs an object that S3 does not give.
pub const NO_ANSWER: &str = "the storage does not answer at this moment; try again in a second";

/// One S3 call with its retries. A request has 15 s and makes up to three calls; a healthy call
/// takes tens of milliseconds, so ten seconds already mean an outage, and five would give up on a
/// second retry.
const OPERATION_LIMIT: Duration = Duration::from_secs(10);

/// One attempt. Three fit into [`OPERATION_LIMIT`]; S3's slowest answers to small objects are well
/// below a second.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(3);

pub async fn connect(addressing: Addressing) -> Client {
    let limits =
        Limits { connect: None, attempt: Some(ATTEMPT_LIMIT), operation: OPERATION_LIMIT, attempts: 3 };
    aws::config::s3(&aws::config::load(&limits).await, addressing == Addressing::Path)
}

#[cfg(test)]
mod tests {
    use fleet::layers::{LB_RESPONSE, WORKER_REQUEST};

    use super::*;

    #[test]
    fn each_layer_gives_up_before_the_one_around_it() {
        assert!(ATTEMPT_LIMIT < OPERATION_LIMIT && OPERATION_LIMIT < WORKER_REQUEST);
        assert!(WORKER_REQUEST < LB_RESPONSE, "the load balancer would blame a worker at work");
    }
}
