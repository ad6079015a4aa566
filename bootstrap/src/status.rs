//! `status`: the desired and the actual state, the reconciler's actions, and every difference from the last
//! deployment.

mod drift;
mod secrets;
mod seen;
mod watch;

use std::net::Ipv4Addr;

use fleet::memory::{Balancer, LeavingStage, Memory, Phase, Slot};
use fleet::release::Release;
use fleet::{DesiredCount, Registry, keys};
use jiff::{SignedDuration, Timestamp};
use process::telemetry::error_chain;
use serde::Serialize;

use crate::aws::Aws;
use crate::certificate::Origin;
use crate::cli;
use crate::error::{Result, Step as _, found};
use crate::healthy;
use crate::output;
use crate::resources::documents::Object;
use crate::resources::{certificate, documents, load_balancer};
use crate::scale::no_stack;
use crate::tls::Stored;
use drift::{Facts, drift};
use seen::Seen;

/// How many of the newest events are shown.
const EVENTS: usize = 10;
/// A tick is due every 20 s, and a lost invocation is followed by the next within 60 s.
const LATE: SignedDuration = SignedDuration::from_secs(90);

#[derive(Serialize)]
pub(crate) struct Status {
    stack: String,
    account: String,
    region: String,
    profile: String,
    release: String,
    version: String,
    /// When it was deployed.
    released: Option<Timestamp>,
    pub(crate) url: Option<String>,
    /// Whether the URL answers, and with what.
    pub(crate) answers: String,
    /// If the stack serves TLS.
    https: Option<Https>,
    pub(crate) desired: Option<u32>,
    pub(crate) healthy: usize,
    /// Why the object desired-count is ignored.
    pub(crate) problem: Option<String>,
    load_balancer: BalancerStatus,
    /// Load balancers with further addresses, in addition to the first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    more_load_balancers: Vec<BalancerStatus>,
    workers: Vec<WorkerStatus>,
    /// Numbers of the reconciler that are not the default.
    policy: Vec<String>,
    /// While workers of an older release run.
    rollout: Option<Rollout>,
    pub(crate) last_tick: Option<Timestamp>,
    /// Whether the next one is overdue.
    pub(crate) is_late: bool,
    /// Secrets of the stack that workers cannot read.
    secrets: Vec<String>,
    /// Actions that the last tick held back, and why.
    held: Vec<String>,
    /// Differences from the last deployment, and resources that could not be read.
    pub(crate) drift: Vec<String>,
    events: Vec<fleet::memory::Event>,
}

#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Https {
    url: String,
    self_signed: Option<bool>,
    until: Option<Timestamp>,
    sha256: Option<String>,
    /// Whether this certificate is served, and if not, the fault.
    answers: String,
}

#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct BalancerStatus {
    url: Option<String>,
    /// The load balancer with the public address.
    id: Option<String>,
    state: &'static str,
    launched: Option<Timestamp>,
    /// The load balancer that takes the address over.
    successor: Option<String>,
}

#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Rollout {
    release: String,
    /// Workers of the release that answer.
    updated: usize,
    /// Workers of older releases.
    left: usize,
    /// The account has no room for an extra worker.
    stops_first: bool,
}

#[derive(Serialize)]
pub(crate) struct WorkerStatus {
    id: String,
    state: &'static str,
    zone: String,
    /// When it came into this state.
    since: Timestamp,
    launched: Option<Timestamp>,
}

pub async fn run(target: &cli::Target, options: &cli::Status) -> Result<()> {
    let aws = Aws::connect(target).await?;
    if options.watch {
        return watch::run(&aws, options.json).await;
    }
    let status = look(&aws).await?;
    output::result(&match options.json {
        true => serde_json::to_string_pretty(&status).expect("a status is plain data"),
        false => table(&status, Timestamp::now()),
    });
    Ok(())
}

