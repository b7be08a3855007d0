//! The cases as a picture: cores over time on the left, ages of pictures on the right.

use std::fmt::Write;

use super::report::Case;
use super::scene::Scene;

const WIDTH: f64 = 980.0;
const HEAD: f64 = 64.0;
const ROW: f64 = 96.0;
const PLOT: f64 = 64.0;
const CORES: (f64, f64) = (170.0, 360.0);
const AGES: (f64, f64) = (590.0, 330.0);
const COLOURS: [&str; 2] = ["#2a7de1", "#e08a2a"];
/// Bars of a distribution.
const BINS: usize = 66;

/// One row per case; all rows have the same scales.
pub(crate) fn draw(cases: &[Case], scene: &Scene) -> String {
    let samples = || cases.iter().flat_map(|case| &case.samples);
    let most_cores = samples().flat_map(|sample| sample.cores).fold(0.1, f64::max);
    let longest = samples().map(|sample| sample.at).fold(0.1, f64::max);
    // A few stragglers would squeeze everything else: they are in the last bar.
    let oldest = cases.iter().map(|case| case.age(0.99)).fold(0.1, f64::max) * 1.1;
    let mut body = String::new();
    let (width, height) = scene.size;
    let title = format!("Offload, {width}x{height} at {} fps: what host 2 does for host 1", scene.fps);
    text(&mut body, (16.0, 26.0), "font-size=\"17\" font-weight=\"bold\"", &title);
    let note = format!("cores over {longest:.1} s, 0 to {most_cores:.2}; blue: host 1, orange: host 2");
    text(&mut body, (CORES.0, 50.0), "fill=\"#555555\"", &note);
    let note = format!("ages of pictures at the viewer, 0 to {oldest:.1} ms");
    text(&mut body, (AGES.0, 50.0), "fill=\"#555555\"", &note);
    for (row, case) in cases.iter().enumerate() {
        let base = HEAD + row as f64 * ROW + PLOT;
        text(&mut body, (16.0, base - 38.0), "font-weight=\"bold\"", &case.mode.to_string());
        text(&mut body, (16.0, base - 20.0), "", &case.link);
        let [one, two] = case.cores();
        text(&mut body, (16.0, base - 2.0), "fill=\"#555555\"", &format!("{one:.2} + {two:.2} cores"));
        cores(&mut body, case, base, (longest, most_cores));
        ages(&mut body, case, base, oldest);
    }
    let total = HEAD + cases.len() as f64 * ROW;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{total}\" viewBox=\"0 0 {WIDTH} {total}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    )
}

fn axis(body: &mut String, (left, width): (f64, f64), base: f64) {
    let _ = writeln!(body, "<path d=\"M{left} {base}h{width}\" stroke=\"#9aa5b1\" fill=\"none\"/>");
}

fn cores(body: &mut String, case: &Case, base: f64, (longest, most): (f64, f64)) {
    axis(body, CORES, base);
    for (host, colour) in COLOURS.iter().enumerate() {
        let point = |sample: &super::report::Sample| {
            let (x, y) = (sample.at / longest * CORES.1, sample.cores[host] / most * PLOT);
            format!("{:.1},{:.1}", CORES.0 + x, base - y)
        };
        let points = case.samples.iter().map(point).collect::<Vec<_>>().join(" ");
        let _ = writeln!(
            body,
            "<polyline points=\"{points}\" stroke=\"{colour}\" stroke-width=\"1.5\" fill=\"none\"/>"
        );
    }
}

fn ages(body: &mut String, case: &Case, base: f64, oldest: f64) {
    axis(body, AGES, base);
    let mut bins = [0_u32; BINS];
    for (_, micros) in &case.ages {
        let bin = (*micros as f64 / 1000.0 / oldest * BINS as f64) as usize;
        bins[bin.min(BINS - 1)] += 1;
    }
    let most = f64::from(bins.iter().copied().max().unwrap_or(1).max(1));
    let width = AGES.1 / BINS as f64;
    for (bin, count) in bins.iter().enumerate().filter(|(_, count)| **count > 0) {
        let (x, height) = (AGES.0 + bin as f64 * width, f64::from(*count) / most * PLOT);
        let _ = writeln!(
            body,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"#5b8c5a\"/>",
            base - height,
            width - 1.0
        );
    }
    let note = format!("p50 {:.1}, p99 {:.1}, max {:.1} ms", case.age(0.5), case.age(0.99), case.age(1.0));
    text(body, (AGES.0 + AGES.1, base - PLOT + 8.0), "text-anchor=\"end\" fill=\"#555555\"", &note);
}

fn text(body: &mut String, (x, y): (f64, f64), attributes: &str, content: &str) {
    let _ = writeln!(body, "<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{content}</text>");
}
