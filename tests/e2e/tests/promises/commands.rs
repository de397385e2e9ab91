//! Every command against a running node: what it prints, its JSON, and what it says when it is used wrongly.

use std::time::{Duration, Instant};

use casemate_e2e::{Device, Node};
use serde_json::Value;

fn refused(device: &Device, arguments: &[&str], code: i32) -> String {
    let ran = device.run(arguments);
    assert_eq!(ran.code, code, "{arguments:?}: {}", ran.stderr);
    assert!(!ran.stderr.trim().is_empty(), "{arguments:?} says why");
    let mut json_arguments = arguments.to_vec();
    json_arguments.push("--json");
    let json = device.run(&json_arguments);
    if code != 2 {
        let error: Value = serde_json::from_str(&json.stderr).unwrap_or_else(|_| panic!("JSON: {}", json.stderr));
        for field in ["code", "message", "remedy"] {
            assert!(error["error"][field].as_str().is_some_and(|text| !text.is_empty()), "{arguments:?}: {field}");
        }
    }
    ran.stderr
}

#[test]
fn secrets() {
    let node = Node::start();
    let device = node.device_with_vault("owner");
    let put = device.run_with_input(&["secret", "put", "a/b", "--json"], b"one").json();
    assert_eq!((put["name"].as_str(), put["revision"].as_u64()), (Some("a/b"), Some(1)));
    assert_eq!(device.run(&["secret", "get", "a/b"]).ok(), b"one");
    assert_eq!(device.run(&["secret", "get", "a/b", "--json"]).json()["value_base64"], "b25l");
    device.run_with_input(&["secret", "put", "a/b", "--if-revision", "1"], b"two").ok();
    let conflict = device.run_with_input(&["secret", "put", "a/b", "--if-revision", "1"], b"three");
    assert_eq!(conflict.code, 4, "{}", conflict.stderr);
    assert_eq!(device.run_with_input(&["secret", "put", "a/b", "--if-absent"], b"three").code, 4);
    assert_eq!(device.run(&["secret", "get", "a/b", "--revision", "1"]).ok(), b"one");
    assert_eq!(device.run(&["secret", "list", "--json"]).json()["secrets"].as_array().unwrap().len(), 1);
    assert!(device.run(&["secret", "list"]).text().contains("a/b"));
    assert_eq!(device.run(&["secret", "history", "a/b", "--json"]).json()["revisions"].as_array().unwrap().len(), 2);
    refused(&device, &["secret", "get", "none"], 3);
    refused(&device, &["secret", "get"], 2);
    let big = node.path("big");
    std::fs::write(&big, vec![0; 65_537]).unwrap();
    let said = device.run(&["secret", "put", "big", "--file", &big.display().to_string()]);
    assert!(said.code != 0 && said.stderr.contains("64 KiB"), "{}", said.stderr);
    device.run(&["secret", "delete", "a/b"]).ok();
    refused(&device, &["secret", "delete", "a/b"], 3);
    let out = node.path("out");
    device.run_with_input(&["secret", "put", "c"], b"kept").ok();
    device.run(&["secret", "get", "c", "--out", &out.display().to_string()]).ok();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&out).unwrap().permissions());
    assert_eq!((std::fs::read(&out).unwrap(), mode & 0o777), (b"kept".to_vec(), 0o600));
}

