//! What is printed.

use std::fmt;

use super::traffic::{Outcome, Tally};

pub struct Row<'a> {
    pub name: &'a str,
    pub times: usize,
    pub outcome: Outcome,
}

#[derive(Default)]
pub struct Table(Vec<String>);

impl Table {
    /// Adds a line and returns it.
    pub fn add(&mut self, row: &Row<'_>) -> String {
        let Outcome { udp, tcp } = &row.outcome;
        let waits = |tally: &Tally| format!("{:.1}", tally.longest.as_secs_f64() * 1e3);
        let line = format!(
            "{:<32} {:>5} {:>9} {:>6} {:>9} {:>8} {:>5} {:>9} {:>8}",
            row.name,
            row.times,
            udp.sent,
            udp.lost(),
            waits(udp),
            tcp.sent,
            tcp.lost(),
            waits(tcp),
            tcp.reopened
        );
        self.0.push(line.clone());
        line
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<32} {:>5} {:>9} {:>6} {:>9} {:>8} {:>5} {:>9} {:>8}",
            "event", "times", "UDP sent", "lost", "longest", "TCP sent", "lost", "longest", "reopened"
        )?;
        self.0.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        write!(f, "longest: milliseconds to the slowest answer; reopened: TCP connections")
    }
}
