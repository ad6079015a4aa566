//! The workers' HTTP library reads every head that the load balancer forwards.
//!
//! hyper answers a head that it refuses with an empty response, whose cause an operator cannot find. So each
//! head that the load balancer would forward is handed to hyper, set up as a worker sets it up, and must
//! reach the service there. Random connections come from the generator of `oracle.rs`; the limits and
//! the characters are tried one by one.
//!
//! `VIGIA_ORACLE_SEED` and `VIGIA_ORACLE_CASES` repeat or prolong a run.

use std::convert::Infallible;
use std::net::IpAddr;

use crate::oracle::generate;
use crate::raw;
use crate::raw::split::Dice;
use ::http1::chunked;
use ::http1::framing::{Decoder, Framing};
use ::http1::head::{self, MAX_FIELDS, MAX_REQUEST_HEAD, Scan};
use ::http1::request::{self, Body, Malformed, Origin, Scheme};
use fleet::layers;
use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Some seconds.
const CASES: u64 = 5000;

const PEER: &str = "2001:db8:1111:2222:3333:4444:5555:6666";

/// What a worker gets for this head and body, if it gets anything; the body goes as it came.
fn forwarded(head: &[u8]) -> Result<(request::Request, Vec<u8>), Malformed> {
    let peer: IpAddr = PEER.parse().expect("an address");
    let mut out = Vec::new();
    let request = request::read(head, Origin { peer, scheme: Scheme::Https }, || [b'f'; 32], &mut out)?;
    Ok((request, out))
}

/// Both ways in which a body may go to the worker, whole and streamed.
fn finished(request: &request::Request, head: &[u8]) -> Vec<Vec<u8>> {
    let finish = |body: Body, wire: &[u8]| {
        let mut out = head.to_vec();
        request.finish("10.0.0.1:8080", body, &mut out);
        out.extend_from_slice(wire);
        out
    };
    match request.framing {
        Framing::None | Framing::UntilClose => vec![finish(Body::None, b"")],
        Framing::Length(length) => {
            let body = vec![b'x'; usize::try_from(length.min(100)).unwrap_or_default()];
            vec![finish(Body::Length(length.min(100)), &body)]
        }
        Framing::Chunked => {
            let mut chunks = Vec::new();
            chunked::encode(b"hello", &mut chunks);
            chunked::encode_end(b"X-Sum: 1\r\n", &mut chunks);
            vec![finish(Body::Chunked, &chunks), finish(Body::Length(5), b"hello")]
        }
    }
}

/// What hyper answers, and whether the request reached the service.
async fn asked(bytes: &[u8]) -> Result<(), String> {
    let (mut client, server) = tokio::io::duplex(256 * 1024);
    let service = service_fn(async |request: Request<Incoming>| {
        let body = request.into_body().collect().await;
        let text = if body.is_ok() { "read" } else { "broken" };
        Ok::<_, Infallible>(Response::new(http_body_util::Full::new(Bytes::from_static(text.as_bytes()))))
    });
    let connection = http1::Builder::new()
        .max_headers(layers::WORKER_FIELDS)
        .max_buf_size(layers::WORKER_HEAD)
        // This client says at once that it has no more to send.
        .half_close(true)
        .serve_connection(TokioIo::new(server), service);
    let exchange = async {
        client.write_all(bytes).await.expect("there is room");
        client.shutdown().await.expect("it is open");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("it is open");
        String::from_utf8_lossy(&answer).into_owned()
    };
    let (outcome, answer) = tokio::join!(connection, exchange);
    let answer = answer.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&answer);
    let is_read =
        answer.starts_with("HTTP/1.1 200 ") && (answer.contains("read") || bytes.starts_with(b"HEAD "));
    if is_read { Ok(()) } else { Err(format!("{outcome:?}, {answer:?}")) }
}

/// Whether the load balancer forwards this head; if it does, hyper must read it.
async fn is_forwarded(head: &[u8]) -> bool {
    let Ok((request, written)) = forwarded(head) else { return false };
    for bytes in finished(&request, &written) {
        if let Err(error) = asked(&bytes).await {
            let (sent, wrote) = (raw::shown(&raw::latin1(head)), raw::shown(&raw::latin1(&bytes)));
            panic!("hyper refuses a forwarded head: {error}\n  sent: {sent}\n  forwarded: {wrote}");
        }
    }
    true
}

