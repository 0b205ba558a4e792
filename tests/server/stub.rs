//! A stub resolver of another make asks us: hickory-resolver, with its own parser and habits.

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RecordType;

use super::Served;
use super::nsd::Nsd;

/// Forty addresses, more than 512 octets hold.
fn zone() -> String {
    let many: String = (1..=40).map(|last| format!("many A 192.0.2.{last}\n")).collect();
    format!(
        "$ORIGIN stub.test.\n$TTL 300\n@ SOA ns host 1 2 3 4 60\n@ NS ns\nns A 192.0.2.1\n\
         alias CNAME host\nhost A 192.0.2.7\nhost AAAA 2001:db8::7\n{many}"
    )
}

fn stub(served: &Served, mut connections: Vec<ConnectionConfig>) -> TokioResolver {
    for connection in &mut connections {
        connection.port = served.address.port();
    }
    let server = NameServerConfig::new(served.address.ip(), true, connections);
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).build().unwrap()
}

#[test]
fn hickory_resolves_through_us() {
    let nsd = Nsd::start("stub.test", &zone());
    let served = Served::start(nsd.address, "");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (udp, tcp) = (ConnectionConfig::udp, ConnectionConfig::tcp);
        for connections in [vec![udp(), tcp()], vec![tcp()]] {
            let stub = stub(&served, connections);
            let both = stub.lookup_ip("alias.stub.test.").await.unwrap();
            assert!(both.iter().any(|address| address.is_ipv4()), "{both:?}");
            let many = stub.lookup("many.stub.test.", RecordType::A).await.unwrap();
            assert_eq!(
                many.answers().iter().filter(|record| record.record_type() == RecordType::A).count(),
                40
            );
            let none = stub.lookup("none.stub.test.", RecordType::A).await.unwrap_err();
            assert!(none.is_nx_domain(), "{none}");
        }
    });
}
