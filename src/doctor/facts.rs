//! What a node shows, as plain values. What is `None` or empty is not there, or is named in
//! [`Facts::unread`].

mod kube_proxy;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::node::rules::{Chain, Direction, Protocol, Rule, Verdict};

pub use kube_proxy::KubeProxy;

/// Everything that the checks look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Where the cache serves, or should.
    pub wanted: Wanted,
    /// The running kernel.
    pub kernel: Option<Kernel>,
    /// Processors.
    pub processors: usize,
    /// Readings of what counts up, oldest first: one or two.
    pub samples: Vec<Sample>,
    /// The conntrack table's entries, where the kernel shows them.
    pub entries: Option<Entries>,
    /// Network links.
    pub links: Vec<Link>,
    /// The node's own addresses.
    pub addresses: Vec<IpAddr>,
    /// Processes of Doorstep or node-cache in the node's network namespace.
    pub caches: Vec<Process>,
    /// The largest answer over UDP that the cache's Corefile allows, in octets; `None`: as large as clients accept.
    pub largest_answer: Option<u32>,
    /// Doorstep's remedies that run, such as `rps`.
    pub remedies: Vec<String>,
    /// Sockets that wait on a port that the cache uses.
    pub listeners: Vec<Listener>,
    /// iptables, as far as it could be read.
    pub iptables: Iptables,
    /// Tables of nftables by name, those of iptables among them.
    pub nft_tables: Vec<String>,
    /// The rules for the cache that are in the kernel: in Doorstep's nftables table, and in iptables with
    /// node-cache's comment.
    pub rules: Vec<LiveRule>,
    /// Virtual services of IPVS on UDP port 53.
    pub ipvs: Vec<IpAddr>,
    /// What kubelet tells pods to ask.
    pub cluster_dns: Vec<IpAddr>,
    /// The ClusterIPs of kube-dns that kube-proxy's iptables rules translate.
    pub kube_dns: Vec<IpAddr>,
    /// The node's own `/etc/resolv.conf`.
    pub resolv_conf: ResolvConf,
    /// Network namespaces of pods, as their `/etc/resolv.conf` shows.
    pub pods: Vec<Pod>,
    /// Whether the kernel has a dummy driver.
    pub dummy_driver: Option<bool>,
    /// What the cache's HTTP endpoints answer, in the order asked.
    pub answers: Vec<Answer>,
    /// The version of the Doorstep that runs, as its metrics have it.
    pub version: Option<String>,
    /// Addresses where a socket of the cache does not answer DNS, and what happened instead.
    pub silent: Vec<(IpAddr, String)>,
    /// What could not be read, and why.
    pub unread: Vec<String>,
}

/// Where the cache serves, or should: from flags, else from the running process, else the defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// `-localip`.
    pub local_ips: Vec<IpAddr>,
    /// `-interfacename`.
    pub interface: String,
    /// `-dns.port`.
    pub dns_port: u16,
    /// `-health-port`.
    pub health_port: u16,
}

impl Default for Wanted {
    fn default() -> Wanted {
        Wanted {
            local_ips: vec![IpAddr::from([169, 254, 20, 10])],
            interface: "nodelocaldns".into(),
            dns_port: 53,
            health_port: 8080,
        }
    }
}

/// A kernel's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// As `uname -r` has it.
    pub release: String,
    /// The first two numbers of it.
    pub version: (u32, u32),
}

/// One reading.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// Conntrack's events, all processors together.
    pub conntrack: Option<Conntrack>,
    /// UDP of the node itself, both families.
    pub udp: Option<Udp>,
    /// The same of each pod's, by the process that stands for it.
    pub pods: BTreeMap<u32, Udp>,
    /// Packets that [`Facts::rules`] kept out of conntrack on their way in.
    pub spared: u64,
    /// The process that holds the xtables lock.
    pub lock_holder: Option<u32>,
}

