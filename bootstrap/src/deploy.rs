//! `deploy`: makes the account what the stack should be, each resource once, in the order in which
//! they need each other.

use std::path::Path;

use fleet::Profile;
use fleet::release::{BalancerSpec, InstanceSpec, Release};
use jiff::Timestamp;
use users::password::MinChars;

use crate::aws::Aws;
use crate::certificate::{Certificate, Origin};
use crate::cli::{Deploy, Target};
use crate::error::{DeployError, Exit, Result};
use crate::names::Names;
use crate::output::{self, Progress};
use crate::resources::artifact::{self, Artifact};
use crate::resources::bucket::{self, Contents};
use crate::resources::network::{Access, Network, TlsPort};
use crate::resources::role::{self, Role};
use crate::resources::{certificate, documents, function, image, load_balancer, network, schedule};
use crate::tls::{self, Wanted};
use crate::user_data::{Program, cloud_config, setting};
use crate::{healthy, token};

/// The worker's setting that a later deployment keeps.
const MIN_PASSWORD: &str = "VIGIA_MIN_PASSWORD";

/// What can be said of the arguments without asking anybody.
pub fn check(options: &Deploy) -> Result<()> {
    Wanted::read(&options.tls, Timestamp::now()).map(drop)
}

pub async fn run(target: &Target, options: &Deploy) -> Result<()> {
    let now = Timestamp::now();
    let wanted_tls = Wanted::read(&options.tls, now)?;
    let lb = Artifact::load(&options.artifacts, "ec2-lb")?;
    let worker = Artifact::load(&options.artifacts, "ec2-worker")?;
    let reconciler = Artifact::load(&options.artifacts, "reconciler")?;
    let mut progress = Progress::default();

    progress.begin("credentials");
    let aws = Aws::connect(target).await?;
    progress.end_with(&format!("account {}, region {}", aws.names.account, aws.names.region));
    let token_file = token::file(target, &aws);

    progress.begin("buckets");
    let (data, control) =
        tokio::try_join!(bucket::ensure(&aws, Contents::Users), bucket::ensure(&aws, Contents::Control))?;
    let profile = documents::profile(&aws, options.profile).await?;
    progress.end(&[data, control]);

    // Roles early: they propagate while the rest is made.
    progress.begin("roles");
    let [worker_role, lb_role, reconciler_role] = Role::ALL;
    let roles = tokio::try_join!(
        role::ensure(&aws, worker_role),
        role::ensure(&aws, lb_role),
        role::ensure(&aws, reconciler_role)
    )?;
    progress.end(&[roles.0, roles.1, roles.2]);

    progress.begin("network");
    let (address, allocated) = load_balancer::ensure_address(&aws).await?;
    let (stored, certificate_object) = certificate::find(&aws).await?.unzip();
    let decision = tls::decide(wanted_tls, stored, address.ip, now).map_err(tls::stays_as_it_is)?;
    let tls = if decision.is_on() { TlsPort::Open } else { TlsPort::Closed };
    let (network, mut changes) = network::ensure(&aws, Access { from: &options.allow_cidr, tls }).await?;
    changes.push(allocated);
    progress.end(&changes);

    progress.begin("secrets");
    let keys = documents::ensure_session_keys(&aws).await?;
    let token = documents::ensure_token(&aws, &token_file).await?;
    let (certificate, certified) =
        certificate::apply(&aws, decision, certificate_object.as_ref(), address.ip, now).await?;
    let certificate_file = certificate::file(&token_file);
    certificate::keep_file(&certificate_file, certificate.as_ref())?;
    progress.end(&[keys, token, certified]);

    progress.begin("programs");
    let uploads = tokio::try_join!(artifact::ensure(&aws, &lb), artifact::ensure(&aws, &worker))?;
    progress.end(&[uploads.0, uploads.1]);

    progress.begin("release and desired count");
    let ami = image::newest(&aws, options.arch).await?;
    let lb_spec = BalancerSpec::new(address.allocation, lb_spec(&aws, options, &network, &lb, &ami, tls));
    let before = documents::release(&aws).await?;
    let min_password = min_password(options, profile, before.as_ref())?;
    let mut release = release(&aws, options, profile, min_password, &network, &worker, &ami);
    let is_new_release = before.as_ref().is_some_and(|before| before.id != release.id);
    // Until the new load balancer serves, a dead one is replaced by what served before.
    let serving = before.and_then(|it| it.balancer).filter(|it| it.allocation == lb_spec.allocation);
    release.balancer = Some(serving.unwrap_or_else(|| lb_spec.clone()));
    let released = documents::ensure_release(&aws, &release).await?;
    let (counted, desired) = documents::ensure_desired(&aws, options.workers).await?;
    progress.end(&[released, counted]);
    if is_new_release {
        progress.line("The reconciler replaces the workers by those of the new release, a few at a time.");
    }

    // The load balancer boots while the function is uploaded.
    progress.begin("load balancer");
    let (balancer, changes) = load_balancer::ensure(&aws, &lb_spec).await?;
    progress.end(&changes);

    progress.begin("reconciler");
    let logs = function::ensure_log_group(&aws).await?;
    let uploaded = function::ensure(&aws, options, &reconciler, &network).await?;
    let scheduled = schedule::ensure(&aws).await?;
    progress.end(&[logs, uploaded, scheduled]);

    if progress.changes > 0 {
        progress.begin("first tick");
        function::invoke(&aws).await?;
        progress.end_with("started");
    }
    let is_waiting = !options.no_wait || balancer.is_replacement();
    progress.begin(format!("{desired} healthy workers"));
    let most = if is_new_release { u32::MAX } else { desired.get() };
    let healthy = async {
        if !is_waiting {
            return Ok(());
        }
        healthy::wait(&balancer.url(), desired.get(), most, &progress).await?;
        match &certificate {
            Some(certificate) => healthy::wait_for_certificate(address.ip, certificate, &progress).await,
            None => Ok(()),
        }
    };
    let healthy = healthy.await;
    balancer.settle(&aws, healthy.is_ok()).await?;
    healthy?;
    release.balancer = Some(lb_spec);
    documents::ensure_release(&aws, &release).await?;
    progress.end_with(if is_waiting { "answering" } else { "not waited for" });
    progress.finish();
    if let Some(certificate) = certificate.as_ref().filter(|certificate| tls::ends_soon(certificate, now)) {
        progress.line(&format!(
            "The certificate ends on {}: give the next one.",
            certificate.until.strftime("%F")
        ));
    }
    let https =
        certificate.map(|certificate| https_report(&balancer.address, &certificate, &certificate_file));
    report(target, &progress, &balancer.url(), &token_file, &https.unwrap_or_default());
    Ok(())
}

