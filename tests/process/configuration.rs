//! Corefiles, right and wrong, and where they come from.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::client::udp;
use super::loopback::{self, DNS_PORT};
use super::message::ask;
use super::scripted::{Scripted, answer};
use super::server::{BINARY, Setup};

const MISTAKES: &str = "\
cluster.local:53 {
    errors
    cahce 30
    forward . 10.0.0.10 {
        force_tpc
        max_fails many
    }
    bind 169.254.20.300
}
.:53 {
    cache {
        success lots
    }
    forward . not-an-address
    reload 1s
    kubernetes cluster.local
}
";

/// Line and column of each mistake above.
const PLACES: [&str; 8] = ["3:5", "5:9", "6:19", "8:10", "12:17", "14:15", "15:12", "16:5"];

#[test]
fn every_mistake_is_reported_at_once_with_its_place() {
    let setup = Setup::new(loopback::fresh(), MISTAKES);
    let corefile = setup.corefile();
    let checked = Command::new(BINARY).arg("check").arg(&corefile).output().unwrap();
    let (code, _, stderr) = setup.run();
    assert_eq!((code, checked.status.code()), (Some(64), Some(64)));
    assert_eq!(stderr, String::from_utf8(checked.stderr).unwrap());
    for place in PLACES {
        let place = format!("{}:{place}", corefile.display());
        assert!(stderr.contains(&place), "no {place} in\n{stderr}");
    }
    let carets = stderr.lines().filter(|line| line.trim_start_matches(['|', ' ']).starts_with('^')).count();
    assert_eq!(carets, PLACES.len(), "{stderr}");
    assert!(stderr.ends_with("8 errors\n"), "{stderr}");
    assert!(stderr.contains("did you mean `cache`"), "{stderr}");
}

#[test]
fn check_says_what_was_understood() {
    let setup = Setup::new(
        loopback::fresh(),
        "cluster.local {\n bind 169.254.20.10\n cache 30\n forward . 10.0.0.10 {\n force_tcp\n }\n}\n",
    );
    let output = Command::new(BINARY).arg("check").arg(setup.corefile()).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    for word in ["cluster.local", "169.254.20.10", "10.0.0.10"] {
        assert!(stdout.contains(word), "{word} in\n{stdout}");
    }
    let missing = Command::new(BINARY).args(["check", "/nonexistent/Corefile"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(64));
    assert!(String::from_utf8(missing.stderr).unwrap().contains("/nonexistent/Corefile"));
}

/// A template of the stock shape.
const TEMPLATE: &str = "\
cluster.local:5300 {
    errors
    cache {
            success 9984 30
            denial 9984 5
    }
    reload
    bind __PILLAR__LOCAL__DNS__ __PILLAR__DNS__SERVER__
    forward . __PILLAR__CLUSTER__DNS__ {
            force_tcp
    }
    health __PILLAR__LOCAL__DNS__:8080
}
";

/// The template with a cluster upstream on a port of its own: an address alone means port 53.
fn template(upstream: SocketAddr) -> String {
    TEMPLATE.replace("__CLUSTER__DNS__", &format!("__CLUSTER__DNS__:{}", upstream.port()))
}

#[test]
fn a_template_is_expanded_and_left_where_conf_says() {
    let upstream = Scripted::start(answer);
    let ip = loopback::fresh();
    let setup = Setup::bare(ip)
        .flag(format!("-localip={ip}"))
        .flag("-upstreamsvc=kube-dns-upstream")
        .variable("KUBE_DNS_UPSTREAM_SERVICE_HOST", upstream.address.ip());
    fs::write(setup.path("Corefile.base"), template(upstream.address)).unwrap();
    let server = setup.start();
    assert_eq!(udp((ip, DNS_PORT).into(), &ask("a.cluster.local")).rcode(), 0);
    let written = fs::read_to_string(server.setup.corefile()).unwrap();
    assert!(written.contains(&format!("bind {ip}")), "{written}");
    assert!(written.contains(&upstream.address.to_string()), "{written}");
    assert!(!written.contains("__PILLAR__"), "{written}");
    let again = Command::new(BINARY).arg("check").arg(server.setup.corefile()).output().unwrap();
    assert_eq!(again.status.code(), Some(0), "what was written is a Corefile");
}

