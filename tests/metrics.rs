//! What a scrape shows, over HTTP: names, labels and buckets against a list written by hand, and the
//! text against its grammar.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "common/exposition.rs"]
mod exposition;

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use doorstep::admin::{self, Admin, Endpoint, Serves};
use doorstep::metrics::names::{self, Kind};
use doorstep::metrics::{
    AnsweredBy, CacheType, Family, Registration, Registry, Transport, ZoneLabels, ZoneShard,
};
use doorstep::ready::Ready;

use exposition::{Shown, exchange, parse, scrape};

/// `name kind labels... | bounds`: what dashboards written for node-cache rely on, and our own.
const GOLDEN: &str = "\
coredns_build_info gauge goversion revision version
coredns_cache_drops_total counter server view zones
coredns_cache_entries gauge server type view zones
coredns_cache_evictions_total counter server type view zones
coredns_cache_hits_total counter server type view zones
coredns_cache_misses_total counter server view zones
coredns_cache_prefetch_total counter server view zones
coredns_cache_requests_total counter server view zones
coredns_cache_served_stale_total counter server view zones
coredns_dns64_requests_translated_total counter server
coredns_dns_do_requests_total counter server view zone
coredns_dns_request_duration_seconds histogram server view zone | 0.00025 0.0005 0.001 0.002 0.004 0.008 0.016 0.032 0.064 0.128 0.256 0.512 1.024 2.048 4.096 8.192 +Inf
coredns_dns_request_size_bytes histogram proto server view zone | 0 100 200 300 400 511 1023 2047 4095 8291 16000 32000 48000 64000 +Inf
coredns_dns_requests_total counter family proto server type view zone
coredns_dns_response_size_bytes histogram proto server view zone | 0 100 200 300 400 511 1023 2047 4095 8291 16000 32000 48000 64000 +Inf
coredns_dns_responses_total counter plugin rcode server view zone
coredns_forward_healthcheck_broken_total counter
coredns_forward_max_concurrent_rejects_total counter
coredns_health_request_duration_seconds histogram | 0.00025 0.0025 0.025 0.25 2.5 +Inf
coredns_health_request_failures_total counter
coredns_hosts_entries gauge hostsfile
coredns_hosts_reload_timestamp_seconds gauge
coredns_nodecache_setup_errors_total counter errortype
coredns_panics_total counter
coredns_plugin_enabled gauge name server view zone
coredns_proxy_conn_cache_hits_total counter proto proxy_name to
coredns_proxy_conn_cache_misses_total counter proto proxy_name to
coredns_proxy_healthcheck_failures_total counter proxy_name to
coredns_proxy_request_duration_seconds histogram proxy_name rcode to | 0.00025 0.0005 0.001 0.002 0.004 0.008 0.016 0.032 0.064 0.128 0.256 0.512 1.024 2.048 4.096 8.192 +Inf
coredns_reload_failed_total counter
coredns_reload_version_info gauge hash value
coredns_template_matches_total counter class server type view zone
coredns_template_rr_failures_total counter class section server template type view zone
coredns_template_template_failures_total counter class section server template type view zone
doorstep_client_share_refusals_total counter
doorstep_drift_repairs_total counter kind
doorstep_dropped_packets_total counter reason
doorstep_flights gauge
doorstep_log_dropped_total counter
doorstep_loop_detected gauge zone
doorstep_miss_queue_length gauge
doorstep_miss_queue_wait_seconds histogram | 0.00025 0.0005 0.001 0.002 0.004 0.008 0.016 0.032 0.064 0.128 0.256 0.512 1.024 2.048 4.096 8.192 +Inf
doorstep_misses_inflight gauge
doorstep_queue_overflows_total counter queue
doorstep_relayed_queries_total counter proto
doorstep_search_ahead_total counter
doorstep_tcp_connections gauge
doorstep_tcp_connections_refused_total counter
doorstep_upstream_hedges_total counter to
doorstep_upstream_hedges_withheld_total counter to
doorstep_upstream_retries_total counter to
doorstep_upstream_strays_total counter to
doorstep_worker_starts_total counter cause
process_cpu_seconds_total counter
process_max_fds gauge
process_network_receive_bytes_total counter
process_network_transmit_bytes_total counter
process_open_fds gauge
process_resident_memory_bytes gauge
process_start_time_seconds gauge
process_virtual_memory_bytes gauge
process_virtual_memory_max_bytes gauge
";

