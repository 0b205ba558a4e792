//! Who is measured, and how each is told the same: one thread, a cache for 10 000 answers, everything
//! forwarded to one upstream over TCP, no logging of queries.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::free_address;

/// A server that can be measured.
pub struct Peer {
    pub name: &'static str,
    /// A path, or a name to be found in the usual places.
    pub program: PathBuf,
    configure: fn(&Site) -> io::Result<Vec<String>>,
}

/// Where one of them runs.
pub struct Site {
    pub home: PathBuf,
    pub listen: SocketAddr,
    pub upstream: SocketAddr,
    /// For servers that want an HTTP port.
    pub http: SocketAddr,
}

/// Answers a cache has room for (CoreDNS's own default, nearest to 10 000).
const ENTRIES: usize = 9984;
/// Octets for those that count octets: 1 KiB an answer.
const MEGABYTES: usize = 10;

/// The floor's name: 64 datagrams to a system call.
pub const ECHO: &str = "echo";
/// The echo with one datagram to a system call.
pub const ECHO_SINGLE: &str = "echo, singly";
/// The floor of a miss.
pub const RELAY: &str = "relay";
/// Ours.
pub const DOORSTEP: &str = "doorstep";
/// Those that are always measured.
pub const OWN: [&str; 4] = [ECHO, ECHO_SINGLE, RELAY, DOORSTEP];
/// Those that show what the machine takes, and are no DNS servers.
pub const FLOORS: [&str; 3] = [ECHO, ECHO_SINGLE, RELAY];

/// The floors and Doorstep.
pub fn own(doorstep: &Path) -> io::Result<Vec<Peer>> {
    let compare = std::env::current_exe()?;
    Ok(vec![
        Peer { name: ECHO, program: compare.clone(), configure: |site| Ok(bare_echo(site, 64)) },
        Peer { name: ECHO_SINGLE, program: compare.clone(), configure: |site| Ok(bare_echo(site, 1)) },
        Peer { name: RELAY, program: compare, configure: |site| Ok(bare_relay(site)) },
        doorstep_with(doorstep, DOORSTEP, |site| ours(site, "", "")),
    ])
}

/// Doorstep with one UDP thread and with two.
pub fn doorstep_with_threads(doorstep: &Path) -> [Peer; 2] {
    [
        doorstep_with(doorstep, "1 UDP thread", |site| ours(site, "multisocket 1", "")),
        doorstep_with(doorstep, "2 UDP threads", |site| ours(site, "multisocket 2", "")),
    ]
}

/// Doorstep that serves stale answers at once.
pub fn doorstep_stale(doorstep: &Path) -> Peer {
    doorstep_with(doorstep, "doorstep, stale", |site| ours(site, "", "serve_stale 1h immediate"))
}

fn doorstep_with(
    program: &Path,
    name: &'static str,
    configure: fn(&Site) -> io::Result<Vec<String>>,
) -> Peer {
    Peer { name, program: program.to_owned(), configure }
}

/// node-cache. Go takes as many threads as there are CPUs unless told.
pub fn node_cache(program: &Path) -> Peer {
    Peer { name: "node-cache", program: program.to_owned(), configure: |site| cached(site, "", "") }
}

/// The servers that Debian packages, installed or not.
pub fn debian() -> Vec<Peer> {
    let peer = |name, program: &str, configure| Peer { name, program: program.into(), configure };
    vec![
        peer("unbound", "unbound", unbound),
        peer("dnsmasq", "dnsmasq", dnsmasq),
        peer("dnsdist", "dnsdist", dnsdist),
        peer("kresd", "kresd", knot_resolver),
        peer("recursor", "pdns_recursor", recursor),
        peer("bind", "named", bind),
    ]
}

impl Peer {
    /// The program's file; `None` if it is not installed.
    pub fn file(&self) -> Option<PathBuf> {
        if self.program.components().count() > 1 {
            return Some(self.program.clone());
        }
        let folders = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
        folders.iter().map(|folder| Path::new(folder).join(&self.program)).find(|file| file.exists())
    }

