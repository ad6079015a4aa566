//! The command line, parsed into types that cannot be wrong.

mod values;

use std::path::PathBuf;
use std::time::Duration;

use accounts::password::MinChars;
use clap::{Args, Parser, Subcommand, ValueEnum};
use fleet::hosts::HostNames;
use fleet::{DesiredCount, Profile, StackName};

use crate::cidr::Cidr;
use crate::output::Mode;
use values::parse_age;
pub use values::{AccountId, Arch, CreditsOption, PolicyArn, PolicyArnError, Switch};

/// Deploys and operates a Vigia stack.
#[derive(Parser)]
#[command(name = "bootstrap", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub target: Target,
    #[command(flatten)]
    pub manners: Manners,
    #[command(subcommand)]
    pub command: Command,
}

/// How a command prints and asks.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Manners {
    /// Print only the result and errors, no progress.
    #[arg(long, short = 'q', global = true)]
    pub quiet: bool,
    /// Never ask a question, even on a terminal: a command that needs an answer fails.
    #[arg(long, global = true)]
    pub no_input: bool,
}

/// Which stack, in which account.
#[derive(Args, Clone, Debug)]
pub struct Target {
    /// Name of the stack; several may live in one account and region.
    #[arg(long, global = true, default_value = "vigia")]
    pub stack: StackName,
    /// AWS region [default: the one of `aws configure`].
    #[arg(long, global = true)]
    pub region: Option<String>,
    /// Another AWS endpoint, for example http://127.0.0.1:4566 for the local cloud.
    #[arg(long, global = true)]
    pub endpoint_url: Option<String>,
    /// File with the admin token on this machine [default: a file below ~/.vigia].
    #[arg(long, global = true)]
    pub token_file: Option<PathBuf>,
    /// Wait at most this long for AWS to know a new resource everywhere; each wait also has its own deadline.
    #[arg(long, global = true, hide = true, value_name = "SECONDS")]
    pub patience: Option<u64>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Create the stack or update it, then print its URL.
    Deploy(Deploy),
    /// Show what `deploy` with these options would change, and what the stack costs. A dry run: changes nothing.
    Plan {
        #[command(flatten)]
        deploy: Deploy,
        /// Exit with code 3 if something would change.
        #[arg(long)]
        detailed_exitcode: bool,
    },
    /// Check what `deploy` with these options needs: credentials, permissions, quotas. Changes nothing.
    ///
    /// It takes seconds and needs no built programs. `deploy` and `plan` run the same checks. If an endpoint
    /// cannot answer a check, the result is `not known here`, never `ok`.
    Preflight(Deploy),
    /// Show the stack: desired and healthy workers, the reconciler's last actions and reasons, and every
    /// difference from the last deployment.
    Status(Status),
    /// Show logs, without ssh: the reconciler's from CloudWatch, the instances' from their consoles.
    ///
    /// On a terminal, each event is a line of local time, level, message and fields; security events
    /// begin with `audit:`. In a pipe or file, each line is a JSON object: `source`, `time`, `level`, `message` and
    /// `fields`, or `source` and `line` if the line is not an event of Vigia's programs.
    Logs(Logs),
    /// Check what a stack needs: credentials, clock, tools, quotas, leftovers, reachability.
    ///
    /// Each failed check prints a fix, and the exit code is 1. If an endpoint cannot answer a check, the
    /// result is `not known here`, never `ok`.
    Doctor(Doctor),
    /// Set the desired number of workers. 0 stops the API.
    Scale {
        #[arg(value_parser = parse_count, allow_negative_numbers = true)]
        count: DesiredCount,
    },
    /// Print the admin token.
    Token {
        /// Create a new one; the old one stops working within a minute.
        #[arg(long)]
        rotate: bool,
        #[command(subcommand)]
        action: Option<TokenAction>,
    },
    /// Print the URL of the load balancer.
    Url {
        /// Print the URL with TLS.
        #[arg(long)]
        https: bool,
    },
    /// Replace the key that seals sessions. All users stay signed in. Takes a little over two minutes.
    ///
    /// The new key becomes active when every worker has read it. The previous key still opens sessions for
    /// 13 hours; a later rotation drops it. If the command is interrupted, the next run continues.
    RotateSessionKeys {
        /// Do not wait, and drop every other key, for example after a leak. All sessions end.
        #[arg(long)]
        now: bool,
    },
    /// Turn a classic stack into a secure one: hashes every password, deletes all plain text.
    ///
    /// Run `scale 0` first: no worker may serve during the conversion. The command reads all users before it
    /// changes anything, and lists the users that it cannot convert: the secure profile refuses their login,
    /// two users would get the same login, or the password is empty, too long or not text. If the command is
    /// interrupted, the next run continues. The conversion cannot be undone. Afterwards, deploy with
    /// `--profile secure`.
    MigrateProfile {
        /// Continue although some users cannot be converted. They stay in plain text and can no longer sign
        /// in. If a login exists in several spellings, the lower-case one is converted. Objects that a secure
        /// worker would read as its own are never skipped: fix or delete them.
        #[arg(long)]
        skip_unusable: bool,
        /// A dry run: read and check all users, change nothing. Workers may keep serving.
        #[arg(long)]
        dry_run: bool,
    },
    /// Print the IAM policy that is needed to deploy this stack, as a managed policy.
    ///
    /// It has at most 6,144 characters without white space, IAM's limit. With --account and a region, the
    /// command does not call AWS.
    IamPolicy {
        /// The AWS account, 12 digits [default: the credentials' account].
        #[arg(long, value_name = "ID")]
        account: Option<AccountId>,
        /// Allow only roles with this permissions boundary, the ARN of a managed policy. Pass the same ARN to
        /// `deploy`.
        #[arg(long, value_name = "ARN")]
        permissions_boundary: Option<PolicyArn>,
    },
    /// Remove the stack and everything in it, including its users.
    Destroy {
        /// Do not ask for confirmation.
        #[arg(long)]
        yes: bool,
        /// Keep the bucket with the users.
        #[arg(long)]
        keep_data: bool,
        /// Print one JSON object per step on standard error, and the result as one on standard output.
        #[arg(long)]
        json: bool,
    },
    /// Print a completion script for a shell.
    Completions {
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Print the manual page; pipe it into `man -l -`.
    Man,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum TokenAction {
    /// Create a new one; the old one stops working within a minute.
    Rotate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Status {
    /// Print JSON; with --watch, one object per line.
    #[arg(long)]
    pub json: bool,
    /// Refresh every two seconds, until Ctrl-C.
    #[arg(long, short = 'w')]
    pub watch: bool,
}

#[derive(Args, Clone, Debug)]
pub struct Logs {
    /// Whose log [default: the last lines of all three].
    #[arg(value_enum)]
    pub of: Option<LogsOf>,
    /// Keep printing new lines, until Ctrl-C.
    #[arg(long, short = 'f')]
    pub follow: bool,
    /// Omit older lines; for example 90s, 10m, 2h or 1d. By default the reconciler's log starts 10 minutes
    /// ago. A console has only its last 64 KiB.
    #[arg(long, value_parser = parse_age)]
    pub since: Option<Duration>,
    /// Only this instance, which may already be terminated.
    #[arg(long, value_name = "ID")]
    pub instance: Option<String>,
    /// At most N lines of each log [default: 20 if no log is named].
    #[arg(long, short = 'n', value_name = "N")]
    pub lines: Option<usize>,
    /// Print JSON, one object per line, also on a terminal.
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogsOf {
    Worker,
    Lb,
    Reconciler,
}

#[derive(Args, Clone, Debug)]
pub struct Doctor {
    /// Print one JSON object with all checks.
    #[arg(long)]
    pub json: bool,
    /// Desired number of workers [default: the stack's, or 3].
    #[arg(long, short = 'n', value_parser = parse_workers, allow_negative_numbers = true)]
    pub workers: Option<DesiredCount>,
    /// Processor of the instances and the function; by default this machine's.
    #[arg(long, value_enum, default_value_t = Arch::host())]
    pub arch: Arch,
    /// EC2 instance type of the workers and the load balancer.
    #[arg(long)]
    pub instance_type: Option<String>,
    /// Path of the cargo-lambda program.
    #[arg(long, default_value = "cargo-lambda", env = "VIGIA_CARGO_LAMBDA")]
    pub cargo_lambda: PathBuf,
}

impl Cli {
    /// Returns how the command prints.
    pub fn mode(&self) -> Mode {
        match &self.command {
            Command::Deploy(Deploy { json: true, .. })
            | Command::Plan { deploy: Deploy { json: true, .. }, .. }
            | Command::Logs(Logs { json: true, .. })
            | Command::Destroy { json: true, .. } => Mode::Json,
            _ if self.manners.quiet => Mode::Quiet,
            _ => Mode::People,
        }
    }
}

impl Command {
    /// Returns whether a second run continues where an interrupted one stopped.
    pub fn is_resumable(&self) -> bool {
        match self {
            Self::Deploy(_)
            | Self::Scale { .. }
            | Self::RotateSessionKeys { .. }
            | Self::MigrateProfile { .. }
            | Self::Destroy { .. } => true,
            Self::Status(_)
            | Self::Logs(_)
            | Self::Doctor(_)
            | Self::Plan { .. }
            | Self::Preflight(_)
            | Self::Token { .. }
            | Self::Url { .. }
            | Self::IamPolicy { .. }
            | Self::Completions { .. }
            | Self::Man => false,
        }
    }
}

#[derive(Args, Clone, Debug)]
pub struct Deploy {
    /// Desired number of workers [default: the stack's; 3 for a new stack].
    #[arg(long, short = 'n', value_parser = parse_workers, allow_negative_numbers = true)]
    pub workers: Option<DesiredCount>,
    /// Directory with the built programs ec2-lb, ec2-worker and reconciler.
    #[arg(long, default_value = "target/debug")]
    pub artifacts: PathBuf,
    /// `secure`, or `classic` for plain-text passwords as in the original [default: the stack's; `secure` for
    /// a new stack]. `migrate-profile` turns a classic stack into a secure one.
    #[arg(long)]
    pub profile: Option<Profile>,
    /// Allow a classic stack to be reached from blocks that are not private.
    #[arg(long)]
    pub classic_accept_risk: bool,
    /// Host names that the service answers to, without ports, separated by commas; requests for other host
    /// names are refused. `any` allows all [default: the stack's; `any` for a new stack].
    #[arg(long, value_name = "NAMES", value_parser = parse_hosts)]
    pub hosts: Option<HostNames>,
    /// Minimum length of new passwords, 8 to 64 characters [default: the stack's; 8 for a new stack]. NIST
    /// requires 15 if the password is the only factor. Existing passwords stay valid.
    #[arg(long, value_name = "N")]
    pub min_password: Option<MinChars>,
    /// Processor of the instances and the function; by default this machine's.
    #[arg(long, value_enum, default_value_t = Arch::host())]
    pub arch: Arch,
    /// EC2 instance type of the workers and the load balancers [default: the stack's if it has the right
    /// processor; t4g.nano or t3.nano for a new stack].
    #[arg(long)]
    pub instance_type: Option<String>,
    /// The only address blocks that may reach the load balancer, IPv4 or IPv6, separated by commas [default:
    /// the stack's; all addresses for a new stack].
    #[arg(long, value_name = "BLOCKS", value_delimiter = ',', num_args = 1)]
    pub allow_cidr: Vec<Cidr>,
    /// Number of load balancers, 1 or 2, each in its own zone and with its own public address [default: the
    /// stack's; 1 for a new stack].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=2))]
    pub lbs: Option<u32>,
    /// Launch workers as spot instances. They are cheaper, but EC2 may terminate them at two minutes' notice
    /// [default: the stack's; off for a new stack].
    #[arg(long, value_name = "on|off", num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    pub spot: Option<Switch>,
    /// CPU credits of burstable instances [default: the stack's; `standard` for a new stack]. `standard`: after
    /// five minutes of serving, an instance may spend only the credits that it earns. `unlimited`: it may spend
    /// more, and AWS bills the surplus.
    #[arg(long, value_enum, value_name = "standard|unlimited")]
    pub credits: Option<CreditsOption>,
    /// Numbers of the reconciler's decisions, as a JSON file: only fields that differ from the default need to
    /// be in it. `default` restores the default [default: the stack's].
    #[arg(long, value_name = "FILE|default", value_parser = values::policy)]
    pub policy: Option<Box<fleet::Policy>>,
    /// ARN of a permissions boundary for the stack's roles [default: the stack's].
    #[arg(long, value_name = "ARN")]
    pub permissions_boundary: Option<PolicyArn>,
    #[command(flatten)]
    pub tls: TlsOptions,
    /// The same as `--until made`.
    #[arg(long, conflicts_with = "until")]
    pub no_wait: bool,
    /// Print the result as one JSON object on standard output, with every resource and its change. `deploy`
    /// also prints one object per step on standard error.
    #[arg(long)]
    pub json: bool,
    /// When to return: after the resources are made, when the workers are healthy, or when every machine runs
    /// the new release.
    #[arg(long, value_enum, default_value_t = Until::RolledOut)]
    pub until: Until,
    /// Check the arguments, then exit.
    #[arg(long, hide = true)]
    pub check: bool,
    /// Path of the cargo-lambda program, which uploads the function.
    #[arg(long, default_value = "cargo-lambda", env = "VIGIA_CARGO_LAMBDA")]
    pub cargo_lambda: PathBuf,
}

/// When a deployment returns. The rest of the rollout continues without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Until {
    /// All resources are made.
    Made,
    /// The URL answers, and the desired number of workers is healthy, whatever their release.
    Healthy,
    /// In addition, every worker and load balancer runs the new release.
    RolledOut,
}

impl Deploy {
    pub fn until(&self) -> Until {
        if self.no_wait { Until::Made } else { self.until }
    }
}

/// Without any of these options, a stack keeps its TLS settings.
#[derive(Args, Clone, Debug, Default)]
pub struct TlsOptions {
    /// `self-signed` creates a certificate and serves TLS with it on port 5443; `off` switches TLS off.
    #[arg(long, value_enum)]
    pub tls: Option<TlsMode>,
    /// Serve TLS with this PEM certificate, followed by its chain.
    #[arg(long, value_name = "FILE", requires = "tls_key", conflicts_with = "tls")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TlsMode {
    SelfSigned,
    Off,
}

/// Parses `any` as an empty list, which allows all host names.
fn parse_hosts(text: &str) -> Result<HostNames, String> {
    match text {
        "any" => Ok(HostNames::default()),
        names => names.parse().map_err(|error: fleet::hosts::HostNamesError| error.to_string()),
    }
}

fn parse_count(text: &str) -> Result<DesiredCount, String> {
    text.parse().map_err(|error: fleet::DesiredCountError| error.to_string())
}

fn parse_workers(text: &str) -> Result<DesiredCount, String> {
    DesiredCount::at_least_one(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_certificate_needs_its_key_and_excludes_a_self_signed_one() {
        for (arguments, says) in [
            (&["--tls-cert", "a"][..], "--tls-key"),
            (&["--tls-key", "a"], "--tls-cert"),
            (&["--tls", "off", "--tls-cert", "a", "--tls-key", "b"], "cannot be used with"),
            (&["--tls", "on"], "self-signed"),
        ] {
            let all = [&["bootstrap", "deploy"], arguments].concat();
            let error = Cli::try_parse_from(all).err().expect(says).to_string();
            assert!(error.contains(says), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn a_wrong_least_length_of_passwords_is_refused_with_the_bounds() {
        for n in ["7", "65", "many"] {
            let error = Cli::try_parse_from(["bootstrap", "deploy", "--min-password", n]).err().expect(n);
            assert!(error.to_string().contains("from 8 to 64"), "{n}: {error}");
        }
    }

    fn refused(arguments: &[&str]) -> String {
        let all = [&["bootstrap", "deploy"], arguments].concat();
        Cli::try_parse_from(all).err().unwrap_or_else(|| panic!("{arguments:?} are taken")).to_string()
    }

    fn deploy(arguments: &[&str]) -> Deploy {
        let all = [&["bootstrap", "deploy"], arguments].concat();
        match Cli::try_parse_from(all).expect("arguments").command {
            Command::Deploy(options) => options,
            _ => unreachable!("that is the command"),
        }
    }

    #[test]
    fn blocks_are_parsed_from_one_or_several_options() {
        let given = deploy(&["--allow-cidr", "203.0.113.0/24,2001:db8::/32", "--allow-cidr", "10.0.0.0/8"]);
        let given: Vec<String> = given.allow_cidr.iter().map(ToString::to_string).collect();
        assert_eq!(given, ["203.0.113.0/24", "2001:db8::/32", "10.0.0.0/8"]);
        for (blocks, says) in [
            ("203.0.113.0/24,anywhere", "`anywhere` is not a block"),
            ("203.0.113.9", "write 203.0.113.9/32"),
            ("203.0.113.9/24", "its block is 203.0.113.0/24"),
            ("", "not a block"),
        ] {
            let error = refused(&["--allow-cidr", blocks]);
            assert!(error.contains(says), "{blocks}: {error}");
        }
    }

    #[test]
    fn spot_is_switched_on_by_its_name_alone() {
        assert_eq!(deploy(&[]).spot, None);
        assert_eq!(deploy(&["--spot"]).spot, Some(Switch::On));
        assert_eq!(deploy(&["--spot=1"]).spot, Some(Switch::On));
        assert_eq!(deploy(&["--spot=off"]).spot, Some(Switch::Off));
        assert!(refused(&["--spot=cheap"]).contains("possible values: on, off"));
    }

    #[test]
    fn a_wrong_number_of_load_balancers_is_refused_with_the_bounds() {
        assert_eq!(deploy(&["--lbs", "2"]).lbs, Some(2));
        for n in ["0", "3", "two", "-1"] {
            let error = refused(&[&format!("--lbs={n}")]);
            assert!(error.contains("1..=2") || error.contains("invalid digit"), "{n}: {error}");
        }
    }

    #[test]
    fn a_permissions_boundary_is_the_arn_of_a_policy() {
        for arn in [
            "arn:aws:iam::123456789012:policy/limits",
            "arn:aws-us-gov:iam::123456789012:policy/path/to/limits",
            "arn:aws:iam::aws:policy/PowerUserAccess",
        ] {
            assert_eq!(
                deploy(&["--permissions-boundary", arn]).permissions_boundary.expect(arn).as_str(),
                arn
            );
        }
        for wrong in [
            "limits",
            "arn:aws:iam::123456789012:role/limits",
            "arn:aws:iam::1234:policy/limits",
            "arn:aws:iam::123456789012:policy/",
            "arn:aws:iam::123456789012:policy/a b",
            "arn:aws:s3:::policy/limits",
        ] {
            let error = refused(&["--permissions-boundary", wrong]);
            assert!(error.contains("is not the ARN of a policy"), "{wrong}: {error}");
        }
    }

    #[test]
    fn an_age_is_a_number_with_a_unit() {
        let seconds = |text| parse_age(text).map(|age| age.as_secs());
        assert_eq!(["90s", "90", "10m", "2h", "14d"].map(seconds), [90, 90, 600, 7200, 1_209_600].map(Ok));
        for text in ["", "s", "0s", "15d", "10x", "-1m", "1.5h", "99999999999999999999d", "é"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_account_is_twelve_digits() {
        assert!("123456789012".parse::<AccountId>().is_ok());
        for text in ["", "12345678901", "1234567890123", "12345678901x"] {
            assert!(text.parse::<AccountId>().is_err(), "{text}");
        }
    }

    #[test]
    fn both_spellings_rotate_the_token() {
        for arguments in [&["token", "--rotate"][..], &["token", "rotate"]] {
            let cli = Cli::try_parse_from([&["bootstrap"], arguments].concat()).expect("arguments");
            assert!(matches!(
                cli.command,
                Command::Token { rotate: true, action: None }
                    | Command::Token { rotate: false, action: Some(TokenAction::Rotate) }
            ));
        }
    }

    #[test]
    fn a_wrong_number_of_workers_is_refused_with_the_bounds() {
        for (n, says) in [
            ("0", "from 1 to 100"),
            ("abc", "not a whole number"),
            ("100000", "from 1 to 100"),
            ("-1", "from 1 to 100"),
        ] {
            let error =
                Cli::try_parse_from(["bootstrap", "deploy", "--workers", n]).err().expect(n).to_string();
            assert!(error.contains(says), "{n}: {error}");
        }
    }
}
