//! A store that fails: its directory is away and a file stands in its place, which no user's rights help against.

use std::fs;
use std::time::{Duration, Instant};

use casemate_e2e::Node;

#[test]
fn errors_are_clear_nothing_is_acknowledged_and_all_recovers() {
    let node = Node::start_with("[limits]\nstore_timeout_ms = 500\n");
    let (writer, reader) = (node.device_with_vault("writer"), node.device_with_vault("reader"));
    writer.run_with_input(&["secret", "put", "a"], b"1").ok();
    reader.run_with_input(&["secret", "put", "b"], b"open").ok();
    let before = node.objects();

    let (store, away) = (node.path("store"), node.path("away"));
    fs::rename(&store, &away).unwrap();
    fs::write(&store, b"").unwrap();
    let told = writer.run_with_input(&["secret", "put", "a", "--timeout", "3"], b"2");
    assert_eq!(told.code, 9, "not acknowledged: {}", told.stderr);
    assert!(
        told.stderr.contains("not known") && told.stderr.contains("again"),
        "says what and what to do: {}",
        told.stderr
    );
    // Whoever is open goes on reading; whoever would have to be opened is told that it does not work now.
    assert_eq!(reader.run(&["secret", "get", "b"]).ok(), b"open");
    let closed = writer.run(&["secret", "get", "a", "--timeout", "2"]);
    assert_eq!(closed.code, 8, "{}", closed.stderr);
    // A vault that cannot be made is not there, and is not said to be.
    let newcomer = node.device("newcomer");
    let refused = newcomer.run(&["vault", "create", "--timeout", "2"]);
    assert!([8, 9].contains(&refused.code), "{}: {}", refused.code, refused.stderr);
    let patience = Instant::now() + Duration::from_secs(10);
    while let Some((_, health)) = node.health()
        && health["store"]["failures"].as_u64().is_none_or(|failures| failures == 0)
    {
        assert!(Instant::now() < patience, "counted: {health}");
        std::thread::sleep(Duration::from_millis(50));
    }

    fs::remove_file(&store).unwrap();
    fs::rename(&away, &store).unwrap();
    assert_eq!(node.objects(), before, "nothing was written and nothing was changed");
    assert_eq!(
        writer.run(&["secret", "get", "a", "--timeout", "20"]).ok(),
        b"1",
        "what was not acknowledged was not done"
    );
    writer.run_with_input(&["secret", "put", "a", "--timeout", "20"], b"2").ok();
    assert_eq!(writer.run(&["secret", "get", "a"]).ok(), b"2");
    let history = writer.run(&["secret", "history", "a", "--json"]).json();
    assert_eq!(history["revisions"].as_array().unwrap().len(), 2, "once: {history}");
    newcomer.run(&["vault", "create", "--timeout", "20"]).ok();
    newcomer.run_with_input(&["secret", "put", "c"], b"3").ok();
}
