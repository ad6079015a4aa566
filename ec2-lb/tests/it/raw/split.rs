//! Bytes in pieces: a message means the same however the network cuts it.

use std::io::{self, Write as _};
use std::net::TcpStream;
use std::ops::Range;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Split {
    Whole,
    /// Of long messages only the first and the last bytes are sent one by one.
    Bytes,
    /// At a few places that this seed gives.
    Random(u64),
}

/// Where a message is cut when it is sent byte by byte: heads and framing are at its ends.
const SINGLE_AT_BEGIN: usize = 400;
const SINGLE_AT_END: usize = 100;
const MIDDLE: usize = 8 * 1024;

impl Split {
    pub(crate) fn pieces(self, length: usize) -> Vec<Range<usize>> {
        let mut cuts: Vec<usize> = match self {
            Self::Whole => Vec::new(),
            Self::Bytes => {
                let is_cut = |at: &usize| {
                    *at <= SINGLE_AT_BEGIN || at + SINGLE_AT_END >= length || at.is_multiple_of(MIDDLE)
                };
                (1..length).filter(is_cut).collect()
            }
            Self::Random(seed) => {
                let mut dice = Dice(seed);
                (0..1 + dice.below(4)).map(|_| dice.below(length.max(1))).collect()
            }
        };
        cuts.extend([0, length]);
        cuts.sort_unstable();
        cuts.dedup();
        cuts.windows(2).map(|pair| pair[0]..pair[1]).collect()
    }

    /// Writes `bytes` in pieces that the other side most likely reads one by one.
    pub(crate) fn write(self, mut stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
        // The first is what waking a reader takes; few pieces can afford to be sure of it.
        let pause = Duration::from_micros(if self == Self::Bytes { 20 } else { 500 });
        for piece in self.pieces(bytes.len()) {
            if piece.start > 0 {
                std::thread::sleep(pause);
            }
            stream.write_all(&bytes[piece])?;
        }
        Ok(())
    }
}

/// Random numbers that a seed repeats (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `bound` - 1.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("it is below a usize")
    }
}
