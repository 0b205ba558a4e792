//! Cures for nodes where the cache does not stand on the pods' way to kube-dns.
//!
//! | remedy | the race is | by |
//! |---|---|---|
//! | `ipvs_notrack` | without an object | rules that leave DNS between pods and IPVS untracked |
//! | `aaaa_delay` | over before the second packet starts | a few milliseconds for AAAA queries |
//! | `rps` | between packets on one CPU, which is none | a receive-packet-steering mask on pods' links |
//! | `random_fully` | without a clash of ports | source ports chosen at random in MASQUERADE |
//!
//! Each keeps a state of the node in place while its process runs, and undoes it at the end.

pub mod aaaa_delay;
mod chains;
mod cidr;
pub mod ipvs_notrack;
mod links;
pub mod random_fully;
pub mod rps;

use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;

use super::nftables::{Ownership, Table};
use super::{Drift, Error, Kept, netlink};

pub use cidr::Cidr;
pub use links::Selection;

use super::monitor::Change;

/// Which remedy, as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The remedy.
    pub cure: Cure,
    /// How often its state is compared and repaired, besides at every notification.
    pub interval: Duration,
}

/// The remedies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cure {
    /// `ipvs-notrack`.
    IpvsNotrack(ipvs_notrack::Config),
    /// `aaaa-delay`.
    AaaaDelay(aaaa_delay::Config),
    /// `rps`.
    Rps(rps::Config),
    /// `random-fully`.
    RandomFully(random_fully::Config),
}

impl Order {
    /// The subcommand's name.
    pub fn name(&self) -> &'static str {
        match self.cure {
            Cure::IpvsNotrack(_) => "ipvs-notrack",
            Cure::AaaaDelay(_) => "aaaa-delay",
            Cure::Rps(_) => "rps",
            Cure::RandomFully(_) => "random-fully",
        }
    }
}

/// Prepares a remedy; nothing is changed before its first [`Kept::reconcile`].
pub fn start(order: &Order) -> Result<Box<dyn Remedy>, Refusal> {
    Ok(match &order.cure {
        Cure::IpvsNotrack(config) => {
            let sources = ipvs_notrack::Sources::default();
            Box::new(ipvs_notrack::IpvsNotrack::new(config.clone(), sources)?)
        }
        Cure::AaaaDelay(config) => aaaa_delay::start(config)?,
        Cure::Rps(config) => Box::new(rps::Rps::new(config.clone(), Path::new("/sys"))?),
        Cure::RandomFully(_) => Box::new(random_fully::RandomFully::new()),
    })
}

/// A cure that can be taken back.
pub trait Remedy: Kept {
    /// The subcommand's name.
    fn name(&self) -> &'static str;

    /// Puts everything back as it was. Goes on after failures and returns them all.
    fn undo(&mut self) -> Vec<Error>;
}

impl Kept for Box<dyn Remedy> {
    fn reconcile(&mut self) -> Drift {
        (**self).reconcile()
    }

    fn concerned_by(&self, change: Change<'_>) -> bool {
        (**self).concerned_by(change)
    }

    fn is_waiting(&self) -> bool {
        (**self).is_waiting()
    }
}

/// Why a remedy does not start.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A fact is needed that neither flag nor node tells.
    #[error("{remedy}: {flag} is not given, and nothing on this node tells it")]
    Unknown {
        /// The remedy.
        remedy: &'static str,
        /// The flag that would tell.
        flag: String,
    },
    /// IPVS does not balance DNS here.
    #[error(
        "ipvs-notrack: IPVS balances no UDP to port 53{}{wanted} with pods of the same family (/proc/net/ip_vs): \
         without IPVS, untracked queries would go nowhere",
        if wanted.is_empty() { "" } else { " of " }
    )]
    NoVirtualServer {
        /// The ClusterIPs that were asked for.
        wanted: String,
    },
}

/// Removes what killed remedies left on the node. Goes on after failures and returns them all.
pub fn clean() -> Vec<Error> {
    ipvs_notrack::clean().into_iter().chain(random_fully::clean()).chain(aaaa_delay::clean()).collect()
}

/// Removes a table of a remedy's, unless a living process owns it.
fn remove_table(name: &'static str) -> Option<Error> {
    match Table::named(name, Ownership::Plain).and_then(|mut table| table.remove()) {
        Ok(_) => None,
        // A kernel without nftables holds no table of ours.
        Err(netlink::Error::Socket { errno, .. }) if errno == Errno::PROTONOSUPPORT => None,
        Err(e) => Some(Error::Nftables(e)),
    }
}
