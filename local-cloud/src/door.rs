//! The one endpoint. Routes each request by the service in its SigV4 scope, after checking that the signature
//! is right and the caller's policies allow it, and passes it on; `ec2.rs` handles EC2 calls that concern
//! instances. Only here the faults of `api_faults.rs` happen to calls. All other calls are answered as
//! `consistency.rs` says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode, header, request::Parts};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use crate::account::Account;
use crate::api_faults::{Effect, Hit, Hold, MAX_DELAY};
use crate::call::{Admitted, Call, Caller};
use crate::calls::{self, Calls};
use crate::connection::no_answer;
use crate::consistency::{Consistency, Seed, pass};
use crate::credentials::{Credentials, Principal, random_text};
use crate::ec2::Ec2;
use crate::emulators::Emulator;
use crate::forward::Ministack;
use crate::function_process::Peer;
use crate::iam::people::KeyFile;
use crate::iam::verdicts::Verdicts;
use crate::iam::{self, Books, Iam, Judgement};
use crate::needs::Needs;
use crate::options::Options;
use crate::reply::refusal;
use crate::shared::Shared;
use crate::uses::Uses;
use crate::xml::Element;
use crate::{ACCOUNT, connection, control, open_files, service_quotas, sigv4};

/// A Lambda package of 50 MB in base64, with room; no call of Vigia comes near.
const MAX_BODY: usize = 512 * 1024 * 1024;

/// Keep-alive of the connections to the emulators: less than theirs (75 s), so that they never close one
/// while a request is sent on it.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// A started local cloud; `serve` runs it and stops everything at its end.
pub struct LocalCloud {
    pub endpoint: String,
    pub(crate) shared: Arc<Shared>,
    listener: TcpListener,
}

impl LocalCloud {
    /// Starts the emulators and takes the endpoint's port; serves nothing yet.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        open_files::raise();
        std::fs::create_dir_all(&options.dir)
            .with_context(|| format!("cannot create {}", options.dir.display()))?;
        // The port first: if another local cloud has it, its state must not be touched.
        let listener = TcpListener::bind(options.listen)
            .await
            .with_context(|| format!("{} is taken by another program", options.listen))?;
        let lock = std::fs::File::create(options.dir.join("lock"))?;
        lock.try_lock().with_context(|| format!("another local cloud uses {}", options.dir.display()))?;
        // Instances do not survive a local cloud; after a SIGKILL their disks do.
        drop(std::fs::remove_dir_all(options.dir.join("instances")));
        let function_secret = random_text(40);
        let (ministack, moto) = tokio::try_join!(
            Emulator::start_ministack_with(&options.venv, &options.dir, &function_secret),
            Emulator::start_moto(&options.venv, &options.dir),
        )?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let credentials = Arc::new(Credentials::new(ACCOUNT, &function_secret));
        let keys = KeyFile::new(options.dir.join("access-keys.json"));
        keys.load(&credentials)?;
        let client = Client::builder(TokioExecutor::new()).pool_idle_timeout(KEEP_ALIVE).build_http();
        let account = Arc::new(Account::new(options.quotas.clone()));
        let ec2 = Ec2::new(
            &options,
            endpoint.clone(),
            moto.addr(),
            ministack.addr(),
            client.clone(),
            credentials.clone(),
            account.clone(),
        );
        let inner = Ministack { client, addr: ministack.addr() };
        let consistency_seed = options.consistency_seed.unwrap_or_else(rand::random);
        tracing::info!(
            consistency_seed,
            "new resources become visible after random delays; --consistency-seed repeats the same delays"
        );
        let shared = Arc::new(Shared {
            ec2,
            account,
            ministack: inner.clone(),
            faults: parking_lot::Mutex::default(),
            calls: Calls::default(),
            uses: Uses::default(),
            iam: Iam { credentials, books: Books::default(), keys, ministack: inner },
            verdicts: Verdicts::default(),
            consistency: Consistency::new(Seed(consistency_seed)),
            emulators: Mutex::new(vec![ministack, moto]),
            _lock: lock,
        });
        Ok(Self { endpoint, shared, listener })
    }

    /// Serves until `shutdown` or the end of an emulator, then stops all.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self { shared, listener, .. } = self;
        let router: Router = Router::new()
            .nest("/_local-cloud", control::router(shared.clone()))
            .fallback(pass)
            .with_state(shared.clone());
        let server = tokio::spawn(connection::serve(listener, router));
        let watch = async {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                for emulator in shared.emulators.lock().await.iter_mut() {
                    emulator.check()?;
                }
            }
        };
        let ended: anyhow::Result<()> = tokio::select! {
            () = shutdown => Ok(()),
            result = watch => result,
        };
        // Machines first: they use the API while they stop.
        let _no_more_launches = shared.ec2.stop_all().await;
        let emulators = std::mem::take(&mut *shared.emulators.lock().await);
        futures::future::join_all(emulators.into_iter().map(Emulator::stop)).await;
        server.abort();
        ended
    }
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let admitted = match admit(&shared, request).await {
        Ok(admitted) => admitted,
        Err(refused) => return *refused,
    };
    tracing::debug!(service = admitted.service, caller = ?admitted.caller, "passed on");
    let service = admitted.service.clone();
    let cloud = shared.clone();
    // As in AWS, a call that was let in is carried out even if its caller hangs up: otherwise moto would have
    // an instance that is never booted, or a terminated instance that keeps running.
    let handled = tokio::spawn(async move { handle(&shared, admitted).await });
    match handled.await {
        Ok((answer, None)) => answer,
        Ok((answer, Some(hit))) if hit.effect == Effect::HoldReply => {
            if hold(&cloud, hit.rule).await == Hold::Released { answer } else { no_answer() }
        }
        Ok((answer, Some(hit))) => hit.effect.deliver(answer).await,
        Err(error) => {
            refusal(&service, StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &error.to_string())
        }
    }
}

