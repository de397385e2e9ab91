//! AMD's PKI in small, and the reports of a security processor that has a key of it.

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA384};
use casemate_attestation::snp::REPORT_BYTES;
use casemate_attestation::{Collateral, Policy, Product, SnpRules, SnpTcb, TrustAnchor};
use p384::ecdsa::signature::Signer as _;
use p384::ecdsa::{Signature, SigningKey};

use crate::der::{ListPlan, Plan, Signer, bits, extension, integer, octets, oid, sequence, tlv};
use crate::{DAY, NOW_UNIX};

const SHA384: [u64; 9] = [2, 16, 840, 1, 101, 3, 4, 2, 2];
const RSA: [u64; 7] = [1, 2, 840, 113_549, 1, 1, 1];
const RSA_PSS: [u64; 7] = [1, 2, 840, 113_549, 1, 1, 10];
const RSA_SHA256: [u64; 7] = [1, 2, 840, 113_549, 1, 1, 11];
const MGF1: [u64; 7] = [1, 2, 840, 113_549, 1, 1, 8];

/// How a certificate of this key is signed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// As AMD's roots: the trailer field written out.
    Explicit,
    /// As AMD's leaves.
    Default,
    /// RSASSA-PKCS1-v1_5 with SHA-256, which AMD's PKI does not use.
    Pkcs1,
}

pub(crate) struct RsaSigner<'a>(pub(crate) &'a KeyPair, pub(crate) Scheme);

impl Signer for RsaSigner<'_> {
    fn algorithm(&self) -> Vec<u8> {
        let null = tlv(0x05, &[]);
        if self.1 == Scheme::Pkcs1 {
            return sequence(&[&oid(&RSA_SHA256), &null]);
        }
        let hash = sequence(&[&oid(&SHA384), &null]);
        let mask = sequence(&[&oid(&MGF1), &hash]);
        let trailer = if self.1 == Scheme::Explicit { tlv(0xa3, &integer(1)) } else { Vec::new() };
        let parameters = sequence(&[&tlv(0xa0, &hash), &tlv(0xa1, &mask), &tlv(0xa2, &integer(48)), &trailer]);
        sequence(&[&oid(&RSA_PSS), &parameters])
    }

    fn public_key(&self) -> Vec<u8> {
        sequence(&[&sequence(&[&oid(&RSA), &tlv(0x05, &[])]), &bits(self.0.public_key().as_ref())])
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        #[allow(clippy::disallowed_methods, reason = "the salt of a test's signature")]
        let random = SystemRandom::new();
        let mut signature = vec![0; self.0.public_modulus_len()];
        let padding: &dyn aws_lc_rs::signature::RsaEncoding =
            if self.1 == Scheme::Pkcs1 { &RSA_PKCS1_SHA256 } else { &RSA_PSS_SHA384 };
        self.0.sign(padding, &random, message, &mut signature).unwrap();
        signature
    }
}

/// Keys take their time: one root, one intermediate and one of somebody else's for all tests.
static KEYS: LazyLock<[KeyPair; 3]> = LazyLock::new(|| [(); 3].map(|()| KeyPair::generate(KeySize::Rsa2048).unwrap()));

pub(crate) const ARK: &str = "DEV ONLY ARK-Milan";
pub(crate) const ASK: &str = "DEV ONLY SEV-Milan";
pub(crate) const LONG: (u64, u64) = (NOW_UNIX - 1000 * DAY, NOW_UNIX + 1000 * DAY);
pub(crate) const CHIP: [u8; 64] = [0xc4; 64];
pub(crate) const TCB: SnpTcb = SnpTcb { fmc: 0, bootloader: 4, tee: 0, snp: 24, microcode: 219 };
const ARK_SERIAL: u64 = 1;
pub(crate) const ASK_SERIAL: u64 = 2;
pub(crate) const LEAF_SERIAL: u64 = 3;

/// Everything that can be false about a report and its chain; honest where nobody says otherwise.
pub(crate) struct Forgery {
    pub(crate) product: Product,
    pub(crate) ark: (u64, u64),
    pub(crate) ask: (u64, u64),
    pub(crate) ask_authority: Option<u64>,
    pub(crate) ask_scheme: Scheme,
    pub(crate) leaf: (u64, u64),
    pub(crate) leaf_issuer: String,
    /// Whether somebody else's key signs the leaf.
    pub(crate) leaf_by_stranger: bool,
    /// Whether the leaf's key is on P-256.
    pub(crate) leaf_on_p256: bool,
    /// Whether the leaf shows another key than the one that signs the report.
    pub(crate) swapped_leaf: bool,
    pub(crate) certified: SnpTcb,
    /// VCEK: the chip; VLEK: none.
    pub(crate) certified_chip: Option<Vec<u8>>,
    pub(crate) crls: Vec<Vec<u8>>,
    pub(crate) edit: Box<dyn Fn(&mut [u8; REPORT_BYTES])>,
    pub(crate) edit_certificates: Box<dyn Fn(&mut Vec<Vec<u8>>)>,
}

impl Default for Forgery {
    fn default() -> Self {
        Self {
            product: Product::Milan,
            ark: LONG,
            ask: LONG,
            ask_authority: Some(0),
            ask_scheme: Scheme::Explicit,
            leaf: LONG,
            leaf_issuer: ASK.to_owned(),
            leaf_by_stranger: false,
            leaf_on_p256: false,
            swapped_leaf: false,
            certified: TCB,
            certified_chip: Some(CHIP.to_vec()),
            crls: Vec::new(),
            edit: Box::new(|_| ()),
            edit_certificates: Box::new(|_| ()),
        }
    }
}

