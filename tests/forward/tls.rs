//! `tls://` upstreams.

use std::path::Path;
use std::sync::Arc;

use doorstep::forward::Tls;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;

/// A server certificate for `dns.example`, and its CA's certificate in a file.
fn server_config(ca_file: &Path) -> Arc<rustls::ServerConfig> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(ca_file, ca.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["dns.example".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &ca).unwrap();
    let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(config)
}

fn over_tls(to: SocketAddr, server_name: &str, ca_file: &Path) -> Config {
    let target = Target { tls: true, ..Target::plain(to) };
    Config {
        tls: Tls {
            roots: Some(ca_file.to_owned()),
            server_name: Some(server_name.to_owned()),
            ..Tls::default()
        },
        ..Config::new(Name::root(), vec![target])
    }
}

#[test]
fn queries_travel_over_tls_whatever_the_client_used() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let ca_file = directory.path().join("ca.pem");
        let server = Upstream::start_tls(server_config(&ca_file), answer).await;
        let client = Client::new(&[over_tls(server.address, "dns.example", &ca_file)]);
        assert_answered(client.udp("a").await);
        let replies = join_all((0..50).map(|_| client.tcp("a"))).await;
        replies.into_iter().for_each(assert_answered);
        assert!(server.connections() <= 4, "{}", server.connections());
    });
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let ca_file = directory.path().join("ca.pem");
        let server = Upstream::start_tls(server_config(&ca_file), answer).await;
        for name in ["other.example", "127.0.0.1"] {
            let client = Client::new(&[over_tls(server.address, name, &ca_file)]);
            let error = client.udp("a").await.unwrap_err().to_string();
            assert!(error.starts_with("dial tcp 127.0.0.1:"), "{error}");
            assert!(error.contains("certificate"), "{error}");
        }
        assert_eq!(server.asked().len() + server.probes(), 0);
    });
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let config = over_tls("127.0.0.1:853".parse().unwrap(), "a", Path::new("/absent/ca.pem"));
    let error = Chain::new(&[config], Rc::new(Counts::default())).err().unwrap();
    assert!(error.to_string().contains("/absent/ca.pem"), "{error}");
}
