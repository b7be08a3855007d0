//! The sections of two-hosts/README.md.

const PAGE: &str = include_str!("../../two-hosts/README.md");

/// What is typed on each host.
#[derive(Debug, Default)]
pub(crate) struct Section {
    pub(crate) host_1: String,
    pub(crate) host_2: String,
}

impl Section {
    /// The one under this heading.
    pub(crate) fn titled(title: &str) -> Self {
        let section = PAGE.split("\n## ").find(|section| section.lines().next() == Some(title));
        let section = section.unwrap_or_else(|| panic!("there is no section {title:?}"));
        let block = |host: &str| {
            let after = section.split(&format!("```sh {host}\n")).nth(1);
            let block = after.and_then(|text| text.split("```").next());
            block.unwrap_or_else(|| panic!("{title}: nothing to type on {host}")).to_owned()
        };
        Self { host_1: block("host 1"), host_2: block("host 2") }
    }
}

/// Every section is run by a test.
#[test]
fn no_section_is_forgotten() {
    let tests = include_str!("../hosts.rs");
    for section in PAGE.split("\n## ").skip(1) {
        let title = section.lines().next().unwrap_or_default();
        assert!(tests.contains(&format!("run(\"{title}\")")), "{title}");
    }
}
