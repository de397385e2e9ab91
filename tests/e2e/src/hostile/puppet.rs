//! A device made by hand, for what the device library would never say.

use casemate_client::{Device, random};
use casemate_protocol::codec;
use casemate_protocol::error::ErrorCode;
use casemate_protocol::frame::{DeviceFrame, SessionId, VaultFrame};
use casemate_protocol::head::Head;
use casemate_protocol::id::{Shard, VaultId};
use casemate_protocol::limits;
use casemate_protocol::reply::{Answer, Outcome, Reply};
use casemate_protocol::request::{Operation, Request};
use casemate_protocol::session::{Channel, Initiator, Opening, SessionError};
use casemate_protocol::statement::Credentials;

use super::Host;

/// A device with its vault, believing everything: it looks at no evidence.
#[derive(Debug)]
pub struct Puppet {
    /// Its vault.
    pub vault: VaultId,
    /// The newest head that it holds.
    pub head: Option<Head>,
    /// The number of its next mutation.
    pub sequence: u64,
    /// Its lock key.
    pub lock_key: [u8; 32],
    device: Device,
    salt: [u8; 16],
    handshake: Option<Initiator>,
    /// The session that stands.
    pub session: Option<(SessionId, Channel)>,
}

impl Puppet {
    /// A device with a vault to create.
    ///
    /// # Panics
    /// When the system has no randomness.
    pub fn new() -> Self {
        let device = Device::generate().expect("randomness");
        let salt = random::bytes().expect("randomness");
        Self {
            vault: VaultId::derive(&device.public_key(), &salt),
            head: None,
            sequence: 1,
            lock_key: random::bytes().expect("randomness"),
            device,
            salt,
            handshake: None,
            session: None,
        }
    }

    /// A device whose vault is in this shard, or in another.
    pub fn in_shard(shard: Shard, same: bool) -> Self {
        loop {
            let puppet = Self::new();
            if (puppet.vault.shard() == shard) == same {
                return puppet;
            }
        }
    }

    /// The device's static key.
    pub fn public_key(&self) -> [u8; 32] {
        self.device.public_key()
    }

    // ---- frames -------------------------------------------------------------------------------------------------------------

    /// Handshake message 1.
    pub fn hello(&mut self) -> Vec<u8> {
        let (initiator, noise) = Initiator::start(self.device.static_secret(), self.vault);
        self.handshake = Some(initiator);
        encode(&DeviceFrame::Hello { noise })
    }

    /// Takes message 2; gives the session's name and what the node shows.
    ///
    /// # Errors
    /// When it is not genuine.
    ///
    /// # Panics
    /// When it is none.
    pub fn welcome(&mut self, welcome: &VaultFrame) -> Result<(SessionId, Credentials), SessionError> {
        let VaultFrame::Welcome { session, noise } = welcome else { panic!("a welcome, not {welcome:?}") };
        let initiator = self.handshake.as_mut().expect("said hello");
        Ok((*session, initiator.read_welcome(noise)?.0))
    }

    /// Says hello and takes message 2 of an honest node.
    ///
    /// # Panics
    /// When there is none.
    pub fn greet(&mut self, host: &Host) -> (SessionId, Credentials) {
        let hello = self.hello();
        let welcome = host.carry(self.vault, &hello);
        self.welcome(&welcome).expect("a genuine welcome")
    }

    /// Handshake message 3, with these bytes as its first request.
    ///
    /// # Panics
    /// When no handshake is under way.
    pub fn finish_with(&mut self, session: SessionId, first_request: Option<&[u8]>) -> Vec<u8> {
        let opening = Opening {
            lock_key: self.lock_key.as_slice().into(),
            head: self.head,
            first_request: first_request.map(Into::into),
        };
        let initiator = self.handshake.take().expect("a handshake is under way");
        let (noise, channel) = initiator.finish(&opening).expect("it fits");
        self.session = Some((session, channel));
        encode(&DeviceFrame::Finish { session, noise })
    }

    /// Seals any bytes into the session.
    ///
    /// # Panics
    /// When there is no session.
    pub fn seal_bytes(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let (session, channel) = self.session.as_mut().expect("a session stands");
        let run = channel.seal(plaintext).expect("it fits");
        encode(&DeviceFrame::Sealed { session: *session, run })
    }

    /// Seals a request with the head that this device holds.
    pub fn seal(&mut self, sequence: Option<u64>, operation: &Operation) -> Vec<u8> {
        let request = Request { sequence, head: self.head, operation: operation.clone() };
        self.seal_bytes(&codec::encode_secret(&request))
    }

    /// Seals a mutation under the next number.
    pub fn seal_next(&mut self, operation: &Operation) -> Vec<u8> {
        self.sequence += 1;
        self.seal(Some(self.sequence - 1), operation)
    }

