//! Release binaries hold nothing of development: not its crates, not its words, and they refuse its evidence.

use std::process::Command;

use casemate_e2e::programs::{checkout, program};

const RELEASED: [(&str, &str); 3] =
    [("casemate-enclave", "casemate-enclave"), ("casemate-parent", "casemate-parent"), ("casemate-client", "casemate")];

#[test]
fn no_development_crate_is_in_their_trees() {
    for (package, _) in RELEASED {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--locked", "--offline", "-e", "normal,build", "--prefix", "none", "-p", package])
            .current_dir(checkout())
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let tree = String::from_utf8_lossy(&output.stdout);
        for stand_in in
            ["casemate-standins", "casemate-standin-kms", "casemate-dev", "casemate-e2e", "rcgen", "proptest"]
        {
            assert!(!tree.lines().any(|line| line.split(' ').next() == Some(stand_in)), "{stand_in} in {package}");
        }
    }
}

#[test]
fn no_word_of_development_is_in_their_bytes() {
    for (_, name) in RELEASED {
        let bytes = std::fs::read(program(name)).expect("built");
        for word in ["DEV ONLY", "CASEMATE_DEV_ROOT", "standin-kms"] {
            let found = bytes.windows(word.len()).any(|window| window == word.as_bytes());
            assert!(!found, "{word} in {name}");
        }
    }
    // The search finds what is there.
    let development = std::fs::read(program("casemate-dev-authority")).expect("built");
    assert!(development.windows(8).any(|window| window == b"DEV ONLY"));
}

/// musl's `memcpy` from where it has counted its words: `mov rcx, rdx; shr rcx, 3; rep movsq; and edx, 7` (decision 0022).
const COPY_OF_THE_C_LIBRARY: &[u8] = b"\x48\x89\xd1\x48\xc1\xe9\x03\xf3\x48\xa5\x83\xe2\x07";
/// And the end of its `memset`: `shr rcx, 3; rep stosq; mov rax, r8; ret`.
const FILL_OF_THE_C_LIBRARY: &[u8] = b"\x48\xc1\xe9\x03\xf3\x48\xab\x4c\x89\xc0\xc3";

#[test]
fn they_copy_and_fill_memory_by_our_own_code() {
    for theirs in [COPY_OF_THE_C_LIBRARY, FILL_OF_THE_C_LIBRARY] {
        let has_it = |name| {
            let bytes = std::fs::read(program(name)).expect("built");
            bytes.windows(theirs.len()).any(|window| window == theirs)
        };
        for (_, name) in RELEASED {
            assert!(!has_it(name), "{name}");
        }
        // The search finds what is there.
        assert!(has_it("standin-kms"));
    }
}

#[test]
fn the_released_client_refuses_development_evidence() {
    let node = casemate_e2e::Node::start();
    let home = node.path("home-released");
    let device = casemate_e2e::Device::new(program("casemate"), home, vec![("CASEMATE_NATS_URL", node.nats_url())]);
    device.run(&["trust", "add", &node.path("authority/trust.toml").display().to_string()]).ok();
    let refused = device.run(&["vault", "create"]);
    assert_eq!(refused.code, 6, "{}", refused.stderr);
}
