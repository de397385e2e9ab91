//! X.509 written by hand: certificates and revocation lists in DER.

/// A signature algorithm with its key.
pub(crate) trait Signer {
    /// The AlgorithmIdentifier, whole.
    fn algorithm(&self) -> Vec<u8>;
    /// SubjectPublicKeyInfo.
    fn public_key(&self) -> Vec<u8>;
    fn sign(&self, message: &[u8]) -> Vec<u8>;
}

pub(crate) fn tlv(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len();
    let mut bytes = vec![tag];
    match length {
        0..=0x7f => bytes.push(u8::try_from(length).unwrap()),
        0x80..=0xff => bytes.extend([0x81, u8::try_from(length).unwrap()]),
        _ => {
            bytes.push(0x82);
            bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
    }
    bytes.extend_from_slice(contents);
    bytes
}

pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

pub(crate) fn integer(value: u64) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(7);
    let padded = if bytes[first] > 0x7f { [&[0], &bytes[first..]].concat() } else { bytes[first..].to_vec() };
    tlv(0x02, &padded)
}

pub(crate) fn oid(numbers: &[u64]) -> Vec<u8> {
    let mut contents = vec![u8::try_from(numbers[0] * 40 + numbers[1]).unwrap()];
    for number in &numbers[2..] {
        let mut digits = vec![u8::try_from(number & 0x7f).unwrap()];
        let mut rest = number >> 7;
        while rest > 0 {
            digits.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
            rest >>= 7;
        }
        contents.extend(digits.iter().rev());
    }
    tlv(0x06, &contents)
}

pub(crate) fn octets(contents: &[u8]) -> Vec<u8> {
    tlv(0x04, contents)
}

pub(crate) fn bits(contents: &[u8]) -> Vec<u8> {
    tlv(0x03, &[&[0], contents].concat())
}

pub(crate) fn name(common: &str) -> Vec<u8> {
    sequence(&[&tlv(0x31, &sequence(&[&oid(&[2, 5, 4, 3]), &tlv(0x0c, common.as_bytes())]))])
}

/// UTCTime: two digits of the year, which is 1950 to 2049.
pub(crate) fn time(unix: u64) -> Vec<u8> {
    let moment = x509_cert::der::DateTime::from_unix_duration(std::time::Duration::from_secs(unix)).unwrap();
    let text = format!(
        "{:02}{:02}{:02}{:02}{:02}{:02}Z",
        moment.year() % 100,
        moment.month(),
        moment.day(),
        moment.hour(),
        moment.minutes(),
        moment.seconds()
    );
    tlv(0x17, text.as_bytes())
}

pub(crate) fn extension(numbers: &[u64], critical: bool, value: &[u8]) -> Vec<u8> {
    let flag = if critical { tlv(0x01, &[0xff]) } else { Vec::new() };
    sequence(&[&oid(numbers), &flag, &octets(value)])
}

/// A certificate on its way to be signed.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) subject: String,
    pub(crate) issuer: String,
    pub(crate) serial: u64,
    pub(crate) window: (u64, u64),
    /// Whether it is an authority, and how many may stand below it.
    pub(crate) authority: Option<u64>,
    pub(crate) extensions: Vec<Vec<u8>>,
}

impl Plan {
    pub(crate) fn sign(&self, public_key: &[u8], issuer: &dyn Signer) -> Vec<u8> {
        let algorithm = issuer.algorithm();
        let mut extensions = self.extensions.clone();
        if let Some(below) = self.authority {
            let constraints = sequence(&[&tlv(0x01, &[0xff]), &integer(below)]);
            extensions.push(extension(&[2, 5, 29, 19], true, &constraints));
            // keyCertSign and cRLSign.
            extensions.push(extension(&[2, 5, 29, 15], true, &[0x03, 0x02, 0x01, 0x06]));
        }
        let extensions: Vec<&[u8]> = extensions.iter().map(Vec::as_slice).collect();
        let (begin, end) = self.window;
        let tbs = sequence(&[
            &tlv(0xa0, &integer(2)),
            &integer(self.serial),
            &algorithm,
            &name(&self.issuer),
            &sequence(&[&time(begin), &time(end)]),
            &name(&self.subject),
            public_key,
            &tlv(0xa3, &sequence(&extensions)),
        ]);
        let signature = issuer.sign(&tbs);
        sequence(&[&tbs, &algorithm, &bits(&signature)])
    }
}

/// A revocation list.
pub(crate) struct ListPlan {
    pub(crate) issuer: String,
    pub(crate) window: (u64, u64),
    pub(crate) revoked: Vec<u64>,
}

impl ListPlan {
    pub(crate) fn sign(&self, issuer: &dyn Signer) -> Vec<u8> {
        let algorithm = issuer.algorithm();
        let (begin, end) = self.window;
        let entries: Vec<Vec<u8>> =
            self.revoked.iter().map(|serial| sequence(&[&integer(*serial), &time(begin)])).collect();
        let entries: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
        let revoked = if entries.is_empty() { Vec::new() } else { sequence(&entries) };
        let number = extension(&[2, 5, 29, 20], false, &integer(1));
        let tbs = sequence(&[
            &integer(1),
            &algorithm,
            &name(&self.issuer),
            &time(begin),
            &time(end),
            &revoked,
            &tlv(0xa0, &sequence(&[&number])),
        ]);
        let signature = issuer.sign(&tbs);
        sequence(&[&tbs, &algorithm, &bits(&signature)])
    }
}
