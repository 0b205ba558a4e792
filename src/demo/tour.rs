//! The demonstration itself: builds the cluster, starts the cache, looks, reports, cleans up.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hickory_proto::rr::RecordType;

use super::client::{Lookup, Transport, lookup};
use super::interrupt::Interrupt;
use super::network::{KUBE_DNS_VIP, NODE_LOCAL, POD};
use super::program::Program;
use super::{Cluster, ClusterConfig, DemoError, Report, conntrack};

/// The name that every lookup of the tour asks for.
const NAME: &str = "kubernetes.default.svc.cluster.local.";
/// Long enough for a TTL in whole seconds to count down.
const AGE: Duration = Duration::from_millis(1100);

/// How to run the demonstration.
#[derive(Debug, Clone)]
pub struct Options {
    /// Keep the cluster up after the report, until SIGINT, SIGTERM or the end of standard input.
    pub hold: bool,
    /// The `doorstep` to start on the node; default: the running program.
    pub binary: PathBuf,
    /// First part of the namespaces' names, default `doorstep`.
    pub prefix: String,
    /// Another program with its arguments in place of `binary` and the stock arguments. It must
    /// answer at 169.254.20.10 and 10.96.0.10 by itself.
    #[doc(hidden)]
    pub command: Option<Vec<OsString>>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            hold: false,
            // The kernel's link works even when the file has been replaced since.
            binary: std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into()),
            prefix: ClusterConfig::default().prefix,
            command: None,
        }
    }
}

/// Builds the cluster, shows what a pod's lookups leave behind without and with a cache on the
/// node, prints the [`Report`] and removes everything.
///
/// An error is a step that could not be made; what the lookups showed is in
/// [`Report::failures`]. Needs root; blocks for about two seconds, or until told to stop.
pub fn run(options: Options) -> Result<Report, DemoError> {
    let interrupt = Interrupt::watch()?;
    let cluster = Cluster::up(&ClusterConfig { prefix: options.prefix.clone() })?;
    interrupt.check()?;

    // Once unmeasured: the first packets of a new link wait for ARP.
    ask(&cluster, KUBE_DNS_VIP, Transport::Udp)?;
    conntrack::flush(cluster.node())?;
    let direct = ask(&cluster, KUBE_DNS_VIP, Transport::Udp)?;
    let direct_entries = conntrack::dns_entries(cluster.node())?.len();

    // Dropped before the cluster, also on the way out through `?`.
    let mut program = Program::start(&cluster, &options)?;
    program.wait_until_ready(&cluster, &interrupt)?;
    let report = through_cache(&cluster, &interrupt, direct, direct_entries);
    if report.as_ref().map_or(true, |report| !report.failures().is_empty()) {
        eprintln!("{}", program.log_tail());
    }
    let report = report?;
    print(&report);
    if options.hold {
        print(&invitation(&cluster, &program.log()));
        interrupt.wait();
    }
    Ok(report)
}

/// A reader that has gone away (`| head`) must not keep the cluster from being removed in order.
fn print(text: &dyn Display) {
    let _ = write!(io::stdout(), "{text}");
}

fn through_cache(
    cluster: &Cluster,
    interrupt: &Interrupt,
    direct: Lookup,
    direct_entries: usize,
) -> Result<Report, DemoError> {
    conntrack::flush(cluster.node())?;
    let start = cluster.queries();
    let miss = ask(cluster, NODE_LOCAL, Transport::Udp)?;
    interrupt.sleep(AGE)?;
    let after_miss = cluster.queries();
    let hit = ask(cluster, NODE_LOCAL, Transport::Udp)?;
    let tcp = ask(cluster, NODE_LOCAL, Transport::Tcp)?;
    let vip = ask(cluster, KUBE_DNS_VIP, Transport::Udp)?;
    let after_hits = cluster.queries();
    let entries = conntrack::dns_entries(cluster.node())?;
    let pod_entries = entries.iter().filter(|entry| entry.involves(POD)).count();
    Ok(Report {
        direct,
        direct_entries,
        miss,
        upstream_of_miss: after_miss.since(start),
        hit,
        tcp,
        vip,
        upstream_of_hits: after_hits.since(after_miss),
        pod_entries,
        upstream_entries: entries.len() - pod_entries,
        notrack: conntrack::notrack_rules(cluster.node())?,
    })
}

fn ask(cluster: &Cluster, server: Ipv4Addr, transport: Transport) -> Result<Lookup, DemoError> {
    let server = (server, 53).into();
    lookup(cluster.pod(), server, NAME, RecordType::A, transport)
}

/// What to type while the cluster is held.
fn invitation(cluster: &Cluster, log: &Path) -> String {
    let in_pod = format!("  ip netns exec {}", cluster.pod().name());
    let in_node = format!("  ip netns exec {}", cluster.node().name());
    let lines = [
        String::new(),
        "The cluster stays until Ctrl-C. In another terminal, as root:".into(),
        format!("{in_pod} dig @{NODE_LOCAL} kubernetes.default.svc.cluster.local"),
        format!("{in_pod} dig @{KUBE_DNS_VIP} web.default.svc.cluster.local"),
        format!("{in_pod} dig @{NODE_LOCAL} slow-300.example.cluster.local"),
        format!("{in_pod} dig @{NODE_LOCAL} whoami.cluster.local TXT"),
        format!("{in_node} curl -s http://localhost:9253/metrics"),
        format!("{in_node} conntrack -L"),
        format!("  tail -f {}", log.display()),
        String::new(),
    ];
    lines.join("\n")
}
