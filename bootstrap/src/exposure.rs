//! Decides which addresses may reach a classic stack.
//!
//! Its workers have private addresses, so a worker cannot see whether the whole internet reaches it through
//! the load balancer. Only the deployer knows.

use fleet::Profile;

use crate::aws::Aws;
use crate::cidr::Cidr;
use crate::cli::Deploy;
use crate::error::{DeployError, Exit, Result};
use crate::resources::{documents, network};

/// Refuses to publish a classic stack, before any part of it is made.
pub async fn check(aws: &Aws, options: &Deploy) -> Result<()> {
    if options.classic_accept_risk {
        return Ok(());
    }
    let before = documents::release(aws).await?;
    match documents::profile(aws, options.profile, before.as_ref()).await? {
        Profile::Secure => Ok(()),
        Profile::Classic if options.allow_cidr.is_empty() => {
            judge(&network::reachable_from(aws).await?.unwrap_or_else(Cidr::world))
        }
        Profile::Classic => judge(&options.allow_cidr),
    }
}

fn judge(from: &[Cidr]) -> Result<()> {
    let Some(public) = from.iter().find(|block| !block.is_private()) else { return Ok(()) };
    let what = format!(
        "the profile classic stores plain-text passwords and lists them without a sign-in, and {public} is \
            not a private block"
    );
    Err(DeployError::new(Exit::Usage, what).hint(
        "Nothing was changed. Allow private blocks only: --allow-cidr 10.0.0.0/8 (make: \
            ALLOW_CIDR=10.0.0.0/8), or accept the risk: --classic-accept-risk (make: \
            CLASSIC_ACCEPT_RISK=yes).",
    ))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::aws::stub::Stub;
    use crate::cli::{Cli, Command};

    fn judged(blocks: &[&str]) -> std::result::Result<(), String> {
        let blocks: Vec<Cidr> = blocks.iter().map(|text| text.parse().expect("a block")).collect();
        judge(&blocks).map_err(|error| error.what)
    }

    #[test]
    fn classic_is_not_published_by_any_block() {
        assert_eq!(judged(&["10.0.0.0/8", "fd00::/8", "127.0.0.0/8"]), Ok(()));
        for public in ["0.0.0.0/0", "::/0", "203.0.113.0/24"] {
            let error = judged(&["10.0.0.0/8", public]).expect_err(public);
            assert!(error.contains(&format!("{public} is not a private block")), "{error}");
        }
        assert!(judge(&Cidr::world()).is_err(), "what a new stack has");
    }

    #[tokio::test]
    async fn a_new_classic_stack_has_to_name_its_blocks() {
        const RELEASE: &str = "GET /vigia-a-control-123456789012-eu-west-1/fleet/release.json";
        const MARKER: &str = "GET /vigia-a-data-123456789012-eu-west-1/meta/profile";
        let none = "<Error><Code>NoSuchKey</Code></Error>";
        let stub = Stub::default()
            .says(RELEASE, 404, none)
            .says(MARKER, 404, none)
            .answers("DescribeVpcs", "<vpcSet/>");
        let aws = stub.serve().await;
        for (more, is_allowed) in
            [(&[][..], false), (&["--allow-cidr", "10.0.0.0/8"], true), (&["--classic-accept-risk"], true)]
        {
            let all = [&["bootstrap", "deploy", "--profile", "classic"], more].concat();
            let Command::Deploy(options) = Cli::try_parse_from(all).expect("arguments").command else {
                unreachable!("it is deploy")
            };
            assert_eq!(check(&aws, &options).await.is_ok(), is_allowed, "{more:?}");
        }
    }
}