/// Conntrack's events since boot, and its table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Conntrack {
    /// Clashes of two entries that the kernel resolved; `None` before Linux 5.10, which does not count them.
    pub clash_resolve: Option<u64>,
    /// Packets dropped because their entry clashed.
    pub insert_failed: u64,
    /// Packets dropped for any reason.
    pub drop: u64,
    /// Entries that gave way because the table was full.
    pub early_drop: u64,
    /// Entries.
    pub count: u64,
    /// Entries there may be; 0: unknown.
    pub max: u64,
}

/// UDP's counters since boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Udp {
    /// For ports where nobody waits.
    pub no_ports: u64,
    /// Found no room in a socket's buffer.
    pub receive_buffer_errors: u64,
    /// Wrong checksum.
    pub checksum_errors: u64,
}

/// The conntrack table by port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entries {
    /// All.
    pub all: u64,
    /// To port 53.
    pub dns: u64,
    /// To port 53 of a local address of the cache.
    pub local: u64,
}

/// The kind of the node's ends of pods' links.
pub const VETH: &str = "veth";
/// The kind of an overlay's links.
pub const VXLAN: &str = "vxlan";

/// A network link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its driver in netlink's words, [`VETH`] for instance; empty: hardware, or `lo`.
    pub kind: String,
    /// Its MTU in octets.
    pub mtu: u32,
    /// Whether it is up.
    pub is_up: bool,
    /// Whether a receive-packet-steering mask is set on any of its queues; `None`: not read.
    pub steered: Option<bool>,
    /// Whether the kernel leaves checksums to it; `None`: not read.
    pub checksum_offload: Option<bool>,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// Its command line.
    pub arguments: Vec<String>,
    /// Whether its program file has been replaced or removed since it started.
    pub outdated: bool,
}

/// A socket that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// UDP, or TCP in state LISTEN.
    pub protocol: Protocol,
    /// The address it is bound to.
    pub address: IpAddr,
    /// The port it is bound to.
    pub port: u16,
    /// Who holds it, if that can be seen: process number and name.
    pub owner: Option<(u32, String)>,
}

/// What is in iptables, both families.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Iptables {
    /// kube-proxy's chains are there.
    pub kube_proxy: bool,
    /// Rules with node-cache's comment, as text.
    pub commented: Vec<String>,
    /// MASQUERADE rules that do not choose source ports at random, as text.
    pub masquerade: Vec<String>,
    /// What drops whatever is not accepted: ("INPUT", "policy DROP").
    pub drops: Vec<(String, String)>,
    /// Chains of filter in which something accepts DNS without regard to its connection.
    pub accepts: Vec<String>,
    /// Rules besides node-cache's that end tracking of DNS, as text.
    pub foreign_notrack: Vec<String>,
}

/// A rule in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveRule {
    /// The rule.
    pub rule: Rule,
    /// Whether it is in Doorstep's nftables table; else in iptables.
    pub nftables: bool,
    /// Packets it has seen.
    pub packets: u64,
}

/// What of a `resolv.conf` matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// `nameserver`.
    pub servers: Vec<IpAddr>,
    /// `search`.
    pub search: Vec<String>,
    /// `options ndots`.
    pub ndots: Option<u32>,
}

/// A pod's network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// A process in it.
    pub pid: u32,
    /// What that process reads.
    pub resolv_conf: ResolvConf,
}

/// What an HTTP endpoint said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The path asked for.
    pub path: &'static str,
    /// Status code and body, or why there is none.
    pub outcome: Result<(u16, String), String>,
}

impl Facts {
    /// The link of this name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// How much what `pick` shows has grown between the readings; 0 with one reading.
    pub fn growth(&self, pick: impl Fn(&Sample) -> Option<u64>) -> u64 {
        let [first, .., last] = &self.samples[..] else {
            return 0;
        };
        pick(last).zip(pick(first)).map_or(0, |(last, first)| last.saturating_sub(first))
    }

    /// How much what `pick` shows of UDP has grown between the readings, for the node and its pods. A pod that came
    /// or went meanwhile does not count.
    pub fn udp_growth(&self, pick: impl Fn(&Udp) -> u64) -> u64 {
        let pods: BTreeSet<u32> =
            self.samples.iter().flat_map(|sample| sample.pods.keys().copied()).collect();
        let of_pods = pods.iter().map(|pod| self.growth(|sample| sample.pods.get(pod).map(&pick)));
        self.growth(|sample| sample.udp.as_ref().map(&pick)) + of_pods.sum::<u64>()
    }

