//! The chunked coding (RFC 9112, 7.1), one byte at a time but for the data.
//!
//! ```text
//!        ┌──────────────── next chunk ─────────────────┐
//!        v                                             │
//!  Size ─┬─> SizeLf ─(size > 0)─> Data ─> DataCr ─> DataLf
//!        │     ^   └─(size = 0)─> Trailer ─> TrailerLf ─> Done
//!        └> Space ─> Extension       └── next trailer ──┘
//! ```
//!
//! Extensions are read and dropped: no one behind us understands them. An empty size is not a size of
//! zero, a line ends in CR LF only, and no digit may be lost to overflow: each of these has smuggled
//! requests through some proxy.

use crate::field;
use crate::head::MAX_FIELDS;
use crate::piece::Piece;

/// The longest line before the data of a chunk, its extensions included.
const MAX_CHUNK_LINE: usize = 256;

/// All trailer lines together.
const MAX_TRAILERS: usize = 8 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    #[error("a chunk size is not a hexadecimal number of at most 16 digits")]
    Size,
    #[error("a chunk's line or data does not end in CR LF")]
    LineEnd,
    #[error("a chunk extension is malformed or too long")]
    Extension,
    #[error("the trailers are malformed, too long, or contain a field that only a head may have")]
    Trailers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum State {
    #[default]
    Size,
    Space,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailer,
    TrailerLf,
    Done,
}

#[derive(Debug, Default)]
pub struct Chunked {
    state: State,
    /// Bytes of the current chunk; in the state `Data`, the bytes still to come.
    size: u64,
    /// Bytes of the current chunk line, and how many of them are digits.
    line: usize,
    digits: u8,
    /// Begins a line of the trailers.
    line_start: usize,
    trailers: Vec<u8>,
}

