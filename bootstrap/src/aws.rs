//! The AWS clients, made once from the usual sources of credentials, and the identity that they act as.

pub mod cli_session;

use std::time::Duration;

use ::aws::config::Limits;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{ConfigLoader, Region, SdkConfig};

use crate::cli::{AccountId, Target};
use crate::error::{DeployError, Exit, Result, Step as _};
use crate::names::Names;
use crate::patience::Patience;

/// Uploads have limits of their own (`resources/upload.rs`).
const LIMITS: Limits = Limits {
    connect: None,
    attempt: Some(Duration::from_secs(60)),
    operation: Duration::from_secs(120),
    attempts: 8,
};

pub struct Aws {
    pub names: Names,
    /// ARN of the calling user, role session or root; empty if AWS was not asked for it.
    pub caller: String,
    /// Set for any endpoint but AWS's own.
    pub endpoint_url: Option<String>,
    pub patience: Patience,
    pub ec2: aws_sdk_ec2::Client,
    pub s3: aws_sdk_s3::Client,
    pub iam: aws_sdk_iam::Client,
    pub lambda: aws_sdk_lambda::Client,
    pub events: aws_sdk_eventbridge::Client,
    pub logs: aws_sdk_cloudwatchlogs::Client,
    pub quotas: aws_sdk_servicequotas::Client,
}

impl Aws {
    /// Finds credentials and region and asks AWS for the caller's identity, so that a wrong key fails before
    /// anything is made.
    pub async fn connect(target: &Target) -> Result<Self> {
        let config = load(target).await?;
        let region = region(&config)?;
        // Two tries: a person waits, and a wrong endpoint stays wrong.
        let asking = aws_sdk_sts::config::Builder::from(&config)
            .retry_config(RetryConfig::standard().with_max_attempts(2))
            .timeout_config(TimeoutConfig::builder().operation_timeout(Duration::from_secs(15)).build())
            .build();
        let identity = aws_sdk_sts::Client::from_conf(asking).get_caller_identity().send().await.step(
            || match &target.endpoint_url {
                Some(url) => format!("sign in at {url}"),
                None => "sign in to AWS".to_owned(),
            },
        )?;
        let arn = identity.arn().unwrap_or("arn:aws:::");
        let names = Names {
            stack: target.stack.clone(),
            account: identity.account().unwrap_or_default().to_owned(),
            region,
            partition: arn.split(':').nth(1).unwrap_or("aws").to_owned(),
        };
        let aws = Self::new(&config, names, target.endpoint_url.clone(), Patience::at_most(target.patience));
        Ok(Self { caller: arn.to_owned(), ..aws })
    }

    /// Returns the clients without asking AWS for the caller's identity.
    pub fn new(config: &SdkConfig, names: Names, endpoint_url: Option<String>, patience: Patience) -> Self {
        // AWS addresses buckets by host name, which an endpoint on an IP address cannot.
        let s3 = ::aws::config::s3(config, endpoint_url.is_some());
        Self {
            names,
            caller: String::new(),
            endpoint_url,
            patience,
            ec2: aws_sdk_ec2::Client::new(config),
            s3,
            iam: aws_sdk_iam::Client::new(config),
            lambda: aws_sdk_lambda::Client::new(config),
            events: aws_sdk_eventbridge::Client::new(config),
            logs: aws_sdk_cloudwatchlogs::Client::new(config),
            quotas: aws_sdk_servicequotas::Client::new(config),
        }
    }
}

/// Returns the names of a stack in a given account, without a call to AWS.
pub async fn names_of(target: &Target, account: &AccountId) -> Result<Names> {
    must_be_endpoint(target)?;
    let region = region(&loader(target).load().await)?;
    let partition = partition(&region).to_owned();
    Ok(Names { stack: target.stack.clone(), account: account.to_string(), region, partition })
}

/// Returns the AWS partition of a region; ARNs contain it.
fn partition(region: &str) -> &'static str {
    match region {
        _ if region.starts_with("cn-") => "aws-cn",
        _ if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

fn region(config: &SdkConfig) -> Result<String> {
    config.region().map(ToString::to_string).ok_or_else(|| {
        DeployError::new(Exit::Usage, "no AWS region is set")
            .hint("Add --region (make: REGION=…), or run `aws configure`.")
    })
}

async fn load(target: &Target) -> Result<SdkConfig> {
    must_be_endpoint(target)?;
    Ok(cli_session::or_of_cli(loader(target).load().await, || loader(target)).await)
}

fn must_be_endpoint(target: &Target) -> Result<()> {
    let Some(url) = &target.endpoint_url else { return Ok(()) };
    if url.starts_with("http://") || url.starts_with("https://") {
        return Ok(());
    }
    Err(DeployError::new(Exit::Usage, format!("`{url}` is not an endpoint"))
        .hint("Write it with its scheme, for example http://127.0.0.1:4566."))
}

fn loader(target: &Target) -> ConfigLoader {
    let mut loader = ::aws::config::loader(&LIMITS);
    if let Some(region) = &target.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(url) = &target.endpoint_url {
        loader = loader.endpoint_url(url);
    }
    loader
}

#[cfg(test)]
pub(crate) mod stub;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_tells_its_partition() {
        let all = ["eu-west-1", "us-east-1", "cn-north-1", "us-gov-west-1"].map(partition);
        assert_eq!(all, ["aws", "aws", "aws-cn", "aws-us-gov"]);
    }
}
