//! Counters that go from one process to the next, so that a replacement is no reset.
//!
//! One line a series, fields between tabs: family, value, label values in the family's order. A
//! histogram's value is its sum and its counts, with commas between.

use super::names::{self, Description, Kind};
use super::snapshot::{Snapshot, Value};

/// A series as it stood at the end of another process.
#[derive(Debug, Clone, PartialEq)]
pub struct Inherited {
    /// Of which family.
    pub family: &'static Description,
    /// In the family's order.
    pub labels: Vec<String>,
    /// What was counted.
    pub value: Value,
}

/// Counters and histograms of `snapshot`, as text.
pub fn write(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    for samples in snapshot.families().filter(|samples| !matches!(samples.family.kind, Kind::Gauge)) {
        for (values, value) in &samples.values {
            let mut fields = vec![samples.family.name.to_owned(), show(value)];
            for label in samples.family.labels {
                let at = samples.label_names.iter().position(|name| name == label);
                let value = at.and_then(|at| values.get(at)).map_or("", String::as_str);
                fields.push(value.replace(['\t', '\n'], " "));
            }
            text.push_str(&fields.join("\t"));
            text.push('\n');
        }
    }
    text
}

/// What [`write`] wrote, perhaps in another version: families that are not as they were are left out.
pub fn read(text: &str) -> Vec<Inherited> {
    text.lines().filter_map(read_line).collect()
}

fn read_line(line: &str) -> Option<Inherited> {
    let mut fields = line.split('\t');
    let name = fields.next()?;
    let family = *names::ALL.iter().find(|family| family.name == name)?;
    let value = parse(fields.next()?, family)?;
    let labels: Vec<String> = fields.map(str::to_owned).collect();
    (labels.len() == family.labels.len()).then_some(Inherited { family, labels, value })
}

fn show(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        Value::Histogram { counts, sum } => {
            let numbers = counts.iter().map(u64::to_string);
            std::iter::once(sum.to_string()).chain(numbers).collect::<Vec<_>>().join(",")
        }
    }
}

fn parse(text: &str, family: &Description) -> Option<Value> {
    match family.kind {
        Kind::Counter => Some(Value::Number(text.parse().ok()?)),
        Kind::Gauge => None,
        Kind::Histogram(bounds) => {
            let (sum, counts) = text.split_once(',')?;
            let counts: Vec<u64> = counts.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
            let sum = sum.parse().ok()?;
            (counts.len() == bounds.len() + 1).then_some(Value::Histogram { counts, sum })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::Registry;

    #[test]
    fn a_replacement_goes_on_where_the_one_before_ended() {
        let (old, new) = (Registry::new(), Registry::new());
        old.counter(&names::DROPPED, ["short"]).add(3);
        old.histogram(&names::HEALTH_REQUEST_DURATION, []).observe(Duration::from_millis(1));
        old.gauge(&names::TCP_CONNECTIONS, []).set(5);
        old.counter_of(names::OUTSIDE, &names::WORKER_STARTS, ["start"]).inc();
        new.counter(&names::DROPPED, ["short"]).add(1);
        new.inherit(&old.totals());
        let text = new.scrape();
        let shown = |line: &str| text.lines().any(|shown| shown == line);
        assert!(shown(r#"doorstep_dropped_packets_total{reason="short"} 4"#), "{text}");
        assert!(shown("coredns_health_request_duration_seconds_count 1"), "{text}");
        assert!(shown("doorstep_tcp_connections 0"), "{text}");
        assert!(!text.contains(r#"doorstep_worker_starts_total{cause="start"}"#), "{text}");
        // And so on, to the one after that.
        assert!(new.totals().contains("doorstep_dropped_packets_total\t4\tshort"));
    }

    #[test]
    fn what_another_version_counts_differently_is_left_out() {
        let lines = [
            "doorstep_of_another_time\t1",
            "doorstep_dropped_packets_total\tmany\tshort",
            "doorstep_dropped_packets_total\t1\tshort\tof another label",
            "coredns_health_request_duration_seconds\t1,2,3",
            "",
        ];
        assert_eq!(read(&lines.join("\n")), []);
    }
}
