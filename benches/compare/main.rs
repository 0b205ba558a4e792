//! Doorstep, the bare echo and the peers that are installed, side by side. See benches/README.md.

mod datagrams;
mod echo;
mod fleet;
mod load;
mod measure;
mod peers;
mod plot;
mod process;
mod prompt;
mod questions;
mod relay;
mod results;
mod upstream;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

use measure::Extent;
use peers::{DOORSTEP, ECHO, FLOORS, OWN, Peer};
use results::Results;
use upstream::Upstream;

const USAGE: &str = "\
usage: compare --doorstep FILE [--node-cache FILE] [--quick | --smoke] [--only NAME,...] [--out STEM]
       compare plot DATA.tsv PICTURE.svg
       compare echo ADDRESS:PORT BATCH
       compare relay ADDRESS:PORT UPSTREAM:PORT
       compare upstream ADDRESS:PORT
       compare load ADDRESS:PORT SECONDS [QUERIES/SECOND]";

struct Options {
    doorstep: PathBuf,
    node_cache: Option<PathBuf>,
    extent: Extent,
    only: Option<Vec<String>>,
    out: Option<PathBuf>,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["echo", address, batch] => serve_echo(address, batch),
        ["relay", address, upstream] => serve_relay(address, upstream),
        ["upstream", address] => serve_upstream(address),
        ["load", address, seconds] => drive(address, seconds, "0"),
        ["load", address, seconds, rate] => drive(address, seconds, rate),
        ["plot", data, picture] => plot(Path::new(data), Path::new(picture)),
        _ => match options(&words) {
            Some(options) => run(&options),
            None => Err(USAGE.into()),
        },
    };
    if let Err(error) = done {
        eprintln!("compare: {error}");
        exit(1);
    }
}

fn options(words: &[&str]) -> Option<Options> {
    let mut options =
        Options { doorstep: PathBuf::new(), node_cache: None, extent: Extent::FULL, only: None, out: None };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--doorstep" => options.doorstep = words.next()?.into(),
            "--node-cache" => options.node_cache = Some(words.next()?.into()),
            "--quick" => options.extent = Extent::QUICK,
            "--smoke" => options.extent = Extent::SMOKE,
            "--only" => options.only = Some(words.next()?.split(',').map(str::to_owned).collect()),
            "--out" => options.out = Some(words.next()?.into()),
            _ => return None,
        }
    }
    // Servers are started in directories of their own.
    options.doorstep = options.doorstep.canonicalize().ok()?;
    options.node_cache = options.node_cache.map(|file| file.canonicalize()).transpose().ok()?;
    Some(options)
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let mut results = Results { notes: circumstances(), ..Results::default() };
    let peers = chosen(options, &mut results)?;
    let extent = options.extent;
    let upstream = Upstream::start(3600)?;
    let servers = measure::start(&peers, &upstream, extent, &mut results);
    if !servers.iter().any(|server| server.name == DOORSTEP) || servers[0].name != ECHO {
        return Err("neither Doorstep nor the echo may be missing".into());
    }
    measure::idle_memory(&servers, &mut results);
    measure::hits(&servers, extent, &mut results)?;
    measure::filled_memory(&servers, &mut results)?;
    measure::misses(&servers, "miss", extent, &mut results)?;
    measure::flood(&servers, extent, &mut results)?;
    measure::flooded_memory(&servers, extent, &mut results)?;
    drop(servers);
    measure::prompt_misses(&peers, extent, &mut results)?;
    measure::shapes(&options.doorstep, extent, &mut results)?;
    measure::threads(&options.doorstep, &upstream, extent, &mut results)?;
    for peer in peers.iter().filter(|peer| !FLOORS.contains(&peer.name)) {
        results.add("binary", peer.name, stripped_size(peer)? as f64 / f64::from(1 << 20), None);
    }
    println!("{}", results.to_table());
    if let Some(stem) = &options.out {
        fs::write(stem.with_extension("tsv"), results.to_tsv())?;
        plot(&stem.with_extension("tsv"), &stem.with_extension("svg"))?;
    }
    Ok(())
}

