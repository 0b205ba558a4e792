//! The measurements. Each goes round by round, and in a round from server to server, so that whatever else
//! the machine does meets all of them alike.

use std::io;
use std::path::Path;

use crate::fleet::Server;
use crate::load::{Load, Outcome};
use crate::peers::{self, DOORSTEP, ECHO, ECHO_SINGLE, FLOORS, Peer, RELAY};
use crate::prompt::Prompt;
use crate::questions::{Cycle, Fresh, Shape, WARM, Watch};
use crate::results::{Results, median};
use crate::upstream::Upstream;

/// How much of everything.
#[derive(Clone, Copy)]
pub struct Extent {
    pub rounds: usize,
    /// Of one measurement.
    pub seconds: f64,
    /// Names to ask once each, before memory is looked at for the last time.
    pub names: u64,
}

impl Extent {
    /// For figures to be told.
    pub const FULL: Extent = Extent { rounds: 5, seconds: 2.0, names: 400_000 };
    /// For a look while working.
    pub const QUICK: Extent = Extent { rounds: 1, seconds: 0.7, names: 20_000 };
    /// For a test that all of it runs.
    pub const SMOKE: Extent = Extent { rounds: 1, seconds: 0.2, names: 2_000 };
}

const PACE: f64 = 20_000.0;
const MISS_PACE: f64 = 8_000.0;
/// Each of the working set once in two seconds, so that the TTL tells whether it was fetched since.
const WARM_PACE: f64 = WARM as f64 / 2.0;
/// Names of the flood to each of the working set: 5 000 a second.
const FLOOD: u64 = 10;

/// Starts each server a few times and keeps the last of each; one that does not answer is left out.
pub fn start(peers: &[Peer], upstream: &Upstream, extent: Extent, results: &mut Results) -> Vec<Server> {
    let mut servers = Vec::new();
    for peer in peers {
        let starts = (0..extent.rounds).map(|_| Server::start(peer, upstream.address));
        match starts.collect::<io::Result<Vec<Server>>>() {
            Ok(mut started) => {
                let times = started.iter().map(|server| server.start.as_secs_f64() * 1e3).collect();
                results.add("start", peer.name, median(times), None);
                servers.extend(started.pop());
            }
            Err(error) => eprintln!("compare: {}: {error}", peer.name),
        }
    }
    servers
}

/// CPU and latency of hits.
pub fn hits(servers: &[Server], extent: Extent, results: &mut Results) -> io::Result<()> {
    let names: Vec<&str> = answering(servers).map(|server| server.name).collect();
    let mut rounds: [Vec<Vec<f64>>; 5] = Default::default();
    for _ in 0..extent.rounds {
        let mut round: [Vec<f64>; 5] = Default::default();
        for server in answering(servers) {
            server.fill(&mut Cycle::warm(Shape::A), 2 * WARM as u64)?;
            let load = server.closed_loop(extent.seconds);
            let (outcome, cpu) = server.measure(load, &mut Cycle::warm(Shape::A))?;
            demand_answers(server, &outcome)?;
            round[0].push(cpu);
            round[1].push(outcome.answered as f64 / outcome.seconds / 1e3);
            let load = server.paced(PACE, extent.seconds);
            let (outcome, cpu) = server.measure(load, &mut Cycle::warm(Shape::A))?;
            round[2].push(cpu);
            round[3].push(outcome.percentile(0.5));
            round[4].push(outcome.percentile(0.99));
        }
        for (rounds, numbers) in rounds.iter_mut().zip(round) {
            rounds.push(numbers);
        }
    }
    let measures = ["hit_closed", "hit_closed_rate", "hit_paced", "hit_paced_p50", "hit_paced_p99"];
    for (measure, rounds) in measures.iter().zip(&rounds) {
        results.add_rounds(measure, &names, rounds);
    }
    Ok(())
}

