//! A certificate for the load balancer: issued here or given, with its chain and its key.
//!
//! Chain and key are one object, so that no reader ever sees one without the other. Whether we issued it says
//! the object's first line, which readers of PEM skip.

use std::net::Ipv4Addr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType};
use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, CertificateError as Judgement, RootCertStore};

/// About a year: browsers refuse more than 398 days, and each deployment may renew it.
const VALID_DAYS: i64 = 365;
/// First line of an object issued here, and of the file with which clients trust it.
pub const ISSUED_HERE: &str = "# Self-signed by Vigia; a deployment renews it.";

type Result<T> = std::result::Result<T, CertificateError>;

/// A chain, the key of its first certificate, and the values derived from them.
#[derive(Debug)]
pub struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    /// `Debug` does not print it.
    key: PrivateKeyDer<'static>,
    pub origin: Origin,
    /// The last moment at which the first certificate is valid.
    pub until: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    SelfSigned,
    Given,
}

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("there is no PEM certificate in it")]
    NoCertificate,
    #[error("its certificate chain is not valid PEM")]
    NotPem(#[source] pem::Error),
    #[error("there is no PEM private key, or the key has a passphrase")]
    NoKey(#[source] pem::Error),
    #[error("certificate and key cannot be used together")]
    Unusable(#[source] rustls::Error),
    #[error("the certificate cannot be parsed: its dates are not readable")]
    NoDates,
    #[error("the certificate expired at {0}")]
    Ended(Timestamp),
    #[error("the certificate is not valid yet")]
    NotYet,
}

impl Certificate {
    /// Issues a certificate for these addresses and, on the local cloud, for its host names.
    pub fn self_signed(addresses: &[Ipv4Addr], now: Timestamp) -> Self {
        // From the last midnight: clocks are wrong by minutes, and dates need no more precision.
        let today = now.to_zoned_datetime(TimeZone::UTC).date();
        let day = |days: i64| {
            let date = today.saturating_add(Span::new().days(days));
            rcgen::date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
        };
        let first = addresses.first().copied().unwrap_or(Ipv4Addr::UNSPECIFIED);
        let mut params = CertificateParams::default();
        params.not_before = day(-1);
        params.not_after = day(VALID_DAYS);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("Vigia at {first}"));
        params.subject_alt_names = names(addresses);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("there is randomness");
        let issued = params.self_signed(&key).expect("the parameters are complete");
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Self::new(vec![issued.der().clone()], key, Origin::SelfSigned).expect("it was made here")
    }

    fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>, origin: Origin) -> Result<Self> {
        let first = chain.first().ok_or(CertificateError::NoCertificate)?;
        let until = until(first)?;
        // Parsed as the load balancer will parse it, so that an error shows here.
        CertifiedKey::from_der(chain.clone(), key.clone_key(), &default_provider())
            .map_err(CertificateError::Unusable)?;
        Ok(Self { chain, key, origin, until })
    }

    /// Parses the certificates of one text and the private key of another.
    pub fn parse(chain: &[u8], key: &[u8], origin: Origin) -> Result<Self> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<std::result::Result<_, _>>()
            .map_err(CertificateError::NotPem)?;
        if chain.is_empty() {
            return Err(CertificateError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(CertificateError::NoKey)?;
        Self::new(chain, key, origin)
    }

    /// Parses the object, which `to_object` or an operator has written.
    pub fn from_object(bytes: &[u8]) -> Result<Self> {
        let origin =
            if bytes.starts_with(ISSUED_HERE.as_bytes()) { Origin::SelfSigned } else { Origin::Given };
        Self::parse(bytes, bytes, origin)
    }

    /// Returns chain and private key as PEM.
    pub fn to_object(&self) -> Vec<u8> {
        let label = match &self.key {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        (self.public_pem() + &in_pem(label, self.key.secret_der())).into_bytes()
    }

    /// Returns the chain alone.
    pub fn public_pem(&self) -> String {
        let mark = match self.origin {
            Origin::SelfSigned => format!("{ISSUED_HERE}\n"),
            Origin::Given => String::new(),
        };
        self.chain.iter().fold(mark, |text, certificate| text + &in_pem("CERTIFICATE", certificate))
    }

    pub fn first(&self) -> &CertificateDer<'static> {
        self.chain.first().expect("a chain is not empty")
    }

    /// Returns the SHA-256 of the first certificate, as `openssl x509 -fingerprint -sha256` prints it.
    pub fn fingerprint(&self) -> String {
        let digest = Sha256::digest(self.first());
        digest.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
    }

    pub fn is_for(&self, address: Ipv4Addr) -> bool {
        let name = ServerName::IpAddress(address.into());
        ParsedCertificate::try_from(self.first())
            .is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
    }

    /// Returns the certificate if its dates make it valid now.
    pub fn judged(&self, now: Timestamp) -> Result<()> {
        match judgement(self.first(), unix(now)) {
            Some(Judgement::ExpiredContext { .. }) => Err(CertificateError::Ended(self.until)),
            Some(Judgement::NotValidYetContext { .. }) => Err(CertificateError::NotYet),
            _ => Ok(()),
        }
    }
}

/// Returns the names of the certificate: the local cloud's loopback addresses have host names, any other
/// address is its own name.
fn names(addresses: &[Ipv4Addr]) -> Vec<SanType> {
    let mut ips = addresses.to_vec();
    let is_local = addresses.iter().any(Ipv4Addr::is_loopback);
    if is_local && !ips.contains(&Ipv4Addr::LOCALHOST) {
        ips.push(Ipv4Addr::LOCALHOST);
    }
    let mut names: Vec<SanType> = ips.into_iter().map(|ip| SanType::IpAddress(ip.into())).collect();
    if is_local {
        names.push(SanType::DnsName("localhost".try_into().expect("it is ASCII")));
    }
    names
}

/// Returns when the certificate expires. The verifier's error names that date when it checks at the end of
/// time, because it checks dates before anything else.
fn until(certificate: &CertificateDer<'_>) -> Result<Timestamp> {
    let end_of_time = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));
    match judgement(certificate, end_of_time) {
        Some(Judgement::ExpiredContext { not_after, .. }) => {
            let seconds = i64::try_from(not_after.as_secs()).unwrap_or(i64::MAX);
            Ok(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
        }
        _ => Err(CertificateError::NoDates),
    }
}