pub(crate) async fn look(aws: &Aws) -> Result<Status> {
    let (release, memory, registry, written, seen, released, certificate) = tokio::join!(
        documents::read_as::<Release>(aws, keys::RELEASE),
        documents::read_as::<Memory>(aws, keys::STATE),
        documents::read_as::<Registry>(aws, keys::REGISTRY),
        documents::read(aws, keys::DESIRED_COUNT),
        Seen::look(aws),
        released(aws),
        certificate::find(aws),
    );
    let release = release?.ok_or_else(|| no_stack(aws))?;
    let (memory, registry, certificate) = (memory?.unwrap_or_default(), registry?, certificate?);
    let url = seen.ip().map(load_balancer::url);
    let (answers, https, secrets) = tokio::join!(
        answers(url.as_deref()),
        https(certificate, seen.ip()),
        secrets::complaints(aws, release.profile)
    );
    let written = written?.map(|object| DesiredCount::from_object(&object.bytes));
    let now = Timestamp::now();
    let facts = Facts { seen: &seen, release: &release, memory: &memory, has_tls: https.is_some(), now };
    Ok(Status {
        stack: aws.names.stack.to_string(),
        account: aws.names.account.clone(),
        region: aws.names.region.clone(),
        profile: release.profile.to_string(),
        policy: release.policy.differences().iter().map(ToString::to_string).collect(),
        rollout: rollout(&memory, &release),
        drift: drift(&facts),
        released: released?,
        release: release.id,
        version: release.version,
        load_balancer: balancer(&memory.balancer, 0, &seen),
        more_load_balancers: more_balancers(&memory, &seen),
        url,
        answers: answers?,
        https,
        problem: problem(written.as_ref(), memory.desired).or_else(|| memory.notice.clone()),
        // A written count is in force as soon as it is valid; the reconciler follows within a tick.
        desired: written.and_then(std::result::Result::ok).or(memory.desired).map(DesiredCount::get),
        healthy: registry.map_or(0, |registry| registry.workers.len()),
        workers: workers(&memory, &seen),
        last_tick: memory.last_tick,
        is_late: is_late(memory.last_tick, now),
        secrets: secrets?,
        held: memory.held,
        events: memory.events.iter().rev().take(EVENTS).rev().cloned().collect(),
    })
}

/// Returns whether the URL answers, in a word or a sentence.
async fn answers(url: Option<&str>) -> Result<String> {
    let Some(url) = url else { return Ok("it has no address".to_owned()) };
    Ok(match healthy::ask(&healthy::client()?, url).await {
        Ok(_) => "yes".to_owned(),
        Err(why) => format!("no: {why}"),
    })
}

async fn released(aws: &Aws) -> Result<Option<Timestamp>> {
    let head = aws.s3.head_object().bucket(aws.names.control_bucket()).key(keys::RELEASE).send().await;
    let head = found(head.step(|| "look at the release".to_owned()))?;
    Ok(head.and_then(|head| Timestamp::from_second(head.last_modified()?.secs()).ok()))
}

fn is_late(tick: Option<Timestamp>, now: Timestamp) -> bool {
    tick.is_some_and(|tick| now.duration_since(tick) > LATE)
}

async fn https(certificate: Option<(Stored, Object)>, address: Option<&str>) -> Option<Https> {
    let (stored, _) = certificate?;
    let ip = address.and_then(|address| address.parse::<Ipv4Addr>().ok())?;
    let url = load_balancer::https_url(&ip.to_string());
    Some(match stored {
        Ok(certificate) => Https {
            url,
            self_signed: Some(certificate.origin == Origin::SelfSigned),
            until: Some(certificate.until),
            sha256: Some(certificate.fingerprint()),
            answers: match healthy::ask_for_certificate(ip, &certificate).await {
                Ok(()) => "yes".to_owned(),
                Err(why) => format!("no: {why}"),
            },
        },
        Err(unusable) => {
            let answers = format!("no: the stored certificate cannot be used: {}", error_chain(&unusable));
            Https { url, self_signed: None, until: None, sha256: None, answers }
        }
    })
}

