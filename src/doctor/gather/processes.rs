//! Processes: the cache, kubelet, and one in each pod.

use super::super::facts::{Pod, Process, ResolvConf};
use super::{Host, Unread, resolv_conf};

/// Programs that are a cache.
const CACHES: [&str; 2] = ["doorstep", "node-cache"];
/// Doorstep's subcommands, of which none is.
const SUBCOMMANDS: [&str; 5] = ["check", "teardown", "demo", "doctor", "remedy"];
/// Network namespaces that are looked into, and processes in each.
const NAMESPACES: usize = 256;
const PROCESSES: usize = 4;

/// What was found.
#[derive(Default)]
pub struct Seen {
    pub caches: Vec<Process>,
    pub remedies: Vec<String>,
    pub kubelet: Option<Process>,
    pub pods: Vec<Pod>,
}

/// Looks at every process that `/proc` shows.
pub fn processes(host: &dyn Host, unread: &mut Unread) -> Seen {
    let mut seen = Seen::default();
    let mut namespaces: Vec<(String, Vec<u32>)> = Vec::new();
    let own = namespace(host, "self");
    for pid in pids(host) {
        let Some(process) = process(host, pid) else { continue };
        // It may end while it is looked at.
        let Some(namespace) = namespace(host, &pid.to_string()) else { continue };
        if Some(&namespace) == own.as_ref() {
            seen.add(process);
            continue;
        }
        match namespaces.iter().position(|(name, _)| *name == namespace) {
            Some(at) if namespaces[at].1.len() < PROCESSES => namespaces[at].1.push(pid),
            None if namespaces.len() < NAMESPACES => namespaces.push((namespace, vec![pid])),
            _ => {}
        }
    }
    let mut closed = 0;
    for (_, pids) in &namespaces {
        let files: Vec<_> = pids.iter().map(|&pid| (pid, resolv_conf_of(host, pid))).collect();
        closed += usize::from(files.iter().all(|(_, file)| file.is_none()));
        let mut files = files.into_iter().filter_map(|(pid, file)| Some((pid, file?)));
        let pod = files.find(|(_, file)| is_a_pods(file));
        seen.pods.extend(pod.map(|(pid, resolv_conf)| Pod { pid, resolv_conf }));
    }
    // One or two may belong to a sandbox that is closed to everyone.
    if closed * 2 > namespaces.len() {
        unread.note("pods", &format!("{closed} network namespaces may not be looked into"));
    }
    seen
}

impl Seen {
    fn add(&mut self, process: Process) {
        if is_cache(&process) {
            // By number: a successor or worker comes after the process that was started with the flags.
            self.caches.push(process);
        } else if let Some(remedy) = remedy(&process) {
            self.remedies.push(remedy);
        } else if process.name == "kubelet" {
            self.kubelet = Some(process);
        }
    }
}

/// What tells one network namespace from another: each has files of its own below `/proc/PID/net`, and anyone
/// may look at their numbers. `/proc/PID/ns/net` is closed to whoever lacks one of the process's capabilities.
fn namespace(host: &dyn Host, process: &str) -> Option<String> {
    host.file_id(&format!("/proc/{process}/net/udp")).ok()
}

/// The numbers of all processes.
pub fn pids(host: &dyn Host) -> Vec<u32> {
    let names = host.names("/proc").unwrap_or_default();
    let mut pids: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

/// `None` for threads of the kernel, and for what ended meanwhile.
fn process(host: &dyn Host, pid: u32) -> Option<Process> {
    let line = host.text(&format!("/proc/{pid}/cmdline")).ok()?;
    let arguments: Vec<String> = line.trim_end_matches(['\0', '\n']).split('\0').map(str::to_owned).collect();
    let name = arguments.first()?.rsplit('/').next()?.to_owned();
    let program = host.target(&format!("/proc/{pid}/exe"));
    let outdated = program.is_ok_and(|program| program.ends_with(" (deleted)"));
    (!name.is_empty()).then_some(Process { pid, name, arguments, outdated })
}

fn is_cache(process: &Process) -> bool {
    let other = process.arguments.iter().skip(1).any(|word| SUBCOMMANDS.contains(&word.as_str()));
    CACHES.contains(&process.name.as_str()) && !other
}

fn remedy(process: &Process) -> Option<String> {
    let at = process.arguments.iter().position(|word| word == "remedy")?;
    (process.name == "doorstep").then(|| process.arguments.get(at + 1).cloned())?
}

fn resolv_conf_of(host: &dyn Host, pid: u32) -> Option<ResolvConf> {
    resolv_conf::read(host, &format!("/proc/{pid}/root/etc/resolv.conf"))
}

/// One that kubelet made for a pod searches the names of services.
fn is_a_pods(resolv_conf: &ResolvConf) -> bool {
    resolv_conf.search.iter().any(|domain| domain.starts_with("svc.") || domain.contains(".svc."))
}
