//! A server as a process tree: started, watched, ended.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};
use rustix::process::{Pid, Signal, kill_process};

use crate::questions::{A, message};

/// A child and its children. Dropping it ends them.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `command` without input and output, its program read from the disk.
    pub fn start(command: &mut Command) -> io::Result<Process> {
        // One that is not a path, or that we may not open, is as it is.
        let _ = drop_from_page_cache(command.get_program().as_ref());
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Process { child: quiet.spawn()? })
    }

    /// CPU time of all threads of all its processes so far.
    pub fn cpu(&self) -> Duration {
        let mut nanoseconds = 0;
        for pid in self.tree() {
            let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
            for task in tasks.flatten() {
                let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
                nanoseconds += first_number(&text);
            }
        }
        Duration::from_nanos(nanoseconds)
    }

    /// Memory of all its processes, a page that others map, too, counted in part; KiB.
    pub fn pss(&self) -> u64 {
        let pss = |pid| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            text.lines().find_map(|line| line.strip_prefix("Pss:")).map_or(0, first_number)
        };
        self.tree().into_iter().map(pss).sum()
    }

    /// Stops it where it stands; its sockets stay open, and nobody reads them.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// The child and all below it.
    fn tree(&self) -> Vec<u32> {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // After the program's name, which may hold anything: state, parent.
            let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
            if let Some(parent) = parent.and_then(|parent| parent.parse().ok()) {
                children.entry(parent).or_default().push(pid);
            }
        }
        let mut tree = vec![self.child.id()];
        let mut at = 0;
        while let Some(pid) = tree.get(at) {
            tree.extend(children.remove(pid).unwrap_or_default());
            at += 1;
        }
        tree
    }

    fn signal(&self, signal: Signal) {
        for pid in self.tree() {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, signal);
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
        self.signal(Signal::TERM);
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            sleep(Duration::from_millis(10));
        }
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Has the file's pages read anew. A file that was just written, as by a linker, is in the page cache in pieces of
/// up to 2 MiB, and since 6.16 Linux maps such a piece whole at the first touch: the program would seem to need half as
/// much memory again as it does on a node, which reads it from its disk.
fn drop_from_page_cache(file: &Path) -> io::Result<()> {
    let file = fs::File::open(file)?;
    file.sync_all()?;
    fadvise(&file, 0, None, Advice::DontNeed)?;
    Ok(())
}

fn first_number(text: &str) -> u64 {
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// A loopback address that was free a moment ago, for UDP and TCP.
pub fn free_address() -> io::Result<SocketAddr> {
    loop {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = tcp.local_addr()?;
        if UdpSocket::bind(address).is_ok() {
            return Ok(address);
        }
    }
}

/// Asks for `name` every 2 ms until there is an answer with data, and returns how long that took.
pub fn first_answer(server: SocketAddr, name: &str, patience: Duration) -> Option<Duration> {
    let start = Instant::now();
    let question = message(name, A, false);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
    socket.connect(server).ok()?;
    socket.set_nonblocking(true).ok()?;
    let mut asked = None::<Instant>;
    while start.elapsed() < patience {
        if asked.is_none_or(|asked| asked.elapsed() > Duration::from_millis(2)) {
            asked = Some(Instant::now());
            // Before the server listens the kernel refuses.
            let _ = socket.send(&question);
        }
        let mut reply = [0; 512];
        if let Ok(len) = socket.recv(&mut reply)
            && len >= question.len()
            && reply[3] & 15 == 0
        {
            return Some(start.elapsed());
        }
        sleep(Duration::from_micros(100));
    }
    None
}
