//! An environment in memory.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use doorstep::config::{Environment, Options};

/// Files, variables and interfaces of a node that does not exist.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    pub variables: BTreeMap<String, String>,
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    pub interfaces: BTreeMap<String, Vec<IpAddr>>,
    pub indices: BTreeMap<String, u32>,
}

impl Machine {
    /// A node with a resolver and a DNS service.
    pub fn node() -> Machine {
        Machine::default()
            .file("/etc/resolv.conf", "search x -- y\nnameserver 192.0.2.53\noptions ndots:5\n")
            .variable("KUBE_DNS_UPSTREAM_SERVICE_HOST", "10.96.0.99")
    }

    pub fn file(mut self, path: &str, text: &str) -> Machine {
        self.files.insert(path.into(), text.into());
        self
    }

    pub fn variable(mut self, name: &str, value: &str) -> Machine {
        self.variables.insert(name.into(), value.into());
        self
    }
}

impl Environment for Machine {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    fn read(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
        let bytes = self.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(bytes.iter().copied().take(limit + 1).collect())
    }

    fn glob(&self, pattern: &str) -> Result<Vec<PathBuf>, glob::PatternError> {
        let pattern = glob::Pattern::new(pattern)?;
        let names = self.files.keys().filter(|path| pattern.matches_path(path));
        Ok(names.cloned().collect())
    }

    fn interface_addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let found = self.interfaces.get(name).cloned();
        found.ok_or(io::ErrorKind::NotFound.into())
    }

    fn interface_index(&self, name: &str) -> io::Result<u32> {
        self.indices.get(name).copied().ok_or(io::ErrorKind::NotFound.into())
    }
}

/// The stock manifest's flags.
pub fn options() -> Options {
    Options {
        corefile: "/etc/Corefile".into(),
        base: Some("/etc/coredns/Corefile.base".into()),
        kube_dns: Some("/etc/kube-dns".into()),
        local_ips: vec![Ipv4Addr::new(169, 254, 20, 10).into()],
        upstream_service: "kube-dns-upstream".into(),
        dns_port: 53,
        prometheus: ":9253".into(),
        allow_builtin: true,
        tolerate_bad_kube_dns: false,
    }
}
