//! The kinds of AWS's answers in the first seconds, counted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Their sources are in the README.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Behaviour {
    /// EC2 refused a call because it does not know yet a resource that the call names.
    NotFound,
    /// EC2 did not list a new resource.
    NotListed,
    /// EC2 listed a deleted resource.
    StillListed,
    /// A VPC's IPv6 block was shown as `associating`, without the block.
    BlockAssociating,
    /// A VPC's first IPv6 block in the list was a disassociated one.
    DisassociatedFirst,
    /// A subnet's IPv6 block was shown as `associating`.
    SubnetAssociating,
    /// A subnet was refused whose IPv6 block does not lie in an associated block of its VPC.
    OutsideBlock,
    /// A security group was made without a rule that lets IPv6 out.
    WithoutIpv6Egress,
    /// IAM refused a call because it does not know a role or an instance profile yet.
    NoSuchEntity,
    /// EC2 did not know an instance profile yet.
    ProfileNotInEc2,
    /// Lambda could not assume a role yet.
    RoleNotInLambda,
    /// Lambda did not find a subnet or a security group yet.
    NotFoundByLambda,
    /// S3 did not know a bucket yet.
    NoSuchBucket,
    /// S3 was busy with another setting of the same bucket.
    SettingsConflict,
    /// S3 did not find a new object of a bucket whose versioning was just enabled.
    NoSuchKey,
    /// Lambda was still making or updating the function.
    FunctionBusy,
    /// Lambda was still changing the function's policy.
    PolicyBusy,
    /// Lambda refused IPv6 in a subnet that has none.
    NotDualStack,
}

/// The answers so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// `--consistency-seed` with this number draws the same delays again.
    pub seed: u64,
    pub total: u64,
    pub answers: BTreeMap<Behaviour, u64>,
    /// The same by caller: an access key, a role, or `function`.
    pub callers: BTreeMap<String, BTreeMap<Behaviour, u64>>,
    /// Resources so new that a call may miss them.
    pub young: Vec<String>,
}

impl Report {
    pub(super) fn count(&mut self, behaviour: Behaviour, caller: &str) {
        self.total += 1;
        *self.answers.entry(behaviour).or_default() += 1;
        *self.callers.entry(caller.to_owned()).or_default().entry(behaviour).or_default() += 1;
    }
}