#[test]
fn a_conf_that_cannot_be_written_is_no_harm() {
    let upstream = Scripted::start(answer);
    let ip = loopback::fresh();
    let setup = Setup::bare(ip)
        .flag(format!("-localip={ip}"))
        .flag("-conf=/proc/no/such/Corefile")
        .variable("KUBE_DNS_SERVICE_HOST", upstream.address.ip());
    fs::write(setup.path("Corefile.base"), template(upstream.address)).unwrap();
    let server = setup.start();
    assert_eq!(udp((ip, DNS_PORT).into(), &ask("a.cluster.local")).rcode(), 0);
    server.wait_for_log("cannot write the expanded Corefile to -conf /proc/no/such/Corefile");
}

#[test]
fn without_a_template_conf_is_read_and_never_written() {
    let upstream = Scripted::start(answer);
    let ip = loopback::fresh();
    let text = super::block(".", ip, upstream.address, "");
    let setup = Setup::new(ip, &text);
    fs::set_permissions(setup.corefile(), fs::Permissions::from_mode(0o400)).unwrap();
    let server = setup.start();
    assert_eq!(udp((ip, DNS_PORT).into(), &ask("a.test")).rcode(), 0);
    assert_eq!(fs::read_to_string(server.setup.corefile()).unwrap(), text);
}

/// The built-in Corefile asks port 53, so a peer has to be there.
#[test]
fn without_any_corefile_the_built_in_one_serves() {
    let upstream = Scripted::start_at((loopback::fresh(), 53).into(), answer);
    let ip = loopback::fresh();
    let server = Setup::bare(ip)
        .flag(format!("-localip={ip}"))
        .flag(format!("-prometheus-listen-address={ip}:9253"))
        .flag("-upstreamsvc=kube-dns-upstream")
        .variable("KUBE_DNS_UPSTREAM_SERVICE_HOST", upstream.address.ip())
        .start();
    server.wait_for_log("the built-in Corefile is served");
    for name in ["a.default.svc.cluster.local", "1.0.96.10.in-addr.arpa", "1.0.ip6.arpa"] {
        assert_eq!(udp((ip, DNS_PORT).into(), &ask(name)).rcode(), 0, "{name}");
        assert_eq!(upstream.count(&format!("{name}.")), 1);
    }
    assert!(upstream.asked().iter().all(|asked| !asked.udp), "the cluster is asked over TCP");
    assert_eq!(super::ports::get((ip, 8080).into(), "/health").0, 200);
}

/// In a mount namespace of its own the process reads another resolv.conf than the machine's.
#[test]
fn without_a_cluster_the_nodes_resolvers_are_asked() {
    let upstream = Scripted::start_at((loopback::fresh(), 53).into(), answer);
    let ip = loopback::fresh();
    let setup =
        Setup::bare(ip).flag(format!("-localip={ip}")).flag(format!("-prometheus-listen-address={ip}:9253"));
    fs::write(setup.path("resolv.conf"), format!("nameserver {}\n", upstream.address.ip())).unwrap();
    let server = setup
        .inside("unshare -m sh -c 'mount --bind resolv.conf /etc/resolv.conf && exec \"$@\"' sh")
        .start();
    server.wait_for_log("KUBE_DNS_SERVICE_HOST is unset");
    for name in ["example.test", "a.cluster.local"] {
        assert_eq!(udp((ip, DNS_PORT).into(), &ask(name)).rcode(), 0, "{name}");
        assert_eq!(upstream.count(&format!("{name}.")), 1);
    }
}
