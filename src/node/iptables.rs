//! node-cache's iptables rules, exactly: one read and one `iptables-restore` per family.

mod saved;

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tracing::info;

use super::command;
use super::rules::{Rule, RuleSet};

pub use saved::{Saved, SavedRule};

/// How long one run of a tool may take; its wait for the xtables lock (5 s) included.
const LIMIT: Duration = Duration::from_secs(15);
/// Untracked packets fail a firewall's rule for established ones: they are accepted before tracking
/// ends, and tracked again before they are no longer accepted.
const INSERT_ORDER: &[&str] = &["filter", "raw"];
const DELETE_ORDER: &[&str] = &["raw", "filter", "nat"];
/// A rule that vanishes between reading and deleting fails the whole transaction: read again.
const ATTEMPTS: usize = 3;

/// An address family, each with its own set of tools and tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `iptables`.
    V4,
    /// `ip6tables`.
    V6,
}

/// Which kernel interface the `iptables` on this host uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// The tables of its own (`iptables-legacy`); changes to them are not announced over netlink.
    Legacy,
    /// Tables in nftables (`iptables-nft`).
    Nft,
}

/// Why a run of an iptables tool failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such program in `PATH`.
    #[error("{program}: no such program in PATH")]
    Missing {
        /// The program.
        program: String,
    },
    /// Another program held the xtables lock for more than 5 s.
    #[error("{program}: another program holds the xtables lock")]
    Locked {
        /// The program.
        program: String,
    },
    /// The program could not be run or did not end in time.
    #[error("{program}: {source}")]
    Run {
        /// The program.
        program: String,
        /// What happened; `TimedOut` after 15 s.
        source: io::Error,
    },
    /// The program refused.
    #[error("{program}: {message}")]
    Failed {
        /// The program.
        program: String,
        /// The first lines of what it said.
        message: String,
    },
}

impl Family {
    /// Both families.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    fn program(self, suffix: &str) -> String {
        match self {
            Family::V4 => format!("iptables{suffix}"),
            Family::V6 => format!("ip6tables{suffix}"),
        }
    }

    /// The rules of this family.
    fn of(self, rules: &RuleSet) -> Vec<Rule> {
        let same = |rule: &&Rule| rule.address.is_ipv4() == (self == Family::V4);
        rules.rules().iter().filter(same).copied().collect()
    }
}

/// Reads one family's tables; makes none.
pub fn read(family: Family) -> Result<Saved, Error> {
    run(&family.program("-save"), &[], "").map(|output| Saved::parse(&output))
}

/// Which `iptables` this host has.
pub fn variant() -> Result<Variant, Error> {
    let version = run(&Family::V4.program(""), &["--version"], "")?;
    // Before 1.8 there was no other than legacy, and no word for it.
    if version.contains("nf_tables") { Ok(Variant::Nft) } else { Ok(Variant::Legacy) }
}

/// Inserts those rules of `rules` that are missing, in both families. Returns how many were.
///
/// Each goes in at the head of its chain, one after the other, so a chain shows them in the reverse
/// of node-cache's order: as with node-cache.
pub fn install(rules: &RuleSet) -> Result<usize, Error> {
    let mut inserted = 0;
    for family in Family::BOTH {
        let wanted = family.of(rules);
        if wanted.is_empty() {
            continue;
        }
        let missing = read(family)?.missing(&wanted);
        restore(family, INSERT_ORDER, |table| {
            let of_table = missing.iter().filter(|rule| rule.table.iptables() == table);
            of_table.map(|rule| format!("-I {}", rule.iptables())).collect()
        })?;
        inserted += missing.len();
    }
    Ok(inserted)
}

/// Deletes every copy of `rules`, in both families. Returns how many there were.
pub fn remove(rules: &RuleSet) -> Result<usize, Error> {
    let mut deleted = 0;
    for family in Family::BOTH {
        let doomed = family.of(rules);
        if !doomed.is_empty() {
            deleted += delete(family, |saved| saved.copies(&doomed))?;
        }
    }
    Ok(deleted)
}

