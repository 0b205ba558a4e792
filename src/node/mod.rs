//! The node's state: the link with its addresses, and the netfilter rules.
//!
//! | file | what |
//! |---|---|
//! | `link` | the link and its addresses |
//! | `links`, `nftables::survey` | everybody's links and rules, read for the doctor |
//! | `rules` | the rules as typed values, node-cache's order and comments |
//! | `nftables` | the rules in a table that dies with its owner |
//! | `iptables` | the rules as node-cache writes them |
//! | `detect` | which of the two |
//! | `leftovers` | what a killed node-cache left |
//! | `reconcile` | the thread that compares and repairs; `monitor` wakes it |
//! | `remedy` | cures for nodes where the cache does not stand on the pods' way |
//! | `capability` | what this process may do at all |
//! | `netlink`, `command` | how the kernel and the iptables tools are talked to |
//!
//! Everything blocks; nothing here knows a DNS message.

mod capability;
pub mod command;
mod config;
pub mod conntrack;
pub mod detect;
mod error;
pub mod iptables;
pub mod leftovers;
pub mod link;
pub mod links;
pub mod monitor;
pub mod netlink;
pub mod nftables;
mod reconcile;
pub mod remedy;
pub mod rules;

use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use netlink_packet_route::link::LinkAttribute;
use rustix::io::Errno;
use tracing::{info, warn};

pub use capability::{consequence as capability_consequence, missing as missing_capabilities};
pub use config::{Backend, Config};
pub use error::Error;
pub use reconcile::{Drift, Event, Kept, Reconciler, SpawnError, Trigger};

use link::Link;
use monitor::Change;
use nftables::{Ownership, Table};
use rules::RuleSet;

use crate::route_message::RouteMessage;

/// The node's state as this process wants it, and the means to get there.
///
/// Dropping it leaves the link and iptables rules; an owned nftables table goes with it.
#[derive(Debug)]
pub struct Node {
    config: Config,
    /// Addresses that a listener answers on; only for these are there rules.
    served: Vec<IpAddr>,
    left: Vec<IpAddr>,
    link: Link,
    backend: Option<Backend>,
    table: Option<Table>,
    ownership: Ownership,
    link_wanted: bool,
    rules_wanted: Wanted,
}

/// Which rules are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Nothing,
    /// Those under which what has come is answered.
    Answers,
    Everything,
}

impl Node {
    /// The state that `config` asks for; nothing is read or done yet.
    pub fn new(config: Config) -> Node {
        Node {
            served: config.local_ips.clone(),
            left: Vec::new(),
            link: Link::new(&config.interface, &config.local_ips),
            backend: None,
            table: None,
            ownership: Ownership::Owned,
            link_wanted: false,
            rules_wanted: Wanted::Nothing,
            config,
        }
    }

    /// Makes no use of the kernel's owner flag: an nftables table then outlives this process.
    pub fn without_owner_flag(mut self) -> Node {
        self.ownership = Ownership::Plain;
        self
    }

    /// Takes over the nftables table of a predecessor, by the socket that owns it.
    pub fn adopt_lease(&mut self, socket: OwnedFd) -> Result<(), Error> {
        self.table = Some(Table::adopt(socket).map_err(Error::Nftables)?);
        self.backend = Some(Backend::Nftables);
        Ok(())
    }

