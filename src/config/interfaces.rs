//! The addresses of a network interface, from one rtnetlink dump.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::route_message::RouteMessage;

/// The kernel never sends a longer dump datagram (`NLMSG_GOODSIZE` is at most 32 KiB).
const DATAGRAM: usize = 64 * 1024;

/// The addresses of interface `name`, without IPv6 link-local ones: those need a scope that a
/// Corefile cannot give.
///
/// Fails with `NotFound` when there is no such interface, and as the netlink socket does.
pub fn addresses(name: &str) -> io::Result<Vec<IpAddr>> {
    let index = index(name)?;
    let addresses = dump(RouteMessage::GetAddress(AddressMessage::default()))?;
    Ok(addresses
        .into_iter()
        .filter_map(|message| match message {
            RouteMessage::NewAddress(found) if found.header.index == index => own(&found),
            _ => None,
        })
        .collect())
}

/// The index of interface `name`. Fails as [`addresses`] does.
pub fn index(name: &str) -> io::Result<u32> {
    let links = dump(RouteMessage::GetLink(LinkMessage::default()))?;
    links
        .into_iter()
        .find_map(|message| match message {
            RouteMessage::NewLink(link) if is_named(&link, name) => Some(link.header.index),
            _ => None,
        })
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such interface"))
}

fn is_named(link: &LinkMessage, name: &str) -> bool {
    link.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::IfName(found) if found == name))
}

/// On a point-to-point link `Address` is the peer and `Local` ours; elsewhere they are equal, and
/// IPv6 sends `Address` alone.
fn own(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let any = || {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    };
    local.or_else(any).filter(|address| match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    })
}

fn dump(request: RouteMessage) -> io::Result<Vec<RouteMessage>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    // Takes an address of its own too; a worker may not `bind`.
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut packet = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(request));
    packet.header.flags = NLM_F_DUMP | NLM_F_REQUEST;
    packet.header.sequence_number = 1;
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let mut answers = Vec::new();
    loop {
        let mut datagram = Vec::with_capacity(DATAGRAM);
        socket.recv(&mut datagram, 0)?;
        if read_datagram(&datagram, &mut answers)? {
            return Ok(answers);
        }
    }
}

/// Takes the messages of one datagram; true at the end of the dump.
fn read_datagram(mut bytes: &[u8], answers: &mut Vec<RouteMessage>) -> io::Result<bool> {
    while !bytes.is_empty() {
        let message = NetlinkMessage::<RouteMessage>::deserialize(bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        // Messages are padded to four octets (NLMSG_ALIGN).
        let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
        match message.payload {
            NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
            NetlinkPayload::InnerMessage(answer) => answers.push(answer),
            _ => {}
        }
        let padded = length.max(1).saturating_add(3) & !3;
        bytes = bytes.get(padded..).unwrap_or_default();
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_its_address() {
        let found = addresses("lo").unwrap();
        assert!(found.contains(&"127.0.0.1".parse().unwrap()), "{found:?}");
    }

    #[test]
    fn an_unknown_interface_is_not_found() {
        let error = addresses("doorstep-none").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
