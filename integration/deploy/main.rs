//! What a cluster gets: the chart as Helm renders it, and the Dockerfile as its
//! linter reads it. No server is started.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use keyway::config::Config;
use keyway::shardmap::Map;
use serde_json::{Value, json};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder of the tools, installed once.
fn tools() -> PathBuf {
    static DONE: OnceLock<()> = OnceLock::new();
    let here = root().join("integration/deploy");
    DONE.get_or_init(|| {
        let status = Command::new(here.join("setup")).stdin(Stdio::null()).status().unwrap();
        assert!(status.success(), "integration/deploy/setup: {status}");
    });
    here.join(".venv/bin")
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// What Helm says of the chart, and its manifests by kind.
fn render(values: &Value) -> (Value, Vec<serde_yaml_ng::Value>) {
    let output = Command::new(tools().join("python"))
        .arg(root().join("integration/deploy/render.py"))
        .arg(root().join("deploy/helm/keyway"))
        .arg(values.to_string())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    let manifests = made["manifests"].as_object().unwrap().values();
    let parsed = manifests.map(|text| serde_yaml_ng::from_str(text.as_str().unwrap()).unwrap());
    (made["findings"].clone(), parsed.collect())
}

fn of_kind<'m>(manifests: &'m [serde_yaml_ng::Value], kind: &str) -> &'m serde_yaml_ng::Value {
    manifests.iter().find(|one| one["kind"] == kind).unwrap()
}

#[test]
fn helm_finds_no_fault_with_the_chart() {
    let (findings, manifests) = render(&json!({}));
    assert_eq!(findings["errors"], json!([]));
    let severe = findings["messages"].as_array().unwrap().iter();
    let severe: Vec<_> = severe.filter(|one| one["severity"].as_u64() > Some(1)).collect();
    assert!(severe.is_empty(), "{severe:?}");
    assert_eq!(manifests.len(), 3);
}

#[test]
fn router_of_the_chart_gets_files_that_it_takes_and_ports_that_it_listens_on() {
    let (_, manifests) = render(&json!({}));
    let files = &of_kind(&manifests, "ConfigMap")["data"];
    let config = Config::parse(files["keyway.toml"].as_str().unwrap(), "keyway.toml").unwrap();
    for map in &config.server.maps {
        Map::parse(files[map.as_str()].as_str().unwrap(), map).unwrap();
    }
    let pod = &of_kind(&manifests, "StatefulSet")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let port = |name: &str| {
        let ports = container["ports"].as_sequence().unwrap();
        ports.iter().find(|port| port["name"] == name).unwrap()["containerPort"].as_u64().unwrap()
    };
    assert_eq!(config.server.listen, [format!("[::]:{}", port("postgres"))]);
    assert_eq!(config.server.http_listen, Some(format!("[::]:{}", port("pages"))));
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/ready");
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/live");
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(grace > config.settings.timeouts.drain.count() / 1000, "{grace} s");
    let mounts = container["volumeMounts"].as_sequence().unwrap();
    assert!(mounts.iter().any(|mount| mount["mountPath"] == config.server.state_dir.as_str()));
    let service = &of_kind(&manifests, "Service")["spec"]["ports"][0];
    assert_eq!(service["targetPort"], "postgres");
}

#[test]
fn values_reach_the_manifests() {
    let values = json!({
        "replicas": 3, "secretName": "", "image": { "tag": "next" },
        "storage": { "className": "fast" }, "nodeSelector": { "disk": "ssd" },
        "maps": { "app.toml": "epoch = 1", "more.toml": "epoch = 2\n" },
    });
    let (_, manifests) = render(&values);
    let set = &of_kind(&manifests, "StatefulSet")["spec"];
    assert_eq!(set["replicas"], 3);
    let pod = &set["template"]["spec"];
    assert_eq!(pod["containers"][0]["image"], "keyway:next");
    assert_eq!(pod["volumes"].as_sequence().unwrap().len(), 1, "no secret is mounted");
    assert_eq!(pod["nodeSelector"]["disk"], "ssd");
    assert_eq!(set["volumeClaimTemplates"][0]["spec"]["storageClassName"], "fast");
    let files = &of_kind(&manifests, "ConfigMap")["data"];
    assert_eq!(files["more.toml"], "epoch = 2\n");
    let other = render(&json!({})).1;
    let hash = |all: &[serde_yaml_ng::Value]| {
        let template = &of_kind(all, "StatefulSet")["spec"]["template"];
        template["metadata"]["annotations"]["keyway/files"].as_str().unwrap().to_owned()
    };
    assert_ne!(hash(&manifests), hash(&other), "other files restart the routers");
}

#[test]
fn dockerfile_has_no_fault() {
    // Packages of a distribution have the version that its image has.
    let output = Command::new(tools().join("hadolint"))
        .args(["--no-color", "--ignore", "DL3008"])
        .arg(root().join("Dockerfile"))
        .output()
        .unwrap();
    assert!(output.status.success() && said(&output).is_empty(), "{}", said(&output));
}
