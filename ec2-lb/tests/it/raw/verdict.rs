//! Whether what happened is what a vector says.

use super::message::{Body, Fields, Framing, Request, Response};
use super::run::{Outcome, SMUGGLED};
use super::shown;
use super::vector::{After, Gets, Headers, OneOf, Passed, Text, Vector, Want};

/// In a name, a value or a body: what must not get through, in either direction.
const LEAK: &str = "leak";

/// All that is wrong.
pub(crate) fn compare(vector: &Vector, outcome: &Outcome) -> Vec<String> {
    let mut wrongs = Wrongs::default();
    let finals: Vec<&Response> = outcome.responses.iter().filter(|response| !response.is_interim()).collect();
    if let Some(fault) = &outcome.fault {
        wrongs.add(format!("the client cannot read its answer: {fault}"));
    }
    let is_refused = |refused: &OneOf<u16>| {
        vector.or_passed.is_empty() || finals.first().is_none_or(|first| refused.has(&first.status))
    };
    let refused = vector.refused.as_ref().filter(|refused| is_refused(refused));
    let passed = match (refused, &vector.refused) {
        (None, Some(_)) => vector.or_passed.iter().cloned().chain([smuggled()]).collect(),
        _ => vector.passed.clone(),
    };
    wrongs.all("", answers(vector, outcome, &finals, &passed, refused));
    wrongs.all("", arrivals(vector, outcome, &passed));
    wrongs.all("", interims(vector, outcome));
    wrongs.all("", afterwards(vector, outcome, refused.is_some()));
    if outcome.received.to_ascii_lowercase().contains(LEAK) {
        wrongs.add("the client got text that it must never get");
    }
    let late = &outcome.late;
    for late in late.arrivals.iter().map(|late| &late.raw).chain(&late.unfinished).chain(&late.faults) {
        wrongs.add(format!("only after the run before this one, the worker got {}", shown(late)));
    }
    wrongs.0
}

#[derive(Default)]
struct Wrongs(Vec<String>);

impl Wrongs {
    fn add(&mut self, wrong: impl Into<String>) {
        self.0.push(wrong.into());
    }

    fn all(&mut self, of: &str, wrongs: Vec<String>) {
        self.0.extend(wrongs.into_iter().map(|wrong| format!("{of}{wrong}")));
    }
}

/// The final responses.
fn answers(
    vector: &Vector,
    outcome: &Outcome,
    finals: &[&Response],
    passed: &[Passed],
    refused: Option<&OneOf<u16>>,
) -> Vec<String> {
    let mut wrongs = Wrongs::default();
    let gets = if vector.gets.is_empty() { passed.len() } else { vector.gets.len() };
    let expected = gets + usize::from(refused.is_some());
    let may_be_silent =
        vector.breaks_off || vector.gets.iter().all(|gets| gets.is_broken) && !vector.gets.is_empty();
    let is_silent = may_be_silent && finals.is_empty() && outcome.has_ended;
    if finals.len() != expected && !is_silent {
        let statuses: Vec<u16> = finals.iter().map(|response| response.status).collect();
        wrongs.add(format!("{expected} responses should have come, but {statuses:?} came"));
    }
    for (index, response) in finals.iter().take(gets).enumerate() {
        let found = match vector.gets.get(index) {
            Some(gets) => got(gets, response),
            None => {
                let target = outcome.worker.arrivals.get(index).map_or("", |one| one.request.target.as_str());
                plain(&passed[index].method, target, response)
            }
        };
        wrongs.all(&format!("response {}: ", index + 1), found);
    }
    if let (Some(refused), Some(response)) = (refused, finals.get(gets)) {
        wrongs.all("the refusal: ", refusal(refused, response));
    }
    wrongs.0
}

/// The worker's own answer to a request, unchanged.
fn plain(method: &str, target: &str, response: &Response) -> Vec<String> {
    let mut wrongs = Wrongs::default();
    let text = format!("{method} {target}");
    let length = text.len().to_string();
    let body = if method == "HEAD" { String::new() } else { text };
    let Body { content, is_whole, .. } = &response.body;
    if response.status != 200 || *content != body || !is_whole {
        wrongs.add(format!("{} {} instead of 200 {}", response.status, shown(content), shown(&body)));
    } else if response.fields.one("x-worker") != Some("yes")
        || response.fields.one("content-length") != Some(&length)
    {
        wrongs.add(format!("the worker's header lines have become {:?}", response.fields.0));
    }
    wrongs.0
}

/// Checks a refusal, which is the load balancer's own: it names the error and closes the connection.
fn refusal(refused: &OneOf<u16>, response: &Response) -> Vec<String> {
    let mut wrongs = Wrongs::default();
    if !refused.has(&response.status) {
        wrongs.add(format!("{} instead of {:?}", response.status, refused.values()));
    }
    let json = serde_json::from_str(&response.body.content).unwrap_or(serde_json::Value::Null);
    if !json["error"].is_string() || !json["message"].is_string() {
        wrongs.add(format!("{} has no error and message", shown(&response.body.content)));
    }
    if !response.fields.connection("close") {
        wrongs.add("no Connection: close");
    }
    if response.fields.one("x-request-id").is_none_or(|id| !is_request_id(id)) {
        wrongs.add("no X-Request-Id");
    }
    if !response.fields.one("content-type").is_some_and(|of| of.starts_with("application/json")) {
        wrongs.add("it does not say that it is JSON");
    }
    wrongs.0
}

