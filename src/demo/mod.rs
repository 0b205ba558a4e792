//! The try-it cluster: a pod, a node and kube-dns in network namespaces, and a tour through them.

mod client;
mod cluster;
mod conntrack;
mod error;
mod kube_dns;
mod kube_proxy;
mod namespace;
mod netfilter;
pub mod network;
mod zone;

pub use client::{Lookup, Transport, lookup};
pub use cluster::{Cluster, ClusterConfig};
pub use conntrack::{Entry, NotrackRules, dns_entries, flush, notrack_rules};
pub use error::DemoError;
pub use kube_dns::QueryCounts;
pub use namespace::Namespace;
