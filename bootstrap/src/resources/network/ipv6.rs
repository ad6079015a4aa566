//! The state of an IPv6 block, of the VPC or of a subnet.
//!
//! EC2 keeps old blocks in its list, in any order, and shows a new one without its addresses until it is
//! associated. So the list is judged as a whole:
//!
//! | one of the list is | then |
//! |---|---|
//! | `associated`, with a block | that is the block |
//! | otherwise `associating`, or associated without a block yet | it comes |
//! | otherwise `failing` or `failed` | it never comes |
//! | otherwise (nothing, `disassociating`, `disassociated`) | there is none |

use aws_sdk_ec2::types::{
    SubnetCidrBlockStateCode, SubnetIpv6CidrBlockAssociation, VpcCidrBlockStateCode,
    VpcIpv6CidrBlockAssociation,
};
use ipnet::Ipv6Net;

use crate::error::{DeployError, Exit, Result};
use crate::patience::Look;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ipv6 {
    Associated(Ipv6Net),
    Associating,
    /// EC2's reason.
    Failed(String),
    Missing,
}

/// One entry of the list, in EC2's words.
#[derive(Clone, Copy, Debug)]
struct Association<'a> {
    block: Option<&'a str>,
    state: &'a str,
    reason: Option<&'a str>,
}

impl Ipv6 {
    /// Judges the list of a VPC; associations with the given ids are old.
    pub(super) fn of_vpc(all: &[VpcIpv6CidrBlockAssociation], past: &[String]) -> Self {
        let is_past = |one: &&VpcIpv6CidrBlockAssociation| {
            one.association_id().is_some_and(|id| past.iter().any(|past| past == id))
        };
        let associations = all.iter().filter(|one| !is_past(one)).map(|one| {
            let state = one.ipv6_cidr_block_state();
            Association {
                block: one.ipv6_cidr_block(),
                state: state.and_then(|it| it.state()).map_or("associated", VpcCidrBlockStateCode::as_str),
                reason: state.and_then(|it| it.status_message()),
            }
        });
        Self::judge(&associations.collect::<Vec<_>>())
    }

    pub(crate) fn of_subnet(all: &[SubnetIpv6CidrBlockAssociation]) -> Self {
        let associations = all.iter().map(|one| {
            let state = one.ipv6_cidr_block_state();
            Association {
                block: one.ipv6_cidr_block(),
                state: state.and_then(|it| it.state()).map_or("associated", SubnetCidrBlockStateCode::as_str),
                reason: state.and_then(|it| it.status_message()),
            }
        });
        Self::judge(&associations.collect::<Vec<_>>())
    }

    fn judge(all: &[Association<'_>]) -> Self {
        let block = |one: &Association<'_>| one.block.and_then(|text| text.parse().ok());
        if let Some(block) = all.iter().filter(|one| one.state == "associated").find_map(block) {
            return Self::Associated(block);
        }
        if all.iter().any(|one| matches!(one.state, "associating" | "associated")) {
            return Self::Associating;
        }
        match all.iter().find(|one| matches!(one.state, "failing" | "failed")) {
            Some(one) => {
                let reason = one.reason.filter(|reason| !reason.is_empty());
                Self::Failed(reason.unwrap_or("EC2 gives no reason").to_owned())
            }
            None => Self::Missing,
        }
    }

    /// Returns whether a deployment has to request a block.
    pub(crate) const fn is_to_be_added(&self) -> bool {
        matches!(self, Self::Missing | Self::Failed(_))
    }

    pub(super) const fn block(&self) -> Option<Ipv6Net> {
        match self {
            Self::Associated(block) => Some(*block),
            _ => None,
        }
    }

    /// Converts the state for a wait: a failure ends it, and an empty list means that EC2 does not show the
    /// block yet.
    pub(super) fn awaited(self, of: &str) -> Result<Look<Ipv6Net>> {
        match self {
            Self::Associated(block) => Ok(Look::Reached(block)),
            Self::Associating => Ok(Look::NotYet("associating".to_owned())),
            Self::Missing => Ok(Look::NotYet("not visible yet".to_owned())),
            Self::Failed(reason) => {
                let what = format!("EC2 could not give {of} an IPv6 block: {reason}");
                Err(DeployError::new(Exit::Failed, what).hint(
                    "Deploy again to request another block. If that fails too, run `destroy`, then deploy.",
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(all: &[(&str, &str)]) -> Ipv6 {
        let associations = all.iter().map(|(state, block)| Association {
            block: (!block.is_empty()).then_some(*block),
            state,
            reason: None,
        });
        Ipv6::judge(&associations.collect::<Vec<_>>())
    }

    fn block(text: &str) -> Ipv6 {
        Ipv6::Associated(text.parse().expect("a block"))
    }

    #[test]
    fn a_block_without_addresses_is_still_coming() {
        assert_eq!(judged(&[("associating", "")]), Ipv6::Associating);
        assert_eq!(judged(&[("associated", "")]), Ipv6::Associating);
        assert_eq!(judged(&[("associating", "2600:1f16:abc::/56")]), Ipv6::Associating);
    }

    #[test]
    fn a_block_of_the_past_is_ignored() {
        let past = ("disassociated", "2600:1f16:aaa:100::/56");
        assert_eq!(judged(&[past, ("associated", "2600:1f16:bbb::/56")]), block("2600:1f16:bbb::/56"));
        assert_eq!(judged(&[past, ("associating", "")]), Ipv6::Associating);
        assert_eq!(judged(&[past]), Ipv6::Missing);
        assert_eq!(judged(&[("disassociating", "2600:1f16:aaa:100::/56")]), Ipv6::Missing);
        assert_eq!(judged(&[]), Ipv6::Missing);
    }

    #[test]
    fn a_failed_block_ends_the_wait() {
        for state in ["failing", "failed"] {
            let failed = judged(&[(state, "")]);
            let error = failed.awaited("vpc-1").expect_err("it never comes");
            assert!(error.what.contains("vpc-1"), "{}", error.what);
        }
    }

    #[test]
    fn an_earlier_failed_block_does_not_hide_the_new_one() {
        assert_eq!(judged(&[("failed", ""), ("associating", "")]), Ipv6::Associating);
    }
}
