//! The command line of the local cloud: `up`, `down`, `status`, `fault`, `fault-api`, `quota`, `account`,
//! `offer`, `calls`, `uses`, `iam`, `user`, `consistency`, and `serve` in the foreground.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
use local_cloud::account::{Gap, Verification, View};
use local_cloud::api_faults::RuleView;
use local_cloud::api_faults::arguments::ApiFault;
use local_cloud::calls::Record;
use local_cloud::consistency;
use local_cloud::control::{Fault, FaultKind, MachineView, Offer};
use local_cloud::cpu::{self, Percent, Policy};
use local_cloud::daemon::{self, Prerequisite};
use local_cloud::iam::people::{UserKey, UserWanted};
use local_cloud::iam::verdicts;
use local_cloud::quotas::{self, Quota, Quotas};
use local_cloud::uses::Report;
use local_cloud::{LocalCloud, Options};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::signal::unix::{SignalKind, signal};

/// AWS on one machine: an endpoint for the AWS API, and instances that are processes.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run in the foreground until SIGTERM or Ctrl-C.
    Serve(Place),
    /// Run in the background; returns when the endpoint answers.
    Up {
        #[command(flatten)]
        place: Place,
        /// Addresses that must be free on this machine, for example 127.0.0.1:5000.
        #[arg(long, value_delimiter = ',')]
        reserve: Vec<SocketAddr>,
    },
    /// Stop the local cloud and everything that runs in it; its S3 objects stay.
    Down {
        #[arg(long, default_value = ".local/cloud")]
        dir: PathBuf,
    },
    /// Print what runs, as JSON.
    Status {
        #[arg(long, default_value = "http://127.0.0.1:4566")]
        endpoint: String,
    },
    /// Break one instance on purpose: the named one, or a random one with all given tags.
    Fault {
        kind: FaultKind,
        #[arg(long)]
        instance: Option<String>,
        /// KEY=VALUE, may be repeated.
        #[arg(long = "tag", value_parser = tag)]
        tags: Vec<(String, String)>,
        #[arg(long, default_value = "us-east-1")]
        region: String,
        /// For cpu-quota: the share of a core, for example 10% [default: no limit].
        #[arg(long)]
        percent: Option<Percent>,
        #[arg(long, default_value = "http://127.0.0.1:4566")]
        endpoint: String,
    },
    /// Print the account's quotas as JSON, after changing them if requested.
    Quota {
        #[command(subcommand)]
        command: Option<QuotaCommand>,
        #[arg(long, global = true, default_value = "http://127.0.0.1:4566")]
        endpoint: String,
    },
    /// Print the account's state (active, pending verification, blocked) as JSON, after changing it if requested.
    Account {
        #[command(subcommand)]
        command: Option<AccountCommand>,
        #[arg(long, global = true, default_value = "http://127.0.0.1:4566")]
        endpoint: String,
    },
    /// Set which instance types a zone offers, then print the account.
    Offer {
        /// The zone, for example us-east-1b.
        #[arg(long)]
        zone: String,
        /// An instance type that the zone no longer offers.
        #[arg(long, value_name = "TYPE", required_unless_present = "with")]
        without: Vec<String>,
        /// An instance type that the zone offers again.
        #[arg(long, value_name = "TYPE")]
        with: Vec<String>,
        #[arg(long, default_value = "http://127.0.0.1:4566")]
        endpoint: String,
    },
    /// Break AWS API calls on purpose; prints the id of the new rule.
    FaultApi {
        #[command(subcommand)]
        command: FaultApi,
        #[arg(long, global = true, default_value = "http://127.0.0.1:4566")]
        endpoint: String,
    },
    /// Print the last calls that changed something, as JSON, oldest first.
    Calls {
        /// At most this many calls [default: all that are kept, at most 10,000].
        #[arg(long)]
        last: Option<usize>,
        /// Only calls with a higher number than this.
        #[arg(long, value_name = "NUMBER")]
        since: Option<u64>,
        #[arg(long, default_value = "http://127.0.0.1:4566")]
        endpoint: String,
    },
    /// Print how many calls were checked against their callers' policies, and which were denied, as JSON.
    Iam {
        #[arg(long, default_value = "http://127.0.0.1:4566")]
        endpoint: String,
    },
    /// Create an IAM user with exactly the policy on standard input; print its access key as AWS_… variables.
    User {
        name: String,
        #[arg(long, default_value = "http://127.0.0.1:4566")]
        endpoint: String,
    },
    /// Print how often a call used a resource that was not visible yet, by kind, and the seed, as JSON.
    Consistency {
        #[arg(long, default_value = "http://127.0.0.1:4566")]
        endpoint: String,
    },
    /// Print the IAM permissions that all calls so far needed, and how often, as JSON.
    Uses {
        #[arg(long, default_value = "http://127.0.0.1:4566")]
        endpoint: String,
    },
}

