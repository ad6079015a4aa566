//! A self-signed certificate for `localhost`, in the formats that proxies need.

use std::fs;
use std::path::{Path, PathBuf};

pub struct Certificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Both in one file, for HAProxy.
    pub both: PathBuf,
}

impl Certificate {
    /// Generates one with a new P-256 key in this directory.
    pub fn generate(dir: &Path) -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let file = |name: &str, text: &str| {
            let path = dir.join(name);
            fs::write(&path, text).map(|()| path)
        };
        Ok(Self {
            both: file("both.pem", &format!("{certificate}{key}"))?,
            certificate: file("certificate.pem", &certificate)?,
            key: file("key.pem", &key)?,
        })
    }
}