fn problem(
    written: Option<&std::result::Result<DesiredCount, fleet::DesiredCountError>>,
    in_force: Option<DesiredCount>,
) -> Option<String> {
    let rest =
        in_force.map_or("nothing is in force yet".to_owned(), |count| format!("{count} stays in force"));
    match written {
        Some(Ok(_)) => None,
        Some(Err(error)) => Some(format!("the object desired-count is ignored: {error}; {rest}")),
        None => Some(format!("the object desired-count is missing; {rest}")),
    }
}

fn workers(memory: &Memory, seen: &Seen) -> Vec<WorkerStatus> {
    let launched = |id: &str| seen.instance(id).and_then(|one| one.launched);
    let mut workers: Vec<WorkerStatus> = memory
        .slots
        .iter()
        .map(|(number, slot)| WorkerStatus {
            id: slot.worker.as_ref().map_or_else(|| format!("slot {number}"), ToString::to_string),
            state: state(slot.phase),
            zone: slot.zone.clone(),
            since: slot.since,
            launched: slot.worker.as_ref().and_then(|id| launched(id.as_str())),
        })
        .collect();
    workers.extend(memory.leaving.iter().map(|(id, leaving)| WorkerStatus {
        id: id.to_string(),
        state: match leaving.stage {
            LeavingStage::Draining => "draining",
            LeavingStage::Terminating => "terminating",
        },
        zone: String::new(),
        since: leaving.since,
        launched: launched(id.as_str()),
    }));
    workers
}

fn state(phase: Phase) -> &'static str {
    match phase {
        Phase::Launching => "launching",
        Phase::Booting => "booting",
        Phase::Healthy => "healthy",
        Phase::Suspect => "suspect",
        Phase::Dead => "dead",
        Phase::Unresolved => "unresolved",
    }
}

/// Returns the reconciler's view of a load balancer. It may not have seen the address's present holder yet.
fn balancer(memory: &Balancer, place: u32, seen: &Seen) -> BalancerStatus {
    let address = seen.address(place);
    let url = address.map(|address| load_balancer::url(&address.ip));
    let holder = address.and_then(|address| address.holder.as_deref());
    let known = memory.holder.as_ref().filter(|known| Some(known.id.as_str()) == holder);
    let state = match (holder, known) {
        (None, _) => "missing",
        (Some(_), _) if memory.successor.is_some() => "being replaced",
        (Some(_), Some(known)) if known.silent_since.is_some() => "silent",
        (Some(_), Some(known)) if known.answered => "healthy",
        (Some(_), Some(_)) => "booting",
        (Some(_), None) => "new",
    };
    let name = |slot: &Slot| {
        let id = slot.worker.as_ref().map_or("a new instance".to_owned(), ToString::to_string);
        format!("{id} ({})", self::state(slot.phase))
    };
    BalancerStatus {
        url,
        id: holder.map(str::to_owned),
        state,
        launched: holder.and_then(|id| seen.instance(id)?.launched),
        successor: memory.successor.as_ref().map(name),
    }
}

fn rollout(memory: &Memory, released: &Release) -> Option<Rollout> {
    let release = &released.id;
    let (new, old): (Vec<&Slot>, Vec<&Slot>) =
        memory.slots.values().partition(|slot| slot.release == *release);
    let updated = new.iter().filter(|slot| slot.phase == Phase::Healthy).count();
    (!old.is_empty()).then(|| Rollout {
        release: release.clone(),
        updated,
        left: old.len(),
        stops_first: memory.stops_first(released),
    })
}

/// Printed while such a rollout runs, here and by `deploy`.
pub(crate) const STOPS_FIRST: &str =
    "This rollout stops one worker first: the account has no room for an extra one.";

fn https_line(https: &Https) -> String {
    let until = https.until.map_or(String::new(), |until| format!(", until {}", until.strftime("%F")));
    let kind = if https.self_signed == Some(true) { ", self-signed" } else { "" };
    format!("HTTPS      {} (answers: {}{kind}{until})", https.url, https.answers)
}

