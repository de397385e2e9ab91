//! A full store: the parent may make no file any longer than a few bytes, as under an exhausted quota, and root's rights do not help.

use std::process::Command;

use casemate_e2e::Node;
use casemate_e2e::programs::program;

/// The soft limit of the size of files that the parent writes.
fn limit(node: &Node, bytes: &str) {
    let pid = node.parent.as_ref().unwrap().pid().to_string();
    let status = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:")]).status();
    assert!(status.expect("prlimit is part of util-linux").success());
}

#[test]
fn errors_are_clear_nothing_is_acknowledged_and_all_recovers() {
    let mut node = Node::prepare("[limits]\nstore_timeout_ms = 500\n");
    node.start_nats();
    node.start_kms();
    // Without a word the signal of this limit would end the process; with it, a write fails, as on a full disk.
    let mut ignoring = Command::new("sh");
    ignoring.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(program("casemate-parent"));
    node.start_parent_with(&mut ignoring);
    node.start_enclave();
    node.await_health(200);
    let (writer, reader) = (node.device_with_vault("writer"), node.device_with_vault("reader"));
    writer.run_with_input(&["secret", "put", "a"], b"1").ok();
    reader.run_with_input(&["secret", "put", "b"], b"open").ok();
    let before = node.objects();

    // Less than any object: creating a file works, and writing into it ends half-way.
    limit(&node, "64");
    let told = writer.run_with_input(&["secret", "put", "a", "--timeout", "3"], b"2");
    assert_eq!(told.code, 9, "not acknowledged: {}", told.stderr);
    assert!(
        told.stderr.contains("not known") && told.stderr.contains("again"),
        "says what and what to do: {}",
        told.stderr
    );
    // Reading needs no room: whoever is open is served, and whoever is not is opened.
    assert_eq!(reader.run(&["secret", "get", "b"]).ok(), b"open");
    assert_eq!(writer.run(&["secret", "get", "a", "--timeout", "5"]).ok(), b"1", "the state before");
    let versions = |objects: Vec<(String, Vec<u8>)>| -> Vec<_> {
        objects.into_iter().filter(|(name, _)| name.starts_with("v1/")).collect()
    };
    assert_eq!(versions(node.objects()), versions(before), "no half object has a name");
    assert!(node.ended_parts().is_empty(), "a full disk ends no part");

    limit(&node, "unlimited");
    writer.run_with_input(&["secret", "put", "a", "--timeout", "20"], b"2").ok();
    assert_eq!(writer.run(&["secret", "get", "a"]).ok(), b"2");
    let history = writer.run(&["secret", "history", "a", "--json"]).json();
    assert_eq!(history["revisions"].as_array().unwrap().len(), 2, "once: {history}");
}
