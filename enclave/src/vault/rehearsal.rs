//! What every vault-manager does when it begins, done once in the zygote before any of them is there: the processor's features are asked
//! for (each question leaves a virtual machine), code and tables are brought into memory. Children share all of it.
//!
//! Nothing here is anybody's: keys are constants, what is random is used up here, and no generator of random numbers is left behind that
//! children would have in common ([`crate::system::OsRandomness`] and the handshake ask the kernel each time).

use casemate_protocol::id::VaultId;
use casemate_protocol::object::{Header, Kind, Object};
use casemate_protocol::secret::Secret;
use casemate_protocol::session::{Initiator, Opening, Responder, SessionError, public_key};
use casemate_protocol::statement::{Credentials, Statement};

use super::cipher::RootKey;

const VAULT: VaultId = VaultId::from_bytes([0; 20]);

/// Goes through a handshake, a frame and an object. What comes of it is nothing that anybody needs.
pub fn rehearse() {
    drop(handshake());
    drop(object());
}

fn handshake() -> Result<Vec<u8>, SessionError> {
    let (device, manager) = ([1; 32], [2; 32]);
    let statement = Statement { vault: VAULT, static_key: public_key(&manager), not_after: 0, signature: [0; 64] };
    let credentials = Credentials {
        platform: 0,
        evidence: Vec::new(),
        trust_configuration: Vec::new(),
        identity: [0; 32],
        statement,
    };
    let (mut initiator, hello) = Initiator::start(&device, VAULT);
    let (responder, welcome) = Responder::welcome(&manager, VAULT, &hello, &credentials)?;
    initiator.read_welcome(&welcome)?;
    let opening = Opening { lock_key: Secret::new(vec![3; 32]), head: None, first_request: None };
    let (finish, mut theirs) = initiator.finish(&opening)?;
    let (_, _, mut ours) = responder.finish(&finish)?;
    let opened = ours.open(&theirs.seal(&[0; 256])?)?;
    Ok(theirs.open(&ours.seal(&opened)?)?.to_vec())
}

fn object() -> Option<Vec<u8>> {
    let root = RootKey::derive(VAULT, &[4; 32], &[5; 32]);
    let header = Header {
        format: 1,
        vault: VAULT,
        version: 1,
        previous: [0; 32],
        salt: [0; 16],
        root_commitment: root.commitment(),
        key_generation: 1,
        lock_number: 1,
        copies: Vec::new(),
        kind: Kind::Snapshot,
        base: 1,
    };
    let sealed = root.seal(&header, &[0; 256]);
    Some(root.open(&Object::parse(&sealed).ok()?).ok()?.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_through_to_the_end() {
        assert_eq!(handshake().unwrap(), [0; 256]);
        assert_eq!(object().unwrap(), [0; 256]);
    }
}
