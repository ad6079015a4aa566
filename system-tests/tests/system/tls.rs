//! TLS at the public address: on with a self-signed certificate, then with a given one, then off.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::{Cloud, say, text};

const STACK: &str = "alpha";

#[test]
fn tls_goes_on_takes_a_given_certificate_and_goes_off() {
    let cloud = Cloud::start();
    let on = cloud.deploy(STACK, &["--workers", "1", "--tls", "self-signed"]);
    let stack = Stack { cloud: &cloud, host: host(&cloud.url(STACK)) };
    self_signed_is_trusted_with_the_file_beside_the_token(&stack, &on);
    let again = cloud.deploy(STACK, &[]);
    assert!(again.contains("nothing changed"), "{again}");

    a_given_certificate_is_served_by_the_same_load_balancer(&stack);

    let before = stack.load_balancers();
    let off = cloud.deploy(STACK, &["--tls", "off"]);
    assert!(!off.contains("HTTPS"), "{off}");
    cloud.wait_until_all_is_known();
    assert_ne!(stack.load_balancers(), before, "a load balancer without TLS");
    stack.speaks_plain_text_only();
    let again = cloud.deploy(STACK, &[]);
    assert!(again.contains("nothing changed"), "{again}");
    cloud.must(STACK, &["destroy", "--yes"]);
}

fn self_signed_is_trusted_with_the_file_beside_the_token(stack: &Stack<'_>, said: &str) {
    let file = stack.cloud.certificate_file(STACK);
    let pem = std::fs::read(&file).expect("deploy wrote the certificate");
    assert!(!String::from_utf8_lossy(&pem).contains("PRIVATE KEY") && !said.contains("PRIVATE KEY"));
    let certificate = CertificateDer::from_pem_slice(&pem).expect("PEM");
    assert_eq!(stack.https(&stack.host, &certificate), Ok(200));
    assert_eq!(stack.https("localhost", &certificate), Ok(200), "on a loopback address only");
    assert!(stack.https("example.org", &certificate).is_err());

    let https = &stack.cloud.status(STACK)["https"];
    let url = format!("https://{}:5443", stack.host);
    let fingerprint = https["sha256"].as_str().expect("a fingerprint");
    assert!(said.contains(&format!("curl --cacert {} {url}/healthcheck", file.display())), "{said}");
    assert!(said.contains(fingerprint), "{said}");
    assert_eq!((https["url"].as_str(), https["answers"].as_str()), (Some(url.as_str()), Some("yes")));
    assert_eq!(stack.cloud.must(STACK, &["url", "--https"]).lines().nth(1), Some(url.as_str()));
    assert_eq!(stack.cloud.url(STACK), format!("http://{}:5000", stack.host), "as without TLS");
}

fn a_given_certificate_is_served_by_the_same_load_balancer(stack: &Stack<'_>) {
    let issued = rcgen::generate_simple_self_signed(["lb.test".to_owned()]).expect("a certificate");
    let path = |name: &str| stack.cloud.dir.path().join(name).to_string_lossy().into_owned();
    std::fs::write(path("cert.pem"), issued.cert.pem()).expect("writable");
    std::fs::write(path("key.pem"), issued.signing_key.serialize_pem()).expect("writable");
    let before = stack.load_balancers();
    let since = std::time::Instant::now();
    let pair = ["--tls-cert", &path("cert.pem"), "--tls-key", &path("key.pem")];
    let said = stack.cloud.deploy(STACK, &pair);
    say(&format!("a certificate is replaced and served: {:.1} s", since.elapsed().as_secs_f64()));
    assert!(said.contains("1 change."), "{said}");
    assert_eq!(stack.https("lb.test", issued.cert.der()), Ok(200));
    assert_eq!(stack.load_balancers(), before);
    assert!(!stack.cloud.certificate_file(STACK).exists(), "it no longer trusts the served certificate");
    let again = stack.cloud.deploy(STACK, &pair);
    assert!(again.contains("nothing changed"), "{again}");
}

struct Stack<'a> {
    cloud: &'a Cloud,
    /// The public address.
    host: String,
}

fn host(url: &str) -> String {
    url.trim_start_matches("http://").split(':').next().expect("a URL has a host").to_owned()
}

impl Stack<'_> {
    /// Returns the status of a health check, sent by a client that trusts this certificate alone.
    fn https(&self, name: &str, certificate: &CertificateDer<'static>) -> Result<u16, String> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).map_err(|error| error.to_string())?;
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let server = ServerName::try_from(name.to_owned()).expect("a name");
        let connection =
            ClientConnection::new(Arc::new(config), server).map_err(|error| error.to_string())?;
        let ask = || -> std::io::Result<String> {
            let stream = TcpStream::connect((self.host.as_str(), 5443))?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            let mut stream = StreamOwned::new(connection, stream);
            write!(stream, "GET /healthcheck HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().map_err(|error| error.to_string())?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.ok_or_else(|| format!("no status in {answer:?}"))
    }

    fn load_balancers(&self) -> Vec<String> {
        self.cloud.balancers(STACK, "pending,running")
    }

    fn speaks_plain_text_only(&self) {
        let answer = reqwest::blocking::get(format!("http://{}:5000/healthcheck", self.host));
        assert_eq!(answer.expect("an answer").status(), 200);
        assert!(TcpStream::connect((self.host.as_str(), 5443)).is_err(), "the port is still taken");
        let groups = ["ec2", "describe-security-groups", "--filters"];
        let of_it = [&format!("Name=group-name,Values=vigia-{STACK}-lb"), "--query"];
        let ports = "SecurityGroups[].IpPermissions[].FromPort";
        let ports = self.cloud.aws(&[&groups[..], &of_it[..], &[ports]].concat());
        assert!(ports.contains("5000") && !ports.contains("5443"), "{ports}");
        let bucket = format!("s3://vigia-{STACK}-control-000000000000-us-east-1/");
        let left = self.cloud.aws(&["s3", "ls", "--recursive", &bucket]);
        assert!(left.contains("secrets/") && !left.contains("tls/"), "{left}");
        assert_eq!(self.cloud.status(STACK)["https"], serde_json::Value::Null);
        let url = self.cloud.bootstrap(STACK, &["url", "--https"]);
        assert_eq!(url.status.code(), Some(1), "{}", text(&url));
        assert!(text(&url).contains("does not serve TLS"), "{}", text(&url));
    }
}
