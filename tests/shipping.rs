//! What is shipped beside the program: units of systemd, manual pages, scripts
//! that complete words. Each is held by the tool that reads it, where that is
//! installed.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a panic fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use clap::{CommandFactory, Parser};
use keyway::app::cli::Cli;
use keyway::config::Config;

const PROGRAM: &str = env!("CARGO_BIN_EXE_keyway");

fn units() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd");
    let mut all: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort();
    assert_eq!(all.len(), 3, "{all:?}");
    all
}

/// The output of a tool; `None` where it is not installed.
fn tool(name: &str, args: &[&str]) -> Option<Output> {
    match Command::new(name).args(args).stdin(Stdio::null()).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("{name} is not installed: not looked at");
            None
        }
        Err(error) => panic!("{name}: {error}"),
    }
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

#[test]
fn units_are_valid_and_give_the_router_little() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for unit in units() {
        let text = fs::read_to_string(&unit).unwrap().replace("/usr/bin/keyway", PROGRAM);
        let file = dir.path().join(unit.file_name().unwrap());
        fs::write(&file, text).unwrap();
        files.push(file.to_str().unwrap().to_owned());
    }
    for file in &files {
        let Some(output) = tool("systemd-analyze", &["verify", "--man=no", file]) else { return };
        // It speaks of units of the machine too.
        let name = Path::new(file).file_name().unwrap().to_str().unwrap();
        let stem = name.split(['@', '.']).next().unwrap();
        let faults: Vec<String> =
            said(&output).lines().filter(|line| line.contains(stem)).map(str::to_owned).collect();
        assert!(output.status.success() && faults.is_empty(), "{faults:?}");
        if name.ends_with(".service") {
            let args = ["security", "--offline=true", "--threshold=20", file];
            let output = tool("systemd-analyze", &args).unwrap();
            assert!(output.status.success(), "{}", said(&output));
        }
    }
}

#[test]
fn units_run_commands_that_the_program_has_and_wait_for_its_drain() {
    let drain = Config::default().settings.timeouts.drain.count() / 1000;
    for unit in units().iter().filter(|unit| unit.extension().unwrap() == "service") {
        let text = fs::read_to_string(unit).unwrap();
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        for name in ["ExecStart=", "ExecStartPre="] {
            let command = value(name).unwrap();
            assert!(command.starts_with("/usr/bin/keyway "), "{command}");
            Cli::try_parse_from(command.split(' ')).unwrap();
        }
        let stop: u64 = value("TimeoutStopSec=").unwrap().trim_end_matches('s').parse().unwrap();
        assert!(stop > drain, "the router drains for {drain} s, and is killed after {stop} s");
    }
}

#[test]
fn image_runs_a_command_that_the_program_has_and_not_as_root() {
    let text = fs::read_to_string("Dockerfile").unwrap();
    let last = |word: &str| text.lines().rev().find_map(|line| line.strip_prefix(word)).unwrap();
    let words = |word: &str| -> Vec<String> { serde_json::from_str(last(word)).unwrap() };
    Cli::try_parse_from([words("ENTRYPOINT "), words("CMD ")].concat()).unwrap();
    let user: u32 = last("USER ").parse().expect("a number, which a cluster can check");
    assert!(user > 0 && text.contains(&format!("--uid {user} ")), "the image makes user {user}");
    // The signal on which the router drains.
    assert_eq!(last("STOPSIGNAL "), "SIGTERM");
    // What the program loads is in every Debian image.
    let output = Command::new("ldd").arg(PROGRAM).output().unwrap();
    let libraries = String::from_utf8(output.stdout).unwrap();
    for line in libraries.lines().map(str::trim) {
        let base = ["linux-vdso", "libgcc_s.so", "libm.so", "libc.so", "/lib"];
        assert!(base.iter().any(|name| line.starts_with(name)), "the image lacks {line}");
    }
}

#[test]
fn every_command_has_a_manual_page_that_reads_without_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let status = Command::new(PROGRAM).arg("man").arg(dir.path()).status().unwrap();
    assert!(status.success());
    let pages: BTreeSet<String> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(pages.contains("keyway.1"), "{pages:?}");
    for command in Cli::command().get_subcommands() {
        let page = format!("keyway-{}.1", command.get_name());
        assert!(pages.contains(&page), "{page} of {pages:?}");
    }
    for page in &pages {
        let path = dir.path().join(page);
        let args = ["-z", "-ww", "-Kutf8", "-man", "-Tutf8", path.to_str().unwrap()];
        let Some(output) = tool("groff", &args) else { return };
        assert!(output.status.success() && said(&output).is_empty(), "{page}: {}", said(&output));
    }
}

#[test]
fn shells_read_the_scripts_that_complete_words() {
    let dir = tempfile::tempdir().unwrap();
    for (shell, check) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let output = Command::new(PROGRAM).args(["completions", shell]).output().unwrap();
        assert!(output.status.success(), "{shell}");
        let script = dir.path().join(shell);
        fs::write(&script, &output.stdout).unwrap();
        let words = said(&output);
        for command in Cli::command().get_subcommands() {
            assert!(words.contains(command.get_name()), "{shell}: {}", command.get_name());
        }
        if let Some(read) = tool(shell, &[check, script.to_str().unwrap()]) {
            assert!(read.status.success(), "{shell}: {}", said(&read));
        }
    }
    // What bash offers after a word.
    let ask = "source \"$0\"; COMP_WORDS=(keyway serve --ta); COMP_CWORD=2; \
               _keyway keyway --ta serve; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let script = dir.path().join("bash");
    let output = tool("bash", &["-c", ask, script.to_str().unwrap()]).unwrap();
    assert_eq!(said(&output).trim(), "--takeover");
}
