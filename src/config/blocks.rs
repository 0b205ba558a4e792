//! Parsed server blocks to the server's: zones, addresses, and what may not overlap.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::corefile::{Block, Corefile, Span};
use super::directive::{self, Draft, Process, Scope};
use super::environment::Environment;
use super::error::{Diagnostic, Diagnostics};
use super::{Options, zone};
use crate::server;
use crate::wire::Name;

/// Every block of `corefile`; mistakes go to `diagnostics`.
pub(super) fn build(
    corefile: &Corefile,
    options: &Options,
    env: &dyn Environment,
    process: &mut Process,
    diagnostics: &mut Diagnostics,
) -> Vec<server::Block> {
    if corefile.blocks.is_empty() && diagnostics.is_clean() {
        let error = Diagnostic::general("the configuration has no server block");
        diagnostics.error(error.remedy("write one, for instance `.:53 { forward . /etc/resolv.conf }`"));
    }
    let mut taken = Taken::default();
    let mut blocks = Vec::new();
    for block in &corefile.blocks {
        let labels = labels(block, options.dns_port, diagnostics);
        let mut scope = Scope {
            env,
            options,
            diagnostics: &mut *diagnostics,
            block: Draft::default(),
            process: &mut *process,
        };
        directive::apply(block, &mut scope);
        let draft = scope.block;
        let addresses = listen_addresses(&draft, diagnostics);
        let mut zones: Vec<(Name, Vec<SocketAddr>)> = Vec::new();
        for (name, port, span) in labels {
            if !taken.take(&name, &addresses, port, span, diagnostics) {
                continue;
            }
            let sockets = addresses.sockets(port);
            match zones.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => known.extend(sockets),
                None => zones.push((name, sockets)),
            }
        }
        blocks.extend(by_family(finish(draft, zones)));
    }
    blocks
}

fn finish(mut draft: Draft, zones: Vec<(Name, Vec<SocketAddr>)>) -> server::Block {
    let names: Vec<Name> = zones.iter().map(|(name, _)| name.clone()).collect();
    draft.steps.fill_in_zones(&names);
    server::Block {
        zones,
        cache: draft.cache,
        forwards: draft.forwards,
        errors: draft.errors,
        log: draft.log,
        loadbalance: draft.loadbalance,
        steps: draft.steps,
        whoami: draft.whoami,
        detect_loops: draft.detect_loops,
        search_ahead: draft.search_ahead,
        metrics: draft.metrics,
        bufsize: draft.bufsize,
        plugins: draft.plugins.into_iter().collect(),
    }
}

/// `dns64` is for clients that ask over IPv6 unless it says otherwise. Then those that ask over IPv4 have a block
/// of their own, for an answer that is kept is everybody's.
fn by_family(block: server::Block) -> Vec<server::Block> {
    let Some(allow_ipv4) = block.steps.dns64.as_ref().map(|dns64| dns64.allow_ipv4) else {
        return vec![block];
    };
    if allow_ipv4 {
        return vec![block];
    }
    let for_family = |is_ipv6: bool| {
        let mut block = block.clone();
        block.zones.iter_mut().for_each(|(_, addresses)| addresses.retain(|a| a.is_ipv6() == is_ipv6));
        block.zones.retain(|(_, addresses)| !addresses.is_empty());
        block.steps.dns64.take_if(|_| !is_ipv6);
        block
    };
    [true, false].map(for_family).into_iter().filter(|block| !block.zones.is_empty()).collect()
}

/// Where a block listens.
enum Addresses {
    /// No `bind`: every address of both families.
    All,
    /// `bind`, less its exceptions.
    Bound(Vec<IpAddr>),
}

impl Addresses {
    fn sockets(&self, port: u16) -> Vec<SocketAddr> {
        let all = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let addresses = match self {
            Addresses::All => &all[..],
            Addresses::Bound(addresses) => addresses,
        };
        addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect()
    }
}

fn listen_addresses(draft: &Draft, diagnostics: &mut Diagnostics) -> Addresses {
    let Some((bound, span)) = &draft.bind else {
        return Addresses::All;
    };
    let left: Vec<IpAddr> = bound.iter().copied().filter(|address| !draft.except.contains(address)).collect();
    if left.is_empty() && !bound.is_empty() {
        let error = Diagnostic::at(*span, "`except` leaves no address to listen on");
        diagnostics.error(error.remedy("bind more, or except less"));
    }
    Addresses::Bound(left)
}

fn labels(block: &Block, default_port: u16, diagnostics: &mut Diagnostics) -> Vec<(Name, u16, Span)> {
    let mut found = Vec::new();
    for label in &block.labels {
        match zone::parse_label(&label.text, default_port) {
            Ok((names, port)) => {
                found.extend(names.into_iter().map(|name| (name, port, label.span)));
            }
            Err(error) => {
                let message = format!("`{}` is not a zone: {error}", label.text);
                let error = Diagnostic::at(label.span, message);
                diagnostics.error(error.remedy("write ZONE or ZONE:PORT, such as cluster.local:53"));
            }
        }
    }
    found
}

/// Which zones are served where, to refuse a second block for the same.
#[derive(Default)]
struct Taken {
    /// By zone, address and port; `None` stands for every address.
    exact: HashMap<(Name, Option<IpAddr>, u16), Span>,
    /// By zone and port, with and without `bind`.
    any: HashMap<(Name, u16, bool), Span>,
}

impl Taken {
    /// Claims a zone; false, with an error, if another block has it.
    ///
    /// As in CoreDNS a block without `bind` excludes every other block of its zone and port, while
    /// `bind 0.0.0.0` is an address like any other.
    fn take(
        &mut self,
        name: &Name,
        addresses: &Addresses,
        port: u16,
        span: Span,
        diagnostics: &mut Diagnostics,
    ) -> bool {
        let (keys, bound): (Vec<Option<IpAddr>>, bool) = match addresses {
            Addresses::All => (vec![None], false),
            Addresses::Bound(ips) => (ips.iter().copied().map(Some).collect(), true),
        };
        let mut earlier = self.any.get(&(name.clone(), port, !bound)).copied();
        for ip in &keys {
            let key = (name.clone(), *ip, port);
            earlier = earlier.or_else(|| self.exact.get(&key).copied());
        }
        if let Some(earlier) = earlier {
            let message = format!("zone {name} on port {port} is already served");
            diagnostics.error(
                Diagnostic::at(span, message)
                    .other(earlier, "by this block")
                    .remedy("remove one of the two, or give them different addresses with `bind`"),
            );
            return false;
        }
        self.any.entry((name.clone(), port, bound)).or_insert(span);
        for ip in keys {
            self.exact.insert((name.clone(), ip, port), span);
        }
        true
    }
}