/// CPU of misses, every name new, and how many are lost.
pub fn misses(servers: &[Server], measure: &str, extent: Extent, results: &mut Results) -> io::Result<()> {
    // The floor first: ratios are to it.
    let relay = servers.iter().filter(|server| server.name == RELAY);
    let servers: Vec<&Server> = relay.chain(caches(servers)).collect();
    let names: Vec<&str> = servers.iter().map(|server| server.name).collect();
    let (mut cpu, mut lost) = (Vec::new(), vec![Vec::new(); servers.len()]);
    for round in 0..extent.rounds {
        let mut numbers = Vec::new();
        for (server, lost) in servers.iter().zip(&mut lost) {
            let load = Load { window: 2048, ..server.paced(MISS_PACE, extent.seconds) };
            let (outcome, cpu) = server.measure(load, &mut Fresh::new(&format!("miss{round}-")))?;
            numbers.push(cpu);
            lost.push(outcome.lost() * 100.0);
        }
        cpu.push(numbers);
    }
    results.add_rounds(measure, &names, &cpu);
    for (name, lost) in names.iter().zip(lost) {
        results.add(&format!("{measure}_lost"), name, median(lost), None);
    }
    Ok(())
}

/// Misses again, of servers whose upstream sends each answer at once.
pub fn prompt_misses(peers: &[Peer], extent: Extent, results: &mut Results) -> io::Result<()> {
    let upstream = Prompt::start()?;
    let mut servers = Vec::new();
    for peer in peers.iter().filter(|peer| ![ECHO, ECHO_SINGLE].contains(&peer.name)) {
        match Server::start(peer, upstream.address) {
            Ok(server) => servers.push(server),
            Err(error) => eprintln!("compare: {}: {error}", peer.name),
        }
    }
    misses(&servers, "prompt_miss", extent, results)
}

/// What a flood of unique names does to the working set.
pub fn flood(servers: &[Server], extent: Extent, results: &mut Results) -> io::Result<()> {
    for server in answering(servers) {
        let mut watch = Watch::warm();
        server.fill(&mut watch, 2 * WARM as u64)?;
        let seconds = 2.0 * extent.seconds;
        let before = server.paced(WARM_PACE, seconds).run(&mut watch)?;
        watch.flood(FLOOD);
        let load = Load { window: 2048, ..server.paced(WARM_PACE * (FLOOD + 1) as f64, seconds) };
        let during = load.run(&mut watch)?;
        if !FLOORS.contains(&server.name) {
            results.add("flood_hit_ratio", server.name, watch.hit_ratio(), None);
        }
        let ratio = during.percentile(0.99) / before.percentile(0.99);
        results.add("flood_p99", server.name, ratio, None);
    }
    Ok(())
}

/// Memory before anything was asked but one name.
pub fn idle_memory(servers: &[Server], results: &mut Results) {
    answering(servers).for_each(|server| put_memory("pss_idle", server, results));
}

/// Memory with a full cache's worth of names.
pub fn filled_memory(servers: &[Server], results: &mut Results) -> io::Result<()> {
    for server in caches(servers) {
        server.fill(&mut Cycle::wild("entry", 10_000), 10_000)?;
        put_memory("pss_10k", server, results);
    }
    Ok(())
}

/// Memory after many times as many names as the cache has room for.
pub fn flooded_memory(servers: &[Server], extent: Extent, results: &mut Results) -> io::Result<()> {
    for server in caches(servers) {
        let load = Load { window: 128, count: extent.names, ..server.closed_loop(90.0) };
        let outcome = load.run(&mut Fresh::new("many"))?;
        if outcome.sent < extent.names {
            let note = format!("{}: only {} unique names in 90 s", server.name, outcome.sent);
            results.notes.push(note);
        }
        put_memory("pss_flood", server, results);
    }
    Ok(())
}

