//! `doorstep doctor`'s own flags.

use std::time::Duration;

use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};

use super::flags::local_ips;
use super::go::{self, SWITCH, parse_bool};
use super::{CliError, EXIT_CONFIG};
use crate::config::duration;
use crate::doctor::Options;

/// Longest time between the readings that anyone would wait for.
const LONGEST: Duration = Duration::from_secs(3600);

const STATUS: &str = "\
Status: 0 nothing found, or notes alone; 1 a warning; 2 something critical; 64 a wrong flag.

It changes nothing. Run it as root in the node's network and process namespaces; what it could
not look at it names.";

/// Say what is wrong with DNS on this node.
#[derive(Debug, Parser)]
#[command(
    name = "doorstep doctor",
    after_help = STATUS,
    override_usage = "doorstep doctor [FLAGS]",
    disable_help_flag = true,
    args_override_self = true,
    next_help_heading = "Flags"
)]
struct Flags {
    /// Print JSON
    #[arg(long = "json", value_name = SWITCH, default_value = "false", value_parser = parse_bool, action = ArgAction::Set)]
    json: bool,
    /// Time between the two readings of counters; 0 reads them once and compares nothing
    #[arg(long = "interval", value_name = "DURATION", default_value = "3s", value_parser = interval)]
    interval: Duration,
    /// Addresses of the cache; the running one's, or 169.254.20.10 and what rules name
    #[arg(long = "localip", value_name = "IP,...", default_value = "", hide_default_value = true)]
    local_ips: String,
    /// Name of its interface; the running one's, or nodelocaldns
    #[arg(long = "interfacename", value_name = "NAME")]
    interface: Option<String>,
    /// Its port; the running one's, or 53
    #[arg(long = "dns.port", alias = "p", value_name = "PORT")]
    dns_port: Option<u16>,
    /// Port of its health check; the running one's, or 8080
    #[arg(long = "health-port", value_name = "PORT")]
    health_port: Option<u16>,
}

/// Reads the flags before (`given`, normalised) and after the subcommand.
///
/// Status 2 means a critical finding here, so that what cannot be understood ends with 64.
pub fn parse(given: &[String], rest: &[String]) -> Result<Options, CliError> {
    let definition = Flags::command();
    let words: Vec<String> = given.iter().chain(rest).cloned().collect();
    let (words, stray) = go::normalise(&words, &go::known(&definition)).map_err(|error| match error {
        go::FlagError::Help => help(),
        error => wrong(error.to_string()),
    })?;
    if let Some(word) = stray.first() {
        return Err(wrong(format!("it does not take `{word}`; a switch takes its value after =")));
    }
    let words = std::iter::once("doctor").chain(words.iter().map(String::as_str));
    let flags = definition.try_get_matches_from(words).and_then(|matches| Flags::from_arg_matches(&matches));
    let flags = flags.map_err(|error| {
        let text = error.to_string();
        wrong(text.lines().next().unwrap_or_default().trim_start_matches("error: ").replace("'--", "'-"))
    })?;
    Ok(Options {
        json: flags.json,
        interval: flags.interval,
        local_ips: local_ips(&flags.local_ips)?,
        interface: flags.interface.filter(|name| !name.is_empty()),
        dns_port: flags.dns_port,
        health_port: flags.health_port,
    })
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().map(Duration::from_secs);
    let interval = seconds.map_or_else(|| duration::parse(text).map_err(|error| error.to_string()), Ok)?;
    if interval > LONGEST { Err("write at most 1h".to_owned()) } else { Ok(interval) }
}

fn wrong(message: String) -> CliError {
    let message = format!("doorstep doctor: {message}\n\n`doorstep doctor -help` lists its flags.");
    CliError { message, exit_code: EXIT_CONFIG }
}

fn help() -> CliError {
    let text = Flags::command().render_help().to_string();
    CliError { message: text.replace("      --", "  -"), exit_code: 0 }
}
