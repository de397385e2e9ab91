//! Evidence as it lies in files and travels over HTTP: the bytes themselves, base64 of them, or a JSON object with all that goes along.
//!
//! ```json
//! { "evidence": "<base64>", "certificates": ["<base64, leaf first>"], "collateral": { … } }
//! ```
//!
//! `collateral` is, for SGX and TDX, the object that [`IntelCollateral`] reads, or base64 of its JSON; for SEV-SNP revocation lists,
//! as base64, a list of it, or `{ "crls": […] }`.

use serde::Deserialize;
use serde_json::Value;

use crate::intel::{CollateralError, IntelCollateral};
use crate::{Collateral, MAX_EVIDENCE_BYTES, Platform, encoding};

/// The largest bundle that is read: evidence and collateral in text.
pub const MAX_BUNDLE_BYTES: usize = 512 * 1024;
/// The most certificates and the most revocation lists.
const MAX_ITEMS: usize = 16;

/// Evidence and what goes along. Nothing in it is verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The evidence.
    pub evidence: Vec<u8>,
    /// What goes along.
    pub collateral: Collateral,
}

/// Why a file holds no evidence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// More than any bundle has.
    #[error("the file has {found} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// JSON of another form.
    #[error("the bundle cannot be read: {0}")]
    Json(String),
    /// Text that is no base64.
    #[error("the bundle's `{key}` is not base64")]
    Base64 {
        /// Where.
        key: &'static str,
    },
    /// More of something than evidence goes with.
    #[error("the bundle's `{key}` has {found} items, at most {MAX_ITEMS} are allowed")]
    TooMany {
        /// Where.
        key: &'static str,
        /// How many.
        found: usize,
    },
    /// What Intel says of the platform cannot be read.
    #[error(transparent)]
    Collateral(#[from] CollateralError),
}

#[derive(Deserialize)]
struct Object {
    evidence: String,
    #[serde(default)]
    certificates: Vec<String>,
    #[serde(default)]
    collateral: Value,
}

impl Bundle {
    /// Tells by itself what `bytes` are.
    ///
    /// # Errors
    ///
    /// When they are JSON or text, and cannot be read as such. Other bytes are taken for evidence, of whatever kind.
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        if bytes.len() > MAX_BUNDLE_BYTES {
            return Err(BundleError::TooLarge { found: bytes.len(), limit: MAX_BUNDLE_BYTES });
        }
        let raw = |evidence: &[u8]| Self { evidence: evidence.to_vec(), collateral: Collateral::NONE };
        if Platform::of(bytes).is_some() {
            return Ok(raw(bytes));
        }
        let trimmed = bytes.trim_ascii();
        if trimmed.first() == Some(&b'{') {
            let object = serde_json::from_slice(trimmed).map_err(|error| BundleError::Json(error.to_string()))?;
            return Self::from_object(object);
        }
        match std::str::from_utf8(trimmed).ok().and_then(encoding::base64) {
            Some(evidence) if !evidence.is_empty() => Ok(raw(&evidence)),
            _ => Ok(raw(bytes)),
        }
    }

    /// Reads a bundle that was read as JSON already.
    ///
    /// # Errors
    ///
    /// When it is of another form.
    pub fn from_value(value: Value) -> Result<Self, BundleError> {
        Self::from_object(serde_json::from_value(value).map_err(|error| BundleError::Json(error.to_string()))?)
    }

    fn from_object(object: Object) -> Result<Self, BundleError> {
        let evidence = encoding::base64(&object.evidence).ok_or(BundleError::Base64 { key: "evidence" })?;
        let certificates = decode_all("certificates", &object.certificates)?;
        let collateral = match object.collateral {
            Value::Null => Collateral::snp(certificates, Vec::new()),
            value if is_intel(&evidence) => {
                let mut value = match value {
                    Value::String(text) => {
                        let json = encoding::base64(&text).ok_or(BundleError::Base64 { key: "collateral" })?;
                        serde_json::from_slice(&json).map_err(|error| BundleError::Json(error.to_string()))?
                    }
                    value => value,
                };
                // A quote that carries no certificates of its own has them beside it.
                if let Some(object) = value.as_object_mut().filter(|_| !certificates.is_empty()) {
                    object.entry("pck_certificate_chain").or_insert_with(|| Value::String(pem(&certificates)));
                }
                Collateral::intel(IntelCollateral::from_value(value)?)
            }
            value => Collateral::snp(certificates, crls(value)?),
        };
        Ok(Self { evidence, collateral })
    }
}

