//! Every timeout and bound of the data path, in one place because they lean on each other:
//! `connect` < `check_timeout` × 2 < `first_byte` < `total` ≤ `drain`.
//!
//! They are values, not constants, so that a test can shorten one; production runs the defaults.
//! Timeouts pass up to a tenth of a second late, see `deadline.rs`.

use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Limits {
    /// To connect to a worker. Workers are in the next rack, a handshake takes under a millisecond;
    /// 1 s outlasts one lost SYN only just, and a second worker is the better answer anyway.
    pub connect: Duration,
    /// From the end of the request to the head of the response. Hashing a password takes a tenth of
    /// a second; half of 5 s would blame workers for a slow S3, double would lose the user.
    pub first_byte: Duration,
    /// All tries of one request together: four silent workers.
    pub total: Duration,
    /// To receive a request body whole; 1 MiB in a minute is a bad telephone line.
    pub upload: Duration,
    /// Between two pieces of a request body. Longer, and idle uploads fill the connection limit.
    pub upload_pause: Duration,
    /// Between two pieces of a response body, counted only while we wait for the worker. A worker
    /// streams a long list from S3 with pauses of well under a second.
    pub reply_pause: Duration,
    /// Between two pieces that the client takes. A client that does not read occupies a worker.
    pub client_pause: Duration,
    /// Between two pieces of an upgraded connection, in either direction. WebSockets are kept alive
    /// by pings of half a minute or less.
    pub tunnel_pause: Duration,
    /// How long a request waits for a first worker. A replaced lone worker takes longer than any
    /// client waits; 5 s covers the gap between two looks at the registry.
    pub hold: Duration,
    /// Requests that may wait so at once; each is a socket and a few KiB, and a crowd that waits
    /// would stampede the first worker.
    pub held: usize,
    /// Requests being served at once. Each holds about 8 KiB and at most 100 KiB; beyond it a quick
    /// 503 is better for everybody than a slow answer.
    pub in_flight: usize,
    /// Tries of one request, each on another worker: four dead ones in a row mean an outage, and
    /// more tries would only multiply it.
    pub tries: usize,
    /// After the order to stop, for requests in flight: the longest a request can take.
    pub drain: Duration,
    /// A client's connection without a request. Longer than the 60 s of most proxies in front, so
    /// that they close first and no request is sent into a closing connection.
    pub idle_client: Duration,
    /// From the first byte of a request head to its end, and for a TLS handshake. Slow heads are the
    /// cheapest way to occupy a server.
    pub head: Duration,
    /// A connection to a worker without a request. Workers keep theirs longer, so that we close
    /// first.
    pub idle_worker: Duration,
    /// Idle connections kept per worker and thread; a burst of as many requests is met without a
    /// handshake.
    pub idle_per_worker: usize,
    /// Client connections; each costs a descriptor and half a KiB here, and a few KiB in the kernel.
    /// Beyond it the longest idle one is closed for the new one, or the new one is refused.
    pub connections: usize,
    /// Between two active checks of a worker.
    pub check_every: Duration,
    /// Between two looks at the certificate. It changes every few weeks, and each look at S3 costs as
    /// much as one at the registry.
    pub certificate_every: Duration,
    /// For one active check; `/healthcheck` touches nothing outside the process.
    pub check_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            first_byte: Duration::from_secs(5),
            total: Duration::from_secs(20),
            upload: Duration::from_secs(60),
            upload_pause: Duration::from_secs(10),
            reply_pause: Duration::from_secs(30),
            client_pause: Duration::from_secs(30),
            tunnel_pause: Duration::from_secs(120),
            hold: Duration::from_secs(5),
            held: 1024,
            in_flight: 4096,
            tries: MAX_TRIES,
            drain: Duration::from_secs(20),
            idle_client: Duration::from_secs(75),
            head: Duration::from_secs(10),
            idle_worker: Duration::from_secs(20),
            idle_per_worker: 256,
            connections: 20_000,
            certificate_every: Duration::from_secs(20),
            check_every: Duration::from_secs(1),
            check_timeout: Duration::from_secs(1),
        }
    }
}

/// The most that `Limits::tries` can be.
pub const MAX_TRIES: usize = 4;

/// The largest request body. Logins and passwords are short; this leaves room for a form's noise.
pub const MAX_REQUEST_BODY: u64 = 1024 * 1024;

/// The largest request body that is kept to be sent again. Every body of this service is far
/// smaller; ten times more, on every connection, would be more memory than the machine has.
pub const MAX_REPLAY_BODY: usize = 64 * 1024;

/// Read at once from any socket. Large bodies need few reads, and it fits into the second cache. Twice
/// as much would be held for each client that stops reading.
pub const READ_BUFFER: usize = 64 * 1024;
