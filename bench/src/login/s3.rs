//! S3 in memory, over HTTP: the part that a worker uses. Signatures are not checked.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use percent_encoding::percent_decode_str;
use tokio::net::TcpListener;

use super::objects::{Condition, Object, Objects, Page, Refusal};

const METADATA: &str = "x-amz-meta-";
/// Keys of a page, unless fewer are requested.
const PAGE: usize = 1000;

/// Delays of the answers.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    pub read: Duration,
    pub write: Duration,
}

/// S3's delays for small objects.
pub const REAL: Latency = Latency { read: Duration::from_millis(20), write: Duration::from_millis(30) };

/// Calls of one bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    pub get: u64,
    pub head: u64,
    pub put: u64,
    pub delete: u64,
    pub list: u64,
}

/// Cheap to clone; all clones are one S3.
#[derive(Clone)]
pub struct S3(Arc<Mutex<Inner>>);

struct Inner {
    objects: Objects,
    latency: Latency,
    /// The bucket whose calls are counted.
    counted: &'static str,
    calls: Calls,
}

impl S3 {
    pub fn new(latency: Latency, counted: &'static str) -> Self {
        let inner = Inner { objects: Objects::default(), latency, counted, calls: Calls::default() };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// Forgets all objects.
    pub fn clear(&self) {
        self.inner().objects = Objects::default();
    }

    /// Writes an object as an operator would, without a delay.
    pub fn put(&self, path: &str, bytes: impl Into<Bytes>) {
        let written = self.inner().objects.put(path, Object::new(bytes), &Condition::Whatever);
        debug_assert!(written.is_ok(), "nothing was demanded");
    }

    pub fn get(&self, path: &str) -> Option<Bytes> {
        self.inner().objects.get(path).map(|object| object.bytes.clone())
    }

    pub fn keys(&self, bucket: &str, prefix: &str) -> Vec<String> {
        self.inner().objects.list(bucket, prefix, "", usize::MAX).keys
    }

    /// Returns the calls since the last question.
    pub fn take_calls(&self) -> Calls {
        std::mem::take(&mut self.inner().calls)
    }

    /// Serves while it is polled.
    pub async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        axum::serve(listener, Router::new().fallback(any(answer)).with_state(self)).await
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no thread panics with it")
    }

    /// Counts the call and returns the delay of its answer.
    fn count(&self, bucket: &str, method: &Method, is_list: bool) -> Duration {
        let mut inner = self.inner();
        if bucket == inner.counted {
            let Calls { get, head, put, delete, list } = &mut inner.calls;
            *(match *method {
                Method::GET if is_list => list,
                Method::GET => get,
                Method::HEAD => head,
                Method::PUT => put,
                _ => delete,
            }) += 1;
        }
        match *method {
            Method::GET | Method::HEAD => inner.latency.read,
            _ => inner.latency.write,
        }
    }
}

async fn answer(State(s3): State<S3>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let path = decode(uri.path().trim_start_matches('/'));
    let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
    let latency = s3.count(bucket, &method, key.is_empty());
    // The operation takes place in the middle of the call: another call may come first until then.
    tokio::time::sleep(latency / 2).await;
    let response = s3.perform(&method, &path, uri.query().unwrap_or_default(), &headers, body);
    tokio::time::sleep(latency / 2).await;
    response
}

