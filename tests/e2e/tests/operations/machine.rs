//! A machine with a real systemd: a container that shares nothing of this one but `/usr` and the network, with the units of `systemd/`
//! and a `nitro-cli` whose enclaves are the development one.
//!
//! The enclave is started by a service of its own, as the hypervisor is nobody's child.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use casemate_e2e::Node;
use casemate_e2e::process::Process;
use casemate_e2e::programs::{checkout, program};

pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Stands in for AWS's program: asks the hypervisor below for what it is asked.
const NITRO_CLI: &str = r#"#!/bin/bash
spool=/run/nitro_enclaves
named() { echo "{\"EnclaveName\":\"casemate\",\"EnclaveID\":\"i-0-enc$1\",\"ProcessID\":$1,\"EnclaveCID\":16,\"NumberOfCPUs\":2,\"CPUIDs\":[1,3],\"MemoryMiB\":256,\"State\":\"RUNNING\",\"Flags\":\"NONE\"}"; }
running() { cat $spool/running 2>/dev/null; }
case $1 in
    run-enclave)
        [[ ! -e $spool/refuse ]] || { echo "[ E27 ] Insufficient memory available." >&2; exit 1; }
        touch $spool/wanted
        for _ in {1..100}; do [[ -z $(running) ]] || { named "$(running)"; exit 0; }; sleep 0.1; done
        echo "the enclave did not boot" >&2; exit 1 ;;
    describe-enclaves) if [[ -n $(running) ]]; then echo "[$(named "$(running)")]"; else echo "[]"; fi ;;
    terminate-enclave)
        touch $spool/end
        for _ in {1..100}; do [[ -n $(running) ]] || exit 0; sleep 0.1; done
        exit 1 ;;
esac
"#;

/// Runs the enclave as root, as long as it is wanted.
const HYPERVISOR: &str = r#"#!/bin/bash
spool=/run/nitro_enclaves
umask 022
while sleep 0.05; do
    if [[ -n ${pid:-} ]] && { [[ -e $spool/end ]] || ! kill -0 "$pid" 2>/dev/null; }; then
        kill -KILL "$pid" 2>/dev/null
        wait "$pid" 2>/dev/null
        pid=
        rm -f $spool/running $spool/end
    fi
    if [[ -z ${pid:-} && -e $spool/wanted ]]; then
        rm -f $spool/wanted $spool/end
        "$@" & pid=$!
        echo "$pid" >$spool/running
    fi
done
"#;

/// The machine. It ends with this.
pub(crate) struct Machine {
    process: Process,
    leader: String,
}

