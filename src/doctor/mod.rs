//! `doorstep doctor`: what is wrong with DNS on this node, from what the node shows.
//!
//! Facts are gathered once, counters twice a few seconds apart; pure checks turn them into findings.
//! Nothing on the node is changed.

pub mod checks;
pub mod facts;
pub mod gather;
mod render;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use checks::{Finding, Severity};
use facts::Facts;
use gather::Machine;

pub use render::{json, text};

/// What the command line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Print JSON instead of text.
    pub json: bool,
    /// Time between the two readings of what counts up; zero: one reading, and no finding about growth.
    pub interval: Duration,
    /// Addresses that the cache serves, or should; none: found out.
    pub local_ips: Vec<IpAddr>,
    /// The link's name; `None`: found out.
    pub interface: Option<String>,
    /// The port of DNS; `None`: found out.
    pub dns_port: Option<u16>,
    /// The port of the health check; `None`: found out.
    pub health_port: Option<u16>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            json: false,
            interval: Duration::from_secs(3),
            local_ips: Vec::new(),
            interface: None,
            dns_port: None,
            health_port: None,
        }
    }
}

/// Examines this machine. Returns what was found, to be printed, and the exit status.
pub fn run(options: &Options) -> (String, i32) {
    let machine = Machine { root: PathBuf::from("/") };
    let pause = || std::thread::sleep(options.interval);
    let pause: Option<&dyn Fn()> = if options.interval.is_zero() { None } else { Some(&pause) };
    let facts = gather::gather(&machine, options, pause);
    let findings = diagnose(&facts);
    let found = if options.json { format!("{}\n", json(&facts, &findings)) } else { text(&facts, &findings) };
    (found, exit_status(&findings))
}

/// Runs every check; the gravest findings first, otherwise in the order of the checks.
pub fn diagnose(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = checks::all().filter_map(|check| check.run(facts)).collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

/// 2 with a critical finding, 1 with a warning, else 0.
pub fn exit_status(findings: &[Finding]) -> i32 {
    match findings.iter().map(|finding| finding.severity).max() {
        Some(Severity::Critical) => 2,
        Some(Severity::Warning) => 1,
        Some(Severity::Note) | None => 0,
    }
}