fn got(gets: &Gets, response: &Response) -> Vec<String> {
    let mut wrongs = Wrongs::default();
    let Body { content, framing, trailers, is_whole, .. } = &response.body;
    if gets.is_broken {
        if *is_whole && response.status != 502 {
            wrongs.add(format!("{} that seems whole: {}", response.status, shown(content)));
        }
        return wrongs.0;
    }
    if !gets.status.has(&response.status) {
        wrongs.add(format!("{} instead of {:?}", response.status, gets.status.values()));
        return wrongs.0;
    }
    if !is_whole {
        wrongs.add(format!("it ends too early, after {}", shown(content)));
    }
    if let Some(body) = &gets.body {
        wrongs.all("", same_body(body, content));
    }
    if response.body.has_chunk_extensions {
        wrongs.add("chunk extensions have come through");
    }
    wrongs.all("", same_framing(gets.framing.as_ref().map(OneOf::values), *framing));
    wrongs.all("", check(&response.fields, &gets.headers));
    wrongs.all("trailers: ", check(trailers, &gets.trailers));
    wrongs.0
}

/// What reached the worker.
fn arrivals(vector: &Vector, outcome: &Outcome, passed: &[Passed]) -> Vec<String> {
    let mut wrongs = Wrongs::default();
    let worker = &outcome.worker;
    for fault in &worker.faults {
        wrongs.add(format!("the worker cannot read its request: {fault}"));
    }
    if !vector.may_begin {
        for bytes in &worker.unfinished {
            wrongs.add(format!("the worker got the beginning of a request: {}", shown(bytes)));
        }
    }
    for begun in worker.unfinished.iter().filter(|bytes| bytes.to_ascii_lowercase().contains(LEAK)) {
        wrongs.add(format!("the worker got text that it must never get: {}", shown(begun)));
    }
    if passed.is_empty() && vector.refused.is_none() {
        wrongs.all("", tries(vector, outcome));
    } else {
        for (index, passed) in passed.iter().enumerate() {
            let Some(arrival) = worker.arrivals.get(index) else {
                wrongs.add(format!("{} {:?} never came", passed.method, passed.target.texts()));
                continue;
            };
            wrongs.all(&format!("request {}: ", index + 1), arrived(passed, &arrival.request));
        }
        for arrival in worker.arrivals.iter().skip(passed.len()) {
            wrongs.add(format!("the worker got a request too many: {}", arrival.request));
        }
    }
    let is_bad = vector.gets.iter().any(|gets| gets.is_broken || gets.status.values() == [502]);
    for arrival in &worker.arrivals {
        if (is_bad || vector.ends_connection) && outcome.used_again.contains(&arrival.connection) {
            wrongs.add("the worker's connection was used again");
        }
        wrongs.all("", always(outcome, &arrival.request));
        if arrival.raw.to_ascii_lowercase().contains(LEAK) {
            wrongs.add(format!("the worker got text that it must never get: {}", shown(&arrival.raw)));
        }
    }
    wrongs.0
}

/// Where the response matters and not the request: it came, and once more at most if it may be
/// repeated and the response was no good.
fn tries(vector: &Vector, outcome: &Outcome) -> Vec<String> {
    let sent = vector.send.text();
    let is_bad = vector.gets.iter().any(|gets| gets.is_broken || gets.status.has(&502));
    let most = if is_bad && !sent.starts_with("POST ") { 2 } else { 1 };
    let came: Vec<String> = outcome
        .worker
        .arrivals
        .iter()
        .map(|one| format!("{} {}", one.request.method, one.request.target))
        .collect();
    let is_it = |came: &String| sent.starts_with(&format!("{came} HTTP/1."));
    // A response before the end of the request may leave it unfinished.
    let fewest = usize::from(!vector.may_begin);
    if !(fewest..=most).contains(&came.len()) || !came.iter().all(is_it) {
        return vec![format!("the worker got {came:?}")];
    }
    Vec::new()
}

fn arrived(passed: &Passed, request: &Request) -> Vec<String> {
    let mut wrongs = Wrongs::default();
    if request.method != passed.method || !passed.target.texts().contains(&request.target) {
        let (method, target) = (&passed.method, passed.target.texts());
        wrongs.add(format!("{} {} instead of {method} {target:?}", request.method, request.target));
    }
    wrongs.all("", same_body(&passed.body, &request.body.content));
    wrongs.all("", same_framing(passed.framing.as_ref().map(OneOf::values), request.body.framing));
    wrongs.all("", check(&request.fields, &passed.headers));
    wrongs.all("trailers: ", check(&request.body.trailers, &passed.trailers));
    wrongs.0
}

