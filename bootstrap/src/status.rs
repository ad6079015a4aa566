//! `status`: what should be, what is, and what the reconciler did about it.

use std::net::Ipv4Addr;

use aws_sdk_ec2::types::Address;
use fleet::memory::{Balancer, LeavingStage, Memory, Phase, Slot};
use fleet::release::Release;
use fleet::telemetry::error_chain;
use fleet::{DesiredCount, Registry, keys};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::aws::Aws;
use crate::certificate::Origin;
use crate::cli::Target;
use crate::error::{DeployError, Exit, Result};
use crate::healthy;
use crate::output;
use crate::resources::{certificate, documents, load_balancer};
use crate::scale::no_stack;

/// How many of the newest events are shown.
const EVENTS: usize = 10;

#[derive(Serialize)]
struct Status {
    stack: String,
    account: String,
    region: String,
    profile: String,
    release: String,
    url: Option<String>,
    /// Whether the URL answers, and with what.
    answers: String,
    /// If the stack speaks TLS.
    https: Option<Https>,
    desired: Option<u32>,
    healthy: usize,
    /// Why the desired count object is not acted on.
    problem: Option<String>,
    load_balancer: BalancerStatus,
    /// Those with an address of their own beside the first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    more_load_balancers: Vec<BalancerStatus>,
    workers: Vec<WorkerStatus>,
    /// While workers of an older release run.
    rollout: Option<Rollout>,
    last_tick: Option<Timestamp>,
    /// What the last tick did not do, and why.
    held: Vec<String>,
    events: Vec<fleet::memory::Event>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Https {
    url: String,
    self_signed: Option<bool>,
    until: Option<Timestamp>,
    sha256: Option<String>,
    /// Whether this certificate is served, and if not, what happens instead.
    answers: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct BalancerStatus {
    url: Option<String>,
    /// Who has the public address.
    id: Option<String>,
    state: &'static str,
    /// Who is to take the address over.
    successor: Option<String>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Rollout {
    release: String,
    /// Workers of the release that answer.
    updated: usize,
    /// Workers of older releases.
    left: usize,
}

#[derive(Serialize)]
struct WorkerStatus {
    id: String,
    state: &'static str,
    zone: String,
    since: Timestamp,
}

pub async fn run(target: &Target, json: bool) -> Result<()> {
    let aws = Aws::connect(target).await?;
    let release: Release = read(&aws, keys::RELEASE).await?.ok_or_else(|| no_stack(&aws))?;
    let memory: Memory = read(&aws, keys::STATE).await?.unwrap_or_default();
    let registry: Option<Registry> = read(&aws, keys::REGISTRY).await?;
    let addresses = load_balancer::find_addresses(&aws).await?;
    let address = addresses.get(&0);
    let public = address.and_then(|address| address.public_ip());
    let https = https(&aws, public).await?;
    let url = public.map(load_balancer::url);
    let answers = match &url {
        None => "it has no address".to_owned(),
        Some(url) => match healthy::ask(&healthy::client()?, url).await {
            Ok(_) => "yes".to_owned(),
            Err(why) => format!("no: {why}"),
        },
    };
    let object = documents::read(&aws, keys::DESIRED_COUNT).await?;
    let written = object.map(|object| DesiredCount::from_object(&object.bytes));
    let status = Status {
        stack: aws.names.stack.to_string(),
        account: aws.names.account.clone(),
        region: aws.names.region.clone(),
        profile: release.profile.to_string(),
        rollout: rollout(&memory, &release.id),
        release: release.id,
        load_balancer: balancer(&memory.balancer, address),
        more_load_balancers: addresses
            .iter()
            .filter(|(place, _)| **place > 0)
            .map(|(place, address)| {
                let unknown = Balancer::default();
                balancer(memory.more_balancers.get(place).unwrap_or(&unknown), Some(address))
            })
            .collect(),
        url,
        answers,
        https,
        problem: problem(written.as_ref(), memory.desired).or_else(|| memory.notice.clone()),
        // What is written counts as soon as it is valid; the reconciler follows within a tick.
        desired: written.and_then(std::result::Result::ok).or(memory.desired).map(DesiredCount::get),
        healthy: registry.map_or(0, |registry| registry.workers.len()),
        workers: workers(&memory),
        last_tick: memory.last_tick,
        held: memory.held.clone(),
        events: memory.events.iter().rev().take(EVENTS).rev().cloned().collect(),
    };
    if json {
        output::result(&serde_json::to_string_pretty(&status).expect("a status is plain data"));
    } else {
        output::result(&table(&status, Timestamp::now()));
    }
    Ok(())
}

async fn https(aws: &Aws, address: Option<&str>) -> Result<Option<Https>> {
    let Some((stored, _)) = certificate::find(aws).await? else { return Ok(None) };
    let Some(ip) = address.and_then(|address| address.parse::<Ipv4Addr>().ok()) else { return Ok(None) };
    let url = load_balancer::https_url(&ip.to_string());
    Ok(Some(match stored {
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
            let answers = format!("no: what is stored cannot be used: {}", error_chain(&unusable));
            Https { url, self_signed: None, until: None, sha256: None, answers }
        }
    }))
}

fn problem(
    written: Option<&std::result::Result<DesiredCount, fleet::DesiredCountError>>,
    in_force: Option<DesiredCount>,
) -> Option<String> {
    let rest =
        in_force.map_or("nothing is in force yet".to_owned(), |count| format!("{count} stays in force"));
    match written {
        Some(Ok(_)) => None,
        Some(Err(error)) => Some(format!("the object desired-count is not acted on: {error}; {rest}")),
        None => Some(format!("the object desired-count is missing; {rest}")),
    }
}

fn workers(memory: &Memory) -> Vec<WorkerStatus> {
    let mut workers: Vec<WorkerStatus> = memory
        .slots
        .iter()
        .map(|(number, slot)| WorkerStatus {
            id: slot.worker.as_ref().map_or_else(|| format!("slot {number}"), ToString::to_string),
            state: state(slot.phase),
            zone: slot.zone.clone(),
            since: slot.since,
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

/// What the reconciler thinks of a load balancer. Who has the address now it may not have seen yet.
fn balancer(memory: &Balancer, address: Option<&Address>) -> BalancerStatus {
    let url = address.and_then(|address| address.public_ip()).map(load_balancer::url);
    let holder = address.and_then(|address| address.instance_id()).filter(|id| !id.is_empty());
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
        successor: memory.successor.as_ref().map(name),
    }
}

fn rollout(memory: &Memory, release: &str) -> Option<Rollout> {
    let (new, old): (Vec<&Slot>, Vec<&Slot>) =
        memory.slots.values().partition(|slot| slot.release == release);
    let updated = new.iter().filter(|slot| slot.phase == Phase::Healthy).count();
    (!old.is_empty()).then(|| Rollout { release: release.to_owned(), updated, left: old.len() })
}

fn https_line(https: &Https) -> String {
    let until = https.until.map_or(String::new(), |until| format!(", until {}", until.strftime("%F")));
    let kind = if https.self_signed == Some(true) { ", self-signed" } else { "" };
    format!("HTTPS      {} (answers: {}{kind}{until})", https.url, https.answers)
}

fn balancer_line(balancer: &BalancerStatus) -> String {
    format!(
        "Balancer   {}: {}{}",
        balancer.id.as_deref().unwrap_or("none"),
        balancer.state,
        balancer.successor.as_ref().map(|successor| format!(" by {successor}")).unwrap_or_default()
    )
}

fn table(status: &Status, now: Timestamp) -> String {
    let desired = status.desired.map_or("?".to_owned(), |desired| desired.to_string());
    let mut lines = vec![
        format!(
            "Stack      {} ({} profile, account {}, region {})",
            status.stack, status.profile, status.account, status.region
        ),
        format!("URL        {}", status.url.as_deref().unwrap_or("none")),
        format!("Answers    {}", status.answers),
    ];
    lines.extend(status.https.as_ref().map(https_line));
    lines.push(balancer_line(&status.load_balancer));
    for balancer in &status.more_load_balancers {
        lines.push(format!("{}, {}", balancer_line(balancer), balancer.url.as_deref().unwrap_or("no URL")));
    }
    if let Some(problem) = &status.problem {
        lines.push(format!("Problem    {problem}"));
    }
    if let Some(rollout) = &status.rollout {
        lines.push(format!(
            "Rollout    release {}: {} workers of it answer, {} of an older one are left",
            rollout.release, rollout.updated, rollout.left
        ));
    }
    lines.push(format!("Workers    {} healthy of {desired} desired", status.healthy));
    for worker in &status.workers {
        lines.push(format!(
            "  {:<20}  {:<11}  {:<14}  for {}",
            worker.id,
            worker.state,
            worker.zone,
            age(worker.since, now)
        ));
    }
    lines.push(match status.last_tick {
        Some(tick) => format!("Last tick  {} ago", age(tick, now)),
        None => "Last tick  none yet".to_owned(),
    });
    lines.extend(status.held.iter().map(|held| format!("Held back  {held}")));
    if !status.events.is_empty() {
        lines.push("Events".to_owned());
    }
    lines.extend(
        status.events.iter().map(|event| format!("  {}  {}", event.at.strftime("%H:%M:%SZ"), event.text)),
    );
    lines.join("\n")
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

async fn read<T: DeserializeOwned>(aws: &Aws, key: &str) -> Result<Option<T>> {
    let Some(object) = documents::read(aws, key).await? else { return Ok(None) };
    serde_json::from_slice(&object.bytes).map(Some).map_err(|error| {
        DeployError::new(Exit::Failed, format!("{key} in {} cannot be read", aws.names.control_bucket()))
            .caused_by(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_count_is_named_with_what_holds_instead() {
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
    fn the_load_balancer_is_what_the_reconciler_saw_of_the_holder() {
        let mut memory = Balancer::default();
        let state = |memory: &Balancer, holder: Option<&str>| {
            let address = holder.map(|id| Address::builder().instance_id(id).build());
            balancer(memory, address.as_ref()).state
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
    fn ages_are_short() {
        let at = |seconds| Timestamp::from_second(seconds).expect("in range");
        assert_eq!(age(at(0), at(90)), "90 s");
        assert_eq!(age(at(0), at(600)), "10 min");
        assert_eq!(age(at(10), at(0)), "0 s");
    }
}
