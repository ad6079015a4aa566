//! Which Lambda function is at the other end of a connection.
//!
//! ministack gives the same key to all functions of an account, so the signature does not tell them
//! apart. Their processes do: each has its function's name in its environment, as on AWS.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// One look in some hundreds misses the socket; five in a row are a caller that is no function.
const LOOKS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);

const NAME: &str = "AWS_LAMBDA_FUNCTION_NAME=";

/// The other end of a connection to the endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    addr: SocketAddr,
    /// Looked up once: a connection stays with its process.
    function: Arc<OnceLock<String>>,
}

impl Peer {
    pub(crate) fn new(addr: SocketAddr) -> Self {
        Self { addr, function: Arc::default() }
    }

    /// Name of the function whose process has the connection, if it is one.
    ///
    /// The kernel's tables change while they are read, so a look can miss a socket that is there. A caller
    /// that is taken for nobody is refused, so a miss is looked at again.
    pub(crate) async fn function(&self) -> Option<String> {
        for _ in 0..LOOKS {
            if let Some(name) = self.function.get() {
                return Some(name.clone());
            }
            let addr = self.addr;
            match tokio::task::spawn_blocking(move || function_at(addr)).await.ok().flatten() {
                Some(name) => return Some(self.function.get_or_init(|| name).clone()),
                None => tokio::time::sleep(PAUSE).await,
            }
        }
        tracing::warn!(addr = %self.addr, "a call with the functions' key comes from no function's process");
        None
    }
}

fn function_at(addr: SocketAddr) -> Option<String> {
    let socket = inode(&std::fs::read_to_string("/proc/net/tcp").ok()?, addr)?;
    let link = format!("socket:[{socket}]");
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let name = function_name(&std::fs::read(process.path().join("environ")).ok()?)?;
        let mut open = std::fs::read_dir(process.path().join("fd")).ok()?.flatten();
        open.any(|file| std::fs::read_link(file.path()).is_ok_and(|to| to == Path::new(&link)))
            .then_some(name)
    })
}

/// The inode of the socket whose own address this is, in the kernel's table of TCP over IPv4.
fn inode(table: &str, addr: SocketAddr) -> Option<u64> {
    let SocketAddr::V4(addr) = addr else { return None };
    // The kernel prints the address as the number that it is in memory.
    let own = format!("{:08X}:{:04X}", u32::from_ne_bytes(addr.ip().octets()), addr.port());
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        (fields.next()? == own).then(|| fields.nth(7))??.parse().ok()
    })
}

fn function_name(environment: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(environment);
    text.split('\0').find_map(|pair| pair.strip_prefix(NAME)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_found_by_its_own_address() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
        let inode = inode(&table, addr).expect("it is in the table");
        let is_ours = |file: std::fs::DirEntry| {
            std::fs::read_link(file.path())
                .is_ok_and(|to| to.to_string_lossy() == format!("socket:[{inode}]"))
        };
        assert!(std::fs::read_dir("/proc/self/fd").expect("open files").flatten().any(is_ours));
        drop(listener);
    }

    #[test]
    fn a_function_is_known_by_its_environment_and_nobody_else_is_one() {
        assert_eq!(function_name(b"A=1\0AWS_LAMBDA_FUNCTION_NAME=f\0B=2"), Some("f".to_owned()));
        assert_eq!(function_name(b"A=1\0X_AWS_LAMBDA_FUNCTION_NAME=f"), None);
        // This process has the socket, and it is no function.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        assert_eq!(function_at(listener.local_addr().expect("an address")), None);
    }
}
