//! The progress of a body, without keeping any of it.

use super::Malformed;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Bytes still to come.
    Length(u64),
    Chunked(Chunks),
    /// Until the connection ends.
    UntilEnd,
}

/// The position in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunks {
    /// In the line with the size, which is this so far.
    Size(u64),
    /// After the digits of that line.
    Extension(u64),
    /// In the data, of which this much is to come.
    Data(u64),
    /// In the line end after the data.
    DataEnd,
    /// In a line after the last chunk, of which this much was read.
    Trailer(u64),
    Done,
}

/// The result of reading some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Bytes that belong to the body, framing included.
    pub bytes: usize,
    /// Bytes of content.
    pub content: u64,
}

impl Body {
    pub fn chunked() -> Self {
        Self::Chunked(Chunks::Size(0))
    }

    /// Returns whether it has come to its end; a body that lasts until the connection ends never says so.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunks::Done))
    }

    /// Takes as many of the bytes as belong to it.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Taken, Malformed> {
        match self {
            Self::Length(left) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                Ok(Taken { bytes: taken, content: taken as u64 })
            }
            Self::Chunked(chunks) => chunks.take(bytes),
            Self::UntilEnd => Ok(Taken { bytes: bytes.len(), content: bytes.len() as u64 }),
        }
    }
}

impl Chunks {
    fn take(&mut self, bytes: &[u8]) -> Result<Taken, Malformed> {
        let mut at = 0;
        let mut content = 0;
        while *self != Self::Done {
            let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) else { break };
            if let Self::Data(left) = self {
                let taken = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                at += taken;
                content += taken as u64;
                if *left == 0 {
                    *self = Self::DataEnd;
                }
            } else {
                *self = self.after(rest[0])?;
                at += 1;
            }
        }
        Ok(Taken { bytes: at, content })
    }

    /// Advances by one byte, outside the data.
    fn after(self, byte: u8) -> Result<Self, Malformed> {
        match (self, byte) {
            (Self::Size(0) | Self::Extension(0), b'\n') => Ok(Self::Trailer(0)),
            (Self::Size(size) | Self::Extension(size), b'\n') => Ok(Self::Data(size)),
            (Self::Size(size), b'\r' | b';' | b' ') | (Self::Extension(size), _) => Ok(Self::Extension(size)),
            (Self::Size(size), digit) => {
                let digit = char::from(digit).to_digit(16).ok_or(Malformed)?;
                let size = size.checked_mul(16).ok_or(Malformed)?;
                Ok(Self::Size(size + u64::from(digit)))
            }
            (Self::DataEnd, b'\r') => Ok(Self::DataEnd),
            (Self::DataEnd, b'\n') => Ok(Self::Size(0)),
            (Self::Trailer(0), b'\n') => Ok(Self::Done),
            (Self::Trailer(_), b'\n') => Ok(Self::Trailer(0)),
            (Self::Trailer(seen), b'\r') => Ok(Self::Trailer(seen)),
            (Self::Trailer(seen), _) => Ok(Self::Trailer(seen + 1)),
            (Self::DataEnd | Self::Data(_) | Self::Done, _) => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_counted_down() {
        let mut body = Body::Length(5);
        assert_eq!(body.take(b"abc"), Ok(Taken { bytes: 3, content: 3 }));
        assert!(!body.is_done());
        assert_eq!(body.take(b"defg"), Ok(Taken { bytes: 2, content: 2 }));
        assert!(body.is_done());
    }

    /// However the bytes are cut.
    #[test]
    fn chunks_end_behind_their_trailers() {
        let text = b"5\r\nhello\r\nA;x=\"y\"\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\nHTTP/1.1 200";
        for cut in 0..text.len() {
            let mut body = Body::chunked();
            let first = body.take(&text[..cut]).expect("well-formed");
            let second = body.take(&text[first.bytes..]).expect("well-formed");
            assert!(body.is_done(), "cut at {cut}");
            assert_eq!(first.content + second.content, 15);
            assert_eq!(first.bytes + second.bytes, text.len() - 12);
        }
    }

    #[test]
    fn chunks_need_sizes() {
        assert_eq!(Body::chunked().take(b"xyz\r\n"), Err(Malformed));
        assert_eq!(Body::chunked().take(b"1\r\nab"), Err(Malformed));
    }
}
