//! The answers: 128 bytes, or as many as the path asks for.

use std::io::{self, IoSlice, Write};

/// Content bytes of an ordinary answer.
pub const SMALL: u64 = 128;

/// Larger contents are written in blocks of this size: about as much as a socket takes at once.
static BLOCK: [u8; 128 * 1024] = [b'x'; 128 * 1024];

/// Returns the content length of the answer to a GET of this path: `/1m` has a MiB, `/64k` has 64 KiB.
pub fn length(path: &[u8]) -> u64 {
    let sized = || {
        let (digits, unit) = path.strip_prefix(b"/")?.split_at_checked(path.len().checked_sub(2)?)?;
        let shift = match unit {
            b"k" => 10,
            b"m" => 20,
            _ => return None,
        };
        let number: u16 = str::from_utf8(digits).ok()?.parse().ok()?;
        Some(u64::from(number) << shift)
    };
    sized().unwrap_or(SMALL)
}

/// An answer in progress.
pub struct Reply {
    head: Vec<u8>,
    /// Bytes of the head that were written.
    sent: usize,
    /// Bytes of content still to be written.
    left: u64,
}

impl Reply {
    pub fn new(content: u64) -> Self {
        let head = format!(
            "HTTP/1.1 200 OK\r\nServer: bench-backend\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
             Content-Type: text/html; charset=utf-8\r\nCache-Control: no-store\r\nContent-Length: {content}\r\n\r\n"
        );
        Self { head: head.into_bytes(), sent: 0, left: content }
    }

    /// Writes as much as the other side takes; returns whether that was all.
    pub fn write(&mut self, stream: &mut impl Write) -> io::Result<bool> {
        loop {
            let head = self.head.get(self.sent..).unwrap_or_default();
            let block = BLOCK.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            let content = BLOCK.get(..block).unwrap_or_default();
            if head.is_empty() && content.is_empty() {
                return Ok(true);
            }
            let offered = head.len() + content.len();
            let written = match stream.write_vectored(&[IoSlice::new(head), IoSlice::new(content)]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                written => written?,
            };
            let of_head = written.min(head.len());
            self.sent += of_head;
            self.left -= (written - of_head) as u64;
            if written < offered {
                return Ok(false);
            }
        }
    }

    /// Prepares it to be written from the start again.
    pub fn restart(&mut self, content: u64) {
        self.sent = 0;
        self.left = content;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[test]
    fn paths_may_say_a_size() {
        assert_eq!(
            ["/1m", "/64k", "/16m"].map(|path| length(path.as_bytes())),
            [1 << 20, 64 << 10, 16 << 20]
        );
        for path in ["/", "/index.html", "/m", "/99999999m", "*", ""] {
            assert_eq!(length(path.as_bytes()), SMALL, "{path:?}");
        }
    }

    /// Takes a few bytes at a time, and none every second time.
    struct Slow(Vec<u8>, bool);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let taken = bytes.len().min(100_000);
            self.0.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_answer_is_whole_however_it_is_taken() {
        let mut reply = Reply::new(1 << 20);
        let mut taken = Slow(Vec::new(), false);
        while !reply.write(&mut taken).expect("it never breaks") {}
        let head = wire::response(&taken.0).expect("well-formed").expect("whole");
        assert_eq!(head.body, wire::body::Body::Length(1 << 20));
        assert_eq!(taken.0.len() - head.length, 1 << 20);
    }
}
