//! The upstream of all: NSD with one zone.

use std::fmt::Write;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{Process, first_answer, free_address};
use crate::questions::{WARM, ZONE};

/// A running NSD.
pub struct Upstream {
    pub address: SocketAddr,
    pub process: Process,
    _directory: TempDir,
}

impl Upstream {
    /// Starts it, with records that live for `ttl` seconds.
    pub fn start(ttl: u32) -> io::Result<Upstream> {
        let address = free_address()?;
        let directory = tempfile::tempdir()?;
        let home = directory.path().display();
        fs::write(directory.path().join("zone"), zone(ttl))?;
        let (ip, port) = (address.ip(), address.port());
        let configuration = format!(
            "server:\n ip-address: {ip}\n port: {port}\n username: \"\"\n zonesdir: \"{home}\"\n \
             pidfile: \"{home}/pid\"\n xfrdfile: \"\"\n zonelistfile: \"{home}/list\"\n database: \"\"\n \
             server-count: 1\n tcp-count: 1000\n tcp-timeout: 600\n minimal-responses: yes\n \
             round-robin: no\n rrl-ratelimit: 0\n\
             remote-control:\n control-enable: no\nzone:\n name: {ZONE}\n zonefile: zone\n"
        );
        let file = directory.path().join("nsd.conf");
        fs::write(&file, configuration)?;
        let process = Process::start(Command::new("nsd").args(["-d", "-c"]).arg(file))?;
        match first_answer(address, &format!("h0.{ZONE}"), Duration::from_secs(10)) {
            Some(_) => Ok(Upstream { address, process, _directory: directory }),
            None => Err(io::Error::other("NSD does not answer")),
        }
    }
}

fn zone(ttl: u32) -> String {
    let mut text = format!(
        "$ORIGIN {ZONE}.\n$TTL {ttl}\n@ IN SOA ns.{ZONE}. hostmaster.{ZONE}. 1 7200 1800 86400 {ttl}\n\
         @ IN NS ns.{ZONE}.\nns IN A 127.0.0.1\n*.wild IN A 10.255.0.1\n"
    );
    // Writing to a String cannot fail.
    for host in 0..WARM {
        let (high, low) = (host / 256, host % 256);
        let _ = write!(text, "h{host} IN A 10.0.{high}.{low}\nh{host} IN AAAA fd00::{host:x}\n");
    }
    for (name, host) in (0..100).flat_map(|name| (0..24).map(move |host| (name, host))) {
        let _ = writeln!(text, "large{name} IN A 10.1.{name}.{host}");
    }
    text
}
