//! The table as a picture.

use std::fmt::Write;

use crate::peers::{DOORSTEP, FLOORS};
use crate::results::Results;

/// A row of bars.
struct Panel {
    title: &'static str,
    measure: &'static str,
    /// Show the ratio to the echo instead of the value.
    ratio: bool,
    digits: usize,
}

const PANELS: [Panel; 6] = [
    Panel { title: "CPU per hit, closed loop (echo = 1)", measure: "hit_closed", ratio: true, digits: 2 },
    Panel { title: "CPU per hit at 20 000/s (echo = 1)", measure: "hit_paced", ratio: true, digits: 2 },
    Panel { title: "p99 at 20 000/s (echo = 1)", measure: "hit_paced_p99", ratio: true, digits: 2 },
    Panel { title: "CPU per miss at 8 000/s, µs", measure: "miss", ratio: false, digits: 0 },
    Panel { title: "memory after many names (Pss), MiB", measure: "pss_flood", ratio: false, digits: 1 },
    Panel { title: "start to first answer, ms", measure: "start", ratio: false, digits: 0 },
];

const COLUMNS: usize = 2;
const WIDTH: f64 = 440.0;
const LABEL: f64 = 92.0;
const NUMBER: f64 = 60.0;
const LINE: f64 = 19.0;
const HEAD: f64 = 34.0;

/// Colours that are legible on white and on black.
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#24292f}.t{font-weight:600}.n{fill:#57606a}\
    .o{fill:#8c959f}.d{fill:#2f81f7}.e{fill:#bf8700}\
    @media(prefers-color-scheme:dark){text{fill:#e6edf3}.n{fill:#9198a1}}";

/// Draws `results` as an SVG document.
pub fn svg(results: &Results) -> String {
    let servers = results.servers();
    let height = HEAD + LINE * servers.len() as f64 + 14.0;
    let (width, all) = (WIDTH * COLUMNS as f64, height * PANELS.len().div_ceil(COLUMNS) as f64);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {all}\" width=\"{width}\" \
         height=\"{all}\" role=\"img\" aria-label=\"Doorstep and its peers; shorter is better\">\n\
         <style>{STYLE}</style>\n"
    );
    for (at, panel) in PANELS.iter().enumerate() {
        let (x, y) = ((at % COLUMNS) as f64 * WIDTH, (at / COLUMNS) as f64 * height);
        // Writing to a String cannot fail.
        let _ = writeln!(out, "<g transform=\"translate({x} {y})\">");
        draw(&mut out, panel, results, &servers);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, panel: &Panel, results: &Results, servers: &[&str]) {
    let number = |server: &&str| {
        let record = results.get(panel.measure, server)?;
        if panel.ratio { record.ratio } else { Some(record.value) }
    };
    let bars: Vec<(&str, f64)> =
        servers.iter().filter_map(|server| number(server).map(|number| (*server, number))).collect();
    let longest = bars.iter().map(|(_, number)| *number).fold(f64::MIN_POSITIVE, f64::max);
    let _ = writeln!(out, "<text class=\"t\" x=\"4\" y=\"22\">{}</text>", panel.title);
    for (at, (server, number)) in bars.iter().enumerate() {
        let y = HEAD + LINE * at as f64;
        let bar = (WIDTH - LABEL - NUMBER) * number / longest;
        let class = match *server {
            DOORSTEP => "d",
            floor if FLOORS.contains(&floor) => "e",
            _ => "o",
        };
        let _ = writeln!(
            out,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{server}</text>\
             <rect class=\"{class}\" x=\"{LABEL}\" y=\"{:.0}\" width=\"{bar:.1}\" height=\"{:.0}\" rx=\"2\"/>\
             <text class=\"n\" x=\"{:.0}\" y=\"{:.0}\">{number:.*}</text>",
            LABEL - 6.0,
            y + 12.0,
            y + 1.0,
            LINE - 5.0,
            LABEL + bar + 5.0,
            y + 12.0,
            panel.digits
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_its_bar() {
        let mut results = Results::default();
        results.add_rounds("hit_closed", &["echo", DOORSTEP, "unbound"], &[vec![4.0, 4.4, 8.0]]);
        let svg = svg(&results);
        assert_eq!(svg.matches("<rect").count(), 3);
        assert!(
            svg.contains("class=\"d\"") && svg.contains(">1.10<") && svg.contains("width=\"288.0\""),
            "{svg}"
        );
    }

    #[test]
    fn the_picture_of_the_readme_is_drawn_from_its_data() {
        let results = Results::from_tsv(include_str!("../results/compare.tsv")).unwrap();
        assert_eq!(svg(&results), include_str!("../results/compare.svg"));
    }
}
