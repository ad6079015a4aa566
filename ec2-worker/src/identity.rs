//! The worker's instance id and listen address: from the settings, or else from the instance metadata.
//!
//! The metadata service is asked only for values that the settings leave open, so a worker runs anywhere.
//! Its address comes from `AWS_EC2_METADATA_SERVICE_ENDPOINT` when that is set.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use aws_config::imds;
use fleet::{WORKER_PORT, WorkerId};

use crate::Config;
use crate::config::TooExposed;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub id: WorkerId,
    pub listen: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("the instance metadata did not answer for {path}; outside EC2 set {setting}")]
    Metadata {
        path: &'static str,
        setting: &'static str,
        #[source]
        source: Box<imds::client::error::ImdsError>,
    },
    #[error("the instance metadata has the invalid value `{value}` at {path}; set {setting}")]
    Nonsense { path: &'static str, setting: &'static str, value: String },
    #[error(transparent)]
    TooExposed(#[from] TooExposed),
}

pub async fn find(config: &Config) -> Result<Identity, IdentityError> {
    let metadata = imds::Client::builder().build();
    let id = match &config.instance_id {
        Some(id) => id.clone(),
        None => fetch_metadata(&metadata, "/latest/meta-data/instance-id", "VIGIA_INSTANCE_ID").await?,
    };
    let listen = match config.listen {
        Some(listen) => listen,
        None => {
            let ip: Ipv4Addr =
                fetch_metadata(&metadata, "/latest/meta-data/local-ipv4", "VIGIA_LISTEN").await?;
            SocketAddr::new(IpAddr::V4(ip), WORKER_PORT)
        }
    };
    config.exposure.allows(config.profile, listen.ip())?;
    Ok(Identity { id, listen })
}

async fn fetch_metadata<T: FromStr>(
    metadata: &imds::Client,
    path: &'static str,
    setting: &'static str,
) -> Result<T, IdentityError> {
    let value = metadata.get(path).await.map_err(|source| IdentityError::Metadata {
        path,
        setting,
        source: Box::new(source),
    })?;
    let text = String::from(value);
    text.trim().parse().map_err(|_| IdentityError::Nonsense {
        path,
        setting,
        value: text.chars().take(40).collect(),
    })
}
