//! The variables of make, as `NAME=value` on xtask's command line.
//!
//! The Makefile passes all of them to each target; an empty one counts as not given. A word that is no variable is an
//! error, so that Makefile and xtask cannot drift apart.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::failure::{USAGE, stop};
use crate::workspace;

/// All variables and their meaning, with the default in brackets. README explains the variables of a deployment.
pub const VARIABLES: [(&str, &str); 58] = [
    ("N", "number of workers [3 for a new stack]"),
    ("STACK", "name of the stack [vigia]"),
    ("PROFILE", "secure or classic [secure for a new stack]"),
    ("MIN_PASSWORD", "characters of a new password, 8 to 64 [8 for a new stack]"),
    ("HOSTS", "host names under which the service answers, or any [any for a new stack]"),
    ("CLASSIC_ACCEPT_RISK", "yes: blocks that are not private may reach a classic stack"),
    ("REGION", "the AWS region [that of `aws configure`]"),
    ("ARCH", "arm64 or x86_64 [this machine's]"),
    ("YES", "1: do not ask"),
    ("UNTIL", "deploy waits until: made, healthy, rolled-out [rolled-out]"),
    ("TLS", "self-signed, or off"),
    ("TLS_CERT", "a certificate chain in PEM"),
    ("TLS_KEY", "its private key in PEM"),
    ("ALLOW_CIDR", "blocks that may reach the load balancer, separated by commas [all, for a new stack]"),
    ("SPOT", "1: workers are spot instances [0 for a new stack]"),
    ("LBS", "load balancers, 1 or 2 [1 for a new stack]"),
    ("BOUNDARY", "ARN of a policy that limits the stack's roles [none for a new stack]"),
    ("INSTANCE_TYPE", "the workers' instance type"),
    ("CREDITS", "standard: burstable instances stop earning a bill; unlimited [standard for a new stack]"),
    ("POLICY", "a JSON file with numbers of the reconciler's decisions, or default [the stack's]"),
    ("ENDPOINT", "an AWS endpoint other than AWS, for example http://127.0.0.1:4566 for the local cloud"),
    ("JSON", "1: plan and logs print JSON"),
    ("WATCH", "1: status repeats itself"),
    ("OF", "logs of: worker, lb, reconciler [all]"),
    ("FOLLOW", "1: logs go on"),
    ("SINCE", "logs of this age: 10m"),
    ("ACCOUNT", "number of the AWS account"),
    ("SHELL_NAME", "bash, zsh or fish [bash]"),
    ("ROTATE", "1: a new admin token"),
    ("NOW", "1: all sessions end"),
    ("SKIP_UNUSABLE", "1: users that cannot be converted are left out"),
    ("DRY_RUN", "1: change nothing"),
    ("KEEP", "1: aws-acceptance keeps its stack"),
    ("ONLY", "checks of aws-acceptance; part of the name of planted bugs in sim-mutants"),
    ("LOCAL_LISTEN", "address of the local cloud [127.0.0.1:4566]"),
    ("LOCAL_DIR", "its files [.local]"),
    ("PUBLIC", "address of the local stack [127.0.0.1:5000]"),
    ("PUBLIC_TLS", "the same with TLS [127.0.0.1:5443]"),
    ("SEEDS", "how many seeds [the program's own number]"),
    ("FIRST_SEED", "the first of them [the program's own]"),
    ("SHARD", "k/n: each n-th mutant from the k-th on, counted from 0 [all]"),
    ("SEED", "seed of the generated requests"),
    ("CASES", "generated requests per operation [50]"),
    ("FROM", "the first cut"),
    ("TO", "the last cut"),
    ("VENV", "the Python environment with the emulators [.venv]"),
    ("TOOLS", "other tools [.tools]"),
    (
        "FOR",
        "what setup installs for: local, test, check, bench, contract, boot-test [local, test, check, bench]",
    ),
    ("BOOT_ROOT", "the root that boot-test boots [target/boot-root]"),
    ("FUNCTION", "a built reconciler [target/debug/reconciler]"),
    ("WORKER", "a built worker [a release build of this tree]"),
    (
        "PARTS",
        "parts of bench-login: sign-ins, protected, overload, timing, guessing, race, list, start [all]",
    ),
    ("PEERS", "proxies: nginx, haproxy, pingora, caddy [all that are there]"),
    ("LB", "a built load balancer [a release build of this tree]"),
    ("ROUNDS", "rounds of a benchmark [its own number]"),
    ("SECONDS", "seconds of each round [its own number]"),
    ("MINUTES", "minutes of bench-soak [10]"),
    ("BENCH_OUT", "where bench-lb writes its tables and plot [target/bench]"),
];