#[derive(Subcommand)]
enum FaultApi {
    #[command(flatten)]
    Add(ApiFault),
    /// Print the rules and the calls that they hit, as JSON.
    List,
    /// Remove all rules, or one of them, and print them.
    Clear {
        #[arg(long, value_name = "ID")]
        rule: Option<u32>,
    },
    /// Remove a rule, let the calls that it holds continue, and print the rule.
    Release {
        #[arg(long, value_name = "ID")]
        rule: u32,
    },
}

#[derive(Subcommand)]
enum QuotaCommand {
    /// For example: set vcpus=5 spot-vcpus=5 addresses=5 vpcs=5 concurrency=10
    Set {
        #[arg(required = true, value_name = "QUOTA=NUMBER", value_parser = quotas::pair)]
        quotas: Vec<(Quota, u32)>,
    },
}

#[derive(Subcommand)]
enum AccountCommand {
    /// RunInstances answers PendingVerification until one of the limits is reached.
    PendingVerification {
        /// Ends after this many seconds.
        #[arg(long = "for", value_name = "SECONDS")]
        seconds: Option<u64>,
        /// Ends after this many refused launches.
        #[arg(long = "times", value_name = "N")]
        launches: Option<u32>,
    },
    /// RunInstances answers Blocked.
    Blocked,
    /// Launches are allowed.
    Verified,
}

impl AccountCommand {
    fn verification(self) -> Verification {
        match self {
            Self::PendingVerification { seconds, launches } => Verification::Pending { seconds, launches },
            Self::Blocked => Verification::Blocked,
            Self::Verified => Verification::Done,
        }
    }
}

#[derive(Args)]
struct Place {
    #[arg(long, default_value = "127.0.0.1:4566")]
    listen: SocketAddr,
    /// State, logs and the file systems of instances.
    #[arg(long, default_value = ".local/cloud")]
    dir: PathBuf,
    /// Virtual environment with the emulators.
    #[arg(long, default_value = ".venv")]
    venv: PathBuf,
    /// Loopback addresses to hand out as Elastic IPs.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1,127.0.0.2,127.0.0.3,127.0.0.4,127.0.0.5")]
    elastic_ips: Vec<Ipv4Addr>,
    /// Seed of the random delays after which new resources become visible [default: a random seed].
    #[arg(long, value_name = "N", env = "LOCAL_CLOUD_CONSISTENCY_SEED")]
    consistency_seed: Option<u64>,
    /// A quota of the account, for example vcpus=5; may be repeated. By default 64 vCPUs of each kind, 64 VPCs,
    /// all of the addresses, and 1000 concurrent executions.
    #[arg(long = "quota", value_name = "QUOTA=NUMBER", value_parser = quotas::pair)]
    quotas: Vec<(Quota, u32)>,
    /// Share of a core that each instance may use, for example 10%.
    #[arg(long, value_name = "PERCENT")]
    cpu_quota: Option<Percent>,
    /// Stop by itself when the process with this id has ended, however it ended.
    #[arg(long, value_name = "PID")]
    owner: Option<u32>,
    /// Share of a core for instances with the credit option `standard`, as if their credits were used up.
    #[arg(long, value_name = "PERCENT")]
    cpu_baseline: Option<Percent>,
}

