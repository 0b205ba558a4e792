//! The flags as they are written, and what they are worth.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser};

use super::go::{SWITCH, parse_bool};
use super::{Args, CliError, KUBE_DNS_DIRECTORY};
use crate::config::{duration, listen_addresses};
use crate::node::Backend;

/// node-cache's `-syncinterval` as it is meant.
const SYNC_INTERVAL: Duration = Duration::from_secs(60);

/// Octets of an interface's name at most: `IFNAMSIZ` without its end.
const INTERFACE_NAME: usize = 15;

const SUBCOMMANDS: &str = "\
Subcommands:
  check [COREFILE]   Say what a configuration means, or list its mistakes
  doctor             Say what is wrong with DNS on this node; `doctor -help` for its flags
  teardown           Remove the interface and the rules, then exit
  remedy NAME        Keep a cure for another kind of node in place, until SIGTERM
  demo               Race look-ups without and with it, in network namespaces

Flags take one dash or two, and their value after a blank or =. Switches only after =:
-setupiptables=false.";

/// A node-local DNS cache for Kubernetes; takes the flags of node-cache.
#[derive(Debug, Parser)]
#[command(
    name = "doorstep",
    after_help = SUBCOMMANDS,
    override_usage = "doorstep [FLAGS] [SUBCOMMAND]",
    disable_help_flag = true,
    args_override_self = true,
    next_help_heading = "Flags"
)]
pub struct Flags {
    /// Addresses to serve on, separated by commas, IPv4 and IPv6
    #[arg(long = "localip", value_name = "IP,...", default_value = "", hide_default_value = true)]
    local_ips: String,
    /// Create the interface and keep the addresses on it
    #[arg(long = "setupinterface", value_name = SWITCH, default_value = "true", value_parser = parse_bool, action = ArgAction::Set)]
    pub setup_interface: bool,
    /// Name of the interface, 15 octets at most
    #[arg(long = "interfacename", value_name = "NAME", default_value = "nodelocaldns")]
    interface: String,
    /// Keep connection tracking away from the cache
    #[arg(long = "setupiptables", value_name = SWITCH, default_value = "true", value_parser = parse_bool, action = ArgAction::Set)]
    pub setup_rules: bool,
    /// What carries the rules: auto, nftables or iptables
    #[arg(long = "rules-backend", value_name = "BACKEND", default_value = "auto", value_parser = backend)]
    backend: RulesBackend,
    /// How often interface and rules are compared and repaired
    #[arg(long = "syncinterval", value_name = "DURATION", default_value = "60s", value_parser = sync_interval)]
    sync_interval: SyncInterval,
    /// Leave interface and rules in place on exit
    #[arg(long = "skipteardown", value_name = SWITCH, default_value = "false", value_parser = parse_bool, action = ArgAction::Set)]
    skip_teardown: bool,
    /// The Corefile; with a template, where its expansion is written
    #[arg(long = "conf", value_name = "FILE")]
    conf: Option<String>,
    /// The template, watched for changes
    #[arg(long = "basecorefile", value_name = "FILE", default_value = "/etc/coredns/Corefile.base")]
    base_corefile: String,
    /// Where the kube-dns ConfigMap is mounted
    #[arg(long = "kubednscm", value_name = "DIR", default_value = "", hide_default_value = true)]
    kube_dns: String,
    /// Service that names the cluster's DNS servers
    #[arg(long = "upstreamsvc", value_name = "SERVICE", default_value = "kube-dns")]
    upstream_service: String,
    /// Port of server blocks that name none, and of the rules
    #[arg(long = "dns.port", alias = "p", value_name = "PORT", default_value_t = 53)]
    dns_port: u16,
    /// Port of the health check, for the rules; the Corefile's unless given
    #[arg(long = "health-port", value_name = "PORT")]
    health_port: Option<u16>,
    /// Where the process's own metrics are served; empty: nowhere
    #[arg(long = "metrics-listen-address", value_name = "ADDRESS", default_value = "0.0.0.0:9353", value_parser = listen)]
    metrics_addresses: Listen,
    /// What __PROMETHEUS__ENDPOINT__ in the template becomes
    #[arg(long = "prometheus-listen-address", value_name = "ADDRESS", default_value = ":9253")]
    prometheus: String,
    /// Written once the sockets are open
    #[arg(long = "pidfile", value_name = "FILE")]
    pid_file: Option<String>,
    /// Where a new version finds the one it takes over from; empty: nowhere
    #[arg(long = "handover", value_name = "DIR", default_value = "/run/doorstep")]
    handover: String,
    /// Accepted; changes are taken up without a signal
    #[arg(long = "reloadwithsignal", value_name = SWITCH, default_value = "false", value_parser = parse_bool, action = ArgAction::Set)]
    reload_with_signal: bool,
    /// Accepted without effect, as in node-cache; use -conf
    #[arg(long = "corefile", value_name = "FILE")]
    corefile: Option<String>,
    /// Print no banner
    #[arg(long = "quiet", value_name = SWITCH, default_value = "false", value_parser = parse_bool, action = ArgAction::Set)]
    quiet: bool,
    /// List the directives that are served
    #[arg(long = "plugins", value_name = SWITCH, default_value = "false", value_parser = parse_bool, action = ArgAction::Set)]
    pub plugins: bool,
    /// Print the version
    #[arg(long = "version", value_name = SWITCH, default_value = "false", value_parser = parse_bool, action = ArgAction::Set)]
    pub version: bool,
}

