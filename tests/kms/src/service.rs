//! The operations: who calls, what the key policy says, then what the operation does. No I/O; the time is a parameter.

use std::sync::OnceLock;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeySize, PrivateDecryptingKey};
use casemate_attestation::{Claims, Register, TrustAnchor};
use data_encoding::BASE64;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::blob::BlobError;
use crate::cms::RecipientKey;
use crate::condition::RequestContext;
use crate::fault::{Mode, Plan};
use crate::policy::{KeyPolicy, PolicyRequest, Verdict};
use crate::recipient::AttestedRecipient;
use crate::sigv4::{Caller, SignatureError, SignedRequest, Verifier};
use crate::state::KmsKey;
use crate::wire::{
    CONTENT_TYPE, DecryptRequest, EncryptionContext, Exception, GenerateDataKeyRequest, MAX_BLOB_BYTES,
    MAX_DATA_KEY_BYTES, Operation, PolicyOnlyRequest, Recipient, check_context,
};

/// The key id in answers of [`Mode::WrongKeyId`], below the region and account of the real one.
const OTHER_KEY_ID: &str = "00000000-0000-4000-8000-000000000000";

/// One key of one account, and everything that decides who may use it.
#[derive(Debug)]
pub struct Kms {
    key: KmsKey,
    policy: KeyPolicy,
    anchor: TrustAnchor,
    verifier: Verifier,
    /// Made when first needed: RSA keys take their time.
    stranger: OnceLock<Option<RecipientKey>>,
}

/// An authenticated call on its way to an answer.
struct Call<'a> {
    operation: Operation,
    caller: &'a Caller,
    body: &'a [u8],
    plan: Plan,
    now_unix: u64,
}

impl Kms {
    /// A service for `key` under `policy`, for callers that sign as `callers` say and evidence under `anchor`.
    pub fn new(key: KmsKey, policy: KeyPolicy, anchor: TrustAnchor, callers: Vec<Caller>) -> Self {
        let verifier = Verifier::new(&key.region, "kms", callers);
        Self { key, policy, anchor, verifier, stranger: OnceLock::new() }
    }

    /// The key's ARN.
    pub fn key_arn(&self) -> String {
        self.key.arn()
    }

    /// Answers one request at `now_unix`, in seconds since 1970.
    ///
    /// # Errors
    /// The exception that the real service would send.
    pub fn answer(
        &self,
        operation: Operation,
        request: &SignedRequest<'_>,
        plan: Plan,
        now_unix: u64,
    ) -> Result<Value, Exception> {
        match plan.mode {
            Mode::Throttle => return Err(Exception::Throttling),
            Mode::Fail => return Err(Exception::KmsInternal("the stand-in was told to fail")),
            _ => {}
        }
        let caller = self.verifier.verify(request, now_unix).map_err(|error| authentication(&error))?;
        let json = request
            .headers
            .iter()
            .any(|(name, value)| name.eq_ignore_ascii_case("content-type") && value.trim() == CONTENT_TYPE);
        if request.method != "POST" || !json {
            return Err(Exception::UnknownOperation);
        }
        let call = Call { operation, caller, body: request.body, plan, now_unix };
        match operation {
            Operation::GenerateDataKey => self.generate_data_key(&call),
            Operation::Decrypt => self.decrypt(&call),
            Operation::DescribeKey => self.describe_key(&call),
            Operation::Encrypt
            | Operation::ReEncrypt
            | Operation::CreateGrant
            | Operation::GenerateDataKeyPair
            | Operation::GenerateDataKeyWithoutPlaintext => self.judge_only(&call),
            Operation::Unknown => Err(Exception::UnknownOperation),
        }
    }

    fn generate_data_key(&self, call: &Call<'_>) -> Result<Value, Exception> {
        let request: GenerateDataKeyRequest = call.parse()?;
        self.check_key_exists(&request.key_id)?;
        check_context(&request.encryption_context)?;
        check_grant_tokens(&request.grant_tokens)?;
        let length = data_key_length(request.key_spec.as_deref(), request.number_of_bytes)?;
        let recipient = self.authorise(call, request.recipient.as_ref(), &request.encryption_context)?;
        if request.dry_run {
            return Err(Exception::DryRunOperation);
        }

        let mut data_key = Zeroizing::new(vec![0; length]);
        getrandom::fill(&mut data_key).map_err(|_| Exception::KmsInternal("no randomness"))?;
        let blob = self
            .key
            .master
            .wrap(&data_key, &request.encryption_context)
            .map_err(|_| Exception::KmsInternal("the data key was not wrapped"))?;
        let mut answer = json!({ "KeyId": self.answered_key_id(call.plan), "CiphertextBlob": BASE64.encode(&blob) });
        self.deliver(&mut answer, &data_key, recipient.as_ref(), call.plan)?;
        Ok(answer)
    }

