//! The Corefile that is served when there is none: NodeLocal DNSCache's stock one in effect.

use std::net::IpAddr;

/// Zones that belong to the cluster.
const CLUSTER_ZONES: [&str; 3] = ["cluster.local", "in-addr.arpa", "ip6.arpa"];

/// The Corefile's text, in the template's tokens.
///
/// Without a cluster upstream everything goes to the node's resolvers.
pub(super) fn corefile(local_ips: &[IpAddr], port: u16, has_cluster_upstream: bool) -> String {
    let health = match local_ips.first() {
        Some(IpAddr::V4(ip)) => format!("    health {ip}:8080\n"),
        Some(IpAddr::V6(ip)) => format!("    health [{ip}]:8080\n"),
        None => "    health\n".to_owned(),
    };
    let bind = match local_ips {
        [] => "",
        _ => "    bind __PILLAR__LOCAL__DNS__\n",
    };
    let block = |zone: &str, cache: &str, health: &str, forward: &str| {
        format!(
            "{zone}:{port} {{\n    errors\n    {cache}\n    reload\n    loop\n{bind}    {forward}\n    \
             prometheus __PROMETHEUS__ENDPOINT__\n{health}}}\n"
        )
    };
    let node = "forward . __PILLAR__UPSTREAM__SERVERS__";
    if !has_cluster_upstream {
        return block(".", "cache 30", &health, node);
    }
    let cluster = "forward . __PILLAR__CLUSTER__DNS__ {\n        force_tcp\n    }";
    let mut text = String::new();
    for (index, zone) in CLUSTER_ZONES.into_iter().enumerate() {
        text += &match index {
            0 => {
                let cache = "cache {\n        success 9984 30\n        denial 9984 5\n    }";
                block(zone, cache, &health, cluster)
            }
            _ => block(zone, "cache 30", "", cluster),
        };
    }
    text + &block(".", "cache 30", "", node)
}