#[test]
fn every_family_is_as_the_contract_says() {
    let registry = Registry::new();
    let _entries = poke_everything(&registry);
    let (admin, address) = serve(&registry, &Ready::new());
    let families = parse(&scrape(address));
    let shown: Vec<String> = families.iter().map(Shown::summary).collect();
    let golden: Vec<&str> = GOLDEN.lines().collect();
    assert_eq!(shown, golden);
    assert_eq!(families.len(), names::ALL.len());
    admin.stop();
}

#[test]
fn a_fresh_process_shows_what_alerts_compare_with() {
    let registry = Registry::new();
    let families = parse(&registry.scrape());
    let errors =
        families.iter().find(|family| family.name == "coredns_nodecache_setup_errors_total").unwrap();
    let mut types: Vec<&str> = errors.samples.iter().map(|sample| sample.label("errortype")).collect();
    types.sort_unstable();
    assert_eq!(types, ["configmap", "interface_add", "interface_check", "iptables", "iptables_lock"]);
    assert!(errors.samples.iter().all(|sample| sample.value == 0.0));
    for name in ["coredns_panics_total", "coredns_reload_failed_total", "doorstep_misses_inflight"] {
        let family = families.iter().find(|family| family.name == name);
        assert_eq!(family.unwrap_or_else(|| panic!("no {name}")).samples[0].value, 0.0);
    }
    // A vector without series is not shown at all.
    assert!(families.iter().all(|family| family.name != "coredns_dns_requests_total"));
}

#[test]
fn help_texts_and_kinds_are_complete() {
    for family in names::ALL {
        assert!(family.help.ends_with('.') && !family.help.contains('\n'), "{}", family.name);
        let counts = family.name.ends_with("_total");
        assert_eq!(counts, family.kind == Kind::Counter, "{}", family.name);
    }
}

#[test]
fn paths_methods_and_replacement() {
    let ready = Ready::new();
    let upstream = ready.latch("upstream");
    let (admin, address) = serve(&Registry::new(), &ready);
    let answer = |request: &str| exchange(address, request);
    let get = |path: &str| answer(&format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));

    assert!(get("/health").starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(get("/health").ends_with("\r\n\r\nOK"));
    assert!(get("/ready").starts_with("HTTP/1.1 503 "));
    assert!(get("/ready").ends_with("\r\n\r\nupstream"));
    drop(upstream);
    assert!(get("/ready").ends_with("\r\n\r\nOK"));
    assert!(get("/metrics").contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    assert!(get("/").starts_with("HTTP/1.1 404 "));
    assert!(answer("HEAD /metrics HTTP/1.0\r\n\r\n").ends_with("\r\n\r\n"));
    assert!(answer("DELETE /health HTTP/1.0\r\n\r\n").contains("\r\nAllow: GET, HEAD\r\n"));
    assert!(answer("hello\r\n\r\n").starts_with("HTTP/1.1 400 "));

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = listener.local_addr().unwrap();
    let only_health = Serves { health: true, ..Serves::default() };
    let endpoint = Endpoint { listener, serves: only_health };
    admin.replace(vec![endpoint]).unwrap();
    assert!(exchange(elsewhere, "GET /health HTTP/1.0\r\n\r\n").ends_with("OK"));
    assert!(exchange(elsewhere, "GET /metrics HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 404 "));
    let start = Instant::now();
    while TcpStream::connect(address).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(5), "the old listener lives on");
    }
    admin.stop();
    assert!(TcpStream::connect(elsewhere).is_err());
}

