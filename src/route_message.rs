//! The rtnetlink messages about links and addresses.
//!
//! `netlink-packet-route` knows those about routes, neighbours, traffic control and more, too, and a program that
//! names its type for all of them carries the code for all of them.

use std::fmt;

use netlink_packet_core::{
    DecodeError, Emitable, NetlinkDeserializable, NetlinkHeader, NetlinkPayload, NetlinkSerializable,
    Parseable,
};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;

/// What is asked or told, with the object it is about.
#[derive(Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are rtnetlink(7)'s own")]
pub enum RouteMessage {
    NewLink(LinkMessage),
    DelLink(LinkMessage),
    GetLink(LinkMessage),
    SetLink(LinkMessage),
    NewAddress(AddressMessage),
    DelAddress(AddressMessage),
    GetAddress(AddressMessage),
}

use RouteMessage::{DelAddress, DelLink, GetAddress, GetLink, NewAddress, NewLink, SetLink};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;

impl RouteMessage {
    fn body(&self) -> &dyn Emitable {
        match self {
            NewLink(link) | DelLink(link) | GetLink(link) | SetLink(link) => link,
            NewAddress(address) | DelAddress(address) | GetAddress(address) => address,
        }
    }
}

impl NetlinkSerializable for RouteMessage {
    fn message_type(&self) -> u16 {
        match self {
            NewLink(_) => RTM_NEWLINK,
            DelLink(_) => RTM_DELLINK,
            GetLink(_) => RTM_GETLINK,
            SetLink(_) => RTM_SETLINK,
            NewAddress(_) => RTM_NEWADDR,
            DelAddress(_) => RTM_DELADDR,
            GetAddress(_) => RTM_GETADDR,
        }
    }

    fn buffer_len(&self) -> usize {
        self.body().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        self.body().emit(buffer);
    }
}

impl NetlinkDeserializable for RouteMessage {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<RouteMessage, DecodeError> {
        let about_link: fn(LinkMessage) -> RouteMessage = match header.message_type {
            RTM_NEWLINK => NewLink,
            RTM_DELLINK => DelLink,
            RTM_GETLINK => GetLink,
            RTM_SETLINK => SetLink,
            RTM_NEWADDR => return AddressMessage::parse(payload).map(NewAddress),
            RTM_DELADDR => return AddressMessage::parse(payload).map(DelAddress),
            RTM_GETADDR => return AddressMessage::parse(payload).map(GetAddress),
            other => return Err(DecodeError::from(format!("message type {other}"))),
        };
        LinkMessage::parse(payload).map(about_link)
    }
}

impl From<RouteMessage> for NetlinkPayload<RouteMessage> {
    fn from(message: RouteMessage) -> NetlinkPayload<RouteMessage> {
        NetlinkPayload::InnerMessage(message)
    }
}

impl fmt::Debug for RouteMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RouteMessage({})", self.message_type())
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NetlinkMessage;
    use netlink_packet_route::link::LinkAttribute;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut link = LinkMessage::default();
        link.attributes = vec![LinkAttribute::IfName("nodelocaldns".into())];
        let mut address = AddressMessage::default();
        address.header.prefix_len = 32;
        let messages = [NewLink, DelLink, GetLink, SetLink]
            .map(|about: fn(LinkMessage) -> RouteMessage| about(link.clone()));
        let addresses = [NewAddress, DelAddress, GetAddress]
            .map(|about: fn(AddressMessage) -> RouteMessage| about(address.clone()));
        for message in messages.into_iter().chain(addresses) {
            let mut whole = NetlinkMessage::new(NetlinkHeader::default(), message.clone().into());
            whole.finalize();
            let mut octets = vec![0; whole.buffer_len()];
            whole.serialize(&mut octets);
            let read = NetlinkMessage::<RouteMessage>::deserialize(&octets).unwrap();
            assert!(read.payload == NetlinkPayload::InnerMessage(message));
        }
    }

    #[test]
    fn other_messages_are_errors() {
        let mut header = NetlinkHeader::default();
        header.message_type = 24;
        assert!(RouteMessage::deserialize(&header, &[0; 12]).is_err());
    }
}