    /// What an answer says, sealed or not.
    ///
    /// # Errors
    /// With the code of a refusal.
    ///
    /// # Panics
    /// When it is none, or not authentic.
    pub fn read(&mut self, answer: &VaultFrame) -> Result<Answer, ErrorCode> {
        outcome(self.open(answer))
    }

    /// Opens a sealed answer.
    ///
    /// # Errors
    /// With the code of a refusal outside the session.
    ///
    /// # Panics
    /// When it is neither.
    pub fn open(&mut self, answer: &VaultFrame) -> Result<Reply, ErrorCode> {
        let run = match answer {
            VaultFrame::Sealed { run } => run,
            VaultFrame::Refused(refusal) => return Err(refusal.code),
            VaultFrame::Welcome { .. } => panic!("an answer, not a welcome"),
        };
        let (_, channel) = self.session.as_mut().expect("a session stands");
        let plaintext = channel.open(run).expect("an authentic answer");
        let reply: Reply = codec::decode(&plaintext, limits::FRAME_BYTES).expect("a reply");
        if matches!(reply.outcome, Outcome::Done(_)) && reply.head.is_some() {
            self.head = reply.head;
        }
        Ok(reply)
    }

    // ---- whole turns --------------------------------------------------------------------------------------------------------

    /// Says hello and ends the handshake with this request.
    ///
    /// # Errors
    /// With the code of the refusal, wherever it was said.
    pub fn enter(&mut self, host: &Host, sequence: Option<u64>, operation: &Operation) -> Result<Answer, ErrorCode> {
        let hello = self.hello();
        let welcome = host.carry(self.vault, &hello);
        if let VaultFrame::Refused(refusal) = &welcome {
            return Err(refusal.code);
        }
        let (session, _) = self.welcome(&welcome).expect("a genuine welcome");
        let first = Request { sequence, head: self.head, operation: operation.clone() };
        let finish = self.finish_with(session, Some(&codec::encode(&first)));
        let answer = host.carry(self.vault, &finish);
        outcome(self.open(&answer))
    }

    /// Asks in the session that stands.
    ///
    /// # Errors
    /// With the code of the refusal, wherever it was said.
    pub fn ask(&mut self, host: &Host, sequence: Option<u64>, operation: &Operation) -> Result<Answer, ErrorCode> {
        let frame = self.seal(sequence, operation);
        let answer = host.carry(self.vault, &frame);
        outcome(self.open(&answer))
    }

    /// Creates the vault.
    ///
    /// # Errors
    /// With the code of the refusal.
    pub fn create(&mut self, host: &Host) -> Result<Answer, ErrorCode> {
        let operation = Operation::CreateVault {
            salt: self.salt,
            device_name: "puppet".to_owned(),
            device_signing_key: self.device.signing_public_key(),
        };
        self.sequence += 1;
        self.enter(host, Some(self.sequence - 1), &operation)
    }

    /// Writes a secret in the session that stands.
    ///
    /// # Errors
    /// With the code of the refusal.
    pub fn put(&mut self, host: &Host, name: &str, value: &str) -> Result<Answer, ErrorCode> {
        self.sequence += 1;
        self.ask(host, Some(self.sequence - 1), &put(name, value))
    }

    /// Reads a secret in the session that stands.
    ///
    /// # Errors
    /// With the code of the refusal.
    pub fn get(&mut self, host: &Host, name: &str) -> Result<String, ErrorCode> {
        match self.ask(host, None, &get(name))? {
            Answer::Secret { value, .. } => Ok(String::from_utf8_lossy(&value).into_owned()),
            other => panic!("a secret, not {other:?}"),
        }
    }

    /// A device with a vault that was created just now.
    ///
    /// # Panics
    /// When it was not.
    pub fn with_vault(host: &Host) -> Self {
        let mut puppet = Self::new();
        puppet.create(host).expect("an honest creation works");
        puppet
    }
}

impl Default for Puppet {
    fn default() -> Self {
        Self::new()
    }
}

/// The write of a secret.
pub fn put(name: &str, value: &str) -> Operation {
    Operation::SecretPut { name: name.to_owned(), value: value.as_bytes().into(), expected_revision: None }
}

/// The read of a secret.
pub fn get(name: &str) -> Operation {
    Operation::SecretGet { name: name.to_owned(), revision: None }
}

fn outcome(reply: Result<Reply, ErrorCode>) -> Result<Answer, ErrorCode> {
    match reply?.outcome {
        Outcome::Done(answer) => Ok(answer),
        Outcome::Refused(refusal) => Err(refusal.code),
    }
}

fn encode(frame: &DeviceFrame) -> Vec<u8> {
    frame.encode(limits::DEADLINE_DEFAULT)
}
