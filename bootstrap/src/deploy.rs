//! `deploy`: creates or updates the stack's resources, each once, in the order of their dependencies.

use std::net::Ipv4Addr;
use std::path::Path;

use accounts::password::MinChars;
use fleet::hosts::HostNames;
use fleet::release::{BalancerSpec, Credits, InstanceSpec, Market, Release, Rollout};
use fleet::{DesiredCount, Profile};
use jiff::Timestamp;

use crate::aws::Aws;
use crate::blueprint::{Ec2Api, TlsPort};
use crate::certificate::{Certificate, Origin};
use crate::cli::{Deploy, Target, Until};
use crate::error::{DeployError, Exit, Result};
use crate::names::Names;
use crate::output::{self, Mode, Progress};
use crate::part::RunMode;
use crate::requested::{check, credits, instance_type, market, policy};
use crate::resources::artifact::{self, Artifact};
use crate::resources::bucket::{self, Contents};
use crate::resources::load_balancer::{LoadBalancer, Surplus};
use crate::resources::network::Network;
use crate::resources::role::{self, Role};
use crate::resources::{certificate, documents, function, image, load_balancer, network, schedule, secrets};
use crate::rollout::{self, Scope};
use crate::tls::{self, Wanted};
use crate::user_data::{Program, cloud_config, setting};
use crate::{ec2_api, exposure, healthy, preflight, token};

/// Settings of the worker that a later deployment keeps.
const MIN_PASSWORD: &str = "VIGIA_MIN_PASSWORD";
const HOSTS: &str = "VIGIA_HOSTS";

/// Files that a deployment reads on this machine before it calls AWS.
pub(crate) struct Inputs {
    tls: Wanted,
    lb: Artifact,
    worker: Artifact,
    reconciler: Artifact,
    now: Timestamp,
}

impl Inputs {
    pub(crate) fn read(target: &Target, options: &Deploy) -> Result<Self> {
        check(options)?;
        let now = Timestamp::now();
        let inputs = Self {
            tls: Wanted::read(&options.tls, now)?,
            lb: Artifact::load(&options.artifacts, "ec2-lb")?,
            worker: Artifact::load(&options.artifacts, "ec2-worker")?,
            reconciler: Artifact::load(&options.artifacts, "reconciler")?,
            now,
        };
        // Another endpoint starts the programs on this machine, so AWS's requirements do not apply.
        if target.endpoint_url.is_none() {
            for program in [&inputs.lb, &inputs.worker, &inputs.reconciler] {
                program.must_run_on(options.arch)?;
            }
        }
        Ok(inputs)
    }
}

pub async fn run(target: &Target, options: &Deploy) -> Result<()> {
    let inputs = Inputs::read(target, options)?;
    let now = inputs.now;
    let mut progress = Progress::default();
    progress.begin("credentials");
    let aws = Aws::connect(target).await?;
    progress.end_with(&format!("account {}, region {}", aws.names.account, aws.names.region));
    progress.begin("checks");
    let findings = preflight::look(&aws, options).await;
    findings.tell(&mut progress)?;
    let token_file = token::file(target, &aws);
    let rollout = findings.rollout;
    let stack = bring(&aws, RunMode::Apply, options, inputs, rollout, &token_file, &mut progress).await?;
    let certificate_file = certificate::file(&token_file);
    certificate::keep_file(&certificate_file, stack.certificate.as_ref())?;
    if progress.changes() > 0 {
        progress.begin("first tick");
        function::invoke(&aws).await?;
        progress.end_with("started");
    }
    if options.until() >= Until::Healthy {
        progress.begin(format!("{} healthy workers", stack.desired));
        stack.wait(&progress).await?;
        progress.end_with("answering");
    }
    // The release no longer uses them; they served until now. Removed before the rollout, which may fail: a
    // leftover address costs money, and the next deployment would count it.
    stack.surplus.remove(&aws).await?;
    let scope = match options.until() {
        Until::RolledOut => Some(Scope::All),
        // With TLS the new load balancer must serve first, because one of an older release has no
        // certificate.
        Until::Healthy => stack.certificate.is_some().then_some(Scope::LoadBalancers),
        Until::Made => None,
    };
    if let Some(scope) = scope {
        progress.begin("rollout");
        rollout::follow(&aws, &stack.release, scope, &progress).await?;
        stack.wait_for_certificate(&progress).await?;
        progress.end_with(match scope {
            Scope::All => "every machine runs the release",
            Scope::LoadBalancers => "load balancer runs the release",
        });
    }
    progress.finish();
    let certificate = stack.certificate.as_ref();
    if let Some(certificate) = certificate.filter(|certificate| tls::ends_soon(certificate, now)) {
        progress.line(&format!(
            "The certificate expires on {}. Deploy a new one with --tls-cert and --tls-key (make: TLS_CERT=, \
                TLS_KEY=).",
            certificate.until.strftime("%F")
        ));
    }
    if output::mode() == Mode::Json {
        report_json(target, &progress, &stack, &token_file);
    } else {
        report(target, &progress, &stack, &token_file, &certificate_file);
    }
    Ok(())
}

