//! What the parts of a hit take by the clock; `instructions` counts them. See benches/README.md.

#[path = "instructions/fixture.rs"]
#[allow(dead_code, reason = "the counts use more of it")]
mod fixture;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use doorstep::metrics;
use doorstep::wire::{Answer, Key, Query, Reply, Terms};

use fixture::{A, Case, Fixture, query};

/// A service's name as pods ask for it.
const NAME: &str = "payments-api.production.svc.cluster.local.";

fn parse(criterion: &mut Criterion) {
    let query = query(NAME, A, false);
    criterion.bench_function("parse", |bench| bench.iter(|| Query::parse(black_box(&query)).is_ok()));
}

/// Key, zone, cache; the name is not there, so nothing is written.
fn look_up(criterion: &mut Criterion) {
    let mut fixture = Fixture::new(&[&Case::addresses(NAME, A, 1)], false);
    let unknown = query("unknown.production.svc.cluster.local.", A, false);
    criterion.bench_function("look-up that finds nothing", |bench| {
        bench.iter(|| fixture.answer(black_box(&unknown)).is_none());
    });
}

/// A copy of the answer made the client's.
fn patch(criterion: &mut Criterion) {
    let case = Case::addresses(NAME, A, 1);
    let query = Query::parse(&case.query).expect("a query");
    let (answer, _) = Answer::scan(&case.answer, query.question()).expect("an answer");
    let terms = Terms { ttl: Some(30), authoritative: true, extended_error: None };
    let mut out = [0; 512];
    criterion.bench_function("patch", |bench| {
        bench.iter(|| Reply::from_answer(black_box(&mut out), black_box(&query), &answer, terms, None, 512));
    });
}

/// All of it, counting included.
fn hit(criterion: &mut Criterion) {
    let case = Case::addresses(NAME, A, 1);
    let mut fixture = Fixture::new(&[&case], false);
    let mut key = Key::default();
    criterion.bench_function("key", |bench| {
        let query = Query::parse(&case.query).expect("a query");
        bench.iter(|| black_box(&mut key).set(black_box(&query)));
    });
    criterion.bench_function("hit", |bench| bench.iter(|| fixture.answer(black_box(&case.query))));
}

fn encode(criterion: &mut Criterion) {
    let snapshot = fixture::snapshot();
    criterion.bench_function("encode a scrape", |bench| bench.iter(|| metrics::encode(black_box(&snapshot))));
}

criterion_group!(parts, parse, look_up, patch, hit, encode);
criterion_main!(parts);
