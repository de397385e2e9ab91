//! The units of `systemd/`: verified, hardened, and started under a real systemd, where they heal what is hurt.

use std::fs;
use std::process::Command;

use casemate_e2e::Node;
use casemate_e2e::programs::{checkout, program};

use crate::machine::Machine;

fn healthy(node: &Node) -> bool {
    node.health().is_some_and(|(code, _)| code == 200)
}

/// Static: what needs no container.
#[test]
fn units_are_verified_and_hardened() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("SKIPPED units: systemd-analyze is not installed");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let (units, programs) = (root.path().join("usr/lib/systemd/system"), root.path().join("usr/bin"));
    fs::create_dir_all(&units).unwrap();
    fs::create_dir_all(&programs).unwrap();
    fs::copy(program("casemate-parent"), programs.join("casemate-parent")).unwrap();
    let copied = Command::new("sh")
        .args(["-c", "cp -r \"$0\"/*.service \"$0\"/*.service.d \"$1\" && cp /usr/lib/systemd/system/*.target \"$1\""])
        .arg(checkout().join("systemd"))
        .arg(&units)
        .status();
    assert!(copied.unwrap().success());
    let verify = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "casemate-parent.service", "nitro-enclave.service"])
        .arg(format!("--root={}", root.path().display()))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&verify.stderr), "", "systemd-analyze verify says nothing");
    for (unit, threshold) in [("casemate-parent.service", "20"), ("nitro-enclave.service", "25")] {
        let security = Command::new("systemd-analyze")
            .args(["security", "--offline=true", &format!("--threshold={threshold}")])
            .arg(checkout().join("systemd").join(unit))
            .output()
            .unwrap();
        assert!(security.status.success(), "{unit}: {}", String::from_utf8_lossy(&security.stdout));
    }
}

#[test]
fn both_services_start_heal_and_stop() {
    let mut node = Node::prepare("");
    node.start_nats();
    node.start_kms();
    let Some(machine) =
        Machine::boot(&node, "\n[enclave]\nmemory_mib = 256\nsilence_s = 5\n", "[Service]\nWatchdogSec=20\n", &[])
    else {
        eprintln!("SKIPPED units, started: no systemd can be booted in a container here (systemd-nspawn)");
        return;
    };
    // A refusal is told with what to do, and tried again until it is none any more.
    machine.ok(&["touch", "/run/nitro_enclaves/refuse"]);
    machine.ok(&["systemctl", "start", "casemate-parent"]);
    machine.await_that("the refusal was told", || machine.journal().contains("allocator.yaml"));
    machine.ok(&["rm", "/run/nitro_enclaves/refuse"]);
    machine.await_that("the node was healthy", || healthy(&node));
    machine.ok(&["systemctl", "is-active", "casemate-parent", "nitro-enclave"]);
    assert_eq!(
        machine.ok(&["stat", "-c", "%U %a", "/run/casemate", "/run/casemate/admin.sock"]),
        "casemate 750\ncasemate 600\n"
    );
    machine.await_that("the status said so", || {
        let status = machine.run(&["systemctl", "status", "--no-pager", "nitro-enclave"]);
        String::from_utf8_lossy(&status.stdout).contains("runs and answers")
    });
    let root = format!("CASEMATE_DEV_ROOT={}", node.path("authority/root.der").display());
    machine.ok(&["env", &root, "casemate", "node", "diagnose"]);

    // Killed: told, and started anew.
    let first = machine.running();
    machine.ok(&["kill", "-KILL", &first]);
    machine.await_that("another enclave ran", || !machine.running().is_empty() && machine.running() != first);
    machine.await_that("the node was healthy again", || healthy(&node));
    assert!(machine.journal().contains("has ended (it is not listed any more)"), "{}", machine.journal());

    // Hung: the same, after its silence.
    let second = machine.running();
    machine.ok(&["kill", "-STOP", &second]);
    machine.await_that("a third enclave ran", || !machine.running().is_empty() && machine.running() != second);
    machine.await_that("the node was healthy once more", || healthy(&node));
    assert!(machine.journal().contains("has not answered its parent for"), "{}", machine.journal());

    // The parent is killed: it comes back, and with it the node.
    let pid = machine.ok(&["systemctl", "show", "--property=MainPID", "--value", "casemate-parent"]);
    machine.ok(&["kill", "-KILL", pid.trim()]);
    machine.await_that("another parent ran", || {
        let now = machine.ok(&["systemctl", "show", "--property=MainPID", "--value", "casemate-parent"]);
        now != pid && now.trim() != "0" && healthy(&node)
    });

    // A parent that hangs starves its watchdog.
    let pid = machine.ok(&["systemctl", "show", "--property=MainPID", "--value", "casemate-parent"]);
    machine.ok(&["kill", "-STOP", pid.trim()]);
    machine.await_that("the watchdog had the parent started anew", || {
        let now = machine.ok(&["systemctl", "show", "--property=MainPID", "--value", "casemate-parent"]);
        now != pid && now.trim() != "0" && healthy(&node)
    });

    // Stopped: the parent drains, and the enclave, which takes nothing then, ends with it.
    machine.ok(&["systemctl", "restart", "casemate-parent"]);
    machine.await_that("a restarted node was healthy", || healthy(&node));
    machine.ok(&["systemctl", "stop", "casemate-parent"]);
    assert!(machine.journal().contains("drained"), "{}", machine.journal());
    machine.await_that("the enclave had ended", || machine.running().is_empty());
    let verify = machine.run(&["systemd-analyze", "verify", "--man=no", "/etc/systemd/system/casemate-parent.service"]);
    assert_eq!(String::from_utf8_lossy(&verify.stderr), "");
    drop(machine);
}
