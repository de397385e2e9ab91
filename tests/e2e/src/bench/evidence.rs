//! Judging evidence: of Nitro a real document where the collection of real evidence lies, else the node's own, made under the development
//! root; of the other platforms what the collection has, and nothing without it. Each beside the bare signatures, beside a verifier that
//! sees everything for the first time, and beside the verifier of phones.

mod bare;
mod collection;
mod portable;
mod server;

use super::Result;
use super::row::{Row, Samples};
use crate::Node;
use bare::Bare;
use portable::Portable;
use server::Piece;

/// What is judged.
#[derive(Debug)]
pub(super) struct Evidence {
    nitro: Piece,
    snp: Option<Piece>,
    sgx: Option<Piece>,
    tdx: Option<Piece>,
    portable_nitro: Option<Portable>,
    portable_snp: Option<Portable>,
    portable_sgx: Option<Portable>,
    portable_tdx: Option<Portable>,
    bare_nitro: Bare,
    bare_intel: Bare,
}

/// One platform's samples.
#[derive(Debug, Default)]
struct Kind {
    verify: Samples,
    /// By an anchor, and with a collateral, that remembers nothing.
    first: Samples,
    portable: Samples,
}

/// How long it took.
#[derive(Debug, Default)]
pub(super) struct Measured {
    nitro: Kind,
    snp: Kind,
    sgx: Kind,
    tdx: Kind,
    cached: Samples,
    bare_nitro: Samples,
    bare_intel: Samples,
}

impl Measured {
    pub(super) fn rows(&self) -> impl Iterator<Item = Option<Row>> {
        let (nitro, snp, sgx, tdx) = (&self.nitro, &self.snp, &self.sgx, &self.tdx);
        [
            Row::time("nitro_verify", &nitro.verify, Some(&self.bare_nitro)),
            Row::time("nitro_verify_first", &nitro.first, Some(&nitro.verify)),
            Row::time("nitro_verify_portable", &nitro.portable, Some(&nitro.verify)),
            Row::time("snp_verify", &snp.verify, None),
            Row::time("snp_verify_portable", &snp.portable, Some(&snp.verify)),
            Row::time("sgx_verify", &sgx.verify, Some(&self.bare_intel)),
            Row::time("sgx_verify_first", &sgx.first, Some(&sgx.verify)),
            Row::time("sgx_verify_portable", &sgx.portable, Some(&sgx.verify)),
            Row::time("tdx_verify", &tdx.verify, Some(&self.bare_intel)),
            Row::time("tdx_verify_first", &tdx.first, Some(&tdx.verify)),
            Row::time("tdx_verify_portable", &tdx.portable, Some(&tdx.verify)),
            Row::time("cached_verify", &self.cached, Some(&tdx.verify)),
        ]
        .into_iter()
    }
}

impl Evidence {
    #[expect(clippy::print_stderr, reason = "what was not measured belongs beside the figures")]
    pub(super) fn find(node: &Node) -> Result<Self> {
        let snp = Piece::find("snp")?;
        if snp.is_none() {
            eprintln!("snp_verify, sgx_verify, tdx_verify, *_portable: no real evidence here (CASEMATE_VECTORS)");
        }
        Ok(Self {
            nitro: Piece::nitro(node)?,
            snp,
            sgx: Piece::find("sgx")?,
            tdx: Piece::find("tdx")?,
            portable_nitro: Portable::find("nitro")?,
            portable_snp: Portable::find("snp")?,
            portable_sgx: Portable::find("sgx")?,
            portable_tdx: Portable::find("tdx")?,
            bare_nitro: Bare::nitro()?,
            bare_intel: Bare::intel()?,
        })
    }

    /// A Nitro document, in each way so many times.
    pub(super) fn judge_nitro(&self, times: u32, rows: &mut Measured) -> Result<()> {
        for _ in 0..times {
            rows.bare_nitro.add(self.bare_nitro.verify()?);
            rows.nitro.verify.add(self.nitro.verify()?);
        }
        for _ in 0..times {
            rows.nitro.first.add(self.nitro.verify_first()?);
        }
        judge_portably(self.portable_nitro.as_ref(), times, &mut rows.nitro)
    }

    /// A piece of each other platform, in each way so many times.
    pub(super) fn judge_others(&self, times: u32, rows: &mut Measured) -> Result<()> {
        for _ in 0..times {
            rows.bare_intel.add(self.bare_intel.verify()?);
            for (piece, samples) in [(&self.snp, &mut rows.snp), (&self.sgx, &mut rows.sgx), (&self.tdx, &mut rows.tdx)]
            {
                if let Some(piece) = piece {
                    samples.verify.add(piece.verify()?);
                }
            }
            if let Some(piece) = &self.tdx {
                rows.cached.add(piece.verify_again()?);
            }
        }
        for _ in 0..times {
            for (piece, samples) in [(&self.sgx, &mut rows.sgx), (&self.tdx, &mut rows.tdx)] {
                if let Some(piece) = piece {
                    samples.first.add(piece.verify_first()?);
                }
            }
        }
        judge_portably(self.portable_snp.as_ref(), times, &mut rows.snp)?;
        judge_portably(self.portable_sgx.as_ref(), times, &mut rows.sgx)?;
        judge_portably(self.portable_tdx.as_ref(), times, &mut rows.tdx)
    }
}

/// By itself, so that nothing else of the row finds its caches cold.
fn judge_portably(piece: Option<&Portable>, times: u32, samples: &mut Kind) -> Result<()> {
    let Some(piece) = piece else { return Ok(()) };
    for _ in 0..times {
        samples.portable.add(piece.verify()?);
    }
    Ok(())
}
