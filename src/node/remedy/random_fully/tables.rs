//! `masquerade` in nftables.

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, Nla};
use netlink_packet_netfilter::nftables::{
    ExpressionAttribute, Expressions, ListAttribute, Lookup, NfTablesMessage, RuleAttribute, RuleMessage,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use rustix::io::Errno;
use tracing::warn;

use super::{COMMENT, Lacking};
use crate::node::netlink::{Connection, Error};
use crate::node::nftables::survey::{
    MASQUERADE_FLAGS, RANDOM_FULLY, expression, family_name, masquerade_flags,
};
use crate::node::nftables::{comment_of, comment_userdata};

type Steps = Vec<ListAttribute<ExpressionAttribute>>;

/// A rule.
struct Rule {
    family: NetfilterProtoFamily,
    table: String,
    chain: String,
    handle: u64,
    steps: Steps,
    ours: bool,
}

/// The rules that lack the flag, ours and iptables' aside.
pub(super) fn lacking() -> Result<Vec<Lacking>, Error> {
    let lack = |rule: &&Rule| !rule.ours && !is_random(&rule.steps);
    Ok(with_connection(read)?.iter().filter(lack).map(shown).collect())
}

fn shown(rule: &Rule) -> Lacking {
    Lacking {
        place: format!("nftables table {} {}", family_name(rule.family), rule.table),
        rule: format!("chain {}, the rule with handle {}", rule.chain, rule.handle),
    }
}

/// Sets a copy with the flag before each that lacks it, takes copies of what is gone, and notes where
/// they are. Returns how many rules it changed.
pub(super) fn apply(places: &mut Vec<(String, String)>) -> Result<usize, Error> {
    with_connection(|connection| {
        let rules = read(connection)?;
        let mut batch = Vec::new();
        let mut needed = Vec::new();
        for rule in rules.iter().filter(|rule| !rule.ours && !is_random(&rule.steps)) {
            places.push((rule.table.clone(), rule.chain.clone()));
            if uses_unnamed_set(&rule.steps) {
                let Lacking { place, rule } = shown(rule);
                warn!(
                    "random-fully: {place}: {rule} looks into a set without a name, which no copy may: give it fully-random"
                );
                continue;
            }
            let wanted = randomised(&rule.steps);
            let is_copy = |other: &&Rule| {
                other.ours && other.chain == rule.chain && other.table == rule.table && other.steps == wanted
            };
            match rules.iter().filter(is_copy).find(|other| !needed.contains(&other.handle)) {
                Some(copy) => needed.push(copy.handle),
                None => batch.push((insertion(rule, wanted), NLM_F_CREATE)),
            }
        }
        let surplus = rules.iter().filter(|rule| rule.ours && !needed.contains(&rule.handle));
        batch.extend(surplus.map(|rule| (deletion(rule), 0)));
        if batch.is_empty() {
            return Ok(0);
        }
        let changes = batch.len();
        connection.transaction("set rules before masquerades", batch).map(|()| changes)
    })
}

/// Removes ours.
pub(super) fn remove() -> Result<(), Error> {
    with_connection(|connection| {
        let rules = read(connection)?;
        let batch: Vec<_> = rules.iter().filter(|rule| rule.ours).map(|rule| (deletion(rule), 0)).collect();
        if batch.is_empty() {
            Ok(())
        } else {
            connection.transaction("remove rules before masquerades", batch)
        }
    })
}

/// A kernel without nftables has no rules.
fn with_connection<T: Default>(work: impl FnOnce(&mut Connection) -> Result<T, Error>) -> Result<T, Error> {
    match Connection::netfilter().and_then(|mut connection| work(&mut connection)) {
        Err(Error::Socket { errno: Errno::PROTONOSUPPORT, .. }) => Ok(T::default()),
        outcome => outcome,
    }
}

/// Every rule with a masquerade, in order, except in tables that iptables-nft keeps: it alone may
/// change those. They have its chains, by names that it writes large.
fn read(connection: &mut Connection) -> Result<Vec<Rule>, Error> {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0);
    let request = NfTablesMessage::GetRule(RuleMessage { attributes: Vec::new() });
    let mut of_iptables = Vec::new();
    let all = connection.dump("list nftables rules", NetfilterMessage::new(header, request))?;
    let mut rules: Vec<Rule> = all.into_iter().filter_map(rule).collect();
    for rule in rules.iter().filter(|rule| rule.table == "nat" && rule.chain == "POSTROUTING") {
        of_iptables.push(rule.family);
    }
    rules.retain(|rule| {
        let is_iptables = rule.table == "nat" && rule.family != NetfilterProtoFamily::Inet;
        rule.steps.iter().any(|step| masquerade(step).is_some())
            && !(is_iptables && of_iptables.contains(&rule.family))
    });
    Ok(rules)
}

