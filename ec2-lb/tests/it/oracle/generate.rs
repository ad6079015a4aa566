//! Random connections of a client: requests as they should be, and damaged ones.

use std::ops::Range;

use crate::raw::bytes;
use crate::raw::split::Dice;

/// What a client sends on one connection: some requests, damaged or not, and then such as end it.
pub(crate) fn connection(dice: &mut Dice) -> Vec<u8> {
    let mut draft = Draft::default();
    for _ in 0..=dice.below(4) {
        request(dice, &mut draft);
    }
    if dice.below(2) == 0 {
        for _ in 0..=dice.below(3) {
            damage(dice, &mut draft);
        }
        // A reader that waits for more bytes gets some, up to a limit.
        for number in 0..3 {
            draft.frame(&format!("GET /tail-{number} HTTP/1.1\r\nHost: a\r\n\r\n"));
        }
    }
    draft.frame("GET /end HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    draft.bytes
}

/// Bytes of a connection, and which of them are head or framing.
#[derive(Default)]
struct Draft {
    bytes: Vec<u8>,
    is_framing: Vec<bool>,
}

impl Draft {
    fn frame(&mut self, text: &str) {
        self.bytes.extend(bytes(text));
        self.is_framing.resize(self.bytes.len(), true);
    }

    fn content(&mut self, content: &[u8]) {
        self.bytes.extend_from_slice(content);
        self.is_framing.resize(self.bytes.len(), false);
    }
}

const METHODS: [&str; 16] = [
    "GET", "GET", "GET", "GET", "POST", "POST", "POST", "PUT", "DELETE", "PATCH", "HEAD", "HEAD", "OPTIONS",
    "PURGE", "TRACE", "CONNECT",
];

const TARGETS: [&str; 12] = [
    "/",
    "/a",
    "/a/b?c=d",
    "/%41%20b",
    "/?a|b{c}^",
    "/x;y=z",
    "//a//",
    "/a?b?c",
    "http://a/abs?q",
    "http://a",
    "/signin/ana/Tr0ub4dor",
    "/a/../b/.",
];

const LINES: [(&str, &str); 22] = [
    ("Accept", "*/*"),
    ("Cookie", "a=b; c=d"),
    ("X-Empty", ""),
    ("X-Text", "\u{e9}\u{ff} text\twith tab"),
    ("User-Agent", "Mozilla/5.0 (X11)"),
    ("X-Dup", "1"),
    ("X-Dup", "2"),
    ("x-dup", "3"),
    ("X-Forwarded-For", "10.0.0.1"),
    ("X-Forwarded-Port", "1"),
    ("Forwarded", "for=10.0.0.1"),
    ("X-Request-Id", "abc-1"),
    ("Connection", "keep-alive, X-Dup"),
    ("Connection", "x-text ,,X-EMPTY"),
    ("Connection", "Host, content-length, Transfer-Encoding"),
    ("Keep-Alive", "timeout=5"),
    ("TE", "trailers"),
    ("Trailer", "X-Sum"),
    ("Proxy-Connection", "keep-alive"),
    ("Content-Type", "text/plain"),
    ("Range", "bytes=0-1"),
    ("!#$%&'*+-.^_`|~9", "token"),
];

fn request(dice: &mut Dice, draft: &mut Draft) {
    let (method, target) = (one(dice, &METHODS), one(dice, &TARGETS));
    let is_old = dice.below(20) == 0;
    let version = if is_old { "1.0" } else { "1.1" };
    draft.frame(&format!("{method} {target} HTTP/{version}\r\n"));
    let mut lines = vec![("Host", "a")];
    for _ in 0..dice.below(6) {
        lines.push(one(dice, &LINES));
    }
    let content = content(dice);
    let length = content.len().to_string();
    let is_chunked = dice.below(2) == 0 && !is_old;
    let has_body = dice.below(5) > 1;
    match (has_body, is_chunked) {
        (false, _) => {}
        (true, true) => lines.push(("Transfer-Encoding", one(dice, &["chunked", "Chunked", "CHUNKED"]))),
        (true, false) => lines.push(("Content-Length", &length)),
    }
    if has_body && dice.below(20) == 0 {
        lines.push(("Expect", "100-continue"));
    }
    let first = dice.below(lines.len());
    lines.rotate_left(first);
    for (name, value) in lines {
        let (before, after) = (one(dice, &["", " ", " ", "\t", "  "]), one(dice, &["", "", " ", "\t "]));
        let name = match dice.below(6) {
            0 => name.to_ascii_uppercase(),
            1 => name.to_ascii_lowercase(),
            _ => name.to_owned(),
        };
        draft.frame(&format!("{name}:{before}{value}{after}\r\n"));
    }
    draft.frame("\r\n");
    match (has_body, is_chunked) {
        (false, _) => {}
        (true, true) => chunks(dice, draft, &content),
        (true, false) => draft.content(&content),
    }
}

fn content(dice: &mut Dice) -> Vec<u8> {
    const ALPHABET: &[u8] = b"abcdef0123456789 \r\n:;\0\xff";
    let length = match dice.below(40) {
        // More than is kept whole.
        0 => 70_000 + dice.below(1000),
        1..4 => 0,
        4..8 => 100 + dice.below(400),
        _ => 1 + dice.below(40),
    };
    (0..length).map(|_| ALPHABET[dice.below(ALPHABET.len())]).collect()
}

fn chunks(dice: &mut Dice, draft: &mut Draft, content: &[u8]) {
    let mut rest = content;
    while !rest.is_empty() {
        let most = if rest.len() > 1000 { 40_000 } else { 20 };
        let (chunk, after) = rest.split_at(rest.len().min(1 + dice.below(most)));
        let size = match dice.below(4) {
            0 => format!("{:X}", chunk.len()),
            1 => format!("{:04x}", chunk.len()),
            _ => format!("{:x}", chunk.len()),
        };
        let extension = one(dice, &["", "", "", ";a", ";a=b", ";a=\"b;c\""]);
        draft.frame(&format!("{size}{extension}\r\n"));
        draft.content(chunk);
        draft.frame("\r\n");
        rest = after;
    }
    draft.frame(one(dice, &["0\r\n", "0\r\n", "000\r\n", "0;last\r\n"]));
    for _ in 0..dice.below(3) {
        draft.frame(one(dice, &["X-Sum: abc\r\n", "x-sum:\tdef\r\n", "X-Empty:\r\n"]));
    }
    draft.frame("\r\n");
}

/// Bytes and pieces that mean something to some reader.
const PIECES: [&str; 46] = [
    "\r\n",
    "\n",
    "\r",
    "\0",
    " ",
    "\t",
    ":",
    ",",
    ";",
    "=",
    "\"",
    "%",
    "#",
    "+",
    "-",
    "_",
    "0",
    "1",
    "5",
    "9",
    "a",
    "f",
    "g",
    "x",
    "0x",
    "\x0b",
    "\x0c",
    "\x7f",
    "\u{80}",
    "\u{85}",
    "\u{a0}",
    "\u{ff}",
    "\r\n ",
    "\r\n\r\n",
    "0\r\n\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Host: b\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Expect: 100-continue\r\n",
    "GET /piece HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/1.0",
    "chunked",
];

/// Lines that say what another line denies, or that are none.
const FRAMES: [&str; 24] = [
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "content-length: 0005\r\n",
    "Content-Length: 5, 5\r\n",
    "Content-Length: +5\r\n",
    "Content-Length : 5\r\n",
    "Content_Length: 5\r\n",
    "Content-Length:\r\n 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "transfer-encoding:\tCHUNKED\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Transfer-Encoding: chunked, chunked\r\n",
    "Transfer-Encoding: ,chunked\r\n",
    "X: y\nContent-Length: 5\r\n",
    "X: y\rTransfer-Encoding: chunked\r\n",
    "Host: b\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Expect: 100-continue\r\n",
    "Expect: 200-ok\r\n",
    " folded\r\n",
    "5\r\nhello\r\n",
    "\r\n",
];

/// Changes one place of the framing.
fn damage(dice: &mut Dice, draft: &mut Draft) {
    let places: Vec<usize> = (0..draft.bytes.len()).filter(|at| draft.is_framing[*at]).collect();
    let at = one(dice, &places);
    let piece = bytes(one(dice, &PIECES));
    let (range, piece) = match dice.below(10) {
        0 => (at..at, piece),
        1 => (at..at + 1, piece),
        2 => (at..at + 1, Vec::new()),
        3 => (at..at + 1, vec![draft.bytes[at] ^ (1 << dice.below(8))]),
        4 => (at..at, vec![draft.bytes[at]]),
        // A line is lost, or comes twice.
        5 => (line_around(&draft.bytes, at), Vec::new()),
        6 => {
            let line = line_around(&draft.bytes, at);
            (line.start..line.start, draft.bytes[line].to_vec())
        }
        _ => {
            let line = line_around(&draft.bytes, at);
            (line.start..line.start, bytes(one(dice, &FRAMES)))
        }
    };
    draft.is_framing.splice(range.clone(), piece.iter().map(|_| true));
    draft.bytes.splice(range, piece);
}

fn line_around(bytes: &[u8], at: usize) -> Range<usize> {
    let start = bytes[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |before| before + 1);
    let end = bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |after| at + after + 1);
    start..end
}

fn one<T: Copy>(dice: &mut Dice, of: &[T]) -> T {
    of[dice.below(of.len())]
}
