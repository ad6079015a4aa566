//! Writes a document within the size that its readers accept: a document that no reader accepts is worse than
//! the previous one.

use serde::Serialize;

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{key} would be {bytes} bytes, more than the {limit} that its readers take")]
pub struct TooLarge {
    pub key: &'static str,
    pub bytes: usize,
    pub limit: usize,
}

/// Formats a document for people, or without white space if it would be too large.
pub fn encode(key: &'static str, document: &impl Serialize, limit: usize) -> Result<Vec<u8>, TooLarge> {
    let pretty = serde_json::to_vec_pretty(document).expect("our documents are plain data");
    if pretty.len() <= limit {
        return Ok(pretty);
    }
    let dense = serde_json::to_vec(document).expect("our documents are plain data");
    if dense.len() <= limit { Ok(dense) } else { Err(TooLarge { key, bytes: dense.len(), limit }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_fits_its_readers_or_is_none() {
        let document = ["a", "b"];
        assert_eq!(encode("k", &document, 100), Ok(b"[\n  \"a\",\n  \"b\"\n]".to_vec()));
        assert_eq!(encode("k", &document, 9), Ok(br#"["a","b"]"#.to_vec()));
        let error = encode("k", &document, 8).expect_err("it is one byte too long");
        assert_eq!(error.to_string(), "k would be 9 bytes, more than the 8 that its readers take");
    }
}
