//! What the node itself says about virtual addresses and pods, without asking the cluster's API.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::node::remedy::Cidr;

/// Where to look: the file system, and the environment.
#[derive(Debug, Clone)]
pub struct Sources {
    root: PathBuf,
    environment: fn(&str) -> Option<String>,
}

/// Values and where they are from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found<T> {
    /// The values; empty: nobody said.
    pub values: Vec<T>,
    /// The flag, variable or file.
    pub origin: String,
}

impl<T> Found<T> {
    /// What a flag says.
    pub fn given(flag: &str, values: Vec<T>) -> Found<T> {
        Found { values, origin: flag.into() }
    }

    fn or(self, next: impl FnOnce() -> Found<T>) -> Found<T> {
        if self.values.is_empty() { next() } else { self }
    }
}

impl Default for Sources {
    /// This machine.
    fn default() -> Sources {
        Sources { root: "/".into(), environment: |name| std::env::var(name).ok() }
    }
}

impl Sources {
    /// A file system below `root`, and an environment: for tests.
    pub fn new(root: &Path, environment: fn(&str) -> Option<String>) -> Sources {
        Sources { root: root.into(), environment }
    }

    /// Where IPVS balances UDP to port 53, in the calling thread's network namespace.
    pub fn balanced(&self) -> Vec<IpAddr> {
        let own = self.read("proc/thread-self/net/ip_vs");
        own.map_or_else(Vec::new, |table| virtual_dns_servers(&table))
    }

    /// The ClusterIPs of DNS that the environment names; the kubelet sets the second one in pods of
    /// kube-system.
    pub fn cluster_ips(&self) -> Found<IpAddr> {
        self.variable("DOORSTEP_CLUSTER_IP").or(|| self.variable("KUBE_DNS_SERVICE_HOST"))
    }

    /// Where this node's pods have their addresses: environment, flannel's file, the CNI
    /// configuration that the kubelet uses.
    pub fn node_pods(&self) -> Found<Cidr> {
        self.variable("DOORSTEP_NODE_POD_CIDR")
            .or(|| self.flannel(["FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET"]))
            .or(|| self.host_local())
    }

    /// Where all pods have theirs: environment, flannel's file, command lines of Kubernetes.
    pub fn pods(&self) -> Found<Cidr> {
        self.variable("DOORSTEP_CLUSTER_CIDR")
            .or(|| self.flannel(["FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK"]))
            .or(|| self.command_lines())
    }

    fn read(&self, path: &str) -> Option<String> {
        let bytes = std::fs::read(self.root.join(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn variable<T: std::str::FromStr>(&self, name: &str) -> Found<T> {
        let text = (self.environment)(name).unwrap_or_default();
        let values = text.split(',').filter_map(|value| value.trim().parse().ok()).collect();
        Found { values, origin: format!("environment variable {name}") }
    }

    fn flannel(&self, names: [&str; 2]) -> Found<Cidr> {
        let path = "run/flannel/subnet.env";
        let text = self.read(path).unwrap_or_default();
        let assigned = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.map(cidrs).unwrap_or_default()
        };
        Found { values: names.into_iter().flat_map(assigned).collect(), origin: format!("/{path}") }
    }

    /// The subnets of the address management in the first CNI configuration by name, which is the one
    /// that container runtimes use.
    fn host_local(&self) -> Found<Cidr> {
        let folder = self.root.join("etc/cni/net.d");
        let is_configuration =
            |path: &PathBuf| path.extension().is_some_and(|e| e == "conf" || e == "conflist" || e == "json");
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let Some(first) = entries.filter(is_configuration).min() else {
            return Found::given("", Vec::new());
        };
        let text = std::fs::read_to_string(&first).unwrap_or_default();
        let mut values = Vec::new();
        if let Ok(configuration) = serde_json::from_str(&text) {
            subnets(&configuration, false, &mut values);
        }
        Found { values, origin: first.display().to_string() }
    }

    /// `--cluster-cidr` of kube-proxy or the controller manager, where their processes can be seen.
    fn command_lines(&self) -> Found<Cidr> {
        let processes = std::fs::read_dir(self.root.join("proc")).into_iter().flatten().flatten();
        for process in processes {
            let Ok(line) = std::fs::read(process.path().join("cmdline")) else { continue };
            let line = String::from_utf8_lossy(&line);
            let values = line.split('\0').find_map(|word| word.strip_prefix("--cluster-cidr=")).map(cidrs);
            let program = line.split('\0').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
            if let Some(values) = values.filter(|values| !values.is_empty()) {
                return Found { values, origin: format!("--cluster-cidr of {program}") };
            }
        }
        Found::given("", Vec::new())
    }
}

fn cidrs(list: &str) -> Vec<Cidr> {
    list.split(',').filter_map(|range| range.parse().ok()).collect()
}

/// The strings called `subnet` inside anything called `ipam`.
fn subnets(value: &Value, in_ipam: bool, found: &mut Vec<Cidr>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(range) if in_ipam && name == "subnet" => found.extend(cidrs(range)),
                    _ => subnets(member, in_ipam || name == "ipam", found),
                }
            }
        }
        Value::Array(elements) => elements.iter().for_each(|element| subnets(element, in_ipam, found)),
        _ => {}
    }
}

