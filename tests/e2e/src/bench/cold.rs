//! How often the key service is asked while many vaults of one shard start cold.

use casemate_protocol::id::Shard;
use serde_json::Value;

use super::Result;
use super::vault::Maker;
use crate::Node;

/// Cold starts.
const STARTS: usize = 1000;
/// Vaults that take turns, all of one shard.
const VAULTS: usize = 8;

/// Calls that the key service answered during 1,000 cold starts in one shard, after a start of the enclave, which knows no key then.
pub(super) async fn kms_calls(node: &mut Node) -> Result<u64> {
    let maker = Maker::new(node).await?;
    let mut vaults = vec![maker.create().await?];
    let shard: Shard = vaults[0].id().shard();
    while vaults.len() < VAULTS {
        vaults.push(maker.create_in(shard).await?);
    }
    for vault in &vaults {
        vault.put(b"value").await?;
    }
    node.enclave = None;
    node.await_health(503);
    node.start_enclave();
    node.await_health(200);
    let before = answered(node)?;
    for number in 0..STARTS {
        let vault = &vaults[number % VAULTS];
        vault.get().await?;
        vault.evict(node)?;
    }
    Ok(answered(node)? - before)
}

fn answered(node: &Node) -> Result<u64> {
    let status: Value = serde_json::from_str(&node.kms_control(&["counts"]))?;
    let counts = status["counts"].as_object().ok_or("counts")?;
    Ok(counts
        .values()
        .filter_map(Value::as_object)
        .flat_map(|outcomes| outcomes.values().filter_map(Value::as_u64))
        .sum())
}
