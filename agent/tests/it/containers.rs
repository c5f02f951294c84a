//! The image, compose and the manifests of Kubernetes: by the schemas and linters of those who read
//! them, and, where it is asked for, built and run for real.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const PREPARE: &str = "run agent/tests/prepare.sh test, which installs it";

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A program of the tests' own Python.
fn python_tool(name: &str) -> Command {
    let tool = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("python/bin")
        .join(name);
    assert!(tool.is_file(), "no {}: {PREPARE}", tool.display());
    Command::new(tool)
}

fn run(command: &mut Command, stdin: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    child.wait_with_output().unwrap()
}

fn told(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).into_owned()
}

fn succeeds(command: &mut Command) -> String {
    let output = run(command, b"");
    assert!(output.status.success(), "{command:?}:\n{}", told(&output));
    told(&output)
}

#[test]
fn the_dockerfile_is_as_its_linter_wants_it() {
    let told = succeeds(python_tool("hadolint").arg(project("docker/Dockerfile")));
    assert_eq!(told, "");
}

#[test]
fn compose_is_valid() {
    succeeds(
        python_tool("check-jsonschema")
            .args(["--builtin-schema", "vendor.compose-spec"])
            .arg(project("docker/compose.yaml")),
    );
}

#[test]
fn the_manifests_are_valid() {
    let mut files: Vec<_> = fs::read_dir(project("docker/kubernetes"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let told = succeeds(
        python_tool("kubernetes-validate")
            .arg("--strict")
            .args(&files),
    );
    let kinds = [
        "configmap",
        "deployment",
        "namespace",
        "networkpolicy",
        "poddisruptionbudget",
        "secret",
        "serviceaccount",
    ];
    for kind in kinds {
        let passed = format!("passed for resource {kind}/sparkferry");
        assert!(told.contains(&passed), "{kind}:\n{told}");
    }
}

/// Reads YAML documents as a JSON array.
fn yaml(path: &Path) -> Vec<u8> {
    let script =
        "import json, sys, yaml; json.dump(list(yaml.safe_load_all(sys.stdin)), sys.stdout)";
    let output = run(
        python_tool("python").args(["-c", script]),
        &fs::read(path).unwrap(),
    );
    assert!(output.status.success(), "{}", told(&output));
    output.stdout
}

fn keda(objects: &[u8]) -> Output {
    let schemas = Path::new(env!("CARGO_TARGET_TMPDIR")).join("keda");
    let installed = schemas.join("node_modules").is_dir();
    assert!(installed, "no schemas in {}: {PREPARE}", schemas.display());
    run(
        Command::new("node")
            .args(["--input-type=module", "--eval"])
            .arg(include_str!("../containers/keda.mjs"))
            .current_dir(schemas),
        objects,
    )
}

#[test]
fn the_scaling_is_valid_and_counts_what_is_under_way() {
    let objects = yaml(&project("docker/kubernetes/scaledobject.yaml"));
    let output = keda(&objects);
    assert!(output.status.success(), "{}", told(&output));
    let objects: serde_json::Value = serde_json::from_slice(&objects).unwrap();
    let trigger = &objects[0]["spec"]["triggers"][0]["metadata"];
    // Over amqp, unacknowledged messages are not counted: busy workers would be taken away.
    assert_eq!(trigger["protocol"], "http");
    assert_eq!(trigger["excludeUnacknowledged"], "false");
    assert_eq!(trigger["queueName"], "sparkferry.requests.prod");
}

#[test]
fn the_schemas_would_see_a_fault() {
    let text = fs::read_to_string(project("docker/kubernetes/scaledobject.yaml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("wrong.yaml");
    fs::write(&wrong, text.replace("scaleTargetRef:", "scaleTarget:")).unwrap();
    let output = keda(&yaml(&wrong));
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
}

/// The first document of a manifest.
fn manifest(name: &str) -> serde_json::Value {
    let objects = yaml(&project("docker/kubernetes").join(name));
    let mut objects: Vec<serde_json::Value> = serde_json::from_slice(&objects).unwrap();
    objects.swap_remove(0)
}

#[test]
fn the_manifests_fit_the_program() {
    let pod = manifest("deployment.yaml")["spec"]["template"]["spec"].clone();
    // A drain takes 10 s at most.
    assert!(pod["terminationGracePeriodSeconds"].as_u64() > Some(10));
    let worker = &pod["containers"][0];
    for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
        assert_eq!(worker[probe]["httpGet"]["path"], path);
        assert_eq!(worker[probe]["httpGet"]["port"], "http");
    }
    assert_eq!(worker["ports"][0]["containerPort"], 8790);
    let settings = manifest("configmap.yaml")["data"]["agent.toml"].clone();
    let settings = settings.as_str().unwrap();
    assert!(settings.contains("listen = \"0.0.0.0:8790\""), "{settings}");

    // Names, RabbitMQ, workspaces, Spark Connect: what a worker may have to reach.
    let policy = manifest("networkpolicy.yaml");
    let rules = policy["spec"]["egress"].as_array().unwrap();
    let ports = rules
        .iter()
        .flat_map(|rule| rule["ports"].as_array().unwrap());
    let ports: Vec<_> = ports.map(|port| port["port"].as_u64().unwrap()).collect();
    assert_eq!(ports, [53, 53, 5671, 5672, 443, 15002]);

    // A secret that somebody made must not be put back to the words of the example.
    let applied = manifest("kustomization.yaml")["resources"].to_string();
    assert!(applied.contains("deployment.yaml") && !applied.contains("secret.yaml"));
}

/// Settings that are shipped inside a manifest or beside compose are settings that the program
/// takes.
#[test]
fn the_settings_of_the_manifests_are_taken() {
    let manifest = yaml(&project("docker/kubernetes/configmap.yaml"));
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let kubernetes = manifest[0]["data"]["agent.toml"].as_str().unwrap();
    let compose = fs::read_to_string(project("docker/compose/agent.toml")).unwrap();
    for (settings, secrets) in [
        (kubernetes, "/run/secrets/sparkferry"),
        (compose.as_str(), "/run/secrets"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().to_str().unwrap();
        fs::write(
            folder.path().join("queue-url"),
            "amqp://u:p@127.0.0.1:1/%2f",
        )
        .unwrap();
        fs::write(folder.path().join("token"), "t").unwrap();
        let file = folder.path().join("agent.toml");
        fs::write(&file, settings.replace(secrets, here)).unwrap();
        let output = run(
            Command::new(env!("CARGO_BIN_EXE_sparkferry"))
                .arg("--config")
                .arg(&file)
                .arg("topology"),
            b"",
        );
        assert!(output.status.success(), "{}", told(&output));
    }
}

/// Builds the image with an optimized program (about ten minutes from nothing), then runs it as
/// compose does. It needs root, podman and buildah, so it has to be asked for.
#[test]
fn the_image_is_small_and_works_as_nobody_on_a_disk_it_cannot_write() {
    if std::env::var_os("TEST_DEPLOY").is_none() {
        eprintln!("SKIPPED: set TEST_DEPLOY=1 (and be root) to build and run the image");
        return;
    }
    let told = succeeds(&mut Command::new(project("agent/tests/containers/run.sh")));
    eprintln!("{told}");
    // Here, and not in a test beside this one: it is the same image.
    let told = succeeds(&mut Command::new(project(
        "agent/tests/containers/compose.sh",
    )));
    eprintln!("{told}");
}
