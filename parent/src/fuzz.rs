//! What must hold for any bytes at all, one plain function for each family of parsers: for coverage-guided fuzzing
//! (`parent/fuzz`), and replayed by the tests over corpora.
//!
//! Each returns whether the bytes were taken, and panics when a promise is broken. What comes over NATS and from the enclave is
//! parsed by `casemate-protocol`, which has functions of its own.

use casemate_protocol::codec;
use casemate_protocol::link::{CONTROL_BYTES, ControlCall};
use casemate_protocol::trust::TrustConfiguration;

use crate::admin::Order;
use crate::aws;
use crate::config::Config;

/// The operator's configuration.
///
/// # Panics
/// When one is taken that the enclave could not read, or that exceeds a bound; when a refusal says nothing.
pub fn parent_configurations(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let config = match Config::parse(text, |_| None) {
        Ok(config) => config,
        Err(error) => {
            assert!((1..4096).contains(&error.to_string().len()), "a refusal is for people");
            return false;
        }
    };
    let trust_configuration = config.trust_configuration;
    assert!(TrustConfiguration::decode(&trust_configuration).is_ok(), "the enclave reads what it is handed");
    let tuning = config.tuning;
    assert!((1..=100_000).contains(&tuning.vault_limit) && (1..=1024).contains(&tuning.queue_per_vault));
    assert!(tuning.memory_low_percent < tuning.memory_high_percent && tuning.memory_high_percent <= 95);
    assert!(tuning.shard_key_ttl_ms <= tuning.shard_key_hard_ms && tuning.shard_key_hard_ms <= 86_400_000);
    let call = codec::encode(&ControlCall::Configure { trust_configuration, tuning });
    assert!(call.len() <= CONTROL_BYTES);
    assert!(config.shards.is_none_or(|shards| (1..256).contains(&shards.len()) && shards.is_sorted()));
    assert!(config.kms.dial.iter().all(|(name, _)| config.kms.allow.contains(name)), "nothing is dialled unasked");
    true
}

/// An answer of the instance metadata service, and a line of the admin socket.
///
/// # Panics
/// When credentials are taken that the enclave could not be handed.
pub fn answers(bytes: &[u8]) -> bool {
    let credentials = aws::read_credentials(bytes);
    if let Ok(credentials) = &credentials {
        let call = codec::encode(&ControlCall::Credentials {
            access_key_id: credentials.access_key_id.clone(),
            secret_access_key: credentials.secret_access_key.clone(),
            session_token: credentials.session_token.clone(),
        });
        assert!(call.len() <= CONTROL_BYTES.min(bytes.len() + 64));
    }
    credentials.is_ok() || serde_json::from_slice::<Order>(bytes).is_ok()
}
