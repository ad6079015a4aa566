//! h11 in a process of its own, and the requests that it reads.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::raw::shown;

/// h11 in a process of its own, which ends with its standard input.
pub(crate) struct H11 {
    pub(crate) addr: SocketAddr,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    child: Child,
}

impl H11 {
    pub(crate) fn start() -> Self {
        let python = concat!(env!("CARGO_MANIFEST_DIR"), "/../.venv/bin/python");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/oracle/h11_worker.py");
        let mut child = Command::new(python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{python}: {error}; `make venv` makes it"));
        let commands = child.stdin.take().expect("piped");
        let mut answers = BufReader::new(child.stdout.take().expect("piped"));
        let mut port = String::new();
        answers.read_line(&mut port).expect("it writes");
        let port: u16 = port.trim().parse().unwrap_or_else(|_| panic!("{script} did not start: no h11?"));
        Self { addr: ([127, 0, 0, 1], port).into(), commands, answers, child }
    }

    fn ask(&mut self, command: &Value) -> Value {
        writeln!(self.commands, "{command}").expect("it reads");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("it writes");
        serde_json::from_str(&answer).expect("it answers JSON")
    }

    pub(crate) fn view(&mut self, sent: &[u8]) -> View {
        let hex: String = sent.iter().map(|byte| format!("{byte:02x}")).collect();
        let told = self.ask(&json!({"view": hex}));
        View {
            requests: requests(&told["requests"]),
            begun: Some(&told["begun"]).filter(|begun| !begun.is_null()).map(Seen::of),
            error: told["error"].as_str().map(str::to_owned),
        }
    }

    pub(crate) fn take(&mut self) -> Taken {
        let told = self.ask(&json!({"take": true}));
        let unfinished = told["unfinished"].as_array().expect("a list").iter();
        let errors = told["errors"].as_array().expect("a list").iter();
        Taken {
            requests: requests(&told["requests"]),
            unfinished: unfinished.map(|begun| (!begun.is_null()).then(|| Seen::of(begun))).collect(),
            errors: errors.map(|error| error.as_str().expect("a text").to_owned()).collect(),
        }
    }
}

fn requests(told: &Value) -> Vec<Seen> {
    told.as_array().expect("a list").iter().map(Seen::of).collect()
}

impl Drop for H11 {
    fn drop(&mut self) {
        // It may have died by itself, which the test has noticed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A request as h11 reads it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) version: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    pub(crate) trailers: Vec<(String, String)>,
    pub(crate) raw: String,
}

/// What h11 makes of the bytes of a client's connection.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) requests: Vec<Seen>,
    /// A request that has begun when the bytes end or turn bad.
    pub(crate) begun: Option<Seen>,
    /// Why it could not read on.
    pub(crate) error: Option<String>,
}

/// What h11 made of the load balancer's bytes.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) requests: Vec<Seen>,
    pub(crate) unfinished: Vec<Option<Seen>>,
    pub(crate) errors: Vec<String>,
}

impl Seen {
    fn of(value: &Value) -> Self {
        let text = |name: &str| value[name].as_str().expect("a text").to_owned();
        let line = |line: &Value| {
            (line[0].as_str().expect("a name").to_owned(), line[1].as_str().expect("a value").to_owned())
        };
        let lines = |name: &str| value[name].as_array().expect("lines").iter().map(line).collect();
        Self {
            method: text("method"),
            target: text("target"),
            version: text("version"),
            headers: lines("headers"),
            body: text("body"),
            trailers: lines("trailers"),
            raw: text("raw"),
        }
    }

    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(named, _)| named == name).map(|(_, value)| value.as_str()).collect()
    }

    pub(crate) fn one(&self, name: &str) -> Option<&str> {
        self.values(name).first().copied()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        !self.values(name).is_empty()
    }

    /// The target as a worker gets it.
    pub(crate) fn path(&self) -> String {
        match after_origin(&self.target) {
            Some("") if self.method == "OPTIONS" => "*".to_owned(),
            Some(path) if !path.starts_with('/') => format!("/{path}"),
            Some(path) => path.to_owned(),
            None => self.target.clone(),
        }
    }

    pub(crate) fn head(&self) -> &str {
        &self.raw[..self.raw.len() - self.after_head().len()]
    }

    /// What follows the first empty line, as h11 finds it.
    pub(crate) fn after_head(&self) -> &str {
        let ends = ["\n\r\n", "\n\n"].map(|end| self.raw.find(end).map(|at| at + end.len()));
        &self.raw[ends.into_iter().flatten().min().unwrap_or(self.raw.len())..]
    }

    /// The values of all lines with this name, as they were sent.
    pub(crate) fn lines_of(&self, name: &str) -> Vec<&str> {
        let lines = self.head().lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(named, _)| named.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    /// The lines that a worker must get, in order.
    pub(crate) fn end_to_end(&self) -> Vec<(&str, &str)> {
        let named: BTreeSet<String> = self
            .values("connection")
            .iter()
            .flat_map(|value| value.split(','))
            .map(|option| option.trim_matches([' ', '\t']).to_ascii_lowercase())
            .collect();
        let mut lines = end_to_end(&self.headers);
        lines.retain(|(name, _)| *name != "host" && !named.contains(*name));
        lines
    }
}

pub(crate) fn end_to_end(lines: &[(String, String)]) -> Vec<(&str, &str)> {
    let lines = lines.iter().filter(|(name, _)| !is_for_one_hop(name));
    lines.map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// What follows `http://a` in an absolute target.
pub(crate) fn after_origin(target: &str) -> Option<&str> {
    const ORIGIN: &str = "http://a";
    let (origin, path) = target.split_at_checked(ORIGIN.len())?;
    let is_end = path.is_empty() || path.starts_with(['/', '?']);
    (is_end && origin.eq_ignore_ascii_case(ORIGIN)).then_some(path)
}

/// Whether a header is about one connection or one framing, or is written by the load balancer itself.
pub(crate) fn is_for_one_hop(name: &str) -> bool {
    const NAMES: [&str; 16] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
        "content-length",
        "expect",
        "forwarded",
        "x-real-ip",
        "x-request-id",
        "max-forwards",
    ];
    NAMES.contains(&name) || name.starts_with("x-forwarded-")
}

impl View {
    pub(crate) fn told(&self) -> String {
        let requests: Vec<String> =
            self.requests.iter().map(|seen| format!("{} {}", seen.method, seen.target)).collect();
        let begun = self.begun.as_ref().map(|seen| format!("{} {}", seen.method, seen.target));
        format!("h11 of the client: {requests:?}, then {begun:?}, {:?}", self.error)
    }
}

impl Taken {
    pub(crate) fn told(&self) -> String {
        let requests: Vec<String> = self.requests.iter().map(|seen| shown(&seen.raw)).collect();
        format!("h11 at the worker: {}, {:?}, {:?}", requests.join("\n  "), self.unfinished, self.errors)
    }
}
