//! What README.md tells people to type, in its part "Plug it in", is run here as it stands there.
//!
//! A block says after its language how it is meant:
//! - `sh terminals`: each line in a terminal of its own, all at once. They go on until the paragraph with the
//!   bold title that they belong to is over, and then get Ctrl-C.
//! - `sh steps`: the lines one after the other, in one shell that ends at the first failure.
//! - `rust`: compiled, as documentation tests of the examples' package.
//!
//! Nothing in the lines is changed. `autovideosink` finds a sink that needs no display, by its rank.
#![cfg(feature = "gstreamer")]

#[path = "../common/mod.rs"]
mod common;

mod blocks;
mod terminals;

use std::time::Duration;

use terminals::{Lacks, Stage, found};

const README: &str = include_str!("../../../README.md");
const PART: &str = "Plug it in";

/// Runs all that a text like README tells, and counts the lines.
fn run(text: &str, stage: &Stage, patience: Duration) -> Result<usize, String> {
    let mut lines = 0;
    for section in blocks::sections(text, PART)? {
        let told = |error: String| format!("{}: {error}", section.title);
        lines += stage.run(&section, patience).map_err(told)?;
    }
    Ok(lines)
}

#[test]
fn what_readme_tells_people_to_type_works() {
    if let Some(lacks) = Lacks::anything() {
        return lacks.skip();
    }
    let lines = run(README, &Stage::new(), common::LIMIT).unwrap_or_else(|error| panic!("{error}"));
    assert!(lines >= 12, "README shows {lines} lines");
}

#[test]
fn readme_shows_how_in_rust() {
    assert!(blocks::rust(README, PART) >= 2);
    // The other part of this: the documentation tests of the examples.
    let examples = include_str!("../../../examples/src/lib.rs");
    assert!(examples.contains(r#"include_str!("../../README.md")"#));
}

/// The negative control: lines with a mistake are found out.
#[test]
fn a_line_that_does_not_work_is_found_out() {
    if let Some(lacks) = Lacks::anything() {
        return lacks.skip();
    }
    let stage = Stage::new();
    for (right, wrong, says) in [
        ("! pagecastsink uri", "! pagecastsinkhole uri", "ended"),
        (
            "pagecastsrc uri=unix:cam0 ! videoconvert ! auto",
            "pagecastsrc uri=unix:cam9 ! videoconvert ! auto",
            "no frames",
        ),
        ("pagecast top", "pagecast topple", "ended"),
        ("relay cam0 cam0-again", "relay cam9 cam0-again", "no frames"),
        ("snapshot cam0 -o", "snapshot cam9 -o", "cam9"),
        ("--y4m |", "--y5m |", "y5m"),
        ("location=cam0.mkv", "location=/dev/null # cam0.mkv", "cam0.mkv"),
        ("shm-size", "shm-sighs", "ended"),
        ("cp viewer/certificate.pem camera/trusted/viewer.pem", "true", "does not trust the certificate"),
        ("sh steps", "sh", "how it is meant"),
    ] {
        assert!(README.contains(right), "README has no {right:?} any more");
        let text = README.replace(right, wrong);
        let only = one_section(&text, &README.replace(right, ""));
        // A consumer without frames is not waited for as long as where some must come first.
        let patience = if says == "no frames" { Duration::from_secs(5) } else { common::LIMIT };
        let error = found(run(&only, &stage, patience), wrong);
        assert!(error.contains(says), "{wrong}: {error}");
    }
}

/// The text with only the section in it that differs from `other`.
fn one_section(text: &str, other: &str) -> String {
    let head = format!("## {PART}\n");
    let part = |text: &str| {
        text.split(&head).nth(1).unwrap_or_default().split("\n## ").next().unwrap_or_default().to_owned()
    };
    let (part, other) = (part(text), part(other));
    let bold = |text: &str| text.split("\n**").map(str::to_owned).collect::<Vec<_>>();
    let other = bold(&other);
    let changed: Vec<String> = bold(&part).into_iter().filter(|section| !other.contains(section)).collect();
    format!("{head}\n**{}", changed.join("\n**"))
}
