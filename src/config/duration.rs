//! Durations in Go's spelling: `30s`, `1h30m`, `1.5s`, `500ms`, `0`.

use std::time::Duration;

/// Why a text is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// No number where one is due.
    #[error("not a duration")]
    Syntax,
    /// A number without `ns`, `us`, `ms`, `s`, `m` or `h`.
    #[error("a unit is missing")]
    MissingUnit,
    /// A unit Go does not know.
    #[error("an unknown unit")]
    UnknownUnit,
    /// A leading minus.
    #[error("negative")]
    Negative,
    /// More than 2^63 nanoseconds, about 292 years.
    #[error("too long")]
    TooLong,
}

/// Reads what Go's `time.ParseDuration` reads, less the negative values.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    if text.starts_with('-') {
        return Err(DurationError::Negative);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(DurationError::Syntax);
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (nanos, tail) = term(rest)?;
        total += nanos;
        if total > i64::MAX as u128 {
            return Err(DurationError::TooLong);
        }
        rest = tail;
    }
    let nanos = u64::try_from(total).map_err(|_| DurationError::TooLong)?;
    Ok(Duration::from_nanos(nanos))
}

/// One `NUMBER UNIT`, and what follows it.
fn term(text: &str) -> Result<(u128, &str), DurationError> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(after) => digits(after),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(DurationError::Syntax);
    }
    let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(end);
    let scale = unit_nanos(unit)?;
    // 2^63 ns has 19 digits; anything longer is too long in every unit.
    let whole = whole.trim_start_matches('0');
    if whole.len() > 19 {
        return Err(DurationError::TooLong);
    }
    let mut nanos = whole.parse::<u128>().unwrap_or(0) * scale;
    let mut place = scale;
    for digit in fraction.bytes() {
        place /= 10;
        nanos += u128::from(digit - b'0') * place;
    }
    Ok((nanos, rest))
}

fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

fn unit_nanos(unit: &str) -> Result<u128, DurationError> {
    Ok(match unit {
        "" => return Err(DurationError::MissingUnit),
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return Err(DurationError::UnknownUnit),
    })
}

/// Writes a duration as this module reads it, in the largest unit that keeps it whole.
pub fn show(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".into();
    }
    for unit in ["h", "m", "s", "ms", "us"] {
        let scale = unit_nanos(unit).unwrap_or(1);
        if nanos.is_multiple_of(scale) {
            return format!("{}{unit}", nanos / scale);
        }
    }
    format!("{nanos}ns")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_reads() {
        for (text, nanos) in [
            ("0", 0),
            ("0s", 0),
            ("1ns", 1),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("1h2m3s", 3_723_000_000_000),
            ("+30s", 30_000_000_000),
            ("2µs", 2_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn what_go_refuses() {
        use DurationError::*;
        for (text, error) in [
            ("", Syntax),
            ("s", Syntax),
            ("+", Syntax),
            (".s", Syntax),
            ("30", MissingUnit),
            ("3d", UnknownUnit),
            ("-3s", Negative),
            ("99999999999h", TooLong),
            ("99999999999999999999999s", TooLong),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn shown_durations_read_back() {
        for text in ["0s", "1ns", "1500ms", "30s", "90m", "24h"] {
            assert_eq!(show(parse(text).unwrap()), text);
        }
    }
}
