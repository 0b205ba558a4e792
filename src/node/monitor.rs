//! Change notifications from the kernel, narrowed to what concerns our link and rules.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use netlink_packet_core::NetlinkPayload;
use netlink_packet_netfilter::nftables::{ChainAttribute, NfTablesMessage, RuleAttribute, TableAttribute};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::net::netlink::NETFILTER;

use super::netlink::{self, Error};
use super::{Backend, nftables};

/// RTNLGRP_LINK (1), RTNLGRP_IPV4_IFADDR (5), RTNLGRP_IPV6_IFADDR (9).
const ROUTE_GROUPS: u32 = 1 << 0 | 1 << 4 | 1 << 8;
/// NFNLGRP_NFTABLES (7).
const NETFILTER_GROUPS: u32 = 1 << 6;

/// Sockets that hear of every change to links, addresses and nftables.
///
/// `iptables-legacy` announces nothing; its tables are only seen at the interval.
#[derive(Debug)]
pub struct Monitor {
    route: OwnedFd,
    netfilter: OwnedFd,
}

/// What a change must touch to matter: on a node with many pods most touch something else.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The link's name.
    pub link: &'a str,
    /// The link's index, once known.
    pub index: Option<u32>,
    /// Who carries the rules, once chosen.
    pub backend: Option<Backend>,
}

impl Monitor {
    /// Subscribes, in the calling thread's network namespace.
    pub fn open() -> Result<Monitor, Error> {
        Ok(Monitor {
            route: netlink::subscribe(None, ROUTE_GROUPS)?,
            netfilter: netlink::subscribe(Some(NETFILTER), NETFILTER_GROUPS)?,
        })
    }

    /// The sockets to wait on for input.
    pub fn sockets(&self) -> [BorrowedFd<'_>; 2] {
        [self.route.as_fd(), self.netfilter.as_fd()]
    }

    /// Reads all that waits, without blocking. Returns whether any of it concerns `scope`; what was
    /// lost (the socket overflowed) or cannot be decoded may have.
    pub fn drain(&self, scope: Scope<'_>) -> bool {
        let route = drain(&self.route, |datagram| {
            netlink::messages::<RouteNetlinkMessage>(datagram).any(|message| {
                message.map_or(true, |message| match message.payload {
                    NetlinkPayload::InnerMessage(inner) => route_concerns(&inner, scope),
                    _ => false,
                })
            })
        });
        let netfilter = drain(&self.netfilter, |datagram| {
            netlink::messages::<NetfilterMessage>(datagram).any(|message| {
                message.map_or(true, |message| match message.payload {
                    NetlinkPayload::InnerMessage(inner) => rules_concern(&inner, scope.backend),
                    _ => false,
                })
            })
        });
        route || netfilter
    }
}

fn drain(socket: &OwnedFd, concerns: impl Fn(&[u8]) -> bool) -> bool {
    let mut buffer = netlink::buffer();
    let mut found = false;
    loop {
        match netlink::receive(socket, &mut buffer, RecvFlags::DONTWAIT) {
            Ok(datagram) => found |= concerns(datagram),
            // The kernel had no room for a notification; the error is told once.
            Err(Errno::NOBUFS) => found = true,
            Err(_) => return found,
        }
    }
}

fn route_concerns(message: &RouteNetlinkMessage, scope: Scope<'_>) -> bool {
    match message {
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
            Some(link.header.index) == scope.index || is_named(link, scope.link)
        }
        RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
            scope.index.is_none_or(|index| address.header.index == index)
        }
        _ => false,
    }
}

fn is_named(link: &LinkMessage, name: &str) -> bool {
    let same = |a: &LinkAttribute| matches!(a, LinkAttribute::IfName(own) if own == name);
    link.attributes.iter().any(same)
}

fn rules_concern(message: &NetfilterMessage, backend: Option<Backend>) -> bool {
    let NetfilterMessageInner::NfTables(message) = &message.inner else {
        return false;
    };
    let (table, chain) = place(message);
    match backend {
        Some(Backend::Nftables) => table == Some(nftables::TABLE),
        Some(Backend::Iptables) => {
            matches!(table, Some("raw" | "filter"))
                && matches!(chain, None | Some("PREROUTING" | "INPUT" | "OUTPUT"))
        }
        None => false,
    }
}

/// The table that a change touches and, where it touches one, the chain.
fn place(message: &NfTablesMessage) -> (Option<&str>, Option<&str>) {
    let (mut table, mut chain) = (None, None);
    match message {
        NfTablesMessage::NewTable(change) | NfTablesMessage::DeleteTable(change) => {
            for attribute in &change.attributes {
                if let TableAttribute::Name(name) = attribute {
                    table = Some(name.as_str());
                }
            }
        }
        NfTablesMessage::NewChain(change) | NfTablesMessage::DeleteChain(change) => {
            for attribute in &change.attributes {
                match attribute {
                    ChainAttribute::Table(name) => table = Some(name.as_str()),
                    ChainAttribute::Name(name) => chain = Some(name.as_str()),
                    _ => {}
                }
            }
        }
        NfTablesMessage::NewRule(change) | NfTablesMessage::DeleteRule(change) => {
            for attribute in &change.attributes {
                match attribute {
                    RuleAttribute::Table(name) => table = Some(name.as_str()),
                    RuleAttribute::Chain(name) => chain = Some(name.as_str()),
                    _ => {}
                }
            }
        }
        _ => {}
    }
    (table, chain)
}
