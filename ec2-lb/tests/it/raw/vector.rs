//! The vectors as they are written in `vectors/*.json`.
//!
//! A text is bytes, one for each character. Where a text is expected there may be a list, which is
//! its pieces one after the other; a piece is a text or `{"repeat": "x", "times": 9}`.
//!
//! In `send` and `worker.sends` a piece may also say that its side waits: `{"await": 100}` until a
//! response with this status has come, `{"pause_ms": 20}` for a while.
//!
//! Header lines are told by name: `"X": "y"` for one line with this value, `["y", "z"]` for these
//! lines, `{"has": "y"}` and `{"lacks": "y"}` for a part of a value, `null` for none.
//!
//! Whatever a vector expects: nothing with `leak` in it may reach the client or the worker.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::bytes;
use super::message::Framing;
use super::split::Split;
use super::worker::{self, Script, Then};

#[derive(Clone, Debug)]
pub(crate) struct Vector {
    pub(crate) name: String,
    /// Where the expectation comes from.
    pub(crate) rule: String,
    /// What the client sends.
    pub(crate) send: Text,
    /// The requests that the worker must see, and nothing else.
    pub(crate) passed: Vec<Passed>,
    /// After what passed, a refusal with this status, and nothing else reaches the worker.
    /// `GET /smuggled` is sent after `send`.
    pub(crate) refused: Option<OneOf<u16>>,
    /// Where a rule leaves the choice: instead of the refusal this may pass, and then `/smuggled`.
    pub(crate) or_passed: Vec<Passed>,
    /// What the worker answers; without it, 200 and `METHOD target`.
    pub(crate) worker: Option<Answer>,
    /// What the client gets for the requests that passed; without it, the worker's plain answer.
    pub(crate) gets: Vec<Gets>,
    /// The interim responses that the client gets. Without it 100 is allowed and no other.
    pub(crate) interim: Option<Vec<Gets>>,
    pub(crate) after: After,
    /// The worker may see the beginning of a request that is then broken off.
    pub(crate) may_begin: bool,
    /// The client ends its side of the connection after `send`, and may get no answer at all.
    pub(crate) breaks_off: bool,
    /// The worker's connection is not used again.
    pub(crate) ends_connection: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Text(Vec<Piece>);

#[derive(Clone, Debug)]
pub(crate) enum Piece {
    Text(String),
    Repeat { repeat: String, times: usize },
    Await(u16),
    Pause(Duration),
}

/// One value, or any of a list.
#[derive(Clone, Debug)]
pub(crate) struct OneOf<T>(Vec<T>);

/// A request as the worker sees it.
#[derive(Clone, Debug)]
pub(crate) struct Passed {
    pub(crate) method: String,
    pub(crate) target: OneOf<Piece>,
    pub(crate) headers: Headers,
    pub(crate) body: Text,
    pub(crate) framing: Option<OneOf<Frame>>,
    pub(crate) trailers: Headers,
}

/// A response as the client sees it.
#[derive(Clone, Debug)]
pub(crate) struct Gets {
    pub(crate) status: OneOf<u16>,
    pub(crate) headers: Headers,
    pub(crate) body: Option<Text>,
    pub(crate) framing: Option<OneOf<Frame>>,
    pub(crate) trailers: Headers,
    /// The client sees that the response is not whole: it ends before its announced end, or is a
    /// 502 from the beginning.
    pub(crate) is_broken: bool,
}

/// The expectation for the lines with each name; `null`: there is no such line.
pub(crate) type Headers = BTreeMap<String, Option<Want>>;

#[derive(Clone, Debug)]
pub(crate) enum Want {
    /// One line with this value.
    Is(Piece),
    /// Lines with these values.
    Are(Vec<String>),
    /// A line or more, one of which has this in it, in any case of letters.
    Has(String),
    /// If there are lines, none has this in it, in any case of letters.
    Lacks(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    None,
    Length,
    Chunked,
    Close,
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) sends: Text,
    pub(crate) then: Then,
    /// Before the request's body has come.
    pub(crate) is_early: bool,
    /// Not just when the response has come but when all of `sends` has been written, the test goes
    /// on.
    pub(crate) is_waited_for: bool,
}

/// What becomes of the client's connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum After {
    /// It stays open, and the next request on it is answered.
    #[default]
    Kept,
    Closed,
    /// What the last response says.
    Said,
}

/// What one side does, in order.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Send(Vec<u8>),
    Await(u16),
    Pause(Duration),
}

