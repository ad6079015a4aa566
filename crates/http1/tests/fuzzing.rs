//! A bounded run of what the fuzz targets check, without a fuzzer: well-formed messages with some
//! bytes changed. `VIGIA_FUZZ_SEED` and `VIGIA_FUZZ_CASES` repeat or prolong it.
//!
//! The fuzzer itself: `cargo fuzz run request --sanitizer none` in `crates/http1`, and `response`,
//! `chunked`.

#[path = "../fuzz/properties.rs"]
mod properties;

use http1 as http;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// About two seconds for all three, not optimised.
const CASES: u64 = 30_000;

/// What the changes are made of: bytes that mean something to some reader.
const PIECES: [&[u8]; 30] = [
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"\0",
    b"\x0b",
    b"\x7f",
    b"\xff",
    b"0",
    b"f",
    b"-",
    b"+",
    b"0x",
    b"#",
    b"%",
    b"Content-Length: 1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: b\r\n",
    b"Connection: close, x\r\n",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"HTTP/1.0",
    b"\"",
    b"Upgrade: x\r\n",
    b"100-continue",
    b"chunked",
];

fn run(name: &str, corpus: &[&[u8]], check: fn(&[u8])) {
    let seed = setting("VIGIA_FUZZ_SEED").unwrap_or(1);
    let cases = setting("VIGIA_FUZZ_CASES").unwrap_or(CASES);
    let mut rng = StdRng::seed_from_u64(seed);
    for case in 0..cases {
        let mut bytes = corpus[rng.random_range(0..corpus.len())].to_vec();
        for _ in 0..rng.random_range(0..4) {
            change(&mut bytes, &mut rng);
        }
        let outcome = std::panic::catch_unwind(|| check(&bytes));
        assert!(outcome.is_ok(), "{name}: seed {seed}, case {case}: {:?}", String::from_utf8_lossy(&bytes));
    }
}

#[expect(clippy::disallowed_methods, reason = "lets a developer repeat a run")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn change(bytes: &mut Vec<u8>, rng: &mut StdRng) {
    let at = rng.random_range(0..=bytes.len());
    match rng.random_range(0..4) {
        0 => drop(bytes.splice(at..at, PIECES[rng.random_range(0..PIECES.len())].iter().copied())),
        1 => bytes.truncate(at),
        2 if at < bytes.len() => bytes[at] = rng.random(),
        _ if at < bytes.len() => drop(bytes.remove(at)),
        _ => {}
    }
}

#[test]
fn a_request_that_is_accepted_means_the_same_to_the_worker() {
    let corpus: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /a?b=%41 HTTP/1.1\r\nHost: a:5000\r\nContent-Length: 3\r\nX-Request-Id: id\r\n\r\n",
        b"PUT http://[::1]/x HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\nTE: trailers\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, X-A\r\nUpgrade: websocket\r\nX-A: 1\r\nForwarded: for=b\r\n\r\n",
        b"OPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\nX-Forwarded-For: b\r\n\r\n",
        b"TRACE / HTTP/1.1\r\nHost: a\r\nCookie: a=b; c=\"d\"\r\nAccept:\r\n\r\n",
    ];
    run("request", &corpus, properties::request);
}

#[test]
fn a_response_that_is_accepted_means_the_same_to_the_client() {
    let corpus: [&[u8]; 5] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-Request-Id: id\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\nConnection: close, x\r\nX: 1\r\n\r\n",
        b"HTTP/1.0 304 Not Modified\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n",
        b"HTTP/1.1 204 \r\nX-Vigia-Draining: 1\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\n",
        b"HTTP/1.1 500\r\n\r\n",
    ];
    run("response", &corpus, properties::response);
}

#[test]
fn a_chunked_body_is_read_the_same_however_it_is_cut() {
    let corpus: [&[u8]; 4] = [
        b"\x035\r\nhello\r\n0\r\n\r\nGET",
        b"\x02005 ;a=\"b\";c\r\nhello\r\n00\r\nX-A: 1\r\nX-B:\r\n\r\n",
        b"\x01A\r\n0123456789\r\nb;x\r\n0123456789a\r\n0\r\n\r\n",
        b"\x070;last\r\n\r\n",
    ];
    run("chunked", &corpus, properties::chunked);
}
