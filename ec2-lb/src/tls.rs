//! The certificate for the TLS port, read again when it changes.
//!
//! A certificate is replaced long before it expires, usually by a program, and that must not need a restart
//! of the load balancer. New connections get the new certificate. If it is not usable, the old one stays in
//! force and the log says why.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use process::telemetry::error_chain;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig, crypto::aws_lc_rs};

use crate::source;

/// A chain of a dozen certificates and a large key are 30 KiB.
const MAX_BYTES: usize = 256 * 1024;

/// Where the certificate, its chain and its key are, all in PEM.
pub enum CertificateSource {
    Files {
        certificate: PathBuf,
        key: PathBuf,
    },
    /// One object in the control bucket, see `fleet::keys::CERTIFICATE`.
    Bucket {
        client: aws_sdk_s3::Client,
        bucket: String,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("{} cannot be read", .path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("S3 did not return the certificate")]
    Bucket(#[source] source::FetchError),
    #[error("the control bucket holds no certificate; deploy one with --tls-cert and --tls-key")]
    Missing,
    #[error("the certificate is not valid PEM; deploy a PEM file with --tls-cert")]
    NotCertificates(#[source] pem::Error),
    #[error("the private key is not valid PEM; deploy a PEM file with --tls-key")]
    NoKey(#[source] pem::Error),
    #[error("the certificate and the private key do not fit each other; deploy a matching pair")]
    Unusable(#[source] rustls::Error),
}

impl fmt::Debug for CertificateSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files { certificate, .. } => write!(f, "Files({})", certificate.display()),
            Self::Bucket { bucket, .. } => write!(f, "Bucket({bucket})"),
        }
    }
}

impl CertificateSource {
    async fn read(&self) -> Result<Vec<u8>, CertificateError> {
        match self {
            Self::Files { certificate, key } => {
                let mut bundle = read_file(certificate).await?;
                bundle.push(b'\n');
                bundle.extend_from_slice(&read_file(key).await?);
                Ok(bundle)
            }
            Self::Bucket { client, bucket } => {
                let bucket = aws::bucket::Bucket::new(client.clone(), bucket);
                source::read_object(&bucket, fleet::keys::CERTIFICATE, MAX_BYTES)
                    .await
                    .map_err(CertificateError::Bucket)?
                    .ok_or(CertificateError::Missing)
            }
        }
    }
}

async fn read_file(path: &PathBuf) -> Result<Vec<u8>, CertificateError> {
    tokio::fs::read(path).await.map_err(|source| CertificateError::File { path: path.clone(), source })
}

/// The certificate in force, if there is one yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Certificate(Arc<ArcSwapOption<ServerConfig>>);

impl Certificate {
    pub(crate) fn current(&self) -> Option<Arc<ServerConfig>> {
        self.0.load_full()
    }
}

/// Keeps the certificate in force equal to what a source has.
#[derive(Debug)]
pub struct CertificateWatch {
    pub(crate) certificate: Certificate,
    source: CertificateSource,
    /// The bytes of the certificate in force.
    held: Vec<u8>,
}

impl CertificateWatch {
    pub fn new(source: CertificateSource) -> Self {
        Self { certificate: Certificate::default(), source, held: Vec::new() }
    }

    /// Reads the certificate once, and returns whether it has changed.
    pub async fn refresh(&mut self) -> Result<bool, CertificateError> {
        let bundle = self.source.read().await?;
        if bundle == self.held {
            return Ok(false);
        }
        self.certificate.0.store(Some(Arc::new(config(&bundle)?)));
        self.held = bundle;
        Ok(true)
    }

    /// Looks every so often, for as long as it is polled.
    pub(crate) async fn follow(mut self, every: Duration) {
        let mut trouble = None;
        loop {
            match self.refresh().await {
                Ok(is_new) => {
                    trouble = None;
                    if is_new {
                        tracing::info!("a new certificate was read; new connections get it");
                    }
                }
                Err(error) => {
                    let text = error_chain(&error);
                    if trouble.as_ref() != Some(&text) {
                        tracing::warn!(
                            error = text,
                            "the certificate cannot be used; the last one stays in force"
                        );
                    }
                    trouble = Some(text);
                }
            }
            tokio::time::sleep(every).await;
        }
    }
}

fn config(bundle: &[u8]) -> Result<ServerConfig, CertificateError> {
    let chain = CertificateDer::pem_slice_iter(bundle)
        .collect::<Result<Vec<_>, _>>()
        .map_err(CertificateError::NotCertificates)?;
    let key = PrivateKeyDer::from_pem_slice(bundle).map_err(CertificateError::NoKey)?;
    let build = || {
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        // Nothing else is spoken here, and a client that knows does not try.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A client that comes back saves the handshake's signature.
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        Ok::<_, rustls::Error>(config)
    };
    build().map_err(CertificateError::Unusable)
}
