//! Corefiles of the wild are understood, broken ones are explained, hostile ones do no harm.

#[path = "corefile/answers.rs"]
mod answers;
#[path = "corefile/hostile.rs"]
mod hostile;
#[path = "corefile/machine.rs"]
mod machine;
#[path = "corefile/refused.rs"]
mod refused;
#[path = "corefile/shapes.rs"]
mod shapes;
#[path = "corefile/sources.rs"]
mod sources;

use std::time::Duration;

use doorstep::config::{Config, Diagnostics, LoadError, Origin, describe, load};
use doorstep::{cache, server};
use machine::{Machine, options};

const BASE: &str = "/etc/coredns/Corefile.base";
const CONF: &str = "/etc/Corefile";

fn load_on(machine: &Machine) -> Config {
    load(&options(), machine).unwrap_or_else(|error| panic!("{error}"))
}

/// The configuration of a Corefile that is read as it stands.
fn config(text: &str) -> Config {
    load_on(&Machine::node().file(CONF, text))
}

/// The report on a Corefile that is refused.
fn report(text: &str) -> Diagnostics {
    match load(&options(), &Machine::node().file(CONF, text)) {
        Err(LoadError::Invalid(diagnostics)) => diagnostics,
        other => panic!("{text}\n{other:?}"),
    }
}

/// The only block of a Corefile with these directives.
fn block(directives: &str) -> server::Block {
    let mut config = config(&format!(".:53 {{\n{directives}\n}}\n"));
    assert_eq!(config.server.blocks.len(), 1);
    config.server.blocks.remove(0)
}

#[test]
fn the_stock_manifest_is_understood() {
    let config = load_on(&Machine::node().file(BASE, shapes::STOCK));
    assert_eq!(config.origin, Origin::Template(BASE.into()));
    assert_eq!(config.warnings, Vec::<String>::new());
    assert_eq!(config.health_port, Some(8080));
    insta::assert_snapshot!(describe(&config));
}

#[test]
fn the_expanded_template_means_the_same() {
    let config = load_on(&Machine::node().file(BASE, shapes::STOCK));
    let text = config.expanded.clone().unwrap();
    assert!(!text.contains("__PILLAR__"), "{text}");
    let again = load_on(&Machine::node().file(CONF, &text));
    assert_eq!(again.origin, Origin::Corefile(CONF.into()));
    assert_eq!(again.fingerprint, config.fingerprint);
    assert_eq!(again.expanded, None);
}

#[test]
fn public_shapes_are_served() {
    for shape in shapes::SERVED {
        let machine = Machine::node()
            .variable("MY_HOST_IP", "10.2.3.4")
            .file("/etc/custom/a.override", "# see the documentation")
            .file("/etc/generated/b.override", "log\n")
            .file(CONF, shape.text);
        let config = load(&options(), &machine).unwrap_or_else(|error| panic!("{}\n{error}", shape.name));
        let blocks = &config.server.blocks;
        let upstreams: usize =
            blocks.iter().flat_map(|block| &block.forwards).map(|forward| forward.to.len()).sum();
        assert_eq!(
            (blocks.len(), upstreams),
            (shape.blocks, shape.upstreams),
            "{}\n{}",
            shape.name,
            describe(&config)
        );
        assert!(blocks.iter().all(|block| block.cache.is_some()));
    }
}

#[test]
fn directives_that_are_not_served_are_named() {
    for shape in refused::NOT_SERVED {
        let found = report(shape.text).one_liners();
        let expected: Vec<String> = shape
            .directives
            .iter()
            .map(|(line, directive)| {
                format!(
                    "{CONF}:{line} - Error during parsing: \
                     directive `{directive}` is not served by this version"
                )
            })
            .collect();
        assert_eq!(found, expected, "{}", shape.name);
    }
}

const TEN_MISTAKES: &str = "\
cluster.local:53 {
    erors
    cache {
        sucess 9984 30
        prefetch 3 30s 5%
    }
    cache 30
    bind eth7
    forward . kube-dns.kube-system {
        policy fastest
    }
    reload 1s
}
a..b tls://example.org {
    bufsize 100
    health localhost
}
";

