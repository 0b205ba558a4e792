//! What conntrack counted.

use std::fs;
use std::io;

use super::{DemoError, Namespace};
use crate::node::conntrack::counters;

/// Counters of a namespace's connection tracking, summed over the processors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Packets that lost the race for an entry and were let through all the same; `None` where the kernel
    /// does not say.
    pub clash_resolve: Option<u64>,
    /// Packets dropped because their entry could not be inserted.
    pub insert_failed: u64,
    /// Packets dropped for that or another reason.
    pub drop: u64,
}

impl Statistics {
    /// Reads a node's.
    pub fn of(node: &Namespace) -> Result<Statistics, DemoError> {
        node.run(Statistics::here)?
    }

    /// Reads those of the calling thread's namespace.
    pub(super) fn here() -> Result<Statistics, DemoError> {
        let table = fs::read_to_string("/proc/thread-self/net/stat/nf_conntrack");
        let table = table.map_err(DemoError::io("read conntrack's counters"))?;
        parse(&table).ok_or_else(|| {
            DemoError::io("understand conntrack's counters")(io::ErrorKind::InvalidData.into())
        })
    }

    /// What was counted after `earlier` was read.
    pub fn since(self, earlier: Statistics) -> Statistics {
        let clashes = self.clash_resolve.zip(earlier.clash_resolve);
        Statistics {
            clash_resolve: clashes.map(|(now, before)| now.saturating_sub(before)),
            insert_failed: self.insert_failed.saturating_sub(earlier.insert_failed),
            drop: self.drop.saturating_sub(earlier.drop),
        }
    }
}

fn parse(table: &str) -> Option<Statistics> {
    let counters = counters(table)?;
    let of = |name: &str| counters.get(name).copied();
    let (insert_failed, drop) = (of("insert_failed")?, of("drop")?);
    Some(Statistics { clash_resolve: of("clashres"), insert_failed, drop })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_counts_no_clashes() {
        let old = "entries  searched insert_failed drop\n0001 0 1 2\n";
        assert_eq!(parse(old), Some(Statistics { clash_resolve: None, insert_failed: 1, drop: 2 }));
        assert_eq!(parse("entries\n1\n"), None);
    }

    #[test]
    fn what_was_before_is_taken_off() {
        let (before, after) = (
            Statistics { clash_resolve: Some(5), insert_failed: 1, drop: 2 },
            Statistics { clash_resolve: Some(7), insert_failed: 1, drop: 3 },
        );
        let expected = Statistics { clash_resolve: Some(2), insert_failed: 0, drop: 1 };
        assert_eq!(after.since(before), expected);
    }
}
