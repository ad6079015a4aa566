//! Random requests, whole and damaged: h11 reads the same requests at the worker and at the client.
//!
//! h11 (Python) shares no code with the load balancer's parser or with the reader
//! in `raw/`. It reads the very bytes that a client sends on a connection, and the very bytes that
//! the load balancer sends to its worker (`oracle/h11_worker.py`). Then
//!
//! - no byte reaches the worker that h11 does not read as a request;
//! - the worker's requests are the first of the client's, in order, the same in method, target, body,
//!   trailers and end-to-end lines, and each answer comes back to the request it answers;
//! - all of the client's arrive, up to the first that the load balancer may refuse: `MAY_REFUSE`.
//!
//! Where h11 refuses and the load balancer does not:
//!
//! | what | why |
//! |---|---|
//! | empty lines before a request | RFC 9112 §2.2 wants them ignored; h11 is given the bytes after them |
//! | requests after one of HTTP/1.0 with `Connection: keep-alive` | RFC 9112 §9.3 allows it; h11 never keeps such a connection, so here it reads on |
//!
//! `VIGIA_ORACLE_SEED` and `VIGIA_ORACLE_CASES` repeat or prolong a run.

pub(crate) mod generate;
mod h11;

use std::time::Duration;

use crate::raw::client::{Client, Reading};
use crate::raw::message;
use crate::raw::process::LoadBalancer;
use crate::raw::split::{Dice, Split};
use crate::raw::{bytes, latin1, shown};
use h11::{H11, Seen, Taken, View, after_origin, end_to_end, is_for_one_hop};

/// About ten seconds.
const CASES: u64 = 2000;

/// How long the load balancer says nothing when it waits for more of a damaged request. Shorter, and
/// a busy machine is taken for a waiting one; that costs a refusal by closing, no false alarm.
const QUIET: Duration = Duration::from_millis(100);

/// Cases that fail before the rest is left alone.
const ENOUGH: usize = 5;

/// Whether a request that h11 reads may be refused.
type May = fn(&Seen) -> bool;

/// What h11 reads and the load balancer may refuse, and why it does.
const MAY_REFUSE: [(&str, May); 15] = [
    ("a bare LF as a line end: others read on (RFC 9112 §2.2)", |seen| {
        let head = seen.head();
        head.match_indices('\n').any(|(at, _)| !head[..at].ends_with('\r'))
    }),
    ("a folded line: others read two (RFC 9112 §5.2)", |seen| {
        seen.head().contains("\n ") || seen.head().contains("\n\t")
    }),
    ("controls in a value: h11 lets them pass for the sake of old cookies (RFC 9110 §5.5)", |seen| {
        seen.headers
            .iter()
            .any(|(_, value)| value.chars().any(|char| char.is_ascii_control() && char != '\t'))
    }),
    ("both Content-Length and Transfer-Encoding: h11 forgets the former (RFC 9112 §6.1)", |seen| {
        seen.has("content-length") && seen.has("transfer-encoding")
    }),
    ("Content-Length more than once or as a list: h11 makes equal ones one (RFC 9110 §8.6)", |seen| {
        let lengths = seen.lines_of("content-length");
        lengths.len() > 1 || lengths.iter().any(|length| length.contains(','))
    }),
    ("a version other than 1.0 and 1.1 (RFC 9112 §2.3)", |seen| !["1.0", "1.1"].contains(&&*seen.version)),
    ("Transfer-Encoding in HTTP/1.0 (RFC 9112 §6.1)", |seen| {
        seen.version == "1.0" && seen.has("transfer-encoding")
    }),
    ("a target that is no path, or none of RFC 3986: h11 takes any visible characters", |seen| {
        !is_plain_target(&seen.method, &seen.target)
    }),
    ("a Host that is no host: h11 takes any value", |seen| !seen.one("host").is_none_or(is_plain_host)),
    ("an absolute target whose host is not Host (RFC 9112 §3.2.2)", |seen| {
        let host = seen.one("host").unwrap_or("a");
        after_origin(&seen.target).is_some() && !host.eq_ignore_ascii_case("a")
    }),
    ("an expectation other than 100-continue: 417 (RFC 9110 §10.1.1)", |seen| {
        seen.values("expect").iter().any(|value| !value.eq_ignore_ascii_case("100-continue"))
    }),
    ("CONNECT: tunnels are not offered", |seen| seen.method == "CONNECT"),
    ("TRACE with content (RFC 9110 §9.3.8)", |seen| {
        seen.method == "TRACE" && (seen.has("content-length") || seen.has("transfer-encoding"))
    }),
    ("chunks that are not by the letter: h11 takes any extension, and blanks after a size", |seen| {
        let (head, chunks) = ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", seen.after_head());
        seen.has("transfer-encoding") && message::request(&bytes(&format!("{head}{chunks}"))).is_err()
    }),
    ("trailers that frame, route or describe (RFC 9110 §6.5.1): h11 takes any field", |seen| {
        let is_plain = |name: &str| !is_for_one_hop(name) && !["host", "content-encoding"].contains(&name);
        seen.trailers.iter().any(|(name, _)| !is_plain(name))
    }),
];

