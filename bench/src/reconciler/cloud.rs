//! The part of S3 and EC2 that a tick at rest uses: four documents, two listings. Every write is accepted;
//! nothing is checked, because only the time is under test.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, ETAG};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use fleet::keys;
use fleet::memory::Memory;
use tokio::net::TcpListener;

use super::instance_xml;
use super::stack::{ALLOCATION, Stack, balancer};

pub const BUCKET: &str = "vigia-bench-control";

#[derive(Clone)]
pub struct Cloud(Arc<Inner>);

struct Inner {
    objects: Mutex<HashMap<String, (Bytes, u64)>>,
    /// Pages of DescribeInstances.
    pages: Vec<Bytes>,
}

impl Cloud {
    /// Makes the cloud of a stack at rest.
    pub fn new(stack: &Stack) -> anyhow::Result<Self> {
        let pages = instance_xml::pages(&stack.rows()).into_iter().map(Bytes::from).collect();
        let cloud = Self(Arc::new(Inner { objects: Mutex::default(), pages }));
        cloud.put(keys::DESIRED_COUNT, stack.desired().to_string().into());
        cloud.put(keys::RELEASE, serde_json::to_vec_pretty(stack.release.as_ref())?.into());
        cloud.reset(stack)?;
        Ok(cloud)
    }

    /// Restores the memory, and a registry that lacks a worker, so that a tick writes both.
    pub fn reset(&self, stack: &Stack) -> anyhow::Result<()> {
        self.put(keys::STATE, serde_json::to_vec_pretty(&stack.memory())?.into());
        let mut registry = stack.registry();
        registry.workers.pop_last();
        self.put(keys::REGISTRY, serde_json::to_vec_pretty(&registry)?.into());
        Ok(())
    }

    pub fn memory(&self) -> anyhow::Result<Memory> {
        Ok(serde_json::from_slice(&self.get(keys::STATE).unwrap_or_default())?)
    }

    /// Returns the size of an object.
    pub fn size(&self, key: &str) -> usize {
        self.get(key).map_or(0, |bytes| bytes.len())
    }

    pub fn listing_size(&self) -> usize {
        self.0.pages.iter().map(Bytes::len).sum()
    }

    fn get(&self, key: &str) -> Option<Bytes> {
        self.0.objects.lock().expect("no thread panics with it").get(key).map(|(bytes, _)| bytes.clone())
    }

    /// Writes an object and returns the new version.
    fn put(&self, key: &str, bytes: Bytes) -> u64 {
        let mut objects = self.0.objects.lock().expect("no thread panics with it");
        let object = objects.entry(key.to_owned()).or_default();
        *object = (bytes, object.1 + 1);
        object.1
    }

    /// Serves while it is polled.
    pub async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        // Larger than any of Vigia's documents.
        let limit = axum::extract::DefaultBodyLimit::max(64 << 20);
        axum::serve(listener, Router::new().fallback(any(answer)).layer(limit).with_state(self)).await
    }
}

async fn answer(State(cloud): State<Cloud>, method: Method, uri: Uri, body: Bytes) -> Response {
    let key = uri.path().strip_prefix(&format!("/{BUCKET}/"));
    match (method, key) {
        (Method::GET, Some(key)) => {
            let object = cloud.0.objects.lock().expect("no thread panics with it").get(key).cloned();
            match object {
                Some((bytes, version)) => ([(ETAG, etag(version))], bytes).into_response(),
                None => {
                    let error = "<Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>";
                    (StatusCode::NOT_FOUND, [(CONTENT_TYPE, "application/xml")], error).into_response()
                }
            }
        }
        (Method::PUT, Some(key)) => {
            let version = cloud.put(key, body);
            [(ETAG, etag(version))].into_response()
        }
        (Method::POST, None) => cloud.ec2(&String::from_utf8_lossy(&body)),
        _ => StatusCode::NOT_IMPLEMENTED.into_response(),
    }
}

fn etag(version: u64) -> String {
    format!("\"{version}\"")
}

impl Cloud {
    fn ec2(&self, form: &str) -> Response {
        let fields: BTreeMap<&str, &str> =
            form.split('&').filter_map(|field| field.split_once('=')).collect();
        let xml = [(CONTENT_TYPE, "text/xml;charset=UTF-8")];
        match fields.get("Action").copied() {
            Some("DescribeInstances") => {
                let page = fields.get("NextToken").and_then(|page| page.parse().ok()).unwrap_or(0_usize);
                (xml, self.0.pages.get(page).cloned().unwrap_or_default()).into_response()
            }
            Some("DescribeAddresses") => (xml, addresses()).into_response(),
            _ => StatusCode::NOT_IMPLEMENTED.into_response(),
        }
    }
}

fn addresses() -> String {
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<DescribeAddressesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>59dbff89-35bd-4eac-99ed-example</requestId><addressesSet><item><publicIp>203.0.113.41</publicIp><allocationId>{ALLOCATION}</allocationId><domain>vpc</domain><instanceId>{}</instanceId><associationId>eipassoc-08e049abb575b7fd1</associationId><networkInterfaceOwnerId>123456789012</networkInterfaceOwnerId></item></addressesSet></DescribeAddressesResponse>"#,
        balancer()
    )
}
