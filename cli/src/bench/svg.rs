//! The medians as bars.

use std::fmt::Write;

use super::report::{Bench, Cell, Report};
use super::size::FrameSize;
use super::spread::Spread;

const WIDTH: f64 = 900.0;
const LEFT: f64 = 290.0;
const RIGHT: f64 = 130.0;
const BAR: f64 = 22.0;
const GAP: f64 = 8.0;
const HEAD: f64 = 62.0;
const FOOT: f64 = 30.0;

/// What the bars show: CPU above the bare source, or per GB sent to another host.
fn shown(report: &Report, cell: &Cell) -> Option<Spread> {
    match report.bench {
        Bench::Local => cell.summary.cpu_seconds_above_source,
        Bench::Remote => cell.summary.link.as_ref()?.cpu_seconds_per_gb,
    }
}

/// One chart per size, with the extremes of the runs.
pub(crate) fn draw(report: &Report) -> String {
    let mut body = String::new();
    let mut top = 0.0;
    for size in report.sizes() {
        let has_bar = |cell: &&Cell| cell.contender.consumers > 0 && shown(report, cell).is_some();
        let cells: Vec<&Cell> =
            report.cells.iter().filter(|cell| cell.size == size).filter(has_bar).collect();
        if !cells.is_empty() {
            top = chart(&mut body, report, size, &cells, top);
        }
    }
    let total = top.max(40.0);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{total}\" viewBox=\"0 0 {WIDTH} \
         {total}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    )
}

fn chart(body: &mut String, report: &Report, size: FrameSize, cells: &[&Cell], top: f64) -> f64 {
    let terms = &report.terms;
    let most = cells.iter().filter_map(|cell| shown(report, cell));
    let most = most.fold(f64::MIN_POSITIVE, |most, spread| most.max(spread.max));
    let scale = (WIDTH - LEFT - RIGHT) / most;
    let pace = terms.fps.map_or_else(|| "free running".to_owned(), |fps| format!("{fps} fps"));
    let (figure, unit) = match report.bench {
        Bench::Local => ("CPU above the bare source", "CPU-seconds per 1000 frames"),
        Bench::Remote => ("CPU per byte", "CPU-seconds per GB received"),
    };
    let title = format!("{figure}, {size}, {pace}");
    let terms = format!(
        "{unit}, all processes; {} read; median of {} runs, line: min..max; {} x {}",
        terms.touched, terms.runs, report.machine.cores, report.machine.cpu
    );
    text(body, 16.0, top + 26.0, "font-size=\"17\" font-weight=\"bold\"", &title);
    text(body, 16.0, top + 46.0, "fill=\"#555555\" font-size=\"12\"", &terms);
    let mut y = top + HEAD;
    let mut consumers = 0;
    for cell in cells {
        let Some(spread) = shown(report, cell) else { continue };
        if cell.contender.consumers != consumers {
            consumers = cell.contender.consumers;
            y += GAP;
        }
        let label = format!("{}, 1\u{2192}{consumers}", cell.name);
        text(body, LEFT - 10.0, y + 16.0, "text-anchor=\"end\"", &label);
        let length = (spread.median * scale).max(1.0);
        let colour = colour(cell);
        let _ = writeln!(
            body,
            "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{length:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>"
        );
        let (from, to) = (LEFT + spread.min.max(0.0) * scale, LEFT + spread.max.max(0.0) * scale);
        let middle = y + BAR / 2.0;
        let _ = writeln!(
            body,
            "<path d=\"M{from:.1} {middle}H{to:.1}M{from:.1} {:.1}v8M{to:.1} {:.1}v8\" stroke=\"#222222\" fill=\"none\"/>",
            middle - 4.0,
            middle - 4.0
        );
        text(body, to.max(LEFT + length) + 8.0, y + 16.0, "", &format!("{:.3}", spread.median));
        y += BAR + GAP;
    }
    y + FOOT
}

fn colour(cell: &Cell) -> &'static str {
    match cell.contender.transport {
        transport if transport.is_ours() => "#2a7de1",
        transport if transport.is_floor() => "#9aa5b1",
        _ => "#e08a2a",
    }
}

fn text(body: &mut String, x: f64, y: f64, attributes: &str, content: &str) {
    let content = content.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(body, "<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{content}</text>");
}
