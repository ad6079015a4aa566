//! How long a body is, and the bytes of a body as they come.

use crate::chunked::{ChunkError, Chunked};
use crate::piece::Piece;

/// How the body of a message is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    Length(u64),
    Chunked,
    /// A response without a length ends with its connection.
    UntilClose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingError {
    /// Both Content-Length and Transfer-Encoding.
    Two,
    /// Content-Length is not one whole number.
    Length,
    /// Transfer-Encoding is not one the sender may have meant.
    Coding,
    /// A coding that is well formed and not offered here.
    UnknownCoding,
}

/// The framing lines of a head, collected one by one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lines<'a> {
    length: Option<&'a [u8]>,
    coding: Option<&'a [u8]>,
    doubled_length: bool,
    doubled_coding: bool,
}

impl<'a> Lines<'a> {
    pub fn add_length(&mut self, value: &'a [u8]) {
        self.doubled_length |= self.length.replace(value).is_some();
    }

    pub fn add_coding(&mut self, value: &'a [u8]) {
        self.doubled_coding |= self.coding.replace(value).is_some();
    }

    /// `Ok(None)` when the head has no framing line.
    pub fn framing(&self) -> Result<Option<Framing>, FramingError> {
        match (self.length, self.coding) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(FramingError::Two),
            (Some(_), None) if self.doubled_length => Err(FramingError::Length),
            (Some(value), None) => parse_length(value).map(|length| Some(Framing::Length(length))),
            (None, Some(_)) if self.doubled_coding => Err(FramingError::Coding),
            (None, Some(value)) if value.eq_ignore_ascii_case(b"chunked") => Ok(Some(Framing::Chunked)),
            (None, Some(value)) => Err(coding_error(value)),
        }
    }
}

/// Returns the error for a coding other than `chunked` alone. `gzip, chunked` is valid and not supported;
/// every other coding is invalid.
fn coding_error(value: &[u8]) -> FramingError {
    let mut codings: Vec<&[u8]> = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).collect();
    let ends_chunked = codings.pop().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    let is_known = |coding: &&[u8]| {
        [&b"gzip"[..], b"x-gzip", b"deflate", b"compress", b"x-compress", b"br", b"zstd"]
            .iter()
            .any(|known| coding.eq_ignore_ascii_case(known))
    };
    if ends_chunked && !codings.is_empty() && codings.iter().all(is_known) {
        FramingError::UnknownCoding
    } else {
        FramingError::Coding
    }
}

fn parse_length(value: &[u8]) -> Result<u64, FramingError> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(FramingError::Length);
    }
    std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()).ok_or(FramingError::Length)
}

/// Takes the framing off a body, piece by piece.
#[derive(Debug)]
pub enum Decoder {
    /// This many bytes are to come.
    Length(u64),
    Chunked(Chunked),
    UntilClose,
}

impl Decoder {
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Length(0),
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunked::default()),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    pub fn decode(&mut self, bytes: &mut [u8]) -> Result<Piece, ChunkError> {
        match self {
            Self::Length(left) => {
                let used = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= used as u64;
                Ok(Piece { data: used, used })
            }
            Self::Chunked(chunked) => chunked.decode(bytes),
            Self::UntilClose => Ok(Piece { data: bytes.len(), used: bytes.len() }),
        }
    }

    /// Whether the body has ended. For a body that ends with its connection this is never true.
    pub fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.is_done(),
            Self::UntilClose => false,
        }
    }

    /// Bytes of the body that are announced and have not come; a chunked body announces one chunk at a
    /// time.
    pub fn announced(&self) -> u64 {
        match self {
            Self::Length(left) => *left,
            Self::Chunked(chunked) => chunked.announced(),
            Self::UntilClose => 0,
        }
    }

    /// How many of the next bytes are the body's, whatever they are: they need not be looked at.
    pub fn opaque(&self) -> u64 {
        match self {
            Self::Length(left) => *left,
            Self::Chunked(_) | Self::UntilClose => 0,
        }
    }

    /// Counts bytes that were passed on without being read. They must be [`opaque`](Self::opaque) ones.
    pub fn pass(&mut self, count: usize) {
        if let Self::Length(left) = self {
            *left = left.saturating_sub(count as u64);
        }
    }

    /// The trailer lines that came, each with its CR LF; empty unless the body was chunked.
    pub fn trailers(&self) -> &[u8] {
        match self {
            Self::Chunked(chunked) => chunked.trailers(),
            Self::Length(_) | Self::UntilClose => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(lengths: &[&str], codings: &[&str]) -> Result<Option<Framing>, FramingError> {
        let mut lines = Lines::default();
        lengths.iter().for_each(|value| lines.add_length(value.as_bytes()));
        codings.iter().for_each(|value| lines.add_coding(value.as_bytes()));
        lines.framing()
    }

    #[test]
    fn one_framing_is_understood() {
        assert_eq!(framing(&[], &[]), Ok(None));
        assert_eq!(framing(&["12"], &[]), Ok(Some(Framing::Length(12))));
        assert_eq!(framing(&["0012"], &[]), Ok(Some(Framing::Length(12))));
        assert_eq!(framing(&[], &["Chunked"]), Ok(Some(Framing::Chunked)));
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for (lengths, codings, error) in [
            (&["4"][..], &["chunked"][..], FramingError::Two),
            (&["4", "4"], &[], FramingError::Length),
            (&["4, 4"], &[], FramingError::Length),
            (&["+4"], &[], FramingError::Length),
            (&["0x4"], &[], FramingError::Length),
            (&[""], &[], FramingError::Length),
            (&["99999999999999999999"], &[], FramingError::Length),
            (&[], &["chunked", "chunked"], FramingError::Coding),
            (&[], &[",chunked"], FramingError::Coding),
            (&[], &["identity"], FramingError::Coding),
            (&[], &["chunked, identity"], FramingError::Coding),
            (&[], &["xchunked"], FramingError::Coding),
            (&[], &["gzip, chunked"], FramingError::UnknownCoding),
        ] {
            assert_eq!(framing(lengths, codings), Err(error), "{lengths:?} {codings:?}");
        }
    }

    #[test]
    fn a_body_with_a_length_ends_there() {
        let mut decoder = Decoder::new(Framing::Length(3));
        assert_eq!(decoder.decode(&mut b"ab".to_vec()), Ok(Piece { data: 2, used: 2 }));
        assert!(!decoder.is_done());
        assert_eq!(decoder.decode(&mut b"cGET".to_vec()), Ok(Piece { data: 1, used: 1 }));
        assert!(decoder.is_done());
    }

    #[test]
    fn only_a_body_with_a_length_passes_unseen() {
        let mut decoder = Decoder::new(Framing::Length(3));
        decoder.pass(2);
        assert_eq!((decoder.opaque(), decoder.is_done()), (1, false));
        decoder.pass(1);
        assert_eq!((decoder.opaque(), decoder.is_done()), (0, true));
        for framing in [Framing::None, Framing::Chunked, Framing::UntilClose] {
            assert_eq!(Decoder::new(framing).opaque(), 0, "{framing:?}");
        }
    }
}
