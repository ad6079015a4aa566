//! Limits that two layers must agree on: waits, counts and sizes.
//!
//! A request passes the load balancer and a worker. Where both bound the same wait, the inner layer must give
//! up first, or the outer one blames it for working. Where both bound the same count or size, the outer layer
//! must refuse first, because its refusal tells the client what to do. So the outer value is derived from the
//! inner one in this module, and each layer reads its own:
//!
//! | about | worker | load balancer |
//! |---|---|---|
//! | an answer | [`WORKER_REQUEST`] | < [`LB_RESPONSE`] < [`LB_REQUEST`] < [`LB_DRAIN`] |
//! | an idle connection between them | [`WORKER_IDLE`] | > [`LB_IDLE_WORKER`] |
//! | connections to one worker | [`WORKER_CONNECTIONS`] | > [`LBS_AT_ONCE`] × [`LB_PER_WORKER`] |
//! | header lines | [`WORKER_FIELDS`] | = [`CLIENT_FIELDS`] + [`LB_FIELDS`] |
//! | bytes of a head | [`WORKER_HEAD`] | > [`CLIENT_HEAD`] + [`LB_HEAD`] |

use std::time::Duration;

/// A worker answers a request within this time, if only with a 503. A sign-up makes up to three calls to S3
/// and waits up to 1.5 s for its hash. Half would cut a request that is about to succeed after a retry,
/// double would outlast the client.
pub const WORKER_REQUEST: Duration = Duration::from_secs(15);

/// A stopping worker finishes its requests: the longest request, and some seconds to send it.
pub const WORKER_DRAIN: Duration = WORKER_REQUEST.saturating_add(Duration::from_secs(5));

/// The load balancer waits this long for the head of an answer from a worker that passes its health
/// checks. Two seconds more than the worker takes: half would lose to a pause of the scheduler.
pub const LB_RESPONSE: Duration = WORKER_REQUEST.saturating_add(Duration::from_secs(2));

/// After this much silence on a request the load balancer sends a health check; if that is silent too, the
/// worker is out. A password hash takes a tenth of a second. Half would check workers because S3 is slow,
/// double would keep a user waiting for a worker that hangs.
pub const LB_SILENCE: Duration = Duration::from_secs(5);

/// A health check, which touches nothing outside the worker's process.
pub const LB_CHECK: Duration = Duration::from_secs(1);

/// All tries of one request: one worker that hangs, discovered by a check, and then another that takes its
/// full time.
pub const LB_REQUEST: Duration =
    LB_SILENCE.saturating_add(LB_CHECK).saturating_add(LB_CHECK).saturating_add(LB_RESPONSE);

/// A stopping load balancer finishes its requests. systemd kills at 30 s.
pub const LB_DRAIN: Duration = LB_REQUEST.saturating_add(Duration::from_secs(1));

/// The load balancer keeps an idle connection to a worker this long.
pub const LB_IDLE_WORKER: Duration = Duration::from_secs(20);

/// A worker keeps it longer, or the load balancer would send a request into a closing connection.
pub const WORKER_IDLE: Duration = Duration::from_secs(75);

/// The largest request body that is kept to be sent again. Every body of this service is far
/// smaller; ten times more, on every connection, would be more memory than the machine has.
pub const MAX_REPLAY_BODY: usize = 64 * 1024;

/// Connections a worker serves at once, at 16 KiB each at most.
pub const WORKER_CONNECTIONS: usize = 4096;

/// The part that is kept for health checks: two load balancers and a reconciler ask once a second and hang
/// up, so a handful is enough; each bound by [`WORKER_CHECK`].
pub const WORKER_RESERVE: usize = 64;

/// Limit of a connection on which only health checks are served.
pub const WORKER_CHECK: Duration = Duration::from_secs(2);

/// Load balancers that may send to the same worker: the holder of the address, and its successor.
pub const LBS_AT_ONCE: usize = 2;

/// Connections of one load balancer to one worker, idle or not. The rest is for health checks.
pub const LB_PER_WORKER: usize = (WORKER_CONNECTIONS - WORKER_RESERVE) / LBS_AT_ONCE;

/// Header lines of a request that the load balancer reads.
pub const CLIENT_FIELDS: usize = 100;

/// Header lines that the load balancer may add: `Host`, `X-Forwarded-For`, `-Proto` and `-Host`,
/// `Forwarded`, `X-Request-Id`, one for the body, `TE` or `Upgrade`, and `Connection`.
pub const LB_FIELDS: usize = 9;

/// Header lines of a request that a worker reads.
pub const WORKER_FIELDS: usize = CLIENT_FIELDS + LB_FIELDS;

/// The largest head that the load balancer reads. Passwords travel in paths; 16 KiB is what other
/// servers allow.
pub const CLIENT_HEAD: usize = 16 * 1024;

/// The longest host with its port: a DNS name has 253 bytes. The load balancer repeats it twice.
pub const MAX_HOST: usize = 261;

/// Bytes that the load balancer may add to a head: its own lines, and a space for each of the client's.
pub const LB_HEAD: usize = 1024 + 2 * MAX_HOST;

/// The largest head that a worker reads.
pub const WORKER_HEAD: usize = 32 * 1024;

/// GET routes that change something, by the first part of their path: a sign-in is counted, makes a session
/// and costs a hash, and `/setamount` scales. The load balancer does not repeat them on another worker after
/// silence, because the first may still carry them out.
pub const CHANGING_GETS: [&str; 2] = ["signin", "setamount"];

/// Returns whether a GET for `path` changes something.
pub fn get_changes_something(path: &[u8]) -> bool {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let first = path.split(|byte| matches!(byte, b'/' | b'?')).next().unwrap_or_default();
    CHANGING_GETS.iter().any(|changing| changing.as_bytes() == first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inner_layer_gives_up_first() {
        assert!(WORKER_REQUEST < LB_RESPONSE && LB_RESPONSE < LB_REQUEST && LB_REQUEST < LB_DRAIN);
        assert!(LB_DRAIN < Duration::from_secs(30), "systemd kills a load balancer at 30 s");
        assert!(WORKER_REQUEST < WORKER_DRAIN && WORKER_DRAIN < Duration::from_secs(30));
        assert!(LB_CHECK < LB_SILENCE && LB_SILENCE + 2 * LB_CHECK < LB_RESPONSE);
        assert!(LB_IDLE_WORKER < WORKER_IDLE);
        assert!(LB_CHECK < WORKER_CHECK);
    }

    #[test]
    fn the_outer_layer_refuses_first() {
        const {
            assert!(LBS_AT_ONCE * LB_PER_WORKER + WORKER_RESERVE <= WORKER_CONNECTIONS);
            assert!(CLIENT_FIELDS + LB_FIELDS <= WORKER_FIELDS);
            assert!(CLIENT_HEAD + LB_HEAD + CLIENT_FIELDS <= WORKER_HEAD);
        }
    }

    #[test]
    fn a_get_that_changes_something_is_known_by_its_path() {
        for path in ["/signin/ana/secret", "/setamount", "/setamount/3", "/setamount?amount=3", "/signin"] {
            assert!(get_changes_something(path.as_bytes()), "{path}");
        }
        for path in ["/", "/list", "/signins/ana", "/protected/signin", "/checkamount", ""] {
            assert!(!get_changes_something(path.as_bytes()), "{path}");
        }
    }
}
