//! MASQUERADE in iptables.

use std::collections::HashMap;

use super::{COMMENT, Lacking};
use crate::node::iptables::{self, Error, Family, Saved, SavedRule};

const TARGET: &str = " -j MASQUERADE";

/// The rules of one family that lack the flag, ours aside.
pub(super) fn lacking(family: Family, saved: &Saved) -> Vec<Lacking> {
    let place = if family == Family::V4 { "iptables" } else { "ip6tables" };
    let rules = saved.rules.iter().filter(|rule| lacks(rule));
    rules.map(|rule| Lacking { place: place.into(), rule: rule.text.clone() }).collect()
}

/// Where they are, as (table, chain).
pub(super) fn places(saved: &Saved) -> Vec<(String, String)> {
    let chains = saved.rules.iter().filter(|rule| lacks(rule)).map(|rule| chain(&rule.text).to_owned());
    chains.map(|chain| ("nat".to_owned(), chain)).collect()
}

/// Whether `rule` masquerades what may be UDP, and keeps source ports where it can.
pub fn lacks(rule: &SavedRule) -> bool {
    let masquerades = rule.text.split_once(TARGET).is_some_and(|(_, options)| {
        // `-j MASQUERADE2` would be a chain of somebody's.
        options.is_empty() || options.starts_with(' ')
    });
    // A rule for TCP alone drops no query of one socket.
    let may_be_udp = !rule.text.contains(" -p tcp ");
    rule.table == "nat" && masquerades && may_be_udp && !rule.text.contains("--random-fully")
}

fn chain(rule: &str) -> &str {
    rule.split(' ').next().unwrap_or_default()
}

/// Our copy of `rule`.
fn copy(rule: &str) -> String {
    let (matches, options) = rule.split_once(TARGET).unwrap_or((rule, ""));
    format!("{matches} -m comment --comment \"{COMMENT}\"{TARGET}{options} --random-fully")
}

/// Whether `rule` is the remedy's.
pub fn is_ours(rule: &SavedRule) -> bool {
    rule.table == "nat" && rule.text.contains(&format!("--comment \"{COMMENT}\""))
}

/// What makes a copy stand before each rule that lacks the flag, and nowhere else; `None`: all is so.
fn script(saved: &Saved) -> Option<(String, usize)> {
    let mut position: HashMap<&str, usize> = HashMap::new();
    let mut before: HashMap<&str, &SavedRule> = HashMap::new();
    let mut inserted = Vec::new();
    let mut kept = Vec::new();
    for rule in saved.rules.iter().filter(|rule| rule.table == "nat") {
        let chain = chain(&rule.text);
        let at = position.entry(chain).and_modify(|at| *at += 1).or_insert(1);
        if lacks(rule) {
            let wanted = copy(&rule.text);
            match before.get(chain) {
                Some(last) if is_ours(last) && same(&last.text, &wanted) => kept.push(last.text.clone()),
                _ => inserted.push((chain, *at, wanted)),
            }
        }
        before.insert(chain, rule);
    }
    let mut surplus: Vec<String> =
        saved.rules.iter().filter(|rule| is_ours(rule)).map(|rule| rule.text.clone()).collect();
    for rule in kept {
        surplus.iter().position(|other| *other == rule).map(|at| surplus.swap_remove(at));
    }
    let changes = inserted.len() + surplus.len();
    // From the last place to the first, so that those before it stay where they are; what is surplus
    // goes afterwards, for the same reason.
    let insertions = inserted
        .iter()
        .rev()
        .map(|(chain, at, rule)| format!("-I {chain} {at}{}", rule.strip_prefix(chain).unwrap_or_default()));
    let deletions = surplus.iter().map(|rule| format!("-D {rule}"));
    let lines: Vec<String> = insertions.chain(deletions).collect();
    (changes > 0).then(|| (format!("*nat\n{}\nCOMMIT\n", lines.join("\n")), changes))
}

/// Whether both say the same: tools print the options of the target in an order of their own.
fn same(one: &str, other: &str) -> bool {
    let sorted = |text: &str| {
        let mut words: Vec<String> = text.split(' ').map(String::from).collect();
        words.sort();
        words
    };
    sorted(one) == sorted(other)
}

/// Sets what is missing and takes what is surplus. Returns how many rules that were.
pub(super) fn apply(family: Family, saved: &Saved) -> Result<usize, Error> {
    match script(saved) {
        Some((script, changes)) => iptables::apply(family, &script).map(|()| changes),
        None => Ok(0),
    }
}

/// Removes ours.
pub(super) fn remove(family: Family) -> Result<(), Error> {
    let ours = |saved: &Saved| saved.rules.iter().filter(|rule| is_ours(rule)).cloned().collect();
    iptables::delete(family, ours).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(rules: &[&str]) -> Saved {
        let rules: String = rules.iter().map(|rule| format!("-A {rule}\n")).collect();
        Saved::parse(&format!("*nat\n:POSTROUTING ACCEPT [0:0]\n{rules}COMMIT\n"))
    }

    #[test]
    fn rules_without_the_flag_are_told_from_others() {
        for (rule, expected) in [
            ("POSTROUTING -s 10.244.0.0/16 -j MASQUERADE", true),
            ("POSTROUTING -p udp -j MASQUERADE --to-ports 1024-2047", true),
            ("POSTROUTING -j MASQUERADE --random-fully", false),
            ("POSTROUTING -p tcp -m tcp -j MASQUERADE", false),
            ("POSTROUTING -j MASQUERADE2", false),
            ("POSTROUTING -j ACCEPT", false),
        ] {
            assert_eq!(lacking(Family::V4, &saved(&[rule])).len() == 1, expected, "{rule}");
        }
    }

    #[test]
    fn a_copy_stands_before_each() {
        let rules = [
            "POSTROUTING -j ACCEPT",
            "A -s 1.1.1.1/32 -j MASQUERADE",
            "POSTROUTING -j MASQUERADE",
            "A -j MASQUERADE",
        ];
        let (first, changes) = script(&saved(&rules)).unwrap();
        assert_eq!(changes, 3);
        insta::assert_snapshot!(first, @r#"
        *nat
        -I A 2 -m comment --comment "doorstep remedy random-fully" -j MASQUERADE --random-fully
        -I POSTROUTING 2 -m comment --comment "doorstep remedy random-fully" -j MASQUERADE --random-fully
        -I A 1 -s 1.1.1.1/32 -m comment --comment "doorstep remedy random-fully" -j MASQUERADE --random-fully
        COMMIT
        "#);
        let ours = copy(rules[2]);
        assert_eq!(script(&saved(&[rules[0], &ours, rules[2]])), None);
        // After a rule it does nothing, and without one it is nobody's copy.
        let (moved, changes) = script(&saved(&[rules[2], &ours])).unwrap();
        assert_eq!((changes, moved.matches("-D ").count()), (2, 1));
        assert_eq!(script(&saved(&[&ours])).unwrap().1, 1);
    }
}
