//! The address on which this load balancer listens. If the settings name none, the instance metadata does.
//!
//! The default is the private address and not all addresses, because the admin port must never be reachable
//! through an unexpected interface.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use aws_config::imds;
use aws_config::imds::client::error::ImdsError;
use fleet::{LB_ADMIN_PORT, PUBLIC_PORT, TLS_PORT};

use crate::settings::Settings;

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(
        "cannot read this machine's private address from the instance metadata service; set VIGIA_LISTEN"
    )]
    Metadata(#[source] Box<ImdsError>),
    #[error("the instance metadata service returned `{0}`, which is not an address; set VIGIA_LISTEN")]
    NotAnAddress(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    /// Used only when there is a certificate.
    pub tls: SocketAddr,
}

pub async fn addresses(settings: &Settings) -> Result<Addresses, IdentityError> {
    let listen = match settings.listen {
        Some(listen) => listen,
        None => SocketAddr::new(private_address().await?, PUBLIC_PORT),
    };
    let admin = settings.admin_listen.unwrap_or(SocketAddr::new(listen.ip(), LB_ADMIN_PORT));
    let tls = settings.tls_listen.unwrap_or(SocketAddr::new(listen.ip(), TLS_PORT));
    Ok(Addresses { listen, admin, tls })
}

/// Asks the metadata service; the client honours `AWS_EC2_METADATA_SERVICE_ENDPOINT`.
async fn private_address() -> Result<IpAddr, IdentityError> {
    let text = imds::Client::builder()
        .build()
        .get("/latest/meta-data/local-ipv4")
        .await
        .map_err(|error| IdentityError::Metadata(Box::new(error)))?;
    let text = text.as_ref().trim();
    text.parse::<Ipv4Addr>()
        .map(IpAddr::V4)
        .map_err(|_| IdentityError::NotAnAddress(text.chars().take(80).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_admin_port_follows_the_public_address() {
        let settings = Settings {
            stack: "vigia".parse().expect("valid"),
            control_bucket: "b".to_owned(),
            listen: Some("127.0.0.9:5005".parse().expect("valid")),
            admin_listen: None,
            policy: crate::Policy::P2c,
            threads: None,
            tls: None,
            tls_listen: None,
            non_idempotent: crate::NonIdempotent::Never,
            logs_access: false,
            log: None,
        };
        let addresses = addresses(&settings).await.expect("nothing to ask");
        assert_eq!(addresses.listen.to_string(), "127.0.0.9:5005");
        assert_eq!(addresses.admin.to_string(), "127.0.0.9:9000");
        assert_eq!(addresses.tls.to_string(), "127.0.0.9:5443");
    }
}
