//! Who has no part in a volley and says `busy` to what it is asked: what a volley costs where no node has anything to do with it.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::thread::{self, JoinHandle};

use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::frame::VaultFrame;

use super::volley::PATIENCE;
use super::wire::{Publisher, Subscriber};

/// Where it listens.
pub(super) const SUBJECT: &str = "casemate.load.elsewhere";

/// A bystander at work, on a thread of its own, until it is dropped.
#[derive(Debug)]
pub(super) struct Bystander {
    connection: TcpStream,
    thread: Option<JoinHandle<()>>,
}

impl Bystander {
    pub(super) fn begin(nats: &str) -> io::Result<Self> {
        let requests = Subscriber::connect(nats, SUBJECT, PATIENCE)?;
        let answers = Publisher::connect(nats)?;
        Ok(Self { connection: requests.connection()?, thread: Some(thread::spawn(|| stand_by(requests, answers))) })
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        // What goes wrong here, or went wrong there, shows in what was not answered.
        let _ = self.connection.shutdown(Shutdown::Both);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn stand_by(mut requests: Subscriber, mut answers: Publisher) {
    let busy = VaultFrame::Refused(Refusal::retry(ErrorCode::Busy, 1)).encode();
    while requests.receive(|request, _| answers.add(request.reply, "", &busy)).is_ok() {
        answers.send().expect("NATS is there");
    }
}
