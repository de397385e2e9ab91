use super::*;

use minicbor::Encoder;

/// A document as AWS writes it, field by field, so that each test can change one.
#[derive(Clone)]
struct Builder {
    fields: Vec<(&'static str, Vec<u8>)>,
    indefinite: bool,
}

fn cbor(write: impl FnOnce(&mut Encoder<Vec<u8>>)) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    write(&mut encoder);
    encoder.into_writer()
}

fn byte_string(bytes: &[u8]) -> Vec<u8> {
    cbor(|encoder| drop(encoder.bytes(bytes)))
}

fn text(text: &str) -> Vec<u8> {
    cbor(|encoder| drop(encoder.str(text)))
}

fn pcr_map(entries: &[(u64, &[u8])]) -> Vec<u8> {
    cbor(|encoder| {
        encoder.map(entries.len() as u64).unwrap();
        for (index, value) in entries {
            encoder.u64(*index).unwrap().bytes(value).unwrap();
        }
    })
}

fn certificates(lengths: &[usize]) -> Vec<u8> {
    cbor(|encoder| {
        encoder.array(lengths.len() as u64).unwrap();
        for length in lengths {
            encoder.bytes(&vec![0x30; *length]).unwrap();
        }
    })
}

const NULL: &[u8] = &[0xf6];

impl Builder {
    fn new() -> Self {
        let fields = vec![
            ("module_id", text("i-0123-enc4567")),
            ("digest", text("SHA384")),
            ("timestamp", cbor(|encoder| drop(encoder.u64(1_766_668_537_578)))),
            ("pcrs", pcr_map(&[(0, &[1; 48]), (1, &[2; 48]), (2, &[3; 48]), (31, &[4; 48])])),
            ("certificate", byte_string(&[0x30; 640])),
            ("cabundle", certificates(&[533, 700])),
        ];
        Self { fields, indefinite: false }
    }

    fn with(mut self, field: &'static str, value: Vec<u8>) -> Self {
        self.fields.retain(|(name, _)| *name != field);
        self.fields.push((field, value));
        self
    }

    fn without(mut self, field: &'static str) -> Self {
        self.fields.retain(|(name, _)| *name != field);
        self
    }

    fn twice(mut self, field: &'static str, value: &[u8]) -> Self {
        self.fields.push((field, value.to_vec()));
        self
    }

    fn build(&self) -> Vec<u8> {
        let mut bytes = cbor(|encoder| {
            drop(if self.indefinite { encoder.begin_map() } else { encoder.map(self.fields.len() as u64) });
        });
        for (name, value) in &self.fields {
            bytes.extend(text(name));
            bytes.extend(value);
        }
        if self.indefinite {
            bytes.push(0xff);
        }
        bytes
    }

    fn refusal(&self) -> DocumentError {
        Document::parse(&self.build()).unwrap_err()
    }
}

#[test]
fn a_document_is_read_as_it_was_written() {
    for indefinite in [false, true] {
        let bytes = Builder { indefinite, ..Builder::new() }.with("user_data", byte_string(b"bound")).build();
        let document = Document::parse(&bytes).unwrap();
        assert_eq!(document.module_id, "i-0123-enc4567");
        assert_eq!(document.timestamp_unix_ms, 1_766_668_537_578);
        assert_eq!(document.measurements, MeasurementSet { pcr0: [1; 48], pcr1: [2; 48], pcr2: [3; 48] });
        assert_eq!(document.pcrs.len(), 4);
        assert_eq!(document.pcrs.get(31), Some(&[4; 48]));
        assert_eq!(document.certificate.len(), 640);
        assert_eq!(document.cabundle.iter().map(|der| der.len()).collect::<Vec<_>>(), [533, 700]);
        assert_eq!(document.user_data, Some(&b"bound"[..]));
    }
}

#[test]
fn nested_maps_and_arrays_may_be_indefinite_too() {
    let mut pcrs = vec![0xbf];
    for index in 0..3 {
        pcrs.push(index);
        pcrs.extend(byte_string(&[index; 48]));
    }
    pcrs.push(0xff);
    let mut cabundle = vec![0x9f];
    cabundle.extend(byte_string(&[0x30; 533]));
    cabundle.push(0xff);
    let bytes = Builder::new().with("pcrs", pcrs).with("cabundle", cabundle).build();
    let document = Document::parse(&bytes).unwrap();
    assert_eq!((document.pcrs.len(), document.cabundle.len()), (3, 1));
}

#[test]
fn optional_fields_are_absent_null_empty_or_there() {
    let absent = Builder::new();
    let cases = [
        (absent.clone(), None),
        (absent.clone().with("nonce", NULL.to_vec()), None),
        (absent.clone().with("nonce", byte_string(&[])), Some(&[][..])),
        (absent.with("nonce", byte_string(&[9; 512])), Some(&[9; 512][..])),
    ];
    for (builder, expected) in cases {
        assert_eq!(Document::parse(&builder.build()).unwrap().nonce, expected);
    }
}

#[test]
fn each_field_must_be_there() {
    for field in ["module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"] {
        assert_eq!(Builder::new().without(field).refusal(), DocumentError::MissingField { field });
    }
}

