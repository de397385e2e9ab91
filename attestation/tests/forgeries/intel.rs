//! Intel's PKI in small, its collateral, and the quotes of a platform that has a key of it.

use casemate_attestation::intel::IntelCollateral;
use casemate_attestation::{Collateral, IntelRules, Policy, TrustAnchor};
use data_encoding::BASE64;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{DerSignature, Signature, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::der::{ListPlan, Plan, Signer, bits, extension, integer, octets, oid, sequence, tlv};
use crate::{DAY, NOW_UNIX};

pub(crate) const LONG: (u64, u64) = (NOW_UNIX - 1000 * DAY, NOW_UNIX + 1000 * DAY);
const ROOT: &str = "DEV ONLY SGX Root CA";
const PLATFORM_CA: &str = "DEV ONLY SGX PCK Platform CA";
const FMSPC: [u8; 6] = [0, 0x90, 0x6e, 0xd5, 0, 0];
const CPU_SVN: u8 = 5;
const PCE_SVN: u16 = 11;
const QE_SIGNER: [u8; 32] = [0x9e; 32];
const VENDOR: [u8; 16] =
    [0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07];
pub(crate) const TCB_SERIAL: u64 = 3;
pub(crate) const CA_SERIAL: u64 = 2;
pub(crate) const LEAF_SERIAL: u64 = 4;

/// A key on P-256; `explicit` names another algorithm than it signs with.
pub(crate) struct P256(SigningKey);

impl P256 {
    fn of(seed: u8) -> Self {
        Self(SigningKey::from_slice(&[seed; 32]).unwrap())
    }

    fn point(&self) -> Vec<u8> {
        self.0.verifying_key().to_sec1_point(false).as_bytes().to_vec()
    }

    fn raw(&self, message: &[u8]) -> Vec<u8> {
        let signature: Signature = self.0.sign(message);
        signature.to_bytes().to_vec()
    }
}

impl Signer for P256 {
    fn algorithm(&self) -> Vec<u8> {
        sequence(&[&oid(&[1, 2, 840, 10045, 4, 3, 2])])
    }

    fn public_key(&self) -> Vec<u8> {
        let curve = sequence(&[&oid(&[1, 2, 840, 10045, 2, 1]), &oid(&[1, 2, 840, 10045, 3, 1, 7])]);
        sequence(&[&curve, &bits(&self.point())])
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: DerSignature = self.0.sign(message);
        signature.as_bytes().to_vec()
    }
}

/// A key on P-384: a curve that this PKI does not use.
struct P384(p384::ecdsa::SigningKey);

impl Signer for P384 {
    fn algorithm(&self) -> Vec<u8> {
        sequence(&[&oid(&[1, 2, 840, 10045, 4, 3, 3])])
    }

    fn public_key(&self) -> Vec<u8> {
        let curve = sequence(&[&oid(&[1, 2, 840, 10045, 2, 1]), &oid(&[1, 3, 132, 0, 34])]);
        sequence(&[&curve, &bits(self.0.verifying_key().to_sec1_point(false).as_bytes())])
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: p384::ecdsa::DerSignature = self.0.sign(message);
        signature.as_bytes().to_vec()
    }
}

type Edit<T> = Box<dyn Fn(&mut T)>;

/// Everything that can be false about a quote and its collateral; honest where nobody says otherwise.
pub(crate) struct Forgery {
    /// Whether it is a TDX domain's quote.
    pub(crate) tdx: bool,
    pub(crate) ca: (u64, u64),
    pub(crate) leaf: (u64, u64),
    pub(crate) tcb_signer: (u64, u64),
    /// Whether the platform's CA has a key on P-384.
    pub(crate) ca_on_p384: bool,
    pub(crate) ca_authority: Option<u64>,
    /// Whether somebody else's key signs the leaf.
    pub(crate) leaf_by_stranger: bool,
    pub(crate) leaf_issuer: String,
    /// Whether the chain shows another leaf than the one whose key certifies.
    pub(crate) swapped_leaf: bool,
    /// Whether the quoting enclave names another key than the one that signs the quote.
    pub(crate) swapped_attestation_key: bool,
    pub(crate) chain_extra: usize,
    pub(crate) root_crl: ((u64, u64), Vec<u64>),
    pub(crate) pck_crl: ((u64, u64), Vec<u64>),
    pub(crate) pck_crl_by_stranger: bool,
    pub(crate) edit_tcb_info: Edit<Value>,
    pub(crate) edit_identity: Edit<Value>,
    /// Changes the JSON after it was signed.
    pub(crate) edit_collateral: Edit<Value>,
    /// Changes the report before it is signed.
    pub(crate) edit_report: Edit<Vec<u8>>,
    pub(crate) edit_qe_report: Edit<Vec<u8>>,
}

impl Default for Forgery {
    fn default() -> Self {
        Self {
            tdx: false,
            ca: LONG,
            leaf: LONG,
            tcb_signer: LONG,
            ca_on_p384: false,
            ca_authority: Some(0),
            leaf_by_stranger: false,
            leaf_issuer: PLATFORM_CA.to_owned(),
            swapped_leaf: false,
            swapped_attestation_key: false,
            chain_extra: 0,
            root_crl: (LONG, Vec::new()),
            pck_crl: (LONG, Vec::new()),
            pck_crl_by_stranger: false,
            edit_tcb_info: Box::new(|_| ()),
            edit_identity: Box::new(|_| ()),
            edit_collateral: Box::new(|_| ()),
            edit_report: Box::new(|_| ()),
            edit_qe_report: Box::new(|_| ()),
        }
    }
}

pub(crate) struct Built {
    pub(crate) quote: Vec<u8>,
    pub(crate) collateral: Value,
    pub(crate) policy: Policy,
}

impl Built {
    pub(crate) fn collateral(&self) -> Collateral {
        Collateral::intel(IntelCollateral::parse(self.collateral.to_string().as_bytes()).unwrap())
    }
}

fn pem(certificates: &[&[u8]]) -> String {
    let one = |der: &&[u8]| {
        let body = BASE64.encode(der);
        let lines: Vec<&str> = (0..body.len()).step_by(64).map(|at| &body[at..body.len().min(at + 64)]).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    };
    certificates.iter().map(one).collect()
}

/// Intel's extension of a platform's certificate.
fn sgx_extension() -> Vec<u8> {
    let intel = |rest: &[u64]| oid(&[&[1, 2, 840, 113_741, 1, 13, 1], rest].concat());
    let mut svns: Vec<Vec<u8>> =
        (1..=16).map(|place| sequence(&[&intel(&[2, place]), &integer(u64::from(CPU_SVN))])).collect();
    svns.push(sequence(&[&intel(&[2, 17]), &integer(u64::from(PCE_SVN))]));
    svns.push(sequence(&[&intel(&[2, 18]), &octets(&[CPU_SVN; 16])]));
    let svns: Vec<&[u8]> = svns.iter().map(Vec::as_slice).collect();
    let value = sequence(&[
        &sequence(&[&intel(&[1]), &octets(&[0x77; 16])]),
        &sequence(&[&intel(&[2]), &sequence(&svns)]),
        &sequence(&[&intel(&[3]), &octets(&[0, 0])]),
        &sequence(&[&intel(&[4]), &octets(&FMSPC)]),
        &sequence(&[&intel(&[5]), &tlv(0x0a, &[0])]),
    ]);
    extension(&[1, 2, 840, 113_741, 1, 13, 1], false, &value)
}

fn date(unix: u64) -> String {
    x509_cert::der::DateTime::from_unix_duration(std::time::Duration::from_secs(unix)).unwrap().to_string()
}

fn enclave_report(signer: [u8; 32], product: u16, svn: u16, data: &[u8; 64]) -> Vec<u8> {
    let mut report = vec![0; 384];
    report[..16].fill(CPU_SVN);
    report[48] = 0x05;
    report[64..96].fill(0x3e);
    report[128..160].copy_from_slice(&signer);
    report[256..258].copy_from_slice(&product.to_le_bytes());
    report[258..260].copy_from_slice(&svn.to_le_bytes());
    report[320..].copy_from_slice(data);
    report
}

fn td_report() -> Vec<u8> {
    let mut report = vec![0; 584];
    report[..16].fill(CPU_SVN);
    // No module of a version of its own.
    report[1] = 0;
    report[16..64].fill(0x5e);
    // SEPT_VE_DISABLE, without which a host could confuse the domain.
    report[123] = 0x10;
    report[136..184].fill(0x3e);
    report[520..].fill(0xda);
    report
}

impl Forgery {
    fn tcb_info(&self) -> Value {
        let level = |svn: u8, pce: u16, status: &str, advisories: &[&str]| {
            let components = vec![json!({ "svn": svn }); 16];
            let mut tcb = json!({ "sgxtcbcomponents": components, "pcesvn": pce });
            if self.tdx {
                // Without a module of a version of its own, its number is among the components.
                let mut components = vec![json!({ "svn": svn }); 16];
                components[1] = json!({ "svn": 0 });
                tcb["tdxtcbcomponents"] = components.into();
            }
            json!({ "tcb": tcb, "tcbDate": date(NOW_UNIX - 500 * DAY), "tcbStatus": status, "advisoryIDs": advisories })
        };
        let mut info = json!({
            "id": if self.tdx { "TDX" } else { "SGX" },
            "version": 3,
            "issueDate": date(NOW_UNIX - DAY),
            "nextUpdate": date(NOW_UNIX + 29 * DAY),
            "fmspc": hex::encode(FMSPC),
            "pceId": "0000",
            "tcbType": 0,
            "tcbEvaluationDataNumber": 17,
            "tcbLevels": [
                level(CPU_SVN, PCE_SVN, "UpToDate", &[]),
                level(CPU_SVN - 1, PCE_SVN - 1, "OutOfDate", &["INTEL-SA-00001"]),
            ],
        });
        if self.tdx {
            info["tdxModule"] = json!({
                "mrsigner": "00".repeat(48),
                "attributes": "00".repeat(8),
                "attributesMask": "ff".repeat(8),
            });
        }
        info
    }

    fn identity(&self) -> Value {
        json!({
            "id": if self.tdx { "TD_QE" } else { "QE" },
            "version": 2,
            "issueDate": date(NOW_UNIX - DAY),
            "nextUpdate": date(NOW_UNIX + 29 * DAY),
            "tcbEvaluationDataNumber": 17,
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            "attributes": "05000000000000000000000000000000",
            "attributesMask": "FFFFFFFFFFFFFFFF0000000000000000",
            "mrsigner": hex::encode(QE_SIGNER),
            "isvprodid": 1,
            "tcbLevels": [{ "tcb": { "isvsvn": 8 }, "tcbDate": date(NOW_UNIX - 500 * DAY), "tcbStatus": "UpToDate" }],
        })
    }

    pub(crate) fn build(&self) -> Built {
        let [root, ca, pck, tcb_signer, attestation, stranger] = [1, 2, 3, 4, 5, 6].map(P256::of);
        let ca_on_p384 = P384(p384::ecdsa::SigningKey::from_slice(&[2; 48]).unwrap());
        let ca: &dyn Signer = if self.ca_on_p384 { &ca_on_p384 } else { &ca };
        let plan = |subject: &str, issuer: &str, serial, window, authority| Plan {
            subject: subject.to_owned(),
            issuer: issuer.to_owned(),
            serial,
            window,
            authority,
            extensions: Vec::new(),
        };
        let root_der = plan(ROOT, ROOT, 1, LONG, Some(1)).sign(&root.public_key(), &root);
        let ca_der = plan(PLATFORM_CA, ROOT, CA_SERIAL, self.ca, self.ca_authority).sign(&ca.public_key(), &root);
        let tcb_der = plan("DEV ONLY SGX TCB Signing", ROOT, TCB_SERIAL, self.tcb_signer, None);
        let tcb_der = tcb_der.sign(&tcb_signer.public_key(), &root);
        let mut leaf = plan("DEV ONLY SGX PCK Certificate", &self.leaf_issuer, LEAF_SERIAL, self.leaf, None);
        leaf.extensions.push(sgx_extension());
        let shown = if self.swapped_leaf { stranger.public_key() } else { pck.public_key() };
        let leaf_der = leaf.sign(&shown, if self.leaf_by_stranger { &stranger } else { ca });

        let list = |issuer: &str, (window, revoked): &((u64, u64), Vec<u64>), key: &dyn Signer| {
            ListPlan { issuer: issuer.to_owned(), window: *window, revoked: revoked.clone() }.sign(key)
        };
        let root_crl = list(ROOT, &self.root_crl, &root);
        let pck_crl = list(PLATFORM_CA, &self.pck_crl, if self.pck_crl_by_stranger { &stranger } else { ca });
        let (mut tcb_info, mut identity) = (self.tcb_info(), self.identity());
        (self.edit_tcb_info)(&mut tcb_info);
        (self.edit_identity)(&mut identity);
        let (tcb_info, identity) = (tcb_info.to_string(), identity.to_string());
        let signers = pem(&[&tcb_der, &root_der]);
        let mut collateral = json!({
            "pck_crl_issuer_chain": pem(&[&ca_der, &root_der]),
            "root_ca_crl": hex::encode(root_crl),
            "pck_crl": hex::encode(pck_crl),
            "tcb_info_issuer_chain": signers,
            "tcb_info_signature": hex::encode(tcb_signer.raw(tcb_info.as_bytes())),
            "tcb_info": tcb_info,
            "qe_identity_issuer_chain": signers,
            "qe_identity_signature": hex::encode(tcb_signer.raw(identity.as_bytes())),
            "qe_identity": identity,
        });
        (self.edit_collateral)(&mut collateral);

        let mut chain = vec![leaf_der.as_slice(), &ca_der];
        chain.extend(vec![ca_der.as_slice(); self.chain_extra]);
        chain.push(&root_der);
        let quote = self.quote(&pem(&chain), &pck, &attestation, &stranger);
        let anchor = TrustAnchor::from_der(root_der).unwrap();
        let rules = IntelRules { anchors: vec![anchor], ..IntelRules::default() };
        let policy = Policy { sgx: Some(rules.clone()), tdx: Some(rules), any_image: true, ..Policy::nothing() };
        Built { quote, collateral, policy }
    }

    fn quote(&self, chain: &str, pck: &P256, attestation: &P256, stranger: &P256) -> Vec<u8> {
        let mut quote = Vec::new();
        quote.extend(if self.tdx { 4_u16 } else { 3 }.to_le_bytes());
        quote.extend(2_u16.to_le_bytes());
        quote.extend(if self.tdx { 0x81_u32 } else { 0 }.to_le_bytes());
        quote.extend([0; 4]);
        quote.extend(VENDOR);
        quote.extend([0; 20]);
        let mut report = if self.tdx { td_report() } else { enclave_report([0x51; 32], 7, 3, &[0xda; 64]) };
        (self.edit_report)(&mut report);
        quote.extend(report);
        let key = &attestation.point()[1..];
        let named = if self.swapped_attestation_key { stranger.point() } else { attestation.point() };
        let data = [0x0d; 32];
        let mut bound = [0; 64];
        bound[..32].copy_from_slice(&Sha256::new().chain_update(&named[1..]).chain_update(data).finalize());
        let mut qe_report = enclave_report(QE_SIGNER, 1, 8, &bound);
        (self.edit_qe_report)(&mut qe_report);
        let counted = |kind: u16, bytes: &[u8]| {
            [&kind.to_le_bytes()[..], &u32::try_from(bytes.len()).unwrap().to_le_bytes(), bytes].concat()
        };
        let certified = [
            qe_report.clone(),
            pck.raw(&qe_report),
            32_u16.to_le_bytes().to_vec(),
            data.to_vec(),
            counted(5, chain.as_bytes()),
        ]
        .concat();
        let certified = if self.tdx { counted(6, &certified) } else { certified };
        let signature = [attestation.raw(&quote), key.to_vec(), certified].concat();
        quote.extend(u32::try_from(signature.len()).unwrap().to_le_bytes());
        quote.extend(signature);
        quote
    }
}
