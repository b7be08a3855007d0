use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use super::*;

/// Past libtest's capture.
fn skip(why: &str) {
    std::io::stdout().write_all(format!("\nSKIP: {why}\n").as_bytes()).unwrap();
}

fn around(folder: &Path) -> Surroundings {
    Surroundings {
        uid: geteuid().as_raw(),
        xdg_runtime_dir: Some(folder.join("xdg").into_os_string()),
        temporary: folder.join("tmp"),
        run: folder.join("run"),
    }
}

fn folders() -> (tempfile::TempDir, Surroundings) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["xdg", "tmp", "run"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    let around = around(folder.path());
    (folder, around)
}

fn why(result: Result<PathBuf, NameError>) -> &'static str {
    match result {
        Err(NameError::UnsafeFolder { why, .. }) => why,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn the_session_folder_comes_first_then_run_for_root_then_the_temporary_folder() {
    let (folder, mut around) = folders();
    let base = folder.path();
    assert_eq!(Place::of(&around).path, base.join("xdg/pagecast"));
    for unusable in [None, Some("relative".into()), Some(base.join("missing").into_os_string())] {
        around.xdg_runtime_dir = unusable;
        around.uid = 0;
        assert_eq!(Place::of(&around).path, base.join("run/pagecast"));
        around.uid = 1234;
        assert_eq!(Place::of(&around).path, base.join("tmp/pagecast-1234"));
    }
    // Someone else's session folder is not used.
    around.xdg_runtime_dir = Some(base.join("xdg").into_os_string());
    around.uid = geteuid().as_raw() + 1;
    assert!(Place::of(&around).path.starts_with(base.join("tmp")));
}

#[test]
fn looking_creates_nothing_and_creating_is_private() {
    let (_folder, around) = folders();
    let path = Place::of(&around).check().unwrap();
    assert!(!path.exists());
    assert_eq!(Place::of(&around).create().unwrap(), path);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    // Once more, now that it exists.
    Place::of(&around).create().unwrap();
    assert_eq!(Place::of(&around).check().unwrap(), path);
}

#[test]
fn a_folder_of_another_user_is_refused() {
    let (_folder, mut around) = folders();
    around.xdg_runtime_dir = None;
    around.uid = geteuid().as_raw() + 1;
    // Created by us, who are another user than the one in question.
    fs::create_dir(Place::of(&around).path).unwrap();
    assert_eq!(why(Place::of(&around).check()), "it belongs to another user");
    assert_eq!(why(Place::of(&around).create()), "it belongs to another user");
}

#[test]
fn a_folder_that_really_belongs_to_another_user_is_refused() {
    if !geteuid().is_root() {
        skip("only root can give a folder away");
        return;
    }
    let (_folder, around) = folders();
    let path = Place::of(&around).create().unwrap();
    std::os::unix::fs::chown(&path, Some(65_533), Some(65_533)).unwrap();
    assert_eq!(why(Place::of(&around).create()), "it belongs to another user");
}

#[test]
fn a_link_is_refused_even_to_a_good_folder() {
    let (folder, around) = folders();
    let good = folder.path().join("good");
    DirBuilder::new().mode(0o700).create(&good).unwrap();
    symlink(&good, Place::of(&around).path).unwrap();
    assert_eq!(why(Place::of(&around).check()), "it is a symbolic link");
    assert_eq!(why(Place::of(&around).create()), "it is a symbolic link");
}

#[test]
fn a_file_in_its_place_is_refused() {
    let (_folder, around) = folders();
    fs::write(Place::of(&around).path, "").unwrap();
    assert_eq!(why(Place::of(&around).create()), "it is no folder");
}

#[test]
fn permissions_for_others_are_refused() {
    let (_folder, mut around) = folders();
    let modes = |around: &Surroundings, modes: &[u32], good: bool| {
        let path = Place::of(around).create().unwrap();
        for mode in modes {
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
            assert_eq!(Place::of(around).check().is_ok(), good, "{mode:o}");
        }
        fs::remove_dir(path).unwrap();
    };
    modes(&around, &[0o700, 0o750, 0o755], true);
    modes(&around, &[0o720, 0o702, 0o777], false);
    if around.uid == 0 {
        skip("the temporary folder is not used for root");
        return;
    }
    around.xdg_runtime_dir = None;
    modes(&around, &[0o700, 0o500], true);
    modes(&around, &[0o710, 0o701, 0o755], false);
}

#[test]
fn the_temporary_folder_is_for_the_user_alone() {
    let around = Surroundings { uid: 7, xdg_runtime_dir: None, temporary: "/t".into(), run: "/r".into() };
    let place = Place::of(&around);
    assert_eq!((place.mode, place.forbidden), (0o700, 0o077));
}

#[test]
fn names_are_checked() {
    let longest = "n".repeat(MAX_NAME);
    for good in ["cam", "a", "Cam_0.front-left", "0", "-", longest.as_str()] {
        check_name(good).unwrap_or_else(|_| panic!("{good:?} is good"));
    }
    let too_long = "n".repeat(MAX_NAME + 1);
    for bad in ["", ".", "..", ".hidden", "a/b", "../x", "a b", "a\0", "a\n", "ä", "a?b", "a%", &too_long] {
        assert!(matches!(check_name(bad), Err(NameError::BadName { .. })), "{bad:?} is bad");
    }
}

#[test]
fn names_go_to_the_folder_and_paths_stay() {
    let folder = || Ok(PathBuf::from("/run/pagecast"));
    assert_eq!(resolve_in("cam", folder).unwrap(), Path::new("/run/pagecast/cam.sock"));
    let never = || -> Result<PathBuf, NameError> { panic!("a path needs no folder") };
    assert_eq!(resolve_in("/tmp/x y?", never).unwrap(), Path::new("/tmp/x y?"));
    assert!(matches!(resolve_in("./x", folder), Err(NameError::BadName { .. })));
}

#[test]
fn the_limit_of_a_path_holds_for_both() {
    let path = |length: usize| format!("/{}", "p".repeat(length - 1));
    assert!(resolve(&path(super::super::path::MAX_PATH)).is_ok());
    assert!(matches!(resolve(&path(super::super::path::MAX_PATH + 1)), Err(NameError::PathTooLong(_))));
    let deep = || Ok(PathBuf::from(path(100)));
    assert!(resolve_in("a", deep).is_ok());
    assert!(matches!(resolve_in("ab", deep), Err(NameError::PathTooLong(_))));
}

#[test]
fn only_sockets_with_good_names_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let _b = UnixListener::bind(at("b.sock")).unwrap();
    let _a = UnixListener::bind(at("a.sock")).unwrap();
    let _other = UnixListener::bind(at("other")).unwrap();
    let _hidden = UnixListener::bind(at(".x.sock")).unwrap();
    fs::write(at("a.sock.lock"), "").unwrap();
    fs::write(at("file.sock"), "").unwrap();
    fs::create_dir(at("folder.sock")).unwrap();
    symlink(at("a.sock"), at("link.sock")).unwrap();
    let expected = ["a", "b"].map(|name| (name.to_owned(), at(&format!("{name}.sock"))));
    assert_eq!(list_in(folder.path()).unwrap(), expected);
    assert!(list_in(&at("missing")).unwrap().is_empty());
    assert!(matches!(list_in(&at("file.sock")), Err(NameError::Io { .. })));
}
