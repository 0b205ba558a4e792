//! The race laboratory: two pods, a node and kube-dns in network namespaces, and pairs of queries through
//! them, straight and with the cache on the node.
//!
//! [`run`] is the demonstration; [`Cluster`] and [`race`] alone serve tests that need a pod, a node and a
//! kube-dns in the real kernel, or queries that race.

mod client;
mod cluster;
mod conntrack;
mod error;
mod expressions;
mod interrupt;
mod invitation;
mod kube_dns;
mod kube_proxy;
mod lab;
mod namespace;
pub mod network;
mod processor_time;
mod program;
pub mod race;
mod report;
mod setting;
mod statistics;
mod user_namespace;
mod zone;

pub use client::{Lookup, Transport, lookup, lookup_within};
pub use cluster::{Cluster, ClusterConfig};
pub use conntrack::{Entry, NotrackRules, dns_entries, flush, notrack_rules};
pub use error::DemoError;
pub use kube_dns::QueryCounts;
pub use kube_proxy::{Masquerade, ServiceRules, Shape};
pub use lab::{Options, run};
pub use namespace::Namespace;
pub use report::{Configuration, Measurement, Report, Side};
pub use setting::Setting;
pub use statistics::Statistics;