#[test]
fn replacing_around_the_same_socket_refuses_nobody() {
    let registry = Registry::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let endpoint = || Endpoint { listener: listener.try_clone().unwrap(), serves: EVERYTHING };
    let admin = admin::spawn(vec![endpoint()], registry, Ready::new()).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let probing = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let mut asked = 0;
            while !stop.load(Ordering::Relaxed) {
                assert!(exchange(address, "GET /health HTTP/1.0\r\n\r\n").ends_with("OK"));
                asked += 1;
            }
            asked
        }
    });
    for _ in 0..100 {
        admin.replace(vec![endpoint()]).unwrap();
        assert!(exchange(address, "GET /health HTTP/1.0\r\n\r\n").ends_with("OK"));
    }
    stop.store(true, Ordering::Relaxed);
    assert!(probing.join().unwrap() > 0);
    admin.stop();
}

#[test]
fn a_refusal_reaches_a_client_that_sent_too_much() {
    let (admin, address) = serve(&Registry::new(), &Ready::new());
    // More than the socket buffers hold: closing without reading on would reset the connection under
    // the client's hands.
    let answer = exchange(address, &"a".repeat(16 * 1024 * 1024));
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    admin.stop();
}

#[test]
fn slow_and_oversize_clients_do_not_hold_up_a_scrape() {
    let (admin, address) = serve(&Registry::new(), &Ready::new());
    let mut hostile = Vec::new();
    for n in 0..60 {
        let mut stream = TcpStream::connect(address).unwrap();
        // A third trickles, a third sends an endless head, a third asks and never reads.
        let sent = match n % 3 {
            0 => stream.write_all(b"GET /metr"),
            1 => stream.write_all(&[b'a'; 64 * 1024]),
            _ => stream.write_all(&b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20)),
        };
        // The server may have refused and closed in the middle of the endless head.
        let _ = sent;
        hostile.push(stream);
    }
    let start = Instant::now();
    parse(&scrape(address));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    admin.stop();
}

#[test]
fn scrapes_beside_a_writer_are_consistent_and_lose_nothing() {
    let registry = Registry::new();
    let shard = registry.zone_shard("udp0", &zone());
    let (admin, address) = serve(&registry, &Ready::new());
    let stop = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let mut hits = 0;
            while hits == 0 || !stop.load(Ordering::Relaxed) {
                hit(&shard);
                hits += 1;
            }
            hits
        }
    });
    let requests = |families: &[Shown]| -> f64 {
        let family = families.iter().find(|family| family.name == "coredns_dns_requests_total");
        family.map_or(0.0, |family| family.samples[0].value)
    };
    let mut last = 0.0;
    for _ in 0..20 {
        let now = requests(&parse(&scrape(address)));
        assert!(now >= last, "a counter went from {last} to {now}");
        last = now;
    }
    stop.store(true, Ordering::Relaxed);
    let hits = writer.join().unwrap();
    assert_eq!(requests(&parse(&scrape(address))), f64::from(hits));
    admin.stop();
}