/// Deletes what `select` picks, one transaction per table. Returns how many there were.
pub(super) fn delete(family: Family, select: impl Fn(&Saved) -> Vec<SavedRule>) -> Result<usize, Error> {
    let mut attempt = 1;
    loop {
        let doomed = select(&read(family)?);
        let outcome = restore(family, DELETE_ORDER, |table| {
            let of_table = doomed.iter().filter(|rule| rule.table == table);
            of_table.map(|rule| format!("-D {}", rule.text)).collect()
        });
        match outcome {
            Ok(()) => return Ok(doomed.len()),
            Err(Error::Failed { .. }) if attempt < ATTEMPTS => attempt += 1,
            Err(e) => return Err(e),
        }
    }
}

/// Deletes, in one family, whatever carries node-cache's comment and is not for an address in `elsewhere`: there
/// somebody else answers. Returns how many there were.
///
/// Its own rules go in one transaction. Those that some other version made go one at a time: one that cannot be
/// deleted must not keep the others.
pub fn remove_commented(family: Family, elsewhere: &[IpAddr]) -> Result<usize, Error> {
    let program = family.program("");
    if read(family)?.leftovers(elsewhere).next().is_none() {
        return Ok(0);
    }
    let shaped =
        |saved: &Saved| saved.leftovers(elsewhere).filter(|rule| rule.ours().is_some()).cloned().collect();
    // What this refuses is tried again below.
    let mut deleted = delete(family, shaped).unwrap_or(0);
    let mut first_failure = None;
    let failed = |message: String| Error::Failed { program: program.clone(), message };
    for rule in read(family)?.leftovers(elsewhere) {
        let mut tool = iptables::new(family == Family::V6).map_err(|e| failed(e.to_string()))?;
        // The crate would wait for the xtables lock without end, and its `exists` and `list` take every
        // failure for "no such rule": hence our own wait, and the exit status.
        tool.has_wait = false;
        let command = format!("-w 5 -D {}", rule.text);
        let output = tool.execute(&rule.table, &command).map_err(|e| failed(e.to_string()))?;
        if output.status.success() {
            deleted += 1;
        } else {
            let message = String::from_utf8_lossy(&output.stderr).into_owned();
            first_failure = first_failure.or(Some(refusal(&program, &message)));
        }
    }
    if deleted > 0 {
        info!(program, "{deleted} leftover rules deleted");
    }
    first_failure.map_or(Ok(deleted), Err)
}

/// Applies the lines of each table in one run, one transaction per table; other rules stay.
fn restore(family: Family, order: &[&str], lines: impl Fn(&str) -> Vec<String>) -> Result<(), Error> {
    let mut script = String::new();
    for table in order {
        let lines = lines(table);
        if !lines.is_empty() {
            script.push_str(&format!("*{table}\n{}\nCOMMIT\n", lines.join("\n")));
        }
    }
    if script.is_empty() {
        return Ok(());
    }
    apply(family, &script)
}

/// Applies a script of `iptables-restore` to one family, one transaction per table in it; rules that
/// it does not name stay.
pub(super) fn apply(family: Family, script: &str) -> Result<(), Error> {
    run(&family.program("-restore"), &["-w", "5", "--noflush"], script).map(|_| ())
}

fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, Error> {
    let output = command::run(program, arguments, input, LIMIT).map_err(|source| {
        let program = program.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Error::Missing { program },
            _ => Error::Run { program, source },
        }
    })?;
    if output.status.success() { Ok(output.stdout) } else { Err(refusal(program, &output.stderr)) }
}

/// Tells the xtables lock from other refusals, by the words that node-cache looks for too.
fn refusal(program: &str, stderr: &str) -> Error {
    let program = program.to_owned();
    if stderr.contains("holding the xtables lock") {
        return Error::Locked { program };
    }
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.is_empty()).take(3).collect();
    let message = lines.join("; ");
    Error::Failed { program, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_is_told_from_a_refusal() {
        let held = "Another app is currently holding the xtables lock; still 1s 0us time ahead \
                    to have a chance to grab the lock...\n";
        assert!(matches!(refusal("x", held), Error::Locked { .. }));
        let other = refusal("iptables-restore", "iptables-restore: line 3 failed\n\nmore\n");
        assert_eq!(other.to_string(), "iptables-restore: iptables-restore: line 3 failed; more");
    }
}