impl S3 {
    fn perform(
        &self,
        method: &Method,
        path: &str,
        query: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Response {
        let mut inner = self.inner();
        match (method, path.split_once('/')) {
            (&Method::GET, None | Some((_, ""))) => list(&inner.objects, path.trim_end_matches('/'), query),
            (&Method::GET, Some(_)) => match inner.objects.get(path) {
                Some(object) => (described(object), object.bytes.clone()).into_response(),
                None => refused(Refusal::NoSuchKey),
            },
            (&Method::HEAD, Some(_)) => match inner.objects.get(path) {
                Some(object) => {
                    let mut response = described(object).into_response();
                    response.headers_mut().insert(CONTENT_LENGTH, object.bytes.len().into());
                    response
                }
                None => StatusCode::NOT_FOUND.into_response(),
            },
            // Content in signed chunks would be stored as it is.
            (&Method::PUT, Some(_)) if !headers.contains_key(CONTENT_ENCODING) => {
                match inner.objects.put(path, object(headers, body), &condition(headers)) {
                    Ok(etag) => [(ETAG, etag)].into_response(),
                    Err(refusal) => refused(refusal),
                }
            }
            (&Method::DELETE, Some(_)) => match inner.objects.delete(path, &condition(headers)) {
                Ok(()) => StatusCode::NO_CONTENT.into_response(),
                Err(refusal) => refused(refusal),
            },
            _ => StatusCode::NOT_IMPLEMENTED.into_response(),
        }
    }
}

fn object(headers: &HeaderMap, bytes: Bytes) -> Object {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let metadata = headers.iter().filter(|(name, _)| name.as_str().starts_with(METADATA));
    Object {
        bytes,
        content_type: headers.get(CONTENT_TYPE).map(text).unwrap_or_default(),
        metadata: metadata.map(|(name, value)| (name.as_str().to_owned(), text(value))).collect(),
    }
}

fn condition(headers: &HeaderMap) -> Condition {
    let value = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match (value(IF_NONE_MATCH), value(IF_MATCH)) {
        (Some(_), _) => Condition::Absent,
        (None, Some(etag)) => Condition::Unchanged(etag),
        (None, None) => Condition::Whatever,
    }
}

fn described(object: &Object) -> HeaderMap {
    let own = [(CONTENT_TYPE, object.content_type.clone()), (ETAG, object.etag())];
    let metadata = object
        .metadata
        .iter()
        .filter_map(|(name, value)| Some((HeaderName::try_from(name).ok()?, value.clone())));
    own.into_iter()
        .chain(metadata)
        .filter_map(|(name, value)| Some((name, HeaderValue::try_from(value).ok()?)))
        .collect()
}

fn refused(refusal: Refusal) -> Response {
    let (status, code, message) = match refusal {
        Refusal::NoSuchKey => (StatusCode::NOT_FOUND, "NoSuchKey", "The specified key does not exist."),
        Refusal::PreconditionFailed => (
            StatusCode::PRECONDITION_FAILED,
            "PreconditionFailed",
            "At least one of the pre-conditions you specified did not hold",
        ),
    };
    let error = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>\
         <RequestId>BENCH00000000000</RequestId></Error>"
    );
    (status, [(CONTENT_TYPE, "application/xml")], error).into_response()
}