/// Where IPVS balances UDP to port 53, from `/proc/net/ip_vs`: the addresses of lines such as
/// `UDP  0A60000A:0035 rr`, or with `[fd00:…]:0035`.
pub fn virtual_dns_servers(table: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let (address, port) = line.strip_prefix("UDP")?.split_whitespace().next()?.rsplit_once(':')?;
        let address = match address.strip_prefix('[') {
            Some(v6) => IpAddr::V6(v6.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?),
            None => IpAddr::V4(Ipv4Addr::from_bits(u32::from_str_radix(address, 16).ok()?)),
        };
        (u16::from_str_radix(port, 16) == Ok(53)).then_some(address)
    };
    table.lines().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A60000A:0035 rr
  -> 0AF4010B:0035      Masq    1      0          0
UDP  0A60000A:0035 rr
  -> 0AF4010B:0035      Masq    1      0          0
UDP  0A60000B:0050 rr
UDP  [fd00:0096:0000:0000:0000:0000:0000:000a]:0035 rr
FWM  00000001 rr
";

    fn node(files: &[(&str, &str)]) -> (tempfile::TempDir, Sources) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let sources = Sources::new(root.path(), |_| None);
        (root, sources)
    }

    fn shown<T: ToString>(found: &Found<T>) -> String {
        found.values.iter().map(T::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn virtual_servers_are_read_from_the_kernels_table() {
        let (_root, sources) = node(&[("proc/thread-self/net/ip_vs", TABLE)]);
        let found = Found::given("", sources.balanced());
        assert_eq!(shown(&found), "10.96.0.10 fd00:96::a");
        let (_root, sources) = node(&[]);
        assert!(sources.balanced().is_empty());
    }

    #[test]
    fn flannel_names_both_ranges() {
        let text = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\nFLANNEL_MTU=1450\n\
                    FLANNEL_IPV6_NETWORK=fd00:244::/48\nFLANNEL_IPV6_SUBNET=fd00:244:0:3::1/64\n";
        let (_root, sources) = node(&[("run/flannel/subnet.env", text)]);
        assert_eq!(shown(&sources.node_pods()), "10.244.3.0/24 fd00:244:0:3::/64");
        assert_eq!(shown(&sources.pods()), "10.244.0.0/16 fd00:244::/48");
        assert_eq!(sources.pods().origin, "/run/flannel/subnet.env");
    }

    #[test]
    fn the_first_cni_configuration_counts() {
        let bridge = r#"{"plugins": [{"type": "bridge", "ipam": {"type": "host-local",
            "ranges": [[{"subnet": "10.244.3.0/24"}], [{"subnet": "fd00:244:3::/64"}]]}},
            {"type": "portmap", "subnet": "192.0.2.0/24"}]}"#;
        let old = r#"{"type": "bridge", "ipam": {"type": "host-local", "subnet": "10.9.0.0/24"}}"#;
        let (_root, sources) = node(&[
            ("etc/cni/net.d/10-bridge.conflist", bridge),
            ("etc/cni/net.d/20-old.conf", old),
            ("etc/cni/net.d/00-readme.txt", "no"),
        ]);
        assert_eq!(shown(&sources.node_pods()), "10.244.3.0/24 fd00:244:3::/64");
        let (_root, sources) = node(&[("etc/cni/net.d/10.conf", old)]);
        assert_eq!(shown(&sources.node_pods()), "10.9.0.0/24");
        let (_root, sources) = node(&[("etc/cni/net.d/10.conf", "{")]);
        assert_eq!(sources.node_pods().values, []);
    }

    #[test]
    fn kube_proxys_command_line_names_the_clusters_range() {
        let line =
            "/usr/local/bin/kube-proxy\0--proxy-mode=ipvs\0--cluster-cidr=10.244.0.0/16,fd00:244::/48\0";
        let (_root, sources) = node(&[("proc/1/cmdline", "/sbin/init\0"), ("proc/77/cmdline", line)]);
        assert_eq!(shown(&sources.pods()), "10.244.0.0/16 fd00:244::/48");
        assert_eq!(sources.pods().origin, "--cluster-cidr of kube-proxy");
    }

    #[test]
    fn the_environment_comes_before_files() {
        let root = tempfile::tempdir().unwrap();
        let sources = Sources::new(root.path(), |name| match name {
            "KUBE_DNS_SERVICE_HOST" => Some("10.96.0.10".into()),
            "DOORSTEP_CLUSTER_CIDR" => Some("10.0.0.0/8, fd00::/8".into()),
            _ => None,
        });
        assert_eq!(shown(&sources.cluster_ips()), "10.96.0.10");
        assert_eq!(sources.cluster_ips().origin, "environment variable KUBE_DNS_SERVICE_HOST");
        assert_eq!(shown(&sources.pods()), "10.0.0.0/8 fd00::/8");
    }
}
