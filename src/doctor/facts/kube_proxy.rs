//! Which kube-proxy it is, by its traces.

use super::Facts;

/// How services become pods' addresses here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KubeProxy {
    /// Chains in iptables.
    Iptables,
    /// A table of its own in nftables.
    Nftables,
    /// Virtual servers in the kernel.
    Ipvs,
    /// Cilium without kube-proxy, or something like it.
    Cilium,
}

impl KubeProxy {
    /// For people and machines.
    pub fn name(self) -> &'static str {
        match self {
            KubeProxy::Iptables => "iptables",
            KubeProxy::Nftables => "nftables",
            KubeProxy::Ipvs => "ipvs",
            KubeProxy::Cilium => "cilium-like",
        }
    }
}

impl Facts {
    /// How services become pods' addresses; `None`: nothing on this node shows it.
    pub fn kube_proxy(&self) -> Option<KubeProxy> {
        // In IPVS mode kube-proxy has chains in iptables too.
        if !self.ipvs.is_empty() || self.link("kube-ipvs0").is_some() {
            return Some(KubeProxy::Ipvs);
        }
        if self.nft_tables.iter().any(|name| name == "kube-proxy") {
            return Some(KubeProxy::Nftables);
        }
        if self.iptables.kube_proxy {
            return Some(KubeProxy::Iptables);
        }
        self.links.iter().any(|link| link.name.starts_with("cilium_")).then_some(KubeProxy::Cilium)
    }
}
