//! Whether the reconciler can reach the API of EC2 over IPv6, told by whether the name of its dual-stack
//! endpoint exists. There is no list of such regions: the name is looked up.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::aws::Aws;
use crate::blueprint::Ec2Api;
use crate::error::{DeployError, Exit, Result};
use crate::names::Names;

/// A resolver answers in milliseconds, or asks another server after five seconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// A name is missing only if it is three times: an endpoint that is not needed costs money each hour.
const LOOKS: usize = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// Any endpoint but AWS's own serves all of the API, and nothing is looked up for it.
pub async fn find(aws: &Aws) -> Result<Ec2Api> {
    match aws.endpoint_url {
        Some(_) => Ok(Ec2Api::DualStack),
        None => decide(&aws.names, PAUSE, look_up).await,
    }
}

async fn decide<F, Looking>(names: &Names, pause: Duration, look_up: F) -> Result<Ec2Api>
where
    F: Fn(String) -> Looking,
    Looking: Future<Output = std::io::Result<()>>,
{
    for look in 1..=LOOKS {
        if look_up(names.ec2_dual_stack_host()).await.is_ok() {
            return Ok(Ec2Api::DualStack);
        }
        if look < LOOKS {
            sleep(pause).await;
        }
    }
    // Without this nobody could tell a region without the name from a network without names.
    let host = names.ec2_host();
    match look_up(host.clone()).await {
        Ok(()) => Ok(Ec2Api::Endpoint),
        Err(error) => Err(DeployError::new(Exit::Unreachable, format!("cannot look up {host}"))
            .mend("Check the region's name and that this machine can resolve names.")
            .caused_by(error)),
    }
}

async fn look_up(host: String) -> std::io::Result<()> {
    let looking = tokio::net::lookup_host((host.as_str(), 443));
    match timeout(PATIENCE, looking).await {
        Ok(found) => found.map(drop),
        Err(late) => Err(std::io::Error::new(std::io::ErrorKind::TimedOut, late)),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn names() -> Names {
        Names { region: "xx-south-9".to_owned(), ..Names::example("a") }
    }

    /// What is decided where only these names exist, each after so many looks that fail; and the names
    /// that were looked up.
    async fn decided(existing: &[(&str, usize)]) -> (Result<Ec2Api>, Vec<String>) {
        let asked = RefCell::new(Vec::new());
        let look_up = |host: String| {
            let before = asked.borrow().iter().filter(|name| **name == host).count();
            let exists = existing.iter().any(|(name, after)| *name == host && before >= *after);
            asked.borrow_mut().push(host);
            std::future::ready(if exists { Ok(()) } else { Err(std::io::Error::other("no such name")) })
        };
        let decision = decide(&names(), Duration::ZERO, look_up).await;
        (decision, asked.into_inner())
    }

    #[tokio::test]
    async fn a_region_without_the_name_gets_an_endpoint() {
        const DUAL: &str = "ec2.xx-south-9.api.aws";
        const PLAIN: &str = "ec2.xx-south-9.amazonaws.com";
        let (decision, asked) = decided(&[(DUAL, 0), (PLAIN, 0)]).await;
        assert_eq!((decision.expect("decided"), asked.len()), (Ec2Api::DualStack, 1));
        let (decision, _) = decided(&[(DUAL, 2), (PLAIN, 0)]).await;
        assert_eq!(decision.expect("decided"), Ec2Api::DualStack, "two failed looks decide nothing");
        let (decision, asked) = decided(&[(PLAIN, 0)]).await;
        assert_eq!(decision.expect("decided"), Ec2Api::Endpoint);
        assert_eq!(asked, [DUAL, DUAL, DUAL, PLAIN]);
    }

    #[tokio::test]
    async fn a_network_without_names_decides_nothing() {
        let (decision, _) = decided(&[]).await;
        assert_eq!(decision.expect_err("no name exists").exit, Exit::Unreachable);
    }
}
