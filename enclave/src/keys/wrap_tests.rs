use casemate_protocol::id::Shard;
use proptest::prelude::*;

use super::super::fakes::CountingRandomness;
use super::super::stored::{SealedShardKey, Slot};
use super::*;

const VAULT: VaultId = VaultId::from_bytes([0xab; 20]);

fn shard_key(key: u8, generation: u32, blob: &[u8]) -> ShardKey {
    let slot = Slot { shard: Shard(0xab), generation };
    ShardKey::new(Zeroizing::new([key; 32]), SealedShardKey::new(slot, blob).unwrap())
}

fn wrapped() -> WrappedVaultKey {
    WrappedVaultKey::seal(&shard_key(1, 7, b"sealed shard key"), VAULT, &[0x42; 32], &CountingRandomness::default())
}

#[test]
fn golden_bytes() {
    let expected = concat!(
        "a600010154abababababababababababababababababababab0207035820000102030405060708090a0b0c0d0e0f10111213",
        "1415161718191a1b1c1d1e1f04507365616c6564207368617264206b657905583095a1a5a56e5a30d385e00cce53f12e7fef",
        "5eaf1f271222c7192e97dcd3612b4d419448ccae819178008cd67f26a3a391"
    );
    assert_eq!(hex::encode(wrapped().to_bytes()), expected);
    let read = WrappedVaultKey::from_bytes(&hex::decode(expected).unwrap()).unwrap();
    assert_eq!(*read.open(&shard_key(1, 7, b"sealed shard key"), VAULT, 7).unwrap(), [0x42; 32]);
}

/// The golden bytes made a second time from the words of the module's page, with nothing of its code but the primitives.
#[test]
fn the_page_tells_all_that_is_needed() {
    fn field(out: &mut Vec<u8>, bytes: &[u8]) {
        out.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_be_bytes());
        out.extend_from_slice(bytes);
    }
    fn label(text: &str) -> Vec<u8> {
        [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
    }
    let salt: Vec<u8> = (0..32).collect();
    let mut info = label("casemate/vault-key-wrap/v1");
    field(&mut info, &[0xab; 20]);
    field(&mut info, &[0, 0, 0, 7]);
    let mut key = [0; 32];
    hkdf::Hkdf::<Sha256>::new(Some(&salt), &[1; 32]).expand(&info, &mut key).unwrap();
    let mut aad = label("casemate/vault-key-wrap-aad/v1");
    field(&mut aad, &[1]);
    field(&mut aad, &[0xab; 20]);
    field(&mut aad, &[0, 0, 0, 7]);
    field(&mut aad, &Sha256::digest(b"sealed shard key"));
    let sealed =
        Aes256Gcm::new((&key).into()).encrypt(&Nonce::default(), Payload { msg: &[0x42; 32], aad: &aad }).unwrap();
    let mut bytes = vec![0xa6, 0x00, 0x01, 0x01, 0x54];
    bytes.extend_from_slice(&[0xab; 20]);
    bytes.extend_from_slice(&[0x02, 0x07, 0x03, 0x58, 0x20]);
    bytes.extend_from_slice(&salt);
    bytes.extend_from_slice(&[0x04, 0x50]);
    bytes.extend_from_slice(b"sealed shard key");
    bytes.extend_from_slice(&[0x05, 0x58, 0x30]);
    bytes.extend_from_slice(&sealed);
    assert_eq!(hex::encode(bytes), hex::encode(wrapped().to_bytes()));
}

#[test]
fn every_flip_is_refused() {
    let bytes = wrapped().to_bytes();
    let key = shard_key(1, 7, b"sealed shard key");
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let opened = WrappedVaultKey::from_bytes(&flipped).and_then(|wrapped| {
            // The hostile host also gives the matching shard key's copy, so that only the AAD is left to refuse.
            let key = shard_key(1, wrapped.generation(), wrapped.shard_blob());
            wrapped.open(&key, wrapped.vault(), wrapped.generation())
        });
        assert!(opened.is_err(), "bit {bit}");
    }
    for end in 0..bytes.len() {
        assert_eq!(WrappedVaultKey::from_bytes(&bytes[..end]), Err(WrapError::Malformed), "cut at {end}");
    }
    assert_eq!(WrappedVaultKey::from_bytes(&[&bytes[..], &[0]].concat()), Err(WrapError::Malformed));
    assert!(WrappedVaultKey::from_bytes(&bytes).unwrap().open(&key, VAULT, 7).is_ok());
}

