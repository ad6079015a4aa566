//! Decides whether the load balancer serves TLS, and with which certificate.
//!
//! | stored \ wanted | as it is | self-signed | given | off |
//! |---|---|---|---|---|
//! | nothing | TLS stays off | issue | store | TLS stays off |
//! | self-signed, for all addresses and for 30 days more | keep | keep | store | remove |
//! | self-signed, for another address or not for long | issue | issue | store | remove |
//! | a given one | keep | issue | store if another | remove |
//! | not usable | refuse | issue | store | remove |
//!
//! The operator renews a given certificate, self-signed or not.

use std::io::Read as _;
use std::net::Ipv4Addr;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use crate::certificate::{Certificate, CertificateError, Origin};
use crate::cli::{TlsMode, TlsOptions};
use crate::error::{DeployError, Exit, Result};

/// A self-signed certificate that expires sooner than this is renewed. Twice as much would renew more often
/// than needed. Half as much could let it expire between two deployments of a quiet stack.
const RENEWED_WITHIN: SignedDuration = SignedDuration::from_hours(30 * 24);
/// A chain of a dozen certificates and a large key are 30 KiB. The load balancer reads four times this.
const MAX_BYTES: u64 = 64 * 1024;

/// The TLS options of the command line.
pub enum Wanted {
    AsItIs,
    SelfSigned,
    Given(Certificate),
    Off,
}

/// The stack's certificate, or why the stored object holds none.
pub type Stored = std::result::Result<Certificate, CertificateError>;

/// The deployment's action on it.
#[derive(Debug)]
pub enum Decision {
    StayOff,
    Keep(Certificate),
    /// A new self-signed one.
    Issue,
    Store(Certificate),
    Remove,
}

impl Wanted {
    /// Reads and checks the given files, before anything is changed.
    pub fn read(options: &TlsOptions, now: Timestamp) -> Result<Self> {
        let (certificate, key) = match (&options.tls, &options.tls_cert, &options.tls_key) {
            (_, Some(certificate), Some(key)) => (certificate, key),
            (Some(TlsMode::SelfSigned), _, _) => return Ok(Self::SelfSigned),
            (Some(TlsMode::Off), _, _) => return Ok(Self::Off),
            (None, _, _) => return Ok(Self::AsItIs),
        };
        let (chain_pem, key_pem) = (read_file(certificate)?, read_file(key)?);
        let given = Certificate::parse(&chain_pem, &key_pem, Origin::Given)
            .and_then(|given| given.judged(now).map(|()| given));
        given.map(Self::Given).map_err(|error| {
            let what = format!(
                "the certificate of {} with the key of {} cannot be used",
                certificate.display(),
                key.display()
            );
            DeployError::new(Exit::Usage, what)
                .hint("Nothing was changed. Both files must be PEM, with the certificate before its chain.")
                .caused_by(error)
        })
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    let refused = || {
        DeployError::new(Exit::Usage, format!("{} cannot be read", path.display()))
            .hint("Nothing was changed.")
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| refused().caused_by(error))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(refused().caused_by(format!("it has more than {MAX_BYTES} bytes")));
    }
    Ok(bytes)
}

/// Decides by the table above. `stored` is the stack's certificate, if it has one.
pub fn decide(
    wanted: Wanted,
    stored: Option<Stored>,
    addresses: &[Ipv4Addr],
    now: Timestamp,
) -> std::result::Result<Decision, CertificateError> {
    let is_ours = |stored: &Certificate| stored.origin == Origin::SelfSigned;
    let is_good = |stored: &Certificate| {
        addresses.iter().all(|address| stored.is_for(*address)) && !ends_soon(stored, now)
    };
    Ok(match (wanted, stored) {
        (Wanted::Off | Wanted::AsItIs, None) => Decision::StayOff,
        (Wanted::Off, Some(_)) => Decision::Remove,
        (Wanted::AsItIs, Some(Err(unusable))) => return Err(unusable),
        (Wanted::AsItIs, Some(Ok(stored))) if is_ours(&stored) && !is_good(&stored) => Decision::Issue,
        (Wanted::AsItIs, Some(Ok(stored))) => Decision::Keep(stored),
        (Wanted::SelfSigned, Some(Ok(stored))) if is_ours(&stored) && is_good(&stored) => {
            Decision::Keep(stored)
        }
        (Wanted::SelfSigned, _) => Decision::Issue,
        (Wanted::Given(given), Some(Ok(stored))) if given.to_object() == stored.to_object() => {
            Decision::Keep(stored)
        }
        (Wanted::Given(given), _) => Decision::Store(given),
    })
}