#[test]
fn no_field_may_be_there_twice() {
    for (field, value) in Builder::new().fields {
        assert_eq!(Builder::new().twice(field, &value).refusal(), DocumentError::DuplicateField { field });
    }
    for field in ["public_key", "user_data", "nonce"] {
        // The first one null: a reader that only looks whether it has a value yet would take the second.
        let twice = Builder::new().with(field, NULL.to_vec()).twice(field, &byte_string(&[1]));
        assert_eq!(twice.refusal(), DocumentError::DuplicateField { field });
    }
}

#[test]
fn sizes_are_those_that_aws_documents() {
    for (field, max) in [("public_key", 1024), ("user_data", 512), ("nonce", 512)] {
        assert!(Document::parse(&Builder::new().with(field, byte_string(&vec![1; max])).build()).is_ok());
        let refusal = Builder::new().with(field, byte_string(&vec![1; max + 1])).refusal();
        assert_eq!(refusal, DocumentError::FieldSize { field, found: max + 1, min: 0, max });
    }
    for found in [0, 1025] {
        let refusal = Builder::new().with("certificate", byte_string(&vec![1; found])).refusal();
        assert_eq!(refusal, DocumentError::FieldSize { field: "certificate", found, min: 1, max: 1024 });
        let refusal = Builder::new().with("cabundle", certificates(&[533, found])).refusal();
        assert_eq!(refusal, DocumentError::FieldSize { field: "cabundle", found, min: 1, max: 1024 });
    }
    for found in [0, 129] {
        let refusal = Builder::new().with("module_id", text(&"i".repeat(found))).refusal();
        assert_eq!(refusal, DocumentError::FieldSize { field: "module_id", found, min: 1, max: 128 });
    }
    assert_eq!(Builder::new().with("cabundle", certificates(&[])).refusal(), DocumentError::EmptyCabundle);
    let refusal = Builder::new().with("cabundle", certificates(&[1; 9])).refusal();
    assert_eq!(refusal, DocumentError::CabundleLength { max: 8 });
}

#[test]
fn pcrs_are_sha384_values_of_registers_that_exist() {
    let three: [(u64, &[u8]); 3] = [(0, &[1; 48]), (1, &[2; 48]), (2, &[3; 48])];
    let with = |entry: (u64, &'static [u8])| {
        let mut entries = three.to_vec();
        entries.push(entry);
        Builder::new().with("pcrs", pcr_map(&entries)).refusal()
    };
    assert_eq!(with((32, &[4; 48])), DocumentError::PcrIndex { found: 32 });
    assert_eq!(with((256, &[4; 48])), DocumentError::PcrIndex { found: 256 });
    assert_eq!(with((2, &[4; 48])), DocumentError::DuplicatePcr { index: 2 });
    for (found, value) in [(0, &[][..]), (32, &[4; 32]), (64, &[4; 64])] {
        assert_eq!(with((3, value)), DocumentError::PcrLength { index: 3, found });
    }
    for missing in 0..3_u8 {
        let entries: Vec<_> = three.iter().copied().filter(|(index, _)| *index != u64::from(missing)).collect();
        let refusal = Builder::new().with("pcrs", pcr_map(&entries)).refusal();
        assert_eq!(refusal, DocumentError::MissingPcr { index: missing });
    }
}

#[test]
fn the_rest_is_held_to_its_form() {
    assert_eq!(Builder::new().with("digest", text("SHA256")).refusal(), DocumentError::Digest);
    assert_eq!(Builder::new().with("timestamp", vec![0]).refusal(), DocumentError::Timestamp);
    assert_eq!(Builder::new().with("module_id", text("i-\u{1b}[2J")).refusal(), DocumentError::ModuleId);
    let mut trailing = Builder::new().build();
    trailing.push(0);
    assert_eq!(Document::parse(&trailing), Err(DocumentError::TrailingBytes { found: 1 }));
    let chunked = vec![0x5f, 0x41, 1, 0xff];
    let refusal = Builder::new().with("nonce", chunked).refusal();
    assert!(matches!(refusal, DocumentError::Malformed { wanted: "nonce", .. }), "{refusal}");
    assert!(matches!(Document::parse(&[0x80]), Err(DocumentError::Malformed { wanted: "map", at: 0 })));
    // A length of 2^63 entries is not allocated for: the next field is simply missing.
    let huge = [0xbb, 0x80, 0, 0, 0, 0, 0, 0, 0];
    assert!(matches!(Document::parse(&huge), Err(DocumentError::Malformed { wanted: "field name (text)", .. })));
}

#[test]
fn unknown_fields_are_skipped_but_not_to_any_depth() {
    let nested = |depth: usize| {
        let mut value = vec![0x81; depth];
        value.push(0x01);
        Builder::new().with("future", value)
    };
    for value in [vec![0x01], text("x"), vec![0xa1, 0x01, 0x82, 0x01, 0x02], vec![0x9f, 0x01, 0xff], vec![0xc1, 0x00]] {
        assert!(Document::parse(&Builder::new().with("future", value).build()).is_ok());
    }
    assert!(Document::parse(&nested(4).build()).is_ok());
    assert_eq!(nested(5).refusal(), DocumentError::Depth { max: 4 });
    assert_eq!(nested(1000).refusal(), DocumentError::Depth { max: 4 });
    let huge = Builder::new().with("future", vec![0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    assert!(matches!(huge.refusal(), DocumentError::Malformed { wanted: "map", .. }));
}
