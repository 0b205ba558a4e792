//! What this process may do to the node.

use rustix::thread::{CapabilitySet, capabilities};

/// The capabilities that full service needs and this thread lacks: `CAP_NET_ADMIN`,
/// `CAP_NET_BIND_SERVICE`.
///
/// A kernel that does not tell counts as lacking none: the attempt will show.
pub fn missing() -> Vec<&'static str> {
    let Ok(held) = capabilities(None) else {
        return Vec::new();
    };
    let needed = [
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
        (CapabilitySet::NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE"),
    ];
    let lacks = |(set, _): &(CapabilitySet, _)| !held.effective.contains(*set);
    needed.into_iter().filter(lacks).map(|(_, name)| name).collect()
}

/// What the lack of `capability`, a name from [`missing`], means, and what works without it.
pub fn consequence(capability: &str) -> &'static str {
    match capability {
        "CAP_NET_ADMIN" => {
            "the link and the rules cannot be set up (-setupinterface, -setupiptables); serving on \
             addresses that exist already works"
        }
        "CAP_NET_BIND_SERVICE" => {
            "ports below net.ipv4.ip_unprivileged_port_start (1024 by default) cannot be bound, DNS \
             on 53 among them; serving on a higher -dns.port works"
        }
        _ => "unknown to Doorstep",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_dropped_a_capability_lacks_it() {
        std::thread::spawn(|| {
            let mut held = capabilities(None).unwrap();
            held.effective &= !CapabilitySet::NET_ADMIN;
            rustix::thread::set_capabilities(None, held).unwrap();
            assert!(missing().contains(&"CAP_NET_ADMIN"));
        })
        .join()
        .unwrap();
        for capability in missing() {
            assert!(consequence(capability).contains("works"));
        }
    }
}
