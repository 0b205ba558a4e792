//! The `process_*` families: what the kernel says about this process.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::names;
use super::snapshot::Snapshot;

/// Ticks per second of the times in `/proc` (`USER_HZ`): 100 on every architecture we are built for,
/// whatever the kernel's own tick is.
const USER_HZ: f64 = 100.0;

/// Adds what can be read; a file that is missing or unreadable (a sandbox without `/proc`) leaves its
/// families out.
pub fn collect(into: &mut Snapshot) {
    let mut number = |family, value: f64| into.number(family, &[], value);

    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    number(names::PROCESS_CPU_SECONDS.description(), cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9);
    number(names::PROCESS_MAX_FDS.description(), limit(Resource::Nofile));
    number(names::PROCESS_VIRTUAL_MEMORY_MAX.description(), limit(Resource::As));
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory being read.
        let open = descriptors.count().saturating_sub(1);
        number(names::PROCESS_OPEN_FDS.description(), open as f64);
    }
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        for (field, family) in [
            ("VmRSS:", names::PROCESS_RESIDENT_MEMORY.description()),
            ("VmSize:", names::PROCESS_VIRTUAL_MEMORY.description()),
        ] {
            if let Some(bytes) = status_bytes(&status, field) {
                number(family, bytes);
            }
        }
    }
    if let Some(seconds) = start_time() {
        number(names::PROCESS_START_TIME.description(), seconds);
    }
    if let Ok(netstat) = fs::read_to_string("/proc/self/net/netstat") {
        for (column, family) in [
            ("InOctets", names::PROCESS_NETWORK_RECEIVE.description()),
            ("OutOctets", names::PROCESS_NETWORK_TRANSMIT.description()),
        ] {
            if let Some(octets) = ip_octets(&netstat, column) {
                number(family, octets);
            }
        }
    }
}

/// The soft limit; the largest `u64` when there is none.
fn limit(resource: Resource) -> f64 {
    getrlimit(resource).current.unwrap_or(u64::MAX) as f64
}

/// A `Name:   123 kB` line of `/proc/PID/status`.
fn status_bytes(status: &str, field: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024.0)
}

/// Seconds since the epoch, from the age that `/proc` gives in ticks since boot.
fn start_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let since_boot = start_ticks(&stat)? / USER_HZ;
    let boottime = clock_gettime(ClockId::Boottime);
    let uptime = boottime.tv_sec as f64 + boottime.tv_nsec as f64 / 1e9;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let started = now.as_secs_f64() - uptime + since_boot;
    // The clocks are read one after the other; whole ticks keep the value the same at every scrape.
    Some((started * USER_HZ).round() / USER_HZ)
}

/// Field 22 of `/proc/PID/stat`. Field 2 may hold blanks and parentheses, so count after the last `)`.
fn start_ticks(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(22 - 3)?.parse().ok()
}

/// A column of the `IpExt` pair of lines, one of names and one of numbers.
fn ip_octets(netstat: &str, column: &str) -> Option<f64> {
    let mut lines = netstat.lines().filter(|line| line.starts_with("IpExt:"));
    let names = lines.next()?.split_whitespace();
    let mut numbers = lines.next()?.split_whitespace();
    let index = names.into_iter().position(|name| name == column)?;
    numbers.nth(index)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::snapshot::Value;

    #[test]
    fn proc_files_are_read_by_field() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 123456 999 88";
        assert_eq!(start_ticks(stat), Some(123_456.0));
        assert_eq!(status_bytes("VmSize:\t  10 kB\nVmRSS:\t 4 kB\n", "VmRSS:"), Some(4096.0));
        let netstat = "TcpExt: X\nTcpExt: 1\nIpExt: A InOctets\nIpExt: 5 77\n";
        assert_eq!(ip_octets(netstat, "InOctets"), Some(77.0));
        assert_eq!(ip_octets(netstat, "OutOctets"), None);
    }

    #[test]
    fn this_process_is_plausible() {
        let mut snapshot = Snapshot::default();
        collect(&mut snapshot);
        let value = |name: &str| {
            let samples = snapshot.families().find(|s| s.family.name == name);
            match samples.and_then(|s| s.values.values().next()) {
                Some(Value::Number(number)) => *number,
                other => panic!("{name}: {other:?}"),
            }
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let started = value("process_start_time_seconds");
        assert!(started <= now + 1.0 && started > now - 3600.0, "{started}");
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_open_fds") < value("process_max_fds"));
        assert!(value("process_cpu_seconds_total") > 0.0);
    }
}
