//! With less than root, and with what is left of root.

#![allow(unsafe_code, reason = "system calls that nothing safe makes")]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::thread;

use doorstep::confinement::{Extent, confine};
use rustix::process::Signal;

use super::client::{PATIENCE, tcp, udp};
use super::loopback;
use super::message::ask;
use super::scripted::{Scripted, answer};
use super::server::{Doorstep, Setup, wait};

#[test]
fn without_net_admin_it_says_so_and_serves_what_is_there() {
    let upstream = Scripted::start(answer);
    let address = loopback::fresh_dns();
    let ip = address.ip();
    let mut server = Setup::new(ip, &super::block(".", ip, upstream.address, ""))
        .flag(format!("-localip={ip}"))
        .flag("-setupinterface=true")
        .flag("-setupiptables=true")
        .flag("-interfacename=doorstep-test")
        .inside("setpriv --bounding-set=-net_admin --inh-caps=-net_admin --")
        .start();
    server.wait_for_log("[WARNING] CAP_NET_ADMIN is missing: the link and the rules cannot be set up");
    assert_eq!(udp(address, &ask("a.test")).rcode(), 0);
    let errors = |kind| {
        super::metric(server.metrics(), "coredns_nodecache_setup_errors_total", Some(("errortype", kind)))
    };
    assert!(errors("interface_add") >= Some(1.0));
    assert!(errors("iptables") >= Some(1.0));
    assert!(server.is_running());
    ends_well(server);
}

#[test]
fn without_the_right_to_a_low_port_the_remedy_is_said() {
    let ip = loopback::fresh();
    let corefile = super::block(".:53", ip, (ip, 1).into(), "");
    let setup = Setup::new(ip, &corefile)
        .inside("unshare -n sh -c 'ip link set lo up; echo 1024 > /proc/sys/net/ipv4/ip_unprivileged_port_start; exec \"$@\"' sh setpriv --bounding-set=-net_bind_service --inh-caps=-net_bind_service --");
    let (code, _, stderr) = setup.run();
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("CAP_NET_BIND_SERVICE"), "{stderr}");
    assert!(stderr.contains("-dns.port"), "{stderr}");
}

const NET_BIND_SERVICE: u64 = 1 << 10;
const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
const SETPCAP: u64 = 1 << 8;

#[test]
fn no_thread_of_a_worker_may_anything() {
    let (server, _) = serving(Setup::new);
    for (thread, status) in threads(worker_of(&server)) {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(hexadecimal(&status, set), 0, "{thread}: {set}");
        }
        assert_eq!(status["NoNewPrivs"], "1", "{thread}");
        assert_eq!(status["Seccomp"], "2", "{thread}");
    }
    // One that answers, one that serves metrics.
    assert!(threads(worker_of(&server)).len() > 2);
    assert!(!server.log().contains("more rights than it needs"), "{}", server.log());
    ends_well(server);
}

/// What a confined thread asks the scheduler for, it gets (Linux 6.12; where the kernel shows it).
#[test]
fn threads_that_answer_have_short_slices() {
    let (server, _) = serving(Setup::new);
    let worker = worker_of(&server);
    let slices = fs::read_dir(format!("/proc/{worker}/task")).unwrap().flatten().filter_map(|task| {
        let text = fs::read_to_string(task.path().join("sched")).ok()?;
        let line = text.lines().find(|line| line.starts_with("se.slice"))?;
        line.rsplit_once(':')?.1.trim().parse::<u64>().ok()
    });
    let slices: Vec<u64> = slices.collect();
    let short = slices.iter().filter(|slice| **slice == 100_000).count();
    assert!(slices.is_empty() || short == 2, "{slices:?}");
    ends_well(server);
}

#[test]
fn a_guardian_keeps_what_link_rules_and_sockets_need() {
    let (server, _) = serving(Setup::new);
    let network = NET_BIND_SERVICE | NET_ADMIN | NET_RAW;
    for (thread, status) in threads(server.pid().as_raw_nonzero().get()) {
        assert_eq!(hexadecimal(&status, "CapPrm"), network, "{thread}");
        assert_eq!(hexadecimal(&status, "CapEff"), network, "{thread}");
        assert_eq!(hexadecimal(&status, "CapInh") & !network, 0, "{thread}");
        assert_eq!(hexadecimal(&status, "CapBnd"), network | SETPCAP, "{thread}");
    }
    ends_well(server);
}