/// A deployed stack, or a planned one.
pub(crate) struct Stack {
    pub(crate) network: Network,
    /// By their places; the first one's address is in the stack's URL.
    pub(crate) balancers: Vec<LoadBalancer>,
    surplus: Surplus,
    /// `None` in a plan that would issue one.
    certificate: Option<Certificate>,
    pub(crate) desired: DesiredCount,
    pub(crate) release: Release,
    is_new_release: bool,
}

/// Finds, compares and, if `mode` applies, changes each resource. Does not wait for the rollout.
pub(crate) async fn bring(
    aws: &Aws,
    mode: RunMode,
    options: &Deploy,
    inputs: Inputs,
    rollout: Option<Rollout>,
    token_file: &Path,
    progress: &mut Progress,
) -> Result<Stack> {
    exposure::check(aws, options).await?;
    progress.begin("buckets");
    let (data, control) = tokio::try_join!(
        bucket::ensure(aws, mode, Contents::Users),
        bucket::ensure(aws, mode, Contents::Control)
    )?;
    let before = documents::release(aws).await?;
    let profile = documents::profile(aws, options.profile, before.as_ref()).await?;
    let market = market(options, before.as_ref());
    let credits = credits(options, before.as_ref());
    let min_password = min_password(options, profile, before.as_ref())?;
    let hosts = hosts(options, before.as_ref());
    progress.end(vec![data, control]);

    // Roles early: they propagate while the rest is made.
    progress.begin("roles");
    let mut roles = role::ensure(aws, mode, options.permissions_boundary.as_ref()).await?;
    if market == Market::Spot {
        roles.push(role::ensure_spot(aws, mode).await?);
    }
    progress.end(roles);

    progress.begin("network");
    let (addresses, surplus, allocated) = load_balancer::ensure_addresses(aws, mode, options.lbs).await?;
    let ips: Vec<Ipv4Addr> = addresses.iter().map(|address| address.ip).collect();
    let (stored, certificate_object) = certificate::find(aws).await?.unzip();
    let decision = tls::decide(inputs.tls, stored, &ips, inputs.now).map_err(tls::stays_as_it_is)?;
    let tls = if decision.is_on() { TlsPort::Open } else { TlsPort::Closed };
    // A stack that has the endpoint keeps it, even if the dual-stack name resolves now.
    let ec2_api = match network::has_ec2_endpoint(aws).await? {
        true => Ec2Api::Endpoint,
        false => ec2_api::find(aws).await?,
    };
    let from = (!options.allow_cidr.is_empty()).then(|| options.allow_cidr.clone());
    let wanted = network::Wanted { from, tls, ec2_api };
    let (network, mut parts) = network::ensure(aws, mode, &wanted).await?;
    parts.extend(allocated);
    progress.end(parts);

    progress.begin("secrets");
    let keys = secrets::ensure_session_keys(aws, mode).await?;
    let token = secrets::ensure_token(aws, mode, token_file).await?;
    let (certificate, certified) =
        certificate::apply(aws, mode, decision, certificate_object.as_ref(), &ips, inputs.now).await?;
    progress.end(vec![keys, token, certified]);

    progress.begin("programs");
    let uploads = tokio::try_join!(
        artifact::ensure(aws, mode, &inputs.lb),
        artifact::ensure(aws, mode, &inputs.worker)
    )?;
    progress.end(vec![uploads.0, uploads.1]);

    progress.begin("release and desired count");
    let ami = image::newest(aws, options.arch).await?;
    let instance_type = instance_type(options, before.as_ref());
    let workers = Workers { profile, min_password, hosts, instance_type, market, credits };
    let lb_spec = lb_spec(aws, &workers, &network, &inputs.lb, &ami, tls);
    let mut allocations = addresses.iter().map(|address| address.allocation.clone());
    let first = allocations.next().expect("a stack has one address at least");
    let lb_spec =
        BalancerSpec { more_allocations: allocations.collect(), ..BalancerSpec::new(first, lb_spec) };
    let mut release = release(aws, &workers, &network, &inputs.worker, &ami);
    release.balancer = Some(lb_spec.clone());
    // Unknown quotas leave the rollout's kind unchanged.
    let kept = before.as_ref().map_or_else(Rollout::default, |before| before.rollout);
    release.rollout = rollout.unwrap_or(kept);
    release.policy = policy(options, before.as_ref());
    let is_new_release = before.as_ref().is_some_and(|before| before.id != release.id);
    let released = documents::compare_release(before.as_ref(), &release);
    if mode.applies(&released) {
        documents::write_release(aws, &release).await?;
    }
    let (counted, desired) = documents::ensure_desired(aws, mode, options.workers).await?;
    progress.end(vec![released, counted]);
    if is_new_release && mode == RunMode::Apply {
        progress
            .line("The reconciler replaces the workers with workers of the new release, a few at a time.");
    }

    // The load balancer boots while the function is uploaded.
    progress.begin("load balancer");
    let (mut balancers, mut parts) = (Vec::new(), Vec::new());
    for address in &addresses {
        let (balancer, done) = load_balancer::ensure(aws, mode, address, &lb_spec).await?;
        balancers.push(balancer);
        parts.extend(done);
    }
    progress.end(parts);

    progress.begin("reconciler");
    let logs = function::ensure_log_group(aws, mode).await?;
    let uploaded = function::ensure(aws, mode, options, &inputs.reconciler, &network).await?;
    let scheduled = schedule::ensure(aws, mode).await?;
    progress.end(vec![logs, uploaded, scheduled]);
    Ok(Stack { network, balancers, surplus, certificate, desired, release, is_new_release })
}

