//! What workers and load balancers are launched from: their instances and the settings of their programs.
//!
//! An option that is not given keeps the value of the present release.

use accounts::password::MinChars;
use fleet::Profile;
use fleet::hosts::HostNames;
use fleet::release::{Credits, InstanceSpec, Market, Release};

use crate::aws::Aws;
use crate::blueprint::TlsPort;
use crate::cli::Deploy;
use crate::error::{DeployError, Exit, Result};
use crate::names::Names;
use crate::resources::artifact::Artifact;
use crate::resources::network::Network;
use crate::resources::role::Role;
use crate::user_data::{Program, cloud_config, setting};

/// Settings of the worker that a later deployment keeps.
const MIN_PASSWORD: &str = "VIGIA_MIN_PASSWORD";
const HOSTS: &str = "VIGIA_HOSTS";

/// The workers' properties other than program and place.
pub(crate) struct Workers {
    pub(crate) profile: Profile,
    pub(crate) min_password: Option<MinChars>,
    pub(crate) hosts: HostNames,
    /// The load balancers' as well.
    pub(crate) instance_type: String,
    pub(crate) market: Market,
    pub(crate) credits: Credits,
}

pub(crate) fn release(
    aws: &Aws,
    workers: &Workers,
    network: &Network,
    worker: &Artifact,
    ami: &str,
) -> Release {
    let settings = worker_settings(&aws.names, workers, &network.public_blocks);
    let user_data = cloud_config(&Program { name: worker.name, sha256: &worker.sha256, settings });
    let spec = InstanceSpec {
        ami: ami.to_owned(),
        instance_type: workers.instance_type.clone(),
        subnets: network.private.clone(),
        security_group: network.worker_group.clone(),
        instance_profile: Role::Worker.name(&aws.names),
        user_data,
        market: workers.market,
        credits: workers.credits,
    };
    Release::new(aws.names.stack.clone(), workers.profile, env!("CARGO_PKG_VERSION").to_owned(), spec)
}

fn worker_settings(
    names: &Names,
    workers: &Workers,
    load_balancers: &[String],
) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("AWS_REGION", names.region.clone()),
        ("VIGIA_STACK", names.stack.to_string()),
        ("VIGIA_DATA_BUCKET", names.data_bucket()),
        ("VIGIA_CONTROL_BUCKET", names.control_bucket()),
        ("VIGIA_PROFILE", workers.profile.to_string()),
        ("VIGIA_TRUSTED_PROXIES", load_balancers.join(",")),
    ];
    settings.extend(workers.min_password.map(|min| (MIN_PASSWORD, min.to_string())));
    settings.extend((!workers.hosts.is_any()).then(|| (HOSTS, workers.hosts.to_string())));
    settings
}

/// Returns the requested minimum, or else the workers' present one; the release stores it.
pub(crate) fn min_password(
    options: &Deploy,
    profile: Profile,
    before: Option<&Release>,
) -> Result<Option<MinChars>> {
    match (options.min_password, profile) {
        (Some(_), Profile::Classic) => {
            Err(DeployError::new(Exit::Usage, "the profile classic has no minimum password length")
                .hint("Omit --min-password (make: MIN_PASSWORD=)."))
        }
        (Some(min), Profile::Secure) => Ok(Some(min)),
        (None, Profile::Classic) => Ok(None),
        (None, Profile::Secure) => {
            let before = before.and_then(|release| setting(&release.worker.user_data, MIN_PASSWORD));
            Ok(before.and_then(|text| text.parse().ok()))
        }
    }
}

/// Returns the requested host names, or else the workers' present ones.
pub(crate) fn hosts(options: &Deploy, before: Option<&Release>) -> HostNames {
    let before = || before.and_then(|release| setting(&release.worker.user_data, HOSTS)?.parse().ok());
    options.hosts.clone().or_else(before).unwrap_or_default()
}