#[test]
fn every_mistake_is_reported_at_once() {
    let report = report(TEN_MISTAKES);
    let places: Vec<(usize, usize)> = report
        .errors()
        .iter()
        .filter_map(|error| report.position(error))
        .map(|(_, position)| (position.line, position.column))
        .collect();
    let expected = [
        (2, 5),
        (4, 9),
        (5, 24),
        (7, 5),
        (8, 10),
        (9, 15),
        (10, 16),
        (12, 12),
        (14, 1),
        (14, 6),
        (15, 13),
        (16, 12),
    ];
    assert_eq!(places, expected);
    assert!(report.errors().iter().all(|error| error.remedy.is_some()));
    insta::assert_snapshot!(report);
}

#[test]
fn values_out_of_range_are_refused_with_the_range() {
    for (directives, expected) in [
        ("cache 0", "`0` is not a whole number from 1 to 2147483647"),
        ("cache {\n success x\n}", "`x` is not a whole number"),
        ("cache {\n servfail 6m\n}", "`6m` is not a duration from 0s to 5m"),
        ("cache {\n servfail 5\n}", "a unit is missing"),
        ("cache {\n prefetch 1 1m 10\n}", "`10` is not a percentage"),
        ("cache {\n serve_stale 1h later\n}", "neither immediate nor verify"),
        ("cache {\n serve_stale 1h verify soon\n}", "`soon` is not a duration"),
        ("cache {\n serve_stale 1h verify 2\n}", "a unit is missing"),
        ("cache {\n serve_stale 1h immediate 2s\n}", "neither immediate nor verify"),
        ("search_ahead a..b", "`a..b` is not a"),
        ("search_ahead {\n domains a\n}", "`search_ahead` takes no options"),
        ("search_ahead\nsearch_ahead", "only once"),
        ("bufsize 5000", "from 512 to 4096"),
        ("timeouts {\n read 25h\n}", "from 1s to 24h"),
        ("timeouts {\n}", "`timeouts` without a value"),
        ("reload 1s", "from 2s to 24h"),
        ("reload 10s 500ms", "from 1s to 24h"),
        ("loop twice", "wrong number of arguments for `loop`"),
        ("loop\nloop", "only once"),
        ("errors {\n consolidate 5m \"(\"\n}", "not a regular expression"),
        ("errors stderr", "cannot be logged to"),
        ("log . {\n class good\n}", "not a class of reply"),
        ("template IN", "wrong number of arguments for `template`"),
        ("hosts /etc/hosts {\n ttl 0\n}", "from 1 to 65535"),
        ("hosts /etc/hosts {\n fallthrough\n falltrough\n}", "unknown option `falltrough`"),
        ("hosts /etc/hosts {\n fallthrough\n 192.0.2.1 a.test\n}", "only options may follow"),
        ("hosts /etc/hosts {\n reload -1s\n}", "is not a duration"),
        ("template XX A {\n}", "`XX` is not a class"),
        ("template IN AAA {\n}", "`AAA` is not a type of record"),
        ("template IN A {\n match (\n}", "not a regular expression"),
        ("template IN A {\n rcode NONE\n}", "not a response code"),
        ("template IN A {\n rcode BADVERS\n}", "needs EDNS"),
        ("template IN A {\n macth x\n}", "unknown option `macth`"),
        ("health :8080 {\n lameduck soon\n}", "`soon` is not a duration"),
        ("forward .", "wrong number of arguments for `forward`"),
        ("forward . 10.0.0.1 {\n max_fails -1\n}", "from 0 to 4294967295"),
        ("forward . 10.0.0.1 {\n failover NOERROR\n}", "never accept an answer"),
        ("forward . 10.0.0.1 {\n next WHAT\n}", "not a response code"),
        ("forward . https://10.0.0.1", "https:// upstreams are not served"),
        ("forward . dns.example", "neither an IP address nor a file"),
        ("forward . /etc/none", "cannot read /etc/none"),
        ("forward . /etc/Corefile", "no usable nameserver"),
        ("forward . tls://9.9.9.9%a {\n tls_servername b\n}", "both `tls_servername`"),
        (
            "forward . 1.1.1.1 2.2.2.2 3.3.3.3 4.4.4.4 5.5.5.5 6.6.6.6 7.7.7.7 8.8.8.8 \
          9.9.9.9 1.0.0.0 1.0.0.1 1.0.0.2 1.0.0.3 1.0.0.4 1.0.0.5 1.0.0.6",
            "at most 15",
        ),
        ("bind 10.0.0.1 {\n except 10.0.0.1\n}", "no address to listen on"),
        ("multisocket 0", "from 1 to 1024"),
    ] {
        let found = report(&format!(".:53 {{\n{directives}\n}}\n")).one_liners();
        assert!(found.len() == 1 && found[0].contains(expected), "{directives}\n{found:#?}");
    }
}

