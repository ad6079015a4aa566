//! `token`: prints the operator's key to `/list` and `/setamount`.

use std::path::PathBuf;

use fleet::keys;

use crate::aws::Aws;
use crate::cli::Target;
use crate::error::{DeployError, Exit, Result};
use crate::output;
use crate::resources::{documents, secrets};

/// Returns the file with the stack's token on this machine.
pub fn file(target: &Target, aws: &Aws) -> PathBuf {
    if let Some(file) = &target.token_file {
        return file.clone();
    }
    let name = format!("{}-{}-{}.token", aws.names.account, aws.names.region, aws.names.stack);
    #[expect(clippy::disallowed_methods, reason = "the home directory is not a setting of Vigia")]
    let home = std::env::var("HOME").unwrap_or_else(|_| ".".to_owned());
    PathBuf::from(home).join(".vigia").join(name)
}

pub async fn run(target: &Target, rotate: bool) -> Result<()> {
    let aws = Aws::connect(target).await?;
    let file = file(target, &aws);
    if rotate {
        let token = secrets::rotate_token(&aws, &file).await?;
        output::result(&token);
        return Ok(());
    }
    let Some(hash) = documents::read(&aws, keys::ADMIN_TOKEN_HASH).await? else {
        return Err(DeployError::new(Exit::Failed, format!("there is no stack {}", aws.names.stack))
            .hint("`make deploy` (or `make local`) creates it."));
    };
    secrets::complete(&file, &hash.bytes)?;
    let rotating = "Create a new one with `bootstrap token rotate` (make token ROTATE=1); the old one stops \
        working within a minute.";
    let token = std::fs::read_to_string(&file).map_err(|error| {
        let what =
            format!("the admin token of {} is not on this machine: {}", aws.names.stack, file.display());
        DeployError::new(Exit::Failed, what).hint(rotating).caused_by(error)
    })?;
    let token = token.trim();
    if secrets::token_hash(token).as_bytes() != hash.bytes.trim_ascii() {
        let what = format!("{} holds the token of another or an earlier stack", file.display());
        return Err(DeployError::new(Exit::Failed, what).hint(rotating));
    }
    output::result(token);
    Ok(())
}
