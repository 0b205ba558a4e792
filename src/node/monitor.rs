//! Change notifications from the kernel, narrowed to what concerns whoever keeps something.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use netlink_packet_core::NetlinkPayload;
use netlink_packet_netfilter::nftables::{ChainAttribute, NfTablesMessage, RuleAttribute, TableAttribute};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::net::netlink::NETFILTER;

use super::netlink::{self, Error};

use crate::route_message::RouteMessage;

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

/// One change that the kernel announces.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// To a link or an address.
    Route(&'a RouteMessage),
    /// To nftables, iptables-nft's tables included.
    Rules {
        /// The table.
        table: Option<&'a str>,
        /// The chain, where the change touches one.
        chain: Option<&'a str>,
    },
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

    /// Reads all that waits, without blocking. Returns whether any of it concerns the caller, which on
    /// a node with many pods is little; what was lost (the socket overflowed) or cannot be decoded may.
    pub fn drain(&self, concerns: impl Fn(Change<'_>) -> bool) -> bool {
        let route = drain(&self.route, |datagram| {
            netlink::messages::<RouteMessage>(datagram).any(|message| {
                message.map_or(true, |message| match message.payload {
                    NetlinkPayload::InnerMessage(inner) => concerns(Change::Route(&inner)),
                    _ => false,
                })
            })
        });
        let netfilter = drain(&self.netfilter, |datagram| {
            netlink::messages::<NetfilterMessage>(datagram).any(|message| {
                message.map_or(true, |message| match message.payload {
                    NetlinkPayload::InnerMessage(inner) => rules_change(&inner).is_some_and(&concerns),
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

fn rules_change(message: &NetfilterMessage) -> Option<Change<'_>> {
    let NetfilterMessageInner::NfTables(message) = &message.inner else {
        return None;
    };
    let (table, chain) = place(message);
    Some(Change::Rules { table, chain })
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
