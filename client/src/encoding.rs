//! How bytes stand in the files of a home: base64 for secrets, hex for what people compare.

/// Arrays as lower-case hex.
pub(crate) mod hexed {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer, const N: usize>(bytes: &[u8; N], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(from: D) -> Result<[u8; N], D::Error> {
        let text = String::deserialize(from)?;
        let mut out = [0; N];
        hex::decode_to_slice(&text, &mut out).map_err(|_| D::Error::custom(format!("expected {N} bytes as hex")))?;
        Ok(out)
    }
}

/// Secret arrays as base64; every intermediate copy of ours is wiped.
pub(crate) mod secret {
    use data_encoding::BASE64;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use zeroize::Zeroizing;

    pub(crate) fn serialize<S: Serializer>(bytes: &Zeroizing<[u8; 32]>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&Zeroizing::new(BASE64.encode(bytes.as_slice())))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Zeroizing<[u8; 32]>, D::Error> {
        let text = Zeroizing::new(String::deserialize(from)?);
        let bytes = Zeroizing::new(BASE64.decode(text.as_bytes()).map_err(|_| D::Error::custom("expected base64"))?);
        let mut out = Zeroizing::new([0; 32]);
        if bytes.len() != out.len() {
            return Err(D::Error::custom("expected 32 bytes as base64"));
        }
        out.copy_from_slice(&bytes);
        Ok(out)
    }
}

/// Heads, field by field.
pub(crate) mod head {
    use casemate_protocol::head::Head;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Form {
        version: u64,
        #[serde(with = "super::hexed")]
        hash: [u8; 32],
        #[serde(with = "super::hexed")]
        tag: [u8; 32],
    }

    #[allow(clippy::ref_option)] // serde hands the field over as it is.
    pub(crate) fn serialize<S: Serializer>(head: &Option<Head>, to: S) -> Result<S::Ok, S::Error> {
        head.map(|Head { version, hash, tag }| Form { version, hash, tag }).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Head>, D::Error> {
        let form = Option::<Form>::deserialize(from)?;
        Ok(form.map(|Form { version, hash, tag }| Head { version, hash, tag }))
    }
}

/// Vault ids as their text.
pub(crate) mod vault_id {
    use casemate_protocol::id::VaultId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(vault: &VaultId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(vault)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<VaultId, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}
