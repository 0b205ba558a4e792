//! The command line: node-cache's flags in Go's spelling, and a few subcommands.

#[cfg(feature = "demo")]
mod demo;
mod doctor;
mod flags;
mod go;
mod remedy;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches};

use crate::config::nearest::nearest;
use crate::config::{Config, Options};
use crate::node;
#[cfg(feature = "demo")]
pub use demo::Demo;

/// Exit status for flags that cannot be understood, as Go's `flag` package has it.
pub const EXIT_USAGE: i32 = 2;
/// Exit status for a configuration that cannot be used (EX_USAGE of sysexits.h).
pub const EXIT_CONFIG: i32 = 64;

/// Where node-cache looks for the kube-dns ConfigMap without `-kubednscm`.
const KUBE_DNS_DIRECTORY: &str = "/etc/kube-dns";
/// What CoreDNS reads without `-conf`.
const DEFAULT_COREFILE: &str = "Corefile";
/// node-cache's `-health-port`.
const HEALTH_PORT: u16 = 8080;

/// The subcommand of worker processes, for Doorstep's own use.
pub const WORKER: &str = "worker";

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Serve; no subcommand.
    Serve(Args),
    /// `worker`: serve for the guardian that started this process.
    Worker(Args),
    /// `check [COREFILE]`: say what a configuration means, change nothing.
    Check {
        /// The flags.
        args: Args,
        /// The file, taken as a template if it holds template tokens; `None`: whatever
        /// [`Command::Serve`] would read.
        corefile: Option<PathBuf>,
    },
    /// `teardown`: remove link and rules.
    Teardown(Args),
    /// `doctor`: say what is wrong with the node, change nothing.
    Doctor(crate::doctor::Options),
    /// `remedy NAME`: a cure for another kind of node, until a signal.
    Remedy(node::remedy::Order),
    /// `demo`: the race laboratory.
    #[cfg(feature = "demo")]
    Demo(Demo),
    /// `-version`.
    Version,
    /// `-plugins`: list the directives that are served.
    Plugins,
}

/// The flags, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Args {
    /// `-localip`, both families, without repetitions.
    pub local_ips: Vec<IpAddr>,
    /// `-setupinterface`.
    pub setup_interface: bool,
    /// `-interfacename`.
    pub interface: String,
    /// `-syncinterval`.
    pub sync_interval: Duration,
    /// `-metrics-listen-address`.
    pub metrics_addresses: Vec<SocketAddr>,
    /// `-setupiptables`.
    pub setup_rules: bool,
    /// `-rules-backend`; `None`: chosen from what the host shows.
    pub rules_backend: Option<node::Backend>,
    /// `-basecorefile`.
    pub base_corefile: PathBuf,
    /// `-conf`. Only if it was given is the expanded template to be written to it.
    pub conf: Option<PathBuf>,
    /// `-kubednscm`.
    pub kube_dns: PathBuf,
    /// `-upstreamsvc`.
    pub upstream_service: String,
    /// `-health-port`, if it was given.
    pub health_port: Option<u16>,
    /// `-skipteardown`.
    pub skip_teardown: bool,
    /// `-reloadwithsignal`: accepted, changes are taken up without a signal.
    pub reload_with_signal: bool,
    /// `-pidfile`.
    pub pid_file: Option<PathBuf>,
    /// `-handover`; `None`: off.
    pub handover: Option<PathBuf>,
    /// `-dns.port`.
    pub dns_port: u16,
    /// `-quiet`.
    pub quiet: bool,
    /// `-prometheus-listen-address`.
    pub prometheus: String,
    /// Things to log as warnings once logging works.
    pub warnings: Vec<String>,
}

/// Why the process ends before it began; with exit code 0 the message is the help asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CliError {
    /// What to print: to standard output with exit code 0, else to standard error.
    pub message: String,
    /// 0, [`EXIT_USAGE`] or [`EXIT_CONFIG`].
    pub exit_code: i32,
}

