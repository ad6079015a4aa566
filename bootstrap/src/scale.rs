//! `scale` and `url`: the small commands.

use fleet::DesiredCount;

use crate::aws::Aws;
use crate::cli::Target;
use crate::error::{DeployError, Exit, Result};
use crate::output;
use crate::part::RunMode;
use crate::resources::{certificate, documents, load_balancer};

pub async fn run(target: &Target, count: DesiredCount) -> Result<()> {
    let aws = Aws::connect(target).await?;
    no_stack_is_an_error(&aws).await?;
    let (part, count) = documents::ensure_desired(&aws, RunMode::Apply, Some(count)).await?;
    let text = if part.is_change() {
        format!("desired {count}; the next tick applies it, usually within 20 s")
    } else {
        format!("desired {count}, unchanged")
    };
    output::result(&text);
    Ok(())
}

/// Prints the URL alone, for scripts.
pub async fn url(target: &Target) -> Result<()> {
    let aws = Aws::connect(target).await?;
    output::result(&load_balancer::url(&address(&aws).await?));
    Ok(())
}

/// Prints the URL with TLS alone, if the stack serves TLS.
pub async fn https_url(target: &Target) -> Result<()> {
    let aws = Aws::connect(target).await?;
    let address = address(&aws).await?;
    if certificate::find(&aws).await?.is_none() {
        let what = format!("stack {} does not serve TLS", aws.names.stack);
        return Err(DeployError::new(Exit::Failed, what)
            .hint("Deploy it with `--tls self-signed`, or with --tls-cert and --tls-key (make: TLS=…)."));
    }
    output::result(&load_balancer::https_url(&address));
    Ok(())
}

async fn address(aws: &Aws) -> Result<String> {
    let address = load_balancer::find_address(aws).await?;
    address.and_then(|address| address.public_ip).ok_or_else(|| no_stack(aws))
}

async fn no_stack_is_an_error(aws: &Aws) -> Result<()> {
    match documents::read(aws, fleet::keys::RELEASE).await? {
        Some(_) => Ok(()),
        None => Err(no_stack(aws)),
    }
}

pub fn no_stack(aws: &Aws) -> DeployError {
    let what = format!(
        "there is no stack {} in account {}, region {}",
        aws.names.stack, aws.names.account, aws.names.region
    );
    DeployError::new(Exit::Failed, what)
        .hint("`make deploy` (or `make local`) creates it. To use another stack, set STACK=.")
}