impl Chunked {
    /// Decodes `bytes` up to the end of the body and moves the data to their front.
    pub fn decode(&mut self, bytes: &mut [u8]) -> Result<Piece, ChunkError> {
        let (mut data, mut used) = (0, 0);
        while used < bytes.len() && self.state != State::Done {
            if self.state == State::Data {
                let taken = usize::try_from(self.size).unwrap_or(usize::MAX).min(bytes.len() - used);
                bytes.copy_within(used..used + taken, data);
                data += taken;
                used += taken;
                self.size -= taken as u64;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            self.state = self.step(bytes[used])?;
            used += 1;
        }
        Ok(Piece { data, used })
    }

    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Returns how many bytes of the current chunk are still to come.
    pub fn announced(&self) -> u64 {
        if self.state == State::Data { self.size } else { 0 }
    }

    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    fn step(&mut self, byte: u8) -> Result<State, ChunkError> {
        match self.state {
            State::Size => self.size_byte(byte),
            State::Space => {
                self.lengthen()?;
                match byte {
                    b' ' | b'\t' => Ok(State::Space),
                    b';' => Ok(State::Extension),
                    _ => Err(ChunkError::Size),
                }
            }
            State::Extension => {
                self.lengthen()?;
                match byte {
                    b'\r' => Ok(State::SizeLf),
                    b'\t' | b' '..=b'~' | 0x80.. => Ok(State::Extension),
                    _ => Err(ChunkError::Extension),
                }
            }
            State::SizeLf if byte == b'\n' => {
                (self.line, self.digits) = (0, 0);
                Ok(if self.size == 0 { State::Trailer } else { State::Data })
            }
            State::DataCr if byte == b'\r' => Ok(State::DataLf),
            State::DataLf if byte == b'\n' => Ok(State::Size),
            State::SizeLf | State::DataCr | State::DataLf => Err(ChunkError::LineEnd),
            State::Trailer => self.trailer_byte(byte, State::Trailer),
            State::TrailerLf => self.trailer_byte(byte, State::TrailerLf),
            State::Data | State::Done => Ok(self.state),
        }
    }

    fn size_byte(&mut self, byte: u8) -> Result<State, ChunkError> {
        self.lengthen()?;
        match (byte, char::from(byte).to_digit(16)) {
            (_, Some(digit)) if self.digits < 16 => {
                self.digits += 1;
                self.size = self.size << 4 | u64::from(digit);
                Ok(State::Size)
            }
            _ if self.digits == 0 => Err(ChunkError::Size),
            (b'\r', _) => Ok(State::SizeLf),
            (b';', _) => Ok(State::Extension),
            (b' ' | b'\t', _) => Ok(State::Space),
            (b'\n', _) => Err(ChunkError::LineEnd),
            _ => Err(ChunkError::Size),
        }
    }

    fn lengthen(&mut self) -> Result<(), ChunkError> {
        self.line += 1;
        if self.line > MAX_CHUNK_LINE { Err(ChunkError::Extension) } else { Ok(()) }
    }

    fn trailer_byte(&mut self, byte: u8, state: State) -> Result<State, ChunkError> {
        if self.trailers.len() >= MAX_TRAILERS {
            return Err(ChunkError::Trailers);
        }
        self.trailers.push(byte);
        match (state, byte) {
            (State::TrailerLf, b'\n') if self.trailers.len() - self.line_start == 2 => {
                // The empty line, which is no trailer.
                self.trailers.truncate(self.line_start);
                self.validate_trailers()?;
                Ok(State::Done)
            }
            (State::TrailerLf, b'\n') => {
                self.line_start = self.trailers.len();
                Ok(State::Trailer)
            }
            (State::TrailerLf, _) | (State::Trailer, b'\n') => Err(ChunkError::Trailers),
            (_, b'\r') => Ok(State::TrailerLf),
            _ => Ok(State::Trailer),
        }
    }

    fn validate_trailers(&self) -> Result<(), ChunkError> {
        if self.trailers.is_empty() {
            return Ok(());
        }
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut lines = self.trailers.clone();
        lines.extend_from_slice(b"\r\n");
        match httparse::parse_headers(&lines, &mut fields) {
            Ok(httparse::Status::Complete((used, fields)))
                if used == lines.len() && fields.iter().all(|field| field::may_trail(field.name)) =>
            {
                Ok(())
            }
            _ => Err(ChunkError::Trailers),
        }
    }
}

/// The most bytes that the chunked coding adds to one chunk, with the end of the body and without trailers.
pub const MAX_OVERHEAD: usize = 16 + 4 + 5;

/// Writes `data` as one chunk; the empty chunk would end the body and is not written.
pub fn encode(data: &[u8], out: &mut Vec<u8>) {
    if data.is_empty() {
        return;
    }
    hexadecimal(data.len(), out);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// Writes the end of a body: the last chunk, `trailers` and the empty line.
pub fn encode_end(trailers: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    out.extend_from_slice(trailers);
    out.extend_from_slice(b"\r\n");
}

fn hexadecimal(number: usize, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - number.leading_zeros()).div_ceil(4).max(1);
    out.extend((0..digits).rev().map(|digit| DIGITS[(number >> (4 * digit)) & 0xf]));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `wire` in pieces of `size` bytes: the data, the trailers, and what follows the body.
    fn decoded(wire: &[u8], size: usize) -> Result<(Vec<u8>, Vec<u8>, usize), ChunkError> {
        let (mut chunked, mut data, mut used) = (Chunked::default(), Vec::new(), 0);
        for piece in wire.chunks(size) {
            let mut piece = piece.to_vec();
            let step = chunked.decode(&mut piece)?;
            data.extend_from_slice(&piece[..step.data]);
            used += step.used;
        }
        assert!(chunked.is_done(), "{:?}", String::from_utf8_lossy(wire));
        Ok((data, chunked.trailers().to_vec(), wire.len() - used))
    }

    #[test]
    fn decoder_removes_the_framing_however_it_is_cut() {
        for wire in [
            "5\r\nhello\r\n0\r\n\r\nGET",
            "005;a=\"b c\";d\r\nhello\r\n000\r\n\r\nGET",
            "2 ;x\r\nhe\r\n3\r\nllo\r\n0;last\r\n\r\nGET",
        ] {
            for size in 1..wire.len() {
                assert_eq!(decoded(wire.as_bytes(), size), Ok((b"hello".to_vec(), vec![], 3)), "{wire:?}");
            }
        }
    }

    #[test]
    fn decoder_keeps_trailers() {
        let wire = b"1\r\nx\r\n0\r\nX-Sum: 1\r\nX-B:\r\n\r\n";
        for size in [1, 5, 100] {
            assert_eq!(decoded(wire, size), Ok((b"x".to_vec(), b"X-Sum: 1\r\nX-B:\r\n".to_vec(), 0)));
        }
    }

    #[test]
    fn malformed_bodies_are_refused() {
        for (wire, error) in [
            ("\r\nhello\r\n0\r\n\r\n", ChunkError::Size),
            (";a\r\nhello\r\n0\r\n\r\n", ChunkError::Size),
            ("0x5\r\nhello\r\n0\r\n\r\n", ChunkError::Size),
            ("+5\r\nhello\r\n0\r\n\r\n", ChunkError::Size),
            ("-5\r\nhello\r\n0\r\n\r\n", ChunkError::Size),
            (" 5\r\nhello\r\n0\r\n\r\n", ChunkError::Size),
            ("5 \r\nhello\r\n0\r\n\r\n", ChunkError::Size),
            ("5\nhello\r\n0\r\n\r\n", ChunkError::LineEnd),
            ("5\rhello\r\n0\r\n\r\n", ChunkError::LineEnd),
            ("5;a\rb\r\nhello\r\n0\r\n\r\n", ChunkError::LineEnd),
            ("5;a\nb\r\nhello\r\n0\r\n\r\n", ChunkError::Extension),
            ("5;a\0\r\nhello\r\n0\r\n\r\n", ChunkError::Extension),
            ("5\r\nhello0\r\n\r\n", ChunkError::LineEnd),
            ("5\r\nhello\n0\r\n\r\n", ChunkError::LineEnd),
            ("10000000000000000\r\n", ChunkError::Size),
            ("00000000000000005\r\n", ChunkError::Size),
            ("0\r\nContent-Length: 3\r\n\r\n", ChunkError::Trailers),
            ("0\r\nhost: a\r\n\r\n", ChunkError::Trailers),
            ("0\r\nX: a\n\r\n", ChunkError::Trailers),
            ("0\r\nX: a\r\n b\r\n\r\n", ChunkError::Trailers),
            ("0\r\nno colon\r\n\r\n", ChunkError::Trailers),
            ("0\r\nX: \0\r\n\r\n", ChunkError::Trailers),
        ] {
            assert_eq!(decoded(wire.as_bytes(), 1), Err(error), "{wire:?}");
            assert_eq!(decoded(wire.as_bytes(), 1000), Err(error), "{wire:?}");
        }
        let long = format!("5;{}\r\n", "x".repeat(MAX_CHUNK_LINE));
        assert_eq!(decoded(long.as_bytes(), 1000), Err(ChunkError::Extension));
        let long = format!("0\r\nX: {}\r\n\r\n", "x".repeat(MAX_TRAILERS));
        assert_eq!(decoded(long.as_bytes(), 1000), Err(ChunkError::Trailers));
    }

    #[test]
    fn encoded_chunks_decode_to_the_same_data() {
        for size in [1, 15, 16, 255, 4096, 65536] {
            let data = vec![b'x'; size];
            let mut wire = Vec::new();
            encode(&data, &mut wire);
            encode(&[], &mut wire);
            encode_end(b"A: b\r\n", &mut wire);
            assert_eq!(decoded(&wire, 7), Ok((data, b"A: b\r\n".to_vec(), 0)), "{size}");
        }
    }
}
