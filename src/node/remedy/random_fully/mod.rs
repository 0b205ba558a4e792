//! MASQUERADE rules that keep a source port where they can: two pods that use the same port toward one
//! server get the same tuple, and the second packet is dropped (`insert_failed`). With
//! `--random-fully` each gets a port of its own.
//!
//! Our copy of such a rule stands right before it, with the same matches and the flag. It masquerades
//! what would be masqueraded anyway, so one that a killed process leaves does no harm.

mod legacy;
mod tables;

use std::fmt::Write;

use tracing::warn;

use super::Remedy;
use crate::node::iptables::{self, Family};
use crate::node::monitor::Change;
use crate::node::{Drift, Error, Kept};

pub use legacy::{is_ours, lacks};

/// The comment of our rules.
pub(in crate::node) const COMMENT: &str = "doorstep remedy random-fully";

/// What the operator says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Config {
    /// `-apply`: set our rules, do not only report.
    pub apply: bool,
}

/// A rule that lacks the flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    /// `iptables`, `ip6tables`, or the nftables family and table.
    pub place: String,
    /// The chain, and for iptables the rule.
    pub rule: String,
}

/// The remedy, at work from its first [`Kept::reconcile`].
#[derive(Debug, Default)]
pub struct RandomFully {
    /// Where rules without the flag were at the last look: (table, chain).
    places: Option<Vec<(String, String)>>,
}

impl RandomFully {
    /// Says what to mind; changes nothing yet.
    pub fn new() -> RandomFully {
        warn!(
            "random-fully: where a query to a ClusterIP is masqueraded as well (kube-proxy --masquerade-all), \
             two queries of one socket that meet the same kube-dns pod no longer share an entry: more of \
             them race"
        );
        RandomFully::default()
    }
}

impl Kept for RandomFully {
    fn reconcile(&mut self) -> Drift {
        let mut drift = Drift::default();
        let mut places = Vec::new();
        let mut outcomes = Vec::new();
        for family in Family::BOTH {
            match iptables::read(family) {
                Ok(saved) => {
                    places.extend(legacy::places(&saved));
                    outcomes.push(legacy::apply(family, &saved).map_err(Error::Iptables));
                }
                Err(iptables::Error::Missing { program }) => {
                    if self.places.is_none() {
                        warn!("random-fully: no {program} in PATH: rules of iptables stay as they are");
                    }
                }
                Err(e) => drift.errors.push(Error::Iptables(e)),
            }
        }
        outcomes.push(tables::apply(&mut places).map_err(Error::Nftables));
        for outcome in outcomes {
            match outcome {
                Ok(changed) => drift.rules += changed,
                Err(e) => drift.errors.push(e),
            }
        }
        if self.places.replace(places).is_none() {
            drift.rules = 0;
        }
        drift
    }

    /// Only a change where rules without the flag are; new places are found at the interval.
    fn concerned_by(&self, change: Change<'_>) -> bool {
        let Change::Rules { table: Some(table), chain } = change else { return false };
        self.places
            .iter()
            .flatten()
            .any(|(its_table, its_chain)| its_table == table && chain.is_none_or(|chain| its_chain == chain))
    }
}

impl Remedy for RandomFully {
    fn name(&self) -> &'static str {
        "random-fully"
    }

    fn undo(&mut self) -> Vec<Error> {
        clean()
    }
}

/// Removes our rules, whoever set them.
pub(super) fn clean() -> Vec<Error> {
    let mut errors: Vec<Error> = tables::remove().err().map(Error::Nftables).into_iter().collect();
    for family in Family::BOTH {
        match legacy::remove(family) {
            // Nobody can have written rules without the tool.
            Err(iptables::Error::Missing { .. }) | Ok(()) => {}
            Err(e) => errors.push(Error::Iptables(e)),
        }
    }
    errors
}

/// What was found, and what could not be looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The rules that lack the flag, in iptables and in nftables.
    pub lacking: Vec<Lacking>,
    /// Programs that are missing: Doorstep's own image has no iptables.
    pub missing: Vec<String>,
}

/// Looks for rules that lack the flag.
pub fn lacking() -> Result<Found, Error> {
    let mut found = Found::default();
    for family in Family::BOTH {
        match iptables::read(family) {
            Ok(saved) => found.lacking.extend(legacy::lacking(family, &saved)),
            Err(iptables::Error::Missing { program }) => found.missing.push(program),
            Err(e) => return Err(Error::Iptables(e)),
        }
    }
    found.lacking.extend(tables::lacking().map_err(Error::Nftables)?);
    Ok(found)
}

/// `found` in words, for the terminal.
pub fn report(found: &Found) -> String {
    let Found { lacking, missing } = found;
    let mut text = match (lacking.len(), missing.is_empty()) {
        (0, true) => "Every MASQUERADE rule chooses its port at random, or there is none.\n".into(),
        (0, false) => "No rule of nftables masquerades and keeps source ports.\n".into(),
        (count, _) => format!("{count} MASQUERADE rules keep source ports where they can:\n"),
    };
    for Lacking { place, rule } in lacking {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {place}: {rule}");
    }
    if !lacking.is_empty() {
        text.push_str(
            "Two pods that use the same port toward one server clash there, and a packet is dropped.\n\
             `doorstep remedy random-fully -apply` sets a rule with --random-fully before each.\n",
        );
    }
    for program in missing {
        let _ = writeln!(text, "No {program} in PATH: what rules iptables has was not looked at.");
    }
    text
}
