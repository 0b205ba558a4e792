//! Who counts what: the one place a scrape reads from.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::handle::{Counter, Gauge, Handle, Histogram};
use super::inheritance::{self, Inherited};
use super::names::{self, Description, Metric};
use super::shard::{ZoneLabels, ZoneShard};
use super::snapshot::Snapshot;
use super::{encode, process};

/// All metrics of the process. Clones are the same registry.
///
/// Asking twice for the same series gives the same handle, so counters survive a reload. Families
/// without labels are shown at 0 from the start; a series with labels appears once it is asked for, a
/// shard's series once it moved.
#[derive(Clone)]
pub struct Registry(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    counters: Series<Counter>,
    gauges: Series<Gauge>,
    histograms: Series<Histogram>,
    functions: BTreeMap<u64, Function>,
    registered: u64,
    shards: BTreeMap<(ZoneLabels, String), Arc<ZoneShard>>,
    /// From the process before.
    inherited: Vec<Inherited>,
}

/// A gauge that is computed at scrape time.
#[derive(Clone)]
struct Function {
    family: &'static Description,
    labels: Vec<String>,
    read: Arc<dyn Fn() -> f64 + Send + Sync>,
}

/// Handles of one kind, by family, label values and writer.
struct Series<M>(BTreeMap<Key, (&'static Description, Arc<M>)>);

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    family: &'static str,
    labels: Vec<String>,
    writer: String,
}

impl<M> Default for Series<M> {
    fn default() -> Series<M> {
        Series(BTreeMap::new())
    }
}

impl<M: Handle> Series<M> {
    fn get(&mut self, family: &'static Description, labels: &[&str], writer: &str) -> Arc<M> {
        let key = Key { family: family.name, labels: owned(labels), writer: writer.to_owned() };
        let create = || (family, Arc::new(M::create(family)));
        Arc::clone(&self.0.entry(key).or_insert_with(create).1)
    }

    /// Leaves out what `is_wanted` says no to, given the writer.
    fn collect(&self, into: &mut Snapshot, is_wanted: impl Fn(&str) -> bool) {
        for (key, (family, handle)) in self.0.iter().filter(|(key, _)| is_wanted(&key.writer)) {
            into.add(family, &borrowed(&key.labels), handle.value());
        }
    }
}

impl Inner {
    /// Counters and histograms.
    fn count(&self, snapshot: &mut Snapshot, is_wanted: impl Fn(&str) -> bool) {
        self.counters.collect(snapshot, &is_wanted);
        self.histograms.collect(snapshot, &is_wanted);
        for ((labels, _), shard) in &self.shards {
            shard.collect(labels, snapshot);
        }
        for Inherited { family, labels, value } in &self.inherited {
            snapshot.add(family, &borrowed(labels), value.clone());
        }
    }
}

impl Registry {
    /// A registry with the process's own metrics, the families without labels at 0, and node-cache's
    /// set-up errors at 0.
    pub fn new() -> Registry {
        let mut inner = Inner::default();
        for error_type in names::SETUP_ERROR_TYPES {
            let family = names::SETUP_ERRORS.description();
            inner.counters.get(family, &[error_type], "");
        }
        let unlabelled = names::ALL
            .iter()
            .filter(|family| family.labels.is_empty() && !family.name.starts_with("process_"));
        for family in unlabelled {
            match family.kind {
                names::Kind::Counter => drop(inner.counters.get(family, &[], "")),
                names::Kind::Gauge => drop(inner.gauges.get(family, &[], "")),
                names::Kind::Histogram(_) => drop(inner.histograms.get(family, &[], "")),
            }
        }
        Registry(Arc::new(Mutex::new(inner)))
    }

    /// The counter with these label values, in the order of the family's labels.
    pub fn counter<const N: usize>(
        &self,
        family: &'static Metric<Counter, N>,
        labels: [&str; N],
    ) -> Arc<Counter> {
        self.counter_of("", family, labels)
    }

    /// Like [`counter`](Registry::counter), but each writer (a thread, say) has its own cache line to
    /// count in; a scrape shows the sum.
    pub fn counter_of<const N: usize>(
        &self,
        writer: &str,
        family: &'static Metric<Counter, N>,
        labels: [&str; N],
    ) -> Arc<Counter> {
        self.lock().counters.get(family.description(), &labels, writer)
    }

    /// The gauge with these label values, in the order of the family's labels.
    pub fn gauge<const N: usize>(&self, family: &'static Metric<Gauge, N>, labels: [&str; N]) -> Arc<Gauge> {
        self.lock().gauges.get(family.description(), &labels, "")
    }

    /// The histogram with these label values, in the order of the family's labels.
    pub fn histogram<const N: usize>(
        &self,
        family: &'static Metric<Histogram, N>,
        labels: [&str; N],
    ) -> Arc<Histogram> {
        self.lock().histograms.get(family.description(), &labels, "")
    }

    /// Shows what `read` returns at each scrape, until the [`Registration`] is dropped.
    ///
    /// Of several registrations of the same series the latest is shown: after a reload that is the
    /// new one, even while the old one lives on. `read` runs on the scraping thread.
    pub fn gauge_fn<const N: usize>(
        &self,
        family: &'static Metric<Gauge, N>,
        labels: [&str; N],
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Registration {
        let mut inner = self.lock();
        inner.registered += 1;
        let id = inner.registered;
        let function =
            Function { family: family.description(), labels: owned(&labels), read: Arc::new(read) };
        inner.functions.insert(id, function);
        Registration { registry: Arc::downgrade(&self.0), id }
    }

    /// Forgets every series of a gauge family, for those whose labels a reload replaces
    /// (`plugin_enabled`, `reload_version_info`). Handles given out before count unseen.
    pub fn clear<const N: usize>(&self, family: &'static Metric<Gauge, N>) {
        let name = family.description().name;
        self.lock().gauges.0.retain(|key, _| key.family != name);
    }

    /// The shard in which `writer`, and no other thread, counts the queries of this zone.
    pub fn zone_shard(&self, writer: &str, labels: &ZoneLabels) -> Arc<ZoneShard> {
        let key = (labels.clone(), writer.to_owned());
        Arc::clone(self.lock().shards.entry(key).or_default())
    }

    /// Everything, in the Prometheus text format ([`CONTENT_TYPE`](super::CONTENT_TYPE)).
    pub fn scrape(&self) -> String {
        let mut snapshot = Snapshot::default();
        process::collect(&mut snapshot);
        let functions = {
            let inner = self.lock();
            inner.count(&mut snapshot, |_| true);
            inner.gauges.collect(&mut snapshot, |_| true);
            inner.functions.clone()
        };
        // Outside the lock: what `read` does is not ours. Ids ascend, so the latest one stays.
        let latest: BTreeMap<_, _> =
            functions.values().map(|function| ((function.family.name, &function.labels), function)).collect();
        for function in latest.into_values() {
            let labels = borrowed(&function.labels);
            snapshot.number(function.family, &labels, (function.read)());
        }
        encode::encode(&snapshot)
    }

    /// All that this process and those before it have counted, for [`Registry::inherit`] in the next.
    pub fn totals(&self) -> String {
        let mut snapshot = Snapshot::default();
        self.lock().count(&mut snapshot, |writer| writer != names::OUTSIDE);
        inheritance::write(&snapshot)
    }

    /// Goes on counting from the [`Registry::totals`] of the process before, in place of any given earlier.
    pub fn inherit(&self, totals: &str) {
        self.lock().inherited = inheritance::read(totals);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Registry {
    fn default() -> Registry {
        Registry::new()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

/// Keeps a computed gauge in the registry; dropping it takes the gauge out.
#[must_use = "the gauge is gone as soon as this is dropped"]
pub struct Registration {
    registry: Weak<Mutex<Inner>>,
    id: u64,
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(registry) = self.registry.upgrade() {
            let mut inner = registry.lock().unwrap_or_else(PoisonError::into_inner);
            let removed = inner.functions.remove(&self.id);
            // What the closure owns may take long to drop, or hold a Registration itself.
            drop(inner);
            drop(removed);
        }
    }
}

fn owned(labels: &[&str]) -> Vec<String> {
    labels.iter().map(ToString::to_string).collect()
}

fn borrowed(labels: &[String]) -> Vec<&str> {
    labels.iter().map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{AnsweredBy, CacheType, Family, Transport};

    fn labels() -> ZoneLabels {
        ZoneLabels {
            server: "dns://169.254.20.10:53".into(),
            zone: "cluster.local.".into(),
            cache_zones: "cluster.local.".into(),
        }
    }

    #[track_caller]
    fn assert_shows(registry: &Registry, line: &str) {
        let text = registry.scrape();
        assert!(text.lines().any(|shown| shown == line), "no {line} in\n{text}");
    }

    #[test]
    fn shards_of_several_writers_are_summed_and_outlive_a_reload() {
        let registry = Registry::new();
        for writer in ["udp0", "udp1", "udp0"] {
            let shard = registry.zone_shard(writer, &labels());
            shard.request(Transport::Udp, Family::V4, 28, 60, true);
            shard.cache_hit(CacheType::Success);
            shard.cache_miss();
            shard.response(Transport::Udp, 3, AnsweredBy::Cache, 120, 300_000);
        }
        let zone = r#"server="dns://169.254.20.10:53""#;
        for line in [
            format!(
                r#"coredns_dns_requests_total{{family="1",proto="udp",{zone},type="AAAA",view="",zone="cluster.local."}} 3"#
            ),
            format!(
                r#"coredns_dns_responses_total{{plugin="cache",rcode="NXDOMAIN",{zone},view="",zone="cluster.local."}} 3"#
            ),
            format!(r#"coredns_dns_do_requests_total{{{zone},view="",zone="cluster.local."}} 3"#),
            format!(r#"coredns_cache_requests_total{{{zone},view="",zones="cluster.local."}} 6"#),
            format!(
                r#"coredns_dns_request_duration_seconds_bucket{{{zone},view="",zone="cluster.local.",le="0.00025"}} 0"#
            ),
            format!(
                r#"coredns_dns_request_duration_seconds_bucket{{{zone},view="",zone="cluster.local.",le="0.0005"}} 3"#
            ),
            format!(
                r#"coredns_dns_response_size_bytes_sum{{proto="udp",{zone},view="",zone="cluster.local."}} 360"#
            ),
        ] {
            assert_shows(&registry, &line);
        }
        assert!(!registry.scrape().contains("coredns_cache_evictions_total"));
    }

    #[test]
    fn odd_response_codes_share_a_slot() {
        let registry = Registry::new();
        let shard = registry.zone_shard("ctl", &labels());
        for rcode in [12, 16, 24, 4095, u16::MAX] {
            shard.response(Transport::Tcp, rcode, AnsweredBy::Server, 12, 0);
        }
        for (rcode, count) in [("RCODE12", 1), ("BADSIG", 1), ("other", 3)] {
            assert_shows(
                &registry,
                &format!(
                    r#"coredns_dns_responses_total{{plugin="",rcode="{rcode}",server="dns://169.254.20.10:53",view="",zone="cluster.local."}} {count}"#
                ),
            );
        }
    }

    #[test]
    fn a_detached_shard_is_not_seen() {
        let registry = Registry::new();
        ZoneShard::detached().cache_miss();
        assert!(!registry.scrape().contains("coredns_cache_misses_total"));
    }

    #[test]
    fn counters_of_writers_are_summed() {
        let registry = Registry::new();
        registry.counter_of("udp0", &names::DROPPED, ["short"]).inc();
        registry.counter_of("udp1", &names::DROPPED, ["short"]).add(2);
        registry.counter_of("udp0", &names::DROPPED, ["short"]).inc();
        assert_shows(&registry, r#"doorstep_dropped_packets_total{reason="short"} 4"#);
    }

    #[test]
    fn a_computed_gauge_lives_as_long_as_its_registration() {
        let registry = Registry::new();
        let series = ["dns://:53", "success", ".", ""];
        let line = r#"coredns_cache_entries{server="dns://:53",type="success",view="",zones="."}"#;
        let old = registry.gauge_fn(&names::CACHE_ENTRIES, series, || 7.0);
        assert_shows(&registry, &format!("{line} 7"));
        let new = registry.gauge_fn(&names::CACHE_ENTRIES, series, || 8.0);
        assert_shows(&registry, &format!("{line} 8"));
        drop(old);
        assert_shows(&registry, &format!("{line} 8"));
        drop(new);
        assert!(!registry.scrape().contains("coredns_cache_entries"));
    }

    #[test]
    fn cleared_gauges_are_gone() {
        let registry = Registry::new();
        registry.gauge(&names::RELOAD_VERSION_INFO, ["sha512", "old"]).set(1);
        registry.clear(&names::RELOAD_VERSION_INFO);
        registry.gauge(&names::RELOAD_VERSION_INFO, ["sha512", "new"]).set(1);
        assert_shows(&registry, r#"coredns_reload_version_info{hash="sha512",value="new"} 1"#);
        assert!(!registry.scrape().contains(r#"value="old""#));
    }
}
