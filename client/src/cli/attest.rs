//! `casemate attest`.

use std::path::PathBuf;

use casemate_protocol::codec;
use casemate_protocol::frame::VaultFrame;
use casemate_protocol::limits;
use casemate_protocol::link::{AttestReply, AttestRequest};
use clap::{Args, Subcommand};
use serde_json::json;

use super::attest_verify::{PolicyCommand, VerifyCommand};
use super::context::{Context, trusted_lines, trusted_value};
use super::output::CliError;
use crate::error::VaultError;
use crate::home;
use crate::judge::{Distrust, Grounds};
use crate::outside::unix_now;
use crate::random;
use crate::transport::Transport;

/// Ask any node for fresh evidence and judge it; or judge evidence in a file.
///
/// A random nonce goes out; the evidence that comes back must carry it, and must be of an image and of the cluster that this
/// device trusts. Exit code 6 if it is not believed. Nothing secret is sent.
#[derive(Debug, Args)]
#[command(
    after_help = "\
Examples:
  casemate attest --evidence-out node.cose
  casemate attest verify node.cose --policy policy.toml",
    args_conflicts_with_subcommands = true
)]
pub(super) struct AttestCommand {
    #[command(subcommand)]
    command: Option<AttestSubcommand>,
    /// Keep the evidence document in this file, also when it is refused
    #[arg(long, value_name = "FILE")]
    evidence_out: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum AttestSubcommand {
    /// Judge evidence of any platform in a file by a policy in a file
    Verify(VerifyCommand),
    /// Print a policy with every rule of it
    Policy(PolicyCommand),
}

impl AttestCommand {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        match self.command {
            Some(AttestSubcommand::Verify(command)) => return command.run(context),
            Some(AttestSubcommand::Policy(command)) => return command.run(context),
            None => {}
        }
        Context::block_on(async {
            let trust = context.home()?.trust()?;
            let pinned = trust.cluster().ok_or(Distrust::NoCluster)?;
            let nonce: [u8; 32] = random::bytes().map_err(VaultError::from)?;
            let question = codec::encode(&AttestRequest { nonce: nonce.to_vec() });
            let transport = context.connect().await?;
            let subject = context.subjects().attest();
            let answer = transport.request(subject, question.into(), context.globals.timeout).await?;
            let answer = parse(&answer)?;
            if let Some(path) = &self.evidence_out {
                home::write_private(path, &answer.evidence)?;
            }
            let grounds = Grounds { roots: &context.roots, trust: &trust, now: unix_now() };
            let trusted = grounds.judge_answer(&answer, &nonce, pinned)?;
            let value = json!({ "trusted": trusted_value(&trusted), "nonce": hex::encode(nonce) });
            context.output.either(&value, || {
                let mut lines = vec!["Believed; it answers the nonce that was just made:".to_owned()];
                lines.extend(trusted_lines(&trusted));
                lines
            })
        })
    }
}

fn parse(bytes: &[u8]) -> Result<AttestReply, CliError> {
    if let Ok(answer) = codec::decode::<AttestReply>(bytes, limits::FRAME_BYTES) {
        return match answer.refused {
            Some(refusal) => Err(VaultError::RefusedOutside(refusal).into()),
            None => Ok(answer),
        };
    }
    // A parent that cannot ask the enclave refuses with an ordinary frame.
    match VaultFrame::decode(bytes) {
        Ok(VaultFrame::Refused(refusal)) => Err(VaultError::RefusedOutside(refusal).into()),
        _ => Err(VaultError::Unexpected.into()),
    }
}
