//! Parses, runs, and exits with a code.

use std::process::ExitCode;
use std::time::Duration;

use bootstrap::cli::{Cli, Command, TokenAction};
use bootstrap::destroy::Consent;
use bootstrap::error::{DeployError, Exit, Result};
use bootstrap::interrupt::unless_told_to_stop;
use bootstrap::migrate_profile::{Mode, OnUnusable, Options};
use bootstrap::{
    deploy, destroy, doctor, iam_policy, logs, manual, migrate_profile, output, plan, preflight, requested,
    scale, session_keys, status, token,
};
use clap::Parser as _;

/// A question waits on a thread of its own, which cannot be cancelled.
const LAST_THREADS: Duration = Duration::from_millis(100);

/// Without optimisation, the checks of `doctor` and `preflight`, which run at the same time, need more than the
/// 8 MiB that Linux gives the main thread. Address space only: pages that are not touched cost nothing.
const STACK_BYTES: usize = 64 * 1024 * 1024;

fn main() -> ExitCode {
    let cli = Cli::parse();
    output::choose(cli.mode());
    let result = std::thread::scope(|scope| {
        let story = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, || start(&cli));
        match story {
            Ok(story) => story.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(error) => Err(cannot_start(error)),
        }
    });
    match result {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(error) => {
            let mut message = error.message();
            if matches!(error.exit, Exit::Interrupted | Exit::Terminated) && cli.command.is_resumable() {
                message.push_str("; the next run continues where this one stopped");
            }
            output::failure(&message, error.exit as u8);
            ExitCode::from(error.exit as u8)
        }
    }
}

fn start(cli: &Cli) -> Result<Exit> {
    let runtime = tokio::runtime::Runtime::new().map_err(cannot_start)?;
    let result = runtime.block_on(unless_told_to_stop(run(cli)));
    runtime.shutdown_timeout(LAST_THREADS);
    result
}

fn cannot_start(error: std::io::Error) -> DeployError {
    DeployError::new(Exit::Failed, "cannot start")
        .hint("This machine may lack memory, threads or file descriptors: check `ulimit -a`.")
        .caused_by(error)
}

/// Runs the command and returns its exit code.
async fn run(cli: &Cli) -> Result<Exit> {
    let target = &cli.target;
    match &cli.command {
        Command::Deploy(options) if options.check => requested::check(options),
        Command::Deploy(options) => deploy::run(target, options).await,
        Command::Plan { deploy, detailed_exitcode } => {
            let changes = plan::run(target, deploy).await?;
            return Ok(if changes && *detailed_exitcode { Exit::Changes } else { Exit::Done });
        }
        Command::Preflight(options) => preflight::run(target, options).await,
        Command::Status(options) => status::run(target, options).await,
        Command::Scale { count } => scale::run(target, *count).await,
        Command::Logs(options) => logs::run(target, options).await,
        Command::Doctor(options) => doctor::run(target, options).await,
        Command::Token { rotate, action } => {
            token::run(target, *rotate || matches!(action, Some(TokenAction::Rotate))).await
        }
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
        Command::IamPolicy { account, permissions_boundary } => {
            iam_policy::run(target, account.as_ref(), permissions_boundary.as_ref()).await
        }
        Command::Destroy { yes, keep_data, .. } => {
            destroy::run(target, Consent::of(*yes, cli.manners), *keep_data).await
        }
        Command::Completions { shell } => manual::completions(*shell),
        Command::Man => manual::page(),
    }?;
    Ok(Exit::Done)
}
