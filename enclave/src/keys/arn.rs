//! The pinned key: the full ARN of one KMS key, as the trust configuration names it.

use std::fmt;
use std::str::FromStr;

/// The full ARN of a KMS key: `arn:aws:kms:<region>:<account>:key/<id>`.
///
/// An alias is not accepted: whoever may repoint it could put another key, with another policy, in this one's place.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyArn {
    arn: String,
    region: std::ops::Range<usize>,
}

/// A text that is no ARN of a KMS key which this enclave can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyArnError {
    /// Not of the form of a key's ARN.
    #[error(
        "`{0}` is no ARN of a KMS key; write arn:aws:kms:REGION:ACCOUNT:key/ID in full (no alias: an alias can be repointed)"
    )]
    Form(String),
    /// A partition whose endpoints and roots are not known here.
    #[error(
        "partition `{0}` is not supported; only `aws` and `aws-us-gov` have endpoints under amazonaws.com with Amazon's roots"
    )]
    Partition(String),
}

/// Longest ARN that is read; the trust configuration has the same bound.
const MAX_ARN: usize = 256;

impl FromStr for KeyArn {
    type Err = KeyArnError;

    fn from_str(text: &str) -> Result<Self, KeyArnError> {
        let shown: String = text.chars().filter(|c| !c.is_control()).take(MAX_ARN).collect();
        let form = || KeyArnError::Form(shown.clone());
        if text.len() > MAX_ARN {
            return Err(form());
        }
        // One more than there are: that one holds all the rest, however many colons there are.
        let parts: Vec<&str> = text.splitn(7, ':').collect();
        let ["arn", partition, "kms", region, account, resource] = parts[..] else { return Err(form()) };
        let id = resource.strip_prefix("key/").ok_or_else(form)?;
        let is_label = |text: &str, max: usize| {
            (1..=max).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        // The region becomes part of a host name: nothing but a label may stand there.
        let region_is_label = is_label(region, 32) && !region.starts_with('-') && !region.ends_with('-');
        let account_is_number = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        if !(is_label(partition, 32) && region_is_label && account_is_number && is_label(id, 64)) {
            return Err(form());
        }
        if !matches!(partition, "aws" | "aws-us-gov") {
            return Err(KeyArnError::Partition(partition.to_owned()));
        }
        let start = "arn::kms:".len() + partition.len();
        Ok(Self { arn: text.to_owned(), region: start..start + region.len() })
    }
}

impl KeyArn {
    /// The ARN's text.
    pub fn as_str(&self) -> &str {
        &self.arn
    }

    /// The region that the key lives in.
    pub fn region(&self) -> &str {
        &self.arn[self.region.clone()]
    }

    /// The host name of KMS in that region.
    pub fn endpoint_host(&self) -> String {
        format!("kms.{}.amazonaws.com", self.region())
    }
}

impl fmt::Display for KeyArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.arn)
    }
}

impl fmt::Debug for KeyArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_keys_and_their_regions() {
        for (arn, region) in [
            ("arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab", "eu-central-1"),
            ("arn:aws:kms:us-east-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab", "us-east-1"),
            ("arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/1234abcd", "us-gov-west-1"),
        ] {
            let key: KeyArn = arn.parse().unwrap();
            assert_eq!(key.as_str(), arn);
            assert_eq!(key.region(), region);
            assert_eq!(key.endpoint_host(), format!("kms.{region}.amazonaws.com"));
        }
    }

    #[test]
    fn refuses_what_could_lead_elsewhere() {
        for arn in [
            "",
            "alias/casemate",
            "1234abcd-12ab-34cd-56ef-1234567890ab",
            "arn:aws:kms:eu-central-1:111122223333:alias/casemate",
            "arn:aws:s3:eu-central-1:111122223333:key/1234abcd",
            "arn:aws:kms:evil.example/:111122223333:key/1234abcd",
            "arn:aws:kms:eu.central:111122223333:key/1234abcd",
            "arn:aws:kms::111122223333:key/1234abcd",
            "arn:aws:kms:-:111122223333:key/1234abcd",
            "arn:aws:kms:eu-central-1:1111:key/1234abcd",
            "arn:aws:kms:eu-central-1:111122223333:key/",
            "arn:aws:kms:eu-central-1:111122223333:key/a:b",
            "arn:aws:kms:eu-central-1:111122223333:key/a\n",
        ] {
            assert!(matches!(arn.parse::<KeyArn>(), Err(KeyArnError::Form(_))), "{arn}");
        }
        assert_eq!(
            "arn:aws-cn:kms:cn-north-1:111122223333:key/1234abcd".parse::<KeyArn>(),
            Err(KeyArnError::Partition("aws-cn".to_owned()))
        );
    }
}
