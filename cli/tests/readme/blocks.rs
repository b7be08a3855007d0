//! The fenced blocks of a text in Markdown, as far as README uses it.

/// How the lines of a block are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// Each in a terminal of its own.
    Terminals,
    /// One after the other.
    Steps,
}

/// A block of lines to type.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) how: How,
    pub(crate) lines: Vec<String>,
}

/// The blocks below one bold title.
#[derive(Debug, Default)]
pub(crate) struct Section {
    pub(crate) title: String,
    pub(crate) blocks: Vec<Block>,
}

/// The lines of a part, with what stands after a fence's opening, where they are in one.
fn lines<'a>(text: &'a str, part: &str) -> impl Iterator<Item = (Option<&'a str>, &'a str)> {
    let (head, mut inside) = (format!("## {part}"), None);
    let lines = text.lines().skip_while(move |line| *line != head).skip(1);
    let lines = lines.take_while(|line| !line.starts_with("## "));
    lines.map(move |line| {
        let fence = line.strip_prefix("```");
        let was = inside;
        match (inside, fence) {
            (None, Some(kind)) => inside = Some(kind),
            (Some(_), Some(_)) => inside = None,
            _ => {}
        }
        (was.filter(|_| fence.is_none()), line)
    })
}

/// The sections of a part that have something to type.
pub(crate) fn sections(text: &str, part: &str) -> Result<Vec<Section>, String> {
    let mut sections = vec![Section::default()];
    let mut before = None;
    for (kind, line) in lines(text, part) {
        if let Some(title) = line.strip_prefix("**") {
            let title = title.split("**").next().unwrap_or_default();
            sections.push(Section { title: title.to_owned(), blocks: Vec::new() });
        }
        let section = sections.last_mut().ok_or("no section")?;
        if let Some(how) = kind.map(how).transpose()?.flatten() {
            if before != kind {
                section.blocks.push(Block { how, lines: Vec::new() });
            }
            if let Some(block) = section.blocks.last_mut() {
                block.lines.push(line.to_owned());
            }
        }
        before = kind;
    }
    sections.retain(|section| !section.blocks.is_empty());
    match sections.is_empty() {
        false => Ok(sections),
        true => Err(format!("there is nothing to type in {part:?}")),
    }
}

/// What a fence says; nothing for other languages.
fn how(kind: &str) -> Result<Option<How>, String> {
    match kind.split_once(' ').unwrap_or((kind, "")) {
        ("sh", "terminals") => Ok(Some(How::Terminals)),
        ("sh", "steps") => Ok(Some(How::Steps)),
        ("rust,no_run" | "rust" | "text", "") => Ok(None),
        _ => Err(format!("```{kind} does not say how it is meant: see this test's head")),
    }
}

/// How many blocks of Rust are compiled.
pub(crate) fn rust(text: &str, part: &str) -> usize {
    let is_rust = |kind: Option<&str>| kind.is_some_and(|kind| kind == "rust" || kind == "rust,no_run");
    let kinds: Vec<bool> = lines(text, part).map(|(kind, _)| is_rust(kind)).collect();
    usize::from(kinds.first() == Some(&true)) + kinds.windows(2).filter(|two| *two == [false, true]).count()
}
