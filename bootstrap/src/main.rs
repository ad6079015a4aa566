//! Parse, run, exit code.

use std::io::Write as _;
use std::process::ExitCode;

use bootstrap::cli::{Cli, Command};
use bootstrap::error::{DeployError, Exit};
use bootstrap::migrate_profile::{Mode, OnUnusable, Options};
use bootstrap::{deploy, destroy, migrate_profile, plan, scale, session_keys, status, token};
use clap::Parser as _;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = tokio::runtime::Runtime::new()
        .map_err(|error| DeployError::new(Exit::Failed, "cannot start").caused_by(error))
        .and_then(|runtime| runtime.block_on(run(&cli)));
    match result {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(error) => {
            writeln!(std::io::stderr(), "error: {}", error.message()).ok();
            ExitCode::from(error.exit as u8)
        }
    }
}

/// The code to end with, unless it failed.
async fn run(cli: &Cli) -> bootstrap::error::Result<Exit> {
    let target = &cli.target;
    match &cli.command {
        Command::Deploy(options) if options.check => deploy::check(options),
        Command::Deploy(options) => deploy::run(target, options).await,
        Command::Plan { deploy, detailed_exitcode } => {
            let changes = plan::run(target, deploy).await?;
            return Ok(if changes && *detailed_exitcode { Exit::Changes } else { Exit::Done });
        }
        Command::Status { json } => status::run(target, *json).await,
        Command::Scale { count } => scale::run(target, *count).await,
        Command::Token { rotate } => token::run(target, *rotate).await,
        Command::Url { https: false } => scale::url(target).await,
        Command::Url { https: true } => scale::https_url(target).await,
        Command::RotateSessionKeys { now } => {
            let gradual = session_keys::Mode::Gradual { wait: session_keys::WAIT };
            session_keys::run(target, if *now { session_keys::Mode::Now } else { gradual }).await
        }
        Command::MigrateProfile { skip_unusable, dry_run } => {
            let unusable = if *skip_unusable { OnUnusable::Leave } else { OnUnusable::Refuse };
            let mode = if *dry_run { Mode::DryRun } else { Mode::Migrate };
            migrate_profile::run(target, Options { unusable, mode }).await
        }
        Command::Destroy { yes, keep_data } => destroy::run(target, *yes, *keep_data).await,
    }?;
    Ok(Exit::Done)
}
