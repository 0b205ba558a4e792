//! What the guardian counts, as metrics.

use crate::guardian::counts::what;
use crate::guardian::message::Count;
use crate::metrics::{Registry, names};

/// Has `registry` show these totals.
pub fn show(counts: &[Count], registry: &Registry) {
    for Count { what, label, total } in counts {
        let family = match what.as_str() {
            what::SETUP_ERRORS => &names::SETUP_ERRORS,
            what::REPAIRS => &names::DRIFT_REPAIRS,
            what::STARTS => &names::WORKER_STARTS,
            what::RELAYED => &names::RELAYED_QUERIES,
            _ => continue,
        };
        // A writer of its own: a worker counts errors of its configuration under the same name.
        let counter = registry.counter_of(names::OUTSIDE, family, [label.as_str()]);
        counter.add(total.saturating_sub(counter.get()));
    }
}
