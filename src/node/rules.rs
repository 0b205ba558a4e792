//! The netfilter rules that keep DNS for the local addresses out of conntrack, as typed values.

use std::net::IpAddr;

use super::Config;

/// What every comment of a node-cache rule begins with; clean-up jobs in the field delete by it.
pub const COMMENT_PREFIX: &str = "NodeLocal DNS Cache:";

/// The table of a rule, in iptables' terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// Before conntrack (priority -300).
    Raw,
    /// Where packets are let through or dropped (priority 0).
    Filter,
}

/// The chain of a rule, in iptables' terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Chain {
    /// Packets that come in from pods and other hosts.
    Prerouting,
    /// Packets that are delivered on this node.
    Input,
    /// Packets that this node sends: answers, and queries of host-network pods.
    Output,
}

/// The transport protocol that a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Which end of the packet the local address and port are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Destination: queries.
    To,
    /// Source: answers.
    From,
}

/// What a rule does with a packet that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// No conntrack entry, and so no DNAT, no race and no table to overflow.
    NoTrack,
    /// Let through. Untracked packets fail the usual "established" rule of a firewall.
    Accept,
}

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The table.
    pub table: Table,
    /// The chain in the table.
    pub chain: Chain,
    /// The transport protocol.
    pub protocol: Protocol,
    /// Whether `address` and `port` are the destination or the source.
    pub direction: Direction,
    /// The local address.
    pub address: IpAddr,
    /// The local port.
    pub port: u16,
    /// What happens to the packet.
    pub verdict: Verdict,
}

/// All rules, in the order in which node-cache inserts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSet(Vec<Rule>);

impl RuleSet {
    /// The twelve rules per local address of `config`.
    pub fn new(config: &Config) -> RuleSet {
        RuleSet::of(config, &config.local_ips)
    }

    /// The twelve rules per address of `addresses`.
    pub fn of(config: &Config, addresses: &[IpAddr]) -> RuleSet {
        let per_address = |&address| for_address(address, config.dns_port, config.health_port);
        RuleSet(addresses.iter().flat_map(per_address).collect())
    }

    /// Of the same, those that stay while the last queries are answered: all but those that bring queries here.
    ///
    /// An answer that is tracked makes an entry of its own, of which the client's next packet is then the reply,
    /// and replies pass DNAT by: that socket would ask nobody for as long as it goes on. If the next packet was
    /// first, it is the answer that has to leave from another port.
    pub fn answers(config: &Config, addresses: &[IpAddr]) -> RuleSet {
        let mut rules = RuleSet::of(config, addresses);
        rules.0.retain(|rule| rule.direction == Direction::From || rule.port != config.dns_port);
        rules
    }

    /// These, and then those of `other`.
    pub fn and(mut self, other: RuleSet) -> RuleSet {
        self.0.extend(other.0);
        self
    }

    /// Those that are not in `other`.
    pub fn without(mut self, other: &RuleSet) -> RuleSet {
        self.0.retain(|rule| !other.0.contains(rule));
        self
    }

    /// The rules, in node-cache's order.
    pub fn rules(&self) -> &[Rule] {
        &self.0
    }
}

/// node-cache's rules for one address, in its order.
fn for_address(address: IpAddr, dns: u16, health: u16) -> [Rule; 12] {
    use {Chain::*, Direction::*, Protocol::*, Table::*};
    let rule = |table, chain, protocol, direction, port| Rule {
        table,
        chain,
        protocol,
        direction,
        address,
        port,
        verdict: match table {
            Raw => Verdict::NoTrack,
            Filter => Verdict::Accept,
        },
    };
    [
        rule(Raw, Prerouting, Tcp, To, dns),
        rule(Raw, Prerouting, Udp, To, dns),
        rule(Filter, Input, Tcp, To, dns),
        rule(Filter, Input, Udp, To, dns),
        rule(Raw, Output, Tcp, From, dns),
        rule(Raw, Output, Udp, From, dns),
        rule(Filter, Output, Tcp, From, dns),
        rule(Filter, Output, Udp, From, dns),
        // Queries of host-network pods enter through OUTPUT.
        rule(Raw, Output, Tcp, To, dns),
        rule(Raw, Output, Udp, To, dns),
        // The kubelet's probe of the health port, and its answer.
        rule(Raw, Output, Tcp, To, health),
        rule(Raw, Output, Tcp, From, health),
    ]
}

impl Rule {
    /// Why the rule is there, in node-cache's words, byte for byte.
    pub fn comment(&self) -> &'static str {
        match self.verdict {
            Verdict::NoTrack => "NodeLocal DNS Cache: skip conntrack",
            Verdict::Accept => "NodeLocal DNS Cache: allow DNS traffic",
        }
    }

    /// Everything after `-A ` as `iptables-save` prints it.
    pub fn iptables(&self) -> String {
        let prefix_len = if self.address.is_ipv4() { 32 } else { 128 };
        let (side, port) = match self.direction {
            Direction::To => ("-d", "--dport"),
            Direction::From => ("-s", "--sport"),
        };
        format!(
            "{chain} {side} {address}/{prefix_len} -p {protocol} -m {protocol} {port} {number} \
             -m comment --comment \"{comment}\" -j {target}",
            chain = self.chain.iptables(),
            address = self.address,
            protocol = self.protocol.name(),
            number = self.port,
            comment = self.comment(),
            target = self.verdict.iptables(),
        )
    }
}