#[test]
fn health_is_measured_from_inside() {
    let registry = Registry::new();
    let (admin, _) = serve(&registry, &Ready::new());
    let durations = registry.histogram(&names::HEALTH_REQUEST_DURATION, []);
    let start = Instant::now();
    while durations.count() == 0 {
        assert!(start.elapsed() < Duration::from_secs(10), "never asked itself");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(registry.counter(&names::HEALTH_REQUEST_FAILURES, []).get(), 0);
    admin.stop();
}

const EVERYTHING: Serves = Serves { metrics: true, health: true, ready: true };

fn serve(registry: &Registry, ready: &Ready) -> (Admin, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let endpoint = Endpoint { listener, serves: EVERYTHING };
    let admin = admin::spawn(vec![endpoint], registry.clone(), ready.clone()).unwrap();
    (admin, address)
}

fn zone() -> ZoneLabels {
    ZoneLabels {
        server: "dns://169.254.20.10:53".into(),
        zone: "cluster.local.".into(),
        cache_zones: "cluster.local.".into(),
    }
}

/// All that a cache hit counts.
fn hit(shard: &ZoneShard) {
    shard.request(Transport::Udp, Family::V4, 1, 60, false);
    shard.cache_hit(CacheType::Success);
    shard.response(Transport::Udp, 0, AnsweredBy::Cache, 120, 90_000);
}

fn poke_everything(registry: &Registry) -> Registration {
    let shard = registry.zone_shard("udp0", &zone());
    hit(&shard);
    shard.request(Transport::Tcp, Family::V6, 65, 70, true);
    shard.cache_miss();
    shard.cache_prefetch();
    shard.cache_drop();
    shard.cache_served_stale();
    shard.cache_eviction(CacheType::Denial);

    registry.gauge(&names::BUILD_INFO, ["0.1.0", "abc", ""]).set(1);
    registry.gauge(&names::PLUGIN_ENABLED, ["dns://:53", ".", "", "cache"]).set(1);
    registry.gauge(&names::HOSTS_ENTRIES, ["/etc/hosts"]).set(2);
    let template = ["dns://:53", ".", "", "IN", "A"];
    registry.counter(&names::TEMPLATE_MATCHES, template).inc();
    let [server, zone, view, class, qtype] = template;
    let failed = [server, zone, view, class, qtype, "answer", "{{.Name}} A {{.Zone}}"];
    registry.counter(&names::TEMPLATE_FAILURES, failed).inc();
    registry.counter(&names::TEMPLATE_RR_FAILURES, failed).inc();
    registry.counter(&names::DNS64_TRANSLATED, [server]).inc();
    registry.gauge(&names::RELOAD_VERSION_INFO, ["sha512", "00"]).set(1);
    registry.gauge(&names::LOOP_DETECTED, ["."]).set(0);
    let took = Duration::from_millis(3);
    let to = "10.96.0.10:53";
    registry.histogram(&names::PROXY_REQUEST_DURATION, ["forward", to, "NOERROR"]).observe(took);
    registry.counter(&names::PROXY_HEALTHCHECK_FAILURES, ["forward", to]).inc();
    registry.counter(&names::PROXY_CONN_CACHE_HITS, ["forward", to, "tcp"]).inc();
    registry.counter(&names::PROXY_CONN_CACHE_MISSES, ["forward", to, "tcp"]).inc();
    registry.counter(&names::UPSTREAM_RETRIES, [to]).inc();
    registry.counter(&names::UPSTREAM_HEDGES, [to]).inc();
    registry.counter(&names::UPSTREAM_HEDGES_WITHHELD, [to]).inc();
    registry.counter(&names::UPSTREAM_STRAYS, [to]).inc();
    registry.gauge(&names::FLIGHTS, []).add(1);
    registry.gauge(&names::MISS_QUEUE_LENGTH, []).add(1);
    registry.histogram(&names::MISS_QUEUE_WAIT, []).observe(Duration::from_millis(1));
    registry.counter_of("udp0", &names::DROPPED, ["short"]).inc();
    registry.counter(&names::QUEUE_OVERFLOWS, ["miss"]).inc();
    registry.counter(&names::DRIFT_REPAIRS, ["rule"]).inc();
    registry.counter(&names::WORKER_STARTS, ["start"]).inc();
    registry.counter(&names::RELAYED_QUERIES, ["udp"]).inc();
    let series = ["dns://169.254.20.10:53", "success", "cluster.local.", ""];
    registry.gauge_fn(&names::CACHE_ENTRIES, series, || 1.0)
}
