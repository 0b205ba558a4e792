//! What is to stand in a table: base chains and rules.

use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook, InetHookNumber, RuleAttribute, RuleMessage,
};

use super::comment_userdata;
use super::expression::{Step, steps, to_kernel};
use crate::node::rules::{Chain, Rule, RuleSet, Table as RuleTable};

/// NF_IP_PRI_RAW: before conntrack at -200.
const PRIORITY_RAW: i32 = -300;
/// NF_IP_PRI_FILTER.
const PRIORITY_FILTER: i32 = 0;
/// NF_DROP, NF_ACCEPT.
const POLICY_DROP: u32 = 0;
const POLICY_ACCEPT: u32 = 1;

/// The wanted chains and rules of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The chains.
    pub chains: Vec<BaseChain>,
    /// The rules, in order.
    pub rules: Vec<ListedRule>,
}

/// A chain of type filter and policy accept, at a hook of the family `inet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseChain {
    /// The chain's name.
    pub name: String,
    /// Where it hooks in.
    pub hook: InetHookNumber,
    /// Before which others.
    pub priority: i32,
}

/// What of a rule is written and compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRule {
    /// The chain it is in.
    pub chain: String,
    /// The comment, as `nft` shows it.
    pub comment: Option<String>,
    /// Matches and verdict; `None`: read from the kernel, and not one of ours.
    pub steps: Option<Vec<Step>>,
}

impl Contents {
    /// `rules` in four chains, each named after the iptables table and chain whose place it takes.
    pub fn of(rules: &RuleSet) -> Contents {
        use InetHookNumber::{LocalIn, LocalOut, PreRouting};
        let chain = |table, chain, hook| BaseChain {
            name: chain_name(table, chain),
            hook,
            priority: if table == RuleTable::Raw { PRIORITY_RAW } else { PRIORITY_FILTER },
        };
        let rule = |rule: Rule| ListedRule {
            chain: chain_name(rule.table, rule.chain),
            comment: Some(rule.comment().to_owned()),
            steps: Some(steps(&rule)),
        };
        Contents {
            chains: vec![
                chain(RuleTable::Raw, Chain::Prerouting, PreRouting),
                chain(RuleTable::Raw, Chain::Output, LocalOut),
                chain(RuleTable::Filter, Chain::Input, LocalIn),
                chain(RuleTable::Filter, Chain::Output, LocalOut),
            ],
            rules: rules.rules().iter().copied().map(rule).collect(),
        }
    }
}

fn chain_name(table: RuleTable, chain: Chain) -> String {
    format!("{}_{}", table.iptables(), chain.iptables().to_lowercase())
}

/// The table and chain whose place one of our chains takes, by its name.
pub(super) fn base_chain(name: &str) -> Option<(RuleTable, Chain)> {
    use {Chain::*, RuleTable::*};
    let chains = [(Raw, Prerouting), (Raw, Output), (Filter, Input), (Filter, Output)];
    chains.into_iter().find(|&(table, chain)| chain_name(table, chain) == name)
}

/// Table and chain, if it hooks in where packets are forwarded and its policy drops.
pub(super) fn forward_drop(chain: &ChainMessage) -> Option<String> {
    let (mut table, mut name, mut hooks, mut drops) = ("", "", false, false);
    for attribute in &chain.attributes {
        match attribute {
            ChainAttribute::Table(text) => table = text,
            ChainAttribute::Name(text) => name = text,
            ChainAttribute::Policy(policy) => drops = *policy == POLICY_DROP,
            ChainAttribute::Hook(hook) => {
                hooks = hook.contains(&Hook::Number(InetHookNumber::Forward.into()))
            }
            _ => {}
        }
    }
    (hooks && drops).then(|| format!("{table} {name}"))
}

impl BaseChain {
    /// A chain before conntrack.
    pub fn raw(name: &str, hook: InetHookNumber) -> BaseChain {
        BaseChain { name: name.into(), hook, priority: PRIORITY_RAW }
    }

    pub(super) fn message(&self, table: &str) -> ChainMessage {
        let priority = Hook::Priority(self.priority.cast_unsigned());
        ChainMessage {
            attributes: vec![
                ChainAttribute::Table(table.into()),
                ChainAttribute::Name(self.name.clone()),
                ChainAttribute::Hook(vec![Hook::Number(self.hook.into()), priority]),
                ChainAttribute::Policy(POLICY_ACCEPT),
                ChainAttribute::Type("filter".into()),
            ],
        }
    }
}

impl ListedRule {
    pub(super) fn message(&self, table: &str) -> RuleMessage {
        let steps = self.steps.iter().flatten().map(to_kernel).collect();
        let mut attributes = vec![
            RuleAttribute::Table(table.into()),
            RuleAttribute::Chain(self.chain.clone()),
            RuleAttribute::Expressions(steps),
        ];
        attributes.extend(self.comment.as_deref().map(comment_userdata).map(RuleAttribute::UserData));
        RuleMessage { attributes }
    }
}