impl Stack {
    /// Returns the URL of the first load balancer.
    fn url(&self) -> String {
        self.balancers[0].url()
    }

    /// Waits until the service is healthy at its public address, whatever release serves.
    async fn wait(&self, progress: &Progress) -> Result<()> {
        let desired = self.desired.get();
        let most = if self.is_new_release { u32::MAX } else { desired };
        for balancer in &self.balancers {
            healthy::wait(&balancer.url(), desired, most, progress).await?;
        }
        Ok(())
    }

    /// Load balancers of an older release serve no TLS, or another certificate.
    async fn wait_for_certificate(&self, progress: &Progress) -> Result<()> {
        let Some(certificate) = &self.certificate else { return Ok(()) };
        for balancer in &self.balancers {
            healthy::wait_for_certificate(balancer.address, certificate, progress).await?;
        }
        Ok(())
    }
}

/// Lines for the report; clients must be told to trust a self-signed certificate.
#[derive(Default)]
struct HttpsReport {
    lines: String,
    next: String,
}

fn https_report(address: &str, certificate: &Certificate, file: &Path) -> HttpsReport {
    let url = load_balancer::https_url(address);
    let (until, fingerprint) = (certificate.until.strftime("%F"), certificate.fingerprint());
    match certificate.origin {
        Origin::SelfSigned => HttpsReport {
            lines: format!(
                "HTTPS        {url}\n\
                 Certificate  {}, self-signed, until {until}\n\
                 SHA-256      {fingerprint}\n",
                file.display()
            ),
            next: format!("\n  curl --cacert {} {url}/healthcheck", file.display()),
        },
        Origin::Given => HttpsReport {
            lines: format!(
                "HTTPS        {url}\nCertificate  from --tls-cert, until {until}\nSHA-256      \
                    {fingerprint}\n"
            ),
            next: String::new(),
        },
    }
}