    fn decrypt(&self, call: &Call<'_>) -> Result<Value, Exception> {
        let request: DecryptRequest = call.parse()?;
        check_context(&request.encryption_context)?;
        check_grant_tokens(&request.grant_tokens)?;
        if request.ciphertext_blob.0.is_empty() || request.ciphertext_blob.0.len() > MAX_BLOB_BYTES {
            return Err(Exception::Validation(format!("CiphertextBlob must be 1 to {MAX_BLOB_BYTES} bytes")));
        }
        if request.encryption_algorithm.as_deref().is_some_and(|algorithm| algorithm != "SYMMETRIC_DEFAULT") {
            return Err(Exception::InvalidKeyUsage);
        }
        let other_key = match request.key_id.as_deref().map(|id| self.names(id)) {
            None | Some(KeyName::Ours) => false,
            Some(KeyName::Other) => true,
            Some(KeyName::NotAKey) => return Err(not_found(request.key_id.as_deref().unwrap_or_default())),
        };
        let recipient = self.authorise(call, request.recipient.as_ref(), &request.encryption_context)?;
        if other_key {
            return Err(Exception::IncorrectKey);
        }

        let opened = self.key.master.unwrap(&request.ciphertext_blob.0, &request.encryption_context);
        let data_key = opened.map_err(|error| {
            match error {
            BlobError::OtherKey => Exception::AccessDenied(
                "The ciphertext refers to a customer master key that does not exist, does not exist in this region, or \
                 you are not allowed to access."
                    .to_owned(),
            ),
            BlobError::Invalid => Exception::InvalidCiphertext,
            BlobError::Encryption => Exception::KmsInternal("the blob was not opened"),
        }
        })?;
        if request.dry_run {
            return Err(Exception::DryRunOperation);
        }
        let mut answer =
            json!({ "KeyId": self.answered_key_id(call.plan), "EncryptionAlgorithm": "SYMMETRIC_DEFAULT" });
        self.deliver(&mut answer, &data_key, recipient.as_ref(), call.plan)?;
        Ok(answer)
    }

    fn describe_key(&self, call: &Call<'_>) -> Result<Value, Exception> {
        let request: PolicyOnlyRequest = call.parse()?;
        self.check_key_exists(request.key_id.as_deref().unwrap_or_default())?;
        self.authorise(call, None, &EncryptionContext::new())?;
        Ok(json!({ "KeyMetadata": {
            "AWSAccountId": self.key.account,
            "KeyId": self.key.id,
            "Arn": self.answered_key_id(call.plan),
            "CreationDate": self.key.created_unix,
            "Enabled": true,
            "Description": "stand-in",
            "KeyUsage": "ENCRYPT_DECRYPT",
            "KeyState": "Enabled",
            "Origin": "AWS_KMS",
            "KeyManager": "CUSTOMER",
            "CustomerMasterKeySpec": "SYMMETRIC_DEFAULT",
            "KeySpec": "SYMMETRIC_DEFAULT",
            "EncryptionAlgorithms": ["SYMMETRIC_DEFAULT"],
            "MultiRegion": false,
        }}))
    }

    /// Operations that the shipped policy denies to everyone. Should a policy allow one, the stand-in cannot do it.
    fn judge_only(&self, call: &Call<'_>) -> Result<Value, Exception> {
        let request: PolicyOnlyRequest = call.parse()?;
        check_context(&request.encryption_context)?;
        self.authorise(call, request.recipient.as_ref(), &request.encryption_context)?;
        Err(Exception::UnknownOperation)
    }

    /// Authenticates the evidence, if there is any, and asks the key policy for each action of the operation.
    fn authorise(
        &self,
        call: &Call<'_>,
        recipient: Option<&Recipient>,
        encryption_context: &EncryptionContext,
    ) -> Result<Option<AttestedRecipient>, Exception> {
        let recipient = recipient
            .map(|recipient| AttestedRecipient::from_request(recipient, &self.anchor, call.now_unix))
            .transpose()?;
        let claims = recipient.as_ref().map(|recipient| &recipient.claims);
        let context = request_context(call.caller, encryption_context, claims);
        let resource = self.key.arn();
        let principal = call.caller.principal_arn.as_str();
        for action in call.operation.actions() {
            let request = PolicyRequest { principal, action, resource: &resource, context: &context };
            let mut because = match self.policy.judge(&request) {
                Verdict::Allowed => continue,
                Verdict::DeniedBy(sid) => {
                    tracing::info!(%action, %principal, %sid, "denied by the key policy");
                    "with an explicit deny in a resource-based policy".to_owned()
                }
                Verdict::NotAllowed => {
                    tracing::info!(%action, %principal, "allowed by no statement of the key policy");
                    format!("because no resource-based policy allows the {action} action")
                }
            };
            for other in self.policy.other_measurements(&request) {
                tracing::info!("{other}");
                because.push_str("; stand-in: ");
                because.push_str(&other);
            }
            return Err(Exception::AccessDenied(format!(
                "User: {principal} is not authorized to perform: {action} on resource: {resource} {because}"
            )));
        }
        Ok(recipient)
    }

