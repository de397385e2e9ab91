//! The attestation document as the security module writes it, made with other libraries than those that read it.

use casemate_attestation::Pcrs;
use ciborium::Value;

/// What a security module says of an enclave.
#[derive(Debug, Clone, Default)]
pub struct SimulatedDocument {
    /// The registers to list.
    pub pcrs: Pcrs,
    /// Bound as `user_data`.
    pub user_data: Option<Vec<u8>>,
    /// Bound as `nonce`.
    pub nonce: Option<Vec<u8>>,
    /// Bound as `public_key`.
    pub public_key: Option<Vec<u8>>,
    /// The security module's name.
    pub module_id: String,
    /// When it is made, in milliseconds since the Unix epoch.
    pub timestamp_unix_ms: u64,
}

impl SimulatedDocument {
    /// A document of an enclave that measures as `pcrs` (PCR0–2) and binds nothing.
    pub fn measuring(pcrs: [[u8; 48]; 3], timestamp_unix_ms: u64) -> Self {
        let mut registers: Pcrs = (0..16).map(|index| (index, [0; 48])).collect();
        for (index, value) in (0..).zip(pcrs) {
            registers.insert(index, value);
        }
        Self {
            pcrs: registers,
            module_id: "i-0123456789abcdef0-enc0123456789abcdef".to_owned(),
            timestamp_unix_ms,
            ..Self::default()
        }
    }

    /// The fields in the order in which Nitro writes them.
    pub(crate) fn fields(&self, certificate: Vec<u8>, cabundle: Vec<Vec<u8>>) -> Vec<(Value, Value)> {
        let optional = |bytes: &Option<Vec<u8>>| bytes.clone().map_or(Value::Null, Value::Bytes);
        let pcrs = self.pcrs.iter().map(|(index, value)| (Value::from(index), Value::Bytes(value.to_vec())));
        [
            ("module_id", Value::from(self.module_id.as_str())),
            ("digest", Value::from("SHA384")),
            ("timestamp", Value::from(self.timestamp_unix_ms)),
            ("pcrs", Value::Map(pcrs.collect())),
            ("certificate", Value::Bytes(certificate)),
            ("cabundle", Value::Array(cabundle.into_iter().map(Value::Bytes).collect())),
            ("public_key", optional(&self.public_key)),
            ("user_data", optional(&self.user_data)),
            ("nonce", optional(&self.nonce)),
        ]
        .into_iter()
        .map(|(name, value)| (Value::from(name), value))
        .collect()
    }
}
