//! `iam-policy`: the policy that whoever deploys needs, for this stack, account and region.

use crate::aws;
use crate::cli::{AccountId, Target};
use crate::error::{DeployError, Exit, Result};
use crate::names::Names;
use crate::output;
use crate::policies::deployer::{MAX_CHARS, chars, deployer};

/// With `--account` and a region nobody is asked; otherwise AWS says whose credentials these are.
pub async fn run(target: &Target, account: Option<&AccountId>) -> Result<()> {
    let names = match account {
        Some(account) => aws::names_of(target, account).await?,
        None => aws::Aws::connect(target).await?.names,
    };
    output::result(&text(&names)?);
    Ok(())
}

fn text(names: &Names) -> Result<String> {
    let policy = deployer(names);
    let chars = chars(&policy);
    if chars > MAX_CHARS {
        let what = format!("the policy has {chars} characters, and IAM takes {MAX_CHARS}");
        return Err(DeployError::new(Exit::Failed, what).mend("Choose a shorter --stack name."));
    }
    Ok(serde_json::to_string_pretty(&policy).expect("a policy is plain data"))
}
