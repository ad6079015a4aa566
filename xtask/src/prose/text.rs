//! Extracts prose from a source: comments and strings of Rust, and all lines of Markdown.

/// Where a text stands; each is counted for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Comments,
    Strings,
    Markdown,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Comments, Self::Strings, Self::Markdown];

    /// Its name in the baseline.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Comments => "comments",
            Self::Strings => "strings",
            Self::Markdown => "markdown",
        }
    }
}

/// A piece of prose; words of different pieces are never a pair.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub kind: Kind,
    pub line: usize,
    pub text: String,
}

/// Returns the lines of a Markdown file.
pub(super) fn markdown(source: &str) -> Vec<Piece> {
    let piece =
        |(at, line): (usize, &str)| Piece { kind: Kind::Markdown, line: at + 1, text: line.to_owned() };
    source.lines().enumerate().map(piece).collect()
}

/// Returns the comments and strings of a Rust source, line by line; a string that goes on after `\` is one text.
pub(super) fn rust(source: &str) -> Vec<Piece> {
    let mut reader = Reader { chars: source.chars().collect(), at: 0, line: 1, found: Vec::new() };
    while reader.at < reader.chars.len() {
        reader.step();
    }
    reader.found.retain(|piece| !piece.text.is_empty());
    reader.found
}

struct Reader {
    chars: Vec<char>,
    at: usize,
    line: usize,
    found: Vec<Piece>,
}

impl Reader {
    fn peek(&self, offset: usize) -> char {
        self.chars.get(self.at + offset).copied().unwrap_or('\0')
    }

    fn take(&mut self) -> char {
        let char = self.peek(0);
        self.at += 1;
        self.line += usize::from(char == '\n');
        char
    }

    fn skip(&mut self, count: usize) {
        for _ in 0..count {
            self.take();
        }
    }

    fn begin(&mut self, kind: Kind) {
        self.found.push(Piece { kind, line: self.line, text: String::new() });
    }

    /// Adds to the last piece, or begins its next line.
    fn push(&mut self, kind: Kind, char: char) {
        if char == '\n' {
            self.begin(kind);
        } else if let Some(piece) = self.found.last_mut() {
            piece.text.push(char);
        }
    }

    fn step(&mut self) {
        let previous = self.at.checked_sub(1).map_or(' ', |at| self.chars[at]);
        let is_in_word = previous.is_alphanumeric() || previous == '_';
        match (self.peek(0), self.peek(1)) {
            ('/', '/') => self.line_comment(),
            ('/', '*') => self.block_comment(),
            ('"', _) => self.string(),
            ('r' | 'b' | 'c', _) if !is_in_word => self.prefixed(),
            ('\'', _) => self.quote(),
            _ => {
                self.take();
            }
        }
    }

    fn line_comment(&mut self) {
        self.begin(Kind::Comments);
        self.skip(2);
        while self.at < self.chars.len() && self.peek(0) != '\n' {
            let char = self.take();
            self.push(Kind::Comments, char);
        }
    }

    fn block_comment(&mut self) {
        self.begin(Kind::Comments);
        let mut depth = 0;
        while self.at < self.chars.len() {
            match (self.peek(0), self.peek(1)) {
                ('/', '*') => depth += 1,
                ('*', '/') => depth -= 1,
                _ => {
                    let char = self.take();
                    self.push(Kind::Comments, char);
                    continue;
                }
            }
            self.skip(2);
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self) {
        self.begin(Kind::Strings);
        self.take();
        while self.at < self.chars.len() {
            match self.take() {
                '"' => return,
                '\\' => self.escape(),
                char => self.push(Kind::Strings, char),
            }
        }
    }

    /// After a backslash: a line that goes on is a space less than it seems, `\n` separates words.
    fn escape(&mut self) {
        match self.take() {
            '\n' => {
                while self.peek(0).is_whitespace() {
                    self.take();
                }
            }
            'n' | 't' | 'r' | '0' => self.push(Kind::Strings, ' '),
            char => self.push(Kind::Strings, char),
        }
    }

    /// `r"…"`, `br#"…"#`, `b"…"`, or a word that only begins like one.
    fn prefixed(&mut self) {
        let letters = (0..2).take_while(|offset| matches!(self.peek(*offset), 'r' | 'b' | 'c')).count();
        let is_raw = self.peek(letters - 1) == 'r';
        let hashes =
            if is_raw { (letters..).take_while(|offset| self.peek(*offset) == '#').count() } else { 0 };
        if self.peek(letters + hashes) != '"' {
            self.take();
            return;
        }
        self.skip(letters + hashes);
        if is_raw { self.raw(hashes) } else { self.string() }
    }

    fn raw(&mut self, hashes: usize) {
        self.begin(Kind::Strings);
        self.take();
        while self.at < self.chars.len() {
            if self.peek(0) == '"' && (1..=hashes).all(|offset| self.peek(offset) == '#') {
                self.skip(1 + hashes);
                return;
            }
            let char = self.take();
            self.push(Kind::Strings, char);
        }
    }

    /// A character or a lifetime: `'"'` begins no string.
    fn quote(&mut self) {
        if self.peek(1) == '\\' {
            self.skip(3);
            while self.at < self.chars.len() && self.take() != '\'' {}
        } else if self.peek(2) == '\'' {
            self.skip(3);
        } else {
            self.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &str) -> Vec<(Kind, usize, String)> {
        rust(source).into_iter().map(|piece| (piece.kind, piece.line, piece.text)).collect()
    }

    fn text(kind: Kind, line: usize, text: &str) -> (Kind, usize, String) {
        (kind, line, text.to_owned())
    }

    use Kind::{Comments, Strings};

    #[test]
    fn comments_and_strings_are_told_apart() {
        let source = "/// a \"b\"\nlet x = \"c // d\"; // e\n/* f /* g */\n h */ i(\"j\")";
        assert_eq!(
            read(source),
            [
                text(Comments, 1, "/ a \"b\""),
                text(Strings, 2, "c // d"),
                text(Comments, 2, " e"),
                text(Comments, 3, " f  g "),
                text(Comments, 4, " h "),
                text(Strings, 4, "j"),
            ]
        );
    }

    #[test]
    fn quotes_and_lifetimes_begin_no_string() {
        let source = "fn f<'a>(x: &'a str) { ['\"', '\\'', '\\\\', 'b']; \"s\" }";
        assert_eq!(read(source), [text(Strings, 1, "s")]);
    }

    #[test]
    fn a_raw_string_ends_with_its_hashes() {
        let source = "r#\"a \"b\" \\\"# br\"c\" b\"d\" for_r\"e\" rest";
        assert_eq!(read(source), ["a \"b\" \\", "c", "d", "e"].map(|found| text(Strings, 1, found)));
    }

    #[test]
    fn a_string_goes_on_after_a_backslash() {
        let source = "\"one \\\n    two\\nthree\nfour\"";
        assert_eq!(read(source), [text(Strings, 1, "one two three"), text(Strings, 3, "four")]);
    }
}
