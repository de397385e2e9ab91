//! The image boots to a healthy node, is measured as its builder says, has every wall up, and is found missing when it is gone.

use std::time::{Duration, Instant};

use casemate_e2e::Node;
use casemate_e2e::guest::{Emulation, Guest};

const MEMORY_MIB: u32 = 1024;
/// On an idle machine. Under emulation and beside other tests it takes longer.
const BOOT: Duration = Duration::from_secs(6);
const TOLD: Duration = Duration::from_secs(5);
/// The layers of `enclave/src/sandbox/layer.rs`.
const LAYERS: usize = 14;

#[test]
fn the_image_boots_and_its_end_is_told() {
    let Some(emulation) = Emulation::from_environment() else {
        println!("! skipped: CASEMATE_EMULATOR and CASEMATE_IMAGE name no emulator and no image");
        return;
    };
    let mut node = Node::prepare("");
    node.start_nats();
    node.start_kms();
    node.start_parent();

    let begun = Instant::now();
    let guest = Guest::start(&emulation, &node.path("guest"), &node.path("link.sock"), MEMORY_MIB);
    node.await_health(200);
    let took = begun.elapsed();
    println!("healthy {} ms after power-on (promised: {} ms)", took.as_millis(), BOOT.as_millis());
    assert_eq!(guest.heartbeats(), 1, "{}", guest.console());
    assert!(guest.console().contains("init: the parent knows that we live"), "{}", guest.console());

    let (_, health) = node.health().unwrap();
    let enclave = &health["enclave"];
    assert_eq!(enclave["sandbox"].as_array().unwrap().len(), LAYERS, "{enclave}");
    assert!(enclave["sandbox_missing"].as_array().unwrap().is_empty(), "{enclave}");
    if let Some(builders) = std::env::var_os("CASEMATE_IMAGE_PCRS") {
        let builders: serde_json::Value = serde_json::from_slice(&std::fs::read(builders).unwrap()).unwrap();
        for register in ["pcr0", "pcr1", "pcr2"] {
            assert_eq!(enclave["measurements"][register], builders[register.to_uppercase()], "{register}");
        }
    }

    // Paused, it does not answer; let go, it answers again.
    guest.pause(true);
    assert_told(&node, "a paused guest");
    guest.pause(false);
    node.await_health(200);

    // Gone, that is told; another one heals it without a person.
    drop(guest);
    assert_told(&node, "the end of a guest");
    let _another = Guest::start(&emulation, &node.path("another"), &node.path("link.sock"), MEMORY_MIB);
    node.await_health(200);
}

fn assert_told(node: &Node, what: &str) {
    let took = node.await_health(503);
    println!("/health told of {what} after {} ms (promised: {} ms)", took.as_millis(), TOLD.as_millis());
    assert!(took < TOLD, "{what} was told after {took:?}");
}
