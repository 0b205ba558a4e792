//! The values of one scrape, ordered as they are printed.

use std::collections::BTreeMap;

use super::names::Description;

/// One series' value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Of a counter or gauge.
    Number(f64),
    /// Of a histogram.
    Histogram {
        /// One per bound and one for `+Inf`; not cumulative.
        counts: Vec<u64>,
        /// Of everything observed, in the family's unit.
        sum: f64,
    },
}

impl Value {
    fn absorb(&mut self, other: Value) {
        match (self, other) {
            (Value::Number(number), Value::Number(more)) => *number += more,
            (Value::Histogram { counts, sum }, Value::Histogram { counts: more_counts, sum: more_sum }) => {
                for (count, more) in counts.iter_mut().zip(more_counts) {
                    *count += more;
                }
                *sum += more_sum;
            }
            // A family has one kind.
            (Value::Number(_), Value::Histogram { .. }) | (Value::Histogram { .. }, Value::Number(_)) => {}
        }
    }
}

/// One family's series.
#[derive(Debug)]
pub struct Samples {
    /// Whose series these are.
    pub family: &'static Description,
    /// Label names, sorted.
    pub label_names: Vec<&'static str>,
    /// By label values, in the order of `label_names`.
    pub values: BTreeMap<Vec<String>, Value>,
}

/// Everything one scrape shows.
#[derive(Debug, Default)]
pub struct Snapshot(BTreeMap<&'static str, Samples>);

impl Snapshot {
    /// Adds to the series with these label values (in the family's own order): what several writers
    /// counted for one series is summed.
    pub fn add(&mut self, family: &'static Description, labels: &[&str], value: Value) {
        let mut pairs: Vec<_> = family.labels.iter().copied().zip(labels).collect();
        pairs.sort_unstable();
        let samples = self.0.entry(family.name).or_insert_with(|| Samples {
            family,
            label_names: pairs.iter().map(|(name, _)| *name).collect(),
            values: BTreeMap::new(),
        });
        let values: Vec<String> = pairs.iter().map(|(_, value)| value.to_string()).collect();
        match samples.values.get_mut(&values) {
            Some(total) => total.absorb(value),
            None => {
                samples.values.insert(values, value);
            }
        }
    }

    /// Like [`add`](Snapshot::add), of a plain number.
    pub fn number(&mut self, family: &'static Description, labels: &[&str], number: f64) {
        self.add(family, labels, Value::Number(number));
    }

    /// The families, by name.
    pub fn families(&self) -> impl Iterator<Item = &Samples> {
        self.0.values()
    }
}