    /// Puts the key into the answer: enveloped for an attested recipient, else in the clear, as the policy has allowed it.
    fn deliver(
        &self,
        answer: &mut Value,
        data_key: &[u8],
        recipient: Option<&AttestedRecipient>,
        plan: Plan,
    ) -> Result<(), Exception> {
        let Some(recipient) = recipient else {
            answer["Plaintext"] = BASE64.encode(data_key).into();
            return Ok(());
        };
        let key = if plan.mode == Mode::SwapRecipient { self.stranger()? } else { &recipient.key };
        let envelope =
            key.envelope(data_key, plan.shape).map_err(|_| Exception::KmsInternal("the envelope was not made"))?;
        answer["CiphertextForRecipient"] = BASE64.encode(&envelope).into();
        if plan.mode == Mode::Plaintext {
            let mut other = vec![0; data_key.len()];
            getrandom::fill(&mut other).map_err(|_| Exception::KmsInternal("no randomness"))?;
            answer["Plaintext"] = BASE64.encode(&other).into();
        }
        Ok(())
    }

    fn stranger(&self) -> Result<&RecipientKey, Exception> {
        let make = || {
            let public = PrivateDecryptingKey::generate(KeySize::Rsa2048).ok()?.public_key();
            let spki = AsDer::<PublicKeyX509Der<'_>>::as_der(&public).ok()?;
            RecipientKey::from_spki(spki.as_ref()).ok()
        };
        self.stranger.get_or_init(make).as_ref().ok_or(Exception::KmsInternal("no other recipient could be made"))
    }

    fn answered_key_id(&self, plan: Plan) -> String {
        let arn = self.key.arn();
        if plan.mode == Mode::WrongKeyId { arn.replace(&self.key.id, OTHER_KEY_ID) } else { arn }
    }

    fn check_key_exists(&self, key_id: &str) -> Result<(), Exception> {
        if self.names(key_id) == KeyName::Ours { Ok(()) } else { Err(not_found(key_id)) }
    }

    /// A key is named by its ARN or by its id; the stand-in has no aliases.
    fn names(&self, key_id: &str) -> KeyName {
        let arn = self.key.arn();
        let prefix = arn.trim_end_matches(self.key.id.as_str());
        let id = key_id.strip_prefix(prefix).unwrap_or(key_id);
        if id == self.key.id {
            KeyName::Ours
        } else if id.len() == self.key.id.len() && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
            KeyName::Other
        } else {
            KeyName::NotAKey
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyName {
    Ours,
    Other,
    NotAKey,
}

impl Call<'_> {
    fn parse<T: DeserializeOwned>(&self) -> Result<T, Exception> {
        serde_json::from_slice(self.body).map_err(|error| Exception::Serialization(error.to_string()))
    }
}

/// What conditions see of a request. A PCR that the evidence does not have is absent, as is everything without evidence.
fn request_context(caller: &Caller, context: &EncryptionContext, claims: Option<&Claims>) -> RequestContext {
    let mut seen = RequestContext::default();
    seen.set("aws:PrincipalArn", vec![caller.principal_arn.clone()]);
    seen.set("aws:SecureTransport", vec!["true".to_owned()]);
    let account = caller.principal_arn.split(':').nth(4).unwrap_or_default();
    seen.set("kms:CallerAccount", vec![account.to_owned()]);
    seen.set("kms:EncryptionContextKeys", context.keys().cloned().collect());
    for (key, value) in context {
        seen.set(&format!("kms:EncryptionContext:{key}"), vec![value.clone()]);
    }
    for (register, pcr) in claims.into_iter().flat_map(|claims| claims.measurements.iter()) {
        let Register::Pcr(index) = register else { continue };
        seen.set(&format!("kms:RecipientAttestation:PCR{index}"), vec![hex::encode(pcr)]);
        if index == 0 {
            seen.set("kms:RecipientAttestation:ImageSha384", vec![hex::encode(pcr)]);
        }
    }
    seen
}

fn data_key_length(key_spec: Option<&str>, number_of_bytes: Option<usize>) -> Result<usize, Exception> {
    match (key_spec, number_of_bytes) {
        (Some("AES_256"), None) => Ok(32),
        (Some("AES_128"), None) => Ok(16),
        (None, Some(length @ 1..=MAX_DATA_KEY_BYTES)) => Ok(length),
        _ => Err(Exception::Validation(format!(
            "Please specify either KeySpec (AES_256 or AES_128) or NumberOfBytes (1 to {MAX_DATA_KEY_BYTES}), not both."
        ))),
    }
}

fn check_grant_tokens(tokens: &[String]) -> Result<(), Exception> {
    if tokens.is_empty() { Ok(()) } else { Err(Exception::InvalidGrantToken) }
}

fn not_found(key_id: &str) -> Exception {
    let shown: String = key_id.chars().filter(char::is_ascii_graphic).take(128).collect();
    Exception::NotFound(format!("Key '{shown}' does not exist"))
}

fn authentication(error: &SignatureError) -> Exception {
    let message = error.to_string();
    match error {
        SignatureError::Missing => Exception::MissingAuthenticationToken(message),
        SignatureError::Incomplete(_) => Exception::IncompleteSignature(message),
        SignatureError::UnknownCaller => Exception::UnrecognizedClient(message),
        SignatureError::Skewed | SignatureError::Scope { .. } | SignatureError::Mismatch => {
            Exception::InvalidSignature(message)
        }
    }
}
