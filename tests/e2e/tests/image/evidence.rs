//! Whom an image in the emulator can convince: the one that ships nobody, for its evidence is unsigned, and another one nobody who wants this.

use std::fs;

use casemate_attestation::nitro::{Document, Envelope};
use casemate_e2e::guest::Emulation;
use casemate_e2e::programs::program;
use casemate_e2e::{Device, Node};
use sha2::{Digest, Sha384};

/// The exit code of a device that does not believe the node (`client/src/cli`).
const NOT_BELIEVED: i32 = 6;

fn measurements(emulation: &Emulation) -> serde_json::Value {
    serde_json::from_slice(&fs::read(emulation.summary()).unwrap()).unwrap()
}

/// The `casemate` that ships, which trusts the image of this node.
fn released_device(node: &Node) -> Device {
    let device =
        Device::new(program("casemate"), node.path("home-released"), vec![("CASEMATE_NATS_URL", node.nats_url())]);
    device.run(&["trust", "add", &node.path("authority/trust.toml").display().to_string()]).ok();
    device
}

#[test]
fn what_the_emulator_says_is_unsigned_and_not_believed() {
    let Some(release) = Emulation::of_release_image() else {
        println!("! skipped: CASEMATE_EMULATOR and CASEMATE_IMAGE name no emulator and no image");
        return;
    };
    let mut node = Node::prepare_in(Some(release), "");
    node.start_all();
    // The image and the cluster are those that it trusts; only nobody vouches for it. Nor does the development root change that.
    for device in [released_device(&node), node.device("owner")] {
        let refused = device.run(&["vault", "create"]);
        assert_eq!(refused.code, NOT_BELIEVED, "{}", refused.stderr);
        println!("{}", refused.stderr.trim());
        // No algorithm that a verifier knows, no certificate, no signature.
        assert!(refused.stderr.contains("evidence is refused"), "{}", refused.stderr);
    }
}

#[test]
fn another_image_is_told_by_the_measurement_that_differs() {
    let (Some(release), Some(test)) = (Emulation::of_release_image(), Emulation::of_test_image()) else {
        println!("! skipped: CASEMATE_EMULATOR, CASEMATE_IMAGE and CASEMATE_TEST_IMAGE name no images");
        return;
    };
    let (wanted, found) = (measurements(&release), measurements(&test));
    // Kernel and init are the same.
    assert_eq!(wanted["PCR1"], found["PCR1"]);
    let register = |of: &serde_json::Value, name: &str| of[name].as_str().unwrap().to_owned();
    let short = |of: &serde_json::Value| register(of, "PCR0")[..8].to_owned();

    // The policy of the key and the trust file want the image that ships; the one with the development enclave runs.
    let mut node = Node::prepare_in(Some(test), "");
    let path = node.path("authority/measurements.json");
    let lower = ["PCR0", "PCR1", "PCR2"].map(|name| (name.to_lowercase(), register(&wanted, name).into()));
    let wants = serde_json::Value::Object(lower.into_iter().collect());
    fs::write(&path, wants.to_string()).unwrap();
    node.start_all();

    let refused = node.device("owner").run(&["vault", "create"]);
    assert_eq!(refused.code, NOT_BELIEVED, "{}", refused.stderr);
    println!("{}", refused.stderr.trim());
    let told = ["pcr0 is ", &short(&found), &short(&wanted)];
    assert!(told.iter().all(|word| refused.stderr.contains(word)), "{told:?} in {}", refused.stderr);

    // A device that does believe it gets no vault either: the key service gives this image no key.
    let trust = fs::read_to_string(node.path("authority/trust.toml")).unwrap();
    let trusting = ["PCR0", "PCR1", "PCR2"]
        .iter()
        .fold(trust, |trust, name| trust.replace(&register(&wanted, name), &register(&found, name)));
    fs::write(node.path("authority/trust.toml"), trusting).unwrap();
    let refused = node.device("another").run(&["vault", "create"]);
    assert_ne!(refused.code, 0, "{}", refused.stderr);
    println!("{}", refused.stderr.trim());
    let log = node.kms.as_ref().unwrap().log();
    for name in ["PCR0", "PCR2"] {
        let told = format!("{name} is {}, wanted {}", register(&found, name), register(&wanted, name));
        assert!(log.contains(&told), "{told} in {log}");
    }
    assert!(!log.contains("PCR1 is"), "{log}");
}

#[test]
fn the_configuration_is_locked_into_a_register() {
    let Some(test) = Emulation::of_test_image() else {
        println!("! skipped: CASEMATE_EMULATOR and CASEMATE_TEST_IMAGE name no emulator and no image");
        return;
    };
    let builders = measurements(&test);
    let mut node = Node::prepare_in(Some(test), "");
    node.start_all();
    let path = node.path("node.cose");
    node.device("owner").run(&["attest", "--evidence-out", &path.display().to_string()]).ok();
    let evidence = fs::read(path).unwrap();
    let document = Document::parse(Envelope::parse(&evidence).unwrap().payload()).unwrap();
    // The module itself has measured the image, and lists no register beyond its own that is not locked.
    for (index, name) in ["PCR0", "PCR1", "PCR2"].into_iter().enumerate() {
        assert_eq!(hex::encode(document.pcrs.get(u8::try_from(index).unwrap()).unwrap()), builders[name], "{name}");
    }
    let (_, health) = node.health().unwrap();
    let cluster = hex::decode(health["cluster"].as_str().unwrap()).unwrap();
    let extended: [u8; 48] = Sha384::new().chain_update([0; 48]).chain_update(cluster).finalize().into();
    assert_eq!(document.pcrs.get(16), Some(&extended));
    assert_eq!(document.pcrs.get(17), None);
}
