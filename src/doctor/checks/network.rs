//! Links, and what services do with addresses.

use super::super::facts::{Facts, KubeProxy, Link, VETH, VXLAN};
use super::Severity::{Note, Warning};
use super::{Check, Symptom, some_lines, symptom};

/// The largest answer over UDP that clients accept as a rule (RFC 9715), and its UDP and IPv6 headers.
const USUAL: u32 = 1232;
const HEADERS: u32 = 8 + 40;

pub const CHECKS: &[Check] = &[
    Check {
        id: "ipvs-clusterip",
        headline: "The cache is to serve a ClusterIP that IPVS has",
        meaning: "kube-ipvs0 has this address already: IPVS takes its packets before a socket sees them.",
        remedy: "Serve on the link-local address alone (-localip 169.254.20.10) and point kubelet's clusterDNS at it; \
            or leave pods as they are and run `doorstep remedy ipvs-notrack`.",
        examine: |facts| {
            let taken = facts.wanted.local_ips.iter().filter(|address| facts.ipvs.contains(address));
            some_lines(Warning, taken.map(|address| format!("{address} is a virtual service of IPVS")))
        },
    },
    Check {
        id: "cilium-clusterip",
        headline: "The cache is to serve a ClusterIP where Cilium translates it first",
        meaning: "Without kube-proxy the ClusterIP becomes a pod's address before any socket or rule on this node \
            sees it.",
        remedy: "Serve on the link-local address or the pod's own, with a CiliumLocalRedirectPolicy for kube-dns.",
        examine: |facts| {
            if facts.kube_proxy() != Some(KubeProxy::Cilium) {
                return None;
            }
            let lost = facts.wanted.local_ips.iter().filter(|&&address| facts.is_cluster_ip(address));
            some_lines(
                Warning,
                lost.map(|address| format!("cilium links, no kube-proxy, {address} in -localip")),
            )
        },
    },
    Check {
        id: "rps-off",
        headline: "Packets of pods are not steered to one processor",
        meaning: "Two threads of a pod that send from one socket race on two processors. A mask on the node's end of \
            the pod's link makes both packets meet one.",
        remedy: "`doorstep remedy rps` sets the masks and keeps them for new pods; a cache on the node makes it \
            needless.",
        examine: rps_off,
    },
    Check {
        id: "vxlan-checksum",
        headline: "Datagrams over VXLAN arrive with wrong checksums, or may",
        meaning: "Kernels before 5.7 get the checksum wrong when a masqueraded packet leaves through VXLAN with \
            offload, and some network cards do so with later ones: the receiver drops it, and the pod waits.",
        remedy: "`ethtool -K LINK tx-checksum-ip-generic off` for the VXLAN link, or a later kernel.",
        examine: vxlan_checksum,
    },
    Check {
        id: "mtu-below-edns",
        headline: "A link is too narrow for the largest answers",
        meaning: "An answer of the size that `bufsize` allows, else of 1232 octets, the usual EDNS size, takes 48 more \
            with its headers. On this link it is cut into fragments, which firewalls like to drop.",
        remedy: "Raise the MTU, or lower `bufsize` in the Corefile to the MTU less 48.",
        examine: |facts| {
            let largest = facts.largest_answer.unwrap_or(USUAL);
            let narrow = |link: &&Link| link.is_up && link.name != "lo" && link.mtu < largest + HEADERS;
            let line =
                |link: &Link| format!("{} has an MTU of {}, answers up to {largest}", link.name, link.mtu);
            some_lines(Warning, facts.links.iter().filter(narrow).map(line))
        },
    },
    Check {
        id: "no-dummy-driver",
        headline: "This kernel has no dummy driver",
        meaning: "node-cache cannot make its link here. Doorstep takes a bridge without ports instead.",
        remedy: "Nothing to do for Doorstep.",
        examine: |facts| {
            let needed = facts.dummy_driver == Some(false) && facts.link(&facts.wanted.interface).is_none();
            if needed {
                symptom(Note, "no module dummy, neither loaded nor installed nor built in")
            } else {
                None
            }
        },
    },
];

fn rps_off(facts: &Facts) -> Option<Symptom> {
    let races = matches!(facts.kube_proxy(), Some(proxy) if proxy != KubeProxy::Cilium);
    if facts.processors < 2 || !races || facts.is_protected() {
        return None;
    }
    let clashes = facts.growth(|sample| sample.conntrack?.clash_resolve);
    if clashes == 0 && facts.cache_runs() {
        return None;
    }
    let unsteered = facts.links.iter().filter(|link| link.kind == VETH && link.steered == Some(false));
    let lines = unsteered.map(|link| format!("{}: rps_cpus is 0", link.name));
    some_lines(if clashes > 0 { Warning } else { Note }, lines)
}

fn vxlan_checksum(facts: &Facts) -> Option<Symptom> {
    let wrong = facts.udp_growth(|udp| udp.checksum_errors);
    let old = facts.kernel.as_ref().is_some_and(|kernel| kernel.version < (5, 7));
    let suspects = |link: &&Link| link.kind == VXLAN && link.checksum_offload != Some(false);
    if wrong == 0 && !old {
        return None;
    }
    let lines = facts.links.iter().filter(suspects).map(|link| {
        let offload = if link.checksum_offload == Some(true) { "on" } else { "not read (no ethtool)" };
        format!("{}: checksum offload {offload}; UDP InCsumErrors grew by {wrong}", link.name)
    });
    some_lines(Warning, lines)
}
