//! Identifies the Lambda function at the other end of a connection.
//!
//! ministack gives the same key to all functions of an account, so the signature does not identify them.
//! Their processes do: each has its function's name in its environment, as on AWS.

mod sock_diag;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// One look in some hundreds misses the socket; after five misses the caller is not a function.
const LOOKS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);

const NAME: &str = "AWS_LAMBDA_FUNCTION_NAME=";

/// The other end of a connection to the endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    addr: SocketAddr,
    /// This end. The same port of the other end may also be connected elsewhere, by another process.
    to: SocketAddr,
    /// Looked up once: a connection stays with its process.
    function: Arc<OnceLock<String>>,
}

impl Peer {
    pub(crate) fn new(addr: SocketAddr, to: SocketAddr) -> Self {
        Self { addr, to, function: Arc::default() }
    }

    /// Returns the name of the function whose process has the connection, if it is one.
    ///
    /// The kernel's tables change while they are read, so a look can miss a socket that is there. An
    /// unidentified caller is refused, so a miss is looked at again.
    pub(crate) async fn function(&self) -> Option<String> {
        for _ in 0..LOOKS {
            if let Some(name) = self.function.get() {
                return Some(name.clone());
            }
            let (addr, to) = (self.addr, self.to);
            match tokio::task::spawn_blocking(move || function_at(addr, to)).await.ok().flatten() {
                Some(name) => return Some(self.function.get_or_init(|| name).clone()),
                None => tokio::time::sleep(PAUSE).await,
            }
        }
        tracing::warn!(addr = %self.addr, "a call with the functions' key does not come from a function's \
            process");
        None
    }
}

fn function_at(addr: SocketAddr, to: SocketAddr) -> Option<String> {
    let socket = inode(addr, to)?;
    let link = format!("socket:[{socket}]");
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let name = function_name(&std::fs::read(process.path().join("environ")).ok()?)?;
        let mut open = std::fs::read_dir(process.path().join("fd")).ok()?.flatten();
        open.any(|file| std::fs::read_link(file.path()).is_ok_and(|to| to == Path::new(&link)))
            .then_some(name)
    })
}

/// Returns the inode of the socket with this connection.
fn inode(addr: SocketAddr, to: SocketAddr) -> Option<u64> {
    let (SocketAddr::V4(own), SocketAddr::V4(other)) = (addr, to) else { return None };
    match sock_diag::inode(own, other) {
        Ok(inode) => inode,
        Err(_) => in_file(&std::fs::read_to_string("/proc/net/tcp").ok()?, addr, to),
    }
}

/// Returns the inode of the socket with this connection, in the kernel's table of TCP over IPv4.
fn in_file(table: &str, addr: SocketAddr, to: SocketAddr) -> Option<u64> {
    // Thousands of lines may stand before it.
    let found = table.find(&format!(" {} {} ", in_table(addr)?, in_table(to)?))?;
    table[found..].split_whitespace().nth(8)?.parse().ok()
}

/// Formats an address as the kernel prints it: as the number in memory.
fn in_table(addr: SocketAddr) -> Option<String> {
    let SocketAddr::V4(addr) = addr else { return None };
    Some(format!("{:08X}:{:04X}", u32::from_ne_bytes(addr.ip().octets()), addr.port()))
}

fn function_name(environment: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(environment);
    text.split('\0').find_map(|pair| pair.strip_prefix(NAME)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected(addr: SocketAddr) -> (std::net::TcpListener, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind(addr).expect("a port");
        let client = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        (listener, client)
    }

    fn has(inode: u64) -> bool {
        let is_it = |file: std::fs::DirEntry| {
            std::fs::read_link(file.path())
                .is_ok_and(|to| to.to_string_lossy() == format!("socket:[{inode}]"))
        };
        std::fs::read_dir("/proc/self/fd").expect("open files").flatten().any(is_it)
    }

    #[test]
    fn a_connection_is_found_by_both_its_ends() {
        let (_listener, client) = connected("127.0.0.1:0".parse().expect("an address"));
        let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
        let (own, other) = (client.local_addr().expect("bound"), client.peer_addr().expect("connected"));
        assert!(has(inode(own, other).expect("the kernel knows it")));
        assert!(has(in_file(&table, own, other).expect("it is in the table")));
        let elsewhere = SocketAddr::new(other.ip(), other.port() ^ 1);
        assert_eq!(inode(own, elsewhere), None);
    }

    #[test]
    fn a_port_that_leads_elsewhere_as_well_is_told_apart() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                     0: 0100007F:8684 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 11 1\n\
                     1: 0100007F:8684 0100007F:11D6 01 00000000:00000000 00:00000000 00000000     0        0 22 1\n";
        let addr = |text: &str| text.parse::<SocketAddr>().expect("an address");
        assert_eq!(in_file(table, addr("127.0.0.1:34436"), addr("127.0.0.1:4566")), Some(22));
        assert_eq!(in_file(table, addr("127.0.0.1:34436"), addr("127.0.0.1:4567")), None);
    }

    #[test]
    fn only_a_functions_own_process_is_identified_as_a_function() {
        assert_eq!(function_name(b"A=1\0AWS_LAMBDA_FUNCTION_NAME=f\0B=2"), Some("f".to_owned()));
        assert_eq!(function_name(b"A=1\0X_AWS_LAMBDA_FUNCTION_NAME=f"), None);
        // This process has the socket, and it is not a function.
        let (_listener, client) = connected("127.0.0.1:0".parse().expect("an address"));
        let (own, other) = (client.local_addr().expect("bound"), client.peer_addr().expect("connected"));
        assert_eq!(function_at(own, other), None);
    }
}