    /// The newest reading of conntrack.
    pub fn conntrack(&self) -> Option<Conntrack> {
        self.samples.last()?.conntrack
    }

    /// Whether DNS over UDP that arrives for `address` gets no conntrack entry.
    pub fn is_untracked(&self, address: IpAddr) -> bool {
        self.rules.iter().any(|live| {
            let rule = live.rule;
            rule.address == address
                && (rule.chain, rule.direction) == (Chain::Prerouting, Direction::To)
                && (rule.protocol, rule.verdict) == (Protocol::Udp, Verdict::NoTrack)
        })
    }

    /// Sockets that DNS to `address` would reach.
    pub fn dns_listeners(&self, address: IpAddr) -> impl Iterator<Item = &Listener> {
        let port = self.wanted.dns_port;
        self.listeners.iter().filter(move |listener| listener.port == port && listener.takes(address))
    }

    /// Whether DNS to `address` over `protocol` reaches a socket.
    pub fn is_heard(&self, address: IpAddr, protocol: Protocol) -> bool {
        self.dns_listeners(address).any(|listener| listener.protocol == protocol)
    }

    /// Whether what pods ask is exempt from tracking, or at least from translation, without which a clash
    /// is harmless.
    pub fn is_protected(&self) -> bool {
        let asked = if self.cluster_dns.is_empty() { &self.wanted.local_ips } else { &self.cluster_dns };
        let exempt = |address: IpAddr| {
            let direct = !self.is_cluster_ip(address) && self.is_heard(address, Protocol::Udp);
            self.is_untracked(address) || direct
        };
        !asked.is_empty() && asked.iter().all(|&address| exempt(address))
    }

    /// Whether `address` is, or must be taken for, a Service's. The link-local address that is the node's own
    /// is not; of IPv6 nothing but kube-proxy tells.
    pub fn is_cluster_ip(&self, address: IpAddr) -> bool {
        let known = self.kube_dns.contains(&address) || self.ipvs.contains(&address);
        known || matches!(address, IpAddr::V4(v4) if !v4.is_link_local() && !v4.is_loopback())
    }

    /// Whether a cache serves here: its process is seen, or, from another process namespace, its socket.
    pub fn cache_runs(&self) -> bool {
        // A wildcard takes any address, but only those of the node get there.
        let is_here = |address: &IpAddr| self.addresses.is_empty() || self.addresses.contains(address);
        let hidden = |listener: &Listener| listener.owner.is_none();
        let socket = |address: &IpAddr| is_here(address) && self.dns_listeners(*address).any(&hidden);
        !self.caches.is_empty() || self.wanted.local_ips.iter().any(socket)
    }

    /// Whether rules may be there that could not be read.
    pub fn rules_unseen(&self) -> bool {
        self.rules.is_empty() && self.unread.iter().any(|what| what.contains("tables rules:"))
    }

    /// Whether `listener` belongs to the cache, as far as can be seen.
    pub fn is_the_caches(&self, listener: &Listener) -> bool {
        match &listener.owner {
            Some((pid, _)) => self.caches.iter().any(|cache| cache.pid == *pid),
            None => !self.caches.is_empty(),
        }
    }
}

impl Listener {
    /// Whether packets to `address` come here.
    pub fn takes(&self, address: IpAddr) -> bool {
        // A socket on :: takes IPv4 as well, unless it says otherwise, which /proc does not show.
        let wild = self.address.is_unspecified() && (self.address.is_ipv6() || address.is_ipv4());
        self.address == address || wild
    }

    /// `udp 169.254.20.10:53, doorstep (12)`.
    pub fn describe(&self) -> String {
        let (protocol, address, port) = (self.protocol.name(), self.address, self.port);
        let owner = match &self.owner {
            Some((pid, name)) => format!("{name} (process {pid})"),
            None => "owner not visible".to_owned(),
        };
        format!("{protocol} {}, {owner}", std::net::SocketAddr::new(address, port))
    }
}
