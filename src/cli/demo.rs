//! The words after `demo`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::Parser;

use super::{CliError, EXIT_USAGE};
use crate::demo::Options;
use crate::demo::race::Standalone;

const DNS_PORT: u16 = 53;

/// What `demo` is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Demo {
    /// The laboratory.
    Lab {
        /// Keep the cluster afterwards.
        hold: bool,
        /// Report in JSON.
        json: bool,
        /// Pairs of queries in each setting.
        pairs: u64,
        /// The same straight to kube-dns.
        direct_pairs: Option<u64>,
    },
    /// `demo race`: pairs between namespaces that somebody else made.
    Race {
        /// Which.
        race: Standalone,
        /// Report in JSON.
        json: bool,
    },
}

/// Send A and AAAA queries in racing pairs, straight to kube-dns and through Doorstep, in network
/// namespaces of this machine, and print what was lost.
#[derive(Debug, Parser)]
#[command(
    name = "doorstep demo",
    after_help = "`doorstep demo race` sends pairs between namespaces that exist."
)]
struct LabFlags {
    /// Keep the cluster until Ctrl-C and print how to `dig` in it
    #[arg(long)]
    hold: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Pairs of queries in each setting
    #[arg(long, value_name = "N", default_value_t = Options::default().pairs, value_parser = pairs())]
    pairs: u64,
    /// The same straight to kube-dns, where they are slower; default: as many
    #[arg(long, value_name = "N", value_parser = pairs())]
    direct_pairs: Option<u64>,
}

/// Send racing pairs from a pod's namespace, and print what was lost and what conntrack here counted.
#[derive(Debug, Parser)]
#[command(name = "doorstep demo race")]
struct RaceFlags {
    /// The DNS server
    address: IpAddr,
    /// How many pairs
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = pairs())]
    pairs: u64,
    /// The name to ask for; # becomes the number of the pair
    #[arg(long, default_value = "kubernetes.default.svc.cluster.local.")]
    name: String,
    /// Milliseconds from pair to pair; 0: as soon as one is answered
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pace: u64,
    /// The pod's network namespace, by name or path; default: this one
    #[arg(long, value_name = "NETNS")]
    pod: Option<String>,
    /// A second pod that sends the second query of each pair, from the same source port
    #[arg(long, value_name = "NETNS")]
    second_pod: Option<String>,
    /// Send both queries from one thread
    #[arg(long, conflicts_with = "second_pod")]
    one_thread: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// As many as there are numbers for.
fn pairs() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=1_000_000)
}

/// Reads the words after `demo`.
pub(super) fn parse(words: &[String]) -> Result<Demo, CliError> {
    match words.split_first() {
        Some((first, rest)) if first == "race" => {
            let flags: RaceFlags = read("doorstep demo race", rest)?;
            let race = Standalone {
                server: SocketAddr::new(flags.address, DNS_PORT),
                pairs: flags.pairs,
                pace: Duration::from_millis(flags.pace),
                name: flags.name,
                pod: flags.pod,
                second_pod: flags.second_pod,
                one_thread: flags.one_thread,
            };
            Ok(Demo::Race { race, json: flags.json })
        }
        _ => {
            let LabFlags { hold, json, pairs, direct_pairs } = read("doorstep demo", words)?;
            Ok(Demo::Lab { hold, json, pairs, direct_pairs })
        }
    }
}

/// One dash does as well as two, as everywhere on this command line.
fn read<T: Parser>(command: &str, words: &[String]) -> Result<T, CliError> {
    let two_dashes = |word: &String| match word.strip_prefix('-') {
        Some(name) if name.len() > 1 && !name.starts_with('-') => format!("--{name}"),
        _ => word.clone(),
    };
    let words = std::iter::once(command.to_owned()).chain(words.iter().map(two_dashes));
    T::try_parse_from(words).map_err(|error| {
        let text = error.to_string();
        if error.exit_code() == 0 {
            return CliError { message: text.trim_end().to_owned(), exit_code: 0 };
        }
        let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let usage = T::command().render_usage();
        let message = format!("doorstep: {line}\n\n{usage}\n`{command} -help` lists them all.");
        CliError { message, exit_code: EXIT_USAGE }
    })
}