/// The firmware's versions as a report writes them.
pub(crate) fn tcb_bytes(tcb: SnpTcb, product: Product) -> [u8; 8] {
    let SnpTcb { fmc, bootloader, tee, snp, microcode } = tcb;
    match product {
        Product::Turin => [fmc, bootloader, tee, snp, 0, 0, 0, microcode],
        Product::Milan | Product::Genoa => [bootloader, tee, 0, 0, 0, 0, snp, microcode],
    }
}

/// A revocation list of the root (`true`) or the intermediate, signed by it or by somebody else.
pub(crate) fn list(by_root: bool, by_stranger: bool, window: (u64, u64), revoked: &[u64]) -> Vec<u8> {
    let issuer = if by_root { ARK } else { ASK };
    let key = &KEYS[if by_stranger { 2 } else { usize::from(!by_root) }];
    let plan = ListPlan { issuer: issuer.to_owned(), window, revoked: revoked.to_vec() };
    plan.sign(&RsaSigner(key, Scheme::Explicit))
}

pub(crate) struct Built {
    pub(crate) report: Vec<u8>,
    pub(crate) collateral: Collateral,
    pub(crate) policy: Policy,
}

impl Forgery {
    fn leaf_extensions(&self) -> Vec<Vec<u8>> {
        let amd = |rest: &[u64]| [&[1, 3, 6, 1, 4, 1, 3704, 1], rest].concat();
        let mut extensions = vec![extension(&amd(&[1]), false, &integer(1))];
        for (number, value) in [
            (1, self.certified.bootloader),
            (2, self.certified.tee),
            (3, self.certified.snp),
            (8, self.certified.microcode),
            (9, self.certified.fmc),
        ] {
            extensions.push(extension(&amd(&[3, number]), false, &integer(u64::from(value))));
        }
        extensions.push(match &self.certified_chip {
            Some(chip) => extension(&amd(&[4]), false, chip),
            None => extension(&amd(&[5]), false, &tlv(0x16, b"a cloud")),
        });
        extensions
    }

    pub(crate) fn build(&self) -> Built {
        let [root, intermediate, stranger] = &*KEYS;
        let plan = |subject: &str, issuer: &str, serial, window, authority| Plan {
            subject: subject.to_owned(),
            issuer: issuer.to_owned(),
            serial,
            window,
            authority,
            extensions: Vec::new(),
        };
        let root_signer = RsaSigner(root, Scheme::Explicit);
        let ark = plan(ARK, ARK, ARK_SERIAL, self.ark, Some(1)).sign(&root_signer.public_key(), &root_signer);
        let ask_key = RsaSigner(intermediate, Scheme::Default);
        let ask = plan(ASK, ARK, ASK_SERIAL, self.ask, self.ask_authority);
        let ask = ask.sign(&ask_key.public_key(), &RsaSigner(root, self.ask_scheme));
        let key = SigningKey::from_slice(&[7; 48]).unwrap();
        let shown = if self.swapped_leaf { SigningKey::from_slice(&[8; 48]).unwrap() } else { key.clone() };
        let curve: &[u64] = if self.leaf_on_p256 { &[1, 2, 840, 10045, 3, 1, 7] } else { &[1, 3, 132, 0, 34] };
        let point = if self.leaf_on_p256 {
            p256::ecdsa::SigningKey::from_slice(&[7; 32])
                .unwrap()
                .verifying_key()
                .to_sec1_point(false)
                .as_bytes()
                .to_vec()
        } else {
            shown.verifying_key().to_sec1_point(false).as_bytes().to_vec()
        };
        let spki = sequence(&[&sequence(&[&oid(&[1, 2, 840, 10045, 2, 1]), &oid(curve)]), &bits(&point)]);
        let mut leaf = plan("DEV ONLY SEV-VCEK", &self.leaf_issuer, LEAF_SERIAL, self.leaf, None);
        leaf.extensions = self.leaf_extensions();
        let signer = if self.leaf_by_stranger { stranger } else { intermediate };
        let leaf = leaf.sign(&spki, &RsaSigner(signer, Scheme::Default));

        let mut report = [0; REPORT_BYTES];
        report[0] = 3;
        report[0x08..0x10].copy_from_slice(&0x3_0000_u64.to_le_bytes());
        report[0x34] = 1;
        // The kind of key: VCEK or VLEK.
        report[0x48] = u8::from(self.certified_chip.is_none()) << 2;
        report[0x50..0x90].fill(0xda);
        report[0x90..0xc0].fill(0x3e);
        for place in [0x38, 0x180, 0x1e0, 0x1f0] {
            report[place..place + 8].copy_from_slice(&tcb_bytes(TCB, self.product));
        }
        (report[0x188], report[0x189]) = if self.product == Product::Turin { (0x1a, 0x02) } else { (0x19, 0x01) };
        report[0x1a0..0x1e0].copy_from_slice(&CHIP);
        (self.edit)(&mut report);
        let signature: Signature = key.sign(&report[..0x2a0]);
        for (half, place) in signature.to_bytes().chunks(48).zip([0x2a0, 0x2a0 + 72]) {
            let reversed: Vec<u8> = half.iter().rev().copied().collect();
            report[place..place + 48].copy_from_slice(&reversed);
        }

        let mut certificates = vec![leaf, ask, ark.clone()];
        (self.edit_certificates)(&mut certificates);
        let anchor = TrustAnchor::from_der(ark).unwrap();
        let rules = SnpRules { anchors: vec![(self.product, anchor)], ..SnpRules::default() };
        Built {
            report: report.to_vec(),
            collateral: Collateral::snp(certificates, self.crls.clone()),
            policy: Policy { snp: Some(rules), any_image: true, ..Policy::nothing() },
        }
    }
}

/// For those who write an octet string around the chip's id.
pub(crate) fn wrapped(chip: &[u8]) -> Vec<u8> {
    octets(chip)
}
