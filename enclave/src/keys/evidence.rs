//! Evidence for the key service: the document that names this boot's recipient key and, by its signature, this image.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::recipient::RecipientKey;
use crate::outside::{BoxFuture, Clock, EvidenceRequest, KeyServiceError, SecurityModule};

/// How long one document is used again. KMS refuses documents older than five minutes.
pub const MAX_AGE: Duration = Duration::from_mins(4);

/// Gives the evidence that goes into each call to the key service.
pub trait RecipientEvidence: Send + Sync + fmt::Debug {
    /// A document over the recipient key, fresh enough for the key service.
    fn evidence(&self) -> BoxFuture<'_, Result<Vec<u8>, KeyServiceError>>;
    /// The key service refused: use no document again that it may have refused for its age. (A paused virtual machine's
    /// monotonic clock stands still while the document grows old.)
    fn forget(&self);
}

/// Evidence made by the security module, kept for [`MAX_AGE`].
#[derive(Debug)]
pub struct ModuleEvidence {
    module: Arc<dyn SecurityModule>,
    clock: Arc<dyn Clock>,
    recipient: Arc<RecipientKey>,
    /// The newest document and when it was made.
    newest: Mutex<Option<(Duration, Vec<u8>)>>,
    /// Held while a document is being made, so that concurrent callers make one.
    making: tokio::sync::Mutex<()>,
}

impl ModuleEvidence {
    /// Evidence over `recipient`'s public key.
    pub fn new(module: Arc<dyn SecurityModule>, clock: Arc<dyn Clock>, recipient: Arc<RecipientKey>) -> Self {
        Self { module, clock, recipient, newest: Mutex::new(None), making: tokio::sync::Mutex::new(()) }
    }

    fn newest(&self) -> MutexGuard<'_, Option<(Duration, Vec<u8>)>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RecipientEvidence for ModuleEvidence {
    fn evidence(&self) -> BoxFuture<'_, Result<Vec<u8>, KeyServiceError>> {
        Box::pin(async move {
            let _making = self.making.lock().await;
            // Before the document is made: it can only be younger than this says.
            let now = self.clock.monotonic();
            if let Some((made, document)) = &*self.newest()
                && now.saturating_sub(*made) < MAX_AGE
            {
                return Ok(document.clone());
            }
            let module = Arc::clone(&self.module);
            let public_key = Some(self.recipient.public_key().to_vec());
            let document = tokio::task::spawn_blocking(move || {
                module.attest(EvidenceRequest { public_key, ..EvidenceRequest::default() })
            })
            .await
            .map_err(|_| KeyServiceError::Unavailable("the security module's thread ended".to_owned()))?
            .map_err(|error| KeyServiceError::Unavailable(error.to_string()))?;
            *self.newest() = Some((now, document.clone()));
            Ok(document)
        })
    }

    fn forget(&self) {
        *self.newest() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::super::fakes::{FakeModule, ManualClock};
    use super::*;

    #[tokio::test]
    async fn one_document_serves_four_minutes() {
        let module = Arc::new(FakeModule::default());
        let clock = Arc::new(ManualClock::default());
        let recipient = Arc::new(RecipientKey::generate().unwrap());
        let evidence = ModuleEvidence::new(module.clone(), clock.clone(), recipient.clone());
        let (first, second) = tokio::join!(evidence.evidence(), evidence.evidence());
        assert_eq!(first, second);
        assert_eq!(module.documents(), 1, "concurrent callers share one document");
        assert_eq!(module.last_public_key().as_deref(), Some(recipient.public_key()));
        clock.advance(MAX_AGE.saturating_sub(Duration::from_millis(1)));
        evidence.evidence().await.unwrap();
        assert_eq!(module.documents(), 1);
        clock.advance(Duration::from_millis(1));
        assert_ne!(evidence.evidence().await, first);
        assert_eq!(module.documents(), 2);
        evidence.forget();
        evidence.evidence().await.unwrap();
        assert_eq!(module.documents(), 3, "a refused document is not used again");
    }
}
