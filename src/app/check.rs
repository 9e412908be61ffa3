//! `keyway check`: says what is wrong with maps and configurations, without
//! starting anything.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::access::read_rules;
use super::cli::Exit;
use crate::config::Config;
use crate::document::{Problem, Source};
use crate::shardmap::Map;

/// What the check of some files found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// One line for each file that is valid, saying what it is.
    pub valid: Vec<String>,
    /// Everything wrong, file by file.
    pub problems: Vec<Problem>,
}

/// Checks each of `files`; one that can't be read is a problem.
pub fn check_files(files: &[PathBuf]) -> Report {
    let mut report = Report::default();
    for path in files {
        let name = path.display().to_string();
        match read(path) {
            Ok(text) => {
                check_text(&name, &text, &mut report);
                check_named(path, &text, &mut report);
            }
            Err(reason) => report.problems.push(Source::new(&name, "").problem(0, reason)),
        }
    }
    report
}

/// Checks `files`, prints what was found (problems on standard error), and
/// says how it ended.
pub fn run(files: &[PathBuf]) -> Exit {
    let report = check_files(files);
    // A closed output leaves the exit code as the only answer.
    for line in &report.valid {
        let _ = writeln!(std::io::stdout(), "{line}");
    }
    for problem in &report.problems {
        let _ = writeln!(std::io::stderr(), "{problem}");
    }
    if report.problems.is_empty() { Exit::Done } else { Exit::Refused }
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("can't read the file: {error}"))
}

/// Adds to `report` what is to say about one file's text. A text with shards
/// or keyspaces is a map, any other a configuration.
pub fn check_text(name: &str, text: &str, report: &mut Report) {
    let checked = if is_map(text) {
        Map::parse(text, name).map(|map| {
            let (shards, nodes) = (map.shards().len(), map.nodes().len());
            format!(
                "{name}: valid map, epoch {}: {shards} shards, {nodes} nodes",
                map.epoch().number()
            )
        })
    } else {
        Config::parse(text, name).map(|_| format!("{name}: valid configuration"))
    };
    match checked {
        Ok(line) => report.valid.push(line),
        Err(problems) => report.problems.extend(problems),
    }
}

/// Adds what is wrong with the files of rules that a configuration names.
fn check_named(path: &Path, text: &str, report: &mut Report) {
    let name = path.display().to_string();
    let Some(config) = (!is_map(text)).then(|| Config::parse(text, &name).ok()).flatten() else {
        return;
    };
    let Some(file) = &config.auth.hba_file else { return };
    let folder = path.parent().unwrap_or(Path::new(""));
    match read_rules(&config, folder) {
        Ok((rules, _)) => {
            let count = rules.map_or(0, |rules| rules.len());
            let file = folder.join(file);
            report.valid.push(format!("{}: {count} valid rules", file.display()));
        }
        Err(problems) => report.problems.extend(problems),
    }
}

fn is_map(text: &str) -> bool {
    let (root, _) = toml::de::DeTable::parse_recoverable(text);
    ["shard", "keyspace", "epoch", "home", "database"]
        .iter()
        .any(|name| root.get_ref().contains_key(*name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_and_configurations_are_told_apart() {
        let mut report = Report::default();
        check_text("a", "epoch = 1\n", &mut report);
        check_text("b", "[pool]\nsize_max = 5\n", &mut report);
        assert_eq!(report.valid, ["b: valid configuration"]);
        assert!(report.problems[0].to_string().starts_with("a:1:1: "));
    }

    #[test]
    fn rules_that_a_configuration_names_are_checked_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("keyway.toml");
        fs::write(&config, "[auth]\nhba_file = \"hba\"\nident_file = \"ident\"\n").unwrap();
        let check = |rules: &str, names: &str| {
            fs::write(folder.path().join("hba"), rules).unwrap();
            fs::write(folder.path().join("ident"), names).unwrap();
            check_files(std::slice::from_ref(&config))
        };
        let report = check("local all all trust\nhost all all all reject\n", "");
        assert!(report.problems.is_empty(), "{report:?}");
        assert!(report.valid[1].ends_with("hba: 2 valid rules"), "{report:?}");
        for (rules, names, problem) in [
            ("local all all trust\nhost all all 10.0.0.0 trust\n", "", "hba:2:14: 10.0.0.0 needs"),
            ("hostssl all all all cert map=m", "m a", "ident:1:1: a line has three words"),
            ("hostssl all all all cert map=m", "n a b", "hba:1:1: there is no map m"),
            ("hostssl all all all cert", "", "hba:1:1: clients are asked for no certificate"),
        ] {
            let report = check(rules, names);
            let text = report.problems.first().map(ToString::to_string).unwrap_or_default();
            assert!(text.contains(problem), "{text}");
        }
    }

    #[test]
    fn file_that_is_not_there_is_a_problem() {
        let report = check_files(&[PathBuf::from("no/such/file.toml")]);
        assert_eq!(report.problems.len(), 1);
    }
}