    /// Writes its configuration into `home` and returns the command that starts it, and where it listens.
    pub fn prepare(&self, home: &Path, upstream: SocketAddr) -> io::Result<(Command, SocketAddr)> {
        let site = Site { home: home.to_owned(), listen: free_address()?, upstream, http: free_address()? };
        let mut command = Command::new(self.file().ok_or(io::ErrorKind::NotFound)?);
        command.args((self.configure)(&site)?).current_dir(home).env("GOMAXPROCS", "1");
        Ok((command, site.listen))
    }
}

impl Site {
    /// Writes a configuration file and returns its path.
    fn write(&self, text: &str) -> io::Result<String> {
        let file = self.home.join("configuration");
        fs::write(&file, text)?;
        Ok(file.display().to_string())
    }
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn bare_echo(site: &Site, batch: usize) -> Vec<String> {
    vec!["echo".to_owned(), site.listen.to_string(), batch.to_string()]
}

fn bare_relay(site: &Site) -> Vec<String> {
    vec!["relay".to_owned(), site.listen.to_string(), site.upstream.to_string()]
}

/// Doorstep does not look for one of its kind to take over from; node-cache has no flag for that.
fn ours(site: &Site, directive: &str, option: &str) -> io::Result<Vec<String>> {
    let mut words = cached(site, directive, option)?;
    words.push("-handover=".to_owned());
    Ok(words)
}

/// The stock Corefile's zones and directives; only the TTL caps are lifted, for the others have none.
fn cached(site: &Site, directive: &str, option: &str) -> io::Result<Vec<String>> {
    let Site { listen, upstream, http, .. } = site;
    let (ip, port) = (listen.ip(), listen.port());
    let zones: String = ["svc.cluster.bench", "in-addr.arpa", "ip6.arpa", "."]
        .map(|zone| {
            format!(
                "{zone}:{port} {{\n errors\n cache {{\n  success {ENTRIES} 3600\n  denial {ENTRIES} 3600\n  \
                 {option}\n }}\n reload\n loop\n bind {ip}\n forward . {upstream} {{\n  force_tcp\n }}\n \
                 prometheus {http}\n {directive}\n}}\n"
            )
        })
        .concat();
    let file = site.write(&zones)?;
    let metrics = free_address()?;
    Ok(words(&format!(
        "-localip {ip} -dns.port {port} -setupinterface=false -setupiptables=false -conf {file} \
         -basecorefile {file}.base -kubednscm {file}.kube-dns -metrics-listen-address {metrics}"
    )))
}

fn unbound(site: &Site) -> io::Result<Vec<String>> {
    let Site { home, listen, upstream, .. } = site;
    let file = site.write(&format!(
        "server:\n interface: {}@{}\n access-control: 127.0.0.0/8 allow\n username: \"\"\n chroot: \"\"\n \
         directory: \"{}\"\n pidfile: \"\"\n use-syslog: no\n do-daemonize: no\n num-threads: 1\n \
         module-config: \"iterator\"\n do-not-query-localhost: no\n msg-cache-size: {}m\n \
         rrset-cache-size: {}m\n msg-cache-slabs: 1\n rrset-cache-slabs: 1\n outgoing-range: 8192\n \
         num-queries-per-thread: 4096\n outgoing-num-tcp: 64\nremote-control:\n control-enable: no\n\
         forward-zone:\n name: \".\"\n forward-addr: {}@{}\n forward-tcp-upstream: yes\n",
        listen.ip(),
        listen.port(),
        home.display(),
        MEGABYTES / 2,
        MEGABYTES / 2,
        upstream.ip(),
        upstream.port()
    ))?;
    Ok(words(&format!("-d -c {file}")))
}

/// It forwards over UDP, whatever it is told.
fn dnsmasq(site: &Site) -> io::Result<Vec<String>> {
    let Site { listen, upstream, .. } = site;
    Ok(words(&format!(
        "--keep-in-foreground --conf-file=/dev/null --port={} --listen-address={} --bind-interfaces \
         --no-resolv --no-hosts --server={}#{} --cache-size={ENTRIES} --dns-forward-max=4096 --user=root \
         --pid-file= --log-facility=/dev/null",
        listen.port(),
        listen.ip(),
        upstream.ip(),
        upstream.port()
    )))
}

fn dnsdist(site: &Site) -> io::Result<Vec<String>> {
    let Site { listen, upstream, .. } = site;
    let file = site.write(&format!(
        "setLocal('{listen}', {{}})\nsetACL('127.0.0.0/8')\nsetSecurityPollSuffix('')\n\
         newServer({{address='{upstream}', tcpOnly=true, healthCheckMode='up'}}):setUp()\n\
         getPool(''):setCache(newPacketCache({ENTRIES}, {{maxTTL=3600}}))\n"
    ))?;
    Ok(words(&format!("--supervised --disable-syslog --config {file}")))
}

fn knot_resolver(site: &Site) -> io::Result<Vec<String>> {
    let Site { home, listen, upstream, .. } = site;
    let file = site.write(&format!(
        "net.listen('{}', {}, {{ kind = 'dns' }})\nlog_level('crit')\n\
         cache.open({MEGABYTES} * MB, 'lmdb://{}')\ntrust_anchors.remove('.')\nmodules.unload('ta_update')\n\
         modules.unload('ta_signal_query')\nmodules.unload('priming')\nmodules.unload('detect_time_skew')\n\
         policy.add(policy.all(policy.FLAGS({{'TCP'}})))\npolicy.add(policy.all(policy.STUB('{}@{}')))\n",
        listen.ip(),
        listen.port(),
        home.display(),
        upstream.ip(),
        upstream.port()
    ))?;
    Ok(words(&format!("-n -c {file} {}", home.display())))
}

/// It forwards over UDP unless the upstream speaks TLS.
fn recursor(site: &Site) -> io::Result<Vec<String>> {
    let Site { home, listen, upstream, .. } = site;
    let text = format!(
        "local-address={}\nlocal-port={}\nforward-zones-recurse=.={upstream}\nthreads=1\n\
         pdns-distributes-queries=no\nmax-cache-entries={ENTRIES}\nmax-packetcache-entries={ENTRIES}\n\
         max-mthreads=4096\ndnssec=off\nsocket-dir={}\ndaemon=no\nquiet=yes\nloglevel=0\ndisable-syslog=yes\n\
         security-poll-suffix=\nhint-file=no\nallow-from=127.0.0.0/8\ndont-query=\nwebserver=no\n",
        listen.ip(),
        listen.port(),
        home.display()
    );
    fs::write(home.join("recursor.conf"), text)?;
    Ok(words(&format!("--config-dir={}", home.display())))
}

/// It forwards over UDP here: over TCP (`tcp-only`) 9.18 makes a connection for each query, at ten times the
/// CPU and with a third of the answers lost.
fn bind(site: &Site) -> io::Result<Vec<String>> {
    let Site { home, listen, upstream, .. } = site;
    let file = site.write(&format!(
        "options {{\n directory \"{}\";\n listen-on port {} {{ {}; }};\n listen-on-v6 {{ none; }};\n \
         forwarders {{ {} port {}; }};\n forward only;\n dnssec-validation no;\n max-cache-size {MEGABYTES}M;\n \
         allow-query {{ any; }};\n pid-file none;\n session-keyfile none;\n minimal-responses yes;\n \
         recursive-clients 10000;\n empty-zones-enable no;\n}};\ncontrols {{ }};\n\
         logging {{ category default {{ null; }}; }};\n",
        home.display(),
        listen.port(),
        listen.ip(),
        upstream.ip(),
        upstream.port()
    ))?;
    Ok(words(&format!("-f -n 1 -c {file}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A flag that it does not know ends node-cache.
    #[test]
    fn only_doorstep_hears_of_a_hand_over() {
        let home = tempfile::tempdir().unwrap();
        let program = Path::new("/bin/true");
        for (peer, hears) in [(node_cache(program), false), (doorstep_stale(program), true)] {
            let (command, _) = peer.prepare(home.path(), ([127, 0, 0, 1], 53).into()).unwrap();
            assert_eq!(command.get_args().any(|word| word == "-handover="), hears, "{}", peer.name);
        }
    }
}