#[test]
fn says_what_does_not_fit() {
    let wrapped = wrapped();
    let open = |key: &ShardKey, vault, generation| wrapped.open(key, vault, generation).map(|_| ());
    let right = shard_key(1, 7, b"sealed shard key");
    assert_eq!(open(&right, VaultId::from_bytes([0xac; 20]), 7), Err(WrapError::OtherVault));
    assert_eq!(open(&right, VAULT, 8), Err(WrapError::OtherVault));
    assert_eq!(open(&shard_key(1, 7, b"another blob"), VAULT, 7), Err(WrapError::OtherShardKey));
    assert_eq!(open(&shard_key(1, 8, b"sealed shard key"), VAULT, 7), Err(WrapError::OtherShardKey));
    assert_eq!(open(&shard_key(2, 7, b"sealed shard key"), VAULT, 7), Err(WrapError::Forged));
    assert_eq!(open(&right, VAULT, 7), Ok(()));
}

#[test]
fn reads_one_encoding_only() {
    let bytes = wrapped().to_bytes();
    // An eighth field, known to nobody: optional on the wire, but no part of what is authenticated here.
    let mut more = bytes.clone();
    more[0] = 0xa7;
    more.extend_from_slice(&[0x06, 0x00]);
    assert_eq!(WrappedVaultKey::from_bytes(&more), Err(WrapError::Malformed));
    // The generation in two bytes instead of one.
    let at = bytes.windows(2).position(|window| window == [0x02, 0x07]).unwrap();
    let longer = [&bytes[..=at], &[0x18, 0x07], &bytes[at + 2..]].concat();
    assert_eq!(WrappedVaultKey::from_bytes(&longer), Err(WrapError::Malformed));
    let mut other_format = bytes;
    other_format[2] = 2;
    assert_eq!(WrappedVaultKey::from_bytes(&other_format), Err(WrapError::Malformed));
    assert_eq!(WrappedVaultKey::from_bytes(&[0xa6; 5_000]), Err(WrapError::Malformed));
}

#[test]
fn each_wrapping_has_its_own_salt() {
    let (randomness, key) = (CountingRandomness::default(), shard_key(1, 7, b"sealed shard key"));
    let first = WrappedVaultKey::seal(&key, VAULT, &[0x42; 32], &randomness);
    let second = WrappedVaultKey::seal(&key, VAULT, &[0x42; 32], &randomness);
    assert_ne!(first.salt, second.salt);
    assert_ne!(first.ciphertext, second.ciphertext);
}

proptest! {
    #[test]
    fn wrapping_round_trips(
        vault_key in any::<[u8; 32]>(),
        vault in any::<[u8; 20]>(),
        generation in any::<u32>(),
        key in any::<[u8; 32]>(),
        blob in proptest::collection::vec(any::<u8>(), 1..=SHARD_BLOB_BYTES),
    ) {
        let vault = VaultId::from_bytes(vault);
        let sealed = SealedShardKey::new(Slot { shard: vault.shard(), generation }, &blob).unwrap();
        let shard_key = ShardKey::new(Zeroizing::new(key), sealed);
        let wrapped = WrappedVaultKey::seal(&shard_key, vault, &vault_key, &CountingRandomness::default());
        let bytes = wrapped.to_bytes();
        prop_assert!(bytes.len() <= limits::WRAPPED_KEY_BYTES);
        let read = WrappedVaultKey::from_bytes(&bytes).unwrap();
        prop_assert_eq!(&read, &wrapped);
        prop_assert_eq!(*read.open(&shard_key, vault, generation).unwrap(), vault_key);
    }

    #[test]
    fn any_bytes_may_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        crate::fuzz::stored_keys(&bytes);
    }

    #[test]
    fn any_change_may_be_read(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = wrapped().to_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        crate::fuzz::stored_keys(&bytes);
    }
}