/// Waits for the end of a hold, within the bound of all delays.
async fn hold(shared: &Shared, rule: u32) -> Hold {
    let deadline = Instant::now() + MAX_DELAY;
    loop {
        match shared.api_faults().hold(rule) {
            Hold::Lasts if Instant::now() > deadline => return Hold::Ended,
            Hold::Lasts => {}
            end => return end,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Decides on this call, after any hold that delays it before anything is done.
async fn decide(shared: &Shared, call: &Call) -> Option<Hit> {
    loop {
        let hit = shared.api_faults().decide(call, Instant::now())?;
        if hit.effect != Effect::HoldRequest || hold(shared, hit.rule).await != Hold::Released {
            return Some(hit);
        }
    }
}

/// Carries a call out, unless a fault on purpose stops it. A returned hit still has to change the answer.
async fn handle(shared: &Shared, admitted: Admitted) -> (Response<Body>, Option<Hit>) {
    let mut call = Call::of(&admitted);
    let needs = with_facts(shared, &call, &admitted.parts, Needs::of(&call, &admitted)).await;
    let identity = iam::identify(&shared.iam, &call, &needs.region).await;
    let mut judgement = iam::judge(&shared.iam, identity, &needs).await;
    if let Some(refused) = refuse(shared, &call, &admitted.parts, &judgement).await {
        let answer = refused_and_recorded(shared, &call, judgement, &needs, refused).await;
        return (answer, None);
    }
    if call.is_launch() && shared.api_faults().ask_for_zones(Instant::now()) {
        call.zone = zone(shared, &admitted.parts, call.parameter("SubnetId").unwrap_or("")).await;
    }
    let hit = decide(shared, &call).await;
    let record = shared.calls.begin(&call, hit.as_ref(), jiff::Timestamp::now());
    if let Some(hit) = &hit {
        let (kind, action) = (hit.effect.kind(), &call.action);
        tracing::info!(rule = hit.rule, kind, service = call.service, action, "an API fault on purpose");
        if let Some(instead) = hit.effect.instead(&hit.service) {
            if let Some(number) = record {
                shared.calls.stopped(number, &instead);
            }
            shared.verdicts.add(&judgement);
            shared.uses.add(&call.caller, judgement, &needs.names);
            return (instead, None);
        }
    }
    let mut answer = carry_out(shared, &call, &judgement, admitted, hit.is_some()).await;
    shared.iam.books.hear_of(&call);
    answer = iam::people::hear_of(&shared.iam, &call, answer).await;
    // A missing resource has no tags that could allow the call.
    let mut is_absent = false;
    if call.service == "ec2" {
        (answer, is_absent) = calls::look_for_absence(answer).await;
    }
    if let Some(asked) = needs.after(answer.status())
        && let Some(refused) = iam::judge_also(&shared.iam, &mut judgement, asked, &call).await
    {
        answer = refused;
    }
    if !is_absent {
        shared.verdicts.add(&judgement);
        shared.uses.add(&call.caller, judgement, &needs.names);
    }
    if let Some(number) = record {
        answer = shared.calls.carried_out(number, &call, answer).await;
    }
    if let Some(hit) = hit.as_ref().filter(|hit| hit.effect == Effect::HoldReply) {
        shared.api_faults().holds(hit.rule);
    }
    (answer, hit)
}

/// Returns the refusal of a call whose caller lacks a permission.
///
/// A missing resource has no tags that could allow the call. EC2 reports it missing to every caller.
async fn refuse(
    shared: &Shared,
    call: &Call,
    parts: &Parts,
    judgement: &Judgement,
) -> Option<Response<Body>> {
    let denied = judgement.denied()?;
    // Its resources are not known any more, so there is nothing that the caller could be denied.
    let is_of_association = call.parameter("AssociationId").is_some() && denied.asked.resource == "*";
    if is_of_association && call.action.starts_with("Disassociate") {
        return None;
    }
    let mut is_absent = false;
    let mut is_there = false;
    for judged in judgement.all.iter().filter(|judged| !judged.decision.is_allowed()) {
        if let Some(id) = judged.asked.id() {
            let exists = shared.ec2.exists(parts, id).await;
            (is_absent, is_there) = (is_absent || !exists, is_there || exists);
        }
    }
    // A resource that the call would make has no id; it is not made if a resource that the call names is
    // missing.
    if is_absent && !is_there {
        return None;
    }
    tracing::info!(
        caller = judgement.identity.arn(),
        action = denied.asked.action,
        resource = denied.asked.resource,
        "a call is not allowed"
    );
    Some(iam::refuse(call, judgement, denied))
}

/// Nothing is done, so no fault on purpose happens to it either.
async fn refused_and_recorded(
    shared: &Shared,
    call: &Call,
    judgement: Judgement,
    needs: &Needs,
    refused: Response<Body>,
) -> Response<Body> {
    let record = shared.calls.begin(call, None, jiff::Timestamp::now());
    shared.verdicts.add(&judgement);
    shared.uses.add(&call.caller, judgement, &needs.names);
    match record {
        Some(number) => shared.calls.carried_out(number, call, refused).await,
        None => refused,
    }
}

/// A permission may depend on facts that a call does not contain: on tags of the resources that it names, on
/// the interface of an instance, on the boundary of a role. A call that lists is allowed or refused as a
/// whole.
async fn with_facts(shared: &Shared, call: &Call, parts: &Parts, mut needs: Needs) -> Needs {
    if call.service == "iam" {
        if call.is_mutating()
            && let Some(role) = call.parameter("RoleName")
            && let Some(boundary) =
                shared.iam.books.role(&shared.iam.ministack, role).await.and_then(|role| role.boundary)
        {
            needs.are_of_role_within(&boundary);
        }
        return needs;
    }
    if call.service != "ec2" {
        return needs;
    }
    if let Some(association) = call.association()
        && let Ok(Some(table)) = shared.ec2.route_table_of(parts, association).await
    {
        needs.are_about(&[table]);
    }
    match (call.action.as_str(), call.parameter("InstanceId"), call.parameter("AssociationId")) {
        ("AssociateAddress", Some(instance), _) => {
            if let Some(interface) = shared.ec2.interface_of(parts, instance).await {
                needs.concerns_interface(&interface);
            }
        }
        ("DisassociateAddress", _, Some(association)) => {
            if let Some((address, instance)) = shared.ec2.association(parts, association).await {
                let interface = match instance {
                    Some(instance) => shared.ec2.interface_of(parts, &instance).await,
                    None => None,
                };
                needs.are_about(&[Some(address), interface].into_iter().flatten().collect::<Vec<_>>());
            }
        }
        _ => {}
    }
    if let Some(profile) = call.profile()
        && let Ok(Some(role)) = shared.ec2.role_of(profile, parts).await
    {
        needs.hands_over(&role);
    }
    let ids = needs.ids();
    if call.is_judged_by_resource()
        && !ids.is_empty()
        && let Ok(tags) = shared.ec2.tags(parts, &ids).await
    {
        needs.add_resource_tags(&tags);
    }
    needs
}

async fn carry_out(
    shared: &Shared,
    call: &Call,
    judgement: &Judgement,
    admitted: Admitted,
    is_hit: bool,
) -> Response<Body> {
    let is_simulation = call.service == "iam" && call.action == "SimulatePrincipalPolicy";
    let is_dry_run = call.service == "ec2" && call.parameter("DryRun") == Some("true");
    if is_simulation {
        iam::simulate::answer(&shared.iam, call).await
    } else if call.service == "sts" && call.action == "GetCallerIdentity" {
        iam::who(&judgement.identity)
    } else if is_dry_run && !call.is_launch() {
        // It is allowed. The emulator would carry some calls out even as a dry run.
        let message = "Request would have succeeded, but DryRun flag is set.";
        refusal("ec2", StatusCode::PRECONDITION_FAILED, "DryRunOperation", message)
    } else if call.service == "servicequotas" {
        let header = admitted.parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let region = header.and_then(sigv4::parse).map_or("us-east-1", |auth| auth.region);
        service_quotas::answer(&shared.account, region, &call.action, &admitted.body)
    } else if call.service == "lambda" && call.path.contains("/account-settings") {
        let answer = pass::answer(shared, call, admitted, is_hit).await;
        service_quotas::with_concurrency(&shared.account, answer).await
    } else {
        pass::answer(shared, call, admitted, is_hit).await
    }
}

/// Returns the availability zone of a subnet, in the region of a call.
async fn zone(shared: &Shared, parts: &Parts, subnet: &str) -> Option<String> {
    let id = utf8_percent_encode(subnet, NON_ALPHANUMERIC);
    let body = format!("Action=DescribeSubnets&Version=2016-11-15&SubnetId.1={id}");
    let caller = Caller::new("local-cloud", &Principal::Operator);
    let ask = Admitted { service: "ec2".to_owned(), caller, parts: parts.clone(), body: body.into() };
    let described = shared.ec2.handle(ask).await.into_body().collect().await.ok()?.to_bytes();
    Element::parse(&described).ok()?.text_of("availabilityZone").map(str::to_owned)
}

async fn admit(shared: &Shared, request: Request) -> Result<Admitted, Box<Response<Body>>> {
    let (parts, body) = request.into_parts();
    let header = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or("");
    let Some(auth) = sigv4::parse(header) else {
        return Err(Box::new(refusal(
            "s3",
            StatusCode::FORBIDDEN,
            "AccessDenied",
            "This endpoint takes AWS requests signed with Signature Version 4. \
             Set AWS_ACCESS_KEY_ID=test and AWS_SECRET_ACCESS_KEY=test and use an AWS SDK or the AWS CLI.",
        )));
    };
    let service = auth.service.to_owned();
    let refused =
        |code: &str, message: &str| Box::new(refusal(&service, StatusCode::FORBIDDEN, code, message));
    let Some((secret, principal)) = shared.iam.credentials.find(auth.access_key) else {
        let code = if service == "s3" { "InvalidAccessKeyId" } else { "InvalidClientTokenId" };
        return Err(refused(code, "The security token included in the request is invalid."));
    };
    let body = match http_body_util::Limited::new(body, MAX_BODY).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(_) => return Err(refused("EntityTooLarge", "The body is too large or was cut off.")),
    };
    if !sigv4::verify(&auth, &parts, &body, &secret) {
        return Err(refused(
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. \
             Check your AWS Secret Access Key and signing method.",
        ));
    }
    if !sigv4::has_stated_payload(&parts, &body) {
        return Err(refused(
            "XAmzContentSHA256Mismatch",
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        ));
    }
    let mut caller = Caller::new(auth.access_key, &principal);
    if let (Principal::Function, Some(peer)) = (&principal, parts.extensions.get::<Peer>()) {
        caller = caller.of_function(peer.function().await);
    }
    Ok(Admitted { service, caller, parts, body })
}
