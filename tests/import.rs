//! `keyway import pgbouncer`, as one runs it: on a machine's files, into a
//! folder; `keyway check` takes what comes out.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

fn keyway(args: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_keyway")).args(args).current_dir(dir).output().unwrap()
}

#[test]
fn files_of_a_machine_become_files_that_the_check_takes() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write(
        "pgbouncer.ini",
        "%include databases.ini\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = 6433\n\
        auth_type = scram-sha-256\nauth_file = userlist.txt\nadmin_users = ops\npool_mode = transaction\n\
        max_client_conn = 500\nso_reuseport = 1\n",
    );
    write(
        "databases.ini",
        "[databases]\nshop = host=127.0.0.1 port=5433 user=shop password=hunter2\n",
    );
    write("userlist.txt", "\"ops\" \"op\"\"s\"\n");
    let output = keyway(&["import", "pgbouncer", "pgbouncer.ini", "--out", "new"], dir.path());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        said.contains("wrote new/keyway.toml") && said.contains("so_reuseport = 1: "),
        "{said}"
    );
    assert!(!said.contains("hunter2"), "{said}");
    let checked = keyway(&["check", "new/keyway.toml", "new/shop.toml"], dir.path());
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let secret = dir.path().join("new/shop.password");
    assert_eq!(fs::read_to_string(&secret).unwrap(), "hunter2");
    assert_eq!(secret.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    // What is there is not replaced.
    let again = keyway(&["import", "pgbouncer", "pgbouncer.ini", "--out", "new"], dir.path());
    assert_eq!(again.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&again.stderr).contains("new/keyway.toml"));
}

#[test]
fn files_that_cannot_be_understood_are_refused_by_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text, code, said) in [
        ("none.ini", None, 3, "none.ini: "),
        ("bad.ini", Some("[pgbouncer]\n\nwhat is this\n"), 1, "bad.ini:3: "),
        ("loop.ini", Some("%include loop.ini\n"), 1, "include each other"),
        ("lost.ini", Some("[pgbouncer]\nauth_file = nowhere.txt\n"), 3, "nowhere.txt: "),
    ] {
        if let Some(text) = text {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let output = keyway(&["import", "pgbouncer", name, "--out", "out"], dir.path());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{name}: {errors}");
        assert!(errors.contains(said), "{name}: {errors}");
        assert!(!dir.path().join("out").exists(), "{name} leaves nothing");
    }
}
