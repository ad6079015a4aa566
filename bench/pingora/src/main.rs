//! A plain proxy on Pingora: `pingora-peer LISTEN WORKER,WORKER…`, one thread, workers by random.
//!
//! It does what the configurations of the other peers say and no more: keep-alive on both sides, a
//! check of each worker's port every second, up to four tries to connect.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::lb::LoadBalancer;
use pingora::lb::health_check::TcpHealthCheck;
use pingora::lb::selection::Random;
use pingora::prelude::*;
use pingora::server::configuration::ServerConf;
use pingora::services::background::background_service;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TRIES: usize = 4;

struct Proxy(Arc<LoadBalancer<Random>>);

#[async_trait]
impl ProxyHttp for Proxy {
    /// Failed tries to connect.
    type CTX = usize;

    fn new_ctx(&self) -> usize {
        0
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut usize) -> Result<Box<HttpPeer>> {
        let none = || Error::explain(ErrorType::HTTPStatus(503), "no worker");
        let worker = self.0.select(b"", 256).ok_or_else(none)?;
        let mut peer = HttpPeer::new(worker, false, String::new());
        peer.options.connection_timeout = Some(Duration::from_secs(2));
        peer.options.idle_timeout = Some(Duration::from_secs(60));
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        _: &mut usize,
    ) -> Result<()> {
        if let Some(client) = session.client_addr().and_then(|client| client.as_inet()) {
            request.insert_header("x-forwarded-for", client.ip().to_string())?;
        }
        Ok(())
    }

    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        failed: &mut usize,
        mut error: Box<Error>,
    ) -> Box<Error> {
        *failed += 1;
        error.set_retry(*failed < TRIES);
        error
    }
}

fn main() {
    let mut words = std::env::args().skip(1);
    let (Some(listen), Some(workers)) = (words.next(), words.next()) else {
        panic!("usage: pingora-peer LISTEN WORKER,WORKER…");
    };
    let mut conf = ServerConf::default();
    conf.threads = 1;
    conf.work_stealing = false;
    conf.upstream_keepalive_pool_size = 1024;
    conf.grace_period_seconds = Some(0);
    conf.graceful_shutdown_timeout_seconds = Some(0);
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut balancer: LoadBalancer<Random> =
        LoadBalancer::try_from_iter(workers.split(',')).expect("workers are addresses");
    let mut check = TcpHealthCheck::new();
    check.consecutive_failure = 1;
    balancer.set_health_check(check);
    balancer.health_check_frequency = Some(Duration::from_secs(1));
    let checks = background_service("checks", balancer);
    let mut proxy = http_proxy_service(&server.configuration, Proxy(checks.task()));
    proxy.add_tcp(&listen);
    server.add_service(proxy);
    server.add_service(checks);
    server.run_forever();
}
