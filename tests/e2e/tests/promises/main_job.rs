//! The main job, as a user does it, and the search for its secrets everywhere that they must not be.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

use casemate_e2e::{Node, programs};
use futures_util::StreamExt;

/// What is asked of a process's memory at once.
const PAGE: usize = 4096;

/// Bytes that no other file of this machine has.
fn recognisable(seed: u8, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| u8::try_from((i * 131 + usize::from(seed) * 29 + (i >> 8) * 7) % 251).expect("below 251"))
        .collect()
}

#[test]
fn a_secret_comes_back_after_everything_and_is_seen_nowhere() {
    let mut node = Node::start();
    let traffic = Traffic::record(&node.nats_url());
    let device = node.device("owner");
    let created = device.run(&["vault", "create"]).text();
    assert!(
        created.contains("DEV") || created.to_lowercase().contains("development"),
        "says what it trusted: {created}"
    );

    let secret = recognisable(1, 65_536);
    let file = node.path("secret.bin");
    std::fs::write(&file, &secret).unwrap();
    device.run(&["secret", "put", "report", "--file", &file.display().to_string()]).ok();
    std::fs::remove_file(&file).unwrap();
    assert!(device.run(&["secret", "get", "report"]).ok() == secret, "byte for byte");

    // A key whose material we know, so that it can be searched for, and one that never was outside.
    let material = recognisable(2, 32);
    device.run_with_input(&["key", "import", "known", "-a", "ed25519"], &material).ok();
    device.run(&["key", "generate", "signing", "-a", "ed25519"]).ok();
    for key in ["known", "signing"] {
        let message = node.path("message");
        std::fs::write(&message, b"Pay the bearer ten ducats.").unwrap();
        let (signature, public) = (node.path("signature"), node.path("public.pem"));
        let sign =
            ["key", "sign", key, "--file", &message.display().to_string(), "--out", &signature.display().to_string()];
        device.run(&sign).ok();
        std::fs::write(&public, device.run(&["key", "public", key, "--pem"]).ok()).unwrap();
        let verified = Command::new("openssl")
            .args(["pkeyutl", "-verify", "-pubin", "-rawin", "-inkey"])
            .arg(&public)
            .arg("-in")
            .arg(&message)
            .arg("-sigfile")
            .arg(&signature)
            .output()
            .expect("openssl runs");
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    }

    let vault = device.vault();
    device.run(&["node", "evict", &vault]).ok();
    assert!(node.vaults().iter().all(|entry| entry["vault"] != vault.as_str()), "evicted");
    assert!(device.run(&["secret", "get", "report"]).ok() == secret, "cold start");

    let memory = memory_of(node.parent.as_ref().expect("runs").pid().as_raw());
    let traffic = traffic.stop();
    assert!(traffic.len() > 3 * 65_536, "the recording heard the traffic: {} bytes", traffic.len());

    node.stop_all();
    node.start_all();
    assert!(device.run(&["secret", "get", "report"]).ok() == secret, "after everything stopped and started");

    let mut places = vec![("the parent's memory".to_owned(), memory), ("NATS traffic".to_owned(), traffic)];
    places.extend(node.objects());
    for log in ["parent", "enclave", "nats", "kms"] {
        places.push((format!("the log of {log}"), std::fs::read(node.path(&format!("log/{log}.log"))).unwrap()));
    }
    let lock_keys = lock_keys(device.home());
    assert!(!lock_keys.is_empty(), "the device holds a lock key");
    let mut needles = vec![("the secret", secret[1000..1048].to_vec()), ("the key", material)];
    needles.extend(lock_keys.into_iter().map(|key| ("a key of the device", key)));
    for (place, bytes) in &places {
        for (what, needle) in &needles {
            let hexed = hex::encode(needle).into_bytes();
            let encoded = data_encoding::BASE64.encode(&needle[..needle.len() / 3 * 3]).into_bytes();
            for form in [needle, &hexed, &encoded] {
                assert!(!contains(bytes, form), "{what} is in {place}");
            }
        }
    }
}

/// The search itself finds what is there: a test that cannot fail proves nothing.
#[test]
fn the_search_finds_what_is_there() {
    let canary = recognisable(9, 4096);
    assert!(contains(&memory_of(i32::try_from(std::process::id()).unwrap()), &canary[1000..1048]));
    assert!(!contains(&canary[..1000], &canary[1000..1048]));
    drop(canary);
    assert!(programs::program("casemate-parent").exists());
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let first = needle[0];
    let mut from = 0;
    while let Some(at) = haystack[from..].iter().position(|byte| *byte == first) {
        let start = from + at;
        if haystack[start..].starts_with(needle) {
            return true;
        }
        from = start + 1;
    }
    false
}

/// Every readable page of a process.
fn memory_of(pid: i32) -> Vec<u8> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("a process has maps");
    let memory = File::open(format!("/proc/{pid}/mem")).expect("root reads memory");
    let mut out = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" r") && !line.contains("[v")) {
        let (range, _) = line.split_once(' ').expect("a range");
        let (start, end) = range.split_once('-').expect("two ends");
        let (start, end) = (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        // Page by page: what the process gives back meanwhile, in the middle or at the end of it, must not hide the rest.
        for (at, page) in (start..).step_by(PAGE).zip(bytes.chunks_mut(PAGE)) {
            let _gone = memory.read_exact_at(page, at);
        }
        out.extend_from_slice(&bytes);
    }
    out
}

/// Every 32-byte value in base64 or hex in the device's home that is private to it.
fn lock_keys(home: &std::path::Path) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    let mut folders = vec![home.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let text = String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap()).into_owned();
            for (name, value) in text.split('"').collect::<Vec<_>>().windows(3).map(|three| (three[0], three[2])) {
                let is_private = name.contains("lock_key") || name.contains("secret");
                let decoded =
                    data_encoding::BASE64.decode(value.as_bytes()).or_else(|_| hex::decode(value).map_err(drop));
                if let (true, Ok(key)) = (is_private, decoded)
                    && key.len() == 32
                {
                    keys.push(key);
                }
            }
        }
    }
    keys
}

/// Everything that NATS carries, as a broker sees it.
struct Traffic {
    stop: tokio::sync::oneshot::Sender<()>,
    thread: std::thread::JoinHandle<Vec<u8>>,
}

impl Traffic {
    fn record(url: &str) -> Self {
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let url = url.to_owned();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let client = async_nats::connect(url).await.unwrap();
                let mut all = client.subscribe(">").await.unwrap();
                client.flush().await.unwrap();
                ready.send(()).unwrap();
                let mut bytes = Vec::new();
                loop {
                    tokio::select! {
                        message = all.next() => bytes.extend_from_slice(&message.expect("connected").payload),
                        _ = &mut stopped => return bytes,
                    }
                }
            })
        });
        is_ready.recv().unwrap();
        Self { stop, thread }
    }

    fn stop(self) -> Vec<u8> {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap()
    }
}
