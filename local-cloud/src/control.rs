//! The local cloud's own interface, below `/_local-cloud`: running instances, faults on purpose, recorded
//! calls.
//!
//! S3 bucket names cannot contain an underscore, so no AWS request has such a path.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use rand::seq::IndexedRandom as _;
use serde::{Deserialize, Serialize};

use crate::account::{Gap, Verification, View};
use crate::api_faults::{Rule, RuleView};
use crate::calls::Record;
use crate::consistency;
use crate::cpu::Percent;
pub use crate::ec2::MachineView;
use crate::iam::people::{self, UserKey, UserWanted};
use crate::iam::verdicts;
use crate::quotas::Quotas;
use crate::shared::Shared;
use crate::uses::Report;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    pub pid: u32,
    pub machines: Vec<MachineView>,
    /// Public address and its destination.
    pub public: Vec<(SocketAddr, SocketAddr)>,
    /// See [`crate::Options::consistency_seed`].
    pub consistency_seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The program ends; systemd starts it again.
    Crash,
    /// The program stops answering (SIGSTOP).
    Hang,
    /// A hung program continues (SIGCONT).
    Resume,
    /// The host is dead: nothing restarts, while EC2 says `running`.
    KillHost,
    /// Terminated, as if by an operator in the console.
    Terminate,
    /// It may use only `--percent` of a core; without it, as much as before.
    CpuQuota,
}

/// A fault for one live instance: the named one, or a random one with all these tags.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fault {
    pub kind: FaultKind,
    #[serde(default)]
    pub instance: Option<String>,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    pub region: String,
    /// For `cpu-quota`.
    #[serde(default)]
    pub percent: Option<Percent>,
}

/// Sets whether a zone offers a type.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Offer {
    #[serde(flatten)]
    pub gap: Gap,
    pub is_offered: bool,
}

pub(crate) fn router(shared: Arc<Shared>) -> Router<Arc<Shared>> {
    Router::new()
        .route("/status", get(status))
        .route("/fault", post(fault))
        .route("/api-faults", get(api_faults).post(add_api_fault).delete(clear_api_faults))
        .route("/api-faults/{id}", delete(clear_api_fault))
        .route("/api-faults/{id}/release", post(release_api_fault))
        .route("/quotas", get(quotas).put(change_quotas))
        .route("/account", get(account))
        .route("/account/verification", put(verification))
        .route("/account/offers", put(offer))
        .route("/calls", get(calls))
        .route("/uses", get(uses))
        .route("/iam", get(verdicts))
        .route("/users", post(make_user))
        .route("/consistency", get(consistency))
        .with_state(shared)
}

async fn status(State(shared): State<Arc<Shared>>) -> Result<Json<Status>, Refused> {
    Ok(Json(Status {
        pid: std::process::id(),
        machines: shared.ec2.all_machines().await.map_err(internal)?,
        public: shared.ec2.public_addresses().await,
        consistency_seed: shared.consistency.seed(),
    }))
}

type Refused = (StatusCode, String);

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn internal(error: anyhow::Error) -> Refused {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"))
}

async fn fault(
    State(shared): State<Arc<Shared>>,
    Json(fault): Json<Fault>,
) -> Result<Json<MachineView>, Refused> {
    let machines = shared.ec2.machines(&fault.region).await.map_err(internal)?;
    let mut matching = Vec::new();
    for view in machines {
        let is_named = fault.instance.as_ref().is_none_or(|id| *id == view.id);
        let has_tags = fault.tags.iter().all(|(key, value)| view.tags.get(key) == Some(value));
        // A dead host can only be terminated; another fault would change nothing.
        if let Some(machine) = shared.ec2.machine(&view.id).await
            && is_named
            && has_tags
            && (machine.is_on() || fault.kind == FaultKind::Terminate)
        {
            matching.push((view, machine));
        }
    }
    let Some((view, machine)) = matching.choose(&mut rand::rng()) else {
        return Err((StatusCode::NOT_FOUND, "no live instance matches".to_owned()));
    };
    match fault.kind {
        FaultKind::Crash => machine.crash(),
        FaultKind::Hang => machine.hang(),
        FaultKind::Resume => machine.resume(),
        FaultKind::KillHost => machine.kill_host(),
        FaultKind::Terminate => {
            shared.ec2.terminate_behind_our_back(&view.id, &fault.region).await.map_err(internal)?;
        }
        FaultKind::CpuQuota => machine.cpu.force(fault.percent),
    }
    tracing::info!(instance = view.id, kind = ?fault.kind, "a fault on purpose");
    Ok(Json(view.clone()))
}

