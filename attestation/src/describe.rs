//! Claims as JSON: the same words for the command line and for the parent's HTTP interface.

use serde_json::{Map, Value, json};

use crate::claims::{Claims, Guest, SnpTcb, Tcb};

fn firmware(tcb: SnpTcb) -> Value {
    tcb.components()
        .into_iter()
        .map(|(name, version)| (name.to_owned(), Value::from(version)))
        .collect::<Map<_, _>>()
        .into()
}

fn tcb(tcb: &Tcb) -> Value {
    match tcb {
        Tcb::Snp { reported, current, committed, launch } => json!({
            "version": tcb.version(),
            "reported": firmware(*reported),
            "current": firmware(*current),
            "committed": firmware(*committed),
            "launch": firmware(*launch),
        }),
        Tcb::Intel { status, advisories, evaluation, level_date_unix, .. } => json!({
            "version": tcb.version(),
            "status": status.name(),
            "advisories": advisories,
            "evaluation": evaluation,
            "level_date": level_date_unix,
        }),
    }
}

fn guest(guest: &Guest) -> Value {
    match guest {
        Guest::Nitro => Value::Null,
        Guest::Snp { policy, vmpl, svn } => json!({
            "policy": format!("{:#x}", policy.0),
            "migration_agent": policy.allows_migration_agent(),
            "smt": policy.allows_smt(),
            "vmpl": vmpl,
            "svn": svn,
        }),
        Guest::Sgx { attributes, product, svn } => {
            json!({ "attributes": hex::encode(attributes), "product": product, "svn": svn })
        }
        Guest::Tdx { attributes } => json!({ "attributes": hex::encode(attributes) }),
    }
}

impl Claims {
    /// The claims as one JSON object: bytes in lower-case hex, times in seconds since the Unix epoch, what there is not as null.
    pub fn to_json(&self) -> Value {
        let hexed = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(hex::encode);
        let measurements: Map<String, Value> = self
            .measurements
            .iter()
            .map(|(register, value)| (register.to_string(), hex::encode(value).into()))
            .collect();
        json!({
            "platform": self.platform.id(),
            "measurements": measurements,
            "bound": {
                "user_data": hexed(&self.bound.user_data),
                "nonce": hexed(&self.bound.nonce),
                "public_key": hexed(&self.bound.public_key),
                "report_data": self.bound.report_data.map(hex::encode),
            },
            "tcb": self.tcb.as_ref().map(tcb),
            "debug": self.debug.is_some(),
            "identity": self.identity.to_string(),
            "guest": guest(&self.guest),
            "issued_at": self.issued_at_unix(),
            "valid_until": self.valid_until_unix,
            "revocation_checked": self.revocation_checked,
            "root": { "subject": self.anchor_subject, "sha256": hex::encode(self.anchor_fingerprint) },
        })
    }
}
