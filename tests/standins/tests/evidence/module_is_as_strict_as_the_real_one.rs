//! Code that works with the simulated security module does nothing that the real one refuses.

use std::sync::Arc;
use std::time::Duration;

use casemate_attestation::nitro::authenticate;
use casemate_attestation::{Claims, DebugSign, Refusal};
use casemate_enclave::outside::{EvidenceRequest, SecurityModule};
use casemate_standins::{DevelopmentAuthority, SimulatedClock, SimulatedModule};

use crate::{NOW_UNIX, PCRS, policy, verify};

/// SHA-384(48 zero bytes ‖ "trust configuration"), as sha384sum gives it.
const EXTENDED_ONCE: [u8; 48] = [
    0xbe, 0x21, 0x6a, 0x65, 0x5d, 0x7b, 0xbc, 0x75, 0xc6, 0xf7, 0x27, 0x5b, 0xf0, 0xec, 0xfd, 0xd3, 0x86, 0x0f, 0x9f,
    0x7c, 0x41, 0x46, 0x08, 0x97, 0x18, 0xf0, 0xd8, 0xf7, 0xa0, 0x4f, 0xc3, 0x84, 0xd4, 0xd1, 0x19, 0xa7, 0xc4, 0xe1,
    0x93, 0xe8, 0x30, 0xd4, 0x86, 0xd5, 0xff, 0xc6, 0xe8, 0x17,
];

fn module() -> (Arc<DevelopmentAuthority>, Arc<SimulatedClock>, SimulatedModule) {
    let authority = Arc::new(DevelopmentAuthority::new());
    let clock = Arc::new(SimulatedClock::at(NOW_UNIX));
    let module = SimulatedModule::new(Arc::clone(&authority), PCRS).with_clock(Arc::clone(&clock) as _);
    (authority, clock, module)
}

fn request() -> EvidenceRequest {
    EvidenceRequest {
        user_data: Some(b"user data".to_vec()),
        nonce: Some(b"nonce".to_vec()),
        public_key: Some(b"public key".to_vec()),
    }
}

fn claims(authority: &DevelopmentAuthority, evidence: &[u8]) -> Claims {
    authenticate(evidence, NOW_UNIX, &authority.anchor()).expect("authentic evidence").into_claims()
}

#[test]
fn its_evidence_is_believed_at_its_time() {
    let (authority, clock, module) = module();
    let policy = policy(&authority);
    assert!(verify(&module.attest(request()).unwrap(), NOW_UNIX, &policy).is_ok());
    clock.advance(Duration::from_hours(2));
    assert!(verify(&module.attest(request()).unwrap(), NOW_UNIX + 7_200, &policy).is_ok());
    module.set_time_offset(-301);
    let refusal = verify(&module.attest(request()).unwrap(), NOW_UNIX + 7_200, &policy).unwrap_err();
    assert!(matches!(refusal, Refusal::TooOld { age_seconds: 301, .. }), "{refusal}");
}

#[test]
fn sizes_are_limited() {
    let (_, _, module) = module();
    let reason = |request| module.attest(request).unwrap_err().reason;
    let bytes = |length| Some(vec![1; length]);
    let largest = EvidenceRequest { user_data: bytes(512), nonce: bytes(512), public_key: bytes(1024) };
    assert!(module.attest(largest.clone()).is_ok());
    assert_eq!(reason(EvidenceRequest { user_data: bytes(513), ..largest.clone() }), "InputTooLarge");
    assert_eq!(reason(EvidenceRequest { nonce: bytes(513), ..largest.clone() }), "InputTooLarge");
    assert_eq!(reason(EvidenceRequest { public_key: bytes(1025), ..largest }), "InputTooLarge");
}

#[test]
fn own_registers_extend_until_they_are_locked() {
    let (authority, _, module) = module();
    let first = module.extend(16, b"trust configuration").unwrap();
    assert_eq!(module.pcr(16).map(|value| value.to_vec()), Some(first.clone()));
    assert_eq!(first, EXTENDED_ONCE);
    assert_ne!(module.extend(16, b"trust configuration").unwrap(), EXTENDED_ONCE, "twice is not once");
    let before = claims(&authority, &module.attest(request()).unwrap());
    assert_eq!(before.measurements.pcr(16), None, "a register that may still change says nothing");
    module.lock(16).unwrap();
    let after = claims(&authority, &module.attest(request()).unwrap());
    assert_eq!(after.measurements.pcr(16).copied(), module.pcr(16));
    assert_eq!(module.extend(16, b"more").unwrap_err().reason, "ReadOnlyIndex");
    assert_eq!(module.lock(16).unwrap_err().reason, "ReadOnlyIndex");
}

#[test]
fn the_hypervisors_registers_are_locked() {
    let (_, _, module) = module();
    for index in 0..16 {
        assert_eq!(module.extend(index, b"data").unwrap_err().reason, "ReadOnlyIndex");
        assert_eq!(module.lock(index).unwrap_err().reason, "ReadOnlyIndex");
    }
    for index in [32, u16::MAX] {
        assert_eq!(module.extend(index, b"data").unwrap_err().reason, "InvalidIndex");
        assert_eq!(module.lock(index).unwrap_err().reason, "InvalidIndex");
    }
    assert_eq!(module.extend(16, &[0; 4097]).unwrap_err().reason, "InputTooLarge");
    assert_eq!(module.measurements().unwrap().pcrs, PCRS);
}

#[test]
fn it_fails_when_told_to() {
    let (_, _, module) = module();
    module.set_failing(true);
    assert!(module.measurements().is_err());
    assert!(module.attest(request()).is_err());
    assert!(module.extend(16, b"data").is_err());
    assert!(module.lock(16).is_err());
    assert!(module.random(&mut [0; 32]).is_err());
    module.set_failing(false);
    let (mut one, mut two) = ([0; 32], [0; 32]);
    module.random(&mut one).unwrap();
    module.random(&mut two).unwrap();
    assert_ne!(one, two);
    assert_eq!(module.extend(16, b"data").unwrap().len(), 48, "the failed attempt left no trace");
}

#[test]
fn zeros_are_a_debug_enclave() {
    let authority = Arc::new(DevelopmentAuthority::new());
    let module = SimulatedModule::new(Arc::clone(&authority), [[0; 48]; 3]);
    assert!(module.measurements().unwrap().is_debug());
    let evidence = module.attest(request()).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(verify(&evidence, now, &policy(&authority)), Err(Refusal::Debug { sign: DebugSign::ZeroPcr(0) }));
}
