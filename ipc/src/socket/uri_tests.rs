use proptest::prelude::*;

use super::super::path::MAX_PATH;
use super::*;

fn parse(text: &str) -> Result<Uri, UriError> {
    text.parse()
}

#[test]
fn what_is_accepted() {
    let table = [
        ("unix:cam", "cam", None, "unix:cam"),
        ("unix:/tmp/x", "/tmp/x", None, "unix:/tmp/x"),
        ("unix:///tmp/x", "/tmp/x", None, "unix:/tmp/x"),
        ("UNIX:cam", "cam", None, "unix:cam"),
        ("unix:cam?mode=listen", "cam", Some(Mode::Listen), "unix:cam?mode=listen"),
        ("unix:/a?mode=connect", "/a", Some(Mode::Connect), "unix:/a?mode=connect"),
        ("unix:///a?mode=connect", "/a", Some(Mode::Connect), "unix:/a?mode=connect"),
        ("unix:/a%20b%3fc%25d", "/a b?c%d", None, "unix:/a%20b%3Fc%25d"),
        ("unix:/%C3%A4", "/ä", None, "unix:/ä"),
        ("unix:/a:b", "/a:b", None, "unix:/a:b"),
        ("unix:////double", "//double", None, "unix:////double"),
    ];
    for (text, address, mode, printed) in table {
        let uri = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let expected = Uri { transport: Transport::Unix, address: address.to_owned(), mode, from: None };
        assert_eq!(uri, expected, "{text}");
        assert_eq!(uri.to_string(), printed);
    }
}

#[test]
fn what_is_refused_and_why() {
    macro_rules! refused {
        ($text:expr, $error:pat) => {
            let got = parse($text);
            assert!(matches!(got, Err($error)), "{:?}: {got:?}", $text);
        };
    }
    refused!("", UriError::Empty);
    refused!("cam", UriError::NoScheme { .. });
    refused!("/tmp/x", UriError::NoScheme { .. });
    refused!("/tmp/a:b", UriError::NoScheme { .. });
    refused!("http://x", UriError::UnknownScheme { .. });
    refused!("unixx:cam", UriError::UnknownScheme { .. });
    refused!(":cam", UriError::UnknownScheme { .. });
    refused!("unix://host/path", UriError::HasHost { .. });
    refused!("unix://", UriError::HasHost { .. });
    refused!("unix:", UriError::Name(_));
    refused!("unix:?mode=listen", UriError::Name(_));
    refused!("unix:a/b", UriError::Name(_));
    refused!("unix:.hidden", UriError::Name(_));
    refused!("unix:/a%00b", UriError::Name(_));
    refused!("unix:/a%", UriError::BadEscape { .. });
    refused!("unix:/a%4", UriError::BadEscape { .. });
    refused!("unix:/a%zz", UriError::BadEscape { .. });
    refused!("unix:/a%+1", UriError::BadEscape { .. });
    refused!("unix:/a%FF", UriError::BadEscape { .. });
    refused!("unix:a?", UriError::UnknownOption { .. });
    refused!("unix:a?mode", UriError::UnknownOption { .. });
    refused!("unix:a?mode=", UriError::UnknownOption { .. });
    refused!("unix:a?mode=both", UriError::UnknownOption { .. });
    refused!("unix:a?speed=1", UriError::UnknownOption { .. });
    refused!("unix:a?mode=listen&", UriError::UnknownOption { .. });
    refused!("unix:a?mode=listen&mode=listen", UriError::OptionTwice { .. });
}

#[test]
fn a_tcp_address_has_a_host_and_a_port() {
    let table = [
        ("tcp://cam.local:9", ("cam.local", 9), None, "tcp://cam.local:9"),
        ("TCP://10.0.0.1", ("10.0.0.1", DEFAULT_PORT), None, "tcp://10.0.0.1:7174"),
        ("tcp://[::1]", ("::1", DEFAULT_PORT), None, "tcp://[::1]:7174"),
        ("tcp://[fd00::2]:65535/", ("fd00::2", 65535), None, "tcp://[fd00::2]:65535"),
        ("tcp://h:0?mode=listen", ("h", 0), Some(Mode::Listen), "tcp://h:0?mode=listen"),
    ];
    for (text, host, mode, printed) in table {
        let uri = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((uri.transport, uri.host(), uri.mode), (Transport::Tcp, Some(host), mode), "{text}");
        assert_eq!(uri.to_string(), printed);
        assert_eq!(parse(printed).unwrap(), uri);
    }
    let wrong = [
        "tcp:host",
        "tcp:/host",
        "tcp://",
        "tcp://:1",
        "tcp://h:",
        "tcp://h:65536",
        "tcp://h:+1",
        "tcp://h:1:2",
        "tcp://::1",
        "tcp://[::1",
        "tcp://[h]",
        "tcp://[::1]1",
        "tcp://h/path",
        "tcp://a b",
        "tcp://u@h",
        "tcp://h%20",
    ];
    for text in wrong {
        assert!(matches!(parse(text), Err(UriError::BadHost { .. })), "{text}: {:?}", parse(text));
    }
    assert!(parse(&format!("tcp://{}", "h".repeat(MAX_HOST))).is_ok());
    assert!(parse(&format!("tcp://{}", "h".repeat(MAX_HOST + 1))).is_err());
    assert!(matches!(parse("tcp://h?speed=1"), Err(UriError::UnknownOption { .. })));
    assert_eq!(parse("unix:cam").unwrap().host(), None);
}

