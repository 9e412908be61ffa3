//! Rules about the source text itself: layering, file length, banned calls.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// module => modules it may name through `crate::`. A module may only list
/// names that stand above it, so no cycle can be written.
const LAYERS: &[(&str, &[&str])] = &[
    // 0 words
    ("types", &[]),
    ("document", &["types"]),
    // 1 leaves
    ("protocol", &["types"]),
    ("sql", &["types"]),
    ("shardmap", &["types", "document"]),
    ("catalog", &["types"]),
    ("cluster", &["types"]),
    ("config", &["types", "document"]),
    // 2 decisions
    ("route", &["types", "sql", "shardmap", "catalog", "cluster"]),
    ("auth", &["types", "document", "protocol"]),
    ("backend", &["types", "protocol", "catalog", "cluster", "auth"]),
    ("gather", &["types", "protocol", "route"]),
    (
        "session",
        &[
            "types", "protocol", "auth", "sql", "shardmap", "catalog", "cluster", "route",
            "backend", "gather",
        ],
    ),
    ("health", &["types", "cluster"]),
    ("pool", &["types", "backend", "cluster"]),
    ("mover", &["types", "shardmap"]),
    // 3 IO shell
    ("net", &["types", "shardmap", "config", "protocol"]),
    (
        "engine",
        &[
            "types", "protocol", "sql", "shardmap", "catalog", "cluster", "config", "route",
            "auth", "backend", "session", "gather", "health", "pool", "net",
        ],
    ),
    ("store", &["types", "document", "shardmap", "mover"]),
    (
        "control",
        &[
            "types", "document", "protocol", "sql", "shardmap", "catalog", "cluster", "config",
            "auth", "health", "mover", "net", "engine", "store",
        ],
    ),
    (
        "admin",
        &[
            "types", "document", "protocol", "sql", "shardmap", "catalog", "cluster", "config",
            "route", "auth", "health", "pool", "mover", "net", "engine", "store", "control",
        ],
    ),
    // 4 the program
    ("local", &["types", "shardmap", "config", "net"]),
    (
        "app",
        &[
            "types", "document", "protocol", "sql", "shardmap", "catalog", "cluster", "config",
            "route", "auth", "backend", "session", "health", "pool", "mover", "net", "engine",
            "store", "control", "admin", "local",
        ],
    ),
];

/// Layers 0 to 2: no sockets, files, clocks, randomness, globals or `async`.
const PURE: &[&str] = &[
    "types", "document", "protocol", "sql", "shardmap", "catalog", "cluster", "config", "route",
    "auth", "backend", "gather", "session", "health", "pool", "mover",
];

const IMPURE_TOKENS: &[&str] = &[
    "tokio::",
    "std::net",
    "std::fs",
    "Instant::now",
    "SystemTime::now",
    "rand::",
    "getrandom",
    "async fn",
    "async move",
    "thread_local!",
];

const FILE_LINES_MAX: usize = 800;

#[test]
fn layer_table_is_acyclic() {
    let rank: BTreeMap<_, _> = LAYERS.iter().enumerate().map(|(i, (m, _))| (*m, i)).collect();
    for (module, deps) in LAYERS {
        for dep in *deps {
            assert!(rank[dep] < rank[module], "{module} lists {dep}, which is not above it");
        }
    }
}

#[test]
fn source_is_tidy() {
    let mut errors = Vec::new();
    visit(Path::new("src"), &mut |path, text| check_source(path, text, &mut errors));
    assert!(errors.is_empty(), "untidy:\n{}", errors.join("\n"));
}

fn check_source(path: &Path, text: &str, errors: &mut Vec<String>) {
    let module = path
        .strip_prefix("src")
        .ok()
        .and_then(|p| p.iter().next())
        .and_then(|c| c.to_str())
        .unwrap_or("");
    let module = module.strip_suffix(".rs").unwrap_or(module);
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        errors.push(format!("{}: {lines} lines, more than {FILE_LINES_MAX}", path.display()));
    }
    if !text.starts_with("//!") {
        errors.push(format!("{}: does not open with //!", path.display()));
    }
    if ["lib", "main"].contains(&module) {
        return;
    }
    let Some((_, allowed)) = LAYERS.iter().find(|(m, _)| *m == module) else {
        errors.push(format!("{}: module {module:?} is not in LAYERS", path.display()));
        return;
    };
    for (n, line) in text.lines().enumerate() {
        let at = format!("{}:{}", path.display(), n + 1);
        if line.contains("super::super")
            || line.contains("keyway::") && !line.trim_start().starts_with("//")
        {
            errors.push(format!("{at}: names a module by a way that the layer check can't follow"));
        }
        if line.contains("TODO") && !line.contains("TODO(#") {
            errors.push(format!("{at}: a TODO without an issue number"));
        }
        for rest in line.split("crate::").skip(1) {
            let name: String =
                rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if name != module && !allowed.contains(&name.as_str()) {
                errors.push(format!("{at}: {module} may not import {name:?}"));
            }
        }
        if PURE.contains(&module) {
            for token in IMPURE_TOKENS.iter().filter(|t| line.contains(**t)) {
                errors.push(format!("{at}: {token} in a pure module"));
            }
        }
    }
}

fn visit(dir: &Path, check: &mut impl FnMut(&Path, &str)) {
    for entry in fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        if entry.is_dir() {
            visit(&entry, check);
        } else if entry.extension().is_some_and(|e| e == "rs") {
            check(&entry, &fs::read_to_string(&entry).unwrap());
        }
    }
}