#[test]
fn zones_may_not_overlap() {
    for (text, line) in [
        ("a {\n}\na {\n}", Some(3)),
        ("a A. {\n}", Some(1)),
        ("a {\n}\na {\n bind 10.0.0.1\n}", Some(3)),
        ("a {\n bind 10.0.0.1\n}\na {\n bind 10.0.0.1\n}", Some(4)),
        ("a {\n bind 10.0.0.1\n}\na {\n bind 10.0.0.2\n}", None),
        ("a {\n bind 0.0.0.0\n}\na {\n bind 10.0.0.2\n}", None),
        ("a:53 {\n}\na:54 {\n}", None),
        ("10.0.0.0/8 {\n}\n10.in-addr.arpa {\n}", Some(3)),
    ] {
        match line {
            None => drop(config(text)),
            Some(line) => {
                let found = report(text).one_liners();
                let start = format!("{CONF}:{line} - Error during parsing: zone ");
                assert!(found.len() == 1 && found[0].starts_with(&start), "{text}\n{found:#?}");
            }
        }
    }
}

#[test]
fn cache_values_arrive() {
    let cache = block(
        "cache 60 example.org 10.0.0.0/8 {\n success 5000 3600 10\n denial 2500 1800\n \
        prefetch 10 1m30s 15%\n serve_stale 2h verify\n servfail 500ms\n keepttl\n disable denial a\n}",
    )
    .cache
    .unwrap();
    let names =
        |names: &[doorstep::wire::Name]| -> Vec<String> { names.iter().map(ToString::to_string).collect() };
    assert_eq!(names(&cache.zones), ["example.org.", "10.in-addr.arpa."]);
    let store = |capacity, max_ttl, min_ttl| cache::StoreConfig { capacity, max_ttl, min_ttl };
    assert_eq!(cache.success, store(4864, 3600, 10));
    assert_eq!(cache.denial, store(2304, 1800, 5));
    let prefetch = cache::Prefetch { amount: 10, gap_ms: 90_000, percentage: 15 };
    assert_eq!(cache.prefetch, Some(prefetch));
    let stale = cache::ServeStale { window: 7200, mode: cache::StaleMode::Verify, verify_wait_ms: 1800 };
    assert_eq!(cache.serve_stale, Some(stale));
    let patience = |line: &str| {
        let cache = block(&format!("cache {{\n serve_stale {line}\n}}")).cache.unwrap();
        cache.serve_stale.unwrap().patience()
    };
    let millis = |millis| Some(Duration::from_millis(millis));
    assert_eq!([patience("1h verify"), patience("1h verify 2500ms")], [millis(1800), millis(2500)]);
    assert_eq!([patience("1h verify 0s"), patience("1h immediate"), patience("1h")], [None; 3]);
    assert_eq!((cache.servfail_ttl, cache.keep_ttl), (1, true));
    assert_eq!(names(&cache.disable_denial), ["a."]);
    assert_eq!(block("cache").cache, Some(cache::Config::default()));
    assert_eq!(block("cache 30").cache.unwrap().denial.max_ttl, 30);
    assert_eq!(block("cache {\n success 1\n}").cache.unwrap().success.capacity, 1024);
}

