//! Where a datagram was sent to and where its reply leaves from, on wildcard sockets (ip(7), ipv6(7)).

#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd;

/// Room for one control message with an `in6_pktinfo`, the larger of the two.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(super) struct Control(pub [u8; Control::LEN]);

impl Control {
    pub const LEN: usize = 64;
}

/// `IP_PKTINFO` or `IPV6_RECVPKTINFO`, which neither socket2 nor rustix can set.
pub(super) fn report_destination(socket: &UdpSocket, ipv4: bool) -> io::Result<()> {
    let (level, option) = if ipv4 {
        (libc::IPPROTO_IP, libc::IP_PKTINFO)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
    };
    let on: libc::c_int = 1;
    // SAFETY: the value is an int that outlives the call, of the length given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            mem::size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The control message that names a datagram's destination.
fn packet_info(header: &libc::msghdr) -> Option<*mut libc::cmsghdr> {
    // SAFETY: the header's control area is this file's own buffer with the length the kernel left.
    let first = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: CMSG_FIRSTHDR gave null or a whole cmsghdr inside the area.
    let message = unsafe { first.as_ref()? };
    let known = matches!(
        (message.cmsg_level, message.cmsg_type),
        (libc::IPPROTO_IP, libc::IP_PKTINFO) | (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO)
    );
    known.then_some(first)
}

/// Where a datagram was sent to.
pub(super) fn destination(header: &libc::msghdr) -> Option<IpAddr> {
    let message = packet_info(header)?;
    // SAFETY: packet_info found a pktinfo message; its level tells which structure follows. It need
    // not be aligned for us, hence the unaligned reads.
    unsafe {
        let data = libc::CMSG_DATA(message);
        if (*message).cmsg_level == libc::IPPROTO_IP {
            let info = data.cast::<libc::in_pktinfo>().read_unaligned();
            Some(Ipv4Addr::from_bits(u32::from_be(info.ipi_addr.s_addr)).into())
        } else {
            let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
            Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into())
        }
    }
}

/// Makes a received pktinfo fit for sending: the source address stays, the interface is left to the
/// routing table (ip(7): a nonzero index would pin the reply to the interface the query came from).
pub(super) fn clear_interface(header: &libc::msghdr) {
    let Some(message) = packet_info(header) else { return };
    // SAFETY: as in `destination`; the area is ours to write.
    unsafe {
        let data = libc::CMSG_DATA(message);
        if (*message).cmsg_level == libc::IPPROTO_IP {
            let mut info = data.cast::<libc::in_pktinfo>().read_unaligned();
            info.ipi_spec_dst = info.ipi_addr;
            info.ipi_ifindex = 0;
            data.cast::<libc::in_pktinfo>().write_unaligned(info);
        } else {
            let mut info = data.cast::<libc::in6_pktinfo>().read_unaligned();
            let link_local = info.ipi6_addr.s6_addr[0] == 0xfe && info.ipi6_addr.s6_addr[1] & 0xc0 == 0x80;
            if !link_local {
                info.ipi6_ifindex = 0;
            }
            data.cast::<libc::in6_pktinfo>().write_unaligned(info);
        }
    }
}

/// Writes a pktinfo with `source` into the header's control area, a zeroed [`Control`].
pub(super) fn set_source(header: &mut libc::msghdr, source: IpAddr) {
    fn put<T>(header: &mut libc::msghdr, level: libc::c_int, kind: libc::c_int, info: T) {
        let size = mem::size_of::<T>() as libc::c_uint;
        // SAFETY: the area is a Control,, more than CMSG_SPACE of either pktinfo, is aligned to
        // 8 and zeroed.
        unsafe {
            header.msg_controllen = libc::CMSG_SPACE(size) as _;
            let message = libc::CMSG_FIRSTHDR(header);
            (*message).cmsg_level = level;
            (*message).cmsg_type = kind;
            (*message).cmsg_len = libc::CMSG_LEN(size) as _;
            libc::CMSG_DATA(message).cast::<T>().write_unaligned(info);
        }
    }
    match source {
        IpAddr::V4(v4) => {
            let spec_dst = libc::in_addr { s_addr: v4.to_bits().to_be() };
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: spec_dst,
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            put(header, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        IpAddr::V6(v6) => {
            let info =
                libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: v6.octets() }, ipi6_ifindex: 0 };
            put(header, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
    }
}
