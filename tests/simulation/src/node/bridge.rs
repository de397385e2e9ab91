//! The bridge and the link: a device's frame becomes a request, an answer a frame, and a cut link loses both.

use std::time::Duration;

use casemate_enclave::supervisor::router::{self, Answer, Put, RequestId};
use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::frame::{DeviceFrame, VaultFrame};
use casemate_protocol::id::VaultId;

use super::outside::failed;
use super::{Node, Open};
use crate::event::{CallId, Event};

impl Node<'_> {
    /// A device's frame reaches the bridge.
    pub fn frame(&mut self, call: CallId, vault: VaultId, frame: Vec<u8>) {
        let now = self.shared.time.now();
        let Some(enclave) = self.enclave.as_mut().filter(|enclave| enclave.link_down_until <= now) else {
            return self
                .reply(call, VaultFrame::Refused(Refusal::retry(ErrorCode::Unavailable, 1000)).encode().to_vec());
        };
        let peek = match DeviceFrame::peek(&frame) {
            Ok(peek) => peek,
            Err(code) => return self.reply(call, VaultFrame::Refused(code.into()).encode().to_vec()),
        };
        enclave.next_request += 1;
        let id = enclave.next_request;
        enclave.open.insert(id, Open { call, deadline: now + peek.deadline });
        let (remaining, kind, session) = (peek.deadline, peek.kind, peek.session);
        self.event(router::Event::Request { id, vault, remaining, kind, session, frame });
    }

    pub(super) fn reply(&mut self, call: CallId, frame: Vec<u8>) {
        let weather = &self.shared.weather;
        if weather.strikes(&mut self.dice, weather.loses) {
            return;
        }
        let late = weather.strikes(&mut self.dice, weather.delays);
        let after = if late { self.dice.millis(5, 4_000) } else { self.dice.millis(0, 2) };
        self.shared.time.after(after, Event::Answer { call, frame });
    }

    /// The link to the parent is cut and comes back: nobody hears the answers to what was under way, and what the store did is unknown.
    pub fn cut_link(&mut self) {
        let down = self.dice.millis(1, 1_500);
        let now = self.shared.time.now();
        let place = self.place;
        let Some(enclave) = &mut self.enclave else { return };
        enclave.link_down_until = now + down;
        for open in enclave.open.values_mut() {
            open.call = 0;
        }
        for (op, slot) in std::mem::take(&mut enclave.puts) {
            self.shared.time.after(Duration::ZERO, Event::PutEnds { place, slot, op, put: Put::Unclear });
        }
        for (op, (slot, read)) in std::mem::take(&mut enclave.reads) {
            self.shared.time.after(Duration::ZERO, Event::Router(place, failed(slot, op, &read)));
        }
    }

    pub(super) fn answer(&mut self, id: RequestId, answer: Answer) {
        let findings = &self.shared.findings;
        let Some(enclave) = &mut self.enclave else { return };
        if !enclave.answered.insert(id) {
            findings.violation(format_args!("request {id} is answered twice"));
        }
        let Some(open) = enclave.open.remove(&id) else {
            return findings.violation(format_args!("an answer to no request: {id}"));
        };
        let frame = match answer {
            Answer::Frame(frame) => frame,
            Answer::Refused(refusal) => VaultFrame::Refused(refusal).encode().to_vec(),
        };
        self.reply(open.call, frame);
    }
}