impl Place {
    fn options(self) -> anyhow::Result<Options> {
        if !self.listen.ip().is_loopback() || self.elastic_ips.iter().any(|ip| !ip.is_loopback()) {
            bail!("the local cloud listens on loopback addresses only");
        }
        Ok(Options {
            listen: self.listen,
            dir: std::path::absolute(self.dir)?,
            venv: std::path::absolute(self.venv)?,
            quotas: Quotas::generous(self.elastic_ips.len()).change(&Quotas::parse(&self.quotas)),
            cpu: Policy { quota: self.cpu_quota, baseline: self.cpu_baseline },
            elastic_ips: self.elastic_ips,
            consistency_seed: self.consistency_seed,
        })
    }
}

fn tag(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("`{text}` is not KEY=VALUE, for example role=worker"))
}

/// A prerequisite is missing: a port is taken, a program is not installed. `bootstrap` uses the same code.
const EXIT_PREREQUISITE: u8 = 8;

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).init();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    match runtime.block_on(run(Cli::parse().command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    drop(writeln!(std::io::stderr(), "local-cloud: {error:#}"));
    if error.downcast_ref::<Prerequisite>().is_some() {
        ExitCode::from(EXIT_PREREQUISITE)
    } else {
        ExitCode::FAILURE
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    match command {
        Command::Serve(place) => {
            let owner = place.owner;
            let (mut term, mut interrupt) =
                (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
            // The terminal may close; the local cloud keeps running until `down`.
            let mut hangup = signal(SignalKind::hangup())?;
            tokio::spawn(async move { while hangup.recv().await.is_some() {} });
            let cloud = LocalCloud::start(place.options()?).await?;
            writeln!(out, "{}", cloud.endpoint)?;
            let served = cloud
                .serve(async move {
                    tokio::select! {
                        _ = term.recv() => (),
                        _ = interrupt.recv() => (),
                        () = daemon::end_of(owner) => (),
                    }
                })
                .await;
            cpu::clean_up();
            served
        }
        Command::Up { place, reserve } => {
            let owner = place.owner;
            daemon::up(&place.options()?, &reserve, owner).await
        }
        Command::Down { dir } => {
            let stopped = daemon::down(&dir).await?;
            writeln!(
                out,
                "{}",
                if stopped { "The local cloud is stopped." } else { "No local cloud is running." }
            )?;
            Ok(())
        }
        Command::Status { endpoint } => {
            let status =
                daemon::status(&endpoint).await.with_context(|| format!("no local cloud at {endpoint}"))?;
            writeln!(out, "{}", serde_json::to_string_pretty(&status)?)?;
            Ok(())
        }
        Command::Fault { kind, instance, tags, region, percent, endpoint } => {
            let tags = tags.into_iter().collect::<BTreeMap<_, _>>();
            let fault = Fault { kind, instance, tags, region, percent };
            let hit: MachineView = Control(&endpoint).post("fault", &fault).await?;
            writeln!(out, "{}", hit.id)?;
            Ok(())
        }
        Command::Quota { command, endpoint } => {
            let control = Control(&endpoint);
            let quotas: Quotas = match command {
                None => control.call(Method::GET, "quotas").await?,
                Some(QuotaCommand::Set { quotas }) => control.put("quotas", &Quotas::parse(&quotas)).await?,
            };
            print(&mut out, &quotas)
        }
        Command::Account { command, endpoint } => {
            let control = Control(&endpoint);
            let view: View = match command {
                None => control.call(Method::GET, "account").await?,
                Some(command) => control.put("account/verification", &command.verification()).await?,
            };
            print(&mut out, &view)
        }
        Command::Offer { zone, without, with, endpoint } => {
            let control = Control(&endpoint);
            let offers = without.into_iter().map(|name| (name, false));
            for (instance_type, is_offered) in offers.chain(with.into_iter().map(|name| (name, true))) {
                let offer = Offer { gap: Gap { zone: zone.clone(), instance_type }, is_offered };
                let _view: View = control.put("account/offers", &offer).await?;
            }
            print(&mut out, &control.call::<View>(Method::GET, "account").await?)
        }
        Command::FaultApi { command, endpoint } => fault_api(command, Control(&endpoint), &mut out).await,
        Command::Calls { last, since, endpoint } => {
            let wanted =
                [last.map(|last| format!("last={last}")), since.map(|since| format!("since={since}"))];
            let wanted: Vec<String> = wanted.into_iter().flatten().collect();
            let path = format!("calls?{}", wanted.join("&"));
            let records: Vec<Record> = Control(&endpoint).call(Method::GET, &path).await?;
            writeln!(out, "{}", serde_json::to_string_pretty(&records)?)?;
            Ok(())
        }
        Command::Iam { endpoint } => {
            let report: verdicts::Report = Control(&endpoint).call(Method::GET, "iam").await?;
            writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
            Ok(())
        }
        Command::User { name, endpoint } => {
            let policy = std::io::read_to_string(std::io::stdin())?;
            let policy = serde_json::from_str(&policy).context("standard input is not a policy in JSON")?;
            let key: UserKey = Control(&endpoint).post("users", &UserWanted { name, policy }).await?;
            writeln!(out, "AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}", key.access_key, key.secret)?;
            Ok(())
        }
        Command::Consistency { endpoint } => {
            let report: consistency::Report = Control(&endpoint).call(Method::GET, "consistency").await?;
            writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
            Ok(())
        }
        Command::Uses { endpoint } => {
            let report: Report = Control(&endpoint).call(Method::GET, "uses").await?;
            writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
            Ok(())
        }
    }
}

fn print(out: &mut impl std::io::Write, value: &impl Serialize) -> anyhow::Result<()> {
    Ok(writeln!(out, "{}", serde_json::to_string_pretty(value)?)?)
}

async fn fault_api(
    command: FaultApi,
    control: Control<'_>,
    out: &mut impl std::io::Write,
) -> anyhow::Result<()> {
    let rules: Vec<RuleView> = match command {
        FaultApi::Add(kind) => {
            let id: u32 = control.post("api-faults", &kind.rule()).await?;
            writeln!(out, "{id}")?;
            return Ok(());
        }
        FaultApi::List => control.call(Method::GET, "api-faults").await?,
        FaultApi::Clear { rule: None } => control.call(Method::DELETE, "api-faults").await?,
        FaultApi::Clear { rule: Some(id) } => {
            control.call(Method::DELETE, &format!("api-faults/{id}")).await?
        }
        FaultApi::Release { rule } => {
            control.call(Method::POST, &format!("api-faults/{rule}/release")).await?
        }
    };
    writeln!(out, "{}", serde_json::to_string_pretty(&rules)?)?;
    Ok(())
}

/// The local cloud's own interface, at an endpoint.
struct Control<'a>(&'a str);

impl Control<'_> {
    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str) -> anyhow::Result<T> {
        self.send(reqwest::Client::new().request(method, self.url(path))).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        self.send(reqwest::Client::new().post(self.url(path)).json(body)).await
    }

    async fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        self.send(reqwest::Client::new().put(self.url(path)).json(body)).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}/_local-cloud/{path}", self.0)
    }

    async fn send<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> anyhow::Result<T> {
        let response = request.send().await.with_context(|| format!("no local cloud at {}", self.0))?;
        if !response.status().is_success() {
            bail!("{}", response.text().await?);
        }
        Ok(response.json().await?)
    }
}
