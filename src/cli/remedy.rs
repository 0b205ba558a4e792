//! The flags of `doorstep remedy`.

use std::net::IpAddr;
use std::time::Duration;

use clap::{ArgAction, Args, Parser};

use super::flags::backend;
use super::go::{self, SWITCH, parse_bool};
use super::{CliError, unknown};
use crate::config::duration;
use crate::node::Backend;
use crate::node::remedy::{Cidr, Cure, Order, Selection, aaaa_delay, ipvs_notrack, random_fully, rps};

const USAGE: &str = "\
Usage: doorstep remedy NAME [FLAGS]

Cures for nodes where pods ask kube-dns past the cache. Each works until SIGTERM and then undoes itself.

  ipvs-notrack   DNS between pods and IPVS is not tracked (kube-proxy in IPVS mode)
  aaaa-delay     AAAA queries of pods wait a few milliseconds (any node with veths and netem)
  rps            Both queries of a socket meet on one CPU (any node with veths)
  random-fully   MASQUERADE chooses source ports at random; without -apply it only reports

`doorstep remedy NAME -help` lists the flags of one. deploy/remedies.md says which is for which node.";

#[derive(Debug, Args)]
struct Common {
    /// How often the state is compared and repaired, besides at every notification of the kernel
    #[arg(long = "interval", value_name = "DURATION", default_value = "60s", value_parser = interval)]
    interval: Duration,
}

/// DNS between pods and IPVS is not tracked.
#[derive(Debug, Parser)]
#[command(disable_help_flag = true, args_override_self = true)]
struct IpvsNotrack {
    /// The ClusterIPs of kube-dns; unset, all that IPVS balances on port 53
    #[arg(long = "cluster-ip", value_name = "IP,...", value_delimiter = ',', value_parser = address)]
    cluster_ips: Vec<IpAddr>,
    /// The addresses of this node's pods; unset, from flannel or the CNI configuration
    #[arg(long = "node-pod-cidr", value_name = "CIDR,...", value_delimiter = ',')]
    node_pods: Vec<Cidr>,
    /// The addresses of all pods; unset, from flannel or kube-proxy's command line
    #[arg(long = "cluster-cidr", value_name = "CIDR,...", value_delimiter = ',')]
    pods: Vec<Cidr>,
    /// What carries the rules: auto, nftables or iptables
    #[arg(long = "rules-backend", value_name = "BACKEND", default_value = "auto", value_parser = backend)]
    backend: super::flags::RulesBackend,
    /// Use network-node-manager's rules, for comparison: the node's own queries may be lost
    #[arg(long = "as-network-node-manager", value_name = SWITCH, default_value = "false", value_parser = parse_bool, action = ArgAction::Set)]
    as_network_node_manager: bool,
    #[command(flatten)]
    common: Common,
}

impl From<IpvsNotrack> for Order {
    fn from(flags: IpvsNotrack) -> Order {
        let backend: Option<Backend> = flags.backend.0;
        let shape = match flags.as_network_node_manager {
            true => ipvs_notrack::Shape::NetworkNodeManager,
            false => ipvs_notrack::Shape::Corrected,
        };
        let config = ipvs_notrack::Config {
            cluster_ips: flags.cluster_ips,
            node_pods: flags.node_pods,
            pods: flags.pods,
            backend,
            shape,
        };
        Order { cure: Cure::IpvsNotrack(config), interval: flags.common.interval }
    }
}

/// AAAA queries of pods wait a few milliseconds.
#[derive(Debug, Parser)]
#[command(disable_help_flag = true, args_override_self = true)]
struct AaaaDelay {
    /// How long, up to 100ms
    #[arg(long = "delay", value_name = "DURATION", default_value = "4ms", value_parser = delay)]
    delay: Duration,
    /// The links, by name or beginning*; unset, every veth whose other end is in another namespace
    #[arg(long = "links", value_name = "NAME,...", value_delimiter = ',')]
    links: Vec<String>,
    /// Wait where flannel-tc had it, at the links with a default route: too late for the race
    #[arg(long = "on-uplink", value_name = SWITCH, default_value = "false", value_parser = parse_bool, action = ArgAction::Set)]
    on_uplink: bool,
    #[command(flatten)]
    common: Common,
}

