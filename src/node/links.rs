//! All links of the calling thread's network namespace; nothing is changed.

use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};

use super::netlink::{Connection, Error};

use crate::route_message::RouteMessage;

/// A link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its driver in netlink's words (`veth`, `vxlan`, ...); empty: hardware, or `lo`.
    pub kind: String,
    /// Its MTU in octets.
    pub mtu: u32,
    /// Whether it is up.
    pub is_up: bool,
}

/// Reads them; needs no right.
pub fn list() -> Result<Vec<Listed>, Error> {
    let message = RouteMessage::GetLink(LinkMessage::default());
    Connection::route()?.dump_picked("list links", message, |object| match object {
        RouteMessage::NewLink(link) => Some(listed(link)),
        _ => None,
    })
}

fn listed(message: LinkMessage) -> Listed {
    let mut link = Listed {
        index: message.header.index,
        is_up: message.header.flags.contains(LinkFlags::Up),
        ..Listed::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::LinkInfo(info) => {
                let kind = info.into_iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
                link.kind = kind.unwrap_or_default();
            }
            _ => {}
        }
    }
    link
}
