//! Finds out whether the reconciler can reach the EC2 API over IPv6, by the addresses of its dual-stack
//! endpoint. AWS publishes no list of such regions, so the name is looked up.
//!
//! | the resolver says | then |
//! |---|---|
//! | the name has an IPv6 address, and a name that cannot exist has none | over IPv6 |
//! | the name has none, three times, and the usual name of the API exists | through an interface endpoint |
//! | a name that cannot exist has addresses: the resolver invents them | nothing is known: an error |
//! | even the usual name does not exist | nothing is known: an error |

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::aws::Aws;
use crate::blueprint::Ec2Api;
use crate::error::{DeployError, Exit, Result};
use crate::names::Names;

/// A resolver answers in milliseconds, or asks another server after five seconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// A name counts as missing only after three misses: an endpoint that is not needed costs money each hour.
const LOOKS: usize = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// Returns how the reconciler reaches EC2. Any endpoint but AWS's own serves the whole API, and nothing is
/// looked up for it.
pub async fn find(aws: &Aws) -> Result<Ec2Api> {
    match aws.endpoint_url {
        Some(_) => Ok(Ec2Api::DualStack),
        None => of_region(&aws.names).await,
    }
}

/// Returns the answer for a region of AWS.
pub async fn of_region(names: &Names) -> Result<Ec2Api> {
    decide(names, PAUSE, look_up).await
}

async fn decide<F, Looking>(names: &Names, pause: Duration, look_up: F) -> Result<Ec2Api>
where
    F: Fn(String) -> Looking,
    Looking: Future<Output = io::Result<Vec<IpAddr>>>,
{
    let has_ipv6 = |found: io::Result<Vec<IpAddr>>| found.is_ok_and(|all| all.iter().any(IpAddr::is_ipv6));
    for look in 1..=LOOKS {
        if has_ipv6(look_up(names.ec2_dual_stack_host()).await) {
            return match look_up(names.impossible_host()).await {
                Ok(invented) if !invented.is_empty() => Err(inventing(names)),
                _ => Ok(Ec2Api::DualStack),
            };
        }
        if look < LOOKS {
            sleep(pause).await;
        }
    }
    // Without this check, a region without the name looks like a network without DNS.
    let host = names.ec2_host();
    match look_up(host.clone()).await {
        Ok(_) => Ok(Ec2Api::Endpoint),
        Err(error) => Err(DeployError::new(Exit::Unreachable, format!("cannot look up {host}"))
            .hint("Check the region's name and that this machine can resolve names.")
            .caused_by(error)),
    }
}

fn inventing(names: &Names) -> DeployError {
    let what = format!(
        "this machine's DNS resolver answers for names that do not exist, so it cannot tell whether {} has IPv6",
        names.ec2_dual_stack_host()
    );
    DeployError::new(Exit::Prerequisite, what)
        .hint("Use another resolver (in /etc/resolv.conf or the network settings), then run this again.")
}

async fn look_up(host: String) -> io::Result<Vec<IpAddr>> {
    let looking = tokio::net::lookup_host((host.as_str(), 443));
    match timeout(PATIENCE, looking).await {
        Ok(found) => Ok(found?.map(|address| address.ip()).collect()),
        Err(late) => Err(io::Error::new(io::ErrorKind::TimedOut, late)),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const DUAL: &str = "ec2.xx-south-9.api.aws";
    const PLAIN: &str = "ec2.xx-south-9.amazonaws.com";
    const V4: &str = "192.0.2.7";
    const V6: &str = "2001:db8::7";

    fn names() -> Names {
        Names { region: "xx-south-9".to_owned(), ..Names::example("a") }
    }

    /// A name, the number of the look from which on it resolves, and its addresses.
    type Known<'a> = (&'a str, usize, &'a [&'a str]);

    /// Returns the decision for a network that resolves the `known` names as given and every other name to
    /// `others`; and the names that were looked up.
    async fn decided(known: &[Known<'_>], others: &[&str]) -> (Result<Ec2Api>, Vec<String>) {
        let asked = RefCell::new(Vec::new());
        let look_up = |host: String| {
            let before = asked.borrow().iter().filter(|name| **name == host).count();
            let found = known.iter().find(|(name, after, _)| *name == host && before >= *after);
            let is_known = known.iter().any(|(name, ..)| *name == host);
            let texts = found.map_or(if is_known { &[] } else { others }, |(.., texts)| *texts);
            asked.borrow_mut().push(host);
            let addresses: Vec<IpAddr> = texts.iter().map(|text| text.parse().expect("an address")).collect();
            let nothing = || Err(io::Error::other("no such name"));
            std::future::ready(if addresses.is_empty() { nothing() } else { Ok(addresses) })
        };
        let decision = decide(&names(), Duration::ZERO, look_up).await;
        (decision, asked.into_inner())
    }

    #[tokio::test]
    async fn a_name_with_an_ipv6_address_is_dual_stack() {
        let (decision, _) = decided(&[(DUAL, 0, &[V4, V6]), (PLAIN, 0, &[V4])], &[]).await;
        assert_eq!(decision.expect("decided"), Ec2Api::DualStack);
    }

    #[tokio::test]
    async fn two_failed_looks_decide_nothing() {
        let (decision, _) = decided(&[(DUAL, 2, &[V6]), (PLAIN, 0, &[V4])], &[]).await;
        assert_eq!(decision.expect("decided"), Ec2Api::DualStack);
    }

    #[tokio::test]
    async fn a_region_without_the_name_gets_an_endpoint() {
        let (decision, asked) = decided(&[(PLAIN, 0, &[V4])], &[]).await;
        assert_eq!(decision.expect("decided"), Ec2Api::Endpoint);
        assert_eq!(asked, [DUAL, DUAL, DUAL, PLAIN]);
    }

    #[tokio::test]
    async fn a_name_with_ipv4_addresses_only_gets_an_endpoint() {
        let (decision, _) = decided(&[(DUAL, 0, &[V4]), (PLAIN, 0, &[V4])], &[]).await;
        assert_eq!(decision.expect("decided"), Ec2Api::Endpoint);
    }

    #[tokio::test]
    async fn a_resolver_that_invents_addresses_decides_nothing() {
        let (decision, _) = decided(&[(PLAIN, 0, &[V4])], &[V4, V6]).await;
        assert_eq!(decision.expect_err("it invents").exit, Exit::Prerequisite);
    }

    #[tokio::test]
    async fn a_network_without_names_decides_nothing() {
        let (decision, _) = decided(&[], &[]).await;
        assert_eq!(decision.expect_err("no name exists").exit, Exit::Unreachable);
    }
}
