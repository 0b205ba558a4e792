//! Who asks.

use std::net::{IpAddr, SocketAddr};

use crate::metrics::{Family, Transport};
use crate::wire::{Edns, MAX_MESSAGE};

/// Octets of UDP payload in the longest IPv4 packet: 65 535 less both headers.
const MAX_DATAGRAM_V4: usize = 65_535 - 20 - 8;
/// The same for IPv6, whose length does not count its own header.
const MAX_DATAGRAM_V6: usize = 65_535 - 8;

/// Who asks, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// Address and port.
    pub peer: SocketAddr,
    /// The address that was asked, if the socket serves several.
    pub local: Option<IpAddr>,
    /// UDP or TCP.
    pub transport: Transport,
}

impl Client {
    /// Of the client's address.
    #[inline(always)]
    pub fn family(&self) -> Family {
        if self.peer.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// The same, asking `local` if it is not known which address it asked.
    pub fn at(&self, local: Option<IpAddr>) -> Client {
        Client { local: self.local.or(local), ..*self }
    }

    /// Octets a reply to a query with `edns` may have.
    #[inline(always)]
    pub fn limit(&self, edns: Option<Edns>, bufsize: Option<u16>) -> usize {
        let takes = match (self.transport, bufsize) {
            (Transport::Tcp, _) => return MAX_MESSAGE,
            (Transport::Udp, None) => Edns::udp_limit(edns),
            (Transport::Udp, Some(cap)) => Edns::udp_limit(edns).min(usize::from(cap)),
        };
        // The kernel refuses to send more, whatever the client says it takes.
        takes.min(if self.peer.is_ipv4() { MAX_DATAGRAM_V4 } else { MAX_DATAGRAM_V6 })
    }
}
