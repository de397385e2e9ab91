//! Many pieces of evidence at once: a chain that several of them show is verified once.
//!
//! Nitro's documents of one enclave share a chain for hours, and SEV-SNP's reports of one chip for as long as its firmware stays. Intel's
//! quotes and collateral are verified by `dcap-qvl` as one, and what it found out cannot be given to it again; its signatures are
//! computed here, so they are what is shared: those of the same collateral, of the same platform's certificates and of the same quoting
//! enclave. All else about them is read and judged for each quote.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::nitro::{Chain as NitroChain, Document};
use crate::policy::SnpRules;
use crate::signatures::Signatures;
use crate::snp::Chain as SnpChain;
use crate::{Claims, Collateral, Policy, Refusal, TrustAnchor};

/// Chains by the hash of their certificates, and Intel's signatures.
#[derive(Debug)]
struct Known {
    nitro: HashMap<[u8; 32], NitroChain>,
    snp: HashMap<[u8; 32], SnpChain>,
    intel: Arc<Signatures>,
}

/// What was verified at the batch's time under the batch's policy.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// `None` for one piece alone, which would pay for names that nobody asks for.
    known: Option<Known>,
}

/// The bytes of the items, each with its length before it.
fn name<'a>(items: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for item in items {
        hash.update((item.len() as u64).to_be_bytes());
        hash.update(item);
    }
    hash.finalize().into()
}

impl Shared {
    pub(crate) fn nitro(
        &mut self,
        document: &Document<'_>,
        time_unix: u64,
        anchor: &TrustAnchor,
    ) -> Result<NitroChain, Refusal> {
        let Some(Known { nitro: chains, .. }) = &mut self.known else {
            return Ok(NitroChain::verify(document, time_unix, anchor)?);
        };
        let time = time_unix.to_be_bytes();
        let head = [&time[..], anchor.fingerprint(), document.certificate];
        let name = name(head.into_iter().chain(document.cabundle.iter().copied()));
        if let Some(known) = chains.get(&name) {
            return Ok(*known);
        }
        // What is refused is not remembered: it would be room for whoever sends much of it.
        let chain = NitroChain::verify(document, time_unix, anchor)?;
        chains.insert(name, chain);
        Ok(chain)
    }

    pub(crate) fn snp(
        &mut self,
        certificates: &[&[u8]],
        crls: &[Vec<u8>],
        now_unix: u64,
        rules: &SnpRules,
    ) -> Result<SnpChain, Refusal> {
        let Some(Known { snp: chains, .. }) = &mut self.known else {
            return SnpChain::verify(certificates, crls, now_unix, rules);
        };
        let count = certificates.len().to_be_bytes();
        let items = [&count[..]].into_iter().chain(certificates.iter().copied()).chain(crls.iter().map(Vec::as_slice));
        let name = name(items);
        if let Some(known) = chains.get(&name) {
            return Ok(known.clone());
        }
        let chain = SnpChain::verify(certificates, crls, now_unix, rules)?;
        chains.insert(name, chain.clone());
        Ok(chain)
    }

    /// Where a quote's signatures are remembered: with the batch, or those of the root alone with the anchor.
    pub(crate) fn signatures<'a>(&'a self, anchor: &'a TrustAnchor) -> &'a Arc<Signatures> {
        self.known.as_ref().map_or(anchor.signatures(), |known| &known.intel)
    }
}

/// Does what [`verify`](crate::verify) does for each piece, with the same results, in the same order.
pub fn verify_batch(pieces: &[(&[u8], &Collateral)], now_unix: u64, policy: &Policy) -> Vec<Result<Claims, Refusal>> {
    let intel = Arc::new(Signatures::of_any_key());
    let known = Known { nitro: HashMap::new(), snp: HashMap::new(), intel };
    let mut shared = Shared { known: Some(known) };
    let verdicts = pieces.iter().map(|(evidence, collateral)| {
        let claims = crate::authenticate_with(evidence, collateral, now_unix, policy, &mut shared)?;
        policy.judge(&claims, now_unix)?;
        Ok(claims)
    });
    verdicts.collect()
}
