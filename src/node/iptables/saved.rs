//! What `iptables-save` prints, read back.

use std::net::IpAddr;

use crate::node::rules::{COMMENT_PREFIX, Chain, Direction, Protocol, Rule, Table, Verdict};

/// One family's tables as `iptables-save` shows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Saved {
    /// All rules of all tables, in order.
    pub rules: Vec<SavedRule>,
    /// Chains of their own or built in, as (table, chain, policy); the policy is `-` for the former.
    pub chains: Vec<(String, String, String)>,
}

/// A rule as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedRule {
    /// The table.
    pub table: String,
    /// Everything after `-A `: the chain, matches and target.
    pub text: String,
}

impl Saved {
    /// Reads the output of `iptables-save`.
    pub fn parse(output: &str) -> Saved {
        let mut saved = Saved::default();
        let mut table = "";
        for line in output.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name;
            } else if let Some(text) = line.strip_prefix("-A ") {
                saved.rules.push(SavedRule { table: table.into(), text: text.into() });
            } else if let Some(chain) = line.strip_prefix(':') {
                let mut words = chain.split(' ').map(String::from);
                if let (Some(chain), Some(policy)) = (words.next(), words.next()) {
                    saved.chains.push((table.into(), chain, policy));
                }
            }
        }
        saved
    }

    /// Those of `rules` that are not there.
    pub fn missing(&self, rules: &[Rule]) -> Vec<Rule> {
        let live: Vec<Rule> = self.rules.iter().filter_map(SavedRule::ours).collect();
        rules.iter().filter(|rule| !live.contains(rule)).copied().collect()
    }

    /// Every copy of every one of `rules`, those without a comment included: node-cache wrote none
    /// before 1.15.11.
    pub fn copies(&self, rules: &[Rule]) -> Vec<SavedRule> {
        let is_copy = |saved: &&SavedRule| {
            saved.read().is_some_and(|(rule, comment)| {
                rules.contains(&rule) && comment.is_none_or(|text| text == rule.comment())
            })
        };
        self.rules.iter().filter(is_copy).cloned().collect()
    }

    /// Rules with node-cache's comment.
    pub fn commented(&self) -> impl Iterator<Item = &SavedRule> {
        let mark = format!("--comment \"{COMMENT_PREFIX}");
        self.rules.iter().filter(move |rule| rule.text.contains(&mark))
    }

    /// Those of them that are for no address in `elsewhere`.
    pub fn leftovers(&self, elsewhere: &[IpAddr]) -> impl Iterator<Item = &SavedRule> {
        let is_kept = |rule: &SavedRule| {
            words(&rule.text).iter().filter_map(|word| host(word)).any(|ip| elsewhere.contains(&ip))
        };
        self.commented().filter(move |rule| !is_kept(rule))
    }
}

impl SavedRule {
    /// The rule, if it is one of node-cache's with its comment.
    pub fn ours(&self) -> Option<Rule> {
        let (rule, comment) = self.read()?;
        (comment.as_deref() == Some(rule.comment())).then_some(rule)
    }

    /// The rule and its comment, if it has the shape of node-cache's rules and nothing besides.
    fn read(&self) -> Option<(Rule, Option<String>)> {
        let mut words = words(&self.text).into_iter();
        let table = match self.table.as_str() {
            "raw" => Table::Raw,
            "filter" => Table::Filter,
            _ => return None,
        };
        let chain = match words.next()?.as_str() {
            "PREROUTING" => Chain::Prerouting,
            "INPUT" => Chain::Input,
            "OUTPUT" => Chain::Output,
            _ => return None,
        };
        let (mut address, mut port, mut protocol) = (None, None, None);
        let (mut verdict, mut comment) = (None, None);
        while let Some(option) = words.next() {
            let mut value = || words.next();
            match option.as_str() {
                "-d" => address = Some((Direction::To, host(&value()?)?)),
                "-s" => address = Some((Direction::From, host(&value()?)?)),
                "-p" if protocol.is_none() => protocol = Some(transport(&value()?)?),
                // The match extensions that the other options imply.
                "-m" if matches!(value()?.as_str(), "tcp" | "udp" | "comment") => {}
                "--dport" => port = Some((Direction::To, value()?.parse().ok()?)),
                "--sport" => port = Some((Direction::From, value()?.parse().ok()?)),
                "--comment" => comment = Some(value()?),
                "-j" => verdict = Some(target(&value()?)?),
                // `-j CT --notrack`: what NOTRACK is an alias of.
                "--notrack" => {}
                _ => return None,
            }
        }
        let ((direction, address), (port_direction, port)) = (address?, port?);
        let rule = Rule { table, chain, protocol: protocol?, direction, address, port, verdict: verdict? };
        (direction == port_direction).then_some((rule, comment))
    }
}

