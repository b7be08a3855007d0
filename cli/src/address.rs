//! Publishers as users write them: `unix:NAME`, `unix:/path`, `NAME` or `/path`.

use std::borrow::Cow;

use pagecast::ipc::socket::{Uri, UriError};

/// A URI as users write it, for clap.
pub(crate) fn parse(text: &str) -> Result<String, UriError> {
    let text = complete(text);
    text.parse::<Uri>()?;
    Ok(text.into_owned())
}

/// With `unix:` where there is no scheme.
fn complete(text: &str) -> Cow<'_, str> {
    match text.parse::<Uri>() {
        Err(UriError::NoScheme { .. }) => Cow::Owned(format!("unix:{text}")),
        _ => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_need_no_scheme() {
        assert_eq!(parse("cam0").unwrap(), "unix:cam0");
        assert_eq!(parse("/run/cam0").unwrap(), "unix:/run/cam0");
        assert_eq!(parse("unix:cam0").unwrap(), "unix:cam0");
        assert_eq!(parse("cam0?mode=listen").unwrap(), "unix:cam0?mode=listen");
        assert!(parse("").is_err());
        assert!(parse("a b").is_err());
        assert!(parse("ftp:cam0").is_err());
    }
}