/// What the container of deploy/node-local-dns.yaml has: nothing more could be given up there.
#[test]
fn with_the_manifests_privileges_a_worker_has_none() {
    let (server, _) = serving(|ip, corefile| {
        let kept = "-all,+net_admin,+net_bind_service";
        Setup::new(ip, corefile)
            .inside(&format!("setpriv --no-new-privs --inh-caps={kept} --bounding-set={kept} --"))
    });
    for (thread, status) in threads(worker_of(&server)) {
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(hexadecimal(&status, set), 0, "{thread}: {set}");
        }
        assert_eq!(status["Seccomp"], "2", "{thread}");
    }
    for (thread, status) in threads(server.pid().as_raw_nonzero().get()) {
        assert_eq!(hexadecimal(&status, "CapEff"), NET_ADMIN | NET_BIND_SERVICE, "{thread}");
    }
    assert!(!server.log().contains("more rights than it needs"), "{}", server.log());
    ends_well(server);
}

#[test]
fn an_ordinary_user_may_run_it() {
    // Who may not look into the build's directories runs a copy.
    let copy = tempfile::tempdir().unwrap();
    let program = copy.path().join("doorstep");
    fs::copy(super::server::BINARY, &program).unwrap();
    open_to_all(copy.path());
    let wrapper = format!(
        "setpriv --reuid=65534 --regid=65534 --clear-groups sh -c 'shift; exec {} \"$@\"' sh",
        program.display()
    );
    let (server, address) = serving(|ip, corefile| {
        let setup = Setup::new(ip, corefile).flag("-handover=").inside(&wrapper);
        open_to_all(setup.path("").as_path());
        setup
    });
    for (thread, status) in threads(worker_of(&server)) {
        assert_eq!(hexadecimal(&status, "CapPrm"), 0, "{thread}");
        assert_eq!(status["Seccomp"], "2", "{thread}");
    }
    assert_eq!(tcp(address, &ask("b.test")).rcode(), 0);
    assert!(!server.log().contains("more rights than it needs"), "{}", server.log());
    ends_well(server);
}

/// Read-only but for the hand-over directory, where the second process finds the first.
#[test]
fn with_a_read_only_root_it_reloads_and_hands_over() {
    let handover = tempfile::tempdir().unwrap();
    let flag = format!("-handover={}", handover.path().display());
    let read_only = format!(
        "unshare --mount --propagation private sh -c '\
         mount --bind {0} {0} && mount -o remount,ro,bind / && ! touch {0}/../probe && exec \"$@\"' sh",
        handover.path().display()
    );
    let (mut first, address) =
        serving(|ip, corefile| Setup::new(ip, corefile).flag(&flag).inside(&read_only));
    let corefile = fs::read_to_string(first.setup.corefile()).unwrap();
    first.rewrite(&corefile.replace("cache", "cache 60"));
    first.signal(Signal::USR1);
    first.wait_for_log_times("running configuration", 2);
    assert_eq!(udp(address, &ask("b.test")).rcode(), 0);
    let second = Setup::new(address.ip(), &corefile).flag(&flag).inside(&read_only).start();
    second.wait_for_log("taking over from doorstep");
    assert_eq!(first.exit(PATIENCE).code(), Some(0));
    assert_eq!(udp(address, &ask("c.test")).rcode(), 0);
    ends_well(second);
}

#[test]
fn with_nothing_to_write_to_it_serves() {
    let read_only = "unshare --mount --propagation private sh -c '\
                     mount -o remount,ro,bind / && ! touch probe && exec \"$@\"' sh";
    let (server, address) = serving(|ip, corefile| {
        let setup = Setup::bare(ip).flag("-handover=").inside(read_only);
        fs::write(setup.path("Corefile.base"), corefile).unwrap();
        setup
    });
    server.wait_for_log("cannot write the expanded Corefile");
    assert_eq!(tcp(address, &ask("b.test")).rcode(), 0);
    ends_well(server);
}