#[test]
fn the_worker_sees_what_the_client_meant() {
    let (seed, cases) =
        (setting("VIGIA_ORACLE_SEED").unwrap_or(1), setting("VIGIA_ORACLE_CASES").unwrap_or(CASES));
    let mut h11 = H11::start();
    let lb = LoadBalancer::start(env!("CARGO_BIN_EXE_ec2-lb"), h11.addr);
    let mut dice = Dice(seed);
    let (mut arrived, mut reports) = (0, Vec::new());
    for case in 0..cases {
        let (sent, split) = (generate::connection(&mut dice), Split::Random(dice.next()));
        let view = h11.view(&sent);
        let (reading, received) = exchanged(&lb, &sent, split, &view);
        let taken = h11.take();
        arrived += taken.requests.len();
        let wrongs = compare(&view, &taken, &reading);
        if !wrongs.is_empty() {
            reports.push(format!(
                "case {case}, cut as {split:?}:\n  {}\n  sent: {}\n  received: {}\n  {}\n  {}\n",
                wrongs.join("\n  "),
                shown(&latin1(&sent)),
                shown(&received),
                view.told(),
                taken.told(),
            ));
        }
        if reports.len() == ENOUGH {
            break;
        }
    }
    assert!(reports.is_empty(), "with VIGIA_ORACLE_SEED={seed}:\n{}", reports.join("\n"));
    assert!(
        arrived as u64 >= cases,
        "only {arrived} requests of {cases} connections arrived: this tests nothing"
    );
}

fn setting(name: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "lets a developer repeat a run")]
    std::env::var(name).ok()?.parse().ok()
}

/// Sends the bytes of one connection and reads all that comes.
fn exchanged(lb: &LoadBalancer, sent: &[u8], split: Split, view: &View) -> (Reading, String) {
    let methods: Vec<String> = view.requests.iter().map(|seen| seen.method.clone()).collect();
    let mut client = Client::connect(lb.addr);
    client.send(sent, split);
    let mut reading = client.read(&methods, |reading| reading.finals().count() >= methods.len());
    if !client.has_ended {
        reading = client.read_for(QUIET, &methods);
    }
    if !client.has_ended {
        // It waits for the rest of something.
        client.finish();
        reading = client.read(&methods, |_| false);
    }
    (reading, client.received())
}

