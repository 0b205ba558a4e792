//! Unbound behind us, over UDP, TCP and TLS.

use std::net::SocketAddr;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::client::{tcp, udp};
use super::loopback;
use super::message::{Answer, ask, rr};
use super::server::Doorstep;
use super::unbound::Unbound;

const RECORDS: &[&str] = &[
    "corp.test. 300 SOA ns.corp.test. root.corp.test. 1 3600 900 86400 60",
    "a.corp.test. 300 A 192.0.2.1",
    "a.corp.test. 300 A 192.0.2.2",
    "a.corp.test. 300 AAAA 2001:db8::1",
];
const TLS_PORT: u16 = 8530;

/// A server that asks `to`, with options of `forward`.
fn doorstep(to: &str, options: &str) -> (SocketAddr, Doorstep) {
    let address = loopback::fresh_dns();
    let ip = address.ip();
    let text =
        format!("corp.test {{\n bind {ip}\n errors\n cache\n forward . {to} {{\n {options}\n }}\n}}\n");
    (address, Doorstep::start(ip, &text))
}

/// Two records, no such name, no such type; twice, over both protocols.
fn expect_answers(server: SocketAddr) {
    let facts = |answer: &Answer| (answer.rcode(), answer.section(1).len(), answer.section(2).len());
    for _ in 0..2 {
        for way in [udp, tcp] {
            assert_eq!(facts(&way(server, &ask("a.corp.test"))), (0, 2, 0));
            assert_eq!(facts(&way(server, &ask("a.corp.test").qtype(rr::AAAA))), (0, 1, 0));
            assert_eq!(facts(&way(server, &ask("b.corp.test"))), (3, 0, 1));
            assert_eq!(facts(&way(server, &ask("a.corp.test").qtype(rr::TXT))), (0, 0, 1));
        }
    }
}

#[test]
fn unbound_over_udp_and_tcp() {
    let unbound = Unbound::start("corp.test", RECORDS, "");
    for options in ["", "prefer_udp", "force_tcp"] {
        let (address, _server) = doorstep(&unbound.address.to_string(), options);
        expect_answers(address);
    }
}

/// Writes a CA's certificate, and a key and certificate for `dns.example` that it signed.
fn certify(directory: &Path) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["dns.example".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &ca).unwrap();
    for (name, text) in [("ca", ca.pem()), ("key", key.serialize_pem()), ("certificate", certificate.pem())] {
        std::fs::write(directory.join(name), text).unwrap();
    }
}

#[test]
fn unbound_over_tls() {
    let directory = tempfile::tempdir().unwrap();
    certify(directory.path());
    let home = directory.path().display();
    let ip = loopback::fresh();
    let listening = format!(
        " interface: {ip}@{TLS_PORT}\n tls-port: {TLS_PORT}\n tls-service-key: \"{home}/key\"\n \
         tls-service-pem: \"{home}/certificate\"\n"
    );
    let _unbound = Unbound::start("corp.test", RECORDS, &listening);
    let to = format!("tls://{ip}:{TLS_PORT}");
    let (address, _server) = doorstep(&to, &format!("tls {home}/ca\n tls_servername dns.example"));
    expect_answers(address);
    let (address, server) = doorstep(&to, &format!("tls {home}/ca\n tls_servername other.example"));
    assert_eq!(udp(address, &ask("a.corp.test")).rcode(), 2);
    server.wait_for_log("plugin/errors: 2 a.corp.test. A: ");
}