/// Returns the error of a deployment without TLS options whose stored certificate cannot be used.
pub fn stays_as_it_is(unusable: CertificateError) -> DeployError {
    DeployError::new(Exit::Failed, "the certificate in the control bucket cannot be used")
        .hint(
            "Pass another one with --tls-cert and --tls-key (make: TLS_CERT=, TLS_KEY=), or deploy with \
                `--tls self-signed` or `--tls off` (make: TLS=).",
        )
        .caused_by(unusable)
}

pub fn ends_soon(certificate: &Certificate, now: Timestamp) -> bool {
    certificate.until.duration_since(now) <= RENEWED_WITHIN
}

impl Decision {
    /// Returns whether TLS is served after the decision is carried out.
    pub fn is_on(&self) -> bool {
        match self {
            Self::Keep(_) | Self::Issue | Self::Store(_) => true,
            Self::StayOff | Self::Remove => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::testing::{ADDRESS, ELSEWHERE, at, given, now, pair, pair_for};

    fn decided(wanted: Wanted, stored: Option<&[u8]>, at: Timestamp) -> &'static str {
        match decide(wanted, stored.map(Certificate::from_object), &[ADDRESS], at) {
            Ok(Decision::StayOff) => "stay off",
            Ok(Decision::Keep(_)) => "keep",
            Ok(Decision::Issue) => "issue",
            Ok(Decision::Store(_)) => "store",
            Ok(Decision::Remove) => "remove",
            Err(_) => "refuse",
        }
    }

    #[test]
    fn the_table_holds() {
        let (one, other) = (pair(), pair());
        let ours = Certificate::self_signed(&[ADDRESS], now()).to_object();
        let elsewhere = Certificate::self_signed(&[ELSEWHERE], now()).to_object();
        let old = Certificate::self_signed(&[ADDRESS], at("2025-10-30T00:00:00Z")).to_object();
        let theirs = given(&one).to_object();
        for (what, stored, expected) in [
            ("nothing", None, ["stay off", "issue", "store", "stay off"]),
            ("ours", Some(ours.as_slice()), ["keep", "keep", "store", "remove"]),
            ("for another address", Some(&elsewhere), ["issue", "issue", "store", "remove"]),
            ("28 days left", Some(&old), ["issue", "issue", "store", "remove"]),
            ("another that was given", Some(&theirs), ["keep", "issue", "store", "remove"]),
            ("garbage", Some(b"garbage"), ["refuse", "issue", "store", "remove"]),
        ] {
            let wanted = [Wanted::AsItIs, Wanted::SelfSigned, Wanted::Given(given(&other)), Wanted::Off];
            let decided = wanted.map(|wanted| decided(wanted, stored, now()));
            assert_eq!(decided, expected, "{what}");
        }
        assert_eq!(decided(Wanted::Given(given(&one)), Some(&theirs), now()), "keep");
    }

    #[test]
    fn a_given_certificate_is_kept_near_its_end_or_for_another_name() {
        let theirs = given(&pair_for(ELSEWHERE)).to_object();
        assert_eq!(decided(Wanted::AsItIs, Some(&theirs), at("2027-10-01T00:00:00Z")), "keep");
    }

    #[test]
    fn renewal_begins_thirty_days_before_the_end() {
        let ours = Certificate::self_signed(&[ADDRESS], now()).to_object();
        assert_eq!(decided(Wanted::AsItIs, Some(&ours), at("2027-09-01T23:59:00Z")), "keep");
        assert_eq!(decided(Wanted::AsItIs, Some(&ours), at("2027-09-02T00:01:00Z")), "issue");
    }
}
