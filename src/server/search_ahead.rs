//! The rest of a pod's search path, fetched before the pod asks for it.
//!
//! With `ndots:5` a pod of namespace `ns` that wants `example.com` asks, for A and for AAAA and one after
//! the other:
//!
//! ```text
//! example.com.ns.svc.cluster.local.   NXDOMAIN ─► now we know that the next three will come
//! example.com.svc.cluster.local.      NXDOMAIN
//! example.com.cluster.local.          NXDOMAIN
//! example.com.                        the answer
//! ```
//!
//! Asking for the rest at the first NXDOMAIN makes the pod's next queries hits. They are the very queries
//! that the pod would have caused, so no answer can differ; what is wasted is what a pod that finds its
//! name earlier, or meant the first one only, does not ask.

use crate::wire::Name;

/// `svc`, the label between namespace and cluster domain.
const SVC: &[u8] = b"\x03svc";

/// What a block with `search_ahead` knows of its pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchAhead {
    /// The cluster's domains: the block's zones.
    pub domains: Vec<Name>,
    /// Search domains of the node, which pods try after the cluster's.
    pub node_domains: Vec<Name>,
}

impl SearchAhead {
    /// The names a pod asks for after `name` (folded wire octets) did not exist, in its order: none if
    /// `name` is not `X.NAMESPACE.svc.` and one of the cluster's domains.
    pub fn names_after(&self, name: &[u8]) -> Vec<Box<[u8]>> {
        let found = self.domains.iter().find_map(|domain| Some((wanted(name, domain)?, domain)));
        let Some((wanted, domain)) = found else { return Vec::new() };
        let service_domain = [SVC, domain.as_wire()].concat();
        let cluster = [service_domain.as_slice(), domain.as_wire()];
        let node = self.node_domains.iter().map(Name::as_wire);
        let suffixes = cluster.into_iter().chain(node).chain([[0].as_slice()]);
        suffixes.filter_map(|suffix| Name::join(wanted, suffix)).collect()
    }
}

/// The labels that a pod wanted when it asked for `name`: those before `NAMESPACE.svc.` and `domain`.
fn wanted<'n>(name: &'n [u8], domain: &Name) -> Option<&'n [u8]> {
    if !domain.contains(name) {
        return None;
    }
    let service = &name[..name.len() - domain.as_wire().len()];
    let mut starts = Vec::new();
    let mut at = 0;
    while let Some(len) = service.get(at) {
        starts.push(at);
        at += 1 + usize::from(*len);
    }
    let [.., namespace, svc] = starts[..] else { return None };
    (namespace > 0 && service.get(svc..)? == SVC).then(|| &service[..namespace])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::write_text;

    fn names_after(name: &str, node_domains: &[&str]) -> Vec<String> {
        let name_of = |text: &&str| Name::from_text(text).unwrap();
        let names = |texts: &[&str]| texts.iter().map(name_of).collect();
        let domains = names(&["in-addr.arpa", "cluster.local"]);
        let ahead = SearchAhead { domains, node_domains: names(node_domains) };
        let text = |wire: &[u8]| {
            let mut text = String::new();
            write_text(wire, &mut text).unwrap();
            text
        };
        ahead.names_after(name_of(&name).as_wire()).iter().map(|wire| text(wire)).collect()
    }

    #[test]
    fn the_rest_of_the_search_path() {
        assert_eq!(
            names_after("example.com.default.svc.cluster.local", &["ec2.internal"]),
            [
                "example.com.svc.cluster.local.",
                "example.com.cluster.local.",
                "example.com.ec2.internal.",
                "example.com."
            ]
        );
        assert_eq!(
            names_after("db.prod.svc.cluster.local", &[]),
            ["db.svc.cluster.local.", "db.cluster.local.", "db."]
        );
    }

    #[test]
    fn a_search_path_within_a_search_path() {
        assert_eq!(
            names_after("db.prod.svc.cluster.local.default.svc.cluster.local", &[])[2],
            "db.prod.svc.cluster.local."
        );
    }

    #[test]
    fn other_names_have_no_rest() {
        for name in [
            ".",
            "example.com",
            "cluster.local",
            "svc.cluster.local",
            "default.svc.cluster.local",
            "example.com.svc.cluster.org",
            "example.com.cluster.local",
            "example.com.default.pod.cluster.local",
            r"example.com.default\003svc.cluster.local",
        ] {
            assert_eq!(names_after(name, &[]), <[String; 0]>::default(), "{name}");
        }
    }
}