impl CliError {
    fn usage(message: impl Into<String>) -> CliError {
        let message = message.into();
        CliError {
            message: format!(
                "doorstep: {message}\n\nUsage: doorstep [FLAGS] [SUBCOMMAND]\n`doorstep -help` lists them all."
            ),
            exit_code: EXIT_USAGE,
        }
    }

    fn config(message: impl Into<String>) -> CliError {
        CliError { message: format!("doorstep: {}", message.into()), exit_code: EXIT_CONFIG }
    }
}

/// Prints to standard output. Whoever has seen enough (`| head`) may close it, and a full disk is told on
/// standard error: neither changes what the program found, nor its exit status.
pub fn print(text: impl Display) {
    let mut output = std::io::stdout();
    match write!(output, "{text}").and_then(|()| output.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            complain(format_args!("doorstep: standard output: {error}"));
        }
        _ => {}
    }
}

/// Prints a line to standard error, which may be closed as well.
pub fn complain(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Reads a whole command line, the program's name first.
pub fn parse(argv: impl IntoIterator<Item = OsString>) -> Result<Command, CliError> {
    let words = argv.into_iter().skip(1).map(utf8);
    let words = words.collect::<Result<Vec<String>, CliError>>()?;
    let definition = flags::Flags::command();
    let known = go::known(&definition);
    let (mut given, rest) = split(&words, &known)?;
    let Some((first, rest)) = rest.split_first() else {
        return serve(&given);
    };
    match first.as_str() {
        WORKER => serve(&split(rest, &known)?.0).map(|command| match command {
            Command::Serve(args) => Command::Worker(args),
            other => other,
        }),
        "check" | "teardown" => {
            let (more, positional) = split(rest, &known)?;
            given.extend(more);
            subcommand(first, &given, positional)
        }
        "doctor" => doctor::parse(&given, rest).map(Command::Doctor),
        "remedy" => remedy::parse(rest).map(Command::Remedy),
        #[cfg(feature = "demo")]
        "demo" => demo::parse(rest).map(Command::Demo),
        "help" => Err(help()),
        "version" => Ok(Command::Version),
        word => Err(stray(word, &given)),
    }
}

fn utf8(word: OsString) -> Result<String, CliError> {
    word.into_string().map_err(|word| CliError::usage(format!("not UTF-8: {}", word.display())))
}

fn split<'a>(words: &'a [String], known: &[go::Flag]) -> Result<(Vec<String>, &'a [String]), CliError> {
    go::normalise(words, known).map_err(|error| match error {
        go::FlagError::Help => help(),
        go::FlagError::Unknown(name) => CliError::usage(unknown(&name, known)),
        error => CliError::usage(error.to_string()),
    })
}

fn serve(given: &[String]) -> Result<Command, CliError> {
    let flags = read(given)?;
    if flags.version {
        return Ok(Command::Version);
    }
    if flags.plugins {
        return Ok(Command::Plugins);
    }
    let needs_address = flags.setup_interface || flags.setup_rules;
    let args = flags.into_args()?;
    if args.local_ips.is_empty() && needs_address {
        return Err(CliError::config(
            "-localip names no address; give the ones to serve on, for instance \
             -localip 169.254.20.10, or turn off -setupinterface and -setupiptables",
        ));
    }
    Ok(Command::Serve(args))
}

fn subcommand(name: &str, given: &[String], positional: &[String]) -> Result<Command, CliError> {
    let args = read(given)?.into_args()?;
    match (name, positional) {
        ("check", []) => Ok(Command::Check { args, corefile: None }),
        ("check", [corefile]) => Ok(Command::Check { args, corefile: Some(corefile.into()) }),
        ("teardown", []) => Ok(Command::Teardown(args)),
        (_, [.., word]) => Err(CliError::usage(format!("{name} does not take `{word}`"))),
        (_, []) => Err(CliError::usage(format!("no subcommand `{name}`"))),
    }
}

