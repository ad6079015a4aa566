//! Asks the kernel for one TCP connection (`man 7 sock_diag`). Its table in `/proc/net/tcp` says the same, but costs ten
//! milliseconds of processor time for each look.

use std::net::SocketAddrV4;
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

/// SOCK_DIAG_BY_FAMILY: the type of the request and of its answer.
const BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const HEADER: usize = 16;
/// Where `inet_diag_msg` has the inode: behind four bytes, 48 of the connection, and four numbers.
const INODE: usize = HEADER + 4 + 48 + 16;

/// Returns the inode of the socket with this connection; `None` if there is none.
///
/// # Errors
///
/// Some kernels are built without this interface.
pub(super) fn inode(addr: SocketAddrV4, to: SocketAddrV4) -> Result<Option<u64>, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkSockDiag)?;
    sendto(netlink.as_raw_fd(), &request(addr, to), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 512];
    // The kernel answers during the call of `sendto`.
    let len = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
    let number =
        |at: usize| answer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
    let kind = u16::from_ne_bytes([answer[4], answer[5]]);
    match number(INODE) {
        Some(inode) if kind == BY_FAMILY && len >= INODE + 4 => Ok((inode != 0).then_some(u64::from(inode))),
        // An error message: its number, negative, comes first.
        _ => match number(HEADER).map(|code| Errno::from_raw(code.cast_signed().wrapping_neg())) {
            Some(Errno::ENOENT) => Ok(None),
            other => Err(other.unwrap_or(Errno::EBADMSG)),
        },
    }
}

/// `nlmsghdr` and `inet_diag_req_v2`.
fn request(addr: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let mut body = vec![2, 6, 0, 0]; // AF_INET, IPPROTO_TCP, no extensions
    body.extend(u32::MAX.to_ne_bytes()); // in any state
    body.extend(addr.port().to_be_bytes());
    body.extend(to.port().to_be_bytes());
    for end in [addr, to] {
        body.extend(end.ip().octets());
        body.extend([0; 12]); // the rest of an IPv6 address
    }
    body.extend(0_u32.to_ne_bytes()); // on any interface
    body.extend([0xff; 8]); // without a cookie
    let mut message = Vec::new();
    message.extend(u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX).to_ne_bytes());
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]); // number and sender
    message.extend(body);
    message
}
