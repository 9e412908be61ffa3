//! The configuration file: what is read, what is refused, and that the manual
//! page and schema are the ones the code makes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail by panicking")]

use std::fs;

use keyway::config::{Config, Login, PoolMode, page, schema};
use keyway::types::{Consistency, Millis};

fn problems(text: &str) -> Vec<String> {
    Config::parse(text, "k").unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn manual_page_and_schema_are_the_ones_the_code_makes() {
    for (path, made) in [("docs/config.md", page()), ("docs/config.schema.json", schema())] {
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(path, &made).unwrap();
        }
        assert_eq!(fs::read_to_string(path).unwrap(), made, "{path}: run with UPDATE_GOLDEN=1");
    }
}

#[test]
fn empty_file_is_all_defaults() {
    let config = Config::parse("", "k").unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.settings.pool.size_max, 20);
    assert_eq!(config.server.console_database, "keyway");
}

#[test]
fn settings_are_read_with_their_units() {
    let text = "[pool]\nmode = \"session\"\ncheckout_timeout = \"5s\"\nidle_timeout = 250\n\
                [limits]\nheld_bytes_max = \"2MiB\"\n[reads]\nconsistency = \"bounded(1s)\"\n";
    let settings = Config::parse(text, "k").unwrap().settings;
    assert_eq!(settings.pool.mode, PoolMode::Session);
    assert_eq!(settings.pool.checkout_timeout, Millis::new(5000));
    assert_eq!(settings.pool.idle_timeout, Millis::new(250));
    assert_eq!(settings.limits.held_bytes_max.count(), 2 << 20);
    assert_eq!(settings.reads.consistency, Consistency::Bounded(Millis::new(1000)));
}

#[test]
fn wrong_settings_are_all_reported_where_they_stand() {
    let text = "listne = [\"x:1\"]\n[pool]\nsize_max = 0\nsize_mx = 3\nmode = \"best\"\n\
                [timeouts]\nlogin = \"5 weeks\"\n[pol]\n";
    let found = problems(text);
    for (found, expected) in found.iter().zip([
        "k:1:1: unknown setting listne: did you mean listen?",
        "k:3:12: pool.size_max is 0, outside its limits of 1 to 10000",
        "k:4:1: unknown setting pool.size_mx: did you mean pool.size_max?",
        "k:5:8: pool.mode must be one of `transaction` `session`",
        "k:7:9: timeouts.login must be a time",
        "k:8:2: unknown setting pol: did you mean pool?",
    ]) {
        assert!(found.starts_with(expected), "{found}\nexpected {expected}");
    }
    assert_eq!(found.len(), 6);
}

#[test]
fn user_has_exactly_one_way_to_log_in() {
    let config = Config::parse(
        "[[user]]\nname = \"app\"\npassword = \"hunter2\"\n[[user]]\nname = \"ops\"\n\
         password_env = \"OPS\"\nadmin = true\n",
        "k",
    )
    .unwrap();
    assert_eq!(config.users[1].login, Login::PasswordEnv("OPS".to_owned()));
    assert!(!format!("{config:?}").contains("hunter2"), "a password is never printed");
    for body in ["", "trust = true\npassword = \"x\"", "verifier = 1\n", "passwrd = \"x\""] {
        assert!(Config::parse(&format!("[[user]]\nname = \"a\"\n{body}"), "k").is_err(), "{body}");
    }
    let twice = "[[user]]\nname = \"a\"\ntrust = true\n".repeat(2);
    assert_eq!(problems(&twice), ["k:5:8: two users are called a"]);
}

#[test]
fn contradictions_are_refused() {
    for text in [
        "listen = [\"localhost\"]",
        "http_listen = \"::1:80\"",
        "backend = \"postgres://h/d\"\nmaps = [\"m.toml\"]",
        "[tls]\nmode = \"require\"",
    ] {
        assert_eq!(problems(text).len(), 1, "{text}");
    }
}