fn balancer_line(balancer: &BalancerStatus, now: Timestamp) -> String {
    format!(
        "Balancer   {}: {}{}{}",
        balancer.id.as_deref().unwrap_or("none"),
        balancer.state,
        balancer.successor.as_ref().map(|successor| format!(" by {successor}")).unwrap_or_default(),
        launched(balancer.launched, now)
    )
}

/// Returns the load balancers with further addresses, in addition to the first.
fn more_balancers(memory: &Memory, seen: &Seen) -> Vec<BalancerStatus> {
    let places = seen.addresses.iter().flat_map(|addresses| addresses.keys().copied());
    let unknown = Balancer::default();
    places
        .filter(|place| *place > 0)
        .map(|place| balancer(memory.more_balancers.get(&place).unwrap_or(&unknown), place, seen))
        .collect()
}

fn table(status: &Status, now: Timestamp) -> String {
    let desired = status.desired.map_or("?".to_owned(), |desired| desired.to_string());
    let mut lines = vec![
        format!(
            "Stack      {} ({} profile, account {}, region {})",
            status.stack, status.profile, status.account, status.region
        ),
        format!(
            "Release    {} (version {}{})",
            status.release,
            status.version,
            deployed(status.released, now)
        ),
        format!("URL        {}", status.url.as_deref().unwrap_or("none")),
        format!("Answers    {}", status.answers),
    ];
    lines.extend(status.https.as_ref().map(https_line));
    lines.push(balancer_line(&status.load_balancer, now));
    for balancer in &status.more_load_balancers {
        let url = balancer.url.as_deref().unwrap_or("no URL");
        lines.push(format!("{}, {url}", balancer_line(balancer, now)));
    }
    if let Some(problem) = &status.problem {
        lines.push(format!("Problem    {problem}"));
    }
    if let Some(rollout) = &status.rollout {
        lines.push(format!(
            "Rollout    release {}: {} of its workers answer, {} workers of an older release are left",
            rollout.release, rollout.updated, rollout.left
        ));
        if rollout.stops_first {
            lines.push(format!("           {STOPS_FIRST}"));
        }
    }
    lines.extend(status.policy.iter().map(|difference| format!("Policy     {difference}")));
    lines.push(format!("Workers    {} healthy of {desired} desired", status.healthy));
    for worker in &status.workers {
        lines.push(format!(
            "  {:<20}  {:<11}  {:<14}  for {}{}",
            worker.id,
            worker.state,
            worker.zone,
            age(worker.since, now),
            launched(worker.launched, now)
        ));
    }
    lines.push(match status.last_tick {
        Some(tick) if status.is_late => format!(
            "Last tick  {} ago; WARNING: one is due every 20 s. `make logs OF=reconciler` shows why none came",
            age(tick, now)
        ),
        Some(tick) => format!("Last tick  {} ago", age(tick, now)),
        None => "Last tick  none yet".to_owned(),
    });
    lines.extend(status.secrets.iter().map(|secret| format!("Secret     {secret}")));
    lines.extend(status.held.iter().map(|held| format!("Held back  {held}")));
    lines.extend(status.drift.iter().map(|drift| format!("Drift      {drift}")));
    if !status.events.is_empty() {
        lines.push("Events".to_owned());
    }
    lines.extend(
        status.events.iter().map(|event| format!("  {}  {}", event.at.strftime("%H:%M:%SZ"), event.text)),
    );
    lines.join("\n")
}

fn deployed(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map_or(String::new(), |at| format!(", deployed {} ago", age(at, now)))
}

fn launched(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map_or(String::new(), |at| format!(", launched {} ago", age(at, now)))
}

fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
impl Status {
    /// Returns a stack without any problem.
    pub(crate) fn healthy() -> Self {
        let nothing =
            BalancerStatus { url: None, id: None, state: "healthy", launched: None, successor: None };
        Self {
            stack: "a".to_owned(),
            account: "123456789012".to_owned(),
            region: "eu-west-1".to_owned(),
            profile: "secure".to_owned(),
            release: "r".to_owned(),
            version: "1".to_owned(),
            released: None,
            url: Some("http://192.0.2.1:5000".to_owned()),
            answers: "yes".to_owned(),
            https: None,
            desired: Some(3),
            healthy: 3,
            problem: None,
            load_balancer: nothing,
            more_load_balancers: Vec::new(),
            workers: Vec::new(),
            policy: Vec::new(),
            rollout: None,
            last_tick: Some(Timestamp::UNIX_EPOCH),
            is_late: false,
            secrets: Vec::new(),
            held: Vec::new(),
            drift: Vec::new(),
            events: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> Seen {
        Seen {
            instances: Ok(Vec::new()),
            schedule: Ok(seen::ScheduleSeen::Missing),
            function: Ok(seen::FunctionSeen::Missing),
            addresses: Ok(Default::default()),
            rules: Ok(seen::RulesSeen::default()),
            subnets: Ok(Vec::new()),
            tables: Ok(Vec::new()),
        }
    }

    #[test]
    fn a_tick_is_late_after_ninety_seconds() {
        let at = |seconds| Timestamp::from_second(seconds).expect("in range");
        assert!(!is_late(Some(at(0)), at(90)) && is_late(Some(at(0)), at(91)));
        assert!(!is_late(None, at(0)), "a new stack waits for its first");
    }

    #[test]
    fn a_bad_count_is_named_with_the_count_in_force() {
        let two = DesiredCount::try_from(2).ok();
        let text = problem(Some(&DesiredCount::from_object(b"banana")), two).expect("a problem");
        assert!(
            text.contains("`banana` is not a whole number") && text.ends_with("2 stays in force"),
            "{text}"
        );
        assert_eq!(problem(Some(&DesiredCount::from_object(b"2")), two), None);
        assert!(problem(None, two).expect("a problem").contains("missing"));
    }

    #[test]
    fn the_load_balancers_status_is_the_reconcilers_view() {
        let mut memory = Balancer::default();
        let state = |memory: &Balancer, holder: Option<&str>| {
            let address =
                |id: &str| seen::AddressSeen { ip: "192.0.2.1".to_owned(), holder: Some(id.to_owned()) };
            let addresses = holder.map(|id| (0, address(id))).into_iter().collect();
            balancer(memory, 0, &Seen { addresses: Ok(addresses), ..nothing() }).state
        };
        assert_eq!(state(&memory, None), "missing");
        assert_eq!(state(&memory, Some("i-1")), "new");
        let holder = |answered| {
            let text = format!(r#"{{"id":"i-1","since":"2026-01-01T00:00:00Z","answered":{answered}}}"#);
            serde_json::from_str(&text).expect("a holder as it is in state.json")
        };
        memory.holder = Some(holder(true));
        assert_eq!(state(&memory, Some("i-1")), "healthy");
        assert_eq!(state(&memory, Some("i-2")), "new", "a deployment has just moved the address");
        memory.holder = Some(holder(false));
        assert_eq!(state(&memory, Some("i-1")), "booting");
    }

    #[test]
    fn a_policy_that_differs_from_the_default_is_shown() {
        let drain = jiff::SignedDuration::from_secs(5);
        let policy = fleet::Policy { drain, ..fleet::Policy::default() };
        let differences = policy.differences().iter().map(ToString::to_string).collect();
        let status = Status { policy: differences, ..Status::healthy() };
        let shown = table(&status, Timestamp::UNIX_EPOCH);
        assert!(shown.contains("\nPolicy     drain is 5s (default 15s)\n"), "{shown}");
    }

    #[test]
    fn ages_are_short() {
        let at = |seconds| Timestamp::from_second(seconds).expect("in range");
        assert_eq!(age(at(0), at(90)), "90 s");
        assert_eq!(age(at(0), at(600)), "10 min");
        assert_eq!(age(at(10), at(0)), "0 s");
    }
}
