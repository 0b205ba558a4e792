//! Giving up what a process does not need, before it reads what others sent.
//!
//! | file | what |
//! |---|---|
//! | `capabilities` | root's rights |
//! | `files` | what may be opened, by Landlock |
//! | `system_calls` | what may be asked of the kernel, by seccomp |
//!
//! Nothing here is a reason not to serve: what a kernel or a container runtime refuses is said and left.

mod capabilities;
mod files;
mod system_calls;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;

use rustix::thread::{CapabilitySet, set_no_new_privs};

/// How far one control holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// As far as is asked for.
    Whole,
    /// As far as this kernel or this process's rights go; what is left open.
    Part(String),
    /// Not at all, although it should; why.
    Failed(String),
}

impl Extent {
    fn of<E: fmt::Display>(outcome: Result<Extent, E>) -> Extent {
        outcome.unwrap_or_else(|error| Extent::Failed(error.to_string()))
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Extent::Whole => write!(out, "yes"),
            Extent::Part(open) => write!(out, "in part ({open})"),
            Extent::Failed(why) => write!(out, "no ({why})"),
        }
    }
}

/// What a process could give up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    controls: Vec<(&'static str, Extent)>,
}

impl Confinement {
    /// Each control by its name.
    pub fn controls(&self) -> impl Iterator<Item = (&'static str, &Extent)> {
        self.controls.iter().map(|(name, extent)| (*name, extent))
    }

    /// Says what holds at debug, and warns of what should and does not.
    pub fn log(&self) {
        let all: Vec<String> = self.controls().map(|(name, extent)| format!("{name}: {extent}")).collect();
        tracing::debug!("given up: {}", all.join("; "));
        for (name, extent) in self.controls() {
            if let Extent::Failed(why) = extent {
                tracing::warn!("this process runs with more rights than it needs: {name}: {why}");
            }
        }
    }
}

/// Takes from the calling thread, and from all that it starts, everything that answering queries does not
/// need: capabilities, programs, new sockets to listen on, and writing to files except beneath `writable`.
///
/// To be called before there are other threads: those would keep what they have.
pub fn confine(writable: Option<&Path>) -> Confinement {
    let none = CapabilitySet::empty();
    Confinement {
        controls: vec![
            ("capabilities", Extent::of(capabilities::limit(none, none))),
            // The next two would not be granted without it.
            ("no_new_privs", Extent::of(set_no_new_privs(true).map(|()| Extent::Whole))),
            ("Landlock", Extent::of(files::restrict(writable))),
            // The last, for it allows none of the calls above.
            ("seccomp", Extent::of(system_calls::restrict())),
        ],
    }
}

/// Takes from the calling thread, and from all that it starts, the capabilities that link, rules and sockets
/// do not need.
///
/// To be called before there are other threads: those would keep what they have.
pub fn keep_to_the_network() -> Confinement {
    let network = CapabilitySet::NET_ADMIN
        .union(CapabilitySet::NET_BIND_SERVICE)
        // iptables-legacy talks to the kernel through a raw socket.
        .union(CapabilitySet::NET_RAW);
    // Not held here, but a worker that root starts has it, to empty its own bounding set.
    let attainable = network.union(CapabilitySet::SETPCAP);
    Confinement {
        controls: vec![("other capabilities", Extent::of(capabilities::limit(network, attainable)))],
    }
}
