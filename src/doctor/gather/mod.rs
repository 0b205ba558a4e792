//! Reads the facts. What is not there is left out; what may not be read is named.

mod corefile;
mod firewall;
mod host;
mod kubelet;
mod links;
mod processes;
mod resolv_conf;
mod samples;
mod sockets;

use std::io;
use std::net::IpAddr;

pub use host::{Host, Machine};

use super::Options;
use super::facts::{Answer, Facts, Kernel, Listener, Process, Wanted};
use crate::metrics::names::BUILD_INFO;
use crate::node::remedy::ipvs_notrack::virtual_dns_servers;
use crate::node::rules::Protocol;

/// CoreDNS's `prometheus` and `ready`, and node-cache's own metrics.
pub const METRICS_PORTS: [u16; 2] = [9253, 9353];
const READY_PORT: u16 = 8181;

/// Reads `host`; `pause` passes the time between two readings of what counts up, without it there is one.
pub fn gather(host: &dyn Host, options: &Options, pause: Option<&dyn Fn()>) -> Facts {
    let mut facts = Facts::default();
    let mut unread = Unread(Vec::new());
    facts.kernel = kernel(host, &mut unread);
    facts.processors = processors(host);
    facts.links = links::links(host, &mut unread);
    facts.addresses = links::addresses(host);
    facts.dummy_driver = links::dummy_driver(host, facts.kernel.as_ref());
    let seen = processes::processes(host, &mut unread);
    facts.caches = seen.caches;
    facts.remedies = seen.remedies;
    facts.pods = seen.pods;
    facts.cluster_dns = kubelet::cluster_dns(host, seen.kubelet.as_ref(), &mut unread);
    facts.resolv_conf = resolv_conf::read(host, "/etc/resolv.conf").unwrap_or_default();
    facts.ipvs = virtual_dns_servers(&host.text("/proc/net/ip_vs").unwrap_or_default());

    let mut firewall = firewall::read(host, &mut unread);
    facts.samples.push(samples::sample(host, &facts.pods, &firewall.rules, &mut unread));
    if let Some(pause) = pause {
        pause();
        // What could not be read the first time has been named.
        let mut again = Unread(Vec::new());
        firewall = firewall::read(host, &mut again);
        facts.samples.push(samples::sample(host, &facts.pods, &firewall.rules, &mut again));
    }
    facts.iptables = firewall.iptables;
    facts.nft_tables = firewall.nft_tables;
    facts.rules = firewall.rules;
    facts.kube_dns = firewall.kube_dns;

    facts.wanted = wanted(options, &facts);
    facts.largest_answer = corefile::largest_answer(host, facts.caches.first());
    let ports =
        [facts.wanted.dns_port, facts.wanted.health_port, READY_PORT, METRICS_PORTS[0], METRICS_PORTS[1]];
    facts.listeners = sockets::listeners(host, &ports, &mut unread);
    facts.entries = samples::entries(host, &facts.wanted, &mut unread);
    facts.answers = answers(host, &facts);
    facts.silent = silent(host, &facts);
    facts.version = version(host, &facts);
    facts.unread = unread.0;
    facts
}

/// What could not be read, and why.
struct Unread(Vec<String>);

impl Unread {
    /// What was read, if it was; a file that does not exist is nothing to report.
    fn take<T>(&mut self, what: &str, outcome: io::Result<T>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.note(what, &error.to_string());
                None
            }
        }
    }

    fn note(&mut self, what: &str, why: &str) {
        self.0.push(format!("{what}: {why}"));
    }
}

fn kernel(host: &dyn Host, unread: &mut Unread) -> Option<Kernel> {
    let text = unread.take("the kernel's version", host.text("/proc/sys/kernel/osrelease"))?;
    let release = text.trim().to_owned();
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    let version = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(Kernel { release, version })
}

fn processors(host: &dyn Host) -> usize {
    let text = host.text("/proc/stat").unwrap_or_default();
    let is_one = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    text.lines().filter(is_one).count()
}

