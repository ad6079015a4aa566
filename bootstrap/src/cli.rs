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

/// Deploys and looks after a Vigia stack.
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

/// How a command talks.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Manners {
    /// Print the result and errors, and no progress.
    #[arg(long, short = 'q', global = true)]
    pub quiet: bool,
    /// Ask nothing, even on a terminal: what needs an answer fails.
    #[arg(long, global = true)]
    pub no_input: bool,
}

/// Which stack, in which account.
#[derive(Args, Clone, Debug)]
pub struct Target {
    /// Name of the stack; several may live in one account and region.
    #[arg(long, global = true, default_value = "vigia")]
    pub stack: StackName,
    /// AWS region; by default that of `aws configure`.
    #[arg(long, global = true)]
    pub region: Option<String>,
    /// Another AWS endpoint, for example http://127.0.0.1:4566 for the local cloud.
    #[arg(long, global = true)]
    pub endpoint_url: Option<String>,
    /// Where the admin token is kept on this machine; by default below ~/.vigia.
    #[arg(long, global = true)]
    pub token_file: Option<PathBuf>,
    /// Wait no longer than this until AWS knows everywhere what was made; each wait has a bound of its own.
    #[arg(long, global = true, hide = true, value_name = "SECONDS")]
    pub patience: Option<u64>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Create the stack, or bring it up to date; prints its URL.
    Deploy(Deploy),
    /// Say what a deployment with these options would change, and what the stack costs; change nothing.
    Plan {
        #[command(flatten)]
        deploy: Deploy,
        /// End with code 3 if something would change.
        #[arg(long)]
        detailed_exitcode: bool,
    },
    /// Check what a deployment with these options needs: credentials, permissions, quotas; change nothing.
    ///
    /// It takes seconds and needs no built programs. `deploy` and `plan` run the same checks. What an
    /// endpoint does not know is `not known here`, never `ok`.
    Preflight(Deploy),
    /// Show the stack: desired and healthy workers, what the reconciler did and why, and what is not as
    /// it was deployed.
    Status(Status),
    /// Show logs, without ssh: the reconciler's from CloudWatch, those of instances from their consoles.
    Logs(Logs),
    /// Check everything that a stack needs: credentials, clock, tools, quotas, leftovers, reachability.
    ///
    /// Ends with 1 if something failed. What an endpoint does not know is `not known here`, never `ok`.
    Doctor(Doctor),
    /// Set the number of workers; 0 takes the API down.
    Scale {
        #[arg(value_parser = parse_count, allow_negative_numbers = true)]
        count: DesiredCount,
    },
    /// Print the admin token.
    Token {
        /// Replace it by a new one; the old one ends within a minute.
        #[arg(long)]
        rotate: bool,
        #[command(subcommand)]
        action: Option<TokenAction>,
    },
    /// Print the URL of the load balancer.
    Url {
        /// The one with TLS.
        #[arg(long)]
        https: bool,
    },
    /// Replace the key that seals sessions; nobody is signed out. Takes a little over two minutes.
    ///
    /// The new key is active once every worker has read it. The one before opens sessions for 13 hours
    /// more, and a later rotation drops it. Cut at any point, the next run goes on.
    RotateSessionKeys {
        /// Do not wait and drop every other key, because one has leaked: all sessions end.
        #[arg(long)]
        now: bool,
    },
    /// Turn a classic stack into a secure one: hashes every password, deletes all plain text.
    ///
    /// No worker may serve meanwhile, so `scale 0` comes first. All users are read before anything is
    /// changed, and those that cannot be secure are listed: their login is refused there or would be
    /// somebody else's, or their password is empty, too long or no text. Cut at any point, the next run
    /// goes on. There is no way back. Then deploy with `--profile secure`.
    MigrateProfile {
        /// Go on although some users cannot be converted. They stay where they are, in plain text, and
        /// cannot sign in any more; of several spellings of a login the one in lower case is converted.
        /// Objects that a secure worker would take for its own are never left: mend or delete them.
        #[arg(long)]
        skip_unusable: bool,
        /// Read and judge all users, and change nothing; workers may serve meanwhile.
        #[arg(long)]
        dry_run: bool,
    },
    /// Print the IAM policy that whoever deploys this stack needs, as a managed policy.
    ///
    /// It is at most 6,144 characters without white space, IAM's limit. Nothing is asked of AWS if
    /// --account is given and a region is set.
    IamPolicy {
        /// The account, 12 digits; by default that of the credentials.
        #[arg(long, value_name = "ID")]
        account: Option<AccountId>,
        /// Allow roles only within this permissions boundary, the ARN of a managed policy; give `deploy` the
        /// same one.
        #[arg(long, value_name = "ARN")]
        permissions_boundary: Option<PolicyArn>,
    },
    /// Remove the stack and everything in it.
    Destroy {
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        /// Keep the bucket of users.
        #[arg(long)]
        keep_data: bool,
        /// One JSON object for each step on standard error, and one for the result on standard output.
        #[arg(long)]
        json: bool,
    },
    /// Print a completion script for a shell.
    Completions {
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Print the manual page, for `man -l -`.
    Man,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum TokenAction {
    /// Replace it by a new one; the old one ends within a minute.
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
    /// As JSON; with --watch one object a line.
    #[arg(long)]
    pub json: bool,
    /// Look again every two seconds, until Ctrl-C.
    #[arg(long, short = 'w')]
    pub watch: bool,
}

#[derive(Args, Clone, Debug)]
pub struct Logs {
    /// Whose; without it the last lines of all three.
    #[arg(value_enum)]
    pub of: Option<LogsOf>,
    /// Go on with what is new, until Ctrl-C.
    #[arg(long, short = 'f')]
    pub follow: bool,
    /// Nothing older, for example 90s, 10m, 2h or 1d. The reconciler's log begins 10 minutes ago if this
    /// is left out; a console has its last 64 KiB.
    #[arg(long, value_parser = parse_age)]
    pub since: Option<Duration>,
    /// Of this instance alone, which may be terminated already.
    #[arg(long, value_name = "ID")]
    pub instance: Option<String>,
    /// At most so many lines of each; 20 if nothing is named.
    #[arg(long, short = 'n', value_name = "N")]
    pub lines: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogsOf {
    Worker,
    Lb,
    Reconciler,
}

#[derive(Args, Clone, Debug)]
pub struct Doctor {
    /// One JSON object with all checks.
    #[arg(long)]
    pub json: bool,
    /// Number of workers that there are to be; by default the stack's, or 3.
    #[arg(long, short = 'n', value_parser = parse_workers, allow_negative_numbers = true)]
    pub workers: Option<DesiredCount>,
    /// Processor of the instances and the function; that of this machine by default.
    #[arg(long, value_enum, default_value_t = Arch::host())]
    pub arch: Arch,
    /// EC2 type of the workers and the load balancer.
    #[arg(long)]
    pub instance_type: Option<String>,
    /// The cargo-lambda program.
    #[arg(long, default_value = "cargo-lambda", env = "VIGIA_CARGO_LAMBDA")]
    pub cargo_lambda: PathBuf,
}

impl Cli {
    /// How the command is to print.
    pub fn mode(&self) -> Mode {
        match &self.command {
            Command::Deploy(Deploy { json: true, .. })
            | Command::Plan { deploy: Deploy { json: true, .. }, .. }
            | Command::Destroy { json: true, .. } => Mode::Json,
            _ if self.manners.quiet => Mode::Quiet,
            _ => Mode::People,
        }
    }
}

impl Command {
    /// Whether there is anything to go on with after an interruption.
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
    /// Number of workers; a new stack starts with 3, an existing one keeps its number.
    #[arg(long, short = 'n', value_parser = parse_workers, allow_negative_numbers = true)]
    pub workers: Option<DesiredCount>,
    /// Directory with the built programs ec2-lb, ec2-worker and reconciler.
    #[arg(long, default_value = "target/debug")]
    pub artifacts: PathBuf,
    /// `secure`, or `classic` for the original's plain-text passwords. A new stack is secure, an
    /// existing one keeps its profile; `migrate-profile` turns a classic one into a secure one.
    #[arg(long)]
    pub profile: Option<Profile>,
    /// Let a classic stack be reached from blocks that are not private.
    #[arg(long)]
    pub classic_accept_risk: bool,
    /// Host names under which the service answers, without ports, separated by commas; a request for another
    /// one is refused. `any` ends that. A new stack answers to any, an existing one keeps its names.
    #[arg(long, value_name = "NAMES", value_parser = parse_hosts)]
    pub hosts: Option<HostNames>,
    /// Characters that a new password must have at least, 8 to 64; NIST wants 15 where a password is all
    /// there is. A new stack has 8, an existing one keeps its number. Older passwords stay valid.
    #[arg(long, value_name = "N")]
    pub min_password: Option<MinChars>,
    /// Processor of the instances and the function; that of this machine by default.
    #[arg(long, value_enum, default_value_t = Arch::host())]
    pub arch: Arch,
    /// EC2 type of the workers and the load balancers. A new stack has t4g.nano or t3.nano, an existing one
    /// keeps its type unless the processor is to be another one.
    #[arg(long)]
    pub instance_type: Option<String>,
    /// Blocks that may reach the load balancer, IPv4 or IPv6, separated by commas; all others may not.
    /// Everybody may reach a new stack, an existing one keeps its blocks.
    #[arg(long, value_name = "BLOCKS", value_delimiter = ',', num_args = 1)]
    pub allow_cidr: Vec<Cidr>,
    /// Load balancers, 1 or 2, each in another zone and with a public address of its own. A new stack has
    /// one, an existing one keeps its number.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=2))]
    pub lbs: Option<u32>,
    /// Launch workers as spot instances: cheaper, and EC2 may end each at two minutes' notice. A new stack
    /// has them on demand, an existing one keeps what it has.
    #[arg(long, value_name = "on|off", num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    pub spot: Option<Switch>,
    /// What burstable instances may spend on processor time beyond what they earn. `standard`: nothing, once
    /// they have served for five minutes; `unlimited`: whatever it takes, which AWS bills. A new stack is
    /// standard, an existing one keeps what it has.
    #[arg(long, value_enum, value_name = "standard|unlimited")]
    pub credits: Option<CreditsOption>,
    /// ARN of a policy that limits what the stack's roles may do. An existing stack keeps its own.
    #[arg(long, value_name = "ARN")]
    pub permissions_boundary: Option<PolicyArn>,
    #[command(flatten)]
    pub tls: TlsOptions,
    /// The same as `--until made`.
    #[arg(long, conflicts_with = "until")]
    pub no_wait: bool,
    /// The result as one JSON object on standard output, with every resource and what was done about it;
    /// a deployment says each step as one on standard error.
    #[arg(long)]
    pub json: bool,
    /// What to wait for: nothing, healthy workers, or that every machine is of the new release.
    #[arg(long, value_enum, default_value_t = Until::RolledOut)]
    pub until: Until,
    /// Check the arguments and do nothing else.
    #[arg(long, hide = true)]
    pub check: bool,
    /// The cargo-lambda program, which uploads the function.
    #[arg(long, default_value = "cargo-lambda", env = "VIGIA_CARGO_LAMBDA")]
    pub cargo_lambda: PathBuf,
}

/// How far a deployment is followed. What is not waited for goes on by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Until {
    /// Everything is made.
    Made,
    /// The URL answers, and the desired number of workers is healthy, of whatever release.
    Healthy,
    /// And every worker, and the load balancer, is of the release.
    RolledOut,
}

impl Deploy {
    pub fn until(&self) -> Until {
        if self.no_wait { Until::Made } else { self.until }
    }
}

/// Without any of them a stack keeps what it has.
#[derive(Args, Clone, Debug, Default)]
pub struct TlsOptions {
    /// `self-signed` makes a certificate and serves TLS on port 5443 with it; `off` ends that.
    #[arg(long, value_enum)]
    pub tls: Option<TlsMode>,
    /// Serve TLS with this certificate, in PEM, its chain after it.
    #[arg(long, value_name = "FILE", requires = "tls_key", conflicts_with = "tls")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TlsMode {
    SelfSigned,
    Off,
}

/// No names are any.
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
    fn a_certificate_comes_with_its_key_and_instead_of_a_self_signed_one() {
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
    fn blocks_are_given_together_or_one_by_one_and_a_wrong_one_is_named() {
        let given = deploy(&["--allow-cidr", "203.0.113.0/24,2001:db8::/32", "--allow-cidr", "10.0.0.0/8"]);
        let given: Vec<String> = given.allow_cidr.iter().map(ToString::to_string).collect();
        assert_eq!(given, ["203.0.113.0/24", "2001:db8::/32", "10.0.0.0/8"]);
        for (blocks, says) in [
            ("203.0.113.0/24,everybody", "`everybody` is not a block"),
            ("203.0.113.9", "write 203.0.113.9/32"),
            ("203.0.113.9/24", "lies in is 203.0.113.0/24"),
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
