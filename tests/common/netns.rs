//! Throwaway network namespaces and the tools to look into them.
//!
//! Root is needed; without it everything here panics and so fails the test.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Runs `test` on a thread with a network namespace of its own in which `lo` is up. Threads and
/// programs that it starts are in there too; the namespace ends with the last of them.
pub fn isolated<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare_network();
            run("ip link set lo up");
            test()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A network namespace with `lo` up, and a thread in it that does what it is told.
pub struct Namespace {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Namespace {
    pub fn start() -> Namespace {
        let (jobs, waiting) = channel::<Job>();
        let thread = std::thread::spawn(|| {
            unshare_network();
            run("ip link set lo up");
            waiting.into_iter().for_each(|job| job());
        });
        Namespace { jobs: Some(jobs), thread: Some(thread) }
    }

    /// Runs `job` in the namespace. Threads and programs that it starts are in there too.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (result, outcome) = channel();
        let job = move || drop(result.send(job()));
        self.jobs.as_ref().unwrap().send(Box::new(job)).expect("a thread in the namespace");
        outcome.recv().expect("the job ends without a panic")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.jobs.take());
        // Whoever waited for its job has seen the panic.
        let _ = self.thread.take().unwrap().join();
    }
}

#[allow(unsafe_code)]
fn unshare_network() {
    // SAFETY: NEWNET changes nothing that memory safety rests on; the descriptor table stays shared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
        .expect("a network namespace of one's own: these tests must run as root");
}

/// A path that names the calling thread's namespace, for `ip link set … netns`.
pub fn own_path() -> String {
    let process = std::process::id();
    let thread = rustix::thread::gettid().as_raw_nonzero();
    format!("/proc/{process}/task/{thread}/ns/net")
}

/// Runs a shell command and returns its standard output; panics unless it exits with 0.
pub fn run(command: &str) -> String {
    let (success, stdout, stderr) = attempt(command);
    assert!(success, "{command}: {stderr}");
    stdout
}

/// Runs a shell command; returns whether it exits with 0, its standard output and error.
pub fn attempt(command: &str) -> (bool, String, String) {
    let output = Command::new("sh").args(["-c", command]).stdin(Stdio::null()).output().expect("sh");
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// Sends a datagram from an ephemeral port to a socket bound to `address` and back. Both sockets
/// are in the calling thread's namespace.
pub fn echo(address: IpAddr, port: u16) -> std::io::Result<()> {
    let server = UdpSocket::bind((address, port))?;
    let client = UdpSocket::bind(SocketAddr::new(unspecified(address), 0))?;
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    }
    let mut buffer = [0; 16];
    client.send_to(b"query", (address, port))?;
    let (_, peer) = server.recv_from(&mut buffer)?;
    server.send_to(b"answer", peer)?;
    let (length, _) = client.recv_from(&mut buffer)?;
    assert_eq!(&buffer[..length], b"answer");
    Ok(())
}

/// `0.0.0.0` or `::`, as `address` is.
pub fn unspecified(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::from([0; 4]),
        IpAddr::V6(_) => IpAddr::from([0; 16]),
    }
}

/// Waits until `holds`, for what the kernel does a moment after the call that asked for it. Panics
/// after 10 s.
pub fn eventually(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "it did not come true within 10 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}
