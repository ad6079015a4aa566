//! Serves the connections of the endpoint.
//!
//! Not `axum::serve`: a handler of axum always answers. Here it can also close the connection instead, which
//! a caller sees as a lost reply.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Response;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::function_process::Peer;

/// Marks the response that is never sent. A marker and not a failing body, because axum replaces the body of
/// an answer to HEAD.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("closed without an answer, on purpose")]
struct NoAnswer;

/// Returns the response that closes the connection without a byte.
pub(crate) fn no_answer() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(NoAnswer);
    response
}

pub(crate) fn is_answer<B>(response: &Response<B>) -> bool {
    response.extensions().get::<NoAnswer>().is_none()
}

/// Serves for ever; all connections end with the task that runs this.
pub(crate) async fn serve(listener: TcpListener, router: Router) {
    let router = TowerToHyperService::new(router);
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            // Out of file descriptors, most likely: during this pause some are closed.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(own) = stream.local_addr() else { continue };
        let (router, peer) = (router.clone(), Peer::new(peer, own));
        let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(peer.clone());
            let handled = router.call(request);
            async move {
                let Ok(response) = handled.await;
                if is_answer(&response) { Ok(response) } else { Err(NoAnswer) }
            }
        });
        connections.spawn(async move {
            let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection ended early");
            }
        });
        while connections.try_join_next().is_some() {}
    }
}
