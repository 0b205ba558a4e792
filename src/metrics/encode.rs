//! The Prometheus text format, version 0.0.4, character for character as Go's client prints it.

use std::fmt::Write as _;

use super::names::{Description, Kind};
use super::snapshot::{Samples, Snapshot, Value};

/// The `Content-Type` of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All families, sorted by name, each with its series sorted by label values.
pub fn encode(snapshot: &Snapshot) -> String {
    let mut out = String::with_capacity(16 * 1024);
    for samples in snapshot.families() {
        head(&mut out, samples.family);
        for (values, value) in &samples.values {
            series(&mut out, samples, values, value);
        }
    }
    out
}

fn head(out: &mut String, family: &Description) {
    out.push_str("# HELP ");
    out.push_str(family.name);
    out.push(' ');
    push_escaped(out, family.help, false);
    out.push_str("\n# TYPE ");
    out.push_str(family.name);
    out.push_str(match family.kind {
        Kind::Counter => " counter\n",
        Kind::Gauge => " gauge\n",
        Kind::Histogram(_) => " histogram\n",
    });
}

fn series(out: &mut String, samples: &Samples, values: &[String], value: &Value) {
    let line = |out: &mut String, suffix: &str, bound: Option<f64>, number: f64| {
        out.push_str(samples.family.name);
        out.push_str(suffix);
        push_labels(out, &samples.label_names, values, bound);
        out.push(' ');
        push_float(out, number);
        out.push('\n');
    };
    match (value, samples.family.kind) {
        (Value::Histogram { counts, sum }, Kind::Histogram(bounds)) => {
            let mut cumulative = 0;
            for (count, bound) in counts.iter().zip(bounds.iter().chain(&[f64::INFINITY])) {
                cumulative += count;
                line(out, "_bucket", Some(*bound), cumulative as f64);
            }
            line(out, "_sum", None, *sum);
            line(out, "_count", None, cumulative as f64);
        }
        (Value::Number(number), _) => line(out, "", None, *number),
        (Value::Histogram { .. }, Kind::Counter | Kind::Gauge) => {}
    }
}

fn push_labels(out: &mut String, names: &[&str], values: &[String], bound: Option<f64>) {
    let mut separator = '{';
    for (name, value) in names.iter().zip(values) {
        out.push(separator);
        out.push_str(name);
        out.push_str("=\"");
        push_escaped(out, value, true);
        out.push('"');
        separator = ',';
    }
    if let Some(bound) = bound {
        out.push(separator);
        out.push_str("le=\"");
        push_float(out, bound);
        out.push('"');
        separator = ',';
    }
    if separator == ',' {
        out.push('}');
    }
}

fn push_escaped(out: &mut String, text: &str, quoted: bool) {
    for character in text.chars() {
        match character {
            '\\' => out.push_str(r"\\"),
            '\n' => out.push_str(r"\n"),
            '"' if quoted => out.push_str("\\\""),
            other => out.push(other),
        }
    }
}

/// Shortest digits that read back as the same float; an exponent of at least two digits from 1e+06
/// and below 1e-04 on (Go's `strconv.FormatFloat(f, 'g', -1, 64)`).
fn push_float(out: &mut String, number: f64) {
    if number.is_nan() {
        return out.push_str("NaN");
    }
    if number.is_infinite() {
        return out.push_str(if number > 0.0 { "+Inf" } else { "-Inf" });
    }
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    // Writing into a String cannot fail.
    let _ = if (-4..6).contains(&exponent) {
        // Go prints the zero of either sign alike.
        write!(out, "{}", if number == 0.0 { 0.0 } else { number })
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(out, "{mantissa}e{sign}{:02}", exponent.abs())
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::names;

    #[test]
    fn floats_are_printed_as_go_prints_them() {
        for (number, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (-1.0, "-1"),
            (0.00025, "0.00025"),
            (0.000_025, "2.5e-05"),
            (8.192, "8.192"),
            (16e3, "16000"),
            (999_999.0, "999999"),
            (1e6, "1e+06"),
            (1_234_567.0, "1.234567e+06"),
            (27_156_480.0, "2.715648e+07"),
            (1.8446744073709552e19, "1.8446744073709552e+19"),
            (1e100, "1e+100"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            let mut out = String::new();
            push_float(&mut out, number);
            assert_eq!(out, text);
        }
    }

    #[test]
    fn a_family_is_printed_sorted_and_escaped() {
        let mut snapshot = Snapshot::default();
        let family = names::CACHE_HITS.description();
        snapshot.number(family, &["dns://:53", "success", "b.", ""], 2.0);
        snapshot.number(family, &["dns://:53", "success", "a\"\\\n", ""], 1.0);
        snapshot.number(family, &["dns://:53", "success", "b.", ""], 3.0);
        snapshot.number(names::PANICS.description(), &[], 0.0);
        assert_eq!(
            encode(&snapshot),
            r#"# HELP coredns_cache_hits_total Look-ups that found a usable answer.
# TYPE coredns_cache_hits_total counter
coredns_cache_hits_total{server="dns://:53",type="success",view="",zones="a\"\\\n"} 1
coredns_cache_hits_total{server="dns://:53",type="success",view="",zones="b."} 5
# HELP coredns_panics_total Panics that were caught.
# TYPE coredns_panics_total counter
coredns_panics_total 0
"#
        );
    }

    #[test]
    fn a_histogram_is_cumulative() {
        let mut snapshot = Snapshot::default();
        for _ in 0..2 {
            let value = Value::Histogram { counts: vec![1, 0, 2, 0, 0, 1], sum: 3.25 };
            snapshot.add(names::HEALTH_REQUEST_DURATION.description(), &[], value);
        }
        let text = encode(&snapshot);
        let lines: Vec<&str> = text.lines().skip(2).collect();
        let name = "coredns_health_request_duration_seconds";
        assert_eq!(lines[0], format!("{name}_bucket{{le=\"0.00025\"}} 2"));
        assert_eq!(lines[2], format!("{name}_bucket{{le=\"0.025\"}} 6"));
        assert_eq!(lines[5], format!("{name}_bucket{{le=\"+Inf\"}} 8"));
        assert_eq!(lines[6], format!("{name}_sum 6.5"));
        assert_eq!(lines[7], format!("{name}_count 8"));
        assert_eq!(lines.len(), 8);
    }
}
