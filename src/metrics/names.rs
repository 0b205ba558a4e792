//! Every metric family: its name, help text, kind, labels and buckets.
//!
//! A family is a typed static: [`Registry`](super::Registry) hands out a counter only for a counter family, and
//! takes exactly as many label values as the family has labels.

use std::marker::PhantomData;

use super::handle::{Counter, Gauge, Histogram};

/// How far a family can be relied upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stability {
    /// Name, labels and buckets are node-cache's and stay so.
    NodeCache,
    /// Doorstep's own; may change between minor versions.
    Unstable,
}

/// What a family's samples are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only ever grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts per bucket; the upper bounds, ascending, without `+Inf`.
    Histogram(&'static [f64]),
}

/// What a scrape tells about a family.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Description {
    /// Full name, prefix included; a counter's ends in `_total`.
    pub name: &'static str,
    /// One line for a human.
    pub help: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// Label names, in the order in which values are passed (not the sorted order of the text).
    pub labels: &'static [&'static str],
    /// Whether dashboards may build on it.
    pub stability: Stability,
}

/// A family of `M`s (counters, gauges or histograms) with `N` labels.
#[derive(Debug)]
pub struct Metric<M, const N: usize> {
    description: Description,
    handle: PhantomData<fn() -> M>,
}

impl<M, const N: usize> Metric<M, N> {
    const fn new(description: Description) -> Metric<M, N> {
        Metric { description, handle: PhantomData }
    }

    /// Name, labels and buckets.
    pub const fn description(&self) -> &Description {
        &self.description
    }
}

/// `start * factor^n`, multiplied up one by one so that the bounds are the very floats Go computes.
const fn exponential<const N: usize>(start: f64, factor: f64) -> [f64; N] {
    let mut bounds = [start; N];
    let mut n = 1;
    while n < N {
        bounds[n] = bounds[n - 1] * factor;
        n += 1;
    }
    bounds
}

/// 0.25 ms to 8.192 s, doubling; seconds.
pub static TIME_BUCKETS: [f64; 16] = exponential(0.000_25, 2.0);
/// 0.25 ms to 2.5 s, by tens; seconds.
pub static SLIM_TIME_BUCKETS: [f64; 5] = exponential(0.000_25, 10.0);
/// Message sizes, octets.
pub static SIZE_BUCKETS: [f64; 14] =
    [0.0, 100.0, 200.0, 300.0, 400.0, 511.0, 1023.0, 2047.0, 4095.0, 8291.0, 16e3, 32e3, 48e3, 64e3];

macro_rules! kind {
    (Counter) => {
        Kind::Counter
    };
    (Gauge) => {
        Kind::Gauge
    };
    (Histogram $buckets:ident) => {
        Kind::Histogram(&$buckets)
    };
}

macro_rules! families {
    ($($id:ident: $kind:ident $(($buckets:ident))?, $stability:ident,
       $name:literal [$($label:literal)*] $help:literal;)*) => {
        $(
            #[doc = concat!("`", $name, "`: ", $help)]
            pub static $id: Metric<$kind, { <[&str]>::len(&[$($label),*]) }> = Metric::new(Description {
                name: $name,
                help: $help,
                kind: kind!($kind $($buckets)?),
                labels: &[$($label),*],
                stability: Stability::$stability,
            });
        )*

        /// Every family, in no particular order.
        pub static ALL: &[&Description] = &[$(&$id.description),*];
    };
}