/// The peers to be measured; who is not there is named in the notes.
fn chosen(options: &Options, results: &mut Results) -> Result<Vec<Peer>, Box<dyn Error>> {
    let mut peers = peers::own(&options.doorstep)?;
    peers.extend(options.node_cache.as_deref().map(peers::node_cache));
    peers.extend(peers::debian());
    if let Some(only) = &options.only {
        peers.retain(|peer| OWN.contains(&peer.name) || only.iter().any(|name| name == peer.name));
    }
    peers.retain(|peer| {
        let file = peer.file();
        match &file {
            Some(file) if !OWN.contains(&peer.name) => results.notes.push(version(peer.name, file)),
            Some(_) => {}
            None => results.notes.push(format!("{}: not installed", peer.name)),
        }
        file.is_some()
    });
    Ok(peers)
}

fn circumstances() -> Vec<String> {
    let file = |path| fs::read_to_string(path).unwrap_or_default();
    let cpu = file("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown CPU");
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = file("/proc/sys/kernel/osrelease");
    let load = file("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("?");
    let model = model.trim_start_matches([':', '\t', ' ']).trim();
    vec![format!("Linux {}, {cpus} CPUs ({model}), load average {load} at the start", kernel.trim())]
}

/// The Debian package's version, or the file for what is in no package.
fn version(name: &str, file: &Path) -> String {
    let text = |command: &mut Command| {
        let output = command.output().ok().filter(|output| output.status.success());
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let real = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let owner = text(Command::new("dpkg-query").arg("-S").arg(real));
    let package = owner.as_deref().and_then(|owner| owner.split(':').next());
    let version = package
        .and_then(|package| text(Command::new("dpkg-query").args(["-W", "-f", "${Version}", package])));
    format!("{name}: {}", version.unwrap_or_else(|| file.display().to_string()))
}

fn stripped_size(peer: &Peer) -> Result<u64, Box<dyn Error>> {
    let file = peer.file().ok_or("not installed")?.canonicalize()?;
    let stripped = tempfile::NamedTempFile::new()?;
    let status = Command::new("strip").arg("-o").arg(stripped.path()).arg(file).status()?;
    if !status.success() {
        return Err(format!("strip: {status}").into());
    }
    Ok(fs::metadata(stripped.path())?.len())
}

fn plot(data: &Path, picture: &Path) -> Result<(), Box<dyn Error>> {
    let results = Results::from_tsv(&fs::read_to_string(data)?).ok_or("not a data file")?;
    Ok(fs::write(picture, plot::svg(&results))?)
}

fn serve_echo(address: &str, batch: &str) -> Result<(), Box<dyn Error>> {
    Ok(echo::serve(address.parse()?, batch.parse()?)?)
}

fn serve_relay(address: &str, upstream: &str) -> Result<(), Box<dyn Error>> {
    Ok(relay::serve(address.parse()?, upstream.parse()?)?)
}

fn serve_upstream(address: &str) -> Result<(), Box<dyn Error>> {
    Ok(prompt::serve(address.parse()?)?)
}

/// The load client alone, for a server that somebody else started.
fn drive(address: &str, seconds: &str, rate: &str) -> Result<(), Box<dyn Error>> {
    let pace = match rate.parse()? {
        0.0 => load::Pace::ClosedLoop,
        rate => load::Pace::PerSecond(rate),
    };
    let duration = std::time::Duration::from_secs_f64(seconds.parse()?);
    let load =
        load::Load { server: address.parse()?, pace, sockets: 32, window: 256, duration, count: u64::MAX };
    let outcome = load.run(&mut questions::Cycle::warm(questions::Shape::A))?;
    let [p50, p99] = [0.5, 0.99].map(|share| outcome.percentile(share));
    let rate = outcome.answered as f64 / outcome.seconds;
    println!(
        "sent {} answered {} failed {} qps {rate:.0} p50 {p50:.1} p99 {p99:.1} µs",
        outcome.sent, outcome.answered, outcome.failed
    );
    Ok(())
}
