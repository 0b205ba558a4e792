//! A race between pods that somebody else made: `doorstep demo race`.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Expected, Origin, Pairs, Race, Subject, Tally};
use crate::demo::statistics::Statistics;
use crate::demo::{DemoError, Namespace};
use crate::json::{Json, object};

/// The first source port of pods that share one, below the ports that the kernel gives out.
const FIRST_PORT: u16 = 20_000;

/// Pairs from namespaces that exist, while the calling thread is on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standalone {
    /// Whom to ask.
    pub server: SocketAddr,
    /// How many pairs.
    pub pairs: u64,
    /// Time from one to the next; zero: as soon as the one before is answered.
    pub pace: Duration,
    /// The name; `#` in it stands for the number of the pair, so that no answer is cached.
    pub name: String,
    /// Name (below `/run/netns`) or path of the pod's namespace; `None`: the caller's.
    pub pod: Option<String>,
    /// A second pod's: each sends one query of a pair, from the same source port.
    pub second_pod: Option<String>,
    /// Both queries of a pair from one thread, one after the other.
    pub one_thread: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What the pods saw.
    pub tally: Tally,
    /// What connection tracking in the caller's namespace counted meanwhile.
    pub statistics: Statistics,
}

/// Runs the pairs. A right answer is NOERROR to the question asked. Blocks until every query has been
/// answered or given up: 7.5 seconds after the last pair at most. Needs root, unless no pod is named.
pub fn standalone(options: &Standalone) -> Result<Verdict, DemoError> {
    let open = |name: &Option<String>| Namespace::find(name.as_deref().unwrap_or("/proc/thread-self/ns/net"));
    let pod = open(&options.pod)?;
    let second = options.second_pod.as_ref().map(|_| open(&options.second_pod)).transpose()?;
    let origin = match &second {
        Some(second) => Origin::OnePort([&pod, second], FIRST_PORT),
        None if options.one_thread => Origin::OneThread(&pod),
        None => Origin::TwoThreads(&pod),
    };
    let subject = |number: u64| {
        let name = options.name.replace('#', &number.to_string());
        Subject { name, expected: Expected::NoError }
    };
    let pairs = Pairs {
        origin,
        servers: &[options.server],
        count: options.pairs,
        pace: options.pace,
        subject: &subject,
    };
    let before = Statistics::here()?;
    let mut race = Race::start()?;
    race.run(&pairs, &|| Ok(()))?;
    let mut tally = Tally::default();
    race.finish(&|| Ok(()))?.iter().for_each(|run| tally.add(run));
    Ok(Verdict { tally, statistics: Statistics::here()?.since(before) })
}

impl Verdict {
    /// The same for machines, on one line.
    pub fn to_json(&self) -> Json {
        let Verdict { tally, statistics } = self;
        object([
            ("queries", tally.queries.into()),
            ("lost", tally.lost.into()),
            ("wrong", tally.wrong.into()),
            ("past_1s", tally.past_1s.into()),
            ("past_5s", tally.past_5s.into()),
            ("clash_resolve", statistics.clash_resolve.into()),
            ("insert_failed", statistics.insert_failed.into()),
            ("drop", statistics.drop.into()),
            ("p50_us", tally.percentile(50).into()),
            ("p99_us", tally.percentile(99).into()),
        ])
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { tally, statistics } = self;
        let clashes = statistics.clash_resolve.map_or("?".to_owned(), |count| count.to_string());
        writeln!(
            f,
            "{} queries: {} lost ({} answered wrongly), {} past 1 s, {} past 5 s; conntrack: {clashes} clashes \
             resolved, {} inserts failed; p50 {} us, p99 {} us",
            tally.queries,
            tally.lost,
            tally.wrong,
            tally.past_1s,
            tally.past_5s,
            statistics.insert_failed,
            tally.percentile(50),
            tally.percentile(99),
        )
    }
}
