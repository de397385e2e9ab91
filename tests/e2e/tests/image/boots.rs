//! The image boots to a healthy node, is measured as its builder says, has every wall up, and is found missing when it is gone.

use std::time::{Duration, Instant};

use casemate_e2e::Node;
use casemate_e2e::guest::Emulation;
use nix::sys::signal::Signal;

/// On an idle machine. Under emulation and beside other tests it takes longer.
const BOOT: Duration = Duration::from_secs(6);
const TOLD: Duration = Duration::from_secs(5);
/// The layers of `enclave/src/sandbox/layer.rs`.
const LAYERS: usize = 14;

#[test]
fn the_image_boots_and_its_end_is_told() {
    let Some(emulation) = Emulation::of_release_image() else {
        println!("! skipped: CASEMATE_EMULATOR and CASEMATE_IMAGE name no emulator and no image");
        return;
    };
    let builders: serde_json::Value = serde_json::from_slice(&std::fs::read(emulation.summary()).unwrap()).unwrap();
    let mut node = Node::prepare_in(Some(emulation), "");
    node.start_nats();
    node.start_kms();
    node.start_parent();

    let begun = Instant::now();
    node.start_enclave();
    node.await_health(200);
    let took = begun.elapsed();
    println!("healthy {} ms after power-on (promised: {} ms)", took.as_millis(), BOOT.as_millis());
    let (guest, vsock) = (node.enclave.as_ref().unwrap(), node.vsock.as_ref().unwrap());
    assert_eq!(vsock.heartbeats(), 1, "{}", guest.log());
    assert!(guest.log().contains("init: the parent knows that we live"), "{}", guest.log());

    let (_, health) = node.health().unwrap();
    let enclave = &health["enclave"];
    assert_eq!(enclave["sandbox"].as_array().unwrap().len(), LAYERS, "{enclave}");
    assert!(enclave["sandbox_missing"].as_array().unwrap().is_empty(), "{enclave}");
    for register in ["pcr0", "pcr1", "pcr2"] {
        assert_eq!(enclave["measurements"][register], builders[register.to_uppercase()], "{register}");
    }

    // Paused, it does not answer; let go, it answers again.
    guest.signal(Signal::SIGSTOP);
    assert_told(&node, "a paused guest");
    node.enclave.as_ref().unwrap().signal(Signal::SIGCONT);
    node.await_health(200);

    // Its link carries nothing, and then goes on.
    node.vsock.as_ref().unwrap().cut(true);
    assert_told(&node, "a vsock that is cut");
    node.vsock.as_ref().unwrap().cut(false);
    let took = node.await_health(200);
    println!("healthy {} ms after its vsock was whole again", took.as_millis());

    // Gone, that is told; another one heals it without a person.
    node.enclave = None;
    assert_told(&node, "the end of a guest");
    node.start_enclave();
    node.await_health(200);
}

#[test]
fn a_machine_whose_clock_is_wrong_does_not_serve() {
    let Some(release) = Emulation::of_release_image() else {
        println!("! skipped: CASEMATE_EMULATOR and CASEMATE_IMAGE name no emulator and no image");
        return;
    };
    let mut node = Node::prepare_in(Some(Emulation { clock: Some("2020-01-01T00:00:00"), ..release }), "");
    node.start_nats();
    node.start_kms();
    node.start_parent();
    node.start_enclave();
    let machine = node.enclave.as_mut().unwrap();
    let ended = Duration::from_secs(30);
    let said = "the supervisor ends: the kernel's clock says";
    machine.await_ready(ended, "the supervisor ended", |machine| machine.log().contains(said).then_some(()));
    assert_eq!(node.health().unwrap().0, 503);
}

fn assert_told(node: &Node, what: &str) {
    let took = node.await_health(503);
    println!("/health told of {what} after {} ms (promised: {} ms)", took.as_millis(), TOLD.as_millis());
    assert!(took < TOLD, "{what} was told after {took:?}");
}
