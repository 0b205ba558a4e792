//! The kube-dns ConfigMap: `stubDomains` and `upstreamNameservers`.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use super::environment::Environment;
use crate::wire::Name;

/// Nameservers `upstreamNameservers` may list (kube-dns's limit).
const MAX_UPSTREAMS: usize = 3;
/// A ConfigMap holds 1 MiB.
const MAX_BYTES: usize = 1 << 20;

/// What the ConfigMap asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KubeDns {
    /// Nameservers of each stub domain, by domain.
    pub stub_domains: BTreeMap<String, Vec<String>>,
    /// Replaces /etc/resolv.conf where the template asks for upstream servers.
    pub upstream_nameservers: Vec<String>,
}

/// Why the ConfigMap cannot be used. Configuration in force stays in force.
#[derive(Debug, thiserror::Error)]
pub enum KubeDnsError {
    /// A key that exists cannot be read.
    #[error("{path}: {error}")]
    Read {
        /// The key's file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// Not JSON, or JSON of another shape.
    #[error("{path}: {error}")]
    Json {
        /// The key's file.
        path: PathBuf,
        /// The reader's reason, with line and column.
        error: serde_json::Error,
    },
    /// JSON of the right shape with a value that is not allowed.
    #[error("{path}: {reason}")]
    Value {
        /// The key's file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl KubeDns {
    /// Reads the directory a ConfigMap is mounted at. A missing directory, key or text is empty.
    pub fn read(directory: &Path, env: &dyn Environment) -> Result<KubeDns, KubeDnsError> {
        let path = directory.join("stubDomains");
        let stub_domains = stub_domains(&key(&path, env)?, &path)?;
        let path = directory.join("upstreamNameservers");
        let upstream_nameservers = upstream_nameservers(&key(&path, env)?, &path)?;
        Ok(KubeDns { stub_domains, upstream_nameservers })
    }

    /// A server block for each stub domain, as Corefile text.
    pub(super) fn stub_blocks(&self, local_ips: &[IpAddr], port: u16) -> String {
        let local: Vec<String> = local_ips.iter().map(IpAddr::to_string).collect();
        let bind = match local.as_slice() {
            [] => String::new(),
            local => format!("    bind {}\n", local.join(" ")),
        };
        let block = |(zone, servers): (&String, &Vec<String>)| {
            let servers = servers.join(" ");
            format!("{zone}:{port} {{\n    errors\n    cache 30\n{bind}    forward . {servers}\n}}\n")
        };
        self.stub_domains.iter().map(block).collect()
    }
}

fn key(path: &Path, env: &dyn Environment) -> Result<Vec<u8>, KubeDnsError> {
    match env.read(path, MAX_BYTES) {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(KubeDnsError::Read { path: path.to_owned(), error }),
    }
}

fn json<T: Default>(
    text: &[u8],
    path: &Path,
    read: impl Fn(&[u8]) -> serde_json::Result<T>,
) -> Result<T, KubeDnsError> {
    if text.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    read(text).map_err(|error| KubeDnsError::Json { path: path.to_owned(), error })
}

fn stub_domains(text: &[u8], path: &Path) -> Result<BTreeMap<String, Vec<String>>, KubeDnsError> {
    let domains: BTreeMap<String, Vec<String>> = json(text, path, |text| serde_json::from_slice(text))?;
    let refuse = |reason| KubeDnsError::Value { path: path.to_owned(), reason };
    for (zone, servers) in &domains {
        if !is_subdomain(zone) {
            return Err(refuse(format!("`{zone}` is not a domain in lower case")));
        }
        if servers.is_empty() {
            return Err(refuse(format!("`{zone}` has no nameserver")));
        }
        if let Some(server) = servers.iter().find(|server| !is_server(server)) {
            return Err(refuse(format!(
                "nameserver `{server}` of `{zone}` is neither IP nor IP:PORT; host names are not resolved"
            )));
        }
    }
    Ok(domains)
}

fn upstream_nameservers(text: &[u8], path: &Path) -> Result<Vec<String>, KubeDnsError> {
    let servers: Vec<String> = json(text, path, |text| serde_json::from_slice(text))?;
    let refuse = |reason| KubeDnsError::Value { path: path.to_owned(), reason };
    if servers.len() > MAX_UPSTREAMS {
        return Err(refuse(format!("{} nameservers, at most {MAX_UPSTREAMS}", servers.len())));
    }
    if let Some(server) = servers.iter().find(|server| !is_server(server)) {
        return Err(refuse(format!("nameserver `{server}` is neither IP nor IP:PORT")));
    }
    Ok(servers)
}

/// Kubernetes's DNS-1123 subdomain.
fn is_subdomain(text: &str) -> bool {
    let is_edge = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit();
    let label = |label: &str| {
        let octets = label.as_bytes();
        octets.iter().all(|octet| is_edge(*octet) || *octet == b'-')
            && octets.first().is_some_and(|octet| is_edge(*octet))
            && octets.last().is_some_and(|octet| is_edge(*octet))
    };
    text.len() <= 253 && text.split('.').all(label) && Name::from_text(text).is_ok()
}

fn is_server(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stubs(text: &str) -> Result<BTreeMap<String, Vec<String>>, String> {
        stub_domains(text.as_bytes(), Path::new("stubDomains")).map_err(|error| error.to_string())
    }

    #[test]
    fn stub_domains_are_checked() {
        assert_eq!(stubs(" ").unwrap().len(), 0);
        let read = stubs(r#"{"acme.local": ["1.2.3.4", "[::1]:54"], "a": ["::1"]}"#).unwrap();
        assert_eq!(read.len(), 2);
        for (text, reason) in [
            ("{", "EOF"),
            (r#"["a"]"#, "invalid type"),
            (r#"{"Acme": ["1.2.3.4"]}"#, "lower case"),
            (r#"{"-a": ["1.2.3.4"]}"#, "not a domain"),
            (r#"{"a b { }": ["1.2.3.4"]}"#, "not a domain"),
            (r#"{"a": []}"#, "no nameserver"),
            (r#"{"a": ["ns.acme.local"]}"#, "host names are not resolved"),
            (r#"{"a": ["1.2.3.4:99999"]}"#, "neither IP nor IP:PORT"),
        ] {
            let error = stubs(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn upstream_nameservers_are_checked() {
        let read = |text: &str| upstream_nameservers(text.as_bytes(), Path::new("x"));
        assert_eq!(read(r#"["1.1.1.1", "8.8.8.8:53"]"#).unwrap().len(), 2);
        assert!(read(r#"["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"]"#).is_err());
        assert!(read(r#"["/etc/resolv.conf"]"#).is_err());
        assert!(read(r#"{"a": 1}"#).is_err());
    }
}