fn is_intel(evidence: &[u8]) -> bool {
    evidence.len() <= MAX_EVIDENCE_BYTES && matches!(Platform::of(evidence), Some(Platform::Sgx | Platform::Tdx))
}

fn decode_all(key: &'static str, texts: &[String]) -> Result<Vec<Vec<u8>>, BundleError> {
    if texts.len() > MAX_ITEMS {
        return Err(BundleError::TooMany { key, found: texts.len() });
    }
    texts.iter().map(|text| encoding::base64(text).ok_or(BundleError::Base64 { key })).collect()
}

fn crls(value: Value) -> Result<Vec<Vec<u8>>, BundleError> {
    const KEY: &str = "collateral";
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Lists {
        One(String),
        Many(Vec<String>),
        Named {
            #[serde(default, alias = "crl")]
            crls: Vec<String>,
        },
    }
    let lists: Lists = serde_json::from_value(value).map_err(|error| BundleError::Json(format!("{KEY}: {error}")))?;
    match lists {
        Lists::One(text) => decode_all(KEY, &[text]),
        Lists::Many(texts) | Lists::Named { crls: texts } => decode_all(KEY, &texts),
    }
}

fn pem(certificates: &[Vec<u8>]) -> String {
    let mut text = String::new();
    for certificate in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in data_encoding::BASE64.encode(certificate).as_bytes().chunks(64) {
            text.extend(line.iter().map(|byte| char::from(*byte)));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Vec<u8> {
        let mut bytes = vec![0; crate::snp::REPORT_BYTES];
        (bytes[0], bytes[0x34]) = (3, 1);
        bytes
    }

    #[test]
    fn the_three_forms_are_told_apart() {
        let (report, text) = (report(), data_encoding::BASE64.encode(&report()));
        let raw = Bundle { evidence: report.clone(), collateral: Collateral::NONE };
        assert_eq!(Bundle::parse(&report), Ok(raw.clone()));
        let wrapped = text.as_bytes().chunks(76).collect::<Vec<_>>().join(&b'\n');
        for text in [text.as_bytes(), &wrapped] {
            assert_eq!(Bundle::parse(text), Ok(raw.clone()));
        }
        let crl = r#""collateral": {"crls": ["AwQ="]}"#;
        for crl in [crl, r#""collateral": ["AwQ="]"#, r#""collateral": "AwQ=""#] {
            let bundle = format!(r#" {{"evidence": "{text}", "certificates": ["AQI="], {crl}}}"#);
            let bundle = Bundle::parse(bundle.as_bytes()).unwrap();
            assert_eq!(bundle.collateral, Collateral::snp(vec![vec![1, 2]], vec![vec![3, 4]]));
        }
        assert_eq!(Bundle::parse(b"").unwrap().evidence, b"");
        assert_eq!(Bundle::parse(b"not base64!").unwrap().evidence, b"not base64!");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refusal = |text: &str| Bundle::parse(text.as_bytes()).unwrap_err();
        assert!(matches!(refusal("{"), BundleError::Json(_)));
        assert!(matches!(refusal(r#"{"certificates": []}"#), BundleError::Json(_)));
        assert_eq!(refusal(r#"{"evidence": "*"}"#), BundleError::Base64 { key: "evidence" });
        assert_eq!(refusal(r#"{"evidence": "", "certificates": ["*"]}"#), BundleError::Base64 { key: "certificates" });
        let many = vec!["\"\""; 17].join(",");
        let many = refusal(&format!(r#"{{"evidence": "", "certificates": [{many}]}}"#));
        assert_eq!(many, BundleError::TooMany { key: "certificates", found: 17 });
        let large = Bundle::parse(&vec![b' '; MAX_BUNDLE_BYTES + 1]).unwrap_err();
        assert!(matches!(large, BundleError::TooLarge { .. }));
        let quote = data_encoding::BASE64.encode(&[[3, 0, 2, 0].as_slice(), &[0; 60]].concat());
        let refused = refusal(&format!(r#"{{"evidence": "{quote}", "collateral": {{}}}}"#));
        assert!(matches!(refused, BundleError::Collateral(_)), "{refused}");
    }
}