fn compare(view: &View, taken: &Taken, reading: &Reading) -> Vec<String> {
    let mut wrongs: Vec<String> =
        taken.errors.iter().map(|error| format!("at the worker: {error}")).collect();
    if let Some(fault) = &reading.fault {
        wrongs.push(format!("the client cannot read its answer: {fault}"));
    }
    let count = taken.requests.len();
    if count > view.requests.len() {
        wrongs.push(format!("{count} requests arrived, {} were sent", view.requests.len()));
    }
    for (index, (sent, came)) in view.requests.iter().zip(&taken.requests).enumerate() {
        wrongs
            .extend(different(sent, came).into_iter().map(|wrong| format!("request {}: {wrong}", index + 1)));
    }
    let refusable = |sent: &Seen| MAY_REFUSE.iter().any(|(_, may)| may(sent));
    let certain = view.requests.iter().position(refusable).unwrap_or(view.requests.len());
    if count < certain {
        wrongs.push(format!("{count} requests arrived, {certain} should have"));
    }
    let next = view.requests.get(count).or(view.begun.as_ref());
    for unfinished in &taken.unfinished {
        let Some(unfinished) = unfinished else {
            wrongs.push("half a head came to the worker".to_owned());
            continue;
        };
        let is_next =
            next.is_some_and(|next| next.method == unfinished.method && next.path() == unfinished.target);
        if !is_next {
            wrongs.push(format!("{} {} began at the worker", unfinished.method, unfinished.target));
        }
    }
    wrongs.extend(answers(taken, reading));
    wrongs
}

/// Each request that arrived has its own answer, and after them comes one refusal at most.
fn answers(taken: &Taken, reading: &Reading) -> Vec<String> {
    let finals: Vec<_> = reading.finals().collect();
    let is_answer = |(came, answer): (&Seen, &&message::Response)| {
        let text = format!("{} {}", came.method, came.target);
        answer.status == 200
            && answer.body.content == if came.method == "HEAD" { String::new() } else { text }
    };
    let are_answers = taken.requests.iter().zip(&finals).all(is_answer);
    let rest = finals.get(taken.requests.len()..).unwrap_or_default();
    let is_refused = |answer: &&message::Response| (400..=599).contains(&answer.status);
    if finals.len() < taken.requests.len() || !are_answers || rest.len() > 1 || !rest.iter().all(is_refused) {
        let got: Vec<String> = finals
            .iter()
            .map(|answer| format!("{} {}", answer.status, shown(&answer.body.content)))
            .collect();
        return vec![format!("the answers are {got:?}")];
    }
    Vec::new()
}

fn different(sent: &Seen, came: &Seen) -> Option<String> {
    let pairs = [
        ("method", sent.method.clone(), came.method.clone()),
        ("target", sent.path(), came.target.clone()),
        ("body", sent.body.clone(), came.body.clone()),
        ("lines", format!("{:?}", sent.end_to_end()), format!("{:?}", came.end_to_end())),
        (
            "trailers",
            format!("{:?}", end_to_end(&sent.trailers)),
            format!("{:?}", end_to_end(&came.trailers)),
        ),
        (
            "Host",
            sent.one("host").or(came.one("host")).unwrap_or("").to_owned(),
            came.values("host").join(", "),
        ),
    ];
    let differs = pairs.into_iter().find(|(_, sent, came)| sent != came);
    differs.map(|(what, sent, came)| format!("{what} is {} instead of {}", shown(&came), shown(&sent)))
}

fn is_plain_target(method: &str, target: &str) -> bool {
    let path = after_origin(target).unwrap_or(target);
    let is_path = path.starts_with('/') || target != path;
    let is_asterisk = target == "*" && method == "OPTIONS";
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&byte);
    let is_query = |byte: u8| b"|{}^".contains(&byte);
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let are_escapes = path
        .split('%')
        .skip(1)
        .chain(query.split('%').skip(1))
        .all(|after| after.len() >= 2 && after.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()));
    let are_allowed =
        path.bytes().all(is_allowed) && query.bytes().all(|byte| is_allowed(byte) || is_query(byte));
    (is_path && are_allowed && are_escapes) || is_asterisk
}

fn is_plain_host(host: &str) -> bool {
    let (name, port) = host.split_once(':').unwrap_or((host, "1"));
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    !name.is_empty()
        && name.bytes().all(is_name)
        && port.parse::<u16>().is_ok_and(|port| port > 0)
        && !port.starts_with('+')
}
