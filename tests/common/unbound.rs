//! Unbound as an upstream.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::client::PATIENCE;
use super::loopback;
use super::nsd::answers;
use super::server::wait;

/// A running Unbound that answers from local data.
pub struct Unbound {
    pub address: SocketAddr,
    child: Child,
    _directory: TempDir,
}

impl Unbound {
    /// Serves `records`, zone file lines, all below `origin`; `server` is added to its configuration.
    pub fn start(origin: &str, records: &[&str], server: &str) -> Unbound {
        let address = loopback::fresh_dns();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("unbound.conf");
        let data: String = records.iter().map(|record| format!(" local-data: '{record}'\n")).collect();
        let (ip, port, home) = (address.ip(), address.port(), directory.path().display());
        let configuration = format!(
            "server:\n interface: {ip}@{port}\n access-control: 127.0.0.0/8 allow\n username: \"\"\n \
             chroot: \"\"\n directory: \"{home}\"\n pidfile: \"\"\n use-syslog: no\n do-daemonize: no\n \
             num-threads: 1\n module-config: \"iterator\"\n do-not-query-localhost: no\n\
             {server} local-zone: {origin} static\n{data}\
             remote-control:\n control-enable: no\n"
        );
        std::fs::write(&file, configuration).unwrap();
        let child = Command::new("unbound")
            .args(["-d", "-c"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian package unbound");
        let unbound = Unbound { address, child, _directory: directory };
        assert!(wait(PATIENCE, || answers(address, origin)), "Unbound does not answer for {origin}");
        unbound
    }
}

impl Drop for Unbound {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