fn report(target: &Target, progress: &Progress, stack: &Stack, token_file: &Path, certificate_file: &Path) {
    let name = &target.stack;
    match progress.changes() {
        0 => progress.line(&format!("Stack {name} is up to date: nothing changed.")),
        1 => progress.line(&format!("Stack {name} is up: 1 change.")),
        n => progress.line(&format!("Stack {name} is up: {n} changes.")),
    }
    let (url, address) = (stack.url(), stack.balancers[0].address.to_string());
    let https = stack.certificate.as_ref();
    let https = https.map(|certificate| https_report(&address, certificate, certificate_file));
    let https = https.unwrap_or_default();
    let more = stack.balancers.iter().skip(1);
    let more: String = more.map(|balancer| format!("             {}\n", balancer.url())).collect();
    output::result(&format!(
        "\nURL          {url}\n\
         {more}\
         Admin token  {}\n\
         {}\n\
         Next:\n  \
         curl {url}/healthcheck\n  \
         curl -X POST {url}/signup/ana/correct-horse-battery\n  \
         curl -i {url}/signin/ana/correct-horse-battery\n  \
         curl -H \"Authorization: Bearer $(cat {})\" {url}/list{}",
        token_file.display(),
        https.lines,
        token_file.display(),
        https.next,
    ));
}

fn report_json(target: &Target, progress: &Progress, stack: &Stack, token_file: &Path) {
    let address = stack.balancers[0].address.to_string();
    let urls: Vec<String> = stack.balancers.iter().map(LoadBalancer::url).collect();
    let report = serde_json::json!({
        "stack": target.stack,
        "url": stack.url(),
        "urls": urls,
        "https": stack.certificate.as_ref().map(|_| load_balancer::https_url(&address)),
        "certificate_sha256": stack.certificate.as_ref().map(Certificate::fingerprint),
        "token_file": token_file,
        "desired": stack.desired,
        "release": stack.release.id,
        "changes": progress.changes(),
        "parts": progress.parts,
    });
    output::result(&report.to_string());
}

/// The workers' properties other than program and place.
struct Workers {
    profile: Profile,
    min_password: Option<MinChars>,
    hosts: HostNames,
    /// The load balancers' as well.
    instance_type: String,
    market: Market,
    credits: Credits,
}

fn release(aws: &Aws, workers: &Workers, network: &Network, worker: &Artifact, ami: &str) -> Release {
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
fn min_password(options: &Deploy, profile: Profile, before: Option<&Release>) -> Result<Option<MinChars>> {
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
fn hosts(options: &Deploy, before: Option<&Release>) -> HostNames {
    let before = || before.and_then(|release| setting(&release.worker.user_data, HOSTS)?.parse().ok());
    options.hosts.clone().or_else(before).unwrap_or_default()
}

fn lb_spec(
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
    use crate::requested::MOST_BLOCKS;
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