#[derive(Debug, Default)]
pub struct Settings {
    values: BTreeMap<String, String>,
    /// Options of xtask's own, `--write`.
    options: Vec<String>,
}

impl Settings {
    pub fn read(words: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut settings = Self::default();
        for word in words {
            match word.split_once('=') {
                _ if word.starts_with("--") => settings.options.push(word),
                Some((name, value)) if is_variable(name) => {
                    settings.values.insert(name.to_owned(), value.to_owned());
                }
                _ => return Err(stop(USAGE, format!("`{word}` is no variable of make, NAME=value"))),
            }
        }
        Ok(settings)
    }

    /// Returns a variable that is given and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        debug_assert!(is_variable(name), "{name}");
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub fn is_given(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub fn get_or<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.get(name).unwrap_or(default)
    }

    pub fn has_option(&self, option: &str) -> bool {
        self.options.iter().any(|given| given == option)
    }

    pub fn stack(&self) -> &str {
        self.get_or("STACK", "vigia")
    }

    pub fn venv(&self) -> &Path {
        Path::new(self.get_or("VENV", ".venv"))
    }

    pub fn tools(&self) -> &Path {
        Path::new(self.get_or("TOOLS", ".tools"))
    }

    pub fn bench_out(&self) -> &str {
        self.get_or("BENCH_OUT", "target/bench")
    }

    pub fn boot_root(&self) -> PathBuf {
        self.get("BOOT_ROOT").map_or_else(|| workspace::target().join("boot-root"), PathBuf::from)
    }

    /// Returns `--seeds` and `--first-seed`, as far as they are given.
    pub fn seed_flags(&self) -> Vec<&str> {
        let flags = [("SEEDS", "--seeds"), ("FIRST_SEED", "--first-seed")];
        flags.into_iter().filter_map(|(name, flag)| Some([flag, self.get(name)?])).flatten().collect()
    }
}

fn is_variable(name: &str) -> bool {
    VARIABLES.iter().any(|(known, _)| *known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_is_not_given() {
        let settings = Settings::read(["N=3", "STACK=", "--write"].map(str::to_owned)).expect("variables");
        assert_eq!((settings.get("N"), settings.stack()), (Some("3"), "vigia"));
        assert!(settings.has_option("--write") && !settings.is_given("STACK"));
    }

    #[test]
    fn an_unknown_word_is_an_error() {
        for word in ["n=3", "NUMBER=3", "deploy"] {
            let error = Settings::read([word.to_owned()]).expect_err(word);
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    /// A variable that the Makefile does not pass would be ignored.
    #[test]
    fn the_makefile_passes_every_variable() {
        let makefile = include_str!("../../Makefile");
        for (name, _) in VARIABLES {
            assert!(makefile.contains(&format!("{name}=\"$({name})\"")), "{name}");
        }
        let passed =
            makefile.split_whitespace().filter_map(|word| word.split_once("=\"$(")).map(|(name, _)| name);
        let unknown: Vec<&str> = passed.filter(|name| !is_variable(name)).collect();
        assert_eq!(unknown, [""; 0]);
    }
}