#[test]
fn keys() {
    let node = Node::start();
    let device = node.device_with_vault("owner");
    let file = |name: &str, bytes: &[u8]| {
        let path = node.path(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    for algorithm in ["ed25519", "p256", "secp256k1", "x25519", "aes256-gcm", "hmac-sha256"] {
        device.run(&["key", "generate", algorithm, "-a", algorithm]).ok();
    }
    assert_eq!(device.run(&["key", "list", "--json"]).json()["keys"].as_array().unwrap().len(), 6);
    refused(&device, &["key", "generate", "p256", "-a", "p256"], 4);
    refused(&device, &["key", "generate", "k", "-a", "rot13"], 2);
    for algorithm in ["ed25519", "p256", "secp256k1"] {
        let signature = device.run_with_input(&["key", "sign", algorithm], b"text").ok();
        let signature = file(&format!("{algorithm}.sig"), &signature);
        device.run_with_input(&["key", "verify", algorithm, "--signature", &signature], b"text").ok();
        assert_eq!(device.run_with_input(&["key", "verify", algorithm, "--signature", &signature], b"texT").code, 10);
        // And outside the project.
        let (public, message) =
            (file("public", &device.run(&["key", "public", algorithm, "--pem"]).ok()), file("message", b"text"));
        let mut openssl = std::process::Command::new("openssl");
        if algorithm == "ed25519" {
            openssl.args([
                "pkeyutl", "-verify", "-pubin", "-rawin", "-inkey", &public, "-in", &message, "-sigfile", &signature,
            ]);
        } else {
            openssl.args(["dgst", "-sha256", "-verify", &public, "-signature", &signature, &message]);
        }
        assert!(openssl.status().unwrap().success(), "{algorithm}");
    }
    let other = node.device_with_vault("other");
    for algorithm in ["x25519", "p256", "secp256k1"] {
        other.run(&["key", "generate", "peer", "-a", algorithm]).ok();
        let theirs = file("theirs", &other.run(&["key", "public", "peer", "--format", "raw"]).ok());
        let ours = file("ours", &device.run(&["key", "public", algorithm, "--format", "raw"]).ok());
        let shared = device.run(&["key", "agree", algorithm, "--peer", &theirs]).ok();
        assert_eq!(shared.len(), 32);
        assert_eq!(shared, other.run(&["key", "agree", "peer", "--peer", &ours]).ok());
        other.run(&["key", "delete", "peer"]).ok();
    }
    let sealed = device.run_with_input(&["key", "encrypt", "aes256-gcm"], b"text").ok();
    assert_eq!(device.run_with_input(&["key", "decrypt", "aes256-gcm"], &sealed).ok(), b"text");
    let mut damaged = sealed;
    damaged[14] ^= 1;
    assert_eq!(device.run_with_input(&["key", "decrypt", "aes256-gcm"], &damaged).code, 10);
    assert_eq!(device.run_with_input(&["key", "mac", "hmac-sha256"], b"text").ok().len(), 32);
    assert_eq!(device.run_with_input(&["key", "sign", "x25519"], b"text").code, 5);
    refused(&device, &["key", "export", "p256"], 5);
    device.run_with_input(&["key", "import", "mine", "-a", "hmac-sha256", "--exportable"], &[7; 32]).ok();
    assert_eq!(device.run(&["key", "export", "mine"]).ok(), [7; 32]);
    device.run(&["key", "delete", "mine"]).ok();
    refused(&device, &["key", "public", "mine"], 3);
}

#[test]
fn vault_audit_attest_trust_and_node() {
    let node = Node::start();
    let stranger = node.untrusting_device("stranger");
    refused(&stranger, &["vault", "create"], 6);
    let device = node.device("owner");
    assert!(device.run(&["trust", "show"]).text().contains("local run"));
    let vault = device.run(&["vault", "create", "--json"]).json()["vault"].as_str().unwrap().to_owned();
    assert_eq!(vault.len(), 32);
    let status = device.run(&["vault", "status", "--json"]).json();
    assert_eq!((status["secrets"].as_u64(), status["devices"].as_u64()), (Some(0), Some(1)));
    assert!(device.run(&["vault", "list"]).text().contains(&vault));
    assert!(device.run(&["attest", "--json"]).json()["trusted"].is_object());
    refused(&stranger, &["attest"], 6);
    device.run_with_input(&["secret", "put", "a"], b"1").ok();
    let audit = device.run(&["audit", "--json"]).json().to_string();
    assert!(audit.contains("vault_created") && audit.contains("secret_written"), "{audit}");

    let health = device.run(&["node", "status", "--json"]).json();
    assert_eq!(health["status"], "healthy", "{health}");
    let text = device.run(&["node", "status"]).text();
    assert!(text.contains("seccomp"), "the layers in force are told: {text}");
    assert!(device.run(&["node", "vaults"]).text().contains(&vault));
    device.run(&["node", "evict", &vault]).ok();
    refused(&device, &["node", "evict", "nonsense"], 2);
    refused(&device, &["node", "status", "--socket", "/nonexistent.sock"], 8);
    assert!(device.run(&["completion", "bash"]).text().contains("casemate"));
    assert!(device.run(&["--help"]).text().contains("Examples"));

    refused(&device, &["vault", "delete", "--yes", &"a".repeat(32)], 2);
    device.run(&["vault", "delete", "--yes", &vault]).ok();
    assert!(device.run(&["secret", "get", "a"]).code != 0);
    // The answer follows the tombstone; what it buries goes after it.
    let left = || node.objects().iter().filter(|(name, _)| name.contains(&vault)).count();
    let begun = Instant::now();
    while left() > 1 && begun.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(left(), 1, "only the tombstone is left");
    device.run(&["node", "drain"]).ok();
}

#[test]
fn evidence_of_another_root_or_image_is_refused() {
    let node = Node::start();
    let other = Node::start();
    // Another run's root.
    let device = other.device("owner");
    let elsewhere = device.run(&["vault", "create", "--nats", &node.nats_url()]);
    assert_eq!(elsewhere.code, 6, "{}", elsewhere.stderr);
    // The right root and cluster, another image.
    let trust = std::fs::read_to_string(node.path("authority/trust.toml")).unwrap();
    let line = trust.lines().find(|line| line.starts_with("pcr1")).unwrap();
    let wrong = trust.replace(line, &format!("pcr1 = \"{}\"", "ab".repeat(48)));
    let path = node.path("wrong.toml");
    std::fs::write(&path, wrong).unwrap();
    let device = node.untrusting_device("careful");
    device.run(&["trust", "add", &path.display().to_string()]).ok();
    let refused = device.run(&["vault", "create"]);
    assert_eq!(refused.code, 6);
    assert!(refused.stderr.to_lowercase().contains("pcr1"), "names the measurement that differs: {}", refused.stderr);
    assert!(node.objects().iter().all(|(name, _)| !name.starts_with("v1/vaults")), "nothing was sent");
}
