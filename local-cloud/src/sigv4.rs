//! Parses and checks AWS Signature Version 4 in the `Authorization` header.
//!
//! Its scope also says which service a request is for: there is one endpoint for all. A presigned URL carries
//! its signature in the query; Vigia makes none, and it is refused like an unsigned request.

use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::http::request::Parts;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest as _, Sha256};

/// Characters that SigV4 does not encode in a path: the unreserved characters and the separator.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

#[derive(Debug, PartialEq, Eq)]
pub struct Authorization<'a> {
    pub access_key: &'a str,
    pub date: &'a str,
    pub region: &'a str,
    pub service: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

/// Parses `AWS4-HMAC-SHA256 Credential=…/date/region/service/aws4_request, SignedHeaders=…, Signature=…`.
pub fn parse(header: &str) -> Option<Authorization<'_>> {
    let fields = header.strip_prefix("AWS4-HMAC-SHA256")?.trim();
    let field = |name: &str| {
        fields.split(',').map(str::trim).find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
    };
    let mut scope = field("Credential")?.rsplitn(5, '/');
    let terminator = scope.next()?;
    let (service, region, date, access_key) = (scope.next()?, scope.next()?, scope.next()?, scope.next()?);
    (terminator == "aws4_request").then_some(Authorization {
        access_key,
        date,
        region,
        service,
        signed_headers: field("SignedHeaders")?,
        signature: field("Signature")?,
    })
}

/// Returns whether `auth` is the signature of this request under `secret`. `body` is needed only if the
/// request does not state its payload hash.
pub fn verify(auth: &Authorization<'_>, parts: &Parts, body: &[u8], secret: &str) -> bool {
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let Some(time) = header("x-amz-date") else { return false };
    let payload_hash = match header("x-amz-content-sha256") {
        Some(stated) => stated.to_owned(),
        None => hex(&Sha256::digest(body)),
    };
    let path = match parts.uri.path() {
        "" => "/",
        path => path,
    };
    // S3 signs the path as it is sent; the others sign it encoded once more.
    let path =
        if auth.service == "s3" { path.to_owned() } else { utf8_percent_encode(path, PATH).to_string() };
    let mut query: Vec<String> = parts
        .uri
        .query()
        .unwrap_or("")
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| if pair.contains('=') { pair.to_owned() } else { format!("{pair}=") })
        .collect();
    query.sort_by(|a, b| a.split_once('=').cmp(&b.split_once('=')));
    let mut canonical_headers = String::new();
    for name in auth.signed_headers.split(';') {
        let values: Vec<String> = parts
            .headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .map(|value| value.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        canonical_headers.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    let canonical = format!(
        "{}\n{path}\n{}\n{canonical_headers}\n{}\n{payload_hash}",
        parts.method,
        query.join("&"),
        auth.signed_headers
    );
    let scope = format!("{}/{}/{}/aws4_request", auth.date, auth.region, auth.service);
    let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
    let mut key = hmac(format!("AWS4{secret}").as_bytes(), auth.date);
    for part in [auth.region, auth.service, "aws4_request"] {
        key = hmac(&key, part);
    }
    hex(&hmac(&key, &to_sign)) == auth.signature
}

/// Returns whether the body has the hash that the request states. A request may state instead that it leaves
/// the body unsigned or signs it in chunks.
pub fn has_stated_payload(parts: &Parts, body: &[u8]) -> bool {
    let stated = parts.headers.get("x-amz-content-sha256").and_then(|value| value.to_str().ok());
    stated.is_none_or(|stated| stated.len() != 64 || stated == hex(&Sha256::digest(body)))
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The GET of the published SigV4 test suite, `get-vanilla-query-order-key-case`.
    #[test]
    fn accepts_the_published_example_and_nothing_else() {
        let header = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, \
             Signature=b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500";
        let (parts, ()) = hyper::Request::get("https://example.amazonaws.com/?Param2=value2&Param1=value1")
            .header("host", "example.amazonaws.com")
            .header("x-amz-date", "20150830T123600Z")
            .body(())
            .expect("valid request")
            .into_parts();
        let auth = parse(header).expect("well-formed");
        assert_eq!((auth.service, auth.region), ("service", "us-east-1"));
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        assert!(verify(&auth, &parts, b"", secret));
        assert!(!verify(&auth, &parts, b"x", secret));
        assert!(!verify(&auth, &parts, b"", "another"));
    }

    #[test]
    fn a_body_other_than_the_stated_one_is_noticed() {
        let states = |hash: &str| {
            hyper::Request::get("/")
                .header("x-amz-content-sha256", hash)
                .body(())
                .expect("valid")
                .into_parts()
                .0
        };
        let empty = states("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert!(has_stated_payload(&empty, b""));
        assert!(!has_stated_payload(&empty, b"x"));
        assert!(has_stated_payload(&states("UNSIGNED-PAYLOAD"), b"x"));
    }

    #[test]
    fn refuses_a_malformed_authorization_header() {
        for header in ["", "Bearer x", "AWS4-HMAC-SHA256 Credential=a/b/c, SignedHeaders=host, Signature=x"] {
            assert_eq!(parse(header), None, "{header}");
        }
    }
}