#[test]
fn listeners_and_process_values_arrive() {
    let config = config(
        ".:53 {\n bind lo {\n except ::1\n }\n prometheus\n health\n ready\n reload 10s 9s\n debug\n \
         multisocket 3\n timeouts {\n idle 1m\n }\n bufsize 1400\n}\n"
            .replace("lo ", "127.0.0.1 ::1 ")
            .as_str(),
    );
    let shown = |value: &dyn std::fmt::Debug| format!("{value:?}");
    assert_eq!(shown(&config.admin.prometheus), "[127.0.0.1:9153]");
    assert_eq!(shown(&config.admin.ready), "[0.0.0.0:8181, [::]:8181]");
    assert_eq!(config.admin.health.len(), 2);
    assert_eq!(config.health_port, Some(8080));
    let reload = config.reload.unwrap();
    assert_eq!((reload.interval.as_secs(), reload.jitter.as_secs()), (10, 5));
    assert_eq!((config.debug, config.server.udp_threads), (true, 3));
    assert_eq!(config.server.timeouts.idle, Duration::from_secs(60));
    assert_eq!(config.server.timeouts.read, Duration::from_secs(3));
    let block = &config.server.blocks[0];
    assert_eq!(shown(&block.zones[0].1), "[127.0.0.1:53]");
    assert_eq!(block.bufsize, Some(1400));
    assert!(block.plugins.is_sorted() && block.plugins.contains(&"reload"));
}

#[test]
fn domains_of_the_node_arrive() {
    let domains = |directive: &str| -> Option<Vec<String>> {
        block(directive).search_ahead.map(|domains| domains.iter().map(ToString::to_string).collect())
    };
    assert_eq!(domains("errors"), None);
    assert_eq!(domains("search_ahead"), Some(vec![]));
    assert_eq!(domains("search_ahead EC2.internal. b").unwrap(), ["ec2.internal.", "b."]);
}

#[test]
fn what_is_not_stock_is_described() {
    let words = |directives: &str| describe(&config(&format!(".:53 {{\n{directives}\n}}\n")));
    let verify = |timeout: &str| words(&format!("cache {{\n serve_stale 1h verify {timeout}\n}}"));
    assert!(verify("").contains("stale for 3600 s when the upstream fails or takes 1800ms\n"));
    assert!(verify("2s").contains("stale for 3600 s when the upstream fails or takes 2s\n"));
    assert!(verify("0s").contains("stale for 3600 s when the upstream fails\n"));
    assert!(words("search_ahead").contains("  also     search paths fetched ahead\n"));
    let domains = words("search_ahead a b.c");
    assert!(domains.contains("  also     search paths fetched ahead, then a. b.c.\n"), "{domains}");
}

#[test]
fn interfaces_stand_for_their_addresses() {
    let mut machine = Machine::node().file(CONF, ". {\n bind eth0\n}");
    let addresses = ["10.0.0.7", "2001:db8::7"].map(|ip| ip.parse().unwrap());
    machine.interfaces.insert("eth0".into(), addresses.into());
    let zones = &load_on(&machine).server.blocks[0].zones;
    assert_eq!(format!("{:?}", zones[0].1), "[10.0.0.7:53, [2001:db8::7]:53]");
}

#[test]
fn log_formats() {
    let formats = |directive: &str| -> Vec<(String, String)> {
        let rules = block(directive).log;
        rules.into_iter().map(|rule| (rule.scope.to_string(), rule.format)).collect()
    };
    let common = formats("log")[0].1.clone();
    assert!(common.starts_with("{remote}:{port} - {>id} \"{type}"), "{common}");
    assert_eq!(formats("log a b"), [("a.".into(), common.clone()), ("b.".into(), common.clone())]);
    assert_eq!(formats("log . \"{common} x\""), [(".".into(), format!("{common} x"))]);
    let combined = format!("{common} \"{{>opcode}}\"");
    assert_eq!(formats("log {combined}"), [(".".into(), combined)]);
}

#[test]
fn accepted_without_effect_is_said_once() {
    let text = "a {\n nsid x\n any\n minimal\n local\n chaos\n cancel 5s\n forward . 1.1.1.1 {\n \
                read_timeout 1s\n }\n}";
    let warnings = config(text).warnings;
    assert_eq!(warnings.len(), 7, "{warnings:#?}");
    assert!(warnings[0].starts_with("/etc/Corefile:2: `nsid` is accepted but has no effect"));
}

/// node-cache has them; no answer is another one without them.
#[test]
fn what_only_watches_is_no_reason_to_refuse() {
    let text = ".:53 {\n pprof localhost:6053 {\n block\n }\n trace zipkin localhost:9411 {\n every 100\n }\n \
                dnstap /run/dnstap.sock full\n metadata\n forward . 1.1.1.1\n}";
    let warnings = config(text).warnings;
    let names = ["pprof", "trace", "dnstap", "metadata"];
    assert_eq!(warnings.len(), names.len(), "{warnings:#?}");
    for (warning, name) in warnings.iter().zip(names) {
        assert!(warning.contains(&format!("`{name}` is accepted but has no effect")), "{warning}");
    }
}

