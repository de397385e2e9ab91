//! Whether claims meet a policy. Debug comes first, because nothing else that such a guest says is worth anything.

use super::{Image, IntelRules, Policy, SnpRules};
use crate::chain::{ChainError, CrlError};
use crate::claims::{Claims, DebugSign, Guest, Identity, Platform, Register, SnpSigner, SnpTcb, Tcb};
use crate::refusal::{Refusal, Short};
use crate::report_data;

/// Bit 17 of TDATTRIBUTES: the report speaks of service domains.
const SERVTD_EXT: u8 = 1 << 1;

impl Policy {
    /// Judges authenticated claims at `now_unix`, in seconds since the Unix epoch.
    ///
    /// The anchor is not judged here: authentication has led the chain to it.
    ///
    /// # Errors
    ///
    /// The first rule that the claims break.
    pub fn judge(&self, claims: &Claims, now_unix: u64) -> Result<(), Refusal> {
        self.judge_platform(claims.platform)?;
        self.judge_age(claims, now_unix)?;
        if let Some(sign) = claims.debug
            && !self.allow_debug
        {
            return Err(Refusal::Debug { sign });
        }
        if let Some(rules) = &self.snp
            && claims.platform == Platform::SevSnp
        {
            rules.judge(claims)?;
        }
        if let Some(rules) = self.intel(claims.platform) {
            rules.judge(claims)?;
        }
        self.judge_image(claims, now_unix)?;
        self.judge_bound(claims)
    }

    pub(crate) fn judge_platform(&self, found: Platform) -> Result<(), Refusal> {
        let allowed = self.platforms();
        if allowed.contains(&found) {
            return Ok(());
        }
        let wanted = listed(allowed.iter().map(ToString::to_string));
        Err(Refusal::Platform { found, wanted })
    }

    fn judge_age(&self, claims: &Claims, now_unix: u64) -> Result<(), Refusal> {
        let Some(issued_at_unix) = claims.issued_at_unix() else { return Ok(()) };
        let (skew_seconds, max_age_seconds) = (self.clock_skew.as_secs(), self.max_age.as_secs());
        if issued_at_unix > now_unix.saturating_add(skew_seconds) {
            return Err(Refusal::FromTheFuture { issued_at_unix, now_unix, skew_seconds });
        }
        let age_seconds = now_unix.saturating_sub(issued_at_unix);
        if age_seconds > max_age_seconds {
            return Err(Refusal::TooOld { issued_at_unix, now_unix, age_seconds, max_age_seconds });
        }
        Ok(())
    }

    fn judge_image(&self, claims: &Claims, now_unix: u64) -> Result<(), Refusal> {
        if self.any_image {
            return Ok(());
        }
        let candidates = || self.images.iter().filter(|image| image.platform == claims.platform);
        let mut nearest: Option<(&Image, usize, Refusal)> = None;
        for image in candidates() {
            let Err(refusal) = image.judge(claims, now_unix, candidates) else { return Ok(()) };
            // The nearest image makes the most useful message.
            let agreeing = image.agreeing(claims);
            if nearest.as_ref().is_none_or(|(_, best, _)| agreeing > *best) {
                nearest = Some((image, agreeing, refusal));
            }
        }
        Err(nearest.map_or(Refusal::NoMeasurements { platform: claims.platform }, |(_, _, refusal)| refusal))
    }

