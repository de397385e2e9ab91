//! A host that changes evidence on its way, however little, gets it refused.

use casemate_attestation::nitro::authenticate;
use casemate_attestation::{Policy, fuzz};
use casemate_standins::DevelopmentAuthority;

use crate::{NOW_UNIX, document, policy, verify};

#[test]
fn no_flipped_bit() {
    let authority = DevelopmentAuthority::new();
    let anchor = authority.anchor();
    let mut evidence = authority.sign(document());
    assert!(authenticate(&evidence, NOW_UNIX, &anchor).is_ok());
    // Each bit of the envelope's heads, of the payload's first fields and of the signature; one bit of each byte between.
    let dense = 200;
    for position in 0..evidence.len() {
        let all = position < dense || position + dense >= evidence.len();
        for bit in (0..8).filter(|bit| all || *bit == position % 8) {
            evidence[position] ^= 1 << bit;
            assert!(authenticate(&evidence, NOW_UNIX, &anchor).is_err(), "byte {position}, bit {bit}");
            evidence[position] ^= 1 << bit;
        }
    }
}

#[test]
fn no_missing_or_additional_byte() {
    let authority = DevelopmentAuthority::new();
    let evidence = authority.sign(document());
    let policy = policy(&authority);
    for length in 0..evidence.len() {
        assert!(verify(&evidence[..length], NOW_UNIX, &policy).is_err(), "{length} bytes");
    }
    for position in (0..=evidence.len()).step_by(13) {
        let mut longer = evidence.clone();
        longer.insert(position, 0);
        assert!(verify(&longer, NOW_UNIX, &policy).is_err(), "a byte at {position}");
        fuzz::evidence(&longer);
    }
}

/// ECDSA lets anybody turn (r, s) into (r, n − s): other bytes, the same statement. Hence evidence is never identified by its
/// hash, and what it says stays what the security module said.
#[test]
fn the_other_signature_says_the_same() {
    let authority = DevelopmentAuthority::new();
    let evidence = authority.sign(document());
    let policy: Policy = policy(&authority);
    let mut other = evidence.clone();
    let s = other.len() - 48;
    negate(&mut other[s..]);
    assert_ne!(other, evidence);
    assert_eq!(verify(&other, NOW_UNIX, &policy), verify(&evidence, NOW_UNIX, &policy));
}

/// n − s for P-384's order n.
fn negate(s: &mut [u8]) {
    let mut order = [0xff_u8; 48];
    order[24..].copy_from_slice(&[
        0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf, 0x58, 0x1a, 0x0d, 0xb2, 0x48, 0xb0, 0xa7, 0x7a, 0xec, 0xec,
        0x19, 0x6a, 0xcc, 0xc5, 0x29, 0x73,
    ]);
    let mut borrow = false;
    for (digit, order) in s.iter_mut().zip(order).rev() {
        let (difference, first) = order.overflowing_sub(*digit);
        let (difference, second) = difference.overflowing_sub(u8::from(borrow));
        *digit = difference;
        borrow = first || second;
    }
    assert!(!borrow, "s is below the order");
}
