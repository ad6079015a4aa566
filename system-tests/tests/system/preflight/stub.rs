//! An AWS account for the checks before a deployment: it is empty, has a quota of vCPUs, and may deny one EC2
//! action. It checks no signatures.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use tokio::runtime::Runtime;

pub(super) struct Account {
    endpoint: String,
    state: Arc<Inner>,
    _runtime: Runtime,
}

struct Inner {
    vcpus: u32,
    denied: Option<&'static str>,
    changes: Mutex<Vec<String>>,
}

impl Account {
    pub(super) fn start(vcpus: u32, denied: Option<&'static str>) -> Self {
        let state = Arc::new(Inner { vcpus, denied, changes: Mutex::default() });
        let runtime = Runtime::new().expect("a runtime");
        let listening = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let endpoint = format!("http://{}", listening.local_addr().expect("it is bound"));
        let router = Router::new().fallback(answer).with_state(state.clone());
        runtime.spawn(async move { axum::serve(listening, router).await });
        Self { endpoint, state, _runtime: runtime }
    }

    pub(super) fn endpoint(&self) -> String {
        self.endpoint.clone()
    }

    /// Returns calls that would have changed something.
    pub(super) fn changes(&self) -> Vec<String> {
        self.state.changes.lock().expect("no test panics with it").clone()
    }
}

async fn answer(
    State(account): State<Arc<Inner>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // Credential=KEY/DAY/REGION/SERVICE/aws4_request
    let service = header("authorization").split('/').nth(3).unwrap_or_default().to_owned();
    let body = String::from_utf8_lossy(&body).into_owned();
    let of_form = |name: &str| {
        let pairs = body.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    };
    let target = header("x-amz-target").rsplit('.').next().unwrap_or_default().to_owned();
    let action = of_form("Action").or(Some(target).filter(|target| !target.is_empty()));
    let action = action.unwrap_or_else(|| format!("{method} {}", uri.path()));
    let is_dry_run = of_form("DryRun").is_some_and(|value| value == "true");
    let reads = ["Describe", "Get", "List", "Simulate", "GET ", "HEAD "];
    if !is_dry_run && !reads.iter().any(|verb| action.starts_with(verb)) {
        account.changes.lock().expect("no request panics with it").push(format!("{service} {action}"));
    }
    match service.as_str() {
        "sts" => identity(),
        "ec2" => ec2(&account, &action, is_dry_run),
        "servicequotas" => {
            let is_vcpus = ["L-1216C47A", "L-34B43A08"].iter().any(|code| body.contains(code));
            let value = if is_vcpus { account.vcpus } else { 5 };
            json(StatusCode::OK, format!(r#"{{"Quota":{{"Value":{value}.0}}}}"#))
        }
        "lambda" if uri.path().ends_with("account-settings") => json(
            StatusCode::OK,
            r#"{"AccountLimit":{"ConcurrentExecutions":1000,"UnreservedConcurrentExecutions":1000}}"#
                .to_owned(),
        ),
        "lambda" | "events" => json(
            StatusCode::NOT_FOUND,
            r#"{"__type":"ResourceNotFoundException","message":"none"}"#.to_owned(),
        ),
        "logs" => json(StatusCode::OK, r#"{"logGroups":[]}"#.to_owned()),
        "iam" if action.starts_with("Simulate") => refused(StatusCode::FORBIDDEN, "AccessDenied", "no"),
        "iam" => refused(StatusCode::NOT_FOUND, "NoSuchEntity", "none"),
        _ => refused(StatusCode::NOT_FOUND, "NoSuchBucket", "none"),
    }
}

fn ec2(account: &Inner, action: &str, is_dry_run: bool) -> Response {
    if is_dry_run && account.denied == Some(action) {
        let message = format!(
            "You are not authorized to perform this operation. User: arn:aws:iam::123456789012:user/ana is not \
             authorized to perform: ec2:{action} on resource: arn:aws:ec2:us-east-1:123456789012:vpc/* because \
             no identity-based policy allows the ec2:{action} action."
        );
        return of_ec2(StatusCode::FORBIDDEN, "UnauthorizedOperation", &message);
    }
    if is_dry_run {
        return of_ec2(StatusCode::PRECONDITION_FAILED, "DryRunOperation", "Request would have succeeded.");
    }
    let content = match action {
        "DescribeInstanceTypes" => {
            "<instanceTypeSet><item><vCpuInfo><defaultVCpus>2</defaultVCpus></vCpuInfo></item></instanceTypeSet>"
        }
        _ => "",
    };
    xml(
        StatusCode::OK,
        format!(
            "<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">{content}</{action}Response>"
        ),
    )
}

fn identity() -> Response {
    xml(
        StatusCode::OK,
        "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
         <Arn>arn:aws:iam::123456789012:user/ana</Arn><UserId>ANA</UserId><Account>123456789012</Account>\
         </GetCallerIdentityResult></GetCallerIdentityResponse>"
            .to_owned(),
    )
}

fn of_ec2(status: StatusCode, code: &str, message: &str) -> Response {
    xml(
        status,
        format!(
            "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>\
             <RequestID>r</RequestID></Response>"
        ),
    )
}

fn refused(status: StatusCode, code: &str, message: &str) -> Response {
    xml(
        status,
        format!(
            "<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
        ),
    )
}

fn xml(status: StatusCode, text: String) -> Response {
    (status, [("content-type", "text/xml")], text).into_response()
}

fn json(status: StatusCode, text: String) -> Response {
    (status, [("content-type", "application/x-amz-json-1.1")], text).into_response()
}