    fn judge_bound(&self, claims: &Claims) -> Result<(), Refusal> {
        let (wanted, found) = (&self.bound, &claims.bound);
        let text = |found: &Option<Vec<u8>>| Short::optional(found.as_deref());
        if claims.platform == Platform::Nitro {
            if let Some(nonce) = &wanted.nonce
                && found.nonce.as_ref() != Some(nonce)
            {
                return Err(Refusal::Nonce { found: text(&found.nonce), wanted: Short::text(nonce) });
            }
            if let Some(user_data) = &wanted.user_data
                && found.user_data.as_ref() != Some(user_data)
            {
                return Err(Refusal::UserData { found: text(&found.user_data), wanted: Short::text(user_data) });
            }
            if let Some(public_key) = &wanted.public_key
                && found.public_key.as_ref() != Some(public_key)
            {
                return Err(Refusal::PublicKey { found: text(&found.public_key), wanted: Short::text(public_key) });
            }
        }
        let is_derived = wanted.nonce.is_some() || wanted.user_data.is_some() || wanted.public_key.is_some();
        let report_data = match wanted.report_data {
            Some(report_data) => Some(report_data),
            // One field stands for all three, so a wish for one of them is a wish that the others are absent.
            None if is_derived && claims.platform != Platform::Nitro => Some(report_data(wanted)),
            None => None,
        };
        match report_data {
            Some(wanted) if found.report_data != Some(wanted) => Err(Refusal::ReportData {
                found: Short::optional(found.report_data.as_ref().map(<[u8; 64]>::as_slice)),
                wanted: Short::text(&wanted),
            }),
            _ => Ok(()),
        }
    }
}

impl Image {
    /// How many of its registers the claims have with the same value.
    fn agreeing(&self, claims: &Claims) -> usize {
        self.registers.iter().filter(|(register, wanted)| claims.measurements.get(**register) == Some(*wanted)).count()
    }

    fn judge<'a, I: Iterator<Item = &'a Image>>(
        &self,
        claims: &Claims,
        now_unix: u64,
        all: impl Fn() -> I,
    ) -> Result<(), Refusal> {
        let image = || self.name.clone();
        for (register, wanted) in &self.registers {
            let found = claims.measurements.get(*register);
            if found != Some(wanted) {
                let (found, wanted) = (Short::optional(found), Short::text(wanted));
                return Err(Refusal::Measurement {
                    register: *register,
                    found,
                    wanted,
                    image: image(),
                    images: all().count(),
                });
            }
        }
        let (product, svn) = match claims.guest {
            Guest::Sgx { product, svn, .. } => (Some(product), Some(u32::from(svn))),
            Guest::Snp { svn, .. } => (None, Some(svn)),
            Guest::Nitro | Guest::Tdx { .. } => (None, None),
        };
        // Attack stopped: another enclave of the same signer, or an old one of this product with a known hole.
        if let (Some(wanted), Some(found)) = (self.product, product)
            && found != wanted
        {
            return Err(Refusal::Product { found, wanted, image: image() });
        }
        if let (Some(wanted), Some(found)) = (self.min_svn, svn)
            && found < wanted
        {
            return Err(Refusal::GuestSvn { found, wanted, image: image() });
        }
        if !self.window.contains(now_unix) {
            let (not_before_unix, not_after_unix) = (self.window.not_before_unix, self.window.not_after_unix);
            return Err(Refusal::ImageWindow { image: image(), not_before_unix, not_after_unix, now_unix });
        }
        Ok(())
    }
}

impl SnpRules {
    fn judge(&self, claims: &Claims) -> Result<(), Refusal> {
        if let Guest::Snp { policy, vmpl, .. } = claims.guest {
            // Attack stopped: software of lower rights in the guest, or its host, that speaks for all of it.
            if vmpl != self.vmpl {
                return Err(Refusal::Vmpl { found: vmpl, wanted: self.vmpl });
            }
            if policy.allows_migration_agent() && !self.allow_migration_agent {
                return Err(Refusal::MigrationAgent { policy: policy.0 });
            }
        }
        if let Identity::Snp { product, signer, chip_id, .. } = &claims.identity {
            if !self.signers.contains(signer) {
                let wanted = listed(self.signers.iter().map(ToString::to_string));
                return Err(Refusal::Signer { found: *signer, wanted });
            }
            // A provider's certificate names no chip that could be compared.
            if chip_id.is_none() && *signer == SnpSigner::Vcek && !self.allow_masked_chip {
                return Err(Refusal::MaskedChip);
            }
            if let (Some(floor), Some(Tcb::Snp { reported, current, committed, launch })) =
                (self.min_tcb.get(product), &claims.tcb)
            {
                // Attack stopped: firmware that is new now and was old when the guest started, or that can go back to old.
                let all = [("committed", committed), ("launch", launch), ("reported", reported), ("current", current)];
                all.into_iter().try_for_each(|(which, found)| judge_floor(which, *found, *floor))?;
            }
        }
        if self.require_crl && !claims.revocation_checked {
            return Err(ChainError::Crl(CrlError::Missing).into());
        }
        Ok(())
    }
}

