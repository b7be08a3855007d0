//! Caps as text, without GStreamer: `video/x-raw, format=(string)NV12, width=(int)1920, …`.

/// The first structure of caps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Caps {
    /// The media type, without features.
    pub(crate) media: String,
    fields: Vec<(String, String)>,
}

impl Caps {
    /// Reads caps that GStreamer or a person wrote.
    pub(crate) fn parse(text: &str) -> Self {
        let first = split(text, ';').into_iter().next().unwrap_or_default();
        let mut parts = split(first, ',').into_iter();
        let media = parts.next().unwrap_or_default();
        let media = media.split('(').next().unwrap_or_default().trim().to_owned();
        let field = |part: &str| {
            let (name, value) = part.split_once('=')?;
            Some((name.trim().to_owned(), plain(value)))
        };
        Self { media, fields: parts.filter_map(field).collect() }
    }

    /// A field's value, without its type.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// A field that is a number.
    pub(crate) fn number(&self, name: &str) -> Option<u32> {
        self.get(name)?.parse().ok()
    }

    /// A field that is a fraction.
    pub(crate) fn fraction(&self, name: &str) -> Option<(u32, u32)> {
        let value = self.get(name)?;
        let (above, below) = value.split_once('/').unwrap_or((value, "1"));
        Some((above.parse().ok()?, below.parse().ok().filter(|below| *below > 0)?))
    }
}

/// Caps as a table has room for them: `NV12 1920x1080 60/1`, `S16LE 48000 Hz 2 channels`, or the media type.
pub(crate) fn brief(text: &str) -> String {
    let caps = Caps::parse(text);
    let mut words = vec![];
    match (caps.media.as_str(), caps.get("format")) {
        ("video/x-raw" | "audio/x-raw", Some(format)) => words.push(format.to_owned()),
        (media, _) => words.push(media.to_owned()),
    }
    if let (Some(width), Some(height)) = (caps.number("width"), caps.number("height")) {
        words.push(format!("{width}x{height}"));
    }
    words.extend(caps.get("framerate").map(str::to_owned));
    words.extend(caps.number("rate").map(|rate| format!("{rate} Hz")));
    words.extend(caps.number("channels").map(|channels| format!("{channels} channels")));
    words.join(" ")
}

/// Splits where `separator` is in no quotes and no brackets.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut depth, mut quoted, mut escaped) = (Vec::new(), 0, 0_i32, false, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '{' | '[' | '<' | '(' => depth += 1,
            '}' | ']' | '>' | ')' => depth -= 1,
            _ if character == separator && depth <= 0 => {
                parts.push(&text[start..at]);
                start = at + character.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// A value without its type and quotes.
fn plain(value: &str) -> String {
    let mut value = value.trim();
    if let Some((_, rest)) = value.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        value = rest.trim_start();
    }
    match value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\\\"", "\"").replace("\\\\", "\\"),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_are_read_with_and_without_types() {
        let caps = Caps::parse(
            "video/x-raw(memory:DMABuf, meta:x), format=(string)NV12, width=(int)1920, height=1080 , \
             framerate=(fraction)60/1, colorimetry=(string)\"a, b\", formats={ (string)A, B }; video/x-raw",
        );
        assert_eq!(caps.media, "video/x-raw");
        assert_eq!(caps.get("format"), Some("NV12"));
        assert_eq!((caps.number("width"), caps.number("height")), (Some(1920), Some(1080)));
        assert_eq!(caps.fraction("framerate"), Some((60, 1)));
        assert_eq!(caps.get("colorimetry"), Some("a, b"));
        assert_eq!(caps.get("formats"), Some("{ (string)A, B }"));
        assert_eq!(caps.get("absent"), None);
    }

    #[test]
    fn brief_caps_say_what_matters() {
        let cases = [
            (
                "video/x-raw, format=(string)NV12, width=(int)8, height=(int)6, framerate=(fraction)30/1",
                "NV12 8x6 30/1",
            ),
            ("audio/x-raw, format=S16LE, rate=48000, channels=2", "S16LE 48000 Hz 2 channels"),
            ("video/x-h264, stream-format=avc, width=8, height=6", "video/x-h264 8x6"),
            ("text/x-raw, format=utf8", "text/x-raw"),
            ("", ""),
        ];
        for (caps, expected) in cases {
            assert_eq!(brief(caps), expected);
        }
    }

    #[test]
    fn nonsense_is_no_panic() {
        for text in ["", ",", ";", "a=", "=", "x, y=(", "x, y=\"", "x, f=1/0, g=)", "}{", "x,w=-1"] {
            let caps = Caps::parse(text);
            assert_eq!(caps.fraction("f"), None);
            assert_eq!(caps.number("w"), None);
        }
    }
}
