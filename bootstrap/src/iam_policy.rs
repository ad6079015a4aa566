//! `iam-policy`: prints the policy that the deployer needs, for this stack, account and region.

use crate::aws;
use crate::cli::{AccountId, PolicyArn, Target};
use crate::error::{DeployError, Exit, Result};
use crate::names::Names;
use crate::output;
use crate::policies::deployer::{MAX_CHARS, chars, deployer};

/// Printed on standard error, so that the policy on standard output stays JSON.
const UNBOUNDED: &str = "Credentials with this policy can become an administrator of the account, because \
    they can write the policies of the stack's roles and run programs with these roles. To prevent that, \
    create a managed policy that limits these roles, and pass its ARN to `iam-policy` and to `deploy` with \
    --permissions-boundary (make: BOUNDARY=).";

/// With `--account` and a region it makes no call; otherwise AWS says which account the credentials belong
/// to.
pub async fn run(target: &Target, account: Option<&AccountId>, boundary: Option<&PolicyArn>) -> Result<()> {
    let names = match account {
        Some(account) => aws::names_of(target, account).await?,
        None => aws::Aws::connect(target).await?.names,
    };
    output::result(&text(&names, boundary)?);
    if let Some(warning) = warning(boundary) {
        output::note(warning);
    }
    Ok(())
}

fn warning(boundary: Option<&PolicyArn>) -> Option<&'static str> {
    boundary.is_none().then_some(UNBOUNDED)
}

fn text(names: &Names, boundary: Option<&PolicyArn>) -> Result<String> {
    let policy = deployer(names, boundary.map(PolicyArn::as_str));
    let chars = chars(&policy);
    if chars > MAX_CHARS {
        let what = format!("the policy has {chars} characters, more than IAM's limit of {MAX_CHARS}");
        return Err(DeployError::new(Exit::Failed, what)
            .hint("Choose a shorter --stack name, or a permissions boundary with a shorter name."));
    }
    Ok(serde_json::to_string_pretty(&policy).expect("a policy is plain data"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_policy_without_a_boundary_makes_administrators() {
        let boundary = "arn:aws:iam::123456789012:policy/limits".parse().expect("an ARN");
        assert!(warning(None).is_some_and(|text| text.contains("administrator")));
        assert_eq!(warning(Some(&boundary)), None);
    }
}