impl Machine {
    /// Boots a machine for this node, whose NATS server and KMS run outside; nothing when no container can be run here. `shown` is what of
    /// this machine is to be seen, `extra` goes to the end of the parent's configuration.
    pub(crate) fn boot(node: &Node, extra: &str, drop_in: &str, shown: &[PathBuf]) -> Option<Self> {
        if Command::new("systemd-nspawn").arg("--version").output().is_err() {
            return None;
        }
        let (root, upper) = (node.path("machine"), node.path("upper"));
        for folder in [
            "etc/systemd/system",
            "etc/casemate",
            "etc/sysusers.d",
            "etc/tmpfiles.d",
            "etc/nitro_enclaves",
            "usr",
            "var",
            "run",
            "root",
        ] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for link in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{link}"), root.join(link)).unwrap();
        }
        // This machine's own services are no part of it: its network is shared.
        fs::create_dir_all(root.join("etc/systemd/system-preset")).unwrap();
        fs::write(root.join("etc/systemd/system-preset/00-test.preset"), "disable *\n").unwrap();
        for masked in [
            "systemd-networkd.service",
            "systemd-networkd-wait-online.service",
            "systemd-resolved.service",
            "systemd-firstboot.service",
        ] {
            symlink("/dev/null", root.join("etc/systemd/system").join(masked)).unwrap();
        }
        fs::write(root.join("etc/os-release"), "ID=test\nNAME=\"a machine for tests\"\n").unwrap();
        fs::create_dir_all(upper.join("bin")).unwrap();
        fs::create_dir_all(upper.join("lib/casemate")).unwrap();
        fs::write(upper.join("lib/casemate/casemate.eif"), b"an image").unwrap();
        for name in ["casemate-parent", "casemate-enclave-dev"] {
            fs::copy(program(name), upper.join("bin").join(name)).unwrap();
        }
        fs::copy(program("casemate-dev"), upper.join("bin/casemate")).unwrap();
        for (name, text) in [("nitro-cli", NITRO_CLI), ("hypervisor", HYPERVISOR)] {
            let path = upper.join("bin").join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let units = checkout().join("systemd");
        for unit in ["casemate-parent.service", "nitro-enclave.service"] {
            fs::copy(units.join(unit), root.join("etc/systemd/system").join(unit)).unwrap();
        }
        fs::copy(units.join("sysusers.d/casemate.conf"), root.join("etc/sysusers.d/casemate.conf")).unwrap();
        fs::copy(units.join("tmpfiles.d/casemate.conf"), root.join("etc/tmpfiles.d/casemate.conf")).unwrap();
        let configuration = node
            .configuration()
            .replace(&node.path("link.sock").display().to_string(), "/run/casemate/link.sock")
            .replace(&node.path("admin.sock").display().to_string(), "/run/casemate/admin.sock")
            .replace(&node.path("store").display().to_string(), "/var/lib/casemate/store")
            .replace("target = \"terminal\"", "target = \"auto\"");
        let hypervisor = format!(
            "[Service]\nExecStart=/usr/bin/hypervisor /usr/bin/casemate-enclave-dev --link unix:/run/casemate/link.sock --authority {} --kms-endpoint {} --kms-ca {} --uid-base 300000\n",
            node.path("authority").display(),
            node.kms_address(),
            node.path("kms/ca.der").display(),
        );
        let drop_ins = root.join("etc/systemd/system/casemate-parent.service.d");
        fs::create_dir_all(&drop_ins).unwrap();
        fs::copy(units.join("casemate-parent.service.d/local-store.conf"), drop_ins.join("local-store.conf")).unwrap();
        fs::write(drop_ins.join("test.conf"), drop_in).unwrap();
        fs::write(root.join("etc/casemate/parent.toml"), configuration + extra).unwrap();
        fs::write(root.join("etc/systemd/system/hypervisor.service"), hypervisor).unwrap();
        let name = format!("casemate-{}", std::process::id());
        let mut command = Command::new("systemd-nspawn");
        command.args(["--register=no", "--keep-unit", "--console=pipe", "--boot", "--machine", &name]);
        // What the enclave puts up its walls with, and containers usually go without.
        command.arg("--system-call-filter=@sandbox landlock_create_ruleset landlock_add_rule landlock_restrict_self");
        command.arg("--directory").arg(&root);
        command.arg(format!("--overlay-ro=/usr:{}:/usr", upper.display()));
        // A host has roots.
        command.arg("--bind-ro=/etc/ssl/certs");
        // The development authority and the stand-in KMS's certificate, where they are.
        for folder in [node.path("authority"), node.path("kms")].iter().chain(shown) {
            command.arg(format!("--bind-ro={}", folder.display()));
        }
        command.args(["systemd.log_target=journal", "systemd.unit=multi-user.target"]);
        let process = Process::start("machine", &node.path("log"), &mut command);
        let children = format!("/proc/{0}/task/{0}/children", process.pid());
        let end = Instant::now() + PATIENCE;
        let leader = loop {
            let found = fs::read_to_string(&children).unwrap_or_default();
            if let Some(leader) = found.split_whitespace().next() {
                break leader.to_owned();
            }
            if Instant::now() > end {
                return refused(&process);
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        let machine = Self { process, leader };
        let up = || {
            let said = machine.run(&["systemctl", "is-system-running"]);
            matches!(String::from_utf8_lossy(&said.stdout).trim(), "running" | "degraded")
        };
        while !up() {
            if Instant::now() > end {
                return refused(&machine.process);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        machine.ok(&["systemctl", "start", "hypervisor"]);
        Some(machine)
    }

    /// Runs a command in it, as root.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        Command::new("nsenter")
            .args(["--target", &self.leader, "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--"])
            .args(words)
            .output()
            .unwrap()
    }

    /// What a command that must work says.
    #[track_caller]
    pub(crate) fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{words:?}: {said}{}\n{}",
            String::from_utf8_lossy(&output.stderr),
            self.journal()
        );
        said
    }

    /// The end of its journal.
    pub(crate) fn journal(&self) -> String {
        let output = self.run(&["journalctl", "--no-pager", "--lines=80", "--output=short-monotonic"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Polls.
    #[track_caller]
    pub(crate) fn await_that(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < end, "{PATIENCE:?} went by before {what}\n{}", self.journal());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The enclave that runs, as a process in it.
    pub(crate) fn running(&self) -> String {
        fs::read_to_string(Path::new("/proc").join(&self.leader).join("root/run/nitro_enclaves/running"))
            .unwrap_or_default()
            .trim()
            .to_owned()
    }
}

/// Nothing, and what the container's maker said.
#[expect(clippy::print_stderr, reason = "a skipped test says why")]
fn refused(process: &Process) -> Option<Machine> {
    eprintln!("systemd-nspawn: {}", process.log());
    None
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Its first process takes this for the power button; the container's end takes all others along.
        let _ = self.run(&["systemctl", "poweroff", "--force", "--force"]);
        self.process.kill();
    }
}
