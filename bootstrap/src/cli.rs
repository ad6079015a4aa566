//! The command line, parsed into types that cannot be wrong.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use fleet::{DesiredCount, Profile, StackName};
use users::password::MinChars;

/// Deploys and looks after a Vigia stack.
#[derive(Parser)]
#[command(name = "bootstrap", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub target: Target,
    #[command(subcommand)]
    pub command: Command,
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
    /// Show the stack: desired and healthy workers, what the reconciler did and why.
    Status {
        #[arg(long)]
        json: bool,
    },
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
    /// Remove the stack and everything in it.
    Destroy {
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        /// Keep the bucket of users.
        #[arg(long)]
        keep_data: bool,
    },
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
    /// Characters that a new password must have at least, 8 to 64; NIST wants 15 where a password is all
    /// there is. A new stack has 8, an existing one keeps its number. Older passwords stay valid.
    #[arg(long, value_name = "N")]
    pub min_password: Option<MinChars>,
    /// Processor of the instances and the function; that of this machine by default.
    #[arg(long, value_enum, default_value_t = Arch::host())]
    pub arch: Arch,
    /// EC2 type of the workers and the load balancer.
    #[arg(long)]
    pub instance_type: Option<String>,
    /// IPv4 block that may reach the load balancer.
    #[arg(long, default_value = "0.0.0.0/0")]
    pub allow_cidr: String,
    #[command(flatten)]
    pub tls: TlsOptions,
    /// Return as soon as everything is made, without waiting for healthy workers. A load balancer that
    /// replaces another is waited for all the same: until it serves, the address may go back.
    #[arg(long)]
    pub no_wait: bool,
    /// Check the arguments and do nothing else.
    #[arg(long, hide = true)]
    pub check: bool,
    /// The cargo-lambda program, which uploads the function.
    #[arg(long, default_value = "cargo-lambda", env = "VIGIA_CARGO_LAMBDA")]
    pub cargo_lambda: PathBuf,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    Arm64,
    #[value(name = "x86_64")]
    X8664,
}

impl Arch {
    pub const fn host() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::X8664 }
    }

    /// EC2's name, also used in AMI names.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Arm64 => "arm64",
            Self::X8664 => "x86_64",
        }
    }

    /// The smallest burstable type: a worker hashes about ten passwords a second on it.
    pub const fn default_instance_type(self) -> &'static str {
        match self {
            Self::Arm64 => "t4g.micro",
            Self::X8664 => "t3.micro",
        }
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
