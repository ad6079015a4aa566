//! A TLS handshake that accepts one certificate, byte for byte.
//!
//! It checks neither names nor issuers: a given certificate may be for names that do not lead here yet. It
//! only checks that the server has the certificate that it was given, and its key.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

/// Limit of connection and handshake: three round trips.
const DEADLINE: Duration = Duration::from_secs(5);

/// Does a handshake with the server; the error is a sentence for people.
pub(super) async fn with(address: SocketAddr, certificate: &CertificateDer<'static>) -> Result<(), String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let only = Arc::new(Only { certificate: certificate.clone(), provider: provider.clone() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(only)
        .with_no_client_auth();
    let shake = async {
        let stream = TcpStream::connect(address).await.map_err(|_| "no connection".to_owned())?;
        let name = ServerName::from(address.ip());
        let shaken = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        shaken.map(drop).map_err(|error| {
            let is_another = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>())
                == Some(&Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
            if is_another { "it serves another certificate".to_owned() } else { format!("no TLS: {error}") }
        })
    };
    tokio::time::timeout(DEADLINE, shake).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}

#[derive(Debug)]
struct Only {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Only {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;

    use super::*;
    use crate::certificate::testing::pair;

    #[tokio::test]
    async fn one_certificate_is_accepted_and_all_else_is_told_apart() {
        let (served, other) = (pair(), pair());
        let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(served.1.as_bytes()).expect("PEM");
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![der(&served.0)], key)
            .expect("a pair");
        let (tls, plain) = (listener().await, listener().await);
        let (at_tls, at_plain) = (address(&tls), address(&plain));
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = tls.accept().await {
                drop(acceptor.accept(stream).await);
            }
        });
        tokio::spawn(async move { while plain.accept().await.is_ok() {} });
        assert_eq!(with(at_tls, &der(&served.0)).await, Ok(()));
        assert_eq!(with(at_tls, &der(&other.0)).await, Err("it serves another certificate".to_owned()));
        let no_tls = with(at_plain, &der(&served.0)).await.expect_err("it closes at once");
        assert!(no_tls.starts_with("no TLS"), "{no_tls}");
        let unused = address(&listener().await);
        assert_eq!(with(unused, &der(&served.0)).await, Err("no connection".to_owned()));
    }

    async fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").await.expect("a free port")
    }

    fn address(listener: &TcpListener) -> SocketAddr {
        listener.local_addr().expect("bound")
    }
}
