//! Where a configuration comes from: template, kube-dns ConfigMap, built-in; and when it changed.

use doorstep::config::{LoadError, Origin, System, Watch, describe, load};
use doorstep::forward::Transport;

use super::machine::{Machine, options};
use super::{BASE, CONF, load_on, shapes};

#[test]
fn own_upstreams_drop_force_tcp_as_the_stock_template_wants() {
    let template = ".:53 {\n  forward . __PILLAR__UPSTREAM__SERVERS__ {\n force_tcp\n }\n}\n";
    let machine = Machine::node().file(BASE, template);
    let transport = |machine: &Machine| {
        let forward = load_on(machine).server.blocks[0].forwards[0].clone();
        (forward.transport, forward.to[0].address.to_string())
    };
    assert_eq!(transport(&machine), (Transport::ForceTcp, "192.0.2.53:53".into()));
    let own = machine.file("/etc/kube-dns/upstreamNameservers", r#"["9.9.9.9:54"]"#);
    assert_eq!(transport(&own), (Transport::AsClient, "9.9.9.9:54".into()));
}

#[test]
fn stub_domains_become_blocks() {
    let stubs = r#"{"z.local": ["10.0.0.2"], "acme.local": ["10.0.0.1:54", "::1"]}"#;
    let machine = Machine::node().file(BASE, shapes::STOCK).file("/etc/kube-dns/stubDomains", stubs);
    let config = load_on(&machine);
    let zones: Vec<String> = config.server.blocks[4..]
        .iter()
        .map(|block| {
            assert!(block.metrics && block.errors.is_some() && !block.detect_loops);
            assert_eq!(block.cache.as_ref().unwrap().success.max_ttl, 30);
            block.zones[0].0.to_string()
        })
        .collect();
    assert_eq!(zones, ["acme.local.", "z.local."]);
    assert_eq!(config.admin.prometheus.len(), 2, "no port but the template's");

    let broken = machine.file("/etc/kube-dns/stubDomains", "{");
    assert!(matches!(load(&options(), &broken), Err(LoadError::KubeDns(_))));
    let mut first = options();
    first.tolerate_bad_kube_dns = true;
    let config = load(&first, &broken).unwrap();
    assert_eq!((config.server.blocks.len(), config.omitted.len()), (4, 1));
}

#[test]
fn a_missing_service_costs_its_blocks_alone() {
    let mut machine = Machine::node().file(BASE, shapes::STOCK);
    machine.variables.clear();
    let config = load_on(&machine);
    assert_eq!(config.server.blocks.len(), 1);
    assert_eq!(config.omitted.len(), 3);
    let expected = "/etc/coredns/Corefile.base:10: block `cluster.local:53` is left out: \
                    KUBE_DNS_UPSTREAM_SERVICE_HOST is unset";
    assert!(config.omitted[0].starts_with(expected), "{:?}", config.omitted);

    let only = "a {\n forward . __PILLAR__CLUSTER__DNS__\n}";
    let nothing = load(&options(), &machine.file(BASE, only));
    assert!(matches!(nothing, Err(LoadError::NothingToServe(_))));
}

#[test]
fn template_tokens() {
    let text = "__PILLAR__DNS__DOMAIN__:53 {\n bind __PILLAR__LOCAL__DNS__ __PILLAR__DNS__SERVER__\n \
                health __PILLAR__LOCAL__DNS__:8080\n prometheus __PROMETHEUS__ENDPOINT__\n}\n";
    let mut options = options();
    options.local_ips.push("fd00::10".parse().unwrap());
    let machine = Machine::node().file(BASE, text);
    let config = load(&options, &machine).unwrap();
    let listens = format!("{:?}", config.server.blocks[0].zones[0].1);
    assert_eq!(listens, "[169.254.20.10:53, [fd00::10]:53]");
    assert_eq!(config.admin.health[0].address.to_string(), "169.254.20.10:8080");
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    options.local_ips.clear();
    let error = load(&options, &machine).unwrap_err().to_string();
    assert!(error.contains("give the addresses with -localip"), "{error}");
    options.local_ips = vec!["fd00::10".parse().unwrap()];
    let config = load(&options, &machine).unwrap();
    assert_eq!(config.admin.health[0].address.to_string(), "[fd00::10]:8080");
}

#[test]
fn without_any_file_the_built_in_one_is_served() {
    let config = load_on(&Machine::node());
    assert_eq!(config.origin, Origin::Builtin);
    assert_eq!((config.warnings.len(), config.expanded.as_ref()), (1, None));
    let stock = load_on(&Machine::node().file(BASE, shapes::STOCK));
    assert_eq!(
        describe(&config).lines().skip(1).collect::<Vec<_>>(),
        describe(&stock).lines().skip(1).collect::<Vec<_>>()
    );

    let mut machine =
        Machine::node().file("/etc/resolv.conf", "nameserver 169.254.20.10\nnameserver 192.0.2.1\n");
    machine.variables.clear();
    let config = load_on(&machine);
    let forward = &config.server.blocks[0].forwards[0];
    assert_eq!(forward.to.len(), 1, "our own address would loop");
    assert!(config.warnings.iter().any(|line| line.contains("169.254.20.10 is left out")));

    let mut strict = options();
    strict.allow_builtin = false;
    assert!(matches!(load(&strict, &machine), Err(LoadError::Read { .. })));
}

#[test]
fn the_watch_sees_every_input() {
    let machine = Machine::node()
        .file(BASE, &format!("{}import custom/*.server\nimport more\n", shapes::STOCK))
        .file("/etc/more", "");
    let mut watch = Watch::default();
    let before = watch.load(&options(), &machine).unwrap();
    assert!(!watch.changed(&machine));
    for (path, text) in [
        (BASE, "."),
        ("/etc/more", "# x"),
        ("/etc/custom/x.server", ""),
        ("/etc/kube-dns/stubDomains", "{}"),
        ("/etc/resolv.conf", "nameserver 192.0.2.54"),
    ] {
        assert!(watch.changed(&machine.clone().file(path, text)), "{path}");
    }
    // What the template is written to is no input.
    assert!(!watch.changed(&machine.clone().file(CONF, "x")));

    let same = machine.clone().file("/etc/more", "# a comment");
    assert_eq!(watch.load(&options(), &same).unwrap().fingerprint, before.fingerprint);
    let other = machine.file("/etc/resolv.conf", "nameserver 192.0.2.54");
    assert_ne!(watch.load(&options(), &other).unwrap().fingerprint, before.fingerprint);

    let broken = other.file(BASE, "}");
    assert!(watch.changed(&broken));
    assert!(watch.load(&options(), &broken).is_err());
    assert!(!watch.changed(&broken), "the same mistake is not looked at twice");
}

/// The kubelet swaps the symlink `..data`; the files beside it are links through it.
#[test]
fn a_config_map_swap_on_disk_is_seen() {
    use std::os::unix::fs::symlink;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for (version, port) in [("..1", 53), ("..2", 54)] {
        std::fs::create_dir(path(version)).unwrap();
        let block = format!(".:{port} {{\n forward . 10.0.0.1\n}}\n");
        std::fs::write(path(version).join("x.server"), block).unwrap();
        std::fs::write(path(version).join("Corefile"), "import *r\n").unwrap();
    }
    symlink("..1", path("..data")).unwrap();
    for name in ["x.server", "Corefile"] {
        symlink(format!("..data/{name}"), path(name)).unwrap();
    }
    let mut options = options();
    (options.base, options.corefile) = (None, path("Corefile"));
    let mut watch = Watch::default();
    let config = watch.load(&options, &System).unwrap();
    assert_eq!(config.server.blocks.len(), 1);
    assert!(!watch.changed(&System));

    symlink("..2", path("..next")).unwrap();
    std::fs::rename(path("..next"), path("..data")).unwrap();
    assert!(watch.changed(&System));
    let zones = &watch.load(&options, &System).unwrap().server.blocks[0].zones;
    assert_eq!(zones[0].1[0].port(), 54);
}
