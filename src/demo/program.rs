//! The program under demonstration: Doorstep, started as the stock DaemonSet starts node-cache.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use rustix::process::{Pid, Signal, kill_process, kill_process_group, set_parent_process_death_signal};

use super::client::{Transport, exchange};
use super::interrupt::Interrupt;
use super::network::{KUBE_DNS_VIP, NODE_LOCAL, POD, UPSTREAM_VIP};
use super::{Cluster, DemoError, Options, conntrack, processor_time};

/// The stock Corefile's server blocks: TCP to kube-dns, UDP to the servers of external names, which here is
/// kube-dns as well.
const COREFILE: &str = "\
cluster.local:53 {
    errors
    cache {
        success 9984 30
        denial 9984 5
    }
    bind __PILLAR__LOCAL__DNS__
    forward . __PILLAR__CLUSTER__DNS__ {
        force_tcp
    }
    prometheus :9253
    health 169.254.20.10:8080
}
.:53 {
    errors
    cache 30
    bind __PILLAR__LOCAL__DNS__
    forward . __PILLAR__CLUSTER__DNS__
    prometheus :9253
}
";

/// Time until the first answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Time from the first answer until the rules are in place.
const RULES_PATIENCE: Duration = Duration::from_secs(5);
const PROBE_TIMEOUT: Duration = Duration::from_millis(200);
const PROBE_PAUSE: Duration = Duration::from_millis(50);
/// Time between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(10);
const LOG_LINES: usize = 20;

/// A running child in the node's namespace; dropping it ends it.
#[derive(Debug)]
pub(super) struct Program {
    child: Child,
    path: PathBuf,
    directory: Directory,
}

impl Program {
    pub(super) fn start(cluster: &Cluster, options: &Options) -> Result<Program, DemoError> {
        let directory = Directory::create(&options.prefix)?;
        let base = directory.0.join("Corefile.base");
        fs::write(&base, COREFILE).map_err(DemoError::io("write the Corefile"))?;
        let line = match &options.command {
            Some(line) => line.clone(),
            None => doorstep(options, &directory.0, &base),
        };
        let (path, arguments) = match line.split_first() {
            Some((program, arguments)) => (PathBuf::from(program), arguments),
            None => (options.binary.clone(), &[][..]),
        };
        let log = File::create(directory.log()).map_err(DemoError::io("write a log"))?;
        let errors = log.try_clone().map_err(DemoError::io("write a log"))?;
        let mut command = cluster.node().command(&path);
        command
            .args(arguments)
            .env("KUBE_DNS_UPSTREAM_SERVICE_HOST", UPSTREAM_VIP.to_string())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // Ctrl-C is for the demo alone, which then ends the child in order.
            .process_group(0);
        end_with_this_thread(&mut command);
        let step = format!("start {}", path.display());
        let child = command.spawn().map_err(DemoError::io(step))?;
        Ok(Program { child, path, directory })
    }

    /// Waits until the pod gets answers and its queries are no longer tracked. A program that never
    /// stops the tracking is ready all the same: the report will say so.
    pub(super) fn wait_until_ready(
        &mut self,
        cluster: &Cluster,
        interrupt: &Interrupt,
    ) -> Result<(), DemoError> {
        let start = Instant::now();
        while !answers(cluster, NODE_LOCAL.into())? {
            if let Some(status) = self.child.try_wait().map_err(DemoError::io("wait"))? {
                return Err(DemoError::Ended { program: self.path.clone(), status, log: self.log_tail() });
            }
            if start.elapsed() > PATIENCE {
                return Err(DemoError::NotReady {
                    server: (NODE_LOCAL, 53).into(),
                    waited: PATIENCE,
                    log: self.log_tail(),
                });
            }
            interrupt.sleep(PROBE_PAUSE)?;
        }
        let start = Instant::now();
        while start.elapsed() < RULES_PATIENCE && is_tracked(cluster)? {
            interrupt.sleep(PROBE_PAUSE)?;
        }
        Ok(())
    }

