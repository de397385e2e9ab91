//! `casemate key`.

use std::path::{Path, PathBuf};

use casemate_protocol::limits;
use casemate_protocol::reply::KeyEntry;
use casemate_protocol::request::{KeyAlgorithm, KeyPolicy};
use clap::{Args, Subcommand, ValueEnum};
use data_encoding::BASE64;
use serde_json::{Value, json};

use super::context::Context;
use super::input::{self, Destination, Format};
use super::output::{self, CliError, table, time};
use super::pem;
use crate::error::Kind;

/// The algorithms, as arguments.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Algorithm {
    /// Signatures (RFC 8032)
    Ed25519,
    /// ECDSA and ECDH on P-256
    P256,
    /// ECDSA and ECDH on secp256k1
    Secp256k1,
    /// Key agreement (RFC 7748)
    X25519,
    /// Encryption with AES-256-GCM
    #[value(name = "aes256-gcm")]
    Aes256Gcm,
    /// Message authentication with HMAC-SHA-256
    #[value(name = "hmac-sha256")]
    HmacSha256,
}

impl From<Algorithm> for KeyAlgorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Ed25519 => Self::Ed25519,
            Algorithm::P256 => Self::P256,
            Algorithm::Secp256k1 => Self::Secp256k1,
            Algorithm::X25519 => Self::X25519,
            Algorithm::Aes256Gcm => Self::Aes256Gcm,
            Algorithm::HmacSha256 => Self::HmacSha256,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct NewKey {
    /// The key's name, at most 256 bytes
    name: String,
    /// Its algorithm
    #[arg(long, short, value_enum)]
    algorithm: Algorithm,
    /// Allow `key export`; otherwise the key never leaves the vault
    #[arg(long)]
    exportable: bool,
    /// Write every use to the audit chain before its result is given; each use then costs a durable write
    #[arg(long)]
    audit_use: bool,
}

impl NewKey {
    const fn policy(&self) -> KeyPolicy {
        KeyPolicy { exportable: self.exportable, audit_use: self.audit_use }
    }
}

/// A key and its input.
#[derive(Debug, Args)]
pub(super) struct Use {
    /// The key's name
    name: String,
    /// The input, at most 64 KiB; without it, standard input
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Bytes from a file or, being public, as an argument.
#[derive(Debug, Args)]
pub(super) struct Associated {
    /// A file with data that is authenticated together with the text, and must be the same at decryption
    #[arg(long, value_name = "FILE")]
    associated: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum PublicFormat {
    /// SubjectPublicKeyInfo in PEM, as openssl reads it
    Pem,
    /// Hex
    Hex,
    /// Base64
    Base64,
    /// The bytes: 32, or an uncompressed SEC1 point
    Raw,
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make a key inside the vault
    #[command(
        after_help = "Examples:\n  casemate key generate signer -a ed25519\n  casemate key generate backup -a aes256-gcm --exportable"
    )]
    Generate(NewKey),
    /// Take a key in from standard input or a file
    #[command(
        after_help = "The material: a 32-byte seed (ed25519), scalar (p256, secp256k1, big-endian) or key; 16 to 64 bytes for hmac-sha256.\n\nExample:\n  casemate key import legacy -a hmac-sha256 --format hex --file key.hex"
    )]
    Import {
        #[command(flatten)]
        key: NewKey,
        /// The file to read instead of standard input
        #[arg(long, short, value_name = "FILE")]
        file: Option<PathBuf>,
        /// How the material is written there
        #[arg(long, value_enum, default_value = "raw")]
        format: Format,
    },
    /// List keys: what each can do, never what it is
    List,
    /// Print the public half of a key
    #[command(
        after_help = "Example, verifying outside of Casemate:\n  casemate key public signer --pem > signer.pem\n  casemate key sign signer --file doc --out doc.sig\n  openssl pkeyutl -verify -pubin -inkey signer.pem -rawin -in doc -sigfile doc.sig"
    )]
    Public {
        /// The key's name
        name: String,
        /// The same as --format pem
        #[arg(long, conflicts_with = "format")]
        pem: bool,
        /// How it is written
        #[arg(long, value_enum, default_value = "hex")]
        format: PublicFormat,
    },
    /// Sign a message: 64 bytes for ed25519, DER for p256 and secp256k1 (over its SHA-256)
    Sign {
        #[command(flatten)]
        input: Use,
        #[command(flatten)]
        to: Destination,
    },
    /// Verify a signature or a MAC; exit code 10 if it does not verify
    Verify {
        #[command(flatten)]
        input: Use,
        /// The file with the signature or MAC
        #[arg(long, short, value_name = "FILE")]
        signature: PathBuf,
        /// How it is written there
        #[arg(long, value_enum, default_value = "raw")]
        format: Format,
    },
    /// Agree on a shared secret with a peer's public key (x25519, p256, secp256k1)
    ///
    /// The result is raw: derive keys from it with a KDF.
    Agree {
        /// The key's name
        name: String,
        /// The file with the peer's public key: 32 bytes, or a SEC1 point
        #[arg(long, value_name = "FILE")]
        peer: PathBuf,
        /// How it is written there
        #[arg(long, value_enum, default_value = "raw")]
        peer_format: Format,
        #[command(flatten)]
        to: Destination,
    },
    /// Encrypt with an aes256-gcm key: nonce, ciphertext and tag, one after the other
    Encrypt {
        #[command(flatten)]
        input: Use,
        #[command(flatten)]
        associated: Associated,
        #[command(flatten)]
        to: Destination,
    },
    /// Decrypt what `key encrypt` gave; exit code 10 if it is not authentic
    Decrypt {
        #[command(flatten)]
        input: Use,
        #[command(flatten)]
        associated: Associated,
        #[command(flatten)]
        to: Destination,
    },
    /// Compute a MAC with an hmac-sha256 key
    Mac {
        #[command(flatten)]
        input: Use,
        #[command(flatten)]
        to: Destination,
    },
    /// Take the material of an exportable key out
    Export {
        /// The key's name
        name: String,
        #[command(flatten)]
        to: Destination,
    },
    /// Delete a key for good
    Delete {
        /// The key's name
        name: String,
    },
}

