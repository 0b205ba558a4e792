//! A cluster with Doorstep on its node.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use doorstep::demo::network::{KUBE_DNS_VIP, NODE_LOCAL, UPSTREAM_VIP};
use doorstep::demo::{Cluster, ClusterConfig, DemoError, Lookup, Namespace, Transport, lookup_within};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub const DOORSTEP: &str = env!("CARGO_BIN_EXE_doorstep");
/// A name that is cached after its first lookup.
pub const KUBERNETES: &str = "kubernetes.default.svc.cluster.local.";
pub const TRANSPORTS: [Transport; 2] = [Transport::Udp, Transport::Tcp];
/// Both addresses of the stock manifest.
pub const ADDRESSES: [Ipv4Addr; 2] = [NODE_LOCAL, KUBE_DNS_VIP];
/// Rules per address.
pub const RULES: usize = 12;
/// For whatever must happen at all; the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(10);

/// `ready` listens on every address, so that it is there whatever becomes of the link.
const COREFILE: &str = "\
cluster.local:53 {
    errors
    cache 30
    bind __PILLAR__LOCAL__DNS__
    forward . __PILLAR__CLUSTER__DNS__ {
        force_tcp
    }
    prometheus :9253
    health 169.254.20.10:8080
    ready :8181
}
";

pub struct Rig {
    pub cluster: Cluster,
    directory: TempDir,
}

/// One line for each thing that is on the node.
#[derive(PartialEq, Eq)]
pub struct Listing(Vec<String>);

/// A running Doorstep; dropping it kills it.
pub struct Daemon {
    child: Child,
    log: std::path::PathBuf,
}

