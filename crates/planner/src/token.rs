//! The client token of a launch: the same slot and attempt give the same instance, however often
//! the launch is sent. EC2 keeps tokens for longer than a stack may live, so a token also contains
//! the security group, which no later stack of the same name has.

use data_encoding::BASE32_NOPAD;
use fleet::StackName;
use fleet::release::InstanceSpec;
use sha2::{Digest as _, Sha256};

use crate::observation::Role;

/// EC2 takes up to 64 ASCII characters; 40 of base32 are 200 bits.
const LEN: usize = 40;

pub fn client_token(stack: &StackName, spec: &InstanceSpec, role: Role, slot: u32, attempt: u32) -> String {
    let role = match role {
        Role::Worker => fleet::stack::ROLE_WORKER,
        Role::LoadBalancer => fleet::stack::ROLE_LB,
    };
    let seed = format!("{stack}/{}/{role}/{slot}/{attempt}", spec.security_group);
    let mut token = BASE32_NOPAD.encode(&Sha256::digest(seed));
    token.truncate(LEN);
    token
}
