//! The try-it cluster: a pod, a node and kube-dns in network namespaces, and a tour through them.
//!
//! [`run`] is the demonstration; [`Cluster`] alone serves tests that need a pod, a node and a
//! kube-dns in the real kernel.

mod client;
mod cluster;
mod conntrack;
mod error;
mod interrupt;
mod kube_dns;
mod kube_proxy;
mod namespace;
mod netfilter;
pub mod network;
mod program;
mod report;
mod tour;
mod zone;

pub use client::{Lookup, Transport, lookup, lookup_within};
pub use cluster::{Cluster, ClusterConfig};
pub use conntrack::{Entry, NotrackRules, dns_entries, flush, notrack_rules};
pub use error::DemoError;
pub use kube_dns::QueryCounts;
pub use namespace::Namespace;
pub use report::Report;
pub use tour::{Options, run};
