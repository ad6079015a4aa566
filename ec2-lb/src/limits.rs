//! Every timeout and bound of the data path, in one place because they lean on each other:
//! `connect` ≤ `check_timeout` < `silence` < `response` < `total` < `drain`. What workers must know of
//! them is in `fleet::layers`, derived from the workers' own.
//!
//! | limit | in all | one address | when it is full |
//! |---|---|---|---|
//! | `connections` | 20,000 | 5,000 | the longest idle one is closed, then the slowest request, else 429 or 503 |
//! | `handshakes` | 2,048 | 512 | the oldest is dropped |
//! | `arriving` | 2,048 | 512 | the request with the least progress is dropped with 503, else 429 or 503 |
//! | `held` | 1,024 | 256 | 429 or 503 |
//! | `in_flight` | 4,096 | 1,024 | 429 or 503 |
//!
//! 429 if the address has its share, 503 if all is taken. Each thread has an equal part of each limit
//! and of each share: nothing is shared on the way of a request, and the kernel spreads the connections
//! of an address evenly. Loopback addresses are addresses like all others.
//!
//! They are values, not constants, so that a test can shorten one; production runs the defaults.
//! Timeouts pass up to a tenth of a second late, see `deadline.rs`.

use std::time::Duration;

use fleet::layers;

/// The things that are counted against a limit, in all and by client address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Connection,
    Handshake,
    Arriving,
    Held,
    InFlight,
}

pub(crate) const KINDS: usize = 5;

#[derive(Clone, Debug)]
pub struct Limits {
    /// To connect to a worker. Workers are close by, and a handshake takes under a millisecond. 1 s just
    /// outlasts one lost SYN; after that another worker is the better choice.
    pub connect: Duration,
    /// From the end of the request, without a byte of the response, to a health check. The worker is ejected
    /// only if the check gets no answer either.
    pub silence: Duration,
    /// From the end of the request to the head of the response of a worker that passes its checks.
    pub response: Duration,
    /// All tries of one request together.
    pub total: Duration,
    /// To receive a whole request body. 1 MiB in a minute is the rate of a bad telephone line.
    pub upload: Duration,
    /// Between two pieces of a request body. If it were longer, idle uploads would fill the connection limit.
    pub upload_pause: Duration,
    /// Bytes a second that a client must send of a body or take of a response, while it is waited for.
    /// A telephone line has seven times as much. At half, bytes that come now and then would hold a place twice as
    /// long; at double, mobile clients at the edge of a cell would be cut.
    pub client_rate: u64,
    /// How far a client may be behind that rate with a body: a loss of the first packets and two
    /// repetitions.
    pub upload_grace: Duration,
    /// Between two pieces of a response body, counted only while we wait for the worker. A worker
    /// streams a long list from S3 with pauses of well under a second.
    pub reply_pause: Duration,
    /// Between two pieces that the client takes, and how far it may be behind the rate with a
    /// response. A client that does not read occupies a worker.
    pub client_pause: Duration,
    /// Between two pieces of an upgraded connection, in either direction. WebSockets are kept alive
    /// by pings of half a minute or less.
    pub tunnel_pause: Duration,
    /// How long a request waits for a first worker. A replaced lone worker takes longer than any
    /// client waits; 5 s covers the gap between two reads of the registry.
    pub hold: Duration,
    /// An address may take one in so many of each limit below: it takes four to fill one. At 2 two
    /// could; at 8 an office behind one address would have 640 connections for each of four threads.
    pub shares: usize,
    /// Requests that may wait for a first worker at once; each is a socket and a few KiB, and a crowd
    /// that waits would stampede the first worker.
    pub held: usize,
    /// Requests of which a part has come, head or body, streamed bodies included. Half of `in_flight`, so
    /// that slow bodies can never take all of that. Each holds up to 16 KiB of a head or 80 KiB of a
    /// body, and the kernel up to 64 KiB that a worker has not taken; at double, the worst case would be a
    /// third of the smallest machine's memory.
    pub arriving: usize,
    /// TLS handshakes in progress; each costs some 30 KiB and a signature. A core makes 2,000 a second, so
    /// more than a second's worth would time out.
    pub handshakes: usize,
    /// Requests for which a worker was chosen and whose response has not ended. Each holds about 8 KiB
    /// and at most 100 KiB. Above the limit a quick 503 serves clients better than a slow answer.
    pub in_flight: usize,
    /// Requests in flight on one worker, from this load balancer: with the idle connections below fewer
    /// than the worker serves, so that its health checks always get through.
    pub per_worker: usize,
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
    /// Idle connections kept per worker, by all threads; a burst of as many requests is met without a
    /// handshake.
    pub idle_per_worker: usize,
    /// Client connections; each costs a descriptor and half a KiB here, and a few KiB in the kernel.
    /// At double, the kernel's part alone would be half of the smallest machine's memory.
    pub connections: usize,
    /// Between two active checks of a worker.
    pub check_every: Duration,
    /// Between two reads of the certificate. It changes every few weeks, and each read costs as much as one
    /// of the registry.
    pub certificate_every: Duration,
    /// For one active check; `/healthcheck` touches nothing outside the process.
    pub check_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            silence: layers::LB_SILENCE,
            response: layers::LB_RESPONSE,
            total: layers::LB_REQUEST,
            upload: Duration::from_secs(60),
            upload_pause: Duration::from_secs(10),
            client_rate: 1024,
            upload_grace: Duration::from_secs(5),
            reply_pause: Duration::from_secs(30),
            client_pause: Duration::from_secs(30),
            tunnel_pause: Duration::from_secs(120),
            hold: Duration::from_secs(5),
            shares: 4,
            held: 1024,
            arriving: 2048,
            handshakes: 2048,
            in_flight: 4096,
            per_worker: layers::LB_PER_WORKER - IDLE_PER_WORKER,
            tries: MAX_TRIES,
            drain: layers::LB_DRAIN,
            idle_client: Duration::from_secs(75),
            head: Duration::from_secs(10),
            idle_worker: layers::LB_IDLE_WORKER,
            idle_per_worker: IDLE_PER_WORKER,
            connections: 20_000,
            certificate_every: Duration::from_secs(20),
            check_every: Duration::from_secs(1),
            check_timeout: layers::LB_CHECK,
        }
    }
}

