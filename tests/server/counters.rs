//! What a handful of queries does to the counters.

use super::client::{Udp, tcp, udp};
use super::exposition::{Shown, parse, scrape};
use super::loopback;
use super::message::{ask, bit, rr};
use super::server::{Doorstep, wait};
use super::upstream::Step;
use super::{Scripted, client};

/// The sum of the samples of `name` that carry all of `labels`.
fn value(families: &[Shown], name: &str, labels: &[(&str, &str)]) -> f64 {
    let family = families.iter().find(|family| family.name == name);
    let samples = family.map(|family| family.samples.as_slice()).unwrap_or_default();
    let wanted = samples.iter().filter(|sample| {
        let same = |(label, value): &(&str, &str)| sample.label(label) == *value;
        matches!(sample.suffix.as_str(), "" | "_count") && labels.iter().all(same)
    });
    wanted.map(|sample| sample.value).sum()
}

fn upstream() -> Scripted {
    Scripted::start(|asked| {
        let reply = match asked.name.as_str() {
            "nothing.test." => asked.reply(3),
            "refused.test." => asked.reply(5),
            _ => asked.answer(),
        };
        vec![Step::Send(reply)]
    })
}

#[test]
fn requests_responses_hits_and_misses() {
    let upstream = upstream();
    let address = loopback::fresh_dns();
    let (ip, metrics) = (address.ip(), std::net::SocketAddr::new(address.ip(), 9253));
    let text = format!(
        "test {{\n bind {ip}\n cache\n reload\n forward . {}\n prometheus {metrics}\n}}\n\
         quiet.example {{\n bind {ip}\n cache\n forward . {}\n}}\n",
        upstream.address, upstream.address
    );
    let server = Doorstep::start(ip, &text);
    udp(address, &ask("a.test"));
    (0..3).for_each(|_| drop(udp(address, &ask("a.test"))));
    tcp(address, &ask("a.test"));
    udp(address, &ask("a.test").qtype(rr::AAAA).opt(1232, 0, true, &[]));
    udp(address, &ask("refused.test"));
    udp(address, &ask("elsewhere.example"));
    udp(address, &ask("uncounted.quiet.example"));
    udp(address, &ask("a.test").opt(1232, 9, false, &[]));
    let silent = Udp::to(address);
    silent.send(&ask("a.test").flags(bit::QR).build());
    silent.send(&[1, 2, 3]);
    let dropped = |families: &[Shown]| value(families, "doorstep_dropped_packets_total", &[]);
    assert!(wait(client::PATIENCE, || dropped(&parse(&scrape(metrics))) >= 2.0));

    for endpoint in [metrics, server.metrics()] {
        let shown = parse(&scrape(endpoint));
        let of = |name: &str, labels: &[(&str, &str)]| value(&shown, name, labels);
        let server_label = format!("dns://{address}");
        let zone = [("server", server_label.as_str()), ("zone", "test."), ("view", "")];
        let with = |more: &[(&'static str, &'static str)]| [&zone[..], more].concat();

        let requests = "coredns_dns_requests_total";
        assert_eq!(of(requests, &zone), 7.0);
        assert_eq!(of(requests, &with(&[("proto", "udp"), ("family", "1"), ("type", "A")])), 5.0);
        assert_eq!(of(requests, &with(&[("proto", "tcp"), ("family", "1"), ("type", "A")])), 1.0);
        assert_eq!(of(requests, &with(&[("type", "AAAA")])), 1.0);
        assert_eq!(of("coredns_dns_do_requests_total", &zone), 1.0);

        let responses = "coredns_dns_responses_total";
        assert_eq!(of(responses, &with(&[("rcode", "NOERROR"), ("plugin", "cache")])), 4.0);
        assert_eq!(of(responses, &with(&[("rcode", "NOERROR"), ("plugin", "forward")])), 2.0);
        assert_eq!(of(responses, &with(&[("rcode", "REFUSED"), ("plugin", "forward")])), 1.0);
        let outside = [("zone", "dropped"), ("server", server_label.as_str())];
        assert_eq!(of(responses, &outside), 2.0, "outside the zones, and of no version");
        assert_eq!(of(responses, &[("zone", "quiet.example.")]), 0.0);
        assert_eq!(of("coredns_dns_request_duration_seconds", &zone), 7.0);
        assert_eq!(of("coredns_dns_response_size_bytes", &with(&[("proto", "tcp")])), 1.0);

        let cache = [("server", server_label.as_str()), ("zones", "test.")];
        assert_eq!(of("coredns_cache_requests_total", &cache), 7.0);
        assert_eq!(of("coredns_cache_misses_total", &cache), 3.0);
        assert_eq!(of("coredns_cache_hits_total", &[&cache[..], &[("type", "success")]].concat()), 4.0);
        assert_eq!(of("coredns_cache_entries", &[&cache[..], &[("type", "success")]].concat()), 2.0);

        let to = upstream.address.to_string();
        let exchanges = "coredns_proxy_request_duration_seconds";
        assert_eq!(of(exchanges, &[("proxy_name", "forward"), ("to", &to), ("rcode", "NOERROR")]), 3.0);
        assert_eq!(of(exchanges, &[("to", &to), ("rcode", "REFUSED")]), 1.0);
        assert_eq!(of("coredns_panics_total", &[]), 0.0);

        // Only what answers or reports, as in CoreDNS.
        let enabled = |name| of("coredns_plugin_enabled", &with(&[("name", name)]));
        assert_eq!(
            ["cache", "forward", "prometheus", "bind", "reload"].map(enabled),
            [1.0, 1.0, 1.0, 0.0, 0.0]
        );
    }
}

#[test]
fn other_types_and_families_have_their_labels() {
    let upstream = upstream();
    let v6 = std::net::IpAddr::from(std::net::Ipv6Addr::LOCALHOST);
    let port = loopback::free_port(v6);
    let ip = loopback::fresh();
    let text = format!(
        ".:{port} {{\n bind ::1\n cache\n forward . {}\n prometheus {ip}:9253\n}}\n",
        upstream.address
    );
    let _server = Doorstep::start(ip, &text);
    udp((v6, port).into(), &ask("a.test").qtype(65280));
    let shown = parse(&scrape((ip, 9253).into()));
    let server = format!("dns://[::1]:{port}");
    let labels = [("server", server.as_str()), ("zone", "."), ("family", "2"), ("type", "other")];
    assert_eq!(value(&shown, "coredns_dns_requests_total", &labels), 1.0);
}
