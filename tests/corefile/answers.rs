//! Directives that change answers: `loadbalance`, `rewrite`, `dns64`.

use doorstep::plugin::Action;

use super::{block, config, report};

#[test]
fn mistakes_are_explained() {
    for (directives, expected) in [
        ("loadbalance weighted /etc/weights", "`loadbalance weighted` is not served"),
        ("loadbalance random", "`random` is not a policy"),
        ("loadbalance round_robin twice", "wrong number of arguments for `loadbalance`"),
        ("loadbalance {\n prefer 10.0.0.0/33\n}", "`10.0.0.0/33` is not an address prefix"),
        ("loadbalance {\n perfer 10.0.0.0/8\n}", "unknown option `perfer`"),
        ("rewrite", "`rewrite` lacks its rule"),
        ("rewrite stop", "`rewrite` lacks its rule"),
        ("rewrite answer auto", "`rewrite` cannot change `answer`"),
        ("rewrite edns0 local set 0xffee", "does not say which option"),
        ("rewrite edns0 local set 0xffee 0x6", "does not say which option"),
        ("rewrite edns0 local put 0xffee 0x61", "does not say which option"),
        ("rewrite edns0 local set 0x1ffee 0x61", "does not say which option"),
        ("rewrite edns0 local set 0xffee {client_ip}", "`{client_ip}` depends on who asks"),
        ("rewrite edns0 subnet set 24 56", "a client's subnet is not sent"),
        ("rewrite cname a.test b.test", "`rewrite cname` is not served"),
        ("rewrite name a.test", "`rewrite name` lacks its names"),
        ("rewrite name a.test b.test c.test", "`a.test` is no way to match a name"),
        ("rewrite name suffix a.test b.test auto", "`auto` is too much for a rule"),
        ("rewrite name suffix a.test b.test answer", "an answer rule lacks what it changes"),
        ("rewrite name suffix a.test b.test answer name a", "an answer rule lacks what it changes"),
        ("rewrite name suffix a b answer auto answer name c d", "exclude each other"),
        ("rewrite name regex ( b.test", "`(` is not a regular expression"),
        ("rewrite name regex a.test {1}.test", "more groups than `a.test` has"),
        ("rewrite name regex (a) {1} answer value b {1}", "more groups than `b` has"),
        ("rewrite name a.test b.test {\n answer auto\n}", "`rewrite` takes no options"),
        ("rewrite type A", "wrong number of words for `rewrite type`"),
        ("rewrite type A AAA", "`AAA` is not a type"),
        ("rewrite class IN XX", "`XX` is not a class"),
        ("rewrite ttl a.test", "wrong number of words for `rewrite ttl`"),
        ("rewrite ttl a.test 30-20", "`30-20` is not a TTL"),
        ("rewrite ttl a.test -", "`-` is not a TTL"),
        ("rewrite rcode a.test NXDOMAIN", "wrong number of words for `rewrite rcode`"),
        ("rewrite rcode a.test NXDOMAIN 24", "`24` is not a response code"),
        ("dns64 64:ff9b::/97", "`64:ff9b::/97` is not a prefix"),
        ("dns64 10.0.0.0/32", "`10.0.0.0/32` is not a prefix"),
        ("dns64 {\n prefix 64:ff9b::\n}", "`64:ff9b::` is not a prefix"),
        ("dns64 {\n translate\n}", "unknown option `translate`"),
        ("dns64\ndns64", "only once"),
        ("whoami . .", "wrong number of arguments for `whoami`"),
    ] {
        let found = report(&format!(".:53 {{\n{directives}\n}}\n")).one_liners();
        assert!(found.len() == 1 && found[0].contains(expected), "{directives}\n{found:#?}");
    }
}

#[test]
fn rules_arrive_in_order() {
    let block =
        block("rewrite continue ttl a.test 5-\nrewrite {\n name suffix .a .b\n answer auto\n}\nloadbalance");
    assert!(block.loadbalance.is_some());
    let [first, second] = &block.steps.rewrites[..] else { panic!("{:?}", block.steps) };
    assert!(!first.is_last && second.is_last);
    assert!(matches!(&first.action, Action::Ttl { range, .. } if *range == (5..=i32::MAX as u32)));
    assert!(matches!(&second.action, Action::Name { to, auto: true, .. } if to == ".b."));
}

/// An answer that is kept is everybody's, so clients of either family have a block of their own.
#[test]
fn dns64_is_for_one_family() {
    for (directives, expected) in [
        ("bind 10.2.3.4 fd00::1\ndns64", &[(true, true), (false, false)][..]),
        ("bind 10.2.3.4\ndns64", &[(false, false)]),
        ("bind fd00::1\ndns64", &[(true, true)]),
        ("dns64 {\n allow_ipv4\n}", &[(false, true)]),
    ] {
        let blocks = config(&format!(".:53 {{\n{directives}\n}}\n")).server.blocks;
        let found: Vec<(bool, bool)> = blocks
            .iter()
            .map(|block| {
                let all_v6 = block.zones.iter().flat_map(|(_, addresses)| addresses).all(|a| a.is_ipv6());
                (all_v6, block.steps.dns64.is_some())
            })
            .collect();
        assert_eq!(found, expected, "{directives}");
    }
}

/// The shape of AKS's local DNS.
#[test]
fn health_checks_hosts_and_templates_stand_together() {
    let text = "health-check.localdns.local:53 {
    whoami
}
.:53 {
    forward . 168.63.129.16
    hosts /etc/localdns/hosts {
        ttl 60
        fallthrough
    }
    template ANY ANY internal.cloudapp.net {
        match \"^(?:[^.]+\\.){4,}internal\\.cloudapp\\.net\\.$\"
        rcode NXDOMAIN
        fallthrough
    }
}
";
    let blocks = config(text).server.blocks;
    assert_eq!(blocks.iter().map(|block| block.whoami).collect::<Vec<_>>(), [true, false]);
    assert!(blocks[1].steps.hosts.is_some());
}