families! {
    SETUP_ERRORS: Counter, NodeCache, "coredns_nodecache_setup_errors_total" ["errortype"]
        "Failed attempts to set up the node's link, rules or configuration.";
    BUILD_INFO: Gauge, NodeCache, "coredns_build_info" ["version" "revision" "goversion"]
        "Always 1; the labels say what is running.";
    PANICS: Counter, NodeCache, "coredns_panics_total" []
        "Panics that were caught.";
    PLUGIN_ENABLED: Gauge, NodeCache, "coredns_plugin_enabled" ["server" "zone" "view" "name"]
        "1 for each directive in effect in a zone of a server.";

    DNS_REQUESTS: Counter, NodeCache, "coredns_dns_requests_total"
        ["server" "zone" "view" "proto" "family" "type"]
        "Queries received.";
    DNS_DO_REQUESTS: Counter, NodeCache, "coredns_dns_do_requests_total" ["server" "zone" "view"]
        "Queries received with the DNSSEC OK bit set.";
    DNS_RESPONSES: Counter, NodeCache, "coredns_dns_responses_total"
        ["server" "zone" "view" "rcode" "plugin"]
        "Replies sent, by response code and by what produced them.";
    DNS_REQUEST_DURATION: Histogram(TIME_BUCKETS), NodeCache, "coredns_dns_request_duration_seconds"
        ["server" "zone" "view"]
        "Seconds from receiving a query to sending its reply.";
    DNS_REQUEST_SIZE: Histogram(SIZE_BUCKETS), NodeCache, "coredns_dns_request_size_bytes"
        ["server" "zone" "view" "proto"]
        "Size of queries in octets.";
    DNS_RESPONSE_SIZE: Histogram(SIZE_BUCKETS), NodeCache, "coredns_dns_response_size_bytes"
        ["server" "zone" "view" "proto"]
        "Size of replies in octets.";

    HOSTS_ENTRIES: Gauge, NodeCache, "coredns_hosts_entries" ["hostsfile"]
        "Addresses of names and names of addresses in a hosts file and its block.";
    HOSTS_RELOAD_TIMESTAMP: Gauge, NodeCache, "coredns_hosts_reload_timestamp_seconds" []
        "When the hosts file that was read last was written, seconds since 1970.";
    TEMPLATE_MATCHES: Counter, NodeCache, "coredns_template_matches_total" ["server" "zone" "view" "class" "type"]
        "Queries that a template answers.";
    TEMPLATE_FAILURES: Counter, NodeCache, "coredns_template_template_failures_total"
        ["server" "zone" "view" "class" "type" "section" "template"]
        "Records of templates of which an expression had no value.";
    TEMPLATE_RR_FAILURES: Counter, NodeCache, "coredns_template_rr_failures_total"
        ["server" "zone" "view" "class" "type" "section" "template"]
        "Texts made by templates that are no records.";
    DNS64_TRANSLATED: Counter, NodeCache, "coredns_dns64_requests_translated_total" ["server"]
        "Queries for IPv6 addresses for which dns64 looked for IPv4 addresses.";

    CACHE_ENTRIES: Gauge, NodeCache, "coredns_cache_entries" ["server" "type" "zones" "view"]
        "Answers held by the cache.";
    CACHE_REQUESTS: Counter, NodeCache, "coredns_cache_requests_total" ["server" "zones" "view"]
        "Look-ups in the cache.";
    CACHE_HITS: Counter, NodeCache, "coredns_cache_hits_total" ["server" "type" "zones" "view"]
        "Look-ups that found a usable answer.";
    CACHE_MISSES: Counter, NodeCache, "coredns_cache_misses_total" ["server" "zones" "view"]
        "Look-ups that found none.";
    CACHE_PREFETCH: Counter, NodeCache, "coredns_cache_prefetch_total" ["server" "zones" "view"]
        "Popular answers refreshed before they expired.";
    CACHE_DROPS: Counter, NodeCache, "coredns_cache_drops_total" ["server" "zones" "view"]
        "Upstream answers left out of the cache because they do not match their question.";
    CACHE_SERVED_STALE: Counter, NodeCache, "coredns_cache_served_stale_total" ["server" "zones" "view"]
        "Replies made from expired answers.";
    CACHE_EVICTIONS: Counter, NodeCache, "coredns_cache_evictions_total" ["server" "type" "zones" "view"]
        "Answers thrown out to make room.";

    FORWARD_HEALTHCHECK_BROKEN: Counter, NodeCache, "coredns_forward_healthcheck_broken_total" []
        "Queries sent to a random upstream because all upstreams were down.";
    FORWARD_MAX_CONCURRENT_REJECTS: Counter, NodeCache, "coredns_forward_max_concurrent_rejects_total" []
        "Queries refused because too many were being forwarded already.";
    PROXY_REQUEST_DURATION: Histogram(TIME_BUCKETS), NodeCache, "coredns_proxy_request_duration_seconds"
        ["proxy_name" "to" "rcode"]
        "Seconds an upstream took to answer; failed exchanges are left out.";
    PROXY_HEALTHCHECK_FAILURES: Counter, NodeCache, "coredns_proxy_healthcheck_failures_total"
        ["proxy_name" "to"]
        "Health probes an upstream did not answer.";
    PROXY_CONN_CACHE_HITS: Counter, NodeCache, "coredns_proxy_conn_cache_hits_total"
        ["proxy_name" "to" "proto"]
        "Exchanges that went over an open connection.";
    PROXY_CONN_CACHE_MISSES: Counter, NodeCache, "coredns_proxy_conn_cache_misses_total"
        ["proxy_name" "to" "proto"]
        "Exchanges that had to open a connection.";

    HEALTH_REQUEST_DURATION: Histogram(SLIM_TIME_BUCKETS), NodeCache, "coredns_health_request_duration_seconds" []
        "Seconds the process took to answer its own health request.";
    HEALTH_REQUEST_FAILURES: Counter, NodeCache, "coredns_health_request_failures_total" []
        "Health requests to itself the process did not answer.";
    RELOAD_FAILED: Counter, NodeCache, "coredns_reload_failed_total" []
        "Configurations that were refused while an older one went on serving.";
    RELOAD_VERSION_INFO: Gauge, NodeCache, "coredns_reload_version_info" ["hash" "value"]
        "Always 1; the labels name the hash of the configuration in effect.";

    PROCESS_CPU_SECONDS: Counter, NodeCache, "process_cpu_seconds_total" []
        "CPU time spent, user and system, in seconds.";
    PROCESS_MAX_FDS: Gauge, NodeCache, "process_max_fds" []
        "Limit of open file descriptors.";
    PROCESS_OPEN_FDS: Gauge, NodeCache, "process_open_fds" []
        "Open file descriptors.";
    PROCESS_RESIDENT_MEMORY: Gauge, NodeCache, "process_resident_memory_bytes" []
        "Memory in RAM, in bytes.";
    PROCESS_VIRTUAL_MEMORY: Gauge, NodeCache, "process_virtual_memory_bytes" []
        "Address space in use, in bytes.";
    PROCESS_VIRTUAL_MEMORY_MAX: Gauge, NodeCache, "process_virtual_memory_max_bytes" []
        "Limit of the address space, in bytes.";
    PROCESS_START_TIME: Gauge, NodeCache, "process_start_time_seconds" []
        "When the process started, in seconds since the Unix epoch.";
    PROCESS_NETWORK_RECEIVE: Counter, NodeCache, "process_network_receive_bytes_total" []
        "IP octets the process's network namespace received.";
    PROCESS_NETWORK_TRANSMIT: Counter, NodeCache, "process_network_transmit_bytes_total" []
        "IP octets the process's network namespace sent.";

    DROPPED: Counter, Unstable, "doorstep_dropped_packets_total" ["reason"]
        "Packets that got no reply on purpose.";
    QUEUE_OVERFLOWS: Counter, Unstable, "doorstep_queue_overflows_total" ["queue"]
        "Entries turned away by a full queue.";
    MISSES_INFLIGHT: Gauge, Unstable, "doorstep_misses_inflight" []
        "Queries waiting for an upstream.";
    FLIGHTS: Gauge, Unstable, "doorstep_flights" []
        "Questions with upstreams, however many wait for each.";
    MISS_QUEUE_LENGTH: Gauge, Unstable, "doorstep_miss_queue_length" []
        "Misses on their way from the sockets to the thread that asks upstreams.";
    MISS_QUEUE_WAIT: Histogram(TIME_BUCKETS), Unstable, "doorstep_miss_queue_wait_seconds" []
        "Seconds from receiving a query to its being taken up as a miss.";
    CLIENT_REFUSALS: Counter, Unstable, "doorstep_client_share_refusals_total" []
        "Misses refused because one client had its share in flight already, or sent more than its share a second.";
    SEARCH_AHEAD: Counter, Unstable, "doorstep_search_ahead_total" []
        "Queries sent before a pod that goes through its search path asked them.";
    UPSTREAM_RETRIES: Counter, Unstable, "doorstep_upstream_retries_total" ["to"]
        "Exchanges repeated after a connection broke or an upstream failed.";
    UPSTREAM_HEDGES: Counter, Unstable, "doorstep_upstream_hedges_total" ["to"]
        "Slow exchanges that were sent a second time in parallel.";
    UPSTREAM_HEDGES_WITHHELD: Counter, Unstable, "doorstep_upstream_hedges_withheld_total" ["to"]
        "Slow exchanges that were not sent a second time, because too many were lately.";
    UPSTREAM_STRAYS: Counter, Unstable, "doorstep_upstream_strays_total" ["to"]
        "Messages from an upstream that answered no question in flight.";
    TCP_CONNECTIONS: Gauge, Unstable, "doorstep_tcp_connections" []
        "Open client connections.";
    TCP_REFUSED: Counter, Unstable, "doorstep_tcp_connections_refused_total" []
        "Client connections closed at once because too many were open.";
    LOOP_DETECTED: Gauge, Unstable, "doorstep_loop_detected" ["zone"]
        "1 while queries of this zone come back to us.";
    DRIFT_REPAIRS: Counter, Unstable, "doorstep_drift_repairs_total" ["kind"]
        "Links, addresses or rules that had vanished and were put back.";
    WORKER_STARTS: Counter, Unstable, "doorstep_worker_starts_total" ["cause"]
        "Worker processes started: the first one, and replacements.";
    RELAYED_QUERIES: Counter, Unstable, "doorstep_relayed_queries_total" ["proto"]
        "Queries and connections passed to the upstream while no worker answered.";
    LOG_DROPPED: Counter, Unstable, "doorstep_log_dropped_total" []
        "Log lines dropped because the log could not keep up.";
}

/// The writer under which totals stand that another process counts.
pub const OUTSIDE: &str = "outside";

/// The `errortype` values of [`SETUP_ERRORS`]; all of them are there from the start, at 0.
pub const SETUP_ERROR_TYPES: [&str; 5] =
    ["iptables", "iptables_lock", "interface_add", "interface_check", "configmap"];
