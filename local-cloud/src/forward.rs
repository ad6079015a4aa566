//! Sends requests on to the emulators.

use std::net::SocketAddr;

use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{Response, StatusCode, Uri, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;

use crate::reply::refusal;
use crate::sigv4;

pub(crate) type HttpClient = Client<HttpConnector, Body>;

/// The emulator of all services but EC2.
#[derive(Clone)]
pub(crate) struct Ministack {
    pub client: HttpClient,
    pub addr: SocketAddr,
}

impl Ministack {
    pub(crate) async fn forward(&self, parts: Parts, body: Bytes) -> Response<Body> {
        forward(&self.client, self.addr, parts, body).await
    }
}

/// Sends a request on to an emulator, unchanged except for the address.
pub(crate) async fn forward(
    client: &HttpClient,
    to: SocketAddr,
    parts: Parts,
    body: Bytes,
) -> Response<Body> {
    let authorization = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let service = authorization.and_then(sigv4::parse).map_or("", |auth| auth.service).to_owned();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let uri: Uri = match format!("http://{to}{path}").parse() {
        Ok(uri) => uri,
        Err(error) => return refusal(&service, StatusCode::BAD_REQUEST, "InvalidURI", &error.to_string()),
    };
    let mut request = hyper::Request::builder().method(parts.method).uri(uri);
    for (name, value) in &parts.headers {
        let framing = *name == header::TRANSFER_ENCODING || *name == header::CONTENT_LENGTH;
        if !framing && *name != header::CONNECTION && *name != header::EXPECT {
            request = request.header(name, value);
        }
    }
    // Sent even without a body: botocore's and ministack's servers expect it on PUT.
    let request = request.header(header::CONTENT_LENGTH, body.len()).body(Body::from(body));
    let sent = match request {
        Ok(request) => client.request(request).await,
        Err(error) => {
            return refusal(&service, StatusCode::BAD_REQUEST, "InvalidRequest", &error.to_string());
        }
    };
    match sent {
        Ok(response) => response.map(Body::new),
        Err(error) => {
            tracing::error!(%error, emulator = %to, "an emulator does not answer");
            refusal(
                &service,
                StatusCode::SERVICE_UNAVAILABLE,
                "ServiceUnavailable",
                "an emulator does not answer",
            )
        }
    }
}