/// Flags first; then the flags of the cache that runs; then the defaults, with the addresses that rules on
/// this node are for.
fn wanted(options: &Options, facts: &Facts) -> Wanted {
    // Of several processes of one cache only the first was started with the flags.
    let flag = |name: &str| facts.caches.iter().find_map(|cache| cache.flag(name));
    let mut wanted = Wanted::default();
    if let Some(name) = options.interface.clone().or_else(|| flag("interfacename")) {
        wanted.interface = name;
    }
    if let Some(port) = options.dns_port.or_else(|| flag("dns.port").or_else(|| flag("p"))?.parse().ok()) {
        wanted.dns_port = port;
    }
    if let Some(port) = options.health_port.or_else(|| flag("health-port")?.parse().ok()) {
        wanted.health_port = port;
    }
    let told = flag("localip").map(|list| list.split(',').filter_map(|ip| ip.parse().ok()).collect());
    wanted.local_ips = match (options.local_ips.is_empty(), told) {
        (false, _) => options.local_ips.clone(),
        (true, Some(told)) => told,
        (true, None) => {
            let dns = facts.rules.iter().map(|live| live.rule).filter(|rule| rule.port == wanted.dns_port);
            let mut all: Vec<IpAddr> =
                wanted.local_ips.iter().copied().chain(dns.map(|rule| rule.address)).collect();
            all.sort_unstable();
            all.dedup();
            all
        }
    };
    wanted
}

impl Process {
    /// The value of a flag in Go's spelling, the last one if it is repeated; of a switch only what comes after =.
    pub fn flag(&self, name: &str) -> Option<String> {
        let mut value = None;
        let mut words = self.arguments.iter();
        while let Some(word) = words.next() {
            let Some(body) = word.strip_prefix('-') else { continue };
            let body = body.strip_prefix('-').unwrap_or(body);
            match body.split_once('=') {
                Some((flag, given)) if flag == name => value = Some(given.to_owned()),
                None if body == name => value = words.next().cloned(),
                _ => {}
            }
        }
        value
    }
}

/// Asks those endpoints of the cache that listen.
fn answers(host: &dyn Host, facts: &Facts) -> Vec<Answer> {
    let asked = [("/health", facts.wanted.health_port), ("/ready", READY_PORT)];
    let ask = |(path, port)| Some(Answer { path, outcome: get(host, facts, port, path)? });
    asked.into_iter().filter_map(ask).collect()
}

/// `None` if the cache has no socket on the port.
fn get(host: &dyn Host, facts: &Facts, port: u16, path: &str) -> Option<Result<(u16, String), String>> {
    let serves = |listener: &&Listener| {
        listener.port == port && listener.protocol == Protocol::Tcp && facts.is_the_caches(listener)
    };
    let mut address = facts.listeners.iter().find(serves)?.address;
    if address.is_unspecified() {
        address = IpAddr::from([127, 0, 0, 1]);
    }
    Some(host.get((address, port).into(), path).map_err(|error| error.to_string()))
}

/// What the cache says of itself in its metrics: Doorstep's version; `None` for node-cache's, which are
/// CoreDNS's.
fn version(host: &dyn Host, facts: &Facts) -> Option<String> {
    let (_, metrics) = METRICS_PORTS.iter().find_map(|&port| get(host, facts, port, "/metrics")?.ok())?;
    let line = metrics.lines().find(|line| line.starts_with(BUILD_INFO.description().name))?;
    let label = |wanted: &str| {
        let mut labels = line.split(['{', ',', '}']).filter_map(|label| label.split_once('='));
        labels.find_map(|(name, value)| (name == wanted).then(|| value.trim_matches('"').to_owned()))
    };
    label("version").filter(|_| label("goversion").as_deref() == Some("rust"))
}

/// Asks the cache's own sockets.
fn silent(host: &dyn Host, facts: &Facts) -> Vec<(IpAddr, String)> {
    let ask = |&address: &IpAddr| {
        let is_it = |listener: &Listener| listener.protocol == Protocol::Udp && facts.is_the_caches(listener);
        facts.dns_listeners(address).find(|listener| is_it(listener))?;
        let outcome = host.ping((address, facts.wanted.dns_port).into());
        outcome.err().map(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => (address, "no answer in 2 s".to_owned()),
            _ => (address, error.to_string()),
        })
    };
    facts.wanted.local_ips.iter().filter_map(ask).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_in_either_spelling() {
        for (argument, port) in [("-dns.port=5353", 5353), ("-p=54", 54), ("--p=55", 55), ("-x", 53)] {
            let arguments = vec!["/doorstep".into(), argument.into()];
            let cache = Process { pid: 1, name: "doorstep".into(), arguments, outdated: false };
            let facts = Facts { caches: vec![cache], ..Facts::default() };
            assert_eq!(wanted(&Options::default(), &facts).dns_port, port, "{argument}");
        }
    }
}
