//! `fleet/release.json`: the definition of a worker.
//!
//! `deploy` writes it, the reconciler launches from it. It names everything by value (an AMI id, an
//! artifact's hash inside the user data), never by a moving alias: a launch that is repeated with
//! the same client token must carry the same parameters, or EC2 refuses it.

use serde::{Deserialize, Serialize};

use crate::{Profile, StackName};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Short hash of all that follows; the value of the tag `vigia:release`.
    pub id: String,
    pub stack: StackName,
    pub profile: Profile,
    pub version: String,
    pub worker: InstanceSpec,
}

/// Everything `RunInstances` needs apart from the slot: subnet, tags and client token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceSpec {
    pub ami: String,
    pub instance_type: String,
    pub subnets: Vec<SubnetSpec>,
    pub security_group: String,
    pub instance_profile: String,
    /// Plain text; encoded when it is sent. At most 16 KiB, EC2's limit.
    pub user_data: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SubnetSpec {
    pub id: String,
    pub zone: String,
}

impl Release {
    /// Readers refuse a larger object: user data is at most 16 KiB, the rest well under 4.
    pub const MAX_BYTES: usize = 64 * 1024;

    pub fn new(stack: StackName, profile: Profile, version: String, worker: InstanceSpec) -> Self {
        let mut release = Self { id: String::new(), stack, profile, version, worker };
        let text = serde_json::to_vec(&release).expect("a release is plain data");
        release.id = crate::release::short_hash(&text);
        release
    }
}

/// Twelve hexadecimal digits of SHA-256: enough to tell releases apart in a tag.
pub fn short_hash(bytes: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    let mut text = data_encoding::HEXLOWER.encode(&Sha256::digest(bytes));
    text.truncate(12);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_follows_the_content() {
        let spec = |ami: &str| InstanceSpec {
            ami: ami.to_owned(),
            instance_type: "t4g.nano".to_owned(),
            subnets: vec![SubnetSpec { id: "subnet-1".to_owned(), zone: "a".to_owned() }],
            security_group: "sg-1".to_owned(),
            instance_profile: "p".to_owned(),
            user_data: "#cloud-config\n".to_owned(),
        };
        let stack: StackName = "vigia".parse().expect("valid");
        let release = |ami| Release::new(stack.clone(), Profile::Secure, "1".to_owned(), spec(ami));
        assert_eq!(release("ami-1").id, release("ami-1").id);
        assert_ne!(release("ami-1").id, release("ami-2").id);
    }
}
