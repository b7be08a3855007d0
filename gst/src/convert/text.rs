//! Text from a link, looked at before GStreamer's parsers see it.

/// Brackets that may be open at a time. GStreamer tries each level as several things, and each of those tries
/// all levels below: the time to refuse a text grows with a power of its depth.
const MAX_DEPTH: usize = 6;

/// The text, if GStreamer's parsers may have it: no NUL, and not too deep.
pub(super) fn checked(text: &str) -> Option<&str> {
    (!text.contains('\0') && depth(text) <= MAX_DEPTH).then_some(text)
}

/// The text of bytes.
pub(super) fn of(data: &[u8]) -> Option<&str> {
    checked(std::str::from_utf8(data).ok()?)
}

/// The most brackets that are open at one point, outside quotes.
fn depth(text: &str) -> usize {
    let (mut open, mut most, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' | b'<' | b'(' if !quoted => open += 1,
            b']' | b'}' | b'>' | b')' if !quoted => open = open.saturating_sub(1),
            _ => {}
        }
        most = most.max(open);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_what_is_open_at_a_time() {
        for (text, expected) in [
            ("", 0),
            ("a=(int)1, b=(int)2", 1),
            ("format=(string){ NV12, I420 }, framerate=(fraction)[ 0/1, 60/1 ]", 1),
            ("a=< < 1, 2 >, [ { (int)1 } ] >", 4),
            ("title=(string)\"((((((((\"", 1),
            ("title=\\(\\(\\(", 0),
            ("]]]][", 1),
        ] {
            assert_eq!(depth(text), expected, "{text}");
        }
    }

    #[test]
    fn what_would_take_for_ever_is_refused_at_once() {
        let deep = format!("video/x-raw{}", ",i=[video/x-raw,i=[a".repeat(10));
        assert_eq!(checked(&deep), None);
        let limit = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(checked(&limit(MAX_DEPTH)).is_some());
        assert!(checked(&limit(MAX_DEPTH + 1)).is_none());
        assert!(checked("a\0").is_none());
    }
}
