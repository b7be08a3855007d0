//! Bytes that the machine's network interfaces have sent, as the kernel counts them: headers, acknowledgements
//! and everybody else's traffic included.

/// So far, of all interfaces of this network namespace.
pub(super) fn sent() -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/net/dev").ok()?)
}

/// Each line is `NAME: ` and eight figures of what was received before those of what was sent.
fn parse(table: &str) -> Option<u64> {
    let sent = |line: &str| line.split_once(':')?.1.split_whitespace().nth(8)?.parse::<u64>().ok();
    table.lines().skip(2).map(sent).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_interfaces_sent_is_summed() {
        let head = "Inter-| Receive | Transmit\n face |bytes packets|bytes packets\n";
        let table = format!(
            "{head}    lo: 10 1 0 0 0 0 0 0 20 2 0 0 0 0 0 0\neth0:1 1 0 0 0 0 0 0 300 2 0 0 0 0 0 0\n"
        );
        assert_eq!(parse(&table), Some(320));
        assert_eq!(parse(&format!("{head}lo: 1 2\n")), None);
        assert!(sent().is_some());
    }
}
