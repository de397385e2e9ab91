//! TCP through the parent: one link connection for each stream.

use std::io;
use std::sync::Arc;

use casemate_protocol::link::{Class, RelayTarget};

use super::dial::Dialler;
use crate::outside::{BoxFuture, Relay, Stream};

/// The relay of the link.
#[derive(Debug, Clone)]
pub struct LinkRelay(Arc<Dialler>);

impl LinkRelay {
    /// A relay that dials the parent.
    pub fn new(dialler: Arc<Dialler>) -> Self {
        Self(dialler)
    }
}

impl Relay for LinkRelay {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let target = RelayTarget { host: host.to_owned(), port };
            let stream = self.0.dial(Class::Relay, Some(target)).await.map_err(io::Error::other)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}