impl Rig {
    /// A cluster of this test alone. The number tells it from one that a test in the same process has just
    /// dropped: until `exec`, whoever that process forks holds the claim of its name as well.
    pub fn new(test: &str) -> Rig {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("dc{}-{number}{test}", std::process::id());
        let cluster = Cluster::up(&ClusterConfig { prefix });
        let cluster = cluster.expect("root, network namespaces and nf_tables with nat");
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("Corefile.base"), COREFILE).expect("written");
        Rig { cluster, directory }
    }

    /// A path in this test's directory.
    pub fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// A directory in which `iptables` is `iptables-legacy`.
    pub fn legacy_tools(&self) -> String {
        let directory = self.path("legacy");
        fs::create_dir(&directory).expect("a directory");
        for family in ["iptables", "ip6tables"] {
            for verb in ["", "-save", "-restore"] {
                let (tool, name) = (format!("/usr/sbin/{family}-legacy{verb}"), format!("{family}{verb}"));
                std::os::unix::fs::symlink(tool, format!("{directory}/{name}")).expect("a link");
            }
        }
        directory
    }

    /// Starts Doorstep with the flags of the stock manifest and then `flags`, which win.
    pub fn start(&self, flags: &[&str]) -> Daemon {
        self.start_with_path(flags, None)
    }

    /// The same with another directory before the others in `PATH`.
    pub fn start_with_path(&self, flags: &[&str], first: Option<&str>) -> Daemon {
        let path = std::env::var("PATH").expect("PATH");
        self.start_in(&first.into_iter().chain([path.as_str()]).collect::<Vec<_>>().join(":"), flags)
    }

    /// Starts Doorstep where it finds no other program, as in its image, and returns once `/ready` says so.
    pub fn serve_without_tools(&self, flags: &[&str]) -> Daemon {
        let mut daemon = self.start_in("/nonexistent", flags);
        self.wait_until_ready(&mut daemon);
        daemon
    }

    fn start_in(&self, path: &str, flags: &[&str]) -> Daemon {
        let log = self.directory.path().join("log");
        let file = File::options().create(true).append(true).open(&log).expect("a log");
        let child = self
            .cluster
            .node()
            .command(DOORSTEP)
            .args(["-localip", &format!("{NODE_LOCAL},{KUBE_DNS_VIP}")])
            .args(["-basecorefile", &self.path("Corefile.base"), "-conf", &self.path("Corefile")])
            .args(["-upstreamsvc", "kube-dns-upstream", "-handover="])
            .args(flags)
            .env("KUBE_DNS_UPSTREAM_SERVICE_HOST", UPSTREAM_VIP.to_string())
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a log"))
            .stderr(file)
            .spawn()
            .expect("doorstep");
        Daemon { child, log }
    }

    /// Starts Doorstep and returns once `/ready` says so.
    pub fn serve(&self, flags: &[&str]) -> Daemon {
        let mut daemon = self.start(flags);
        self.wait_until_ready(&mut daemon);
        daemon
    }

    pub fn wait_until_ready(&self, daemon: &mut Daemon) {
        let ready = eventually(PATIENCE, || {
            let ended = daemon.child.try_wait().expect("a child");
            assert!(ended.is_none(), "it ended with {ended:?}:\n{}", daemon.log());
            self.is_ready()
        });
        assert!(ready, "not ready:\n{}", daemon.log());
    }

    pub fn is_ready(&self) -> bool {
        matches!(self.http(8181, "/ready"), Ok((200, _)))
    }

    /// Status and body of a page on the node.
    pub fn http(&self, port: u16, path: &str) -> io::Result<(u16, String)> {
        self.http_at(Ipv4Addr::LOCALHOST, port, path)
    }

    /// The same at one of its addresses.
    pub fn http_at(&self, address: Ipv4Addr, port: u16, path: &str) -> io::Result<(u16, String)> {
        let fetch = || http((address, port).into(), path);
        self.cluster.node().run(fetch).expect("entered")
    }

    /// The repairs of one kind that the metrics tell of.
    pub fn repairs(&self, kind: &str) -> u64 {
        let (_, page) = self.http(9253, "/metrics").expect("metrics");
        let sample = format!("doorstep_drift_repairs_total{{kind=\"{kind}\"}} ");
        let value = page.lines().find_map(|line| line.strip_prefix(&sample));
        value.unwrap_or_else(|| panic!("no {sample}in\n{page}")).parse().expect("a number")
    }

    /// Runs a shell command on the node and returns its output; it must succeed.
    pub fn node(&self, line: &str) -> String {
        shell(self.cluster.node(), line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// The same for one that must fail; returns what it says.
    pub fn node_refuses(&self, line: &str) -> String {
        let outcome = shell(self.cluster.node(), line);
        outcome.expect_err("it should have failed")
    }

    /// One lookup of [`KUBERNETES`] that must be answered rightly.
    pub fn resolves(&self, from: &Namespace, server: impl Into<IpAddr>, transport: Transport) -> Lookup {
        let server = server.into();
        let lookup = ask(from, server, KUBERNETES, transport, PATIENCE);
        let lookup = lookup.unwrap_or_else(|error| panic!("{server} over {transport:?}: {error:?}"));
        assert_eq!(lookup.code(), ResponseCode::NoError, "{server} over {transport:?}");
        assert_eq!(lookup.addresses(), [Ipv4Addr::new(10, 96, 0, 1)]);
        lookup
    }

    /// Pod and node are answered at both addresses over both transports.
    pub fn everybody_resolves(&self) {
        for from in [self.cluster.pod(), self.cluster.node()] {
            for server in ADDRESSES {
                for transport in TRANSPORTS {
                    self.resolves(from, server, transport);
                }
            }
        }
    }

    /// Whether the pod gets an answer at `server` over UDP within `patience`.
    pub fn pod_is_answered(&self, server: impl Into<IpAddr>, patience: Duration) -> bool {
        let answer = ask(self.cluster.pod(), server.into(), KUBERNETES, Transport::Udp, patience);
        answer.is_ok_and(|answer| answer.code() == ResponseCode::NoError)
    }

    /// Both families' iptables rules, as `iptables-save` prints them.
    pub fn iptables_rules(&self) -> Vec<String> {
        let saved = self.node("iptables-save; ip6tables-save");
        saved.lines().filter(|line| line.starts_with("-A")).map(str::to_owned).collect()
    }

    /// Those of them with node-cache's comment.
    pub fn commented_rules(&self) -> Vec<String> {
        let rules = self.iptables_rules().into_iter();
        rules.filter(|rule| rule.contains("NodeLocal DNS Cache:")).collect()
    }

    /// Whether the nftables table is there.
    pub fn has_table(&self) -> bool {
        self.node("nft list tables").contains("table inet nodelocaldns")
    }

    /// Everything that we might leave: links, addresses, routes, rules. Without packet counts, and
    /// without what iptables itself leaves: built-in chains that hold nothing.
    pub fn listing(&self) -> Listing {
        let network = self.node(
            "ip -o link | cut -d: -f2; ip -o address | tr -s ' '; ip rule; \
             ip -4 route show table all; ip -6 route show table all",
        );
        // The cluster's own links get theirs while we look.
        let settled = |line: &&str| !line.contains("fe80:") && !line.contains("ff00:");
        let mut network: Vec<&str> = network.lines().filter(settled).collect();
        network.sort_unstable();
        let saved = self.node("iptables-save; ip6tables-save");
        let counted =
            |line: &&str| line.starts_with("-A") || line.starts_with(':') && !line.contains(" ACCEPT ");
        let saved = saved.lines().filter(counted).map(|line| line.split(" [").next().unwrap_or(line));
        let iptables: Vec<&str> = saved.collect();
        let ruleset = self.node("nft --stateless list ruleset");
        let ruleset = without_empty_chains(&ruleset);
        let lines = network.into_iter().chain(iptables).chain(ruleset.lines());
        Listing(lines.map(str::to_owned).collect())
    }
}

impl Listing {
    pub fn contains(&self, text: &str) -> bool {
        self.0.iter().any(|line| line.contains(text))
    }
}

impl fmt::Debug for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| write!(f, "\n{line}"))
    }
}

