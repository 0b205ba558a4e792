//! Which backend carries the rules: a pure function of what the host shows.

use std::net::IpAddr;

use super::iptables::{self, Family, Saved, Variant};
use super::nftables::{Contents, Ownership, Table};
use super::remedy::ipvs_notrack::Sources;
use super::rules::RuleSet;
use super::{Backend, Config};

/// What of the host bears on the choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Whether the kernel would take our rules as an nftables table, or why not.
    pub nftables: Result<(), String>,
    /// The `iptables` in `PATH`, if any.
    pub iptables: Option<Variant>,
    /// What in iptables drops DNS that no rule accepts, one phrase each ("INPUT policy is DROP").
    pub drops: Vec<String>,
    /// How kube-proxy implements services here, if its tables are there.
    pub kube_proxy: Option<&'static str>,
}

/// The backend, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Who carries the rules.
    pub backend: Backend,
    /// For the log.
    pub reason: String,
}

/// Chooses: what the operator says; else iptables where a firewall would drop DNS and iptables can
/// be run; else nftables if usable; else iptables.
pub fn choose(wanted: Option<Backend>, facts: &Facts) -> Choice {
    let choice = |backend, reason: String| Choice { backend, reason };
    if let Some(backend) = wanted {
        return choice(backend, "set by -rules-backend".into());
    }
    match (&facts.nftables, facts.iptables, facts.drops.first()) {
        (_, Some(_), Some(drop)) => choice(
            Backend::Iptables,
            format!("{drop}, which an accept in an nftables table of our own cannot overrule"),
        ),
        (Ok(()), None, Some(drop)) => choice(
            Backend::Nftables,
            format!("there is no iptables to run, although {drop}: DNS may be dropped"),
        ),
        (Ok(()), _, None) => {
            choice(Backend::Nftables, "the kernel takes our rules and no iptables filter drops DNS".into())
        }
        (Err(why), Some(_), None) => choice(Backend::Iptables, format!("nftables is not usable: {why}")),
        (Err(why), None, _) => {
            choice(Backend::Nftables, format!("neither is usable: no iptables to run, and nftables: {why}"))
        }
    }
}

/// Looks at the host and leaves it as it is; what cannot be read counts as absent.
pub fn gather(config: &Config) -> Facts {
    let nftables = Table::open(Ownership::Plain).and_then(|mut table| {
        let names = table.names()?;
        table.probe(&Contents::of(&RuleSet::new(config))).map(|()| names)
    });
    let saved: Vec<(Family, Saved)> =
        Family::BOTH.into_iter().filter_map(|family| Some((family, iptables::read(family).ok()?))).collect();
    let in_use = |family: Family| {
        let same = |ip: &IpAddr| ip.is_ipv4() == (family == Family::V4);
        config.local_ips.iter().any(same)
    };
    let nft_proxy = matches!(&nftables, Ok(names) if names.iter().any(|name| name == "kube-proxy"));
    let iptables_proxy = saved.iter().any(|(_, saved)| {
        let services = |(_, chain, _): &(String, String, String)| chain == "KUBE-SERVICES";
        saved.chains.iter().any(services)
    });
    Facts {
        nftables: nftables.map(|_| ()).map_err(|e| e.to_string()),
        iptables: iptables::variant().ok(),
        drops: saved
            .iter()
            .filter(|(family, _)| in_use(*family))
            .flat_map(|(_, saved)| drops(saved))
            .collect(),
        kube_proxy: match (nft_proxy, iptables_proxy) {
            (true, _) => Some("nftables"),
            (false, true) => Some("iptables"),
            (false, false) => None,
        },
    }
}

/// Those of the local addresses that IPVS balances DNS for: it takes the packets before any socket does,
/// whatever the rules.
pub fn balanced_by_ipvs(config: &Config) -> Vec<IpAddr> {
    let mut balanced = Sources::default().balanced();
    balanced.retain(|ip| config.local_ips.contains(ip));
    balanced
}

/// What drops whatever nothing accepts: a chain's policy, or a rule without a match.
fn drops(saved: &Saved) -> Vec<String> {
    let mut found = Vec::new();
    for (table, chain, policy) in &saved.chains {
        if table == "filter" && matches!(chain.as_str(), "INPUT" | "OUTPUT") && policy == "DROP" {
            found.push(format!("the iptables {chain} policy is DROP"));
        }
    }
    for rule in saved.rules.iter().filter(|rule| rule.table == "filter") {
        for chain in ["INPUT", "OUTPUT"] {
            for target in ["DROP", "REJECT"] {
                let drops_all = format!("{chain} -j {target}");
                let rest = rule.text.strip_prefix(&drops_all);
                if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' ')) {
                    found.push(format!("iptables {chain} ends in {target}"));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(nftables: bool, iptables: bool, drop: bool) -> Facts {
        Facts {
            nftables: if nftables { Ok(()) } else { Err("EPERM".into()) },
            iptables: iptables.then_some(Variant::Nft),
            drops: drop.then(|| "the iptables INPUT policy is DROP".into()).into_iter().collect(),
            kube_proxy: None,
        }
    }

    #[test]
    fn nftables_unless_a_drop_needs_iptables() {
        use Backend::{Iptables, Nftables};
        for (nftables, iptables, drop, expected) in [
            (true, true, false, Nftables),
            (true, false, false, Nftables),
            (true, true, true, Iptables),
            (true, false, true, Nftables),
            (false, true, false, Iptables),
            (false, true, true, Iptables),
            (false, false, false, Nftables),
        ] {
            let choice = choose(None, &facts(nftables, iptables, drop));
            assert_eq!(choice.backend, expected, "{nftables} {iptables} {drop}");
            assert!(!choice.reason.is_empty());
        }
    }

    #[test]
    fn the_operator_has_the_last_word() {
        let choice = choose(Some(Backend::Nftables), &facts(false, true, true));
        assert_eq!(choice.backend, Backend::Nftables);
        assert_eq!(choice.reason, "set by -rules-backend");
    }

    #[test]
    fn a_drop_is_a_policy_or_a_rule_without_a_match() {
        let saved = |text: &str| Saved::parse(&format!("*filter\n{text}\nCOMMIT\n"));
        assert_eq!(drops(&saved(":INPUT DROP [0:0]")).len(), 1);
        assert_eq!(drops(&saved(":OUTPUT DROP [0:0]")).len(), 1);
        let reject = "-A INPUT -j REJECT --reject-with icmp-host-prohibited";
        assert_eq!(drops(&saved(reject)).len(), 1);
        assert_eq!(drops(&saved("-A INPUT -j DROP")).len(), 1);
        assert_eq!(drops(&saved(":FORWARD DROP [0:0]\n:INPUT ACCEPT [0:0]")).len(), 0);
        assert_eq!(drops(&saved("-A INPUT -i eth9 -j DROP")).len(), 0);
    }
}