fn setting(name: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "lets a developer repeat a run")]
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test]
async fn hyper_reads_each_forwarded_request() {
    let (seed, cases) =
        (setting("VIGIA_ORACLE_SEED").unwrap_or(1), setting("VIGIA_ORACLE_CASES").unwrap_or(CASES));
    let mut dice = Dice(seed);
    let mut count = 0;
    for _ in 0..cases {
        let mut left = generate::connection(&mut dice);
        loop {
            left.drain(..head::empty_lines(&left));
            let Scan::Complete(len) = head::scan(&left, 0) else { break };
            if len > MAX_REQUEST_HEAD || !is_forwarded(&left[..len]).await {
                break;
            }
            count += 1;
            let (request, _) = forwarded(&left[..len]).expect("it was a moment ago");
            left.drain(..len);
            let mut decoder = Decoder::new(request.framing);
            match decoder.decode(&mut left) {
                Ok(piece) if decoder.is_done() => drop(left.drain(..piece.used)),
                Ok(_) | Err(_) => break,
            }
        }
    }
    assert!(count >= cases, "only {count} heads of {cases} connections were forwarded: this tests nothing");
}

#[tokio::test]
async fn hyper_reads_each_character_of_a_forwarded_target() {
    let mut count = 0;
    for byte in 0..=u8::MAX {
        for (before, after) in [("/", "b"), ("/a", "b"), ("/a?", ""), ("/a?b", "c"), ("http://a/", "?")] {
            let head =
                [b"GET ", before.as_bytes(), &[byte], after.as_bytes(), b" HTTP/1.1\r\nHost: a\r\n\r\n"];
            count += usize::from(is_forwarded(&head.concat()).await);
        }
    }
    assert!(count > 5 * 70, "only {count} were forwarded");
}

#[tokio::test]
async fn hyper_reads_each_character_of_a_forwarded_method_or_line() {
    let mut count = 0;
    for byte in 0..=u8::MAX {
        for (before, after) in [
            ("GE", "T / HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("GET / HTTP/1.1\r\nHost: a\r\nX", "Y: z\r\n\r\n"),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: y", "z\r\n\r\n"),
            ("GET / HTTP/1.1\r\nX: y\r\nHost: a", "\r\n\r\n"),
        ] {
            let head = [before.as_bytes(), &[byte], after.as_bytes()].concat();
            count +=
                usize::from(matches!(head::scan(&head, 0), Scan::Complete(_)) && is_forwarded(&head).await);
        }
    }
    assert!(count > 200, "only {count} were forwarded");
}

#[tokio::test]
async fn hyper_reads_as_many_lines_as_are_forwarded() {
    let kinds = [
        "",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "TE: trailers\r\nTransfer-Encoding: chunked\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        "Expect: 100-continue\r\nContent-Length: 100000\r\n",
    ];
    for kind in kinds {
        let own = 1 + kind.matches("\r\n").count();
        for count in 80..=MAX_FIELDS {
            let lines = "X:y\r\n".repeat(count - own);
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{kind}{lines}\r\n");
            assert!(is_forwarded(head.as_bytes()).await, "{count} lines");
        }
    }
    let old = format!("GET / HTTP/1.0\r\n{}\r\n", "X:y\r\n".repeat(MAX_FIELDS));
    assert!(is_forwarded(old.as_bytes()).await);
}

#[tokio::test]
async fn hyper_reads_as_large_a_head_as_is_forwarded() {
    let host = "h".repeat(layers::MAX_HOST);
    let begin = format!("GET / HTTP/1.1\r\nHost: {host}\r\n");
    let lines = "X:\r\n".repeat(MAX_FIELDS - 2);
    for (before, after) in [
        (format!("{begin}{lines}X: "), "\r\n\r\n".to_owned()),
        (begin, ": y\r\n\r\n".to_owned()),
        ("GET /".to_owned(), format!(" HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n")),
    ] {
        let padding = "p".repeat(MAX_REQUEST_HEAD - before.len() - after.len());
        assert!(is_forwarded(format!("{before}{padding}{after}").as_bytes()).await, "{before:.20}");
    }
    let beyond = format!("GET / HTTP/1.1\r\nHost: h{host}\r\n\r\n");
    assert!(!is_forwarded(beyond.as_bytes()).await, "the host is written three times");
}
