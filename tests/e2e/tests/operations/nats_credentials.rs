//! Credentials that `casemate-parent nats` issues, at a real nats-server with accounts: each bearer reaches its own and nothing else.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use casemate_e2e::Node;
use casemate_e2e::process::Process;
use casemate_e2e::programs::{checkout, nats_server, program};
use futures_util::StreamExt;

fn issue(folder: &Path, arguments: &[&str]) -> String {
    let output =
        Command::new(program("casemate-parent")).arg("nats").args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The server at the node's address, with the shipped configuration but for its certificate.
fn guarded_server(node: &Node, keys: &Path) -> Process {
    let shipped = fs::read_to_string(checkout().join("deploy/nats/nats-server.conf")).unwrap();
    let without_tls = shipped.split("\ntls {").next().unwrap();
    let address = node.nats_url().replace("nats://", "");
    let text = without_tls
        .replace("\"resolver.conf\"", "\"nats/resolver.conf\"")
        .replace("0.0.0.0:4222", &address)
        .replace("http: \"127.0.0.1:8222\"", "");
    let path = keys.join("nats-server.conf");
    fs::write(&path, text).unwrap();
    let mut server = Process::start("nats", &node.path("log"), Command::new(nats_server()).arg("--config").arg(path));
    server.await_ready(Duration::from_secs(20), "it took connections", |_| TcpStream::connect(&address).ok());
    server
}

#[test]
fn a_node_and_its_devices_work_and_nobody_reaches_further() {
    let keys = tempfile::tempdir().unwrap();
    let folder = keys.path();
    issue(folder, &["init"]);
    issue(folder, &["node", "--name", "test", "--out", "node.creds"]);
    let printed = issue(folder, &["device", "--name", "phone", "--out", "phone.creds", "--days", "30"]);
    let user = printed.split("user ").nth(1).unwrap().split(';').next().unwrap().to_owned();

    let mut node = Node::prepare("");
    node.nats = Some(guarded_server(&node, folder));
    node.start_kms();
    let mut parent = Command::new(program("casemate-parent"));
    node.start_parent_with(parent.env("CASEMATE_NATS_CREDENTIALS_FILE", folder.join("node.creds")));
    node.start_enclave();
    node.await_health(200);
    let phone = node.device("phone");
    let creds = folder.join("phone.creds").display().to_string();
    let run = |creds: &str, arguments: &[&str]| phone.run(&[arguments, &["--creds", creds]].concat());
    run(&creds, &["vault", "create"]).ok();
    let vault = run(&creds, &["vault", "status", "--json"]).json()["vault"].as_str().unwrap().to_owned();
    assert_ne!(phone.run(&["vault", "status", "--timeout", "3"]).code, 0, "nobody without credentials");

    // A device of one vault: its own is served, another's is refused by the broker before any node sees it.
    issue(folder, &["device", "--name", "own", "--vault", &vault, "--out", "own.creds"]);
    let own = folder.join("own.creds").display().to_string();
    run(&own, &["secret", "list"]).ok();
    run(&own, &["attest"]).ok();
    let stranger = node.device("stranger");
    let refused = stranger.run(&["vault", "create", "--creds", &own, "--timeout", "3"]);
    assert_ne!(refused.code, 0, "another vault's subject is not this device's");

    // It may not listen to answers of others either.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let options = async_nats::ConnectOptions::with_credentials_file(&own).await.unwrap();
        let client = options.connect(node.nats_url()).await.unwrap();
        let mut heard = client.subscribe("_INBOX.>").await.unwrap();
        let mut frames = client.subscribe("casemate.v1.vault.>").await.unwrap();
        client.flush().await.unwrap();
        run(&creds, &["secret", "list"]).ok();
        let wait = Duration::from_secs(1);
        assert!(!matches!(tokio::time::timeout(wait, heard.next()).await, Ok(Some(_))), "no inbox but its own");
        assert!(!matches!(tokio::time::timeout(wait, frames.next()).await, Ok(Some(_))), "nobody's requests");
    });

    // Taken back: the server refuses them once it has read the list anew.
    issue(folder, &["revoke", &user]);
    node.nats.as_ref().unwrap().signal(nix::sys::signal::Signal::SIGHUP);
    std::thread::sleep(Duration::from_secs(1));
    assert_ne!(run(&creds, &["secret", "list", "--timeout", "3"]).code, 0, "revoked");
    run(&own, &["secret", "list"]).ok();
    assert!(fs::metadata(folder.join("phone.creds")).unwrap().len() > 0);
    assert_eq!(node.health().unwrap().0, 200);
}