    /// The socket that owns the nftables table, once rules were installed that way: whoever holds
    /// a descriptor of it keeps the table alive.
    pub fn lease(&self) -> Option<BorrowedFd<'_>> {
        self.table.as_ref().map(AsFd::as_fd)
    }

    /// Who carries the rules; `None` before they were first installed.
    pub fn backend(&self) -> Option<Backend> {
        self.backend
    }

    /// Makes the link and its addresses, and from now on keeps them. Once there are rules of ours, addresses go that
    /// a process before left and that are not wanted. Without `-setupinterface` nothing happens.
    ///
    /// An error leaves what could be done done, and the rest to [`Node::reconcile`].
    pub fn ensure_link(&mut self) -> Result<link::Changes, Error> {
        if !self.config.setup_interface {
            return Ok(link::Changes::default());
        }
        self.link_wanted = true;
        // Until then, those of a process before may bring queries to addresses that are not wanted any more.
        let rules_are_ours = self.rules_wanted != Wanted::Nothing || !self.config.setup_rules;
        self.link.ensure(rules_are_ours)
    }

    /// Says which of the local addresses a listener answers on: all, unless told otherwise. Those that are left
    /// keep the rules for answers until [`Node::forget_left`]; returns whether there are any.
    pub fn serve(&mut self, addresses: &[IpAddr]) -> bool {
        let served = self.config.local_ips.iter().filter(|ip| addresses.contains(ip)).copied().collect();
        let before = std::mem::replace(&mut self.served, served);
        if self.rules_wanted != Wanted::Nothing {
            self.left.extend(before);
        }
        self.left.retain(|ip| !self.served.contains(ip));
        !self.left.is_empty()
    }

    /// Removes the rules for answers at addresses where nobody answers any more. Returns how many there were.
    pub fn forget_left(&mut self) -> Result<usize, Error> {
        let none = std::mem::take(&mut self.left).is_empty() || self.rules_wanted == Wanted::Nothing;
        if none { Ok(0) } else { self.write_rules() }
    }

    /// The port of the health check, for the rules.
    pub fn set_health_port(&mut self, port: u16) {
        self.config.health_port = port;
    }

    /// Installs the rules that are missing and from now on keeps them. Returns how many were missing.
    /// Without `-setupiptables` nothing happens.
    ///
    /// Only addresses that are served and are on this node get rules: a rule for any other would send
    /// its packets past DNAT to nobody.
    ///
    /// The first time, the backend is chosen; [`Node::remove_leftovers`] is for what another backend left.
    pub fn install_rules(&mut self) -> Result<usize, Error> {
        if !self.config.setup_rules {
            return Ok(0);
        }
        self.rules_wanted = Wanted::Everything;
        if self.backend.is_some() {
            return self.write_rules();
        }
        let facts = detect::gather(&self.config);
        let choice = detect::choose(self.config.backend, &facts);
        info!(
            backend = ?choice.backend,
            kube_proxy = facts.kube_proxy.unwrap_or("unseen"),
            "rules go through this backend: {}",
            choice.reason
        );
        for ip in detect::balanced_by_ipvs(&self.config) {
            warn!(
                "IPVS balances DNS at {ip}, so pods that ask it never reach the cache: leave it out of -localip \
                 and give pods the link-local address, or see `doorstep remedy ipvs-notrack`"
            );
        }
        self.backend = Some(choice.backend);
        self.write_rules()
    }

    /// Removes what node-cache, or this program with the other backend, left of such rules where ours are not, save
    /// rules for `elsewhere`: addresses that another process answers at. A failure is logged.
    pub fn remove_leftovers(&self, elsewhere: &[IpAddr]) {
        match self.backend {
            // Left in place they would outlive us, and be a black hole then.
            Some(Backend::Nftables) => leftovers::remove(elsewhere)
                .iter()
                .for_each(|error| warn!("leftover node-cache rules stay: {error}")),
            Some(Backend::Iptables) => {
                let removed = Table::open(Ownership::Plain).and_then(|mut table| table.remove());
                match removed {
                    Ok(true) => info!("leftover table inet {} removed", nftables::TABLE),
                    Ok(false) => {}
                    Err(e) => warn!("a leftover nftables table may stay: {e}"),
                }
            }
            None => {}
        }
    }

    /// Removes those rules that bring queries here, and keeps the others. Returns how many were to be changed.
    ///
    /// Call [`Node::remove_rules`] once what has come is answered.
    pub fn release(&mut self) -> Result<usize, Error> {
        let held_elsewhere = self.table.as_ref().is_some_and(Table::held_elsewhere);
        if self.rules_wanted == Wanted::Nothing || self.backend.is_none() || held_elsewhere {
            return Ok(0);
        }
        self.rules_wanted = Wanted::Answers;
        self.write_rules()
    }

    /// Removes the rules and no longer keeps them. Returns whether there were any.
    pub fn remove_rules(&mut self) -> Result<bool, Error> {
        self.rules_wanted = Wanted::Nothing;
        match (self.backend, &mut self.table) {
            (Some(Backend::Nftables), Some(table)) => table.remove().map_err(Error::Nftables),
            (Some(Backend::Iptables), _) => {
                let all = RuleSet::new(&self.config);
                iptables::remove(&all).map(|count| count > 0).map_err(Error::Iptables)
            }
            _ => Ok(false),
        }
    }

    /// Deletes the link and no longer keeps it. Returns whether it was there.
    pub fn remove_link(&mut self) -> Result<bool, Error> {
        self.link_wanted = false;
        if !self.config.setup_interface {
            return Ok(false);
        }
        self.link.remove()
    }

    /// Of the rules of iptables keeps those for `addresses` alone, and until [`Node::forget_left`] those for answers.
    /// Returns how many were to be changed.
    pub fn retain_rules(&mut self, addresses: &[IpAddr]) -> Result<usize, Error> {
        if self.backend != Some(Backend::Iptables) || self.rules_wanted == Wanted::Nothing {
            return Ok(0);
        }
        self.serve(addresses);
        self.write_rules()
    }

    /// Makes the link anew if one of `addresses` is on this node no more: a process that answers at them has bound
    /// them between the last look and the link's removal.
    pub fn give_back(&mut self, addresses: &[IpAddr]) -> Result<(), Error> {
        let lacking = self.config.setup_interface && addresses.iter().any(|ip| !is_on_this_node(*ip));
        if lacking { self.link.ensure(false).map(drop) } else { Ok(()) }
    }

    /// Compares what was set up and not removed since with what is there, and repairs it.
    pub fn reconcile(&mut self) -> Drift {
        let mut drift = Drift::default();
        if self.link_wanted {
            // An address that is not wanted may be what another process needs that has come since.
            match self.link.ensure(false) {
                Ok(changes) => {
                    drift.links = usize::from(changes.created);
                    drift.addresses = changes.added + changes.removed;
                }
                Err(e) => drift.errors.push(e),
            }
        }
        let repaired = match self.rules_wanted {
            Wanted::Nothing => Ok(0),
            Wanted::Answers => self.write_rules(),
            Wanted::Everything => self.install_rules(),
        };
        match repaired {
            Ok(repaired) => drift.rules = repaired,
            Err(e) => drift.errors.push(e),
        }
        drift
    }

    /// Removes the rules, then the link: an address must not go while a rule still sends it packets
    /// past DNAT. Goes on after failures and returns them all.
    pub fn teardown(&mut self) -> Vec<Error> {
        let rules = self.remove_rules().err();
        let link = self.remove_link().err();
        rules.into_iter().chain(link).collect()
    }

    /// The rules that there should be now.
    fn wanted_rules(&self) -> RuleSet {
        let here = |ips: &[IpAddr]| ips.iter().copied().filter(|ip| is_on_this_node(*ip)).collect::<Vec<_>>();
        let (served, left) = (here(&self.served), RuleSet::answers(&self.config, &here(&self.left)));
        match self.rules_wanted {
            Wanted::Nothing => RuleSet::of(&self.config, &[]),
            Wanted::Answers => RuleSet::answers(&self.config, &served).and(left),
            Wanted::Everything => RuleSet::of(&self.config, &served).and(left),
        }
    }

    fn write_rules(&mut self) -> Result<usize, Error> {
        let wanted = self.wanted_rules();
        match self.backend {
            Some(Backend::Iptables) => {
                let removed = iptables::remove(&RuleSet::new(&self.config).without(&wanted))?;
                Ok(removed + iptables::install(&wanted)?)
            }
            _ => {
                let table = match &mut self.table {
                    Some(table) => table,
                    none => {
                        let opened = Table::open(self.ownership).map_err(Error::Nftables)?;
                        none.insert(opened)
                    }
                };
                let none = wanted.rules().is_empty();
                let changed = if none { table.remove().map(usize::from) } else { table.install(&wanted) };
                changed.map_err(Error::Nftables)
            }
        }
    }
}

