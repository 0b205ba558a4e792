//! What to type while the cluster is held.

use std::path::Path;

use super::Cluster;
use super::network::{KUBE_DNS_VIP, NODE_LOCAL};

/// Commands for another terminal; in a user namespace they need its help to get in.
pub(super) fn text(cluster: &Cluster, binary: &Path, log: &Path, in_user_namespace: bool) -> String {
    let enter = match in_user_namespace {
        true => format!("nsenter -t {} -U -m -n --preserve-credentials ", std::process::id()),
        false => String::new(),
    };
    let who = if in_user_namespace { "as the same user" } else { "as root" };
    let in_pod = format!("  {enter}ip netns exec {}", cluster.pod().name());
    let in_node = format!("  {enter}ip netns exec {}", cluster.node().name());
    let lines = [
        String::new(),
        format!("The cluster stays until Ctrl-C. In another terminal, {who}:"),
        format!("{in_pod} dig @{NODE_LOCAL} kubernetes.default.svc.cluster.local"),
        format!("{in_pod} dig @{KUBE_DNS_VIP} web.default.svc.cluster.local"),
        format!("{in_pod} dig @{NODE_LOCAL} slow-1200.x.example.org"),
        format!("{in_pod} dig @{NODE_LOCAL} servfail.x.cluster.local"),
        format!("{in_pod} dig @{NODE_LOCAL} whoami.cluster.local TXT"),
        format!("{in_node} curl -s http://localhost:9253/metrics"),
        format!("{in_node} conntrack -L"),
        format!("{in_node} {} demo race {KUBE_DNS_VIP} --pod {}", binary.display(), cluster.pod().name()),
        format!("  {enter}tail -f {}", log.display()),
        String::new(),
    ];
    lines.join("\n")
}
