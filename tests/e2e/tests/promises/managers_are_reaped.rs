//! A crashed vault-manager is reaped, and the next request opens the vault anew; the walls around it are those that health tells.

use casemate_e2e::Node;
use casemate_enclave::sandbox::Layer;
use nix::sys::signal::{Signal, kill};

#[test]
fn the_next_request_opens_the_vault_anew() {
    if casemate_e2e::guest::hides_processes() {
        return;
    }
    let node = Node::start();
    let device = node.device_with_vault("owner");
    device.run_with_input(&["secret", "put", "a"], b"1").ok();
    let vault = device.vault();
    let mut former = Vec::new();
    for _ in 0..5 {
        let manager = node.manager_of(&vault);
        assert!(!former.contains(&manager), "another process each time");
        kill(manager, Signal::SIGKILL).unwrap();
        assert_eq!(device.run(&["secret", "get", "a"]).ok(), b"1");
        former.push(manager);
    }
    for manager in former {
        let stat = std::fs::read_to_string(format!("/proc/{manager}/stat")).unwrap_or_default();
        assert!(!stat.contains(") Z "), "no zombie is left: {stat}");
    }
}

#[test]
fn a_vault_manager_stands_inside_its_walls() {
    if casemate_e2e::guest::hides_processes() {
        return;
    }
    let node = Node::start();
    let device = node.device_with_vault("owner");
    let other = node.device_with_vault("other");
    let managers = [node.manager_of(&device.vault()), node.manager_of(&other.vault())];
    let (_, health) = node.health().unwrap();
    let told = |key: &str| {
        let words = health["enclave"][key].as_array().unwrap().iter();
        words.map(|word| word.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // A development machine may have no controller to give away; everything else stands.
    let in_force: Vec<_> = Layer::ALL.iter().map(|layer| layer.name()).filter(|name| *name != "cgroup").collect();
    let (standing, missing) = (told("sandbox"), told("sandbox_missing"));
    assert_eq!(standing.iter().filter(|name| *name != "cgroup").collect::<Vec<_>>(), in_force);
    assert_eq!(standing.contains(&"cgroup".to_owned()), missing.is_empty(), "{standing:?} {missing:?}");
    assert!(missing.iter().all(|word| word == "cgroup: no controller"), "{missing:?}");
    let status = |pid| std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |pid, name: &str| {
        let status = status(pid);
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {status}"));
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    for pid in managers {
        assert_eq!(field(pid, "NoNewPrivs:"), "1");
        assert_eq!(field(pid, "Seccomp:"), "2");
        assert_eq!(field(pid, "CapEff:"), "0000000000000000");
        assert_eq!(field(pid, "Threads:"), "1");
        assert_ne!(field(pid, "Uid:"), "0");
        let numbers = status(pid).lines().find_map(|line| line.strip_prefix("NSpid:").map(str::to_owned)).unwrap();
        assert_eq!(numbers.split_whitespace().last(), Some("1"), "the first of its own PID namespace: {numbers}");
        let name = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(name.starts_with(b"vault-manager"), "{}", String::from_utf8_lossy(&name));
    }
    assert_ne!(field(managers[0], "Uid:"), field(managers[1], "Uid:"), "each has a uid of its own");
}
