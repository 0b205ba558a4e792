//! Each control alone, so that none stands in for another. What a thread gives up is its own alone.

#![allow(unsafe_code, reason = "system calls that nothing safe makes")]

use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::Command;
use std::thread;

use rustix::thread::capabilities;

use super::*;

type Attempt = (&'static str, fn() -> io::Result<()>);

fn on_a_thread(test: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let thread = scope.spawn(test);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// The error of a system call with these arguments. None that is tried here could succeed and do harm.
fn call(number: libc::c_long, arguments: [usize; 5]) -> io::Result<()> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: no pointer that is passed is one to memory of this process.
    let result = unsafe { libc::syscall(number, a, b, c, d, e) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn socket(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> io::Result<()> {
    call(libc::SYS_socket, [family as usize, kind as usize, protocol as usize, 0, 0])
}

fn code(result: io::Result<()>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn no_capability_is_left() {
    on_a_thread(|| {
        let none = CapabilitySet::empty();
        capabilities::limit(none, none).unwrap();
        let left = rustix::thread::capabilities(None).unwrap();
        assert_eq!((left.effective, left.permitted, left.inheritable), (none, none, none));
        // Nothing to give up is no error.
        capabilities::limit(none, none).unwrap();
    });
}

#[test]
fn what_is_kept_is_what_was_there() {
    on_a_thread(|| {
        let before = capabilities(None).unwrap();
        keep_to_the_network();
        let after = capabilities(None).unwrap();
        let network = CapabilitySet::NET_ADMIN | CapabilitySet::NET_BIND_SERVICE | CapabilitySet::NET_RAW;
        assert_eq!(after.permitted, before.permitted & network);
        assert_eq!(after.effective, before.effective & network);
    });
}

#[test]
fn files_are_written_in_one_directory_and_executed_nowhere() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let write = |directory: &Path| {
        let beside = directory.join("beside");
        fs::write(&beside, "a longer text")?;
        fs::write(&beside, "text")?;
        fs::rename(&beside, directory.join("file"))
    };
    write(theirs.path()).unwrap();
    on_a_thread(|| {
        set_no_new_privs(true).unwrap();
        assert_eq!(files::restrict(Some(ours.path())).unwrap(), Extent::Whole);
        write(ours.path()).unwrap();
        let read = fs::read_to_string(theirs.path().join("file")).unwrap();
        assert_eq!(read, "text");
        assert_eq!(fs::read_dir(theirs.path()).unwrap().count(), 1);
        let denied = Some(libc::EACCES);
        assert_eq!(code(write(theirs.path())), denied);
        assert_eq!(code(fs::write(theirs.path().join("file"), "")), denied);
        assert_eq!(code(fs::remove_file(theirs.path().join("file"))), denied);
        assert_eq!(code(fs::rename(theirs.path().join("file"), ours.path().join("theirs"))), denied);
        assert_eq!(code(fs::create_dir(ours.path().join("directory"))), denied);
        assert_eq!(code(Command::new("/bin/true").status().map(drop)), denied);
        assert_eq!(code(TcpListener::bind("127.0.0.1:0").map(drop)), denied);
        UdpSocket::bind("127.0.0.1:0").unwrap();
    });
}

#[test]
fn a_directory_that_is_not_there_is_no_hindrance() {
    let elsewhere = tempfile::tempdir().unwrap();
    on_a_thread(|| {
        set_no_new_privs(true).unwrap();
        files::restrict(Some(Path::new("/nowhere/at/all"))).unwrap();
        assert_eq!(code(fs::write(elsewhere.path().join("file"), "")), Some(libc::EACCES));
    });
}

/// What anybody may do, or is told another reason why not.
const FORBIDDEN: &[Attempt] = &[
    ("fork", || Command::new("/bin/true").status().map(drop)),
    ("execve", || call(libc::SYS_execve, [0; 5])),
    ("ptrace", || call(libc::SYS_ptrace, [libc::PTRACE_PEEKDATA as usize, 0, 0, 0, 0])),
    ("kill", || call(libc::SYS_kill, [std::process::id() as usize, 0, 0, 0, 0])),
    ("a signal to a thread of another process", || call(libc::SYS_tgkill, [1, usize::MAX, 0, 0, 0])),
    ("a TCP listener", || TcpListener::bind("127.0.0.1:0").map(drop)),
    ("a UDP listener", || UdpSocket::bind("127.0.0.1:0").map(drop)),
    ("a netfilter socket", || socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER)),
    ("a unix socket", || socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)),
    ("a pair of unix sockets that could send to others", || UnixDatagram::pair().map(drop)),
    ("a socket for keys", || socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)),
    ("executable memory", || {
        let (access, how) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        call(libc::SYS_mmap, [0, 4096, access as usize, how as usize, usize::MAX])
    }),
    ("making memory executable", || call(libc::SYS_mprotect, [0, 4096, libc::PROT_EXEC as usize, 0, 0])),
    ("setting a limit", || call(libc::SYS_prlimit64, [0, libc::RLIMIT_NOFILE as usize, 1, 0, 0])),
];

#[test]
fn other_system_calls_are_refused() {
    let refused = Some(libc::EPERM);
    for (what, attempt) in FORBIDDEN {
        assert_ne!(code(attempt()), refused, "{what}: refused to everybody");
    }
    on_a_thread(|| {
        assert_eq!(system_calls::restrict().unwrap(), Extent::Whole);
        for (what, attempt) in FORBIDDEN {
            assert_eq!(code(attempt()), refused, "{what}");
        }
        // For glibc to take `clone` instead.
        assert_eq!(code(call(libc::SYS_clone3, [0; 5])), Some(libc::ENOSYS));
    });
}

#[test]
fn what_answering_takes_is_left() {
    let ours = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (tcp_to, udp_to) = (listener.local_addr().unwrap(), udp.local_addr().unwrap());
    on_a_thread(|| {
        let confinement = confine(Some(ours.path()));
        let failed = confinement.controls().find(|(_, extent)| matches!(extent, Extent::Failed(_)));
        assert_eq!(failed, None);
        fs::read_to_string("/proc/self/status").unwrap();
        fs::write(ours.path().join("file"), "text").unwrap();
        TcpStream::connect(tcp_to).unwrap();
        listener.accept().unwrap();
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
        socket.connect(&udp_to.into()).unwrap();
        socket.send(b"query").unwrap();
        assert_eq!(udp.recv(&mut [0; 16]).unwrap(), 5);
        UnixStream::pair().unwrap();
        rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        // A thread has it as bad.
        let spawned = thread::Builder::new().name("another".into()).spawn(|| UdpSocket::bind("127.0.0.1:0"));
        assert_eq!(code(spawned.unwrap().join().unwrap().map(drop)), Some(libc::EPERM));
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    });
}