impl KeyCommand {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        let output = context.output;
        match self {
            Self::Generate(key) => Context::block_on(async {
                let made = context.open().await?.key_generate(&key.name, key.algorithm.into(), key.policy()).await?;
                show_one(context, "Generated", &made)
            }),
            Self::Import { key, file, format } => {
                let material = input::read_as(file.as_deref(), format, 64, "the key")?;
                Context::block_on(async {
                    let vault = context.open().await?;
                    let taken = vault.key_import(&key.name, key.algorithm.into(), key.policy(), material).await?;
                    show_one(context, "Imported", &taken)
                })
            }
            Self::List => Context::block_on(async { show(context, &context.open().await?.key_list().await?) }),
            Self::Public { name, pem, format } => Context::block_on(async {
                let entry = context.open().await?.key_public(&name).await?;
                show_public(context, &entry, if pem { PublicFormat::Pem } else { format })
            }),
            Self::Sign { input, to } => {
                let message = key_input(input.file.as_deref(), "the message")?;
                Context::block_on(async {
                    let signature = context.open().await?.key_sign(&input.name, message).await?;
                    to.write(output, "signature_base64", &signature)
                })
            }
            Self::Verify { input, signature, format } => {
                let signature = input::read_as(Some(&signature), format, 256, "the signature")?;
                let message = key_input(input.file.as_deref(), "the message")?;
                Context::block_on(async {
                    let verified = context.open().await?.key_verify(&input.name, message, signature.to_vec()).await?;
                    if verified {
                        return output.either(&json!({ "verified": true }), || vec!["Verified".to_owned()]);
                    }
                    Err(CliError::new(
                        Kind::NotVerified,
                        "not_verified",
                        "the signature does not verify",
                        "Check that key, message and signature belong together, and --format.",
                    ))
                })
            }
            Self::Agree { name, peer, peer_format, to } => {
                let peer = input::read_as(Some(&peer), peer_format, 133, "the peer's key")?;
                Context::block_on(async {
                    let shared = context.open().await?.key_agree(&name, peer.to_vec()).await?;
                    to.write(output, "shared_base64", &shared)
                })
            }
            Self::Encrypt { input, associated, to } => {
                let associated = associated_data(&associated)?;
                let plaintext = key_input(input.file.as_deref(), "the text")?;
                Context::block_on(async {
                    let ciphertext = context.open().await?.key_encrypt(&input.name, plaintext, associated).await?;
                    to.write(output, "ciphertext_base64", &ciphertext)
                })
            }
            Self::Decrypt { input, associated, to } => {
                let associated = associated_data(&associated)?;
                let limit = limits::KEY_INPUT_BYTES + 28;
                let ciphertext = input::read(input.file.as_deref(), limit, "the ciphertext")?;
                Context::block_on(async {
                    let plaintext =
                        context.open().await?.key_decrypt(&input.name, ciphertext.to_vec(), associated).await?;
                    to.write(output, "plaintext_base64", &plaintext)
                })
            }
            Self::Mac { input, to } => {
                let message = key_input(input.file.as_deref(), "the message")?;
                Context::block_on(async {
                    let mac = context.open().await?.key_mac(&input.name, message).await?;
                    to.write(output, "mac_base64", &mac)
                })
            }
            Self::Export { name, to } => Context::block_on(async {
                let material = context.open().await?.key_export(&name).await?;
                to.write(output, "material_base64", &material)
            }),
            Self::Delete { name } => Context::block_on(async {
                context.open().await?.key_delete(&name).await?;
                output.either(&json!({ "name": name, "deleted": true }), || vec![format!("Deleted key {name}")])
            }),
        }
    }
}

