//! The report for machines.

use super::{Configuration, Measurement, Report, Side};
use crate::demo::kube_proxy::Shape;
use crate::demo::race::Tally;
use crate::json::{Json, object};

impl Report {
    /// `direct` and `doorstep` with the same members, totals first and then setting by setting.
    pub fn to_json(&self) -> Json {
        object([
            ("direct", side(&self.direct)),
            ("doorstep", side(&self.doorstep)),
            ("configuration", configuration(&self.configuration)),
            ("failures", self.failures().into_iter().collect()),
            ("summary", self.in_plain_words().into()),
        ])
    }
}

fn side(side: &Side) -> Json {
    let counted = side.measurements.iter().all(|measurement| measurement.statistics.clash_resolve.is_some());
    let spent = side.measurements.iter().find_map(Measurement::processor_time_per_query);
    let settings =
        side.measurements.iter().map(|measurement| (measurement.setting.key(), setting(measurement)));
    let mut members = outcome(&side.total());
    members.extend([
        ("insert_failed", side.insert_failed().into()),
        ("clash_resolve", counted.then(|| side.clashes()).into()),
        ("conntrack_entries", side.entries().into()),
        ("cpu_us_per_query", spent.into()),
        ("settings", object(settings)),
    ]);
    object(members)
}

fn setting(measurement: &Measurement) -> Json {
    let statistics = &measurement.statistics;
    let shapes = Shape::ALL.into_iter().zip(&measurement.tallies);
    let mut members = outcome(&measurement.total());
    members.extend([
        ("insert_failed", statistics.insert_failed.into()),
        ("clash_resolve", statistics.clash_resolve.into()),
        ("conntrack_entries", (measurement.entries as u64).into()),
        ("cpu_us_per_query", measurement.processor_time_per_query().into()),
        ("kube_proxy", object(shapes.map(|(shape, tally)| (shape.key(), object(outcome(tally)))))),
    ]);
    object(members)
}

fn outcome(tally: &Tally) -> Vec<(&'static str, Json)> {
    vec![
        ("queries", tally.queries.into()),
        ("lost", tally.lost.into()),
        ("wrong", tally.wrong.into()),
        ("past_1s", tally.past_1s.into()),
        ("past_5s", tally.past_5s.into()),
        ("p50_us", tally.percentile(50).into()),
        ("p99_us", tally.percentile(99).into()),
    ]
}

fn configuration(configuration: &Configuration) -> Json {
    object([
        ("kernel", (&configuration.kernel).into()),
        ("processors", configuration.processors.into()),
        ("can_race", configuration.can_race.into()),
        ("kube_dns_endpoints", configuration.kube_dns_endpoints.into()),
        ("doorstep", env!("CARGO_PKG_VERSION").into()),
    ])
}