/// What holds for every request at a worker.
fn always(outcome: &Outcome, request: &Request) -> Vec<String> {
    let mut wrongs = Wrongs::default();
    let ip = outcome.ip.to_string();
    let Some(host) = request.fields.one("host") else {
        return vec![format!("Host is {:?}", request.fields.all("host"))];
    };
    for (name, value) in [("x-forwarded-for", ip.as_str()), ("x-forwarded-proto", "http")] {
        let values = request.fields.all(name);
        if values != [value] {
            wrongs.add(format!("{name} is {values:?}"));
        }
    }
    let forwarded_hosts = request.fields.all("x-forwarded-host");
    if !forwarded_hosts.iter().all(|forwarded| forwarded.eq_ignore_ascii_case(host))
        || forwarded_hosts.len() > 1
    {
        wrongs.add(format!("X-Forwarded-Host is {forwarded_hosts:?}, Host is {host:?}"));
    }
    if request.fields.one("x-request-id").is_none_or(|id| !is_request_id(id)) {
        wrongs.add(format!("X-Request-Id is {:?}", request.fields.all("x-request-id")));
    }
    for name in ["keep-alive", "proxy-connection", "http2-settings"] {
        if !request.fields.all(name).is_empty() {
            wrongs.add(format!("{name} has come through"));
        }
    }
    if request.body.has_chunk_extensions {
        wrongs.add("chunk extensions have come through");
    }
    wrongs.0
}

fn interims(vector: &Vector, outcome: &Outcome) -> Vec<String> {
    let mut wrongs = Wrongs::default();
    let interims = || outcome.responses.iter().filter(|response| response.is_interim());
    let Some(expected) = &vector.interim else {
        let is_allowed = |status: &u16| *status == 100 && !outcome.is_http_1_0;
        let statuses: Vec<u16> = interims().map(|response| response.status).collect();
        if !statuses.iter().all(is_allowed) || statuses.len() > 1 {
            wrongs.add(format!("interim responses {statuses:?}"));
        }
        return wrongs.0;
    };
    if interims().count() != expected.len() {
        let statuses: Vec<u16> = interims().map(|response| response.status).collect();
        wrongs.add(format!("interim responses {statuses:?}"));
    }
    for (gets, response) in expected.iter().zip(interims()) {
        wrongs.all("interim response: ", got(gets, response));
    }
    wrongs.0
}

/// What became of the connections.
fn afterwards(vector: &Vector, outcome: &Outcome, is_refused: bool) -> Vec<String> {
    let mut wrongs = Wrongs::default();
    let expected = if is_refused { After::Closed } else { vector.after };
    match (&outcome.next, outcome.has_ended) {
        (None, false) => wrongs.add("the connection stays open"),
        (None, true) if expected == After::Kept => wrongs.add("the connection was closed"),
        (None, true) => {}
        (Some(Ok(())), _) if expected == After::Closed => wrongs.add("the connection stays open"),
        (Some(Ok(())), _) => {}
        (Some(Err(_)), _) if expected == After::Closed && !is_refused => {
            wrongs.add("the connection was closed without Connection: close");
        }
        (Some(Err(wrong)), _) => wrongs.add(format!("the next request on the connection: {wrong}")),
    }
    if let Err(wrong) = &outcome.elsewhere {
        wrongs.add(format!("a request on another connection: {wrong}"));
    }
    if !outcome.rest.is_empty() {
        wrongs.add(format!("after the responses there are bytes: {}", shown(&outcome.rest)));
    }
    wrongs.0
}

fn same_body(expected: &Text, content: &str) -> Vec<String> {
    let expected = expected.text();
    if expected == content {
        return Vec::new();
    }
    vec![format!("the body is {} instead of {}", shown(content), shown(&expected))]
}

fn same_framing(expected: Option<&[super::vector::Frame]>, framing: Framing) -> Vec<String> {
    match expected {
        Some(expected) if !expected.contains(&framing.into()) => {
            vec![format!("it is framed by {framing:?} instead of {expected:?}")]
        }
        _ => Vec::new(),
    }
}

fn check(fields: &Fields, headers: &Headers) -> Vec<String> {
    let mut wrongs = Vec::new();
    for (name, want) in headers {
        let values = fields.all(name);
        let has = |part: &str| {
            let part = part.to_ascii_lowercase();
            values.iter().any(|value| value.to_ascii_lowercase().contains(&part))
        };
        let is_fine = match want {
            None => values.is_empty(),
            Some(Want::Is(value)) => values == [value.text()],
            Some(Want::Are(expected)) => values == *expected,
            Some(Want::Has(part)) => has(part),
            Some(Want::Lacks(part)) => !has(part),
        };
        if !is_fine {
            wrongs.push(format!("{name} is {values:?}, not {want:?}"));
        }
    }
    wrongs
}

fn smuggled() -> Passed {
    debug_assert!(SMUGGLED.starts_with("GET /smuggled "));
    Passed::plain("GET", "/smuggled")
}

fn is_request_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}