impl Vector {
    /// The vectors of one file.
    pub(crate) fn all(json: &str) -> Vec<Self> {
        let vectors = serde_json::from_str(json).unwrap_or_else(|error| panic!("not JSON: {error}"));
        list(vectors).into_iter().map(Self::of).collect()
    }

    fn of(value: Value) -> Self {
        let mut object = Object::of(value);
        let vector = Self {
            name: object.must("name", text),
            rule: object.must("rule", text),
            send: object.may("send", Text::of).unwrap_or_else(plain_request),
            passed: object.may("passed", each(Passed::of)).unwrap_or_default(),
            refused: object.may("refused", OneOf::of(number)),
            or_passed: object.may("or_passed", each(Passed::of)).unwrap_or_default(),
            worker: object.may("worker", Answer::of),
            gets: object.may("gets", each(Gets::of)).unwrap_or_default(),
            interim: object.may("interim", each(Gets::of)),
            after: object.may("after", After::of).unwrap_or_default(),
            may_begin: object.may("may_begin", flag).unwrap_or_default(),
            breaks_off: object.may("breaks_off", flag).unwrap_or_default(),
            ends_connection: object.may("ends_connection", flag).unwrap_or_default(),
        };
        object.end();
        vector
    }

    pub(crate) fn script(&self, split: Split) -> Option<Script> {
        let answer = self.worker.as_ref()?;
        let steps = answer.sends.steps().into_iter().map(|step| match step {
            Step::Send(bytes) => worker::Step::Send(bytes),
            Step::Pause(pause) => worker::Step::Pause(pause),
            Step::Await(_) => panic!("{}: the worker awaits no response", self.name),
        });
        Some(Script { steps: steps.collect(), split, is_early: answer.is_early, then: answer.then })
    }
}

impl Passed {
    /// A request with nothing to say about it.
    pub(crate) fn plain(method: &str, target: &str) -> Self {
        Self::of(serde_json::json!({"method": method, "target": target}))
    }

    fn of(value: Value) -> Self {
        let mut object = Object::of(value);
        let passed = Self {
            method: object.must("method", text),
            target: object.must("target", OneOf::of(Piece::of)),
            headers: object.may("headers", headers).unwrap_or_default(),
            body: object.may("body", Text::of).unwrap_or(Text(Vec::new())),
            framing: object.may("framing", OneOf::of(Frame::of)),
            trailers: object.may("trailers", headers).unwrap_or_default(),
        };
        object.end();
        passed
    }
}

impl Gets {
    fn of(value: Value) -> Self {
        let mut object = Object::of(value);
        let gets = Self {
            status: object.must("status", OneOf::of(number)),
            headers: object.may("headers", headers).unwrap_or_default(),
            body: object.may("body", Text::of),
            framing: object.may("framing", OneOf::of(Frame::of)),
            trailers: object.may("trailers", headers).unwrap_or_default(),
            is_broken: object.may("is_broken", flag).unwrap_or_default(),
        };
        object.end();
        gets
    }
}

impl Answer {
    fn of(value: Value) -> Self {
        let mut object = Object::of(value);
        let answer = Self {
            sends: object.must("sends", Text::of),
            then: object.may("then", then).unwrap_or(Then::Keep),
            is_early: object.may("is_early", flag).unwrap_or_default(),
            is_waited_for: object.may("is_waited_for", flag).unwrap_or_default(),
        };
        object.end();
        answer
    }
}

impl After {
    fn of(value: Value) -> Self {
        match text(value).as_str() {
            "kept" => Self::Kept,
            "closed" => Self::Closed,
            "said" => Self::Said,
            other => panic!("{other:?} is not what becomes of a connection"),
        }
    }
}

impl Text {
    pub(crate) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for piece in &self.0 {
            let more = match piece {
                Piece::Text(_) | Piece::Repeat { .. } => bytes(&piece.text()),
                Piece::Await(status) => {
                    steps.push(Step::Await(*status));
                    continue;
                }
                Piece::Pause(pause) => {
                    steps.push(Step::Pause(*pause));
                    continue;
                }
            };
            match steps.last_mut() {
                Some(Step::Send(bytes)) => bytes.extend(more),
                _ => steps.push(Step::Send(more)),
            }
        }
        steps
    }

    /// The bytes, whatever is waited for between them.
    pub(crate) fn text(&self) -> String {
        self.0.iter().map(Piece::text).collect()
    }

    fn of(value: Value) -> Self {
        Self(list(value).into_iter().map(Piece::of).collect())
    }
}

