//! What was measured: a data file, and the table that is printed from it.

use std::fmt::Write;

/// Measures in the table's order: key, label, unit, digits after the point.
pub const MEASURES: [(&str, &str, &str, usize); 24] = [
    ("hit_closed", "CPU per hit, closed loop", "µs", 2),
    ("hit_closed_rate", "hits a second, closed loop", "k/s", 0),
    ("hit_paced", "CPU per hit at 20 000/s", "µs", 2),
    ("hit_paced_p50", "p50 at 20 000/s", "µs", 0),
    ("hit_paced_p99", "p99 at 20 000/s", "µs", 0),
    ("miss", "CPU per miss at 8 000/s", "µs", 1),
    ("miss_lost", "misses lost or failed", "%", 2),
    ("prompt_miss", "CPU per miss, upstream without Nagle", "µs", 1),
    ("prompt_miss_lost", "such misses lost or failed", "%", 2),
    ("flood_hit_ratio", "warm names' hit ratio in a flood", "", 3),
    ("flood_p99", "warm names' p99: flood over before", "×", 2),
    ("pss_idle", "Pss, idle", "MiB", 1),
    ("pss_10k", "Pss, 10 000 entries", "MiB", 1),
    ("pss_flood", "Pss after the flood of names", "MiB", 1),
    ("start", "start to first answer", "ms", 1),
    ("binary", "binary, stripped", "MiB", 1),
    ("shape_aaaa", "hit AAAA over A: CPU", "×", 2),
    ("shape_nxdomain", "hit NXDOMAIN over A: CPU", "×", 2),
    ("shape_mixed_case", "hit mixed case over A: CPU", "×", 2),
    ("shape_edns", "hit with EDNS over A: CPU", "×", 2),
    ("shape_large", "hit of 24 addresses over A: CPU", "×", 2),
    ("shape_stale", "stale hit over A: CPU", "×", 2),
    ("threads_cpu", "2 UDP threads over 1: CPU per hit", "×", 2),
    ("threads_rate", "2 UDP threads over 1: hits a second", "×", 2),
];

/// One number.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub measure: String,
    pub server: String,
    pub value: f64,
    /// Over the floor's, round by round; the median.
    pub ratio: Option<f64>,
}

/// All of a run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Results {
    /// Where and how, one fact a line.
    pub notes: Vec<String>,
    pub records: Vec<Record>,
}

impl Results {
    /// Adds a number.
    pub fn add(&mut self, measure: &str, server: &str, value: f64, ratio: Option<f64>) {
        let (measure, server) = (measure.to_owned(), server.to_owned());
        self.records.push(Record { measure, server, value, ratio });
    }

    /// Adds rounds of one measure, `rounds[round][server]`: medians, and medians of the ratios to the
    /// first server, which is the floor.
    pub fn add_rounds(&mut self, measure: &str, servers: &[&str], rounds: &[Vec<f64>]) {
        for (at, server) in servers.iter().enumerate() {
            let value = median(rounds.iter().map(|round| round[at]).collect());
            let ratio = median(rounds.iter().map(|round| round[at] / round[0]).collect());
            self.add(measure, server, value, Some(ratio));
        }
    }

    /// The number of a measure and server.
    pub fn get(&self, measure: &str, server: &str) -> Option<&Record> {
        self.records.iter().find(|record| record.measure == measure && record.server == server)
    }

    /// Servers in the order in which they first occur.
    pub fn servers(&self) -> Vec<&str> {
        let mut servers = Vec::new();
        for record in &self.records {
            if !servers.contains(&record.server.as_str()) {
                servers.push(&record.server);
            }
        }
        servers
    }

    /// Tab-separated: measure, unit, server, value, ratio to the floor: the echo, or of misses the relay.
    pub fn to_tsv(&self) -> String {
        let mut text: String = self.notes.iter().map(|note| format!("# {note}\n")).collect();
        text.push_str("measure\tunit\tserver\tvalue\tover_floor\n");
        for Record { measure, server, value, ratio } in &self.records {
            let unit = MEASURES.iter().find(|(key, ..)| key == measure).map_or("", |(_, _, unit, _)| unit);
            let ratio = ratio.map_or(String::new(), |ratio| format!("{ratio:.4}"));
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{measure}\t{unit}\t{server}\t{value:.4}\t{ratio}");
        }
        text
    }

    /// Reads what [`Results::to_tsv`] wrote; `None` if it is something else.
    pub fn from_tsv(text: &str) -> Option<Results> {
        let mut results = Results::default();
        for line in text.lines() {
            if let Some(note) = line.strip_prefix("# ") {
                results.notes.push(note.to_owned());
            } else if !line.starts_with("measure\t") {
                let [measure, _, server, value, ratio] = *line.split('\t').collect::<Vec<_>>() else {
                    return None;
                };
                results.add(measure, server, value.parse().ok()?, ratio.parse().ok());
            }
        }
        Some(results)
    }

    /// A line per measure, a column per server; in parentheses the ratio to the floor.
    pub fn to_table(&self) -> String {
        let servers = self.servers();
        let mut text = self.notes.iter().map(|note| format!("{note}\n")).collect::<String>();
        let _ = write!(text, "\n{:<42}", "");
        text.extend(servers.iter().map(|server| format!("{server:>15}")));
        text.push('\n');
        for (key, label, unit, digits) in MEASURES {
            if !self.records.iter().any(|record| record.measure == key) {
                continue;
            }
            let label = if unit.is_empty() { label.to_owned() } else { format!("{label}, {unit}") };
            let _ = write!(text, "{label:<42}");
            for server in &servers {
                let cell = self.get(key, server).map_or("·".to_owned(), |record| cell(record, digits));
                let _ = write!(text, "{cell:>15}");
            }
            text.push('\n');
        }
        text
    }
}

fn cell(record: &Record, digits: usize) -> String {
    let value = format!("{:.digits$}", record.value);
    record.ratio.map_or(value.clone(), |ratio| format!("{value} ({ratio:.2})"))
}

/// The middle of `numbers`.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    match numbers.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => numbers[len / 2],
        len => f64::midpoint(numbers[len / 2 - 1], numbers[len / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_file_reads_as_it_was_written() {
        let mut results = Results { notes: vec!["kernel 6".into()], ..Results::default() };
        results.add_rounds(
            "hit_closed",
            &["echo", "doorstep"],
            &[vec![4.0, 5.0], vec![8.0, 8.0], vec![2.0, 3.0]],
        );
        results.add("binary", "doorstep", 3.5, None);
        assert_eq!(results.get("hit_closed", "doorstep").unwrap().ratio, Some(1.25));
        assert_eq!(results.get("hit_closed", "echo").unwrap().value, 4.0);
        assert_eq!(Results::from_tsv(&results.to_tsv()), Some(results.clone()));
        assert!(results.to_table().contains("5.00 (1.25)"), "{}", results.to_table());
        assert_eq!(Results::from_tsv("something else"), None);
    }
}