fn rule(message: NetfilterMessage) -> Option<Rule> {
    let family = message.header.family;
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(rule)) = message.inner else {
        return None;
    };
    let (mut table, mut chain, mut handle, mut steps, mut ours) = (None, None, None, None, false);
    for attribute in rule.attributes {
        match attribute {
            RuleAttribute::Table(name) => table = Some(name),
            RuleAttribute::Chain(name) => chain = Some(name),
            RuleAttribute::Handle(number) => handle = Some(number),
            RuleAttribute::Expressions(list) => steps = Some(list),
            RuleAttribute::UserData(bytes) => ours = comment_of(&bytes).as_deref() == Some(COMMENT),
            _ => {}
        }
    }
    Some(Rule { family, table: table?, chain: chain?, handle: handle?, steps: steps?, ours })
}

/// The flags, if the step is a masquerade.
fn masquerade(step: &ListAttribute<ExpressionAttribute>) -> Option<u32> {
    expression(step, "masq").map(masquerade_flags)
}

fn is_random(steps: &Steps) -> bool {
    steps.iter().filter_map(masquerade).all(|flags| flags & RANDOM_FULLY != 0)
}

/// The same steps with the flag, and with counters at zero: a counter's content is not the rule's.
fn randomised(steps: &Steps) -> Steps {
    let step = |step: &ListAttribute<ExpressionAttribute>| match expression(step, "masq") {
        Some(data) => {
            let bytes = (masquerade_flags(data) | RANDOM_FULLY).to_be_bytes().to_vec();
            let mut attributes = vec![DefaultNla::new(MASQUERADE_FLAGS, bytes)];
            // The registers that hold the ports of `to`.
            if let Some(Expressions::Other { attributes: others, .. }) = data {
                attributes.extend(others.iter().filter(|other| other.kind() != MASQUERADE_FLAGS).cloned());
            }
            Expressions::Other { expression_type: "masq".into(), attributes }.into()
        }
        None => step.clone(),
    };
    steps.iter().filter(|step| expression(step, "counter").is_none()).map(step).collect()
}

/// `nft` calls the sets that it makes for one rule `__set%d` and `__map%d`.
fn uses_unnamed_set(steps: &Steps) -> bool {
    let looks = |part: &ExpressionAttribute| match part {
        ExpressionAttribute::Data(Expressions::Lookup(attributes)) => {
            attributes.iter().any(|a| matches!(a, Lookup::Set(name) if name.starts_with("__")))
        }
        _ => false,
    };
    steps.iter().any(|step| matches!(step, ListAttribute::Element(parts) if parts.iter().any(looks)))
}

fn message(rule: &Rule, attributes: Vec<RuleAttribute>) -> RuleMessage {
    let mut all = vec![RuleAttribute::Table(rule.table.clone()), RuleAttribute::Chain(rule.chain.clone())];
    all.extend(attributes);
    RuleMessage { attributes: all }
}

/// Without `NLM_F_APPEND` a rule goes before the one at its position.
fn insertion(rule: &Rule, steps: Steps) -> NetfilterMessage {
    let attributes = vec![
        RuleAttribute::Position(rule.handle),
        RuleAttribute::Expressions(steps),
        RuleAttribute::UserData(comment_userdata(COMMENT)),
    ];
    let header = NetfilterHeader::new(rule.family, 0, 0);
    NetfilterMessage::new(header, NfTablesMessage::NewRule(message(rule, attributes)))
}

fn deletion(rule: &Rule) -> NetfilterMessage {
    let header = NetfilterHeader::new(rule.family, 0, 0);
    let attributes = vec![RuleAttribute::Handle(rule.handle)];
    NetfilterMessage::new(header, NfTablesMessage::DeleteRule(message(rule, attributes)))
}