impl From<AaaaDelay> for Order {
    fn from(flags: AaaaDelay) -> Order {
        let place = if flags.on_uplink { aaaa_delay::Place::Uplink } else { aaaa_delay::Place::Pods };
        let config = aaaa_delay::Config { delay: flags.delay, links: selection(flags.links), place };
        Order { cure: Cure::AaaaDelay(config), interval: flags.common.interval }
    }
}

/// Both queries of a socket meet on one CPU.
#[derive(Debug, Parser)]
#[command(disable_help_flag = true, args_override_self = true)]
struct Rps {
    /// The CPUs that packets of pods are spread over: auto (all), or hexadecimal as in rps_cpus
    #[arg(long = "mask", value_name = "MASK", default_value = "auto", value_parser = mask)]
    mask: Mask,
    /// The links, by name or beginning*; unset, every veth whose other end is in another namespace
    #[arg(long = "links", value_name = "NAME,...", value_delimiter = ',')]
    links: Vec<String>,
    #[command(flatten)]
    common: Common,
}

/// Keeps clap from reading meaning into `Option`.
#[derive(Debug, Clone)]
struct Mask(Option<rps::CpuMask>);

impl From<Rps> for Order {
    fn from(flags: Rps) -> Order {
        let config = rps::Config { mask: flags.mask.0, links: selection(flags.links) };
        Order { cure: Cure::Rps(config), interval: flags.common.interval }
    }
}

/// MASQUERADE chooses source ports at random.
#[derive(Debug, Parser)]
#[command(disable_help_flag = true, args_override_self = true)]
struct RandomFully {
    /// Set a rule with --random-fully before each that lacks it, until SIGTERM
    #[arg(long = "apply", value_name = SWITCH, default_value = "false", value_parser = parse_bool, action = ArgAction::Set)]
    apply: bool,
    #[command(flatten)]
    common: Common,
}

impl From<RandomFully> for Order {
    fn from(flags: RandomFully) -> Order {
        let config = random_fully::Config { apply: flags.apply };
        Order { cure: Cure::RandomFully(config), interval: flags.common.interval }
    }
}

/// Reads what follows `remedy`.
pub fn parse(words: &[String]) -> Result<Order, CliError> {
    let Some((name, words)) = words.split_first() else {
        return Err(usage("say which remedy"));
    };
    match name.trim_start_matches('-') {
        "help" | "h" => Err(CliError { message: USAGE.into(), exit_code: 0 }),
        "ipvs-notrack" => read::<IpvsNotrack>(name, words),
        "aaaa-delay" => read::<AaaaDelay>(name, words),
        "rps" => read::<Rps>(name, words),
        "random-fully" => read::<RandomFully>(name, words),
        _ => Err(usage(&format!("there is no remedy `{name}`"))),
    }
}

fn read<F: Parser + Into<Order>>(name: &str, words: &[String]) -> Result<Order, CliError> {
    let command = F::command().bin_name(format!("doorstep remedy {name}"));
    let known = go::known(&command);
    let failed = |error: &str| CliError::usage(format!("remedy {name}: {error}"));
    let (given, rest) = go::normalise(words, &known).map_err(|error| match error {
        go::FlagError::Help => help(command.clone()),
        go::FlagError::Unknown(flag) => failed(&unknown(&flag, &known)),
        error => failed(&error.to_string()),
    })?;
    if let Some(word) = rest.first() {
        return Err(failed(&format!("does not take `{word}`")));
    }
    let words = std::iter::once("doorstep").chain(given.iter().map(String::as_str));
    let flags = command.try_get_matches_from(words).and_then(|matches| F::from_arg_matches(&matches));
    flags.map(Into::into).map_err(|error| failed(&super::first_line(&error)))
}

fn help(mut command: clap::Command) -> CliError {
    let text = command.render_help().to_string().replace("      --", "  -").replace("[OPTIONS]", "[FLAGS]");
    CliError { message: text.replace("Options:", "Flags:"), exit_code: 0 }
}

fn usage(message: &str) -> CliError {
    CliError { message: format!("doorstep: remedy: {message}\n\n{USAGE}"), exit_code: super::EXIT_USAGE }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration::parse(text).map_err(|error| error.to_string())?;
    if interval < Duration::from_secs(1) { Err("write at least 1s".into()) } else { Ok(interval) }
}

fn delay(text: &str) -> Result<Duration, String> {
    let delay = duration::parse(text).map_err(|error| error.to_string())?;
    if delay > aaaa_delay::LONGEST { Err("write at most 100ms".into()) } else { Ok(delay) }
}