impl Kept for Node {
    fn reconcile(&mut self) -> Drift {
        Node::reconcile(self)
    }

    fn concerned_by(&self, change: Change<'_>) -> bool {
        match change {
            Change::Route(RouteMessage::NewLink(link) | RouteMessage::DelLink(link)) => {
                let ours =
                    |a: &LinkAttribute| matches!(a, LinkAttribute::IfName(name) if name == self.link.name());
                Some(link.header.index) == self.link.index() || link.attributes.iter().any(ours)
            }
            Change::Route(RouteMessage::NewAddress(address) | RouteMessage::DelAddress(address)) => {
                self.link.index().is_none_or(|index| address.header.index == index)
            }
            Change::Route(_) => false,
            Change::Rules { table, chain } => match self.backend {
                Some(Backend::Nftables) => table == Some(nftables::TABLE),
                Some(Backend::Iptables) => {
                    matches!(table, Some("raw" | "filter"))
                        && matches!(chain, None | Some("PREROUTING" | "INPUT" | "OUTPUT"))
                }
                None => false,
            },
        }
    }

    /// Another process holds the very rules that this one wants: its end is not announced.
    fn is_waiting(&self) -> bool {
        self.rules_wanted == Wanted::Everything && self.table.as_ref().is_some_and(Table::held_elsewhere)
    }
}

/// Whether a socket could be bound to `ip`, which without `IP_FREEBIND` takes a local address.
pub fn is_on_this_node(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// Removes whatever Doorstep or node-cache may have left on the node, whoever set it up: rules of
/// both backends, by shape and by node-cache's comment, what remedies left, then the link. Goes on after failures and
/// returns them all.
///
/// What `config` says not to set up is not torn down either.
pub fn teardown(config: &Config) -> Vec<Error> {
    let mut errors = Vec::new();
    if config.setup_rules {
        match Table::open(Ownership::Plain).and_then(|mut table| table.delete()) {
            Ok(_) => {}
            // A kernel without nftables holds no table of ours.
            Err(netlink::Error::Socket { errno, .. }) if errno == Errno::PROTONOSUPPORT => {}
            Err(e) => errors.push(Error::Nftables(e)),
        }
        match iptables::remove(&RuleSet::new(config)) {
            Ok(_) | Err(iptables::Error::Missing { .. }) => {}
            Err(e) => errors.push(Error::Iptables(e)),
        }
        errors.extend(leftovers::remove(&[]));
        errors.extend(remedy::clean());
    }
    if config.setup_interface
        && let Err(e) = Link::new(&config.interface, &config.local_ips).remove()
    {
        errors.push(e);
    }
    errors
}