pub(crate) fn lb_spec(
    aws: &Aws,
    workers: &Workers,
    network: &Network,
    lb: &Artifact,
    ami: &str,
    tls: TlsPort,
) -> InstanceSpec {
    let settings = lb_settings(&aws.names, tls);
    let user_data = cloud_config(&Program { name: lb.name, sha256: &lb.sha256, settings });
    InstanceSpec {
        ami: ami.to_owned(),
        instance_type: workers.instance_type.clone(),
        subnets: network.public.clone(),
        security_group: network.lb_group.clone(),
        instance_profile: Role::LoadBalancer.name(&aws.names),
        user_data,
        market: Market::OnDemand,
        credits: workers.credits,
    }
}

/// Returns the load balancer's settings. The certificate is not among them: it changes without a new load
/// balancer.
fn lb_settings(names: &Names, tls: TlsPort) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("AWS_REGION", names.region.clone()),
        ("VIGIA_STACK", names.stack.to_string()),
        ("VIGIA_CONTROL_BUCKET", names.control_bucket()),
    ];
    match tls {
        TlsPort::Open => settings.push(("VIGIA_TLS", "1".to_owned())),
        TlsPort::Closed => {}
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Arch;
    use crate::requested::{MOST_BLOCKS, check, credits, instance_type, market, rollout};
    use crate::resources::instance::example;

    fn names() -> Names {
        Names::example("a")
    }

    fn deploy(arguments: &[&str]) -> Deploy {
        use clap::Parser as _;
        let cli = crate::cli::Cli::try_parse_from([&["bootstrap", "deploy"], arguments].concat());
        match cli.expect("arguments").command {
            crate::cli::Command::Deploy(options) => options,
            _ => unreachable!("that is the command"),
        }
    }

    fn released(min_password: Option<MinChars>) -> Release {
        let workers = Workers {
            profile: Profile::Secure,
            min_password,
            hosts: "a.example,b.example".parse().expect("names"),
            instance_type: "t4g.micro".to_owned(),
            market: Market::OnDemand,
            credits: Credits::Standard,
        };
        let settings = worker_settings(&names(), &workers, &["10.77.0.0/20".to_owned()]);
        let user_data = cloud_config(&Program { name: "ec2-worker", sha256: "abc", settings });
        let spec = InstanceSpec { user_data, ..example() };
        Release::new(names().stack, Profile::Secure, "1".to_owned(), spec)
    }

    #[test]
    fn the_least_length_of_a_password_stays_until_another_is_given() {
        let min = |text: &str| text.parse::<MinChars>().expect("within bounds");
        let asked = |arguments: &[&str], before: Option<&Release>| {
            min_password(&deploy(arguments), Profile::Secure, before).expect("secure has the rule")
        };
        let (none, fifteen) = (released(None), released(Some(min("15"))));
        assert_eq!(asked(&[], None), None);
        assert_eq!(asked(&[], Some(&none)), None);
        assert_eq!(asked(&[], Some(&fifteen)), Some(min("15")));
        assert_eq!(asked(&["--min-password", "12"], Some(&fifteen)), Some(min("12")));
        assert_eq!(asked(&["--min-password", "12"], None), Some(min("12")));
        assert_eq!(
            min_password(&deploy(&[]), Profile::Classic, Some(&fifteen)).expect("nothing asked"),
            None
        );
        let refused = min_password(&deploy(&["--min-password", "12"]), Profile::Classic, None);
        assert_eq!(refused.expect_err("classic has no minimum").exit, Exit::Usage);
    }

    #[test]
    fn the_instance_type_stays_unless_the_processor_is_another() {
        let micro = released(None);
        let asked = |arguments: &[&str], before| instance_type(&deploy(arguments), before);
        assert_eq!(asked(&["--arch", "arm64"], None), "t4g.nano");
        assert_eq!(asked(&["--arch", "arm64"], Some(&micro)), "t4g.micro");
        assert_eq!(asked(&["--arch", "x86_64"], Some(&micro)), "t3.nano");
        assert_eq!(asked(&["--instance-type", "m7g.large"], Some(&micro)), "m7g.large");
        for (kind, arch) in [
            ("t4g.nano", Arch::Arm64),
            ("c7gn.large", Arch::Arm64),
            ("a1.medium", Arch::Arm64),
            ("t3.nano", Arch::X8664),
            ("g5.xlarge", Arch::X8664),
            ("m7i-flex.large", Arch::X8664),
        ] {
            assert_eq!(Arch::of_instance_type(kind), arch, "{kind}");
        }
    }

    #[test]
    fn the_host_names_stay_until_others_are_given() {
        let named = released(None);
        let asked = |arguments: &[&str], before| hosts(&deploy(arguments), before).to_string();
        assert_eq!(asked(&[], None), "");
        assert_eq!(asked(&[], Some(&named)), "a.example,b.example");
        assert_eq!(asked(&["--hosts", "c.example"], Some(&named)), "c.example");
        assert_eq!(asked(&["--hosts", "any"], Some(&named)), "");
    }

    #[test]
    fn workers_keep_their_market_until_another_is_requested() {
        let on_demand = released(None);
        let mut spot = on_demand.clone();
        spot.worker.market = Market::Spot;
        assert_eq!(market(&deploy(&[]), None), Market::OnDemand);
        assert_eq!(market(&deploy(&[]), Some(&spot)), Market::Spot);
        assert_eq!(market(&deploy(&["--spot"]), Some(&on_demand)), Market::Spot);
        assert_eq!(market(&deploy(&["--spot=off"]), Some(&spot)), Market::OnDemand);
    }

    #[test]
    fn credits_stay_as_they_are_until_others_are_asked_for() {
        let standard = released(None);
        let mut unlimited = standard.clone();
        unlimited.worker.credits = Credits::Unlimited;
        assert_eq!(credits(&deploy(&[]), None), Credits::Standard);
        assert_eq!(credits(&deploy(&[]), Some(&unlimited)), Credits::Unlimited);
        assert_eq!(credits(&deploy(&["--credits", "unlimited"]), Some(&standard)), Credits::Unlimited);
        assert_eq!(credits(&deploy(&["--credits", "standard"]), Some(&unlimited)), Credits::Standard);
    }

    #[test]
    fn a_rollout_stays_as_it_is_while_the_quotas_are_unknown() {
        use fleet::release::Rollout::{StopFirst, SurgeFirst};
        let before = Release { rollout: StopFirst, ..released(None) };
        assert_eq!(rollout(None, Some(&before)), StopFirst);
        assert_eq!(rollout(Some(SurgeFirst), Some(&before)), SurgeFirst);
        assert_eq!(rollout(Some(StopFirst), None), StopFirst);
        assert_eq!(rollout(None, None), SurgeFirst);
    }

    #[test]
    fn more_blocks_than_a_security_group_has_room_for_are_refused() {
        let blocks: Vec<String> = (0..=MOST_BLOCKS).map(|n| format!("10.{n}.0.0/16")).collect();
        let refused = check(&deploy(&["--allow-cidr", &blocks.join(",")])).expect_err("too many");
        assert_eq!(refused.exit, Exit::Usage);
        check(&deploy(&["--allow-cidr", &blocks[1..].join(",")])).expect("as many as fit");
    }

    #[test]
    fn workers_are_told_where_load_balancers_are() {
        let text = released(None).worker.user_data;
        assert_eq!(setting(&text, "VIGIA_TRUSTED_PROXIES"), Some("10.77.0.0/20"));
    }

    #[test]
    fn only_with_tls_is_a_load_balancer_told_of_it() {
        let names = names();
        let user_data = |tls| {
            cloud_config(&Program { name: "ec2-lb", sha256: "abc", settings: lb_settings(&names, tls) })
        };
        let (on, off) = (user_data(TlsPort::Open), user_data(TlsPort::Closed));
        assert_eq!(on.replace("    VIGIA_TLS=1\n", ""), off);
        assert_ne!(on, off);
    }
}
