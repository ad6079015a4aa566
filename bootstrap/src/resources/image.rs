//! The machine image: the newest Amazon Linux 2023, by its id.
//!
//! It is resolved at deploy and written into the release. An alias could change the parameters of a launch
//! between two tries of the same client token.

use aws_sdk_ec2::types::Image;

use crate::aws::Aws;
use crate::cli::Arch;
use crate::error::{DeployError, Exit, Result, Step as _};
use crate::resources::network::filter;

/// Returns the pattern of the image's name. Kernel 6.1 came with the first Amazon Linux 2023, which keeps it
/// to its end. `minimal` images have another prefix and lack the AWS CLI that the boot needs.
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
    latest(described.images()).map(str::to_owned).ok_or_else(|| {
        let what = format!("Amazon has no image `{}` in {}", pattern(arch), aws.names.region);
        DeployError::new(Exit::Failed, what).hint("Try another --arch or --region.")
    })
}

/// Returns the newest by creation date, which sorts as text. Names do not: `2023.9` is greater than
/// `2023.10`. Of two images of the same moment the name decides, so that two deployments choose the same.
fn latest(images: &[Image]) -> Option<&str> {
    images.iter().max_by_key(|image| (image.creation_date(), image.name(), image.image_id()))?.image_id()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_image_is_the_one_created_last() {
        let image = |id: &str, name: &str, date: &str| {
            Image::builder().image_id(id).name(name).creation_date(date).build()
        };
        let images = [
            image("ami-9", "al2023-ami-2023.9.20250929.0-kernel-6.1-arm64", "2025-09-29T20:01:11.000Z"),
            image("ami-10", "al2023-ami-2023.10.20260105.0-kernel-6.1-arm64", "2026-01-05T19:40:02.000Z"),
            image("ami-8", "al2023-ami-2023.8.20250721.2-kernel-6.1-arm64", "2025-07-21T22:13:43.000Z"),
        ];
        assert_eq!(latest(&images), Some("ami-10"));
        assert_eq!(latest(&[]), None);
    }
}
