//! `doorstep` as a child process.

#![allow(dead_code, reason = "each suite uses its own part")]

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::client::PATIENCE;
use super::loopback;

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_doorstep");
/// Where a server's own metrics are.
pub const METRICS_PORT: u16 = 9353;

/// How to start it. Nothing outside a directory of its own is read or written.
pub struct Setup {
    directory: TempDir,
    ip: IpAddr,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    before: String,
    wrapper: String,
}

/// A running `doorstep`. Dropping it kills it.
pub struct Doorstep {
    pub setup: Setup,
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Setup {
    /// A server with this Corefile. `ip` is where its `-metrics-listen-address` is.
    pub fn new(ip: IpAddr, corefile: &str) -> Setup {
        let setup = Setup::bare(ip);
        std::fs::write(setup.corefile(), corefile).unwrap();
        setup
    }

    /// A server without a Corefile.
    pub fn bare(ip: IpAddr) -> Setup {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let metrics = SocketAddr::new(ip, METRICS_PORT);
        let arguments = vec![
            "-setupinterface=false".to_owned(),
            "-setupiptables=false".to_owned(),
            format!("-conf={}", path("Corefile")),
            format!("-basecorefile={}", path("Corefile.base")),
            format!("-kubednscm={}", path("kube-dns")),
            format!("-metrics-listen-address={metrics}"),
            format!("-dns.port={}", loopback::DNS_PORT),
            format!("-handover={}", path("handover")),
        ];
        Setup {
            directory,
            ip,
            arguments,
            variables: Vec::new(),
            before: String::new(),
            wrapper: String::new(),
        }
    }

    /// Adds a flag; of two of a kind the later one counts.
    pub fn flag(mut self, flag: impl Into<String>) -> Setup {
        self.arguments.push(flag.into());
        self
    }

    /// Sets an environment variable.
    pub fn variable(mut self, name: &str, value: impl ToString) -> Setup {
        self.variables.push((name.to_owned(), value.to_string()));
        self
    }

    /// A shell command to run in the process before it becomes `doorstep`: `ulimit -n 40`.
    pub fn before(mut self, command: &str) -> Setup {
        self.before = format!("{command} && ");
        self
    }

    /// A program that runs it with other rights: `setpriv --bounding-set=-net_admin --`.
    pub fn inside(mut self, wrapper: &str) -> Setup {
        self.wrapper = format!("{wrapper} ");
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn corefile(&self) -> PathBuf {
        self.path("Corefile")
    }

    /// Runs it to its end: exit status, standard output, standard error.
    pub fn run(&self) -> (Option<i32>, String, String) {
        let output = self.command().output().unwrap();
        let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// Starts it and waits until it serves.
    #[track_caller]
    pub fn start(self) -> Doorstep {
        let server = self.spawn();
        server.wait_for_log("] doorstep ");
        server
    }

    /// Starts it and waits for nothing.
    pub fn spawn(self) -> Doorstep {
        let mut child = self.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        follow(child.stdout.take().unwrap(), log.clone());
        follow(child.stderr.take().unwrap(), log.clone());
        Doorstep { setup: self, child, log }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{}exec {}\"$@\"", self.before, self.wrapper), "sh", BINARY]);
        command.args(&self.arguments).current_dir(self.directory.path()).stdin(Stdio::null());
        command.env_clear().envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command
    }
}

fn follow(stream: impl std::io::Read + Send + 'static, log: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut log = log.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    });
}

impl Doorstep {
    /// Starts with this Corefile and waits until it serves.
    #[track_caller]
    pub fn start(ip: IpAddr, corefile: &str) -> Doorstep {
        Setup::new(ip, corefile).start()
    }

    /// Everything it wrote.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until `text` is in the log.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        self.wait_for_log_times(text, 1);
    }

    /// Waits until `text` is in the log `times` times.
    #[track_caller]
    pub fn wait_for_log_times(&self, text: &str, times: usize) {
        let found = wait(PATIENCE, || self.log().matches(text).count() >= times);
        assert!(found, "not in the log: {text}\n{}", self.log());
    }

    /// Replaces the Corefile as an editor does.
    pub fn rewrite(&self, corefile: &str) {
        replace(&self.setup.corefile(), corefile);
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn exit(&mut self, patience: Duration) -> ExitStatus {
        let mut status = None;
        wait(patience, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap_or_else(|| panic!("it runs on\n{}", self.log()))
    }

    /// Where its own metrics are.
    pub fn metrics(&self) -> SocketAddr {
        (self.setup.ip, METRICS_PORT).into()
    }

    /// Open file descriptors, of guardian and worker.
    pub fn descriptors(&self) -> usize {
        self.processes().map(|process| std::fs::read_dir(process.join("fd")).unwrap().count()).sum()
    }

    /// CPU time used so far, by guardian and worker.
    pub fn cpu(&self) -> Duration {
        let ticks = self.processes().map(|process| {
            let stat = std::fs::read_to_string(process.join("stat")).unwrap();
            let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
            fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
        });
        // utime and stime, in ticks of 10 ms on every architecture (USER_HZ).
        Duration::from_millis(10 * ticks.sum::<u64>())
    }

    /// Resident memory in KiB, of guardian and worker. What they share counts twice.
    pub fn resident(&self) -> usize {
        let resident = self.processes().map(|process| {
            let status = std::fs::read_to_string(process.join("status")).unwrap();
            // A worker that has just ended has none.
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse::<usize>().unwrap())
        });
        resident.sum()
    }

    /// How long the threads of guardian and worker were ready to run and did not, because others had the CPUs.
    pub fn held_up(&self) -> Duration {
        let threads = self.processes().flat_map(|process| std::fs::read_dir(process.join("task")).unwrap());
        let waited = threads.map(|thread| {
            let stat = std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
            stat.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        });
        Duration::from_nanos(waited.sum())
    }

    /// The directories of its processes in `/proc`.
    fn processes(&self) -> impl Iterator<Item = PathBuf> {
        let own = self.child.id().to_string();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap();
        let all: Vec<String> = children.split_whitespace().map(String::from).chain([own]).collect();
        all.into_iter().map(|process| Path::new("/proc").join(process))
    }
}

impl Drop for Doorstep {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}---", self.child.id(), self.log());
        }
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks at `condition` every few milliseconds until it holds or patience ends.
pub fn wait(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + patience;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Writes a file beside and renames, so that no reader sees half of it.
pub fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("beside");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, path).unwrap();
}