#[test]
fn hosts_are_read_as_coredns_reads_them() {
    let text = "hosts /hosts test 10.0.0.0/8 {\n 192.0.2.3 d.test e.test\n nonsense\n ttl 60\n no_reverse\n \
                reload 0\n fallthrough a.test\n}";
    let hosts = block(text).steps.hosts.clone().unwrap();
    assert_eq!(hosts.path, std::path::Path::new("/hosts"));
    let zones: Vec<String> = hosts.zones.iter().map(ToString::to_string).collect();
    assert_eq!(zones, ["test.", "10.in-addr.arpa."]);
    assert_eq!(hosts.inline, ["192.0.2.3 d.test e.test", "nonsense"]);
    assert_eq!((hosts.ttl, hosts.reverse, hosts.reload), (60, false, Duration::ZERO));
    let own = block("hosts").steps.hosts.clone().unwrap();
    assert_eq!((own.ttl, own.reverse, own.reload), (3600, true, Duration::from_secs(5)));
    // Those of the block.
    assert_eq!(own.zones.len(), 1);
    let warnings = config(".:53 {\n hosts {\n 192.0.2.1 a..b c\n }\n}").warnings;
    assert!(warnings.iter().any(|warning| warning.contains(":3: `a..b` is not a name")), "{warnings:#?}");
}

/// Each names what is wrong, where, and what would do.
#[test]
fn templates_that_cannot_be_served_are_refused() {
    for (option, message, remedy) in [
        ("answer \"{{ .Remote }} A 1.2.3.4\"", "differs from client to client", "{{ .Name }}"),
        ("answer \"{{ if .Name }}a{{ end }} A 1.2.3.4\"", "`{{ if .Name }}` is not served", "{{ .Name }}"),
        ("authority \"{{ .Name A 1.2.3.4\"", "`{{` is not closed", "{{ .Name }}"),
        ("additional \"a. A 1.2.3\"", "not a record: expected IPv4 address", "192.0.2.1"),
        ("answer", "wrong number of arguments", "RECORD"),
        ("answer \"{{ .Group.x }} A 1.2.3.4\"", "no `match` of this template has", "(?P<NAME>...)"),
        ("answer \"{{ index .Match 1 }} A 1.2.3.4\"", "no `match` of this template has", "(...)"),
    ] {
        let found = report(&format!(".:53 {{\n template IN A {{\n {option}\n }}\n}}"));
        assert_eq!(found.errors().len(), 1, "{option}");
        let shown = found.to_string();
        for part in [message, remedy, &format!("{CONF}:3")] {
            assert!(shown.contains(part), "{part} is not in\n{shown}");
        }
    }
}

/// CoreDNS reads a bare number as seconds here, and only here.
#[test]
fn timeouts_may_lack_their_unit() {
    let timeouts = config(".:53 {\n timeouts {\n read 5\n write 7s\n }\n}").server.timeouts;
    assert_eq!((timeouts.read, timeouts.write), (Duration::from_secs(5), Duration::from_secs(7)));
    assert!(report(".:53 {\n timeouts {\n idle 0\n }\n}").to_string().contains("from 1s to 24h"));
}

/// A node's resolver may be a router that is known by its link-local address alone.
#[test]
fn link_local_upstreams_have_their_scope() {
    let mut machine = Machine::node()
        .file("/etc/resolv.conf", "nameserver fe80::1%eth0\nnameserver fe80::2%gone\n")
        .file(CONF, ".:53 {\n forward . /etc/resolv.conf fe80::3%eth0 [fe80::4%eth0]:5353\n}");
    machine.indices.insert("eth0".into(), 7);
    let config = load_on(&machine);
    let to: Vec<String> =
        config.server.blocks[0].forwards[0].to.iter().map(|target| target.address.to_string()).collect();
    assert_eq!(to, ["[fe80::1%7]:53", "[fe80::3%7]:53", "[fe80::4%7]:5353"]);
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    assert!(config.warnings[0].contains("fe80::2%gone is left out: there is no interface `gone`"));
}
