//! Whatever breaks, `/health` tells within five seconds, with the reason, and all is well again by itself when the cause is gone.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use casemate_e2e::{Device, Node};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until health answers with this code and a reason that says so; fails after five seconds.
#[track_caller]
fn told(node: &Node, code: u16, reason: &str) {
    let start = Instant::now();
    loop {
        let (found, health) = node.health().unwrap();
        let reasons = health["reasons"].to_string();
        if found == code && reasons.contains(reason) {
            return;
        }
        assert!(start.elapsed() < LIMIT, "{code} {reason} was not told within {LIMIT:?}: {found} {reasons}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until everything is well, and a device is served.
#[track_caller]
fn healed(node: &Node, device: &Device) {
    let start = Instant::now();
    loop {
        let health = node.health().map_or(Value::Null, |(_, health)| health);
        if health["status"] == "healthy" {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "not well again within {PATIENCE:?}: {health}");
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(device.run(&["secret", "get", "a", "--timeout", "30"]).ok(), b"1");
}

fn owner(node: &Node) -> Device {
    let device = node.device_with_vault("owner");
    device.run_with_input(&["secret", "put", "a"], b"1").ok();
    device
}

#[test]
fn the_enclave_killed_and_hung() {
    let mut node = Node::start();
    let device = owner(&node);
    node.enclave = None;
    told(&node, 503, "enclave: not connected");
    node.start_enclave();
    healed(&node, &device);

    let enclave = node.enclave.as_ref().unwrap();
    enclave.signal(Signal::SIGSTOP);
    told(&node, 503, "enclave: does not answer");
    enclave.signal(Signal::SIGCONT);
    healed(&node, &device);
}

/// Stands between enclave and parent, and can let nothing through while every connection stands: what a broken vsock looks like.
struct Wire {
    broken: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<UnixStream>>>,
}

impl Wire {
    fn lay(front: &Path, behind: &Path) -> Self {
        let wire = Self { broken: Arc::default(), streams: Arc::default() };
        let (listener, behind) = (UnixListener::bind(front).unwrap(), behind.to_owned());
        let (broken, streams) = (Arc::clone(&wire.broken), Arc::clone(&wire.streams));
        thread::spawn(move || {
            for here in listener.incoming().map_while(Result::ok) {
                let Ok(there) = UnixStream::connect(&behind) else { continue };
                for (from, to) in [(&here, &there), (&there, &here)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    streams.lock().unwrap().push(from.try_clone().unwrap());
                    let broken = Arc::clone(&broken);
                    thread::spawn(move || carry(from, to, &broken));
                }
            }
        });
        wire
    }

    fn cut_silently(&self) {
        self.broken.store(true, Ordering::SeqCst);
    }

    fn mend(&self) {
        // What was swallowed is gone: those connections are of no use any more.
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.broken.store(false, Ordering::SeqCst);
    }
}

fn carry(mut from: UnixStream, mut to: UnixStream, broken: &AtomicBool) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        if !broken.load(Ordering::SeqCst) && to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

#[test]
fn the_enclave_unreachable() {
    let mut node = Node::prepare("");
    node.start_nats();
    node.start_kms();
    node.start_parent();
    let wire = Wire::lay(&node.path("wire.sock"), &node.path("link.sock"));
    node.start_enclave_at(&node.path("wire.sock"));
    node.await_health(200);
    let device = owner(&node);
    wire.cut_silently();
    told(&node, 503, "enclave: does not answer");
    wire.mend();
    healed(&node, &device);
}

#[test]
fn nats_down_and_hung() {
    let mut node = Node::start();
    let device = owner(&node);
    node.nats = None;
    told(&node, 503, "nats: no round trip");
    node.start_nats();
    healed(&node, &device);

    let nats = node.nats.as_ref().unwrap();
    nats.signal(Signal::SIGSTOP);
    told(&node, 503, "nats: no round trip");
    nats.signal(Signal::SIGCONT);
    healed(&node, &device);
}

#[test]
fn kms_down() {
    let mut node = Node::start();
    let device = owner(&node);
    node.kms = None;
    told(&node, 200, "kms: ");
    assert_eq!(node.health().unwrap().1["status"], "degraded");
    let vault = device.vault();
    device.run(&["node", "evict", &vault]).ok();
    assert_eq!(device.run(&["secret", "get", "a"]).ok(), b"1", "opened with the cached key");
    node.start_kms();
    healed(&node, &device);
}

#[test]
fn the_store_down() {
    let node = Node::start();
    let device = owner(&node);
    fs::rename(node.path("store"), node.path("gone")).unwrap();
    fs::write(node.path("store"), b"no folder").unwrap();
    told(&node, 503, "store: ");
    fs::remove_file(node.path("store")).unwrap();
    fs::rename(node.path("gone"), node.path("store")).unwrap();
    healed(&node, &device);
}

/// A file system of its own that ends with this.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(path: &'a Path) -> Option<Self> {
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some("size=4m,mode=0700")).ok().map(|()| Self(path))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = umount2(self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn the_disk_full() {
    let mut node = Node::prepare("");
    let store = node.path("store");
    let Some(_disk) = SmallDisk::mount(&store) else {
        eprintln!("SKIPPED truth, disk full: no file system may be mounted here");
        return;
    };
    node.start_all();
    let device = owner(&node);
    // To the last block, as a log that grows would.
    let filled =
        Command::new("sh").args(["-c", "cat /dev/zero > \"$0\" 2>/dev/null; true"]).arg(store.join("log")).status();
    assert!(filled.unwrap().success());
    told(&node, 503, "store: ");
    assert_eq!(device.run(&["secret", "get", "a"]).ok(), b"1", "who is open is read");
    fs::remove_file(store.join("log")).unwrap();
    healed(&node, &device);
    drop(node);
}