const IDLE_PER_WORKER: usize = 512;

/// The most that `Limits::tries` can be.
pub const MAX_TRIES: usize = 4;

/// The largest request body. Logins and passwords are short; this leaves room for a form's noise.
pub const MAX_REQUEST_BODY: u64 = 1024 * 1024;

/// Of a larger body so much comes before a worker is chosen: a client that announces much and sends
/// nothing occupies none. Each byte of it is copied once more, so not all that could be kept.
pub const PROOF_OF_BODY: usize = 16 * 1024;

/// Read at once of a body that is kept. More would be held beyond what may be.
pub const BODY_PIECE: usize = 16 * 1024;

/// Read at once from any socket. Large bodies need few reads, and it fits into the second cache. Twice
/// as much would be held for each client that stops reading.
pub const READ_BUFFER: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_longer_than_the_waits_inside_it() {
        let limits = Limits::default();
        assert!(limits.connect <= limits.check_timeout && limits.check_timeout < limits.silence);
        assert!(limits.silence < limits.response && limits.response < limits.total);
        assert!(limits.total < limits.drain);
        assert!(limits.upload_grace < limits.upload_pause && limits.upload_pause < limits.upload);
    }

    #[test]
    fn the_load_balancer_gives_up_after_the_worker() {
        let limits = Limits::default();
        assert!(limits.response > layers::WORKER_REQUEST);
        assert!(limits.idle_worker < layers::WORKER_IDLE);
        let to_one_worker = layers::LBS_AT_ONCE * (limits.per_worker + limits.idle_per_worker);
        assert!(to_one_worker + layers::WORKER_RESERVE <= layers::WORKER_CONNECTIONS);
    }

    #[test]
    fn arriving_bodies_never_take_all_places_in_flight() {
        let limits = Limits::default();
        assert!(limits.arriving < limits.in_flight);
    }
}
