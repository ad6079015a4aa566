//! `deploy`: makes the account what the stack should be, each resource once, in the order in which
//! they need each other.

use std::path::Path;

use fleet::Profile;
use fleet::release::{BalancerSpec, InstanceSpec, Release};

use crate::aws::Aws;
use crate::cli::{Deploy, Target};
use crate::error::Result;
use crate::output::{self, Progress};
use crate::resources::artifact::{self, Artifact};
use crate::resources::bucket::{self, Contents};
use crate::resources::network::Network;
use crate::resources::role::{self, Role};
use crate::resources::{documents, function, image, load_balancer, network, schedule};
use crate::user_data::{Program, cloud_config};
use crate::{healthy, token};

pub async fn run(target: &Target, options: &Deploy) -> Result<()> {
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
    let (network, changes) = network::ensure(&aws, &options.allow_cidr).await?;
    progress.end(&changes);

    progress.begin("secrets");
    let keys = documents::ensure_session_keys(&aws).await?;
    let token = documents::ensure_token(&aws, &token_file).await?;
    progress.end(&[keys, token]);

    progress.begin("programs");
    let uploads = tokio::try_join!(artifact::ensure(&aws, &lb), artifact::ensure(&aws, &worker))?;
    progress.end(&[uploads.0, uploads.1]);

    progress.begin("release and desired count");
    let ami = image::newest(&aws, options.arch).await?;
    let (allocation, allocated) = load_balancer::ensure_address(&aws).await?;
    let lb_spec = BalancerSpec::new(allocation, lb_spec(&aws, options, &network, &lb, &ami));
    let mut release = release(&aws, options, profile, &network, &worker, &ami);
    let before = documents::release(&aws).await?;
    let is_new_release = before.as_ref().is_some_and(|before| before.id != release.id);
    // Until the new load balancer serves, a dead one is replaced by what served before.
    let serving = before.and_then(|it| it.balancer).filter(|it| it.allocation == lb_spec.allocation);
    release.balancer = Some(serving.unwrap_or_else(|| lb_spec.clone()));
    let released = documents::ensure_release(&aws, &release).await?;
    let (counted, desired) = documents::ensure_desired(&aws, options.workers).await?;
    progress.end(&[released, counted, allocated]);
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
    progress.begin(format!("{desired} healthy workers"));
    let most = if is_new_release { u32::MAX } else { desired.get() };
    let healthy = healthy::wait(&balancer.url(), desired.get(), most, &progress).await;
    balancer.settle(&aws, healthy.is_ok()).await?;
    healthy?;
    release.balancer = Some(lb_spec);
    documents::ensure_release(&aws, &release).await?;
    progress.end_with("answering");
    progress.finish();
    report(target, &progress, &balancer.url(), &token_file);
    Ok(())
}

fn report(target: &Target, progress: &Progress, url: &str, token_file: &Path) {
    let stack = &target.stack;
    match progress.changes {
        0 => progress.line(&format!("Stack {stack} is as it should be: nothing changed.")),
        1 => progress.line(&format!("Stack {stack} is up: 1 change.")),
        n => progress.line(&format!("Stack {stack} is up: {n} changes.")),
    }
    output::result(&format!(
        "\nURL          {url}\n\
         Admin token  {}\n\n\
         Next:\n  \
         curl {url}/healthcheck\n  \
         curl -X POST {url}/signup/ana/correct-horse-battery\n  \
         curl -i {url}/signin/ana/correct-horse-battery\n  \
         curl -H \"Authorization: Bearer $(cat {})\" {url}/list",
        token_file.display(),
        token_file.display(),
    ));
}

fn release(
    aws: &Aws,
    options: &Deploy,
    profile: Profile,
    network: &Network,
    worker: &Artifact,
    ami: &str,
) -> Release {
    let user_data = cloud_config(&Program {
        name: worker.name,
        sha256: &worker.sha256,
        settings: vec![
            ("AWS_REGION", aws.names.region.clone()),
            ("VIGIA_STACK", aws.names.stack.to_string()),
            ("VIGIA_DATA_BUCKET", aws.names.data_bucket()),
            ("VIGIA_CONTROL_BUCKET", aws.names.control_bucket()),
            ("VIGIA_PROFILE", profile.to_string()),
        ],
    });
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

fn lb_spec(aws: &Aws, options: &Deploy, network: &Network, lb: &Artifact, ami: &str) -> InstanceSpec {
    let user_data = cloud_config(&Program {
        name: lb.name,
        sha256: &lb.sha256,
        settings: vec![
            ("AWS_REGION", aws.names.region.clone()),
            ("VIGIA_STACK", aws.names.stack.to_string()),
            ("VIGIA_CONTROL_BUCKET", aws.names.control_bucket()),
        ],
    });
    InstanceSpec {
        ami: ami.to_owned(),
        instance_type: instance_type(options),
        subnets: network.public.clone(),
        security_group: network.lb_group.clone(),
        instance_profile: Role::LoadBalancer.name(aws),
        user_data,
    }
}

fn instance_type(options: &Deploy) -> String {
    options.instance_type.clone().unwrap_or_else(|| options.arch.default_instance_type().to_owned())
}
