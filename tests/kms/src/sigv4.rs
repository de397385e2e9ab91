//! Who calls: AWS Signature Version 4, verified as the real service does.
//!
//! Only what the KMS JSON API needs: a request to `/` without a query, signed in its `Authorization` header. The
//! canonical form follows AWS's "Create a signed AWS API request"; the tests hold it to AWS's published signing suite.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::{constant_time, digest, hmac};
use zeroize::Zeroizing;

/// How far the caller's clock may be from ours, in seconds.
pub const MAX_SKEW_SECONDS: u64 = 300;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const MAX_SIGNED_HEADERS: usize = 64;

/// A principal and the key that it signs with.
#[derive(Clone)]
pub struct Caller {
    /// Access key id, as it stands in `Credential=`.
    pub access_key: String,
    /// Secret access key.
    pub secret_key: Zeroizing<String>,
    /// Session token of temporary credentials; when set, each request must carry it, when not, none may.
    pub session_token: Option<Zeroizing<String>>,
    /// Who this is to the key policy: the ARN of the role, not of its session.
    pub principal_arn: String,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("access_key", &self.access_key)
            .field("secret_key", &"redacted")
            .field("session_token", &self.session_token.as_ref().map(|_| "redacted"))
            .field("principal_arn", &self.principal_arn)
            .finish()
    }
}

/// Why a request is not believed to come from a caller. Each maps to one exception of the real service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No `Authorization` header.
    #[error("Missing Authentication Token: sign the request with AWS Signature Version 4")]
    Missing,
    /// The header is there but cannot be read, or leaves out what must be signed.
    #[error("{0}")]
    Incomplete(&'static str),
    /// No such access key, or not its session token.
    #[error("The security token included in the request is invalid.")]
    UnknownCaller,
    /// The clock of the caller differs from ours by more than [`MAX_SKEW_SECONDS`].
    #[error(
        "Signature expired or not yet current: the request's date must be within 5 minutes of the service's; set the clock"
    )]
    Skewed,
    /// The credential is scoped to another day, region or service.
    #[error("Credential should be scoped to a valid region and to the service '{service}': expected '{expected}'")]
    Scope {
        /// The service that was expected.
        service: String,
        /// The whole scope that was expected.
        expected: String,
    },
    /// The signature is not ours.
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key \
         and signing method."
    )]
    Mismatch,
}

/// What of a request is signed.
#[derive(Debug, Clone, Copy)]
pub struct SignedRequest<'a> {
    /// HTTP method, upper case.
    pub method: &'a str,
    /// The path and query, which must be exactly `/`.
    pub path_and_query: &'a str,
    /// All headers in the order in which they came, names in any case.
    pub headers: &'a [(String, String)],
    /// The whole body.
    pub body: &'a [u8],
}

impl SignedRequest<'_> {
    /// Values of one header joined by commas, trimmed and with runs of spaces made one, as the canonical form wants it.
    fn canonical_value(&self, name: &str) -> Option<String> {
        let values: Vec<String> = self
            .headers
            .iter()
            .filter(|(header, _)| header.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "))
            .collect();
        (!values.is_empty()).then(|| values.join(","))
    }

    /// The value of a header that may come only once.
    fn single(&self, name: &str) -> Result<Option<&str>, SignatureError> {
        let mut values = self.headers.iter().filter(|(header, _)| header.eq_ignore_ascii_case(name));
        let first = values.next().map(|(_, value)| value.trim());
        if values.next().is_some() {
            return Err(SignatureError::Incomplete("a header of the signature came twice: send it once"));
        }
        Ok(first)
    }
}

/// The `Authorization` header, taken apart but not judged.
struct Authorization<'a> {
    access_key: &'a str,
    scope: &'a str,
    signed_headers: Vec<&'a str>,
    signature: &'a str,
}

impl<'a> Authorization<'a> {
    fn parse(header: &'a str) -> Result<Self, SignatureError> {
        let fields = header
            .strip_prefix(ALGORITHM)
            .filter(|rest| rest.starts_with(' '))
            .ok_or(SignatureError::Incomplete("Authorization must use AWS4-HMAC-SHA256"))?;
        let mut named = BTreeMap::new();
        for field in fields.split(',') {
            let (name, value) = field
                .trim()
                .split_once('=')
                .ok_or(SignatureError::Incomplete("Authorization holds a field that is not name=value"))?;
            if named.insert(name, value).is_some() {
                return Err(SignatureError::Incomplete("Authorization names a field twice"));
            }
        }
        let mut take =
            |name, missing| named.remove(name).filter(|v| !v.is_empty()).ok_or(SignatureError::Incomplete(missing));
        let credential = take("Credential", "Authorization requires 'Credential' parameter")?;
        let signed_headers = take("SignedHeaders", "Authorization requires 'SignedHeaders' parameter")?;
        let signature = take("Signature", "Authorization requires 'Signature' parameter")?;
        let (access_key, scope) = credential.split_once('/').ok_or(SignatureError::Incomplete(
            "Credential must be <access key>/<date>/<region>/<service>/aws4_request",
        ))?;
        let signed_headers: Vec<&str> = signed_headers.split(';').collect();
        if signed_headers.len() > MAX_SIGNED_HEADERS {
            return Err(SignatureError::Incomplete("SignedHeaders names more than 64 headers"));
        }
        // The signer sorts them and lower-cases them; another order would make one request sign in two ways.
        let canonical = signed_headers.windows(2).all(|pair| pair[0] < pair[1])
            && signed_headers.iter().all(|name| !name.bytes().any(|byte| byte.is_ascii_uppercase()));
        if !canonical {
            return Err(SignatureError::Incomplete("SignedHeaders must be lower case, sorted and without repetition"));
        }
        Ok(Self { access_key, scope, signed_headers, signature })
    }
}

