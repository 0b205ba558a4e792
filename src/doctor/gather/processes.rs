//! Processes: the cache, kubelet, and one in each pod.

use super::super::facts::{Pod, Process};
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
    let mut hidden = 0;
    let own = host.target("/proc/self/ns/net").ok();
    for pid in pids(host) {
        let Some(process) = process(host, pid) else { continue };
        let namespace = host.target(&format!("/proc/{pid}/ns/net"));
        // It may end while it is looked at; and init, which may be closed to everyone, is in no pod.
        let refused = |error: &std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
        hidden += usize::from(namespace.as_ref().is_err_and(refused) && pid != 1);
        let namespace = namespace.ok();
        if namespace == own || namespace.is_none() {
            if is_cache(&process) {
                seen.caches.push(process);
            } else if let Some(remedy) = remedy(&process) {
                seen.remedies.push(remedy);
            } else if process.name == "kubelet" {
                seen.kubelet = Some(process);
            }
            continue;
        }
        let namespace = namespace.unwrap_or_default();
        match namespaces.iter().position(|(name, _)| *name == namespace) {
            Some(at) if namespaces[at].1.len() < PROCESSES => namespaces[at].1.push(pid),
            None if namespaces.len() < NAMESPACES => namespaces.push((namespace, vec![pid])),
            _ => {}
        }
    }
    if hidden > 0 {
        unread.note(
            "network namespaces",
            &format!("{hidden} processes may not be looked into; run it as root"),
        );
    }
    seen.pods =
        namespaces.iter().filter_map(|(_, pids)| pids.iter().find_map(|&pid| pod(host, pid))).collect();
    // A successor or worker comes after the process that was started with the flags.
    seen.caches.sort_by_key(|cache| cache.pid);
    seen
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

/// A process whose `resolv.conf` was made for a pod: it searches the names of services.
fn pod(host: &dyn Host, pid: u32) -> Option<Pod> {
    let resolv_conf = resolv_conf::read(host, &format!("/proc/{pid}/root/etc/resolv.conf"))?;
    let services = |domain: &String| domain.starts_with("svc.") || domain.contains(".svc.");
    resolv_conf.search.iter().any(services).then_some(Pod { pid, resolv_conf })
}
