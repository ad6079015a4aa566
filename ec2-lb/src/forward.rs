//! The way of one request: judged, received, sent to a worker and, if that fails, to others.
//!
//! Two rules are easy to miss. Only a request that may be repeated travels on an idle connection:
//! such a connection may be closing at the far end, and nobody could say whether a POST on it had
//! arrived. And a failure on an idle connection says nothing about the worker, so it is tried once
//! more on a fresh one before it counts.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, HeaderValue, TRANSFER_ENCODING};
use hyper::http::uri::PathAndQuery;
use hyper::{HeaderMap, Method, Request, Response, Uri};
use tokio::sync::Semaphore;

use crate::Config;
use crate::balance::{self, Standing};
use crate::headers;
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::request_body::{self, Payload, RequestBody};
use crate::retry::{self, Failure};
use crate::strict::{self, Malformed};
use crate::table::{Fleet, Table};
use crate::upstream::{self, DialError, Sender};
use crate::worker::{InFlight, Worker};

#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) config: Config,
    fleet: Arc<Fleet>,
    metrics: Arc<Metrics>,
    /// Places for requests that wait for a first worker.
    waiting: Semaphore,
}

/// The head of a request, ready for any worker.
struct Head {
    method: Method,
    path: PathAndQuery,
    headers: HeaderMap,
}

impl Proxy {
    pub(crate) fn new(config: Config, fleet: Arc<Fleet>, metrics: Arc<Metrics>) -> Self {
        let waiting = Semaphore::new(config.limits.held);
        Self { config, fleet, metrics, waiting }
    }

    /// Answers a request, by a worker or by a refusal. `malformed` is what the connection's observer
    /// has against it.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        malformed: Option<Malformed>,
    ) -> Response<Reply> {
        let serving = self.metrics.begin();
        let id = headers::request_id(request.headers());
        let is_chunked = request.headers().contains_key(TRANSFER_ENCODING);
        let outcome = match malformed {
            Some(malformed) => Err(malformed.into()),
            None => self.relay(request, peer, &id).await,
        };
        let mut response = outcome.unwrap_or_else(Refusal::into_response);
        response.headers_mut().entry(headers::X_REQUEST_ID).or_insert(id);
        if is_chunked {
            // The observer has lost track of where the next request would begin.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.metrics.count(response.status());
        response.body_mut().serving = Some(serving);
        response
    }

    async fn relay(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        id: &HeaderValue,
    ) -> Result<Response<Reply>, Refusal> {
        let (mut parts, body) = request.into_parts();
        let target = strict::screen(&parts)?;
        headers::to_worker(&mut parts.headers, peer, target.host.as_ref(), id);
        let head = Head { method: parts.method, path: target.path, headers: parts.headers };
        let mut payload = request_body::receive(body, &self.config.limits).await?;

        let deadline = Instant::now() + self.config.limits.total;
        let mut tried: Vec<Arc<Worker>> = Vec::new();
        let mut failure = Failure::NothingSent;
        while tried.len() < self.config.limits.tries && Instant::now() < deadline {
            // Read anew for each try: a worker may have come or gone meanwhile.
            let table = self.staffed_table().await?;
            let Some(worker) = self.pick(&table, &tried) else { break };
            if !tried.is_empty() {
                self.metrics.retries.fetch_add(1, Ordering::Relaxed);
            }
            tried.push(Arc::clone(&worker));
            failure = match self.attempt(&worker, &head, &mut payload, deadline).await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            tracing::debug!(worker = %worker.id, ?failure, request_id = ?id, "a try failed");
            if !retry::may_repeat(failure, &head.method, payload.is_at_hand()) {
                break;
            }
        }
        Err(Refusal::AllFailed(failure))
    }

    async fn staffed_table(&self) -> Result<Arc<Table>, Refusal> {
        let table = self.fleet.table();
        if !table.workers.is_empty() {
            return Ok(table);
        }
        let _place = self.waiting.try_acquire().map_err(|_| Refusal::Crowded)?;
        self.fleet.staffed(self.config.limits.hold).await.ok_or(Refusal::NoWorkers)
    }

    fn pick(&self, table: &Table, tried: &[Arc<Worker>]) -> Option<Arc<Worker>> {
        let now = Instant::now();
        let standings: Vec<Standing> = table
            .workers
            .iter()
            .map(|worker| Standing {
                load: worker.load(now),
                is_out: worker.is_out(now),
                is_tried: tried.iter().any(|tried| Arc::ptr_eq(tried, worker)),
            })
            .collect();
        let index = balance::choose(self.config.policy, &standings, &mut rand::rng())?;
        Some(Arc::clone(&table.workers[index]))
    }

    /// One try on one worker: on idle connections as long as they turn out stale, then on a fresh
    /// one.
    async fn attempt(
        &self,
        worker: &Arc<Worker>,
        head: &Head,
        payload: &mut Payload,
        deadline: Instant,
    ) -> Result<Response<Reply>, Failure> {
        let limits = &self.config.limits;
        let in_flight = worker.begin();
        let mut may_reuse = retry::is_idempotent(&head.method) && payload.is_replayable();
        loop {
            let idle = if may_reuse { worker.pool.take(Instant::now(), limits.idle_worker) } else { None };
            let is_reused = idle.is_some();
            let mut sender = match idle {
                Some(sender) => sender,
                None => self.dial(worker).await?,
            };
            let Some(body) = payload.take() else { return Err(Failure::Lost) };
            let request = head.request(worker, body);
            match upstream::exchange(&mut sender, request, payload, limits, deadline).await {
                Ok(response) => return Ok(self.accept(response, sender, in_flight)),
                Err(Failure::NothingSent) if is_reused => {}
                Err(Failure::Lost) if is_reused => may_reuse = false,
                Err(failure) => {
                    match failure {
                        Failure::NothingSent | Failure::Lost => worker.unreachable(),
                        Failure::Silent => worker.silent(),
                        Failure::Upload(_) => {}
                    }
                    return Err(failure);
                }
            }
        }
    }

    async fn dial(&self, worker: &Worker) -> Result<Sender, Failure> {
        upstream::dial(worker.addr, self.config.limits.connect).await.map_err(|error| {
            match error {
                DialError::Refused(_) | DialError::TimedOut => worker.unreachable(),
                DialError::Ours(error) => {
                    tracing::error!(%error, "no connection to any worker can be opened; check this machine's limits");
                }
            }
            Failure::NothingSent
        })
    }

    fn accept(&self, response: Response<Incoming>, sender: Sender, in_flight: InFlight) -> Response<Reply> {
        let (mut parts, incoming) = response.into_parts();
        if parts.status.is_server_error() {
            in_flight.0.answered_badly();
        } else {
            in_flight.0.answered();
        }
        let sender = (!headers::asks_to_close(&parts.headers)).then_some(sender);
        headers::to_client(&mut parts.headers);
        let reply = Reply::relay(incoming, sender, in_flight, self.config.limits.clone());
        Response::from_parts(parts, reply)
    }
}

impl Head {
    fn request(&self, worker: &Worker, body: RequestBody) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(self.path.clone());
        *request.headers_mut() = self.headers.clone();
        if !self.headers.contains_key(HOST)
            && let Ok(host) = HeaderValue::from_str(&worker.addr.to_string())
        {
            request.headers_mut().insert(HOST, host);
        }
        request
    }
}
