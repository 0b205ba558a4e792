//! Counters, gauges and histograms, and the Prometheus text that shows them.
//!
//! Two ways to count:
//!
//! - [`ZoneShard`], for what happens to every query: one writing thread per shard, so that counting is a
//!   plain load and store and no cache line travels between cores. Shards are added up at scrape time.
//! - [`Counter`], [`Gauge`], [`Histogram`] handles from the [`Registry`], for everything rarer.
//!
//! Names, labels and buckets live in [`names`] and nowhere else. Those marked
//! [`Stability::NodeCache`](names::Stability) are what node-cache exports, so its dashboards and alerts
//! go on working. The `go_*` families are not imitated: there is no Go runtime here to measure.

mod encode;
mod handle;
mod inheritance;
mod label;
pub mod names;
mod process;
mod registry;
mod shard;
mod snapshot;

pub use encode::{CONTENT_TYPE, encode};
pub use handle::{Counter, Gauge, Histogram};
pub use label::{AnsweredBy, CacheType, Family, Transport, rcode_name};
pub use registry::{Registration, Registry};
pub use shard::{ZoneLabels, ZoneShard};
pub use snapshot::{Samples, Snapshot, Value};
