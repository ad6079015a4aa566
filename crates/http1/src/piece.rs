//! A piece of a body, as a decoder finds it in the bytes received.

/// The result of decoding some bytes: the body's bytes are moved to their front.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Bytes of the body, at the front.
    pub data: usize,
    /// Bytes of the piece that belong to this body, its framing included.
    pub used: usize,
}
