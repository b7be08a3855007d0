//! What users see: tables and JSON on stdout, notes on stderr. Nothing here panics when nobody reads.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

/// Whether stdout is a terminal.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// A line on stdout.
pub(crate) fn line(text: impl fmt::Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// What others say of themselves, in one line that cannot steer a terminal.
pub(crate) fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// A line, or several, on stderr, for people; it does not matter whether somebody reads it.
pub(crate) fn note(text: impl fmt::Display) {
    let text = text.to_string().split('\n').map(plain).collect::<Vec<_>>().join("\n");
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A value as JSON on stdout.
pub(crate) fn json(value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
    line(text)
}

/// A value as one line of JSON on stdout.
pub(crate) fn json_line(value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_string(value).map_err(io::Error::other)?;
    line(text)
}

/// How a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Rows in columns that are as wide as they need to be.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table; a column whose name begins with `>` stands to the right.
    pub(crate) fn new<const N: usize>(columns: [&'static str; N]) -> Self {
        let column = |name: &'static str| match name.strip_prefix('>') {
            Some(name) => (name, Align::Right),
            None => (name, Align::Left),
        };
        Self { columns: columns.map(column).to_vec(), rows: Vec::new() }
    }

    /// Appends a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.columns.len(), "a cell for every column");
        self.rows.push(cells.map(|cell| plain(&cell)).to_vec());
    }

    /// The table's lines; on a terminal the head is bold and long lines are cut at `width`.
    pub(crate) fn render(&self, terminal: Option<usize>) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([self.columns[column].0.chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |cells: &[&str]| {
            let mut line = String::new();
            for ((cell, width), (_, align)) in cells.iter().zip(&widths).zip(&self.columns) {
                match align {
                    Align::Left => line.push_str(&format!("{cell:<width$}  ")),
                    Align::Right => line.push_str(&format!("{cell:>width$}  ")),
                }
            }
            let line = line.trim_end();
            terminal.map_or_else(|| line.to_owned(), |width| line.chars().take(width).collect())
        };
        let head: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
        let mut text = line(&head);
        if terminal.is_some() {
            text = format!("\x1b[1m{text}\x1b[0m");
        }
        for row in &self.rows {
            text.push('\n');
            text.push_str(&line(&row.iter().map(String::as_str).collect::<Vec<_>>()));
        }
        text
    }

    /// Prints it as suits stdout.
    pub(crate) fn print(&self) -> io::Result<()> {
        line(self.render(is_terminal().then(|| terminal_size().0)))
    }
}

/// Columns and lines of the terminal.
pub(crate) fn terminal_size() -> (usize, usize) {
    let size = terminal_size::terminal_size();
    size.map_or((100, 30), |(width, height)| (usize::from(width.0).max(20), usize::from(height.0).max(5)))
}

/// Bytes as people read them.
pub(crate) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1023.95 {
            let digits = usize::from(unit != "B");
            return format!("{value:.digits$} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// A time as people read it.
pub(crate) fn microseconds(time: f64) -> String {
    match time {
        ..1e3 => format!("{time:.0} us"),
        ..1e6 => format!("{:.1} ms", time / 1e3),
        _ => format!("{:.1} s", time / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let mut table = Table::new(["NAME", ">FRAMES", "CAPS"]);
        table.row(["cam0".into(), "7".into(), "video/x-raw".into()]);
        table.row(["a\x1b[2Jlong-name".into(), "1234567".into(), String::new()]);
        let expected = [
            "NAME             FRAMES  CAPS",
            "cam0                  7  video/x-raw",
            "a [2Jlong-name  1234567",
        ];
        assert_eq!(table.render(None).lines().collect::<Vec<_>>(), expected);
        assert!(table.render(Some(10)).lines().all(|line| line.chars().count() <= 10 + 8));
    }

    #[test]
    fn bytes_have_units() {
        let shown = [0, 1023, 1024, 3_110_400, 1 << 30, 1 << 40].map(bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "3.0 MiB", "1.0 GiB", "1.0 TiB"]);
        let shown = [0.4, 999.0, 1500.0, 2_000_000.0].map(microseconds);
        assert_eq!(shown, ["0 us", "999 us", "1.5 ms", "2.0 s"]);
    }
}