fn read(given: &[String]) -> Result<flags::Flags, CliError> {
    let words = std::iter::once("doorstep").chain(given.iter().map(String::as_str));
    let matches = flags::Flags::command().try_get_matches_from(words);
    matches
        .and_then(|matches| flags::Flags::from_arg_matches(&matches))
        .map_err(|error| CliError::usage(first_line(&error)))
}

/// What clap says, with flags in Go's spelling.
fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.trim_start_matches("error: ").replace("'--", "'-")
}

/// Go's `flag` package takes `-x false` for `-x` and a word.
fn stray(word: &str, given: &[String]) -> CliError {
    if go::parse_bool(word).is_ok()
        && let Some(flag) = given.last().and_then(|last| last.strip_suffix("=true"))
    {
        let flag = flag.trim_start_matches('-');
        return CliError::usage(format!(
            "unexpected `{word}`: a switch takes its value after =, write -{flag}={word}"
        ));
    }
    CliError::usage(format!(
        "unexpected `{word}`: there is no such subcommand and no other argument is taken"
    ))
}

fn unknown(name: &str, known: &[go::Flag]) -> String {
    let hint = match nearest(name, known.iter().map(|flag| flag.name.as_str())) {
        _ if name == "setupebtables" => "; node-cache dropped it long ago, remove it".to_owned(),
        Some(meant) => format!("; did you mean -{meant}?"),
        None => String::new(),
    };
    format!("flag provided but not defined: -{name}{hint}")
}

fn help() -> CliError {
    let text = flags::Flags::command().render_help().to_string();
    CliError {
        // One dash is how every deployment writes them; two work as well.
        message: text.replace("      --", "  -"),
        exit_code: 0,
    }
}

impl Args {
    /// What [`config::load`](crate::config::load) is to read.
    pub fn options(&self) -> Options {
        Options {
            corefile: self.conf.clone().unwrap_or(DEFAULT_COREFILE.into()),
            base: Some(self.base_corefile.clone()),
            kube_dns: Some(self.kube_dns.clone()),
            local_ips: self.local_ips.clone(),
            upstream_service: self.upstream_service.clone(),
            dns_port: self.dns_port,
            prometheus: self.prometheus.clone(),
            allow_builtin: true,
            tolerate_bad_kube_dns: false,
        }
    }

    /// The same for `check FILE`: only that file, template tokens replaced.
    pub fn options_for_check(&self, file: PathBuf) -> Options {
        Options { corefile: file.clone(), base: Some(file), allow_builtin: false, ..self.options() }
    }

    /// What the node must look like, but for the port of a `health` in the Corefile.
    pub fn node(&self) -> node::Config {
        node::Config {
            local_ips: self.local_ips.clone(),
            interface: self.interface.clone(),
            setup_interface: self.setup_interface,
            setup_rules: self.setup_rules,
            backend: self.rules_backend,
            sync_interval: self.sync_interval,
            dns_port: self.dns_port,
            health_port: self.health_port.unwrap_or(HEALTH_PORT),
        }
    }

    /// Where flags and Corefile contradict each other, one line each.
    pub fn lint(&self, config: &Config) -> Vec<String> {
        let mut lines = Vec::new();
        if let (Some(flag), Some(corefile)) = (self.health_port, config.health_port)
            && flag != corefile
        {
            lines.push(format!(
                "-health-port {flag} is not the Corefile's `health` port {corefile}: \
                 the rules are for {flag}"
            ));
        }
        let listens: Vec<&SocketAddr> = config
            .server
            .blocks
            .iter()
            .flat_map(|block| &block.zones)
            .flat_map(|(_, addresses)| addresses)
            .collect();
        for ip in &self.local_ips {
            let serves = |address: &&&SocketAddr| {
                let wild = address.ip().is_unspecified() && address.is_ipv4() == ip.is_ipv4();
                address.port() == self.dns_port && (wild || address.ip() == *ip)
            };
            if !listens.iter().any(|address| serves(&address)) {
                let port = self.dns_port;
                lines.push(format!("-localip {ip} is served by no block on port {port}"));
            }
        }
        lines
    }
}
