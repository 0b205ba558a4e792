//! With less than root.

use super::client::udp;
use super::loopback;
use super::message::ask;
use super::scripted::{Scripted, answer};
use super::server::Setup;

#[test]
fn without_net_admin_it_says_so_and_serves_what_is_there() {
    let upstream = Scripted::start(answer);
    let address = loopback::fresh_dns();
    let ip = address.ip();
    let mut server = Setup::new(ip, &super::block(".", ip, upstream.address, ""))
        .flag(format!("-localip={ip}"))
        .flag("-setupinterface=true")
        .flag("-setupiptables=true")
        .flag("-interfacename=doorstep-test")
        .inside("setpriv --bounding-set=-net_admin --inh-caps=-net_admin --")
        .start();
    server.wait_for_log("[WARNING] CAP_NET_ADMIN is missing: the link and the rules cannot be set up");
    assert_eq!(udp(address, &ask("a.test")).rcode(), 0);
    let errors = |kind| {
        super::metric(server.metrics(), "coredns_nodecache_setup_errors_total", Some(("errortype", kind)))
    };
    assert!(errors("interface_add") >= Some(1.0));
    assert!(errors("iptables") >= Some(1.0));
    assert!(server.is_running());
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.exit(super::client::PATIENCE).code(), Some(0));
}

#[test]
fn without_the_right_to_a_low_port_the_remedy_is_said() {
    let ip = loopback::fresh();
    let corefile = super::block(".:53", ip, (ip, 1).into(), "");
    let setup = Setup::new(ip, &corefile)
        .inside("unshare -n sh -c 'ip link set lo up; echo 1024 > /proc/sys/net/ipv4/ip_unprivileged_port_start; exec \"$@\"' sh setpriv --bounding-set=-net_bind_service --inh-caps=-net_bind_service --");
    let (code, _, stderr) = setup.run();
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("CAP_NET_BIND_SERVICE"), "{stderr}");
    assert!(stderr.contains("-dns.port"), "{stderr}");
}
