//! Every fault in every setting, with one upstream or backend that is well.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use super::fault::{FAULTS, Fault};
use super::load::{Load, Outcome};
use super::netns::isolated;
use super::rig::{CLIENT, NODE, Rig, Setting};
use super::{alone, is_long, side_by_side};

/// What a fault of one may add to the slowest query in a thousand.
const MAX_ADDED: Duration = Duration::from_millis(250);
/// Messages one upstream may get for one query.
pub const MAX_ATTEMPTS: usize = 2;
/// A machine that holds up the client for longer held up Doorstep and the upstreams, too.
const MAX_HELD_UP: Duration = Duration::from_millis(25);
/// Extra upstream queries, in a hundred, when all are well.
const MAX_HEDGES: f64 = 5.0;

/// A run's load: queries per second, how long before the fault, how long in all.
struct Shape {
    rate: u32,
    before: Duration,
    lasting: Duration,
}

impl Shape {
    fn of_mode() -> Shape {
        let [before, lasting] = if is_long() { [800, 4000] } else { [300, 1600] }.map(Duration::from_millis);
        Shape { rate: if is_long() { 2000 } else { 1000 }, before, lasting }
    }
}

/// A line of the table.
struct Row {
    setting: Setting,
    fault: Fault,
    outcome: Outcome,
    /// Messages upstream.
    asked: usize,
    /// At most, by one upstream for one query.
    most: usize,
    log: String,
}

/// Runs until the machine has let a run be, three times at most.
fn measure(setting: Setting, fault: Fault, shape: &Shape) -> Row {
    let mut row = run(setting, fault, shape);
    for _ in 0..2 {
        if !row.was_held_up() {
            break;
        }
        row = run(setting, fault, shape);
    }
    row
}

fn run(setting: Setting, fault: Fault, shape: &Shape) -> Row {
    isolated(|| {
        let mut rig = Rig::new(setting);
        let load = Load::new(NODE, CLIENT, shape.rate, shape.lasting);
        let mut inflicted = false;
        let outcome = load.run(|now| {
            if !inflicted && now >= shape.before {
                rig.inflict(0, fault, now);
                inflicted = true;
            }
            rig.attend(now);
        });
        let attempts = rig.attempts();
        let (asked, most) = (attempts.values().sum(), attempts.values().max().copied().unwrap_or_default());
        Row { setting, fault, outcome, asked, most, log: rig.doorstep.log() }
    })
}

/// Runs what is to be run, two at a time where that does not spoil figures.
fn measure_all() -> Vec<Row> {
    let shape = Shape::of_mode();
    let faults = [Fault::Healthy].into_iter().chain(FAULTS);
    let pairs =
        Setting::ALL.into_iter().flat_map(|setting| faults.clone().map(move |fault| (setting, fault)));
    let runs = pairs.filter(|(setting, fault)| setting.knows(*fault)).collect();
    let workers = if is_long() { 1 } else { 2 };
    side_by_side(workers, runs, |(setting, fault)| measure(setting, fault, &shape))
}

impl Row {
    /// Milliseconds that the slowest in a thousand took longer than in the healthy run.
    fn added(&self, healthy: &Row) -> Duration {
        self.outcome.quantile(999).saturating_sub(healthy.outcome.quantile(999))
    }

    fn per_query(&self) -> f64 {
        self.asked as f64 / self.outcome.sent as f64
    }

    /// Whether its figures are the machine's rather than ours.
    fn was_held_up(&self) -> bool {
        self.outcome.held_up >= MAX_HELD_UP
    }

    fn line(&self, healthy: &Row) -> String {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        format!(
            "{:<16} {:<6} {:>6} {:>9} {:>9} {:>5} {:>8.1} {:>9.1} {:>8.1} {:>9.2} {:>5}{}",
            self.fault.name(),
            self.setting.name(),
            self.outcome.sent,
            self.outcome.answered(),
            self.outcome.answered() - self.outcome.with(0),
            self.outcome.lost(),
            milliseconds(self.outcome.quantile(500)),
            milliseconds(self.outcome.quantile(999)),
            milliseconds(self.added(healthy)),
            self.per_query(),
            self.most,
            if self.was_held_up() { "  (machine busy)" } else { "" },
        )
    }

    /// What must not be. A run that the machine held up can show too many attempts, and nothing else.
    fn violations(&self, healthy: &Row) -> Vec<String> {
        let mut violations = Vec::new();
        let busy = self.was_held_up();
        let mut check = |holds: bool, what: String| {
            if !holds {
                violations.push(format!("{} in {}: {what}", self.fault.name(), self.setting.name()));
            }
        };
        let outcome = &self.outcome;
        check(busy || outcome.lost() == 0, format!("{} lost", outcome.lost()));
        check(busy || outcome.with(0) == outcome.answered(), format!("response codes {:?}", outcome.rcodes));
        check(busy || self.added(healthy) < MAX_ADDED, format!("{:?} added", self.added(healthy)));
        check(self.most <= MAX_ATTEMPTS, format!("{} attempts", self.most));
        if self.fault == Fault::Healthy {
            let extra = (self.per_query() - 1.0) * 100.0;
            check(busy || extra < MAX_HEDGES, format!("{extra:.1} % hedged"));
        }
        violations
    }
}

#[test]
fn one_upstream_that_is_well_is_enough() {
    let _turn = alone();
    let rows = measure_all();
    let mut table = String::from(
        "fault            setting  sent  answered  SERVFAIL  lost   p50 ms  p99.9 ms    added  upstream  most\n\
         \u{20}                                                                              /query\n",
    );
    let mut violations = Vec::new();
    for row in &rows {
        let of_setting = |other: &&Row| other.setting == row.setting && other.fault == Fault::Healthy;
        let healthy = rows.iter().find(of_setting).unwrap();
        writeln!(table, "{}", row.line(healthy)).unwrap();
        let found = row.violations(healthy);
        if !found.is_empty() {
            violations
                .extend(row.log.lines().filter(|line| line.contains("[ERROR]")).take(5).map(String::from));
        }
        violations.extend(found);
    }
    // A machine that is always busy tests nothing.
    let busy = rows.iter().filter(|row| row.was_held_up()).count();
    if busy > rows.len() / 4 {
        violations.push(format!("the machine was too busy in {busy} of {} runs", rows.len()));
    }
    // Past the capture of the test runner: this is for people.
    writeln!(std::io::stdout(), "\n{table}").unwrap();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}
