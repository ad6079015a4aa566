//! `deploy`: creates or updates the stack's resources, each once, in the order of their dependencies.

use std::net::Ipv4Addr;
use std::path::Path;

use fleet::DesiredCount;
use fleet::release::{BalancerSpec, Market, Release, Rollout};
use jiff::Timestamp;

use crate::aws::Aws;
use crate::blueprint::{Ec2Api, TlsPort};
use crate::certificate::{Certificate, Origin};
use crate::cli::{Deploy, Target, Until};
use crate::definition::{self, Workers};
use crate::error::Result;
use crate::output::{self, Mode, Progress};
use crate::part::RunMode;
use crate::requested::{check, credits, instance_type, market, policy};
use crate::resources::artifact::{self, Artifact};
use crate::resources::bucket::{self, Contents};
use crate::resources::load_balancer::{LoadBalancer, Surplus};
use crate::resources::network::Network;
use crate::resources::role;
use crate::resources::{certificate, documents, function, image, load_balancer, network, schedule, secrets};
use crate::rollout::{self, Scope};
use crate::tls::{self, Wanted};
use crate::{ec2_api, exposure, healthy, preflight, requested, token};

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
    let min_password = definition::min_password(options, profile, before.as_ref())?;
    let hosts = definition::hosts(options, before.as_ref());
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
    let lb_spec = definition::lb_spec(aws, &workers, &network, &inputs.lb, &ami, tls);
    let mut allocations = addresses.iter().map(|address| address.allocation.clone());
    let first = allocations.next().expect("a stack has one address at least");
    let lb_spec =
        BalancerSpec { more_allocations: allocations.collect(), ..BalancerSpec::new(first, lb_spec) };
    let mut release = definition::release(aws, &workers, &network, &inputs.worker, &ami);
    release.balancer = Some(lb_spec.clone());
    release.rollout = requested::rollout(rollout, before.as_ref());
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
