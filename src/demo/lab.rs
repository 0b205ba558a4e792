//! The demonstration itself: the same pairs of queries straight to kube-dns and through the cache.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use hickory_proto::rr::RecordType;

use super::client::{Transport, lookup};
use super::conntrack::{self, Entry, dns_entries};
use super::interrupt::Interrupt;
use super::kube_proxy::Shape;
use super::network::{KUBE_DNS_PODS, KUBE_DNS_VIP, NODE_LOCAL, POD, POD2};
use super::program::Program;
use super::race::{Pairs, Race};
use super::report::{Configuration, Measurement, Report, Side};
use super::{
    Cluster, ClusterConfig, DemoError, Setting, Statistics, invitation, processor_time, user_namespace, zone,
};

/// How to run the demonstration.
#[derive(Debug, Clone)]
pub struct Options {
    /// Keep the cluster up after the report, until SIGINT, SIGTERM or the end of standard input.
    pub hold: bool,
    /// Print the report as JSON.
    pub json: bool,
    /// Pairs of queries in each setting; some settings take fewer.
    pub pairs: u64,
    /// The same straight to kube-dns; `None`: as many.
    pub direct_pairs: Option<u64>,
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
            json: false,
            pairs: 1000,
            direct_pairs: None,
            // The kernel's link works even when the file has been replaced since.
            binary: std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into()),
            prefix: ClusterConfig::default().prefix,
            command: None,
        }
    }
}

/// Builds the cluster, sends the pairs of every [`Setting`] straight to the ClusterIP, then starts the
/// cache on the node and sends them again, prints the [`Report`] and removes everything. Tells on standard
/// error how far it is.
///
/// An error is a step that could not be made; what became of the queries is in [`Report::failures`].
/// Needs root or, called while the process has one thread, the right to make user namespaces. Blocks for
/// about half a minute, and with `hold` until told to stop.
pub fn run(options: Options) -> Result<Report, DemoError> {
    let in_user_namespace = user_namespace::become_root()?;
    if in_user_namespace {
        progress("not root: this happens in a user namespace of its own");
    }
    let interrupt = Interrupt::watch()?;
    progress("building a cluster: two pods, a node, three addresses of kube-dns");
    let cluster = Cluster::up(&ClusterConfig { prefix: options.prefix.clone() })?;
    interrupt.check()?;
    acquaint(&cluster)?;

    let pairs = options.direct_pairs.unwrap_or(options.pairs);
    let race = Race::start()?;
    let mut lab = Lab { cluster: &cluster, interrupt: &interrupt, race, pairs, sent: 0 };
    let direct = lab.every_setting(None)?;
    conntrack::flush(cluster.node())?;
    progress("starting Doorstep on the node");
    // Dropped before the cluster, also on the way out through `?`.
    let mut program = Program::start(&cluster, &options)?;
    program.wait_until_ready(&cluster, &interrupt)?;
    lab.pairs = options.pairs;
    let doorstep = lab.every_setting(Some(&program));
    let report = doorstep.map(|doorstep| Report { direct, doorstep, configuration: lab.configuration() });
    if report.as_ref().map_or(true, |report| !report.failures().is_empty()) {
        eprintln!("{}", program.log_tail());
    }
    let report = report?;
    match options.json {
        true => print(&format_args!("{}\n", report.to_json())),
        false => print(&report),
    }
    if options.hold {
        print(&invitation::text(&cluster, &options.binary, &program.log(), in_user_namespace));
        interrupt.wait();
    }
    Ok(report)
}

/// A reader that has gone away (`| head`) must not keep the cluster from being removed in order.
fn print(text: &dyn Display) {
    let _ = write!(io::stdout(), "{text}");
}

fn progress(text: &str) {
    let _ = writeln!(io::stderr(), "demo: {text}");
}

/// The first packets of a new link wait for ARP; the pairs are not to.
fn acquaint(cluster: &Cluster) -> Result<(), DemoError> {
    for pod in [cluster.pod(), cluster.pod2()] {
        for address in KUBE_DNS_PODS {
            lookup(pod, (address, 53).into(), zone::DUAL, RecordType::A, Transport::Udp)?;
        }
    }
    Ok(())
}

struct Lab<'a> {
    cluster: &'a Cluster,
    interrupt: &'a Interrupt,
    race: Race,
    pairs: u64,
    /// Pairs so far: no two have the same number.
    sent: u64,
}

impl Lab<'_> {
    /// Straight to the ClusterIP, or with the program that serves it and the link-local address.
    fn every_setting(&mut self, program: Option<&Program>) -> Result<Side, DemoError> {
        let measure = |setting| self.measure(setting, program);
        Ok(Side { measurements: Setting::ALL.into_iter().map(measure).collect::<Result<_, _>>()? })
    }

    fn measure(&mut self, setting: Setting, program: Option<&Program>) -> Result<Measurement, DemoError> {
        if program.is_none() {
            // A source port that has an entry already has nothing to race for. With the cache there are no
            // entries but those of its own connections, which would break.
            conntrack::flush(self.cluster.node())?;
        }
        let servers: &[Ipv4Addr] =
            if program.is_some() { &[NODE_LOCAL, KUBE_DNS_VIP] } else { &[KUBE_DNS_VIP] };
        let servers: Vec<SocketAddr> = servers.iter().map(|server| (*server, 53).into()).collect();
        let spent = || processor_time::own() + program.map(Program::processor_time).unwrap_or_default();
        let interrupt = self.interrupt;
        let go_on = || interrupt.check();

        let entries_before = self.entries()?;
        let (before, spent_before) = (Statistics::of(self.cluster.node())?, spent());
        let count = setting.pairs(self.pairs);
        for (earlier, shape) in (0..).step_by(count as usize).zip(Shape::ALL) {
            self.cluster.set_service_rules(setting.service_rules(shape))?;
            let first = self.sent;
            self.sent += count;
            let pairs = Pairs {
                origin: setting.origin(self.cluster, earlier),
                servers: &servers,
                count,
                pace: setting.pace(),
                subject: &|number| setting.subject(first + number),
            };
            self.race.run(&pairs, &go_on)?;
        }
        let [iptables, nftables] = self.race.finish(&go_on)?.try_into().unwrap_or_default();
        let spent = spent().saturating_sub(spent_before);
        let measurement = Measurement {
            setting,
            tallies: [iptables, nftables],
            statistics: Statistics::of(self.cluster.node())?.since(before),
            entries: self.entries()?.difference(&entries_before).count(),
            // Those who race spin.
            processor_time: (setting == Setting::OneThread).then_some(spent),
        };
        self.tell(&measurement, program.is_some());
        Ok(measurement)
    }

    /// The pods' entries. Those of the first probes, before the rules were in, live on for a while.
    fn entries(&self) -> Result<HashSet<Entry>, DemoError> {
        let entries = dns_entries(self.cluster.node())?.into_iter();
        Ok(entries.filter(|entry| entry.involves(POD) || entry.involves(POD2)).collect())
    }

    fn tell(&self, measurement: &Measurement, through_cache: bool) {
        let way = if through_cache { "through Doorstep" } else { "straight to kube-dns" };
        let [who, what] = measurement.setting.title();
        let total = measurement.total();
        progress(&format!("{way}: {who} {what}: {} of {} queries lost", total.lost, total.queries));
    }

    fn configuration(&self) -> Configuration {
        Configuration {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            processors: std::thread::available_parallelism().map_or(1, usize::from) as u64,
            can_race: self.race.has_two_processors(),
            kube_dns_endpoints: KUBE_DNS_PODS.len() as u64,
        }
    }
}
