//! The scenarios that each proxy goes through, one after the other.

use serde::Serialize;

use super::proxy::Proxy;
use super::rig::Rig;
use crate::load::Plan;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Scenario {
    KeepAlive64,
    KeepAlive256,
    Steady,
    Churn,
    Download,
    Upload,
    Tls,
}

/// Well below the limit of any peer on a core, so that the queue is the proxy's own.
const STEADY_RATE: u32 = 8000;
/// With large bodies a few clients fill the core.
const BODY_CLIENTS: usize = 16;
const MIB: usize = 1 << 20;

impl Scenario {
    pub const ALL: [Self; 7] = [
        Self::KeepAlive64,
        Self::KeepAlive256,
        Self::Steady,
        Self::Churn,
        Self::Download,
        Self::Upload,
        Self::Tls,
    ];

    pub fn title(self) -> &'static str {
        match self {
            Self::KeepAlive64 => "keep-alive, 64 connections",
            Self::KeepAlive256 => "keep-alive, 256 connections",
            Self::Steady => "keep-alive, 64 connections, 8,000 requests per second",
            Self::Churn => "a connection for each request, 64 at a time",
            Self::Download => "responses of 1 MiB, 16 connections",
            Self::Upload => "uploads of 1 MiB, 16 connections",
            Self::Tls => "TLS, keep-alive, 64 connections",
        }
    }

    pub fn is_tls(self) -> bool {
        self == Self::Tls
    }

    pub fn plan(self, proxy: &Proxy, rig: &Rig, seconds: f64) -> Plan {
        let plan = Plan { seconds, cpu_of: Some(proxy.pid()), ..Plan::new(proxy.addr) };
        match self {
            Self::KeepAlive64 => plan,
            Self::KeepAlive256 => Plan { connections: 256, ..plan },
            Self::Steady => Plan { rate: Some(STEADY_RATE), ..plan },
            Self::Churn => Plan { churn: true, ..plan },
            Self::Download => Plan { connections: BODY_CLIENTS, path: "/1m".to_owned(), ..plan },
            Self::Upload => Plan { connections: BODY_CLIENTS, post_percent: 100, post_bytes: MIB, ..plan },
            Self::Tls => Plan {
                target: proxy.tls.unwrap_or(proxy.addr),
                ca: Some(rig.certificate().to_owned()),
                ..plan
            },
        }
    }
}
