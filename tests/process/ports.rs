//! Ports: taken ones, and what the HTTP ones say.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use super::exposition::{exchange, parse, scrape};
use super::loopback;
use super::scripted::{Scripted, answer};
use super::server::Setup;

/// Status and body.
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let response = exchange(address, &request);
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn a_taken_port_is_named_with_its_remedy() {
    let address = loopback::fresh_dns();
    let ip = address.ip();
    let text = super::block(".", ip, (ip, 1).into(), &format!("health {ip}:8080"));
    let expect = |protocol: &str, taken: SocketAddr| {
        let (code, stdout, stderr) = Setup::new(ip, &text).run();
        assert!(!stdout.contains("worker"), "the reason is enough: {stdout}");
        assert_eq!(code, Some(1), "{stderr}");
        let expected = format!("cannot listen on {protocol} {taken}: address already in use");
        assert!(stderr.contains(&expected), "{stderr}");
        assert!(stderr.contains("another server holds the port, `ss -lnp"), "{stderr}");
    };
    let udp = UdpSocket::bind(address).unwrap();
    expect("udp", address);
    drop(udp);
    let tcp = TcpListener::bind(address).unwrap();
    expect("tcp", address);
    drop(tcp);
    let health = SocketAddr::new(ip, 8080);
    let _http = TcpListener::bind(health).unwrap();
    expect("tcp", health);
}

/// It may come later, so it is bound all the same. A typing error would be found by nobody otherwise.
#[test]
fn an_address_that_is_not_here_is_named() {
    let address = loopback::fresh_dns();
    let block = |ip: &str| super::block(".", ip.parse().unwrap(), address, "");
    let server = Setup::new(address.ip(), &block(&address.ip().to_string())).start();
    assert!(!server.log().contains("no address of this node"), "{}", server.log());
    server.rewrite(&block("192.0.2.53"));
    server.signal(rustix::process::Signal::USR1);
    server.wait_for_log("192.0.2.53 is no address of this node: nobody is answered there until it is");
}

/// As with node-cache: its own metrics port does not keep DNS from being served.
#[test]
fn a_taken_metrics_port_is_no_reason_to_end() {
    let upstream = Scripted::start(answer);
    let address = loopback::fresh_dns();
    let _taken = TcpListener::bind((address.ip(), super::server::METRICS_PORT)).unwrap();
    let server = Setup::new(address.ip(), &super::block(".", address.ip(), upstream.address, "")).start();
    server.wait_for_log("-metrics-listen-address: cannot listen on tcp");
    assert_eq!(super::client::udp(address, &super::message::ask("a.test")).rcode(), 0);
}

#[test]
fn health_ready_and_metrics_answer_where_they_should() {
    let upstream = Scripted::start(answer);
    let address = loopback::fresh_dns();
    let ip = address.ip();
    let at = |port| SocketAddr::new(ip, port);
    let directives = format!("health {ip}:8080\n ready {ip}:8181\n prometheus {ip}:9253\n");
    let server = Setup::new(ip, &super::block(".", ip, upstream.address, &directives)).start();
    assert_eq!(get(at(8080), "/health"), (200, "OK".to_owned()));
    assert_eq!(get(at(8181), "/ready"), (200, "OK".to_owned()));
    for (port, path) in [(8080, "/ready"), (8080, "/metrics"), (8181, "/health"), (9253, "/health")] {
        assert_eq!(get(at(port), path).0, 404, "{port} {path}");
    }
    let names = |address| parse(&scrape(address)).into_iter().map(|family| family.name).collect::<Vec<_>>();
    let shown = names(at(9253));
    assert_eq!(shown, names(server.metrics()), "both ports show everything");
    for name in ["coredns_build_info", "coredns_nodecache_setup_errors_total", "process_open_fds"] {
        assert!(shown.iter().any(|shown| shown == name), "{name}");
    }
}
