//! The IAM credentials that the parent feeds: they let a request in at the key service's door, no more. What opens a key is the
//! evidence; the host holds these credentials itself.

use std::sync::{Arc, PoisonError, RwLock};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};

use crate::outside::IamCredentials;

/// Where the newest credentials stand: written when the parent feeds some, read by each call. Clones share one cell.
#[derive(Debug, Clone, Default)]
pub struct CredentialCell(Arc<RwLock<Option<IamCredentials>>>);

impl CredentialCell {
    /// Puts newer credentials in the place of the present ones, which are wiped with their last user.
    pub fn set(&self, credentials: IamCredentials) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(credentials);
    }

    /// Whether the parent has fed any.
    pub fn is_set(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl ProvideCredentials for CredentialCell {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let present = self.0.read().unwrap_or_else(PoisonError::into_inner);
        future::ProvideCredentials::ready(match &*present {
            Some(credentials) => Ok(Credentials::new(
                credentials.access_key_id.clone(),
                credentials.secret_access_key.as_str(),
                credentials.session_token.as_ref().map(|token| token.as_str().to_owned()),
                // Their end is judged by the key service: the host could lie about it, and a call with old ones only fails.
                None,
                "parent",
            )),
            None => Err(CredentialsError::not_loaded("the parent has fed no IAM credentials yet")),
        })
    }
}