/// Doorstep's other kinds of hits, each over the plain one.
pub fn shapes(doorstep: &Path, extent: Extent, results: &mut Results) -> io::Result<()> {
    let upstream = Upstream::start(3600)?;
    let server = Server::start(&peers::doorstep_with_threads(doorstep)[0], upstream.address)?;
    // Its answers live for the least time there is, and nobody refreshes them.
    let silent = Upstream::start(1)?;
    let stale = Server::start(&peers::doorstep_stale(doorstep), silent.address)?;
    stale.fill(&mut Cycle::warm(Shape::A), 2 * WARM as u64)?;
    silent.process.freeze();
    std::thread::sleep(std::time::Duration::from_secs(6));
    let shapes = [
        ("shape_a", &server, Shape::A),
        ("shape_aaaa", &server, Shape::Aaaa),
        ("shape_nxdomain", &server, Shape::NxDomain),
        ("shape_mixed_case", &server, Shape::MixedCase),
        ("shape_edns", &server, Shape::Edns),
        ("shape_large", &server, Shape::Large),
        ("shape_stale", &stale, Shape::A),
    ];
    for (_, server, shape) in &shapes[..6] {
        server.fill(&mut Cycle::warm(*shape), 2 * WARM as u64)?;
    }
    let mut rounds = Vec::new();
    for _ in 0..extent.rounds {
        let mut round = Vec::new();
        for (_, server, shape) in &shapes {
            let load = server.closed_loop(extent.seconds);
            let (outcome, cpu) = server.measure(load, &mut Cycle::warm(*shape))?;
            demand_answers(server, &outcome)?;
            round.push(cpu);
        }
        rounds.push(round);
    }
    for (at, (measure, ..)) in shapes.iter().enumerate().skip(1) {
        let ratio = median(rounds.iter().map(|round| round[at] / round[0]).collect());
        results.add(measure, DOORSTEP, ratio, None);
    }
    Ok(())
}

/// Two UDP threads on one address (`multisocket 2`) over one.
pub fn threads(
    doorstep: &Path,
    upstream: &Upstream,
    extent: Extent,
    results: &mut Results,
) -> io::Result<()> {
    let [one, two] = peers::doorstep_with_threads(doorstep);
    let servers = [Server::start(&one, upstream.address)?, Server::start(&two, upstream.address)?];
    let (mut cpu, mut rate) = (Vec::new(), Vec::new());
    for _ in 0..extent.rounds {
        let mut numbers = Vec::new();
        for server in &servers {
            server.fill(&mut Cycle::warm(Shape::A), 2 * WARM as u64)?;
            let load = server.closed_loop(extent.seconds);
            let (outcome, cpu) = server.measure(load, &mut Cycle::warm(Shape::A))?;
            numbers.push((cpu, outcome.answered as f64 / outcome.seconds));
        }
        cpu.push(numbers[1].0 / numbers[0].0);
        rate.push(numbers[1].1 / numbers[0].1);
    }
    results.add("threads_cpu", DOORSTEP, median(cpu), None);
    results.add("threads_rate", DOORSTEP, median(rate), None);
    Ok(())
}

/// What a server spends on errors is not the price of a hit.
fn demand_answers(server: &Server, outcome: &Outcome) -> io::Result<()> {
    if outcome.lost() < 0.05 {
        return Ok(());
    }
    let lost = outcome.lost() * 100.0;
    Err(io::Error::other(format!("{}: {lost:.0} % of the hits are none", server.name)))
}

fn put_memory(measure: &str, server: &Server, results: &mut Results) {
    results.add(measure, server.name, server.process.pss() as f64 / 1024.0, None);
}

fn caches(servers: &[Server]) -> impl Iterator<Item = &Server> {
    servers.iter().filter(|server| !FLOORS.contains(&server.name))
}

/// All but the relay, which keeps nothing.
fn answering(servers: &[Server]) -> impl Iterator<Item = &Server> {
    servers.iter().filter(|server| server.name != RELAY)
}