fn transport(name: &str) -> Option<Protocol> {
    match name {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        _ => None,
    }
}

fn target(name: &str) -> Option<Verdict> {
    match name {
        "NOTRACK" | "CT" => Some(Verdict::NoTrack),
        "ACCEPT" => Some(Verdict::Accept),
        _ => None,
    }
}

/// An address with a host prefix.
fn host(text: &str) -> Option<IpAddr> {
    let (address, prefix_len) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let whole = if address.is_ipv4() { "32" } else { "128" };
    (prefix_len == whole).then_some(address)
}

/// Splits a rule at blanks outside double quotes; inside, `\` escapes as `iptables-save` writes it.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => quoted = !quoted,
            '\\' if quoted => word.extend(letters.next()),
            ' ' if !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            other => word.push(other),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = "PREROUTING -d 10.96.0.10/32 -p udp -m udp --dport 53 -m comment \
                        --comment \"NodeLocal DNS Cache: skip conntrack\" -j NOTRACK";

    fn wanted() -> Rule {
        Rule {
            table: Table::Raw,
            chain: Chain::Prerouting,
            protocol: Protocol::Udp,
            direction: Direction::To,
            address: "10.96.0.10".parse().unwrap(),
            port: 53,
            verdict: Verdict::NoTrack,
        }
    }

    fn raw(lines: &[&str]) -> Saved {
        let rules: String = lines.iter().map(|line| format!("-A {line}\n")).collect();
        Saved::parse(&format!("# Generated\n*raw\n:PREROUTING ACCEPT [0:0]\n:MINE - [0:0]\n{rules}COMMIT\n"))
    }

    #[test]
    fn what_is_printed_is_read_back() {
        assert_eq!(wanted().iptables(), RULE);
        assert_eq!(raw(&[RULE]).missing(&[wanted()]), []);
        assert_eq!(raw(&[]).missing(&[wanted()]), [wanted()]);
    }

    #[test]
    fn other_spellings_of_notrack_count() {
        let spelled = RULE.replace("-j NOTRACK", "-j CT --notrack");
        assert_eq!(raw(&[&spelled]).missing(&[wanted()]), []);
    }

    #[test]
    fn a_rule_that_matches_less_or_more_is_another_rule() {
        for (from, to) in [
            ("10.96.0.10/32", "10.96.0.0/24"),
            ("-p udp -m udp", "-p tcp -m tcp"),
            ("--dport 53", "--dport 53 -i eth0"),
            ("--dport", "--sport"),
            ("-p udp", "! -p udp"),
            ("skip conntrack", "other"),
            ("-j NOTRACK", "-j ACCEPT"),
            ("PREROUTING", "OUTPUT"),
            ("-j NOTRACK", ""),
        ] {
            let changed = RULE.replace(from, to);
            assert_eq!(raw(&[&changed]).missing(&[wanted()]), [wanted()], "{changed}");
        }
    }

    #[test]
    fn copies_include_duplicates_and_rules_without_a_comment() {
        let bare = "PREROUTING -d 10.96.0.10/32 -p udp -m udp --dport 53 -j NOTRACK";
        let foreign = RULE.replace("NodeLocal DNS Cache: skip conntrack", "mine");
        let saved = raw(&[RULE, bare, RULE, &foreign]);
        let texts: Vec<String> = saved.copies(&[wanted()]).into_iter().map(|r| r.text).collect();
        assert_eq!(texts, [RULE, bare, RULE]);
        assert_eq!(saved.commented().count(), 2);
        assert_eq!(raw(&[bare]).missing(&[wanted()]), [wanted()]);
    }

    #[test]
    fn chains_carry_their_policy() {
        assert_eq!(
            raw(&[]).chains,
            [("raw".into(), "PREROUTING".into(), "ACCEPT".into()), ("raw".into(), "MINE".into(), "-".into()),]
        );
    }
}