    /// Processor time of the program and its children so far.
    pub(super) fn processor_time(&self) -> Duration {
        processor_time::of_tree(Pid::from_child(&self.child).as_raw_nonzero().get())
    }

    /// Where its output goes.
    pub(super) fn log(&self) -> PathBuf {
        self.directory.log()
    }

    /// The last lines of its output.
    pub(super) fn log_tail(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    fn ended_within(&mut self, patience: Duration) -> bool {
        let start = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(None) if start.elapsed() < patience => thread::sleep(PROBE_PAUSE),
                Ok(None) => return false,
                _ => return true,
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Not reaped yet, so the number cannot belong to anybody else.
        let pid = match self.child.try_wait() {
            Ok(None) => Pid::from_child(&self.child),
            _ => return,
        };
        let asked = kill_process(pid, Signal::TERM);
        if asked.is_err() || !self.ended_within(GRACE) {
            tracing::warn!(program = %self.path.display(), "still there after SIGTERM: killed");
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// The command line of the stock DaemonSet.
fn doorstep(options: &Options, directory: &Path, base: &Path) -> Vec<OsString> {
    let addresses = format!("{NODE_LOCAL},{KUBE_DNS_VIP}");
    let mut line = vec![options.binary.clone().into_os_string()];
    line.extend(["-localip".into(), addresses.into()]);
    line.extend(["-basecorefile".into(), base.into()]);
    line.extend(["-conf".into(), directory.join("Corefile").into()]);
    line.extend(["-upstreamsvc", "kube-dns-upstream", "-handover="].map(OsString::from));
    line
}

/// A demo that is killed takes the child along, which can then still clean up. The kernel watches
/// the thread that forks.
#[allow(unsafe_code)]
fn end_with_this_thread(command: &mut Command) {
    let die = || Ok(set_parent_process_death_signal(Some(Signal::TERM))?);
    // SAFETY: the closure makes one prctl system call; it neither allocates nor locks.
    unsafe { command.pre_exec(die) };
}

/// Whether one UDP query of the pod gets a NOERROR answer soon.
fn answers(cluster: &Cluster, server: std::net::IpAddr) -> Result<bool, DemoError> {
    let server = SocketAddr::from((server, 53));
    let (name, record_type) = ("kube-dns.kube-system.svc.cluster.local.", RecordType::A);
    let answer = cluster.pod().run(|| exchange(server, name, record_type, Transport::Udp, PROBE_TIMEOUT))?;
    Ok(answer.is_ok_and(|answer| answer.code() == ResponseCode::NoError))
}

/// Whether the pod's queries leave conntrack entries.
fn is_tracked(cluster: &Cluster) -> Result<bool, DemoError> {
    let entries = || -> Result<usize, DemoError> {
        let entries = conntrack::dns_entries(cluster.node())?;
        Ok(entries.iter().filter(|entry| entry.involves(POD)).count())
    };
    // Those of the probes before stay: to forget them is to break the program's own connections.
    let before = entries()?;
    let answered = answers(cluster, NODE_LOCAL.into())? && answers(cluster, KUBE_DNS_VIP.into())?;
    Ok(!answered || entries()? > before)
}

/// The run's files, readable by root alone.
#[derive(Debug)]
struct Directory(PathBuf);

impl Directory {
    fn create(prefix: &str) -> Result<Directory, DemoError> {
        let path = Path::new("/run").join(format!("{prefix}-demo"));
        let fail = || DemoError::io(format!("prepare {}", path.display()));
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail()(error)),
            _ => {}
        }
        let created = DirBuilder::new().mode(0o700).create(&path);
        created.map_err(fail())?;
        Ok(Directory(path))
    }

    fn log(&self) -> PathBuf {
        self.0.join("log")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "cannot remove the directory");
        }
    }
}
