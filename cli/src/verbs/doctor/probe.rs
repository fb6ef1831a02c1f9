//! Questions to the kernel. Source: netlink(7), rtnetlink(7), `linux/netfilter/nf_tables.h`.

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send,
    socket_with,
};
use std::io;

/// Whether a file system of this type can be mounted: the kernel gives a context for it.
pub(super) fn file_system(name: &str) -> io::Result<()> {
    rustix::mount::fsopen(name, rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC)?;
    Ok(())
}

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN`
const NFT_GETGEN: u16 = 10 << 8 | 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;

/// Makes a bridge and a pair of veths in a network namespace that ends with the thread.
pub(super) fn links() -> Result<(), String> {
    let probe = || -> Result<(), String> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .map_err(|error| format!("cannot make a network namespace ({error})"))?;
        for kind in ["bridge", "veth"] {
            new_link(kind).map_err(|error| format!("cannot make a {kind} ({error})"))?;
        }
        Ok(())
    };
    std::thread::spawn(probe)
        .join()
        .unwrap_or_else(|_| Err("the probe failed".to_owned()))
}

fn new_link(kind: &str) -> io::Result<()> {
    let kind = attribute(IFLA_INFO_KIND, kind.as_bytes());
    let info = attribute(IFLA_LINKINFO, &kind);
    // An empty `struct ifinfomsg`: the kernel chooses index and name.
    let body = [&[0; 16][..], &info].concat();
    request(None, RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE, &body)
}

/// Asks for the generation of the rule set: the cheapest question there is.
pub(super) fn nftables() -> io::Result<()> {
    // An empty `struct nfgenmsg`.
    request(Some(netlink::NETFILTER), NFT_GETGEN, 0, &[0; 4])
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("attributes here are short");
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Sends one message (`None` is NETLINK_ROUTE, number 0) and reads the answer: an error, an acknowledgement (error 0), or a reply.
fn request(protocol: Option<Protocol>, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        protocol,
    )?;
    let length = u32::try_from(HEADER + body.len()).expect("messages here are short");
    let mut message = length.to_ne_bytes().to_vec();
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(body);
    send(&socket, &message, SendFlags::empty())?;
    let mut reply = [0_u8; 4096];
    let (length, _) = recv(&socket, &mut reply[..], RecvFlags::empty())?;
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let reply = &reply[..length];
    let answered = reply.get(4..6).ok_or_else(malformed)?;
    if u16::from_ne_bytes([answered[0], answered[1]]) != NLMSG_ERROR {
        return Ok(());
    }
    let code = reply.get(HEADER..HEADER + 4).ok_or_else(malformed)?;
    match i32::from_ne_bytes([code[0], code[1], code[2], code[3]]) {
        0 => Ok(()),
        code => Err(Errno::from_raw_os_error(-code).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_but_say_their_own_length() {
        assert_eq!(
            attribute(1, b"veth"),
            [&8_u16.to_ne_bytes()[..], &1_u16.to_ne_bytes(), b"veth"].concat()
        );
        assert_eq!(attribute(1, b"bridge").len(), 12);
    }

    #[test]
    fn a_file_system_that_does_not_exist_is_missing() {
        assert!(file_system("no-such-fs").is_err());
    }
}
