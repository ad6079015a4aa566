//! The machine image: the newest Amazon Linux 2023, by value.
//!
//! It is resolved at deploy and written into the release. An alias that moves would change the
//! parameters of a launch between two tries of the same client token.

use crate::aws::Aws;
use crate::cli::Arch;
use crate::error::{DeployError, Exit, Result, Step as _};
use crate::resources::network::filter;

/// The kernel that Amazon Linux 2023 started with and keeps to its end. `minimal` images have
/// another prefix and lack the AWS CLI that the boot needs.
fn pattern(arch: Arch) -> String {
    format!("al2023-ami-2023.*-kernel-6.1-{}", arch.as_str())
}

pub async fn newest(aws: &Aws, arch: Arch) -> Result<String> {
    let described = aws
        .ec2
        .describe_images()
        .owners("amazon")
        .filters(filter("name", &pattern(arch)))
        .filters(filter("state", "available"))
        .send()
        .await
        .step(|| "look for the Amazon Linux image".to_owned())?;
    described
        .images()
        .iter()
        // Names hold the date of the release, so the greatest is the newest.
        .max_by_key(|image| image.name().unwrap_or_default().to_owned())
        .and_then(|image| image.image_id())
        .map(str::to_owned)
        .ok_or_else(|| {
            let what = format!("no image `{}` of Amazon's in {}", pattern(arch), aws.names.region);
            DeployError::new(Exit::Failed, what).mend("Try another --arch or --region.")
        })
}