async fn quotas(State(shared): State<Arc<Shared>>) -> Json<Quotas> {
    Json(shared.account.view(Instant::now()).quotas)
}

/// An omitted quota keeps its value. Answers with all.
async fn change_quotas(State(shared): State<Arc<Shared>>, Json(changes): Json<Quotas>) -> Json<Quotas> {
    shared.account.change_quotas(&changes);
    quotas(State(shared)).await
}

async fn account(State(shared): State<Arc<Shared>>) -> Json<View> {
    Json(shared.account.view(Instant::now()))
}

async fn verification(State(shared): State<Arc<Shared>>, Json(wanted): Json<Verification>) -> Json<View> {
    shared.account.set_verification(wanted, Instant::now());
    account(State(shared)).await
}

async fn offer(State(shared): State<Arc<Shared>>, Json(offer): Json<Offer>) -> Json<View> {
    shared.account.set_offered(offer.gap, offer.is_offered);
    account(State(shared)).await
}

async fn api_faults(State(shared): State<Arc<Shared>>) -> Json<Vec<RuleView>> {
    Json(shared.api_faults().list(Instant::now()))
}

/// Answers with the id of the new rule.
async fn add_api_fault(
    State(shared): State<Arc<Shared>>,
    Json(rule): Json<Rule>,
) -> Result<Json<u32>, Refused> {
    let added = shared.api_faults().add(rule.clone(), Instant::now());
    let id = added.map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    tracing::info!(id, ?rule, "a rule for API faults");
    Ok(Json(id))
}

/// Answers with the removed rules, and the calls that they hit.
async fn clear_api_faults(State(shared): State<Arc<Shared>>) -> Json<Vec<RuleView>> {
    Json(shared.api_faults().clear(Instant::now()))
}

async fn clear_api_fault(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<u32>,
) -> Result<Json<Vec<RuleView>>, Refused> {
    let cleared = shared.api_faults().clear_one(id, Instant::now());
    cleared.map(|view| Json(vec![view])).ok_or_else(|| no_rule(id))
}

async fn release_api_fault(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<u32>,
) -> Result<Json<Vec<RuleView>>, Refused> {
    let released = shared.api_faults().release(id, Instant::now());
    released.map(|view| Json(vec![view])).ok_or_else(|| no_rule(id))
}

fn no_rule(id: u32) -> Refused {
    let message = format!("there is no rule {id}; `local-cloud fault-api list` shows the rules");
    (StatusCode::NOT_FOUND, message)
}

/// The requested calls; by default all that are kept.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CallsWanted {
    /// At most this many: the last ones.
    last: Option<usize>,
    /// Only calls with a higher number.
    since: Option<u64>,
}

async fn calls(State(shared): State<Arc<Shared>>, Query(wanted): Query<CallsWanted>) -> Json<Vec<Record>> {
    Json(shared.calls.list(wanted.last.unwrap_or(usize::MAX), wanted.since.unwrap_or(0)))
}

async fn consistency(State(shared): State<Arc<Shared>>) -> Json<consistency::Report> {
    Json(shared.consistency.report(Instant::now()))
}

async fn uses(State(shared): State<Arc<Shared>>) -> Json<Report> {
    Json(shared.uses.report())
}

async fn verdicts(State(shared): State<Arc<Shared>>) -> Json<verdicts::Report> {
    Json(shared.verdicts.report())
}

/// Answers with a key of the user.
async fn make_user(
    State(shared): State<Arc<Shared>>,
    Json(wanted): Json<UserWanted>,
) -> Result<Json<UserKey>, Refused> {
    let made = people::ensure(&shared.iam, &wanted).await;
    made.map(Json).map_err(|error| (StatusCode::BAD_REQUEST, format!("{error:#}")))
}
