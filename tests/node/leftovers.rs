//! What node-cache leaves in the tables of iptables-nft when it is killed, removed without iptables' tools. It is
//! written with them, in node-cache's words.

use doorstep::node::nftables::leftovers::remove;

use super::common::netns::{isolated, run};
use super::{V4, V6, VIP, ip, iptables_rules, iptables_rules_alone, nft, node_on_lo};

/// Rules in every chain that node-cache uses, so that it makes none: everybody's, near node-cache's, with comments.
const FOREIGN: &str = "
    for tool in iptables ip6tables; do
        $tool -t raw -A PREROUTING -p udp --dport 53 -j NOTRACK
        $tool -t raw -A OUTPUT -p tcp --sport 53 -m comment --comment 'not of NodeLocal DNS Cache: skip' -j NOTRACK
        $tool -A INPUT -p udp -m udp --dport 53 -m comment --comment 'NodeLocal DNS' -j ACCEPT
        $tool -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT
        $tool -A OUTPUT -p tcp -m multiport --dports 53,8080 -j REJECT
        $tool -N MINE
        $tool -A MINE -m limit --limit 1/s -m comment --comment 'allow DNS traffic' -j RETURN
    done
    iptables -t raw -A PREROUTING -d 169.254.20.10 -p udp --dport 53 -j NOTRACK
    iptables -t nat -A OUTPUT -d 10.96.0.10 -p udp --dport 53 -m comment --comment 'kube-dns' -j DNAT \
        --to-destination 10.1.1.1:53
    nft add table inet other
    nft add chain inet other filter
    nft add rule inet other filter udp dport 53 accept comment '\"NodeLocal DNS Cache: of another table\"'";

/// node-cache's twelve for each address: `-I`, one after the other.
fn leave(addresses: &[&str]) {
    for address in addresses {
        let tool = if address.contains(':') { "ip6tables" } else { "iptables" };
        run(&format!(
            "skip() {{ {tool} -w 5 -t raw -I \"$@\" -j NOTRACK -m comment --comment 'NodeLocal DNS Cache: skip conntrack'; }}
             allow() {{ {tool} -w 5 -I \"$@\" -j ACCEPT -m comment --comment 'NodeLocal DNS Cache: allow DNS traffic'; }}
             for protocol in tcp udp; do
                 skip PREROUTING -p $protocol -d {address} --dport 53
                 allow INPUT -p $protocol -d {address} --dport 53
                 skip OUTPUT -p $protocol -s {address} --sport 53
                 allow OUTPUT -p $protocol -s {address} --sport 53
                 skip OUTPUT -p $protocol -d {address} --dport 53
             done
             skip OUTPUT -p tcp -d {address} --dport 8080
             skip OUTPUT -p tcp -s {address} --sport 8080"
        ));
    }
}

fn everything() -> (String, String) {
    (iptables_rules(), run("nft list table inet other"))
}

#[test]
fn they_go_and_everybody_elses_stay_as_they_are() {
    isolated(|| {
        run(FOREIGN);
        let before = everything();
        leave(&[V4, VIP, V6]);
        assert_eq!(remove(&[]).unwrap(), 36);
        assert_eq!(everything(), before);
        assert_eq!(remove(&[]).unwrap(), 0, "none is left");
    });
}

#[test]
fn those_of_an_address_that_somebody_answers_at_stay() {
    isolated(|| {
        leave(&[VIP, V6]);
        let kept = iptables_rules_alone();
        leave(&[V4]);
        assert_eq!(remove(&[ip(VIP), ip(V6), ip("127.0.0.53")]).unwrap(), 12);
        let mut left = iptables_rules_alone();
        left.sort();
        let mut kept = kept;
        kept.sort();
        assert_eq!(left, kept);
    });
}

/// Other versions of iptables write the comment where `nft` has its own, and of others the rule is another.
#[test]
fn those_of_other_versions_go_too() {
    isolated(|| {
        run("iptables -t raw -A OUTPUT -d 192.0.2.9 -j ACCEPT
             nft add rule ip raw OUTPUT ip daddr 10.96.0.10 udp dport 53 notrack \
                 comment '\"NodeLocal DNS Cache: skip conntrack\"'
             iptables -t raw -A OUTPUT -m limit --limit 9/s -d 192.0.2.0/24 -j NOTRACK \
                 -m comment --comment 'NodeLocal DNS Cache: of another version'");
        assert_eq!(remove(&[]).unwrap(), 2);
        assert_eq!(iptables_rules_alone(), ["-A OUTPUT -d 192.0.2.9/32 -j ACCEPT"]);
    });
}

/// Rules piled up where a node-cache did not find its own.
#[test]
fn thousands_go() {
    isolated(|| {
        let rule = "-A OUTPUT -d 10.96.0.10/32 -p udp -m udp --dport 53 -m comment \
                    --comment \"NodeLocal DNS Cache: skip conntrack\" -j NOTRACK\\n";
        run(&format!(
            "(printf '*raw\\n'; for n in $(seq 2500); do printf -- '{rule}'; done; echo COMMIT) | iptables-restore"
        ));
        assert_eq!(remove(&[]).unwrap(), 2500);
        assert!(iptables_rules_alone().is_empty());
    });
}

#[test]
fn in_iptables_too_those_of_an_address_that_somebody_answers_at_stay() {
    isolated(|| {
        let mut node = node_on_lo(nft(&[V4]));
        node.install_rules().unwrap();
        leave(&[V4, VIP]);
        node.remove_leftovers(&[ip(VIP)]);
        let left = iptables_rules_alone();
        assert_eq!(left.len(), 12);
        assert!(left.iter().all(|rule| rule.contains(VIP)), "{left:?}");
    });
}

#[test]
fn a_link_that_was_bound_before_it_went_is_given_back() {
    isolated(|| {
        let mut node = node_on_lo(nft(&[VIP]));
        node.ensure_link().unwrap();
        node.remove_link().unwrap();
        node.give_back(&[]).unwrap();
        node.give_back(&[ip(VIP)]).unwrap();
        assert!(!run("ip link").contains("nodelocaldns"), "the address is on another link");
        run("ip address flush dev lo");
        node.give_back(&[ip(VIP)]).unwrap();
        assert!(run("ip address show dev nodelocaldns").contains(VIP));
    });
}
