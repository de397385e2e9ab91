//! An operator sees what the node does: on a screen that renews itself, as text, as JSON, and in the stages of requests.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use casemate_e2e::programs::program;
use casemate_e2e::{Device, Node};
use serde_json::Value;

const BUCKET: u64 = 64 * 1024;

fn used(node: &Node, name: &str, reads: usize) -> Device {
    let device = node.device_with_vault(name);
    device.run_with_input(&["secret", "put", "a"], b"1").ok();
    for _ in 0..reads {
        device.run(&["secret", "get", "a"]).ok();
    }
    device
}

#[test]
fn top_prints_a_frame_and_documents() {
    let mut node = Node::start();
    let (device, other) = (used(&node, "owner", 6), used(&node, "other", 0));
    let (vault, second) = (device.vault(), other.vault());

    let frame = device.run(&["node", "top", "--once"]).text();
    for part in
        ["node test", "healthy", "enclave connected", "kms ok", "memory", "resident", "2 of ", "/s", &vault, &second]
    {
        assert!(frame.contains(part), "{part} in\n{frame}");
    }
    assert!(!frame.contains('\u{1b}'), "plain text");
    let without_terminal = device.run(&["node", "top"]).text();
    assert!(without_terminal.contains(&vault) && !without_terminal.contains('\u{1b}'), "{without_terminal}");

    device.run(&["secret", "get", "a"]).ok();
    let document = device.run(&["node", "top", "--once", "--json"]).json();
    assert_eq!(document["health"]["status"], "healthy", "{document}");
    assert!(document["rates"]["requests_per_second"].as_f64().is_some(), "two answers were compared: {document}");
    let vaults = document["vaults"].as_array().unwrap();
    assert_eq!(vaults.len(), 2);
    for entry in vaults {
        // Nothing is told of one vault but in buckets.
        let memory = entry["memory_bytes"].as_u64().unwrap();
        assert!(memory > 0 && memory.is_multiple_of(BUCKET), "{entry}");
        assert!(entry["idle_ms"].as_u64().unwrap().is_multiple_of(1000), "{entry}");
        assert!(entry["pid"].as_u64().unwrap() > 0 && entry["queued"] == 0, "{entry}");
    }
    let entry = vaults.iter().find(|entry| entry["vault"] == vault.as_str()).unwrap();
    let lately = entry["requests_per_second"].as_f64().unwrap() * 8.0;
    let is_power = |number: f64| number >= 1.0 && number.log2().fract() == 0.0;
    assert!(is_power(lately), "{entry}");
    assert!(entry["latency_us"].as_u64().unwrap().is_power_of_two(), "{entry}");
    let one = device.run(&["node", "top", "--once", "--json", "--by", "rate", "--limit", "1"]).json();
    assert_eq!(one["vaults"][0]["vault"], vault.as_str(), "the one that is asked most: {one}");
    assert_eq!(one["vaults"].as_array().unwrap().len(), 1);
    let listed = device.run(&["node", "vaults", "--by", "idle", "--limit", "1"]);
    assert!(listed.stderr.contains("--limit"), "a list that is cut says so: {}", listed.stderr);
    assert!(listed.text().contains("LATENCY"));

    // Documents go on, over a parent that is away for a while; one frame does not wait for it.
    let socket = node.path("admin.sock").display().to_string();
    let mut stream = Command::new(program("casemate"))
        .args(["node", "top", "--json", "--interval", "0.2", "--socket", &socket])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(stream.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert!(next()["rates"].is_null(), "one answer alone tells no rates");
    let end = Instant::now() + Duration::from_secs(15);
    while next()["rates"].is_null() {
        assert!(Instant::now() < end);
    }
    drop(node.parent.take());
    let refused = device.run(&["node", "top", "--once"]);
    assert!(refused.code == 8 && refused.stderr.contains("casemate-parent"), "{}", refused.stderr);
    node.start_parent();
    node.await_health(200);
    let end = Instant::now() + Duration::from_secs(30);
    while next()["health"]["status"] != "healthy" {
        assert!(Instant::now() < end);
    }
    stream.kill().unwrap();
    stream.wait().unwrap();
}

/// Runs a line of a shell in a terminal, and types something after a while; returns what the terminal was shown.
fn in_a_terminal(node: &Node, line: &str, typed: &str) -> String {
    let line = format!("stty cols 100 rows 30; {line}; echo code $?; stty -a");
    let mut script = Command::new("script")
        .args(["-q", "-e", "-c", &line, "/dev/null"])
        .env("CASEMATE_ADMIN_SOCKET", node.path("admin.sock"))
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let mut keys = script.stdin.take().unwrap();
    keys.write_all(typed.as_bytes()).unwrap();
    let output = script.wait_with_output().unwrap();
    drop(keys);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_terminal_is_given_back() {
    let node = Node::start();
    let vault = used(&node, "owner", 1).vault();
    let top = format!("{} node top", program("casemate").display());
    // Green, alone or with what else changes at the same place.
    let coloured = "\u{1b}[38;5;2";
    // (how it is run, what is typed, its exit code)
    for (line, typed, code) in [
        (top.clone(), "r?q", 0),
        (format!("NO_COLOR=1 {top}"), "\u{3}", 0),
        (format!("timeout --foreground --preserve-status -s TERM 2 {top}"), "", 0),
    ] {
        let shown = in_a_terminal(&node, &line, typed);
        let (entered, left) = (shown.find("\u{1b}[?1049h"), shown.rfind("\u{1b}[?1049l"));
        assert!(entered.is_some() && entered < left, "{line}: {shown:?}");
        assert!(shown.contains("node test") && shown.contains(&vault[..8]), "{line}: {shown:?}");
        assert_eq!(shown.contains(coloured), !line.contains("NO_COLOR"), "{line}: {shown:?}");
        let after = &shown[left.unwrap()..];
        assert!(after.contains(&format!("code {code}")), "{line}: {after}");
        for mode in ["icanon", "echo", "isig"] {
            assert!(after.split_whitespace().any(|word| word == mode), "{line}: {mode} in {after}");
        }
        assert!(after.contains("\u{1b}[?25h"), "{line}: the cursor is there again: {after:?}");
    }
}

/// A number of the metrics page.
fn metric(page: &str, name: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(|value| value.parse().unwrap())
}

#[test]
fn metrics_tell_the_stages_of_requests() {
    let node = Node::start();
    let device = used(&node, "owner", 5);
    device.run(&["node", "evict", &device.vault()]).ok();
    device.run(&["secret", "get", "a"]).ok();

    let of = |page: &str, stage: &str, what: &str| {
        let name = format!("casemate_stage_seconds_{what}{{stage=\"{stage}\"}}");
        metric(page, &name).unwrap_or_else(|| panic!("{name} in\n{page}"))
    };
    // The enclave tells its counts once a second: then every answer that went out was timed on its way.
    let end = Instant::now() + Duration::from_secs(15);
    let page = loop {
        let (status, page) = node.http("GET", "/metrics", "").unwrap();
        assert_eq!(status, 200);
        let answered = metric(&page, "casemate_requests_total{outcome=\"answered\"}").unwrap();
        if page.contains("stage=\"vault\"") && of(&page, "vault", "count").total_cmp(&answered).is_eq() {
            assert!(answered >= 16.0, "hello and finish of each command besides its requests: {answered}");
            break page;
        }
        assert!(Instant::now() < end, "{page}");
        std::thread::sleep(Duration::from_millis(100));
    };
    let count = |stage| of(&page, stage, "count");
    assert!(count("forward") >= count("vault") && count("wait") >= count("vault"), "{page}");
    // A creation, and the opening after the eviction.
    for stage in ["spawn", "load", "key", "open"] {
        assert!((2.0..=8.0).contains(&count(stage)), "{stage}: {}", count(stage));
    }
    assert!(count("commit") >= 2.0, "the creation and the secret");
    for stage in ["forward", "wait", "vault", "spawn", "load", "key", "open", "commit"] {
        let buckets: Vec<f64> = page
            .lines()
            .filter(|line| line.starts_with(&format!("casemate_stage_seconds_bucket{{stage=\"{stage}\",")))
            .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
            .collect();
        assert!(buckets.len() == 24 && buckets.is_sorted(), "{stage}: {buckets:?}");
        assert!(buckets.last().unwrap().total_cmp(&count(stage)).is_eq(), "{stage}");
        let sum = of(&page, stage, "sum");
        assert!(sum > 0.0 && sum < 60.0, "{stage}: {sum} s");
    }
    // Parts are shorter than their whole.
    assert!(of(&page, "load", "sum") + of(&page, "key", "sum") <= of(&page, "open", "sum") + 0.001);
    assert!(of(&page, "commit", "sum") < of(&page, "vault", "sum"));
    assert!(!page.contains(&device.vault()), "no metric carries a vault's name");
}
