//! One plain function over bytes for every parser of this crate. Tests replay arbitrary and mutated inputs through them; a
//! coverage-guided fuzzer can be put in front without other code.

use crate::{codec, frame, limits, link, record, reply, request, session, statement, trust};

/// Feeds `bytes` to every parser. A parser may refuse; it may not panic, hang, or take back what it gave: whatever decodes must
/// encode to something that decodes to the same.
///
/// # Panics
/// When a parser breaks that rule.
pub fn parsers(bytes: &[u8]) {
    fn again<T>(bytes: &[u8], limit: usize)
    where
        T: for<'b> minicbor::Decode<'b, ()> + minicbor::Encode<()> + PartialEq + std::fmt::Debug,
    {
        if let Ok(value) = codec::decode::<T>(bytes, limit) {
            let encoded = codec::encode(&value);
            assert!(encoded.len() <= bytes.len(), "our encoding is the shortest");
            assert_eq!(codec::decode::<T>(&encoded, limit).as_ref(), Ok(&value));
        }
    }
    again::<request::Request>(bytes, limits::FRAME_BYTES);
    again::<reply::Reply>(bytes, limits::FRAME_BYTES);
    again::<statement::Credentials>(bytes, limits::FRAME_BYTES);
    again::<session::Opening>(bytes, limits::FRAME_BYTES);
    again::<link::Hello>(bytes, link::HELLO_BYTES);
    again::<link::HelloReply>(bytes, link::HELLO_BYTES);
    again::<link::RequestCall>(bytes, link::REQUEST_BYTES);
    again::<link::RequestReply>(bytes, link::REQUEST_BYTES);
    again::<link::AttestRequest>(bytes, link::HELLO_BYTES);
    again::<link::AttestReply>(bytes, link::REQUEST_BYTES);
    again::<link::BlobCall>(bytes, link::BLOB_BYTES);
    again::<link::BlobReply>(bytes, link::BLOB_BYTES);
    again::<link::ControlCall>(bytes, link::CONTROL_BYTES);
    again::<link::ControlReply>(bytes, link::CONTROL_BYTES);
    again::<link::LogRecord>(bytes, link::CONTROL_BYTES);
    let _ = trust::TrustConfiguration::decode(bytes);
    let peeked = frame::DeviceFrame::peek(bytes);
    if let Ok(decoded) = frame::DeviceFrame::decode(bytes) {
        let deadline = peeked.expect("what decodes can be peeked at").deadline;
        assert_eq!(frame::DeviceFrame::decode(&decoded.encode(deadline)), Ok(decoded));
    }
    if let Ok(decoded) = frame::VaultFrame::decode(bytes) {
        assert_eq!(frame::VaultFrame::decode(&decoded.encode()), Ok(decoded));
    }
    records(bytes);
}

fn records(mut bytes: &[u8]) {
    let bounds = record::Bounds { message_bytes: 1 << 16, messages: 4, bytes: 1 << 17 };
    let mut assembler = record::Assembler::new(bounds);
    while let Some((header, rest)) = bytes.split_first_chunk() {
        let Ok(header) = record::Header::parse(header) else { return };
        let Some((payload, rest)) = rest.split_at_checked(header.payload_len) else { return };
        if assembler.take(header, bytes::Bytes::copy_from_slice(payload)).is_err() {
            return;
        }
        bytes = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            parsers(&bytes);
        }

        #[test]
        fn mutated_messages(sample in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let samples = crate::tests::goldens();
            let mut bytes = samples[sample.index(samples.len())].1.clone();
            let place = at.index(bytes.len());
            bytes[place] = byte;
            parsers(&bytes);
            bytes.truncate(cut.index(bytes.len()));
            parsers(&bytes);
        }
    }
}