fn judge_floor(which: &'static str, found: SnpTcb, floor: SnpTcb) -> Result<(), Refusal> {
    let both = found.components().into_iter().zip(floor.components());
    match both.into_iter().find(|((_, found), (_, wanted))| found < wanted) {
        None => Ok(()),
        Some(((component, found), (_, wanted))) => Err(Refusal::TcbFloor { which, component, found, wanted }),
    }
}

impl IntelRules {
    fn judge(&self, claims: &Claims) -> Result<(), Refusal> {
        if claims.platform == Platform::Tdx && !self.allow_service_td {
            judge_service_td(claims)?;
        }
        let Some(Tcb::Intel { status, advisories, evaluation, cpu_svn, pce_svn, tee_tcb_svn, .. }) = &claims.tcb else {
            return Ok(());
        };
        if *evaluation < self.min_evaluation {
            return Err(Refusal::Evaluation { found: *evaluation, wanted: self.min_evaluation });
        }
        if !self.statuses.contains(status) {
            let wanted = listed(self.statuses.iter().map(ToString::to_string));
            return Err(Refusal::TcbStatus { found: *status, wanted, advisories: listed(advisories.iter().cloned()) });
        }
        for found in advisories {
            if self.refused_advisories.contains(found) {
                return Err(Refusal::Advisory {
                    found: found.clone(),
                    wanted: format!("none of {}", listed(self.refused_advisories.iter().cloned())),
                });
            }
            if let Some(allowed) = &self.allowed_advisories
                && !allowed.contains(found)
            {
                let wanted = listed(allowed.iter().cloned());
                return Err(Refusal::Advisory { found: found.clone(), wanted: format!("none but {wanted}") });
            }
        }
        judge_svns("processor", cpu_svn, &self.min_cpu_svn)?;
        if *pce_svn < self.min_pce_svn {
            let component = "provisioning enclave's".to_owned();
            return Err(Refusal::SvnFloor { component, found: *pce_svn, wanted: self.min_pce_svn });
        }
        if let Some(found) = tee_tcb_svn {
            judge_svns("TDX module", found, &self.min_tee_tcb_svn)?;
        }
        Ok(())
    }
}

fn judge_service_td(claims: &Claims) -> Result<(), Refusal> {
    if let Some(hash) = claims.measurements.get(Register::MrServiceTd)
        && hash.iter().any(|byte| *byte != 0)
    {
        return Err(Refusal::ServiceTd { found: Short::text(hash) });
    }
    match claims.guest {
        Guest::Tdx { attributes } if attributes[2] & SERVTD_EXT != 0 => {
            Err(Refusal::ServiceTd { found: "attribute SERVTD_EXT".to_owned() })
        }
        _ => Ok(()),
    }
}

fn judge_svns(of: &str, found: &[u8; 16], floor: &[u8; 16]) -> Result<(), Refusal> {
    let both = found.iter().zip(floor).enumerate();
    match both.into_iter().find(|(_, (found, wanted))| found < wanted) {
        None => Ok(()),
        Some((place, (found, wanted))) => Err(Refusal::SvnFloor {
            component: format!("{of}'s component {place}"),
            found: u16::from(*found),
            wanted: u16::from(*wanted),
        }),
    }
}

fn listed(items: impl IntoIterator<Item = String>) -> String {
    let items: Vec<String> = items.into_iter().collect();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

/// The sign of Nitro's debug mode.
pub(crate) fn zero_pcr(measurements: &crate::MeasurementSet) -> Option<DebugSign> {
    measurements.debug_register().map(DebugSign::ZeroPcr)
}
