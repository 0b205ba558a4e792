//! What `hosts` answers (the semantics of CoreDNS's).

use std::collections::HashMap;
use std::net::IpAddr;

use super::{config, reply};
use crate::wire::{Name, Query, Rcode, record_type};

/// A table of names and addresses, ready to be asked.
pub(super) struct Hosts {
    zones: Vec<Name>,
    fallthrough: Vec<Name>,
    ttl: u32,
    /// By folded wire octets.
    addresses: HashMap<Box<[u8]>, Vec<IpAddr>>,
    /// By the name an address has below `in-addr.arpa` or `ip6.arpa`.
    names: HashMap<Box<[u8]>, Vec<Name>>,
}

impl Hosts {
    /// Arranges what `hosts` lists. Names outside of its zones are left out.
    pub(super) fn new(hosts: &config::Hosts) -> Hosts {
        let mut table = Hosts {
            zones: hosts.zones.clone(),
            fallthrough: hosts.fallthrough.clone(),
            ttl: hosts.ttl,
            addresses: HashMap::new(),
            names: HashMap::new(),
        };
        for (address, name) in &hosts.entries {
            if !table.covers(name.as_wire()) {
                continue;
            }
            table.addresses.entry(name.as_wire().into()).or_default().push(*address);
            let bits = if address.is_ipv4() { 32 } else { 128 };
            if let Some(reverse) = Name::reverse(*address, bits).filter(|_| hosts.reverse) {
                table.names.entry(reverse.as_wire().into()).or_default().push(name.clone());
            }
        }
        table
    }

    /// The reply to `message`, a whole query for `name` (folded wire octets); `None` when the upstream is to be
    /// asked.
    pub(super) fn reply(&self, message: &[u8], name: &[u8]) -> Option<Vec<u8>> {
        let query = Query::parse(message).ok()?;
        let (rcode, records) = self.find(&query, name)?;
        Some(reply::compose(&query, rcode, &records))
    }

    fn find(&self, query: &Query<'_>, name: &[u8]) -> Option<(Rcode, Vec<Vec<u8>>)> {
        let record = |data: &[u8]| self.record(query.qtype(), data);
        if query.qtype() == record_type::PTR {
            let names = self.names.get(name)?;
            let records = names.iter().filter_map(|name| record(name.as_wire())).collect();
            return Some((Rcode::NOERROR, records));
        }
        if !self.covers(name) {
            return None;
        }
        let Some(addresses) = self.addresses.get(name) else {
            // Without an SOA it cannot be NXDOMAIN.
            let falls_through = self.fallthrough.iter().any(|zone| zone.contains(name));
            return (!falls_through).then(|| (Rcode::SERVFAIL, Vec::new()));
        };
        let octets = |address: &IpAddr| match (address, query.qtype()) {
            (IpAddr::V4(v4), record_type::A) => record(&v4.octets()),
            (IpAddr::V6(v6), record_type::AAAA) => record(&v6.octets()),
            _ => None,
        };
        Some((Rcode::NOERROR, addresses.iter().filter_map(octets).collect()))
    }

    fn covers(&self, name: &[u8]) -> bool {
        self.zones.is_empty() || self.zones.iter().any(|zone| zone.contains(name))
    }

    /// A record of class IN for the question's name, which stands after the header.
    fn record(&self, rtype: u16, data: &[u8]) -> Option<Vec<u8>> {
        let length = u16::try_from(data.len()).ok()?.to_be_bytes();
        let [rtype, class] = [rtype, 1_u16].map(u16::to_be_bytes);
        Some([&[0xc0, 12][..], &rtype, &class, &self.ttl.to_be_bytes(), &length, data].concat())
    }
}
