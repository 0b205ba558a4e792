//! The checks: pure functions from facts to findings.

mod conntrack;
mod firewall;
mod network;
mod pods;
mod process;
mod race;
mod rules;
#[cfg(test)]
mod tests;

use super::facts::Facts;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Queries may be lost or are slower than they need be.
    Warning,
    /// Queries are lost.
    Critical,
}

/// Something to look for.
#[derive(Debug)]
pub struct Check {
    /// The finding's name; it does not change between versions.
    pub id: &'static str,
    /// What is wrong, in one line.
    pub headline: &'static str,
    /// What it does to queries.
    pub meaning: &'static str,
    /// What to do.
    pub remedy: &'static str,
    /// Looks.
    examine: fn(&Facts) -> Option<Symptom>,
}

/// What a check saw.
struct Symptom {
    severity: Severity,
    evidence: String,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its name.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub headline: &'static str,
    /// What was seen, a line for each thing.
    pub evidence: String,
    /// What it does to queries.
    pub meaning: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

impl Check {
    /// The finding, if there is one.
    pub fn run(&self, facts: &Facts) -> Option<Finding> {
        let Symptom { severity, evidence } = (self.examine)(facts)?;
        let Check { id, headline, meaning, remedy, .. } = *self;
        Some(Finding { id, severity, headline, evidence, meaning, remedy })
    }
}

/// Every check.
pub fn all() -> impl Iterator<Item = &'static Check> {
    let groups: [&'static [Check]; 8] = [
        rules::CHECKS,
        process::CHECKS,
        race::CHECKS,
        conntrack::CHECKS,
        firewall::CHECKS,
        network::CHECKS,
        pods::CHECKS,
        UNREAD,
    ];
    groups.into_iter().flatten()
}

const UNREAD: &[Check] = &[Check {
    id: "could-not-read",
    headline: "Not everything could be looked at",
    meaning: "What these would show is not among the findings.",
    remedy: "Run it as root, in the node's network and process namespaces, with iptables-save in PATH.",
    examine: |facts| {
        let named: std::collections::BTreeSet<&String> = facts.unread.iter().collect();
        some_lines(Severity::Note, named)
    },
}];

fn symptom(severity: Severity, evidence: impl Into<String>) -> Option<Symptom> {
    Some(Symptom { severity, evidence: evidence.into() })
}

/// A line for each; without any, no symptom. Of many the first ones, and their number.
fn some_lines<T: ToString>(severity: Severity, lines: impl IntoIterator<Item = T>) -> Option<Symptom> {
    const SHOWN: usize = 4;
    let lines: Vec<String> = lines.into_iter().map(|line| line.to_string()).collect();
    let mut evidence = lines.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("\n");
    if lines.len() > SHOWN {
        evidence.push_str(&format!("\nand {} more", lines.len() - SHOWN));
    }
    (!lines.is_empty()).then_some(Symptom { severity, evidence })
}
