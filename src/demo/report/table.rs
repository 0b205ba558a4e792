//! The report as a table: a column for each setting and way, a line for each figure.

use std::fmt;

use super::{Measurement, Report};
use crate::demo::Setting;

const LABEL: usize = 20;
const COLUMN: usize = 9;
const WIDTH: usize = LABEL + 2 * COLUMN * Setting::ALL.len();

type Figure = fn(&Measurement) -> String;

const FIGURES: [(&str, Figure); 12] = [
    ("queries", |it| it.total().queries.to_string()),
    ("lost", |it| it.total().lost.to_string()),
    ("  iptables-like", |it| it.tallies[0].lost.to_string()),
    ("  nftables-like", |it| it.tallies[1].lost.to_string()),
    ("answer after 1 s", |it| it.total().past_1s.to_string()),
    ("answer after 5 s", |it| it.total().past_5s.to_string()),
    ("clashes resolved", |it| it.statistics.clash_resolve.map_or("?".into(), |count| count.to_string())),
    ("insert_failed", |it| it.statistics.insert_failed.to_string()),
    ("conntrack entries", |it| it.entries.to_string()),
    ("p50, ms", |it| milliseconds(it.total().percentile(50))),
    ("p99, ms", |it| milliseconds(it.total().percentile(99))),
    ("CPU us a query", |it| it.processor_time_per_query().map_or("".into(), |spent| format!("{spent:.1}"))),
];

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        for line in 0..2 {
            row(f, "", 2 * COLUMN, Setting::ALL.iter().map(|setting| setting.title()[line].to_owned()))?;
        }
        let ways = ["direct", "Doorstep"].map(str::to_owned);
        row(f, "", COLUMN, Setting::ALL.iter().flat_map(|_| ways.clone()))?;
        let measurements = self.direct.measurements.iter().zip(&self.doorstep.measurements);
        for (label, figure) in FIGURES {
            let cells =
                measurements.clone().flat_map(|(direct, doorstep)| [figure(direct), figure(doorstep)]);
            row(f, label, COLUMN, cells)?;
        }
        writeln!(f, "\n{}", wrapped(&self.in_plain_words()))
    }
}

fn row(
    f: &mut fmt::Formatter<'_>,
    label: &str,
    width: usize,
    cells: impl Iterator<Item = String>,
) -> fmt::Result {
    let line = cells.fold(format!("{label:<LABEL$}"), |line, cell| format!("{line}{cell:>width$}"));
    writeln!(f, "{}", line.trim_end())
}

fn milliseconds(microseconds: u64) -> String {
    let value = microseconds as f64 / 1000.0;
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + 1 + word.len() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}