#[test]
fn a_connection_may_say_where_it_leaves_from() {
    let table = [
        ("rdma://10.0.0.1?from=10.0.0.2", None, "10.0.0.2", "rdma://10.0.0.1:7174?from=10.0.0.2"),
        ("tcp://h?from=::1&mode=connect", Some(Mode::Connect), "::1", "tcp://h:7174?mode=connect&from=::1"),
    ];
    for (text, mode, from, printed) in table {
        let uri = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((uri.mode, uri.from), (mode, Some(from.parse().unwrap())), "{text}");
        assert_eq!(uri.to_string(), printed);
        assert_eq!(parse(printed).unwrap(), uri);
    }
    for text in [
        "tcp://h?from=",
        "tcp://h?from=h",
        "tcp://h?from=::1&mode=listen",
        "unix:cam?from=::1",
        "tcp://h?from=[::1]",
    ] {
        assert!(matches!(parse(text), Err(UriError::BadFrom { .. })), "{text}: {:?}", parse(text));
    }
    assert!(matches!(parse("tcp://h?from=::1&from=::1"), Err(UriError::OptionTwice { .. })));
    assert!(matches!(parse("tcp://h?from"), Err(UriError::UnknownOption { .. })));
}

#[test]
fn an_error_names_what_would_be_right() {
    for text in ["http:x", ""] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains("unix:NAME or unix:/path"), "{error}");
    }
    let error = parse("unix:x?speed=1").unwrap_err().to_string();
    assert!(error.contains("mode=listen") && error.contains("mode=connect"), "{error}");
    assert!(parse("cam").unwrap_err().to_string().contains("unix:cam"));
}

#[test]
fn a_path_may_be_as_long_as_a_socket_takes() {
    let uri = |length: usize| format!("unix:/{}", "x".repeat(length - 1));
    assert!(parse(&uri(MAX_PATH)).is_ok());
    assert!(matches!(parse(&uri(MAX_PATH + 1)), Err(UriError::PathTooLong(_))));
    // It is the path that counts, not how it is written.
    assert!(parse(&format!("unix:/{}", "%20".repeat(MAX_PATH - 1))).is_ok());
}

#[test]
fn lists_are_separated_by_space() {
    let list = parse_list("  unix:a  unix:/b?mode=connect\n").unwrap();
    let printed: Vec<_> = list.iter().map(Uri::to_string).collect();
    assert_eq!(printed, ["unix:a", "unix:/b?mode=connect"]);
    assert!(matches!(parse_list(" "), Err(UriError::Empty)));
    assert!(matches!(parse_list("unix:a ftp://x"), Err(UriError::UnknownScheme { .. })));
    assert_eq!(parse_list(&"unix:a ".repeat(MAX_URIS)).unwrap().len(), MAX_URIS);
    assert!(matches!(parse_list(&"unix:a ".repeat(MAX_URIS + 1)), Err(UriError::TooMany(17))));
}

fn any_mode() -> impl Strategy<Value = Option<Mode>> {
    prop_oneof![Just(None), Just(Some(Mode::Listen)), Just(Some(Mode::Connect))]
}

fn any_address() -> impl Strategy<Value = String> {
    let path = "/[^\0]{0,100}".prop_map(|mut path| {
        while path.len() > MAX_PATH {
            path.pop();
        }
        path
    });
    prop_oneof!["[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", "//?[ %?#/&=:a\u{a0}\u{2028}]{0,30}", path]
}

proptest! {
    #[test]
    fn printed_and_parsed_is_the_same(address in any_address(), mode in any_mode()) {
        let uri = Uri { transport: Transport::Unix, address, mode, from: None };
        let printed = uri.to_string();
        prop_assert_eq!(&parse(&printed).unwrap(), &uri);
        // Whatever the path is, it stays one URI in a list.
        let list = parse_list(&format!("{printed} unix:other")).unwrap();
        prop_assert_eq!(list.len(), 2);
        prop_assert_eq!(&list[0], &uri);
    }

    #[test]
    fn what_parses_prints_to_something_that_parses_the_same(
        text in prop_oneof!["unix:[ -~]{0,60}", "tcp:(//)?\\[?[a-f0-9:.]{0,12}\\]?(:[0-9]{0,6})?/?", "unix:(//)?/?[a%2045?&=]{0,20}(\\?mode=listen)?", "\\PC{0,40}"]
    ) {
        if let Ok(uri) = parse(&text) {
            prop_assert_eq!(parse(&uri.to_string()).unwrap(), uri);
        }
    }
}