type Attempt = (&'static str, fn() -> io::Result<()>);

/// What root may do, or is told another reason why not.
const FORBIDDEN: &[Attempt] = &[
    ("another program", || Command::new("/bin/true").status().map(drop)),
    ("execve", || call(libc::SYS_execve, [0; 5])),
    ("ptrace", || call(libc::SYS_ptrace, [libc::PTRACE_PEEKDATA as usize, 0, 0, 0, 0])),
    ("mount", || call(libc::SYS_mount, [0, 0, 1, 0, 0])),
    ("unshare", || call(libc::SYS_unshare, [0; 5])),
    ("bpf", || call(libc::SYS_bpf, [usize::MAX, 0, 0, 0, 0])),
    ("a packet socket", || socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0)),
    ("a raw socket", || socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)),
    ("a netfilter socket", || socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER)),
    ("a listener", || TcpListener::bind("127.0.0.1:0").map(drop)),
    ("a file elsewhere", || {
        let file = std::env::temp_dir().join(format!("doorstep-{}", std::process::id()));
        fs::write(&file, "").and_then(|()| fs::remove_file(file))
    }),
    ("another's file", || fs::OpenOptions::new().append(true).open("/etc/hostname").map(drop)),
];

#[test]
fn what_is_forbidden_is_refused() {
    let refused = |error: &io::Error| matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES));
    for (what, attempt) in FORBIDDEN {
        assert!(!attempt().is_err_and(|error| refused(&error)), "{what}: refused to root");
    }
    thread::spawn(move || {
        let confinement = confine(None);
        for (name, extent) in confinement.controls() {
            assert_eq!(*extent, Extent::Whole, "{name}");
        }
        for (what, attempt) in FORBIDDEN {
            assert!(attempt().is_err_and(|error| refused(&error)), "{what}: not refused");
        }
    })
    .join()
    .unwrap();
}

/// The error of a system call with these arguments. None that is tried here could succeed and do harm.
fn call(number: libc::c_long, arguments: [usize; 5]) -> io::Result<()> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: no pointer that is passed is one to memory of this process.
    let result = unsafe { libc::syscall(number, a, b, c, d, e) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn socket(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> io::Result<()> {
    socket2::Socket::new(family.into(), kind.into(), Some(protocol.into())).map(drop)
}

/// A server that has answered, and where.
fn serving(setup: impl FnOnce(IpAddr, &str) -> Setup) -> (Doorstep, std::net::SocketAddr) {
    let upstream = Scripted::start(answer);
    let address = loopback::fresh_dns();
    let ip = address.ip();
    let server = setup(ip, &super::block(".", ip, upstream.address, "")).start();
    assert_eq!(udp(address, &ask("a.test")).rcode(), 0);
    // It answers for as long as the test runs.
    std::mem::forget(upstream);
    (server, address)
}

fn ends_well(mut server: Doorstep) {
    server.signal(Signal::TERM);
    assert_eq!(server.exit(PATIENCE).code(), Some(0));
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
}

/// The process whose parent is `server`.
#[track_caller]
pub fn worker_of(server: &Doorstep) -> i32 {
    let guardian = server.pid().as_raw_nonzero().to_string();
    let mut worker = None;
    wait(PATIENCE, || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let child = |pid: &i32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            fields(&status).get("PPid").is_some_and(|parent| *parent == guardian)
        };
        worker = numbers.into_iter().find(child);
        worker.is_some()
    });
    worker.expect("a worker")
}

/// Name and status of each thread of `process`.
fn threads(process: i32) -> Vec<(String, BTreeMap<String, String>)> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten();
    let status = |task: fs::DirEntry| {
        let status = fields(&fs::read_to_string(task.path().join("status")).ok()?);
        Some((status["Name"].clone(), status))
    };
    tasks.filter_map(status).collect()
}

fn fields(status: &str) -> BTreeMap<String, String> {
    let lines = status.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

fn hexadecimal(status: &BTreeMap<String, String>, name: &str) -> u64 {
    u64::from_str_radix(&status[name], 16).unwrap()
}