fn selection(names: Vec<String>) -> Selection {
    if names.is_empty() { Selection::Pods } else { Selection::Named(names) }
}

fn mask(text: &str) -> Result<Mask, String> {
    if text == "auto" { Ok(Mask(None)) } else { text.parse().map(|mask| Mask(Some(mask))) }
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.trim().parse().map_err(|_| "write addresses such as 10.96.0.10, commas between them".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(String::from).collect()
    }

    fn order(line: &str) -> Order {
        parse(&words(line)).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    fn refused(line: &str) -> String {
        let error = parse(&words(line)).unwrap_err();
        assert_eq!(error.exit_code, super::super::EXIT_USAGE, "{error}");
        error.message
    }

    #[test]
    fn flags_of_ipvs_notrack() {
        let order = order(
            "ipvs-notrack -cluster-ip 10.96.0.10,fd00::a -node-pod-cidr=10.244.3.0/24 \
             --cluster-cidr 10.244.0.0/16 -rules-backend iptables -as-network-node-manager -interval 5s",
        );
        assert_eq!(order.interval, Duration::from_secs(5));
        let Cure::IpvsNotrack(config) = order.cure else { panic!("{:?}", order.cure) };
        assert_eq!(config.cluster_ips.len(), 2);
        assert_eq!(config.node_pods, ["10.244.3.0/24".parse().unwrap()]);
        assert_eq!(config.backend, Some(Backend::Iptables));
        assert_eq!(config.shape, ipvs_notrack::Shape::NetworkNodeManager);
        let Cure::IpvsNotrack(config) = self::order("ipvs-notrack").cure else { panic!() };
        assert_eq!(config, ipvs_notrack::Config::default());
    }

    #[test]
    fn what_is_refused_names_flag_and_remedy() {
        for (line, parts) in [
            ("", vec!["say which remedy", "ipvs-notrack"]),
            ("netem", vec!["no remedy `netem`"]),
            ("ipvs-notrack -cluster-ipp 1.1.1.1", vec!["remedy ipvs-notrack", "-cluster-ip?"]),
            ("ipvs-notrack -cluster-ip 1.1.1", vec!["remedy ipvs-notrack", "-cluster-ip", "10.96.0.10"]),
            ("ipvs-notrack -cluster-cidr 10.0.0.0", vec!["remedy ipvs-notrack", "-cluster-cidr", "/16"]),
            ("ipvs-notrack -interval 1ms", vec!["-interval", "at least 1s"]),
            ("aaaa-delay -delay 1s", vec!["remedy aaaa-delay", "-delay", "at most 100ms"]),
            ("rps -mask two", vec!["remedy rps", "-mask", "auto"]),
            ("random-fully -apply=maybe", vec!["remedy random-fully", "-apply", "true or false"]),
            ("ipvs-notrack now", vec!["does not take `now`"]),
        ] {
            let message = refused(line);
            for part in parts {
                assert!(message.contains(part), "{line}: {message}");
            }
        }
    }

    #[test]
    fn flags_of_aaaa_delay() {
        assert_eq!(order("aaaa-delay").cure, Cure::AaaaDelay(aaaa_delay::Config::default()));
        let Cure::AaaaDelay(config) = order("aaaa-delay -delay 1500us -on-uplink -links eth0").cure else {
            panic!()
        };
        assert_eq!(config.delay, Duration::from_micros(1500));
        assert_eq!(config.place, aaaa_delay::Place::Uplink);
    }

    #[test]
    fn flags_of_rps_and_random_fully() {
        let Cure::Rps(config) = order("rps").cure else { panic!() };
        assert_eq!(config, rps::Config::default());
        let Cure::Rps(config) = order("rps -mask ff -links cali*,eth1").cure else { panic!() };
        assert_eq!(config.mask.unwrap().to_string(), "ff");
        assert_eq!(config.links, Selection::Named(vec!["cali*".into(), "eth1".into()]));
        assert_eq!(order("random-fully").cure, Cure::RandomFully(random_fully::Config { apply: false }));
        assert_eq!(
            order("random-fully --apply").cure,
            Cure::RandomFully(random_fully::Config { apply: true })
        );
    }

    #[test]
    fn help_is_no_error() {
        for line in ["-help", "help", "ipvs-notrack -help"] {
            let error = parse(&words(line)).unwrap_err();
            assert_eq!(error.exit_code, 0);
            assert!(error.message.contains("doorstep remedy"), "{error}");
        }
    }
}