impl Table {
    /// The table's name in iptables.
    pub fn iptables(self) -> &'static str {
        match self {
            Table::Raw => "raw",
            Table::Filter => "filter",
        }
    }
}

impl Chain {
    /// The chain's name in iptables.
    pub fn iptables(self) -> &'static str {
        match self {
            Chain::Prerouting => "PREROUTING",
            Chain::Input => "INPUT",
            Chain::Output => "OUTPUT",
        }
    }
}

impl Protocol {
    /// `tcp` or `udp`.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

impl Verdict {
    /// The target's name in iptables.
    pub fn iptables(self) -> &'static str {
        match self {
            Verdict::NoTrack => "NOTRACK",
            Verdict::Accept => "ACCEPT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn config(addresses: &[&str]) -> Config {
        Config {
            local_ips: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
            interface: "nodelocaldns".into(),
            setup_interface: true,
            setup_rules: true,
            backend: None,
            sync_interval: Duration::from_secs(60),
            dns_port: 53,
            health_port: 8080,
        }
    }

    fn rules(addresses: &[&str]) -> Vec<Rule> {
        RuleSet::new(&config(addresses)).rules().to_vec()
    }

    #[test]
    fn only_rules_that_bring_queries_here_go_before_the_last_answer() {
        let config = config(&["169.254.20.10", "fd00::10"]);
        let answers = RuleSet::answers(&config, &config.local_ips);
        let queries = RuleSet::new(&config).without(&answers);
        assert_eq!((queries.rules().len(), answers.rules().len()), (12, 12));
        assert!(queries.rules().iter().all(|rule| rule.direction == Direction::To && rule.port == 53));
        let untracked = |rule: &&Rule| rule.table == Table::Raw && rule.direction == Direction::From;
        assert_eq!(answers.rules().iter().filter(untracked).count(), 6);
    }

    #[test]
    fn twelve_rules_per_address_in_node_caches_order() {
        let text: Vec<String> = rules(&["169.254.20.10"])
            .iter()
            .map(|rule| format!("{} {}", rule.table.iptables(), rule.iptables()))
            .collect();
        insta::assert_snapshot!(text.join("\n"), @r#"
        raw PREROUTING -d 169.254.20.10/32 -p tcp -m tcp --dport 53 -m comment --comment "NodeLocal DNS Cache: skip conntrack" -j NOTRACK
        raw PREROUTING -d 169.254.20.10/32 -p udp -m udp --dport 53 -m comment --comment "NodeLocal DNS Cache: skip conntrack" -j NOTRACK
        filter INPUT -d 169.254.20.10/32 -p tcp -m tcp --dport 53 -m comment --comment "NodeLocal DNS Cache: allow DNS traffic" -j ACCEPT
        filter INPUT -d 169.254.20.10/32 -p udp -m udp --dport 53 -m comment --comment "NodeLocal DNS Cache: allow DNS traffic" -j ACCEPT
        raw OUTPUT -s 169.254.20.10/32 -p tcp -m tcp --sport 53 -m comment --comment "NodeLocal DNS Cache: skip conntrack" -j NOTRACK
        raw OUTPUT -s 169.254.20.10/32 -p udp -m udp --sport 53 -m comment --comment "NodeLocal DNS Cache: skip conntrack" -j NOTRACK
        filter OUTPUT -s 169.254.20.10/32 -p tcp -m tcp --sport 53 -m comment --comment "NodeLocal DNS Cache: allow DNS traffic" -j ACCEPT
        filter OUTPUT -s 169.254.20.10/32 -p udp -m udp --sport 53 -m comment --comment "NodeLocal DNS Cache: allow DNS traffic" -j ACCEPT
        raw OUTPUT -d 169.254.20.10/32 -p tcp -m tcp --dport 53 -m comment --comment "NodeLocal DNS Cache: skip conntrack" -j NOTRACK
        raw OUTPUT -d 169.254.20.10/32 -p udp -m udp --dport 53 -m comment --comment "NodeLocal DNS Cache: skip conntrack" -j NOTRACK
        raw OUTPUT -d 169.254.20.10/32 -p tcp -m tcp --dport 8080 -m comment --comment "NodeLocal DNS Cache: skip conntrack" -j NOTRACK
        raw OUTPUT -s 169.254.20.10/32 -p tcp -m tcp --sport 8080 -m comment --comment "NodeLocal DNS Cache: skip conntrack" -j NOTRACK
        "#);
    }

    #[test]
    fn ipv6_has_host_prefixes() {
        let all = rules(&["169.254.20.10", "fd00::10"]);
        assert_eq!(all.len(), 24);
        assert!(all[12].iptables().contains("-d fd00::10/128 -p tcp"));
        assert!(all.iter().all(|rule| rule.comment().starts_with(COMMENT_PREFIX)));
    }
}
