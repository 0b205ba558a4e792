//! NSD as an upstream that knows every record type.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::client::PATIENCE;
use super::loopback;
use super::message::ask;
use super::server::wait;

/// A running NSD with one zone.
pub struct Nsd {
    pub address: SocketAddr,
    child: Child,
    _directory: TempDir,
}

impl Nsd {
    /// Serves `text` as the zone `origin`.
    pub fn start(origin: &str, text: &str) -> Nsd {
        let address = loopback::fresh_dns();
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("zone"), text).unwrap();
        let home = directory.path().display();
        let (ip, port) = (address.ip(), address.port());
        let configuration = format!(
            "server:\n ip-address: {ip}\n port: {port}\n username: \"\"\n zonesdir: \"{home}\"\n \
             pidfile: \"{home}/pid\"\n xfrdfile: \"\"\n zonelistfile: \"{home}/list\"\n database: \"\"\n \
             server-count: 1\n minimal-responses: yes\n round-robin: no\n\
             remote-control:\n control-enable: no\n\
             zone:\n name: {origin}\n zonefile: zone\n provide-xfr: 127.0.0.0/8 NOKEY\n"
        );
        std::fs::write(path("nsd.conf"), configuration).unwrap();
        let child = Command::new("nsd")
            .args(["-d", "-c"])
            .arg(path("nsd.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian package nsd");
        let nsd = Nsd { address, child, _directory: directory };
        assert!(wait(PATIENCE, || answers(address, origin)), "NSD does not answer for {origin}");
        nsd
    }
}

/// Whether somebody gives an answer for `name`.
pub fn answers(server: SocketAddr, name: &str) -> bool {
    let client = super::client::Udp::to(server);
    client.0.set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
    let mut answer = [0; 512];
    // Before it listens the kernel refuses.
    client.0.send(&ask(name).qtype(6).build()).is_ok()
        && client.0.recv(&mut answer).is_ok_and(|length| length > 12 && answer[3] & 15 == 0)
}

impl Drop for Nsd {
    fn drop(&mut self) {
        // NSD's parent takes its children along only when it is asked to end.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}