fn key_input(file: Option<&Path>, what: &str) -> Result<casemate_protocol::secret::Secret, CliError> {
    input::read(file, limits::KEY_INPUT_BYTES, what)
}

fn associated_data(associated: &Associated) -> Result<Vec<u8>, CliError> {
    match &associated.associated {
        Some(path) => Ok(input::read(Some(path), limits::KEY_INPUT_BYTES, "the associated data")?.to_vec()),
        None => Ok(Vec::new()),
    }
}

fn entry_value(entry: &KeyEntry) -> Value {
    json!({
        "name": entry.name,
        "algorithm": entry.algorithm.as_str(),
        "exportable": entry.policy.exportable,
        "audit_use": entry.policy.audit_use,
        "created": time(entry.created_at),
        "public_hex": entry.public.as_ref().map(hex::encode),
        "public_pem": entry.public.as_ref().and_then(|public| pem::public_key(entry.algorithm, public)),
    })
}

fn show_one(context: &Context, done: &str, entry: &KeyEntry) -> Result<(), CliError> {
    context.output.either(&entry_value(entry), || {
        let mut lines = vec![format!("{done} {} key {}", entry.algorithm.as_str(), entry.name)];
        lines.extend(entry.public.iter().map(|public| format!("public {}", hex::encode(public))));
        lines
    })
}

fn show(context: &Context, entries: &[KeyEntry]) -> Result<(), CliError> {
    let value = json!({ "keys": entries.iter().map(entry_value).collect::<Vec<_>>() });
    context.output.either(&value, || {
        let uses = |entry: &KeyEntry| match entry.algorithm {
            KeyAlgorithm::Ed25519 => "sign, verify",
            KeyAlgorithm::P256 | KeyAlgorithm::Secp256k1 => "sign, verify, agree",
            KeyAlgorithm::X25519 => "agree",
            KeyAlgorithm::Aes256Gcm => "encrypt, decrypt",
            KeyAlgorithm::HmacSha256 => "mac, verify",
        };
        let flag = |set: bool| if set { "yes" } else { "no" }.to_owned();
        let row = |entry: &KeyEntry| {
            vec![
                entry.name.clone(),
                entry.algorithm.as_str().to_owned(),
                uses(entry).to_owned(),
                flag(entry.policy.exportable),
                flag(entry.policy.audit_use),
                time(entry.created_at),
            ]
        };
        let heading = ["NAME", "ALGORITHM", "CAN", "EXPORTABLE", "AUDITED", "CREATED"];
        table(&heading, &entries.iter().map(row).collect::<Vec<_>>())
    })
}

fn show_public(context: &Context, entry: &KeyEntry, format: PublicFormat) -> Result<(), CliError> {
    let no_public = || {
        let remedy = "Only ed25519, p256, secp256k1 and x25519 keys have one; see `casemate key list`.";
        CliError::new(
            Kind::Refused,
            "wrong_algorithm",
            format!("{} keys have no public half", entry.algorithm.as_str()),
            remedy,
        )
    };
    let public = entry.public.as_deref().ok_or_else(no_public)?;
    if context.output.json {
        return output::print_value(&entry_value(entry));
    }
    match format {
        PublicFormat::Pem => {
            let text = pem::public_key(entry.algorithm, public).ok_or_else(no_public)?;
            output::print_bytes(text.as_bytes())
        }
        PublicFormat::Hex => output::print_line(hex::encode(public)),
        PublicFormat::Base64 => output::print_line(BASE64.encode(public)),
        PublicFormat::Raw => output::print_bytes(public),
    }
}
