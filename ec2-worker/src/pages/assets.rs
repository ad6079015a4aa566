//! Files that pages load: the stylesheet, the dashboard's program, the icon. They are part of the program.
//!
//! Their addresses name their content, so a browser may keep them. During a rollout a page of one release
//! may ask a worker of the other release for an asset. That worker sends its own version and forbids the
//! browser to keep it under the other version's address.

use std::sync::LazyLock;

use sha2::{Digest as _, Sha256};

pub struct Asset {
    /// Below `/assets/`.
    pub name: &'static str,
    pub content_type: &'static str,
    pub text: &'static str,
    /// The first eight hexadecimal digits of the text's SHA-256.
    pub version: String,
}

static ALL: LazyLock<[Asset; 3]> = LazyLock::new(|| {
    [
        asset("style.css", "text/css; charset=utf-8", include_str!("../../assets/style.css")),
        asset("dashboard.js", "text/javascript; charset=utf-8", include_str!("../../assets/dashboard.js")),
        asset("icon.svg", "image/svg+xml", include_str!("../../assets/icon.svg")),
    ]
});

pub fn find(name: &str) -> Option<&'static Asset> {
    ALL.iter().find(|asset| asset.name == name)
}

pub(super) fn style() -> String {
    ALL[0].address()
}

pub(super) fn dashboard_script() -> String {
    ALL[1].address()
}

pub(super) fn icon() -> String {
    ALL[2].address()
}

impl Asset {
    fn address(&self) -> String {
        format!("/assets/{}?v={}", self.name, self.version)
    }
}

fn asset(name: &'static str, content_type: &'static str, text: &'static str) -> Asset {
    let mut version = data_encoding::HEXLOWER.encode(&Sha256::digest(text));
    version.truncate(8);
    Asset { name, content_type, text, version }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_leads_to_its_asset() {
        for (address, name) in
            [(style(), "style.css"), (dashboard_script(), "dashboard.js"), (icon(), "icon.svg")]
        {
            let (path, version) = address.split_once("?v=").expect("a version");
            assert_eq!(path, format!("/assets/{name}"));
            assert_eq!(find(name).map(|asset| asset.version.as_str()), Some(version));
            assert_eq!(version.len(), 8);
        }
        assert!(find("../Cargo.toml").is_none());
    }
}
