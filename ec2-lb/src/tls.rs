//! The certificate for the TLS port, read again when it changes.
//!
//! A certificate is replaced long before it expires, usually by a program; nobody should have to
//! restart a load balancer for it. New connections get the new one. A file that cannot be used
//! leaves the old one in force, with a line in the log.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use fleet::telemetry::error_chain;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use tokio_rustls::rustls::{self, ServerConfig, crypto::aws_lc_rs};

/// Where the certificate and its key are, both in PEM; the chain follows the certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("{path} cannot be read; it must hold a {what} in PEM", path = path.display())]
    Unreadable {
        path: PathBuf,
        what: &'static str,
        #[source]
        source: pem::Error,
    },
    #[error("{} holds no certificate", .0.display())]
    Empty(PathBuf),
    #[error("certificate and key cannot be used together")]
    Unusable(#[source] rustls::Error),
}

/// The certificate in force.
#[derive(Clone, Debug, Default)]
pub struct Certificate(Arc<ArcSwapOption<ServerConfig>>);

impl Certificate {
    pub(crate) fn current(&self) -> Option<Arc<ServerConfig>> {
        self.0.load_full()
    }

    /// Reads the files, and says whether they hold something else than before.
    pub fn load(
        &self,
        files: &CertificateFiles,
        held: &mut Option<Vec<u8>>,
    ) -> Result<bool, CertificateError> {
        let key = PrivateKeyDer::from_pem_file(&files.key)
            .map_err(|source| unreadable(&files.key, "private key", source))?;
        let chain = CertificateDer::pem_file_iter(&files.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|source| unreadable(&files.certificate, "certificate", source))?;
        let mut content = key.secret_der().to_vec();
        chain.iter().for_each(|certificate| content.extend_from_slice(certificate));
        if held.as_ref() == Some(&content) {
            return Ok(false);
        }
        if chain.is_empty() {
            return Err(CertificateError::Empty(files.certificate.clone()));
        }
        self.0.store(Some(Arc::new(config(chain, key)?)));
        *held = Some(content);
        Ok(true)
    }
}

fn unreadable(path: &std::path::Path, what: &'static str, source: pem::Error) -> CertificateError {
    CertificateError::Unreadable { path: path.to_owned(), what, source }
}

fn config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, CertificateError> {
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

/// Looks at the files for as long as it is polled. `held` is what [`Certificate::load`] has left.
pub(crate) async fn follow(
    certificate: &Certificate,
    files: Option<CertificateFiles>,
    mut held: Option<Vec<u8>>,
    every: Duration,
) {
    let Some(files) = files else { return std::future::pending().await };
    let mut trouble = None;
    loop {
        tokio::time::sleep(every).await;
        match certificate.load(&files, &mut held) {
            Ok(is_new) => {
                trouble = None;
                if is_new {
                    tracing::info!("the certificate has changed; new connections get the new one");
                }
            }
            Err(error) => {
                let text = error_chain(&error);
                if trouble.as_ref() != Some(&text) {
                    tracing::warn!(
                        error = text,
                        "the certificate cannot be used; the old one stays in force"
                    );
                }
                trouble = Some(text);
            }
        }
    }
}