/// Returns the verdict on the certificate of a client that trusts no certificate authority.
fn judgement(certificate: &CertificateDer<'_>, at: UnixTime) -> Option<Judgement> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let algorithms = default_provider().signature_verification_algorithms.all;
    match verify_server_cert_signed_by_trust_anchor(&parsed, &RootCertStore::empty(), &[], at, algorithms) {
        Err(rustls::Error::InvalidCertificate(judgement)) => Some(judgement),
        _ => None,
    }
}

fn unix(at: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at.as_second()).unwrap_or(0)))
}

fn in_pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("base64 is ASCII")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Certificates for tests of this module and of modules that use it.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
    pub(crate) const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 8);

    pub(crate) fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    pub(crate) fn now() -> Timestamp {
        at("2026-10-02T11:00:00Z")
    }

    /// Returns a pair as an operator has it in two files.
    pub(crate) fn pair() -> (String, String) {
        pair_for(ADDRESS)
    }

    pub(crate) fn pair_for(address: Ipv4Addr) -> (String, String) {
        let issued = Certificate::self_signed(&[address], now());
        (in_pem("CERTIFICATE", issued.first()), in_pem("PRIVATE KEY", issued.key.secret_der()))
    }

    pub(crate) fn given((chain, key): &(String, String)) -> Certificate {
        Certificate::parse(chain.as_bytes(), key.as_bytes(), Origin::Given).expect("a pair")
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{ADDRESS, at, given, now, pair};
    use super::*;

    #[test]
    fn a_client_that_trusts_the_self_signed_certificate_accepts_it() {
        let certificate = Certificate::self_signed(&[ADDRESS], now());
        let mut roots = RootCertStore::empty();
        roots.add(certificate.first().clone()).expect("a root");
        let parsed = ParsedCertificate::try_from(certificate.first()).expect("a certificate");
        let algorithms = default_provider().signature_verification_algorithms.all;
        for (time, is_valid) in [
            ("2026-09-30T23:59:00Z", false),
            ("2026-10-01T00:01:00Z", true),
            ("2027-10-01T23:59:00Z", true),
            ("2027-10-02T00:01:00Z", false),
        ] {
            let verified =
                verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], unix(at(time)), algorithms);
            assert_eq!(verified.is_ok(), is_valid, "{time}: {verified:?}");
        }
        assert_eq!(certificate.until, at("2027-10-02T00:00:00Z"));
    }

    #[test]
    fn only_a_loopback_address_has_names() {
        let is_for = |certificate: &Certificate, name: &'static str| {
            let parsed = ParsedCertificate::try_from(certificate.first()).expect("a certificate");
            verify_server_name(&parsed, &ServerName::try_from(name).expect("a name")).is_ok()
        };
        let public = Certificate::self_signed(&[ADDRESS], now());
        assert_eq!(
            ["203.0.113.7", "127.0.0.1", "localhost"].map(|name| is_for(&public, name)),
            [true, false, false]
        );
        let local = Certificate::self_signed(&[Ipv4Addr::new(127, 0, 0, 2)], now());
        assert_eq!(["127.0.0.2", "127.0.0.1", "localhost"].map(|name| is_for(&local, name)), [true; 3]);
    }

    #[test]
    fn a_stored_certificate_is_read_back() {
        for certificate in [Certificate::self_signed(&[ADDRESS], now()), given(&pair())] {
            let object = certificate.to_object();
            let read = Certificate::from_object(&object).expect("readable");
            assert_eq!((read.origin, read.until), (certificate.origin, certificate.until));
            assert_eq!(read.to_object(), object);
        }
    }

    #[test]
    fn each_kind_of_a_wrong_pair_is_named() {
        let ((chain, key), (_, other)) = (pair(), pair());
        let broken = chain.replace("-----END CERTIFICATE-----", "");
        for (chain, key, says) in [
            (key.as_str(), key.as_str(), "no PEM certificate"),
            (broken.as_str(), key.as_str(), "not valid PEM"),
            (chain.as_str(), chain.as_str(), "no PEM private key"),
            (chain.as_str(), other.as_str(), "cannot be used together"),
        ] {
            let error = Certificate::parse(chain.as_bytes(), key.as_bytes(), Origin::Given).expect_err(says);
            assert!(error.to_string().contains(says), "{says}: {error}");
        }
        let noise = in_pem("CERTIFICATE", b"noise");
        assert!(matches!(
            Certificate::parse(noise.as_bytes(), key.as_bytes(), Origin::Given),
            Err(CertificateError::NoDates)
        ));
        let certificate = Certificate::self_signed(&[ADDRESS], now());
        assert!(matches!(certificate.judged(at("2028-01-01T00:00:00Z")), Err(CertificateError::Ended(_))));
        assert!(matches!(certificate.judged(at("2026-01-01T00:00:00Z")), Err(CertificateError::NotYet)));
        assert!(certificate.judged(now()).is_ok());
    }

    #[test]
    fn a_key_in_the_certificates_file_is_not_taken_and_not_shown() {
        let (one, (_, other_key)) = (pair(), pair());
        let combined = format!("{other_key}{}", one.0);
        let certificate = given(&(combined, one.1.clone()));
        assert_eq!(certificate.to_object(), given(&one).to_object());
        assert_eq!(certificate.public_pem(), one.0);
        let body = one.1.lines().nth(1).expect("a line of the key");
        assert!(!format!("{certificate:?}").contains(body));
    }
}