impl Daemon {
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("sent");
    }

    /// Waits for the end; panics when it does not come.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually(PATIENCE, || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        status.unwrap_or_else(|| panic!("it did not end:\n{}", self.log()))
    }

    /// SIGTERM, and exit status 0.
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill(mut self) {
        self.child.kill().expect("sent");
        self.child.wait().expect("ended");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

pub fn ask(
    from: &Namespace,
    server: IpAddr,
    name: &str,
    transport: Transport,
    patience: Duration,
) -> Result<Lookup, DemoError> {
    lookup_within(from, (server, 53).into(), name, RecordType::A, transport, patience)
}

/// Polls until `condition` holds; returns whether it did within `patience`.
pub fn eventually(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(PAUSE);
    }
}

/// Standard output, or the standard error of a command that failed.
pub fn shell(namespace: &Namespace, line: &str) -> Result<String, String> {
    let output = namespace.command("sh").args(["-c", line]).stdin(Stdio::null()).output().expect("sh");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn http(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let (_, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    Ok((status.ok_or(io::ErrorKind::InvalidData)?, body.to_owned()))
}

/// A ruleset without the base chains in which nothing happens, and without tables that held only such.
fn without_empty_chains(ruleset: &str) -> String {
    let mut kept = String::new();
    for table in ruleset.split_inclusive("\n}\n") {
        let Some((head, chains)) = table.split_once('\n') else { continue };
        let chains = chains.strip_suffix("}\n").unwrap_or(chains).split_inclusive("\t}\n");
        let used = |chain: &&str| {
            let is_idle = |line: &str| {
                let line = line.trim();
                line.is_empty()
                    || line == "}"
                    || line.starts_with("chain ")
                    || line.ends_with("policy accept;")
            };
            !chain.lines().all(is_idle)
        };
        let used: String = chains.filter(used).collect();
        if !used.is_empty() {
            kept.push_str(&format!("{head}\n{used}}}\n"));
        }
    }
    kept
}