impl Piece {
    fn of(value: Value) -> Self {
        if let Value::String(text) = value {
            return Self::Text(text);
        }
        let mut object = Object::of(value);
        let piece = if let Some(repeat) = object.may("repeat", text) {
            Self::Repeat { repeat, times: object.must("times", number) }
        } else if let Some(status) = object.may("await", number) {
            Self::Await(status)
        } else {
            Self::Pause(Duration::from_millis(object.must("pause_ms", number)))
        };
        object.end();
        piece
    }

    pub(crate) fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Repeat { repeat, times } => repeat.repeat(*times),
            Self::Await(_) | Self::Pause(_) => String::new(),
        }
    }
}

impl OneOf<Piece> {
    pub(crate) fn texts(&self) -> Vec<String> {
        self.values().iter().map(Piece::text).collect()
    }
}

impl<T> OneOf<T> {
    pub(crate) fn has(&self, value: &T) -> bool
    where
        T: PartialEq,
    {
        self.0.contains(value)
    }

    pub(crate) fn values(&self) -> &[T] {
        &self.0
    }

    fn of(value: impl Fn(Value) -> T) -> impl Fn(Value) -> Self {
        move |values| Self(list(values).into_iter().map(&value).collect())
    }
}

impl From<Framing> for Frame {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::None,
            Framing::Length => Self::Length,
            Framing::Chunked => Self::Chunked,
            Framing::Close => Self::Close,
        }
    }
}

impl Frame {
    fn of(value: Value) -> Self {
        match text(value).as_str() {
            "none" => Self::None,
            "length" => Self::Length,
            "chunked" => Self::Chunked,
            "close" => Self::Close,
            other => panic!("{other:?} is no framing"),
        }
    }
}

fn headers(value: Value) -> Headers {
    let Value::Object(lines) = value else { panic!("{value} is no header lines") };
    let want = |value: Value| match value {
        Value::Null => None,
        Value::Array(values) => Some(Want::Are(values.into_iter().map(text).collect())),
        Value::Object(mut fields) if fields.contains_key("has") || fields.contains_key("lacks") => {
            let (has, lacks) = (fields.remove("has"), fields.remove("lacks"));
            assert!(fields.is_empty() && has.is_some() != lacks.is_some(), "either has or lacks");
            has.map(|part| Want::Has(text(part))).or(lacks.map(|part| Want::Lacks(text(part))))
        }
        value => Some(Want::Is(Piece::of(value))),
    };
    lines.into_iter().map(|(name, value)| (name, want(value))).collect()
}

fn then(value: Value) -> Then {
    match text(value).as_str() {
        "keep" => Then::Keep,
        "close" => Then::Close,
        "echo" => Then::Echo,
        other => panic!("{other:?} is nothing that a worker does then"),
    }
}

fn text(value: Value) -> String {
    let Value::String(text) = value else { panic!("{value} is no text") };
    text
}

fn flag(value: Value) -> bool {
    serde_json::from_value(value).unwrap_or_else(|error| panic!("neither true nor false: {error}"))
}

fn number<T: TryFrom<u64>>(value: Value) -> T {
    let number: u64 = serde_json::from_value(value).unwrap_or_else(|error| panic!("no number: {error}"));
    T::try_from(number).unwrap_or_else(|_| panic!("{number} is too large"))
}

/// The values of a list; anything else is a list of one.
fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values,
        value => vec![value],
    }
}

fn each<T>(of: impl Fn(Value) -> T) -> impl Fn(Value) -> Vec<T> {
    move |values| list(values).into_iter().map(&of).collect()
}

/// The fields of a JSON object, which must all be taken: a misspelt one would expect nothing.
struct Object {
    fields: Map<String, Value>,
    shown: String,
}

impl Object {
    fn of(value: Value) -> Self {
        let shown: String = value.to_string().chars().take(200).collect();
        let Value::Object(fields) = value else { panic!("{shown} is no object") };
        Self { fields, shown }
    }

    fn may<T>(&mut self, name: &str, of: impl FnOnce(Value) -> T) -> Option<T> {
        self.fields.remove(name).map(of)
    }

    fn must<T>(&mut self, name: &str, of: impl FnOnce(Value) -> T) -> T {
        self.may(name, of).unwrap_or_else(|| panic!("{} has no {name}", self.shown))
    }

    fn end(self) {
        let names: Vec<&String> = self.fields.keys().collect();
        assert!(names.is_empty(), "{} has unknown fields: {names:?}", self.shown);
    }
}

fn plain_request() -> Text {
    Text(vec![Piece::Text("GET /asked HTTP/1.1\r\nHost: a\r\n\r\n".to_owned())])
}
