//! Whatever a Corefile says, it is refused or understood, and its expansion means the same.

#![no_main]

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use doorstep::config::{Environment, Options, describe, load};
use libfuzzer_sys::fuzz_target;

/// A machine with a template, a file to import, and a ConfigMap.
struct Machine<'a> {
    base: Option<&'a str>,
    conf: &'a str,
    imported: &'a str,
}

impl Environment for Machine<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "KUBE_DNS_UPSTREAM_SERVICE_HOST" => Some("10.96.0.99".into()),
            "A" => Some(self.imported.to_owned()),
            _ => None,
        }
    }

    fn read(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
        let text = match (path.to_str(), self.base) {
            (Some("/base/Corefile.base"), Some(base)) => base,
            (Some("/etc/Corefile"), _) => self.conf,
            (Some("/etc/i"), _) => self.imported,
            (Some("/etc/resolv.conf"), _) => "nameserver 192.0.2.53\n",
            (Some("/kube/stubDomains"), Some(_)) => r#"{"corp.test": ["10.0.0.1"]}"#,
            _ => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(text.bytes().take(limit.saturating_add(1)).collect())
    }

    fn glob(&self, pattern: &str) -> Result<Vec<PathBuf>, glob::PatternError> {
        let pattern = glob::Pattern::new(pattern)?;
        let file = PathBuf::from("/etc/i");
        Ok(if pattern.matches_path(&file) { vec![file] } else { Vec::new() })
    }

    fn interface_addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        match name {
            "eth0" => Ok(vec![Ipv4Addr::new(10, 0, 0, 7).into()]),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

// The template, and after a NUL the file it may import.
fuzz_target!(|input: &str| {
    let (base, imported) = input.split_once('\0').unwrap_or((input, "cache 30\n"));
    let options = Options {
        corefile: "/etc/Corefile".into(),
        base: Some("/base/Corefile.base".into()),
        kube_dns: Some("/kube".into()),
        local_ips: vec![Ipv4Addr::new(169, 254, 20, 10).into()],
        upstream_service: "kube-dns-upstream".into(),
        dns_port: 53,
        prometheus: ":9253".into(),
        allow_builtin: false,
        tolerate_bad_kube_dns: false,
    };
    let config = match load(&options, &Machine { base: Some(base), conf: "", imported }) {
        Ok(config) => config,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert!(!describe(&config).is_empty());
    let text = config.expanded.as_deref().expect("a template has an expansion");
    match load(&options, &Machine { base: None, conf: text, imported }) {
        Ok(again) => assert_eq!(again.fingerprint, config.fingerprint, "{text}"),
        Err(error) => panic!("the expansion is refused: {error}\n{text}"),
    }
});
