//! iptables, nftables and IPVS.

use std::net::IpAddr;

use super::super::facts::{Iptables, LiveRule};
use super::{Host, Unread};
use crate::node::iptables::{Saved, SavedRule};
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
    for program in ["iptables-save", "ip6tables-save"] {
        match host.run(program, &["-c"]) {
            Ok(output) => add_iptables(&mut firewall, &output),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                unread.note("iptables rules", &format!("there is no {program} in PATH"));
            }
            Err(error) => unread.note("iptables rules", &format!("{program}: {error}")),
        }
    }
    match host.nftables() {
        Ok(survey) => {
            firewall.nft_tables = survey.tables;
            let live = |(rule, packets)| LiveRule { rule, nftables: true, packets };
            firewall.rules.extend(survey.rules.into_iter().map(live));
            let masquerade = survey.masquerade.into_iter();
            let named = masquerade.map(|(table, chain)| format!("nftables table {table}, chain {chain}"));
            firewall.iptables.masquerade.extend(named);
        }
        Err(why) => unread.note("nftables rules", &why),
    }
    firewall
}

fn add_iptables(firewall: &mut Firewall, output: &str) {
    let (counts, plain) = split_counts(output);
    let saved = Saved::parse(&plain);
    let services = |(_, chain, _): &(String, String, String)| chain == "KUBE-SERVICES";
    firewall.iptables.kube_proxy |= saved.chains.iter().any(services);
    for (table, chain, policy) in &saved.chains {
        if table == "filter" && policy == "DROP" {
            firewall.iptables.drops.push((chain.clone(), "its policy is DROP".into()));
        }
    }
    for (rule, packets) in saved.rules.iter().zip(counts) {
        add_rule(firewall, rule, packets);
    }
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
        "nat" if has("-j MASQUERADE") && !has("--random-fully") => {
            iptables.masquerade.push(format!("nat {}", saved.text));
        }
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

/// Takes the packet counts off the rules: `[12:345] -A ...`.
fn split_counts(output: &str) -> (Vec<u64>, String) {
    let mut counts = Vec::new();
    let mut plain = String::with_capacity(output.len());
    for line in output.lines() {
        let counted = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
        let (count, line) = match counted {
            Some((count, rule)) => (count.split(':').next().and_then(|count| count.parse().ok()), rule),
            None => (None, line),
        };
        if line.starts_with("-A ") {
            counts.push(count.unwrap_or(0));
        }
        plain.push_str(line);
        plain.push('\n');
    }
    (counts, plain)
}

/// Virtual services on port 53 (`UDP  0A60000A:0035 rr`).
pub fn ipvs(host: &dyn Host) -> Vec<IpAddr> {
    let text = host.text("/proc/net/ip_vs").unwrap_or_default();
    let mut found: Vec<IpAddr> = text.lines().filter_map(virtual_service).collect();
    found.dedup();
    found
}

fn virtual_service(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace();
    let (protocol, service) = (words.next()?, words.next()?);
    let (address, port) = service.rsplit_once(':')?;
    if !matches!(protocol, "UDP" | "TCP") || port != "0035" {
        return None;
    }
    match address.strip_prefix('[') {
        Some(v6) => v6.trim_end_matches(']').parse().ok(),
        None => u32::from_str_radix(address, 16).ok().map(|bits| IpAddr::from(bits.to_be_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_go_with_their_rules() {
        let (counts, plain) =
            split_counts("*raw\n:OUTPUT ACCEPT [7:8]\n[12:345] -A OUTPUT -j A\n-A OUTPUT -j B\nCOMMIT\n");
        assert_eq!(counts, [12, 0]);
        assert!(plain.contains("\n-A OUTPUT -j A\n"));
    }

    #[test]
    fn virtual_services_on_port_53() {
        let line = "UDP  0A60000A:0035 rr";
        assert_eq!(virtual_service(line), Some("10.96.0.10".parse().unwrap()));
        assert_eq!(
            virtual_service("UDP  [fd00:0000:0000:0000:0000:0000:0000:000a]:0035 rr"),
            Some("fd00::a".parse().unwrap())
        );
        assert_eq!(virtual_service("TCP  0A600001:01BB rr"), None);
        assert_eq!(virtual_service("  -> 0AF4000B:0035      Masq    1      0          0"), None);
    }
}
