//! TLS towards upstreams (RFC 7858), and the `tls` option's files.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::config::{Target, Tls};
use super::error::Error;

/// The client side of TLS 1.2 and 1.3 for one directive. Reads every file the option names.
pub(super) fn client_config(tls: &Tls) -> Result<Arc<ClientConfig>, Error> {
    let roots = match &tls.roots {
        Some(path) => roots_from(path)?,
        None => system_roots()?,
    };
    // Named here because a process-wide default would depend on who else links rustls.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match &tls.identity {
        Some((chain, key)) => {
            let key =
                PrivateKeyDer::from_pem_file(key).map_err(|error| broken("TLS private key", key, &error))?;
            builder.with_client_auth_cert(certificates(chain)?, key)?
        }
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// The name the upstream's certificate must carry: its own, else the directive's, else its address.
pub(super) fn server_name(target: &Target, tls: &Tls) -> Result<ServerName<'static>, Error> {
    match target.server_name.as_ref().or(tls.server_name.as_ref()) {
        Some(name) => {
            let name = name.trim_end_matches('.').to_owned();
            ServerName::try_from(name.clone()).map_err(|_| Error::ServerName(name))
        }
        None => Ok(ServerName::IpAddress(target.address.ip().into())),
    }
}

fn roots_from(path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| broken("CA certificate", path, &error))?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // System stores hold oddities; one that cannot be read must not take the others along.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reasons: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(Error::NoRoots(if reasons.is_empty() {
            "the system has none".to_owned()
        } else {
            reasons.join("; ")
        }));
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| broken("TLS certificate", path, &error))?;
    if found.is_empty() {
        return Err(broken("TLS certificate", path, &"no certificate in this file"));
    }
    Ok(found)
}

fn broken(what: &'static str, path: &Path, reason: &dyn std::fmt::Display) -> Error {
    Error::TlsFile { what, path: path.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("absent.pem");
        let empty = directory.path().join("empty.pem");
        std::fs::write(&empty, "nothing").unwrap();
        for path in [&missing, &empty] {
            let tls = Tls { roots: Some(path.clone()), ..Tls::default() };
            let shown = client_config(&tls).unwrap_err().to_string();
            assert!(shown.contains(path.to_str().unwrap()), "{shown}");
        }
    }

    #[test]
    fn the_server_name_is_the_targets_then_the_options_then_the_address() {
        let mut target = Target::plain("192.0.2.1:853".parse().unwrap());
        let mut tls = Tls::default();
        let shown = |target: &Target, tls: &Tls| server_name(target, tls).unwrap().to_str().into_owned();
        assert_eq!(shown(&target, &tls), "192.0.2.1");
        tls.server_name = Some("option.example".into());
        assert_eq!(shown(&target, &tls), "option.example");
        target.server_name = Some("target.example.".into());
        assert_eq!(shown(&target, &tls), "target.example");
        target.server_name = Some("not a name".into());
        assert!(server_name(&target, &tls).is_err());
    }
}
