//! iptables, nftables and IPVS.

use std::net::IpAddr;

use super::super::facts::{Iptables, LiveRule};
use super::{Host, Unread};
use crate::node::iptables::SavedRule;
use crate::node::remedy::random_fully;
use crate::node::rules::COMMENT_PREFIX;

/// What netfilter holds.
#[derive(Default)]
pub struct Firewall {
    pub iptables: Iptables,
    pub nft_tables: Vec<String>,
    pub rules: Vec<LiveRule>,
    pub kube_dns: Vec<IpAddr>,
}

/// Reads both; makes no tables.
pub fn read(host: &dyn Host, unread: &mut Unread) -> Firewall {
    let mut firewall = Firewall::default();
    for family in ["", "6"] {
        add_family(&mut firewall, host, family, unread);
    }
    match host.nftables() {
        Ok(survey) => {
            firewall.nft_tables = survey.tables;
            firewall.iptables.kube_proxy |= survey.kube_proxy_chains;
            let live = |(rule, packets)| LiveRule { rule, nftables: true, packets };
            firewall.rules.extend(survey.rules.into_iter().map(live));
            let named = survey.masquerade.iter().map(|rule| format!("nftables {rule}"));
            firewall.iptables.masquerade.extend(named);
        }
        Err(why) => unread.note("nftables rules", &why),
    }
    firewall
}

/// Of the two kinds of iptables a host has both, each blind to the other's rules, and may have rules in both.
fn add_family(firewall: &mut Firewall, host: &dyn Host, family: &str, unread: &mut Unread) {
    let mut add = |program: String| match host.run(&program, &["-c"]) {
        Ok(output) => {
            add_iptables(firewall, &output);
            output.lines().any(|line| line.starts_with("# Generated") && !line.contains("(nf_tables)"))
        }
        Err(error) => {
            let missing = error.kind() == std::io::ErrorKind::NotFound;
            let why = if missing { "no such program in PATH".to_owned() } else { error.to_string() };
            unread.note("iptables rules", &format!("{program}: {why}"));
            true
        }
    };
    let is_legacy = add(format!("ip{family}tables-save"));
    let legacy_tables = host.text(&format!("/proc/net/ip{family}_tables_names")).unwrap_or_default();
    if !is_legacy && !legacy_tables.trim().is_empty() {
        add(format!("ip{family}tables-legacy-save"));
    }
}

/// Line by line: a node of a large cluster prints megabytes.
fn add_iptables(firewall: &mut Firewall, output: &str) {
    let mut table = "";
    // Of `remedy random-fully` there is one right before the rule that it cures.
    let mut cured = false;
    for line in output.lines() {
        let (packets, line) = uncounted(line);
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(chain) = line.strip_prefix(':') {
            firewall.iptables.kube_proxy |= chain.starts_with("KUBE-SERVICES ");
            let chain = chain.strip_suffix(']').unwrap_or(chain);
            if let Some((chain, "DROP")) = chain.split(" [").next().and_then(|chain| chain.split_once(' '))
                && table == "filter"
            {
                firewall.iptables.drops.push((chain.to_owned(), "its policy is DROP".into()));
            }
        } else if let Some(text) = line.strip_prefix("-A ") {
            let rule = SavedRule { table: table.into(), text: text.into() };
            if random_fully::lacks(&rule) && !cured {
                firewall.iptables.masquerade.push(format!("{table} {text}"));
            }
            cured = random_fully::is_ours(&rule);
            add_rule(firewall, &rule, packets);
        }
    }
}

/// Takes the packet count off a rule: `[12:345] -A ...`.
fn uncounted(line: &str) -> (u64, &str) {
    let counted = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    let Some((counts, line)) = counted else { return (0, line) };
    (counts.split(':').next().and_then(|packets| packets.parse().ok()).unwrap_or(0), line)
}

fn add_rule(firewall: &mut Firewall, saved: &SavedRule, packets: u64) {
    let has = |part: &str| saved.text.contains(part);
    let iptables = &mut firewall.iptables;
    let commented = has(&format!("--comment \"{COMMENT_PREFIX}"));
    if commented {
        iptables.commented.push(format!("{} {}", saved.table, saved.text));
    }
    if let Some(rule) = saved.ours() {
        firewall.rules.push(LiveRule { rule, nftables: false, packets });
    }
    let dns = has("port 53 ") || saved.text.ends_with("port 53");
    let chain = saved.text.split(' ').next().unwrap_or_default();
    match saved.table.as_str() {
        "nat" if chain == "KUBE-SERVICES" && dns && has("kube-dns") => {
            let address =
                saved.text.split(" -d ").nth(1).and_then(|rest| rest.split(['/', ' ']).next()?.parse().ok());
            firewall.kube_dns.extend(address.filter(|address| !firewall.kube_dns.contains(address)));
        }
        "raw" if dns && !commented && (has("-j NOTRACK") || has("--notrack")) => {
            iptables.foreign_notrack.push(format!("raw {}", saved.text));
        }
        "filter" => {
            for target in ["DROP", "REJECT"] {
                let rest = saved.text.strip_prefix(&format!("{chain} -j {target}"));
                if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' ')) {
                    iptables.drops.push((chain.to_owned(), format!("it ends in {target}")));
                }
            }
            // What does not accept every datagram of DNS.
            let narrow =
                ["ctstate", "--state", "--mark", "-i lo", "-o lo", "-p tcp", "-p icmp", "-p ipv6-icmp"];
            let other_port = has("port ") && !dns;
            if has("-j ACCEPT") && !commented && !other_port && !narrow.iter().any(|part| has(part)) {
                iptables.accepts.push(chain.to_owned());
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_come_off() {
        assert_eq!(uncounted("[12:345] -A OUTPUT -j A"), (12, "-A OUTPUT -j A"));
        assert_eq!(uncounted("-A OUTPUT -j B"), (0, "-A OUTPUT -j B"));
        assert_eq!(uncounted(":OUTPUT ACCEPT [7:8]"), (0, ":OUTPUT ACCEPT [7:8]"));
    }

    #[test]
    fn policies_of_filter_alone() {
        let mut firewall = Firewall::default();
        add_iptables(
            &mut firewall,
            "*nat\n:OUTPUT DROP [1:2]\nCOMMIT\n*filter\n:INPUT DROP [0:0]\n:X - [0:0]\n",
        );
        assert_eq!(firewall.iptables.drops, [("INPUT".into(), "its policy is DROP".into())]);
    }
}