/// Wrappers keep clap from reading meaning into `Option` and `Vec`.
#[derive(Debug, Clone)]
pub struct RulesBackend(pub Option<Backend>);

#[derive(Debug, Clone)]
struct Listen(Vec<SocketAddr>);

#[derive(Debug, Clone)]
struct SyncInterval {
    interval: Duration,
    warning: Option<String>,
}

impl Flags {
    /// Checks what the flags' values mean together.
    pub fn into_args(self) -> Result<Args, CliError> {
        let mut warnings = Vec::from_iter(self.sync_interval.warning);
        if self.corefile.is_some() {
            warnings.push("-corefile has no effect, as in node-cache; use -conf".to_owned());
        }
        if self.setup_interface && !is_interface_name(&self.interface) {
            return Err(CliError::usage(format!(
                "invalid value '{}' for '-interfacename <NAME>': an interface's name has at most 15 octets, and no \
                 blank, '/', ':' or '%'; write a shorter one, such as the default nodelocaldns",
                self.interface
            )));
        }
        // Go cannot tell an empty value from none.
        let path = |text: Option<String>| text.filter(|text| !text.is_empty()).map(PathBuf::from);
        Ok(Args {
            local_ips: local_ips(&self.local_ips)?,
            setup_interface: self.setup_interface,
            interface: self.interface,
            sync_interval: self.sync_interval.interval,
            metrics_addresses: self.metrics_addresses.0,
            setup_rules: self.setup_rules,
            rules_backend: self.backend.0,
            base_corefile: self.base_corefile.into(),
            conf: path(self.conf),
            kube_dns: path(Some(self.kube_dns)).unwrap_or(KUBE_DNS_DIRECTORY.into()),
            upstream_service: self.upstream_service,
            health_port: self.health_port,
            skip_teardown: self.skip_teardown,
            reload_with_signal: self.reload_with_signal,
            pid_file: path(self.pid_file),
            handover: path(Some(self.handover)),
            dns_port: self.dns_port,
            quiet: self.quiet,
            prometheus: self.prometheus,
            warnings,
        })
    }
}

/// node-cache ends on a piece that is no address, blanks and empty pieces included.
pub fn local_ips(text: &str) -> Result<Vec<IpAddr>, CliError> {
    let mut found = Vec::new();
    if text.is_empty() {
        return Ok(found);
    }
    for piece in text.split(',') {
        let Ok(ip) = piece.parse() else {
            let hint = match piece.trim() {
                "" => "there is nothing between two commas or after the last one; remove the comma",
                trimmed if trimmed != piece => "write the list without blanks",
                trimmed if trimmed.starts_with("__PILLAR__") => "the manifest's placeholder was not replaced",
                _ => "write addresses such as 169.254.20.10 separated by commas",
            };
            return Err(CliError::config(format!("invalid localip specified - {piece:?}: {hint}")));
        };
        if !found.contains(&ip) {
            found.push(ip);
        }
    }
    Ok(found)
}

/// Whether the kernel makes an interface of this name (`dev_valid_name`). A `%` it would take for a pattern.
fn is_interface_name(name: &str) -> bool {
    let refused = |octet: u8| octet.is_ascii_whitespace() || octet == 0x0b || b"/:%".contains(&octet);
    (1..=INTERFACE_NAME).contains(&name.len()) && ![".", ".."].contains(&name) && !name.bytes().any(refused)
}

pub fn backend(text: &str) -> Result<RulesBackend, String> {
    Ok(RulesBackend(match text {
        "auto" => None,
        "nftables" => Some(Backend::Nftables),
        "iptables" => Some(Backend::Iptables),
        _ => return Err("write auto, nftables or iptables".to_owned()),
    }))
}

/// Empty, node-cache listens on a port of the kernel's choice, which nobody can know.
fn listen(text: &str) -> Result<Listen, String> {
    if text.is_empty() {
        return Ok(Listen(Vec::new()));
    }
    let found = listen_addresses(text).map(Listen);
    found.ok_or_else(|| "write IP:PORT, [IPV6]:PORT or :PORT".to_owned())
}

/// node-cache multiplies a duration by 1e9, so that only `1ns` means what its users want: a second.
/// Those spellings and bare seconds are kept; everything else is the duration it says.
fn sync_interval(text: &str) -> Result<SyncInterval, String> {
    let seconds = |digits: &str| {
        let count = digits.parse().ok().filter(|count| (1..1000).contains(count));
        count.map(Duration::from_secs)
    };
    let odd = match text.strip_suffix("ns") {
        Some(digits) => seconds(digits),
        None => seconds(text),
    };
    if let Some(interval) = odd {
        let shown = duration::show(interval);
        return Ok(SyncInterval {
            interval,
            warning: Some(format!("-syncinterval {text} is taken as {shown}; write {shown}")),
        });
    }
    let interval = duration::parse(text).map_err(|error| error.to_string())?;
    if interval < Duration::from_secs(1) {
        let default = duration::show(SYNC_INTERVAL);
        return Err(format!("write at least 1s; the default is {default}"));
    }
    Ok(SyncInterval { interval, warning: None })
}
