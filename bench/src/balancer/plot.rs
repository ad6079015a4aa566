//! Draws bars, as SVG: the cost of a request and the requests per core, for each proxy.
//!
//! The background is transparent and the ink follows the reader's colour scheme.

use std::fmt::Write as _;

use super::peer::Peer;
use super::results::{Results, Row};
use super::scenario::Scenario;
use super::statistics::Spread;

const WIDTH: f64 = 860.0;
const PANEL: f64 = 400.0;
const NAME: f64 = 76.0;
/// Room for the number after the longest bar.
const NUMBER: f64 = 64.0;
const BAR: f64 = 18.0;
const STEP: f64 = 28.0;
const HEAD: f64 = 46.0;

/// Scenarios in the plot, from top to bottom.
const ROWS: [Scenario; 5] =
    [Scenario::KeepAlive64, Scenario::KeepAlive256, Scenario::Churn, Scenario::Tls, Scenario::Download];

const STYLE: &str = "<style>
  text { font: 13px system-ui, sans-serif; fill: #24292f; }
  .head { font-weight: 600; } .unit { fill: #57606a; font-size: 12px; }
  .ours { fill: #0969da; } .peer { fill: #8c959f; } .range { stroke: #24292f; stroke-width: 1.5; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .unit { fill: #9198a1; }
    .ours { fill: #4493f8; } .peer { fill: #6e7681; } .range { stroke: #e6edf3; }
  }
</style>
";

/// Draws all measured scenarios.
pub fn svg(results: &Results) -> String {
    let mut body = String::new();
    let mut top = 0.0;
    for scenario in ROWS {
        let rows = results.rows(scenario);
        if rows.is_empty() {
            continue;
        }
        let cpu = panel("CPU seconds per 100,000 requests, less is better", &rows, 2, |row| {
            row.cpu_seconds_per_100k
        });
        let per_second =
            panel("requests per second on a core, more is better", &rows, 0, |row| row.per_second);
        let second = WIDTH - PANEL;
        let title = scenario.title();
        write!(
            body,
            "<g transform=\"translate(0 {top})\">\n<text class=\"head\" x=\"0\" y=\"16\">{title}</text>\n\
             {cpu}<g transform=\"translate({second} 0)\">\n{per_second}</g>\n</g>\n"
        )
        .expect("a string takes all");
        top = rows.iter().fold(top + HEAD, |bottom, _| bottom + STEP) + 14.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"-10 -4 {} {}\" role=\"img\">\n\
         <title>The load balancer and its peers: medians, with the least and the most</title>\n{STYLE}{body}</svg>\n",
        WIDTH + 20.0,
        top + 4.0,
    )
}

fn panel(unit: &str, rows: &[Row], digits: usize, quantity: fn(&Row) -> Spread) -> String {
    let longest = rows.iter().map(|row| quantity(row).max).fold(f64::MIN_POSITIVE, f64::max);
    let scale = (PANEL - NAME - NUMBER) / longest;
    let mut text = format!("<text class=\"unit\" x=\"0\" y=\"36\">{unit}</text>\n");
    let mut y = HEAD;
    for row in rows {
        let spread = quantity(row);
        let class = if row.peer == Peer::Ours { "ours" } else { "peer" };
        let middle = y + BAR / 2.0;
        let end = |value: f64| NAME + value * scale;
        writeln!(
            text,
            "<text x=\"0\" y=\"{:.1}\">{}</text>\
             <rect class=\"{class}\" x=\"{NAME}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\"/>\
             <line class=\"range\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{:.digits$}</text>",
            middle + 4.5,
            row.peer,
            spread.median * scale,
            end(spread.min),
            end(spread.max),
            end(spread.max) + 6.0,
            middle + 4.5,
            spread.median,
        )
        .expect("a string takes all");
        y += STEP;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::sample;
    use super::*;

    #[test]
    fn each_proxy_has_a_bar_for_each_quantity() {
        let mut results = Results::default();
        results.samples.push(sample(Scenario::KeepAlive64, Peer::Ours, 80_000, 2.0, 1.0));
        results.samples.push(sample(Scenario::KeepAlive64, Peer::Nginx, 50_000, 2.0, 1.0));
        let svg = svg(&results);
        assert_eq!(svg.matches("<rect").count(), 4);
        assert_eq!(svg.matches(">nginx</text>").count(), 2);
        assert!(svg.contains(">40000</text>") && svg.contains(">2.50</text>"), "{svg}");
        assert_eq!(svg.matches("<g").count(), svg.matches("</g>").count());
    }
}