/// Checks signatures for one region and service.
#[derive(Debug)]
pub struct Verifier {
    region: String,
    service: String,
    callers: Vec<Caller>,
}

impl Verifier {
    /// A verifier that knows `callers` and accepts only scopes of `region` and `service`.
    pub fn new(region: &str, service: &str, callers: Vec<Caller>) -> Self {
        Self { region: region.to_owned(), service: service.to_owned(), callers }
    }

    /// Finds the caller who signed `request` within [`MAX_SKEW_SECONDS`] of `now_unix`.
    ///
    /// # Errors
    /// [`SignatureError`], whenever the request differs from what a known caller signed in any signed byte.
    pub fn verify(&self, request: &SignedRequest<'_>, now_unix: u64) -> Result<&Caller, SignatureError> {
        if request.path_and_query != "/" {
            return Err(SignatureError::Incomplete("the KMS API lives at '/' and takes no query"));
        }
        let header = request.single("authorization")?.ok_or(SignatureError::Missing)?;
        let authorization = Authorization::parse(header)?;
        check_what_is_signed(request, &authorization)?;

        let caller = self
            .callers
            .iter()
            .find(|caller| caller.access_key == authorization.access_key)
            .ok_or(SignatureError::UnknownCaller)?;
        let token = request.single("x-amz-security-token")?.unwrap_or_default();
        let expected = caller.session_token.as_ref().map_or("", |token| token.as_str());
        constant_time::verify_slices_are_equal(token.as_bytes(), expected.as_bytes())
            .map_err(|_| SignatureError::UnknownCaller)?;

        let date = request
            .single("x-amz-date")?
            .ok_or(SignatureError::Incomplete("Authorization requires existence of an 'X-Amz-Date' header"))?;
        let signed_at =
            unix_from_basic_iso8601(date).ok_or(SignatureError::Incomplete("X-Amz-Date must be YYYYMMDDTHHMMSSZ"))?;
        if signed_at.abs_diff(now_unix) > MAX_SKEW_SECONDS {
            return Err(SignatureError::Skewed);
        }
        let day = &date[..8];
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        if authorization.scope != scope {
            return Err(SignatureError::Scope { service: self.service.clone(), expected: scope });
        }

        let payload_hash = sha256_hex(request.body);
        if let Some(claimed) = request.single("x-amz-content-sha256")?
            && claimed != payload_hash
        {
            return Err(SignatureError::Mismatch);
        }
        let canonical = canonical_request(request, &authorization.signed_headers, &payload_hash)?;
        let to_sign = format!("{ALGORITHM}\n{date}\n{scope}\n{}", sha256_hex(canonical.as_bytes()));
        let key = signing_key(&caller.secret_key, day, &self.region, &self.service);
        let expected = hex::encode(hmac::sign(&key, to_sign.as_bytes()));
        constant_time::verify_slices_are_equal(expected.as_bytes(), authorization.signature.as_bytes())
            .map_err(|_| SignatureError::Mismatch)?;
        Ok(caller)
    }
}

/// `host` and every `x-amz-*` header must be under the signature: an unsigned `x-amz-target` would let whoever sits
/// in the middle turn one operation into another.
fn check_what_is_signed(request: &SignedRequest<'_>, authorization: &Authorization<'_>) -> Result<(), SignatureError> {
    let signed = |name: &str| authorization.signed_headers.contains(&name);
    if !signed("host") {
        return Err(SignatureError::Incomplete("'Host' must be a 'SignedHeader' in the AWS Authorization"));
    }
    let unsigned = request
        .headers
        .iter()
        .map(|(name, _)| name.to_ascii_lowercase())
        .any(|name| name.starts_with("x-amz-") && !signed(&name));
    if unsigned {
        return Err(SignatureError::Incomplete("every 'X-Amz-…' header must be a 'SignedHeader'"));
    }
    Ok(())
}

fn canonical_request(
    request: &SignedRequest<'_>,
    signed_headers: &[&str],
    payload_hash: &str,
) -> Result<String, SignatureError> {
    let mut canonical = format!("{}\n{}\n\n", request.method, request.path_and_query);
    for name in signed_headers {
        let value = request
            .canonical_value(name)
            .ok_or(SignatureError::Incomplete("SignedHeaders names a header that did not arrive"))?;
        canonical.push_str(name);
        canonical.push(':');
        canonical.push_str(&value);
        canonical.push('\n');
    }
    canonical.push('\n');
    canonical.push_str(&signed_headers.join(";"));
    canonical.push('\n');
    canonical.push_str(payload_hash);
    Ok(canonical)
}

fn signing_key(secret_key: &str, day: &str, region: &str, service: &str) -> hmac::Key {
    let first = Zeroizing::new(format!("AWS4{secret_key}"));
    let mut key = hmac::Key::new(hmac::HMAC_SHA256, first.as_bytes());
    for part in [day, region, service, "aws4_request"] {
        key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref());
    }
    key
}

fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}

/// Seconds since 1970 of `YYYYMMDDTHHMMSSZ`, or nothing when it is another form or no such time.
fn unix_from_basic_iso8601(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let number = |range: std::ops::Range<usize>| -> Option<u64> {
        bytes[range]
            .iter()
            .try_fold(0_u64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
    };
    let (year, month, day) = (number(0..4)?, number(4..6)?, number(6..8)?);
    let (hour, minute, second) = (number(9..11)?, number(11..13)?, number(13..15)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60
    {
        return None;
    }
    // Days from the civil calendar, counting years from March so that the leap day is the last of its year.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    let since_epoch = days.checked_sub(719_468)?;
    Some(((since_epoch * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
#[path = "sigv4_tests.rs"]
mod tests;