/// Lines for the report; a self-signed certificate has to be trusted by name.
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
                "HTTPS        {url}\nCertificate  the one that was given, until {until}\nSHA-256      {fingerprint}\n"
            ),
            next: String::new(),
        },
    }
}

fn report(target: &Target, progress: &Progress, url: &str, token_file: &Path, https: &HttpsReport) {
    let stack = &target.stack;
    match progress.changes {
        0 => progress.line(&format!("Stack {stack} is as it should be: nothing changed.")),
        1 => progress.line(&format!("Stack {stack} is up: 1 change.")),
        n => progress.line(&format!("Stack {stack} is up: {n} changes.")),
    }
    output::result(&format!(
        "\nURL          {url}\n\
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

fn release(
    aws: &Aws,
    options: &Deploy,
    profile: Profile,
    min_password: Option<MinChars>,
    network: &Network,
    worker: &Artifact,
    ami: &str,
) -> Release {
    let settings = worker_settings(&aws.names, profile, min_password, &network.public_blocks);
    let user_data = cloud_config(&Program { name: worker.name, sha256: &worker.sha256, settings });
    let spec = InstanceSpec {
        ami: ami.to_owned(),
        instance_type: instance_type(options),
        subnets: network.private.clone(),
        security_group: network.worker_group.clone(),
        instance_profile: Role::Worker.name(aws),
        user_data,
    };
    Release::new(aws.names.stack.clone(), profile, env!("CARGO_PKG_VERSION").to_owned(), spec)
}

fn worker_settings(
    names: &Names,
    profile: Profile,
    min_password: Option<MinChars>,
    load_balancers: &[String],
) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("AWS_REGION", names.region.clone()),
        ("VIGIA_STACK", names.stack.to_string()),
        ("VIGIA_DATA_BUCKET", names.data_bucket()),
        ("VIGIA_CONTROL_BUCKET", names.control_bucket()),
        ("VIGIA_PROFILE", profile.to_string()),
        ("VIGIA_TRUSTED_PROXIES", load_balancers.join(",")),
    ];
    settings.extend(min_password.map(|min| (MIN_PASSWORD, min.to_string())));
    settings
}

/// What is asked for, else what the workers have; the release is where it is remembered.
fn min_password(options: &Deploy, profile: Profile, before: Option<&Release>) -> Result<Option<MinChars>> {
    match (options.min_password, profile) {
        (Some(_), Profile::Classic) => {
            Err(DeployError::new(Exit::Usage, "the profile classic has no rule for passwords")
                .mend("Leave --min-password out (make: MIN_PASSWORD=)."))
        }
        (Some(min), Profile::Secure) => Ok(Some(min)),
        (None, Profile::Classic) => Ok(None),
        (None, Profile::Secure) => {
            let before = before.and_then(|release| setting(&release.worker.user_data, MIN_PASSWORD));
            Ok(before.and_then(|text| text.parse().ok()))
        }
    }
}

fn lb_spec(
    aws: &Aws,
    options: &Deploy,
    network: &Network,
    lb: &Artifact,
    ami: &str,
    tls: TlsPort,
) -> InstanceSpec {
    let settings = lb_settings(&aws.names, tls);
    let user_data = cloud_config(&Program { name: lb.name, sha256: &lb.sha256, settings });
    InstanceSpec {
        ami: ami.to_owned(),
        instance_type: instance_type(options),
        subnets: network.public.clone(),
        security_group: network.lb_group.clone(),
        instance_profile: Role::LoadBalancer.name(aws),
        user_data,
    }
}

/// The certificate itself is not among them: it changes without a new load balancer.
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

fn instance_type(options: &Deploy) -> String {
    options.instance_type.clone().unwrap_or_else(|| options.arch.default_instance_type().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names {
            stack: "a".parse().expect("valid"),
            account: "123456789012".to_owned(),
            region: "eu-west-1".to_owned(),
            partition: "aws".to_owned(),
        }
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
        let settings = worker_settings(&names(), Profile::Secure, min_password, &["10.77.0.0/20".to_owned()]);
        let spec = InstanceSpec {
            ami: "ami-1".to_owned(),
            instance_type: "t4g.micro".to_owned(),
            subnets: Vec::new(),
            security_group: "sg-1".to_owned(),
            instance_profile: "p".to_owned(),
            user_data: cloud_config(&Program { name: "ec2-worker", sha256: "abc", settings }),
        };
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
        assert_eq!(refused.expect_err("classic has no rule").exit, Exit::Usage);
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