fn list(objects: &Objects, bucket: &str, query: &str) -> Response {
    let field = |name: &str| {
        let mut fields = query.split('&').filter_map(|field| field.split_once('='));
        fields.find(|(found, _)| *found == name).map(|(_, value)| decode(value))
    };
    let limit =
        field("max-keys").and_then(|text| text.parse().ok()).map_or(PAGE, |limit: usize| limit.min(PAGE));
    let (prefix, after) = (field("prefix").unwrap_or_default(), field("start-after").unwrap_or_default());
    let Page { keys, is_truncated } = objects.list(bucket, &prefix, &after, limit);
    let contents: String = keys
        .iter()
        .map(|key| {
            let path = format!("{bucket}/{key}");
            let (etag, size) =
                objects.get(&path).map(|object| (object.etag(), object.bytes.len())).unwrap_or_default();
            format!(
                "<Contents><Key>{}</Key><LastModified>2026-11-24T20:22:01.000Z</LastModified><ETag>{}</ETag>\
                 <Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>",
                escape(key),
                escape(&etag)
            )
        })
        .collect();
    let result = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>{bucket}</Name><Prefix>{}</Prefix>\
         <StartAfter>{}</StartAfter><KeyCount>{}</KeyCount><MaxKeys>{limit}</MaxKeys>\
         <IsTruncated>{is_truncated}</IsTruncated>{contents}</ListBucketResult>",
        escape(&prefix),
        escape(&after),
        keys.len()
    );
    ([(CONTENT_TYPE, "application/xml")], result).into_response()
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    const AT_ONCE: Latency = Latency { read: Duration::ZERO, write: Duration::ZERO };

    async fn ask(
        s3: &S3,
        method: Method,
        uri: &str,
        headers: &[(HeaderName, &'static str)],
    ) -> (u16, HeaderMap, String) {
        let headers =
            headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        let uri = uri.parse().expect("an address");
        let response = answer(State(s3.clone()), method, uri, headers, "content".into()).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("in memory").to_bytes();
        (parts.status.as_u16(), parts.headers, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn a_put_object_comes_back_with_its_metadata() {
        let s3 = S3::new(AT_ONCE, "b");
        let nonce = HeaderName::from_static("x-amz-meta-nonce");
        let put = [(IF_NONE_MATCH, "*"), (nonce.clone(), "n1"), (CONTENT_TYPE, "text/plain")];
        let (status, written, _) = ask(&s3, Method::PUT, "/b/users/a%2120", &put).await;
        assert_eq!(status, 200);
        for method in [Method::GET, Method::HEAD] {
            let (status, headers, body) = ask(&s3, method.clone(), "/b/users/a!20?x-id=GetObject", &[]).await;
            assert_eq!(
                (status, &headers[ETAG], &headers[nonce.clone()]),
                (200, &written[ETAG], &HeaderValue::from_static("n1"))
            );
            assert_eq!(body, if method == Method::GET { "content" } else { "" });
            assert!(method == Method::GET || headers[CONTENT_LENGTH] == "7");
        }
        let calls = s3.take_calls();
        assert_eq!(calls, Calls { get: 1, head: 1, put: 1, ..Calls::default() });
        let _other = ask(&s3, Method::GET, "/c/users/a", &[]).await;
        assert_eq!(s3.take_calls(), Calls::default(), "another bucket");
    }

    #[tokio::test]
    async fn refusals_say_why() {
        let s3 = S3::new(AT_ONCE, "b");
        let (status, _, body) = ask(&s3, Method::GET, "/b/k", &[]).await;
        assert!(status == 404 && body.contains("<Code>NoSuchKey</Code>"), "{status} {body}");
        let (status, _, body) = ask(&s3, Method::HEAD, "/b/k", &[]).await;
        assert_eq!((status, &*body), (404, ""));
        let (status, _, body) = ask(&s3, Method::PUT, "/b/k", &[(IF_MATCH, "\"x\"")]).await;
        assert!(status == 404 && body.contains("<Code>NoSuchKey</Code>"), "{status} {body}");
        assert_eq!(ask(&s3, Method::PUT, "/b/k", &[]).await.0, 200);
        for refused in [(IF_MATCH, "\"x\""), (IF_NONE_MATCH, "*")] {
            let (status, _, body) = ask(&s3, Method::PUT, "/b/k", &[refused]).await;
            assert!(status == 412 && body.contains("<Code>PreconditionFailed</Code>"), "{status} {body}");
        }
        assert_eq!(ask(&s3, Method::DELETE, "/b/k", &[(IF_MATCH, "\"x\"")]).await.0, 412);
        assert_eq!(ask(&s3, Method::DELETE, "/b/k", &[]).await.0, 204);
        assert_eq!(ask(&s3, Method::GET, "/b/k", &[]).await.0, 404);
        let chunked = [(CONTENT_ENCODING, "aws-chunked")];
        assert_eq!(ask(&s3, Method::PUT, "/b/k", &chunked).await.0, 501);
    }

    #[tokio::test]
    async fn a_list_says_whether_there_is_more() {
        let s3 = S3::new(AT_ONCE, "b");
        for key in ["users/a", "users/b&", "users/c", "zoo"] {
            s3.put(&format!("b/{key}"), "x");
        }
        let (status, _, body) =
            ask(&s3, Method::GET, "/b/?list-type=2&prefix=users%2F&max-keys=2", &[]).await;
        assert!(status == 200 && body.contains("<Key>users/b&amp;</Key>"), "{body}");
        assert!(body.contains("<IsTruncated>true</IsTruncated>") && !body.contains("users/c"), "{body}");
        let (_, _, body) = ask(&s3, Method::GET, "/b?prefix=users%2F&start-after=users%2Fb%26", &[]).await;
        assert!(body.contains("<KeyCount>1</KeyCount>") && body.contains("<Key>users/c</Key>"), "{body}");
        assert!(body.contains("<IsTruncated>false</IsTruncated>"), "{body}");
        assert_eq!(s3.take_calls().list, 2);
    }
}
