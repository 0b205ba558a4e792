//! Scraping, and a strict reader of the Prometheus text format.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Sends a request and reads until the server closes.
pub fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The body of `/metrics`.
pub fn scrape(address: SocketAddr) -> String {
    let answer = exchange(address, "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
    body.to_owned()
}

/// One family of a scrape.
pub struct Shown {
    pub name: String,
    pub kind: String,
    pub samples: Vec<Sample>,
}

pub struct Sample {
    pub suffix: String,
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

impl Sample {
    pub fn label(&self, name: &str) -> &str {
        let pair = self.labels.iter().find(|(label, _)| label == name);
        &pair.unwrap_or_else(|| panic!("no label {name}")).1
    }
}

impl Shown {
    /// The line of the golden list for this family.
    pub fn summary(&self) -> String {
        let labels = self.samples[0].labels.iter().map(|(name, _)| name.as_str());
        let mut words = vec![self.name.as_str(), &self.kind];
        words.extend(labels.filter(|name| *name != "le"));
        if self.kind == "histogram" {
            let series = self.samples.iter().take_while(|sample| sample.suffix == "_bucket");
            words.push("|");
            words.extend(series.map(|sample| sample.label("le")));
        }
        words.join(" ")
    }

    /// Label sets are unique and of one shape; buckets are cumulative and agree with the count.
    fn check(&self) {
        let mut series: BTreeMap<Vec<(String, String)>, Vec<&Sample>> = BTreeMap::new();
        for sample in &self.samples {
            let own = sample.labels.iter().filter(|(name, _)| name != "le").cloned().collect();
            series.entry(own).or_default().push(sample);
        }
        for (labels, samples) in &series {
            let sorted = labels.windows(2).all(|pair| pair[0].0 < pair[1].0);
            assert!(sorted, "{}: labels out of order: {labels:?}", self.name);
            if self.kind != "histogram" {
                assert_eq!(samples.len(), 1, "{}: {labels:?} twice", self.name);
                continue;
            }
            let [buckets @ .., sum, count] = samples.as_slice() else {
                panic!("{}: no buckets", self.name);
            };
            assert_eq!((sum.suffix.as_str(), count.suffix.as_str()), ("_sum", "_count"));
            assert!(buckets.windows(2).all(|pair| pair[0].value <= pair[1].value));
            let last = buckets.last().unwrap();
            assert_eq!(last.label("le"), "+Inf");
            assert_eq!(last.value, count.value, "{}: {labels:?}", self.name);
        }
    }
}

/// Reads the text format strictly: HELP, TYPE, samples; families sorted by name.
pub fn parse(text: &str) -> Vec<Shown> {
    assert!(text.ends_with('\n'));
    let mut families: Vec<Shown> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(!help.is_empty());
            let kind = lines.next().and_then(|line| line.strip_prefix("# TYPE "));
            let kind = kind.and_then(|line| line.strip_prefix(name)).unwrap().trim();
            families.push(Shown { name: name.to_owned(), kind: kind.to_owned(), samples: Vec::new() });
        } else {
            let family = families.last_mut().unwrap();
            let sample = line.strip_prefix(family.name.as_str());
            family.samples.push(parse_sample(sample.unwrap_or_else(|| panic!("stray {line}"))));
        }
    }
    assert!(families.windows(2).all(|pair| pair[0].name < pair[1].name));
    families.iter().for_each(Shown::check);
    families
}

/// `SUFFIX{name="value",...} NUMBER`
fn parse_sample(text: &str) -> Sample {
    let (series, value) = text.rsplit_once(' ').unwrap();
    let (suffix, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.strip_suffix('}').unwrap();
    let pairs = labels.split_terminator("\",").map(|pair| {
        let (name, value) = pair.split_once("=\"").unwrap();
        (name.to_owned(), value.trim_end_matches('"').to_owned())
    });
    Sample { suffix: suffix.to_owned(), labels: pairs.collect(), value: value.parse().unwrap() }
}
