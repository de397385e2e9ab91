//! AWS's published Signature Version 4 suite (Apache-2.0), and the ways in which an attacker departs from it.

use super::*;

/// 2015-08-30T12:36:00Z, the suite's date.
const THEN: u64 = 1_440_938_160;
const SESSION_TOKEN: &str = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267";

struct Vector {
    name: &'static str,
    method: &'static str,
    headers: &'static [(&'static str, &'static str)],
    signed: &'static str,
    body: &'static str,
    signature: &'static str,
    token: Option<&'static str>,
}

const VECTORS: &[Vector] = &[
    Vector {
        name: "get-vanilla",
        method: "GET",
        headers: &[],
        signed: "host;x-amz-date",
        body: "",
        signature: "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        token: None,
    },
    Vector {
        name: "post-vanilla",
        method: "POST",
        headers: &[],
        signed: "host;x-amz-date",
        body: "",
        signature: "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        token: None,
    },
    Vector {
        name: "get-header-value-order",
        method: "GET",
        headers: &[
            ("My-Header1", "value4"),
            ("My-Header1", "value1"),
            ("My-Header1", "value3"),
            ("My-Header1", "value2"),
        ],
        signed: "host;my-header1;x-amz-date",
        body: "",
        signature: "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01",
        token: None,
    },
    Vector {
        name: "get-header-value-trim",
        method: "GET",
        headers: &[("My-Header1", " value1"), ("My-Header2", " \"a   b   c\"")],
        signed: "host;my-header1;my-header2;x-amz-date",
        body: "",
        signature: "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        token: None,
    },
    Vector {
        name: "post-header-value-case",
        method: "POST",
        headers: &[("My-Header1", "VALUE1")],
        signed: "host;my-header1;x-amz-date",
        body: "",
        signature: "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
        token: None,
    },
    Vector {
        name: "post-x-www-form-urlencoded",
        method: "POST",
        headers: &[
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Content-Length", "13"),
            ("x-amz-content-sha256", "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e"),
        ],
        signed: "content-length;content-type;host;x-amz-content-sha256;x-amz-date",
        body: "Param1=value1",
        signature: "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b",
        token: None,
    },
    Vector {
        name: "get-vanilla-with-session-token",
        method: "GET",
        headers: &[("X-Amz-Security-Token", SESSION_TOKEN)],
        signed: "host;x-amz-date;x-amz-security-token",
        body: "",
        signature: "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8",
        token: Some(SESSION_TOKEN),
    },
];

fn verifier(token: Option<&str>) -> Verifier {
    let caller = Caller {
        access_key: "AKIDEXAMPLE".to_owned(),
        secret_key: Zeroizing::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned()),
        session_token: token.map(|token| Zeroizing::new(token.to_owned())),
        principal_arn: "arn:aws:iam::111122223333:role/example".to_owned(),
    };
    Verifier::new("us-east-1", "service", vec![caller])
}

fn headers_of(vector: &Vector) -> Vec<(String, String)> {
    let mut headers = vec![
        ("Host".to_owned(), "example.amazonaws.com".to_owned()),
        ("X-Amz-Date".to_owned(), "20150830T123600Z".to_owned()),
    ];
    headers.extend(vector.headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders={}, Signature={}",
        vector.signed, vector.signature
    );
    headers.push(("Authorization".to_owned(), authorization));
    headers
}

fn verify(vector: &Vector, headers: &[(String, String)], body: &str, now: u64) -> Result<String, SignatureError> {
    let request = SignedRequest { method: vector.method, path_and_query: "/", headers, body: body.as_bytes() };
    verifier(vector.token).verify(&request, now).map(|caller| caller.principal_arn.clone())
}

/// A vector's headers, with one thing made different.
fn changed(vector: &Vector, change: impl Fn(&mut Vec<(String, String)>)) -> Vec<(String, String)> {
    let mut headers = headers_of(vector);
    change(&mut headers);
    headers
}

fn replace(name: &'static str, from: &'static str, to: &'static str) -> impl Fn(&mut Vec<(String, String)>) {
    move |headers| {
        for (_, value) in headers.iter_mut().filter(|(header, _)| header == name) {
            *value = value.replace(from, to);
        }
    }
}

#[test]
fn the_published_vectors_verify() {
    for vector in VECTORS {
        for now in [THEN - MAX_SKEW_SECONDS, THEN, THEN + MAX_SKEW_SECONDS] {
            let verdict = verify(vector, &headers_of(vector), vector.body, now);
            assert_eq!(verdict.as_deref(), Ok("arn:aws:iam::111122223333:role/example"), "{}", vector.name);
        }
    }
}

#[test]
fn a_change_in_any_signed_part_is_refused() {
    for vector in VECTORS {
        let cases = [
            ("signature", changed(vector, replace("Authorization", &vector.signature[..8], "00000000"))),
            ("host", changed(vector, replace("Host", "example", "elsewhere"))),
            ("date", changed(vector, replace("X-Amz-Date", "123600Z", "123601Z"))),
        ];
        for (what, headers) in cases {
            assert_eq!(
                verify(vector, &headers, vector.body, THEN),
                Err(SignatureError::Mismatch),
                "{} {what}",
                vector.name
            );
        }
        let body = format!("{} ", vector.body);
        assert_eq!(verify(vector, &headers_of(vector), &body, THEN), Err(SignatureError::Mismatch), "{}", vector.name);
    }
}

#[test]
fn stale_and_future_requests_are_refused() {
    let vector = &VECTORS[1];
    for now in [THEN - MAX_SKEW_SECONDS - 1, THEN + MAX_SKEW_SECONDS + 1] {
        assert_eq!(verify(vector, &headers_of(vector), "", now), Err(SignatureError::Skewed));
    }
}

#[test]
fn another_scope_is_refused() {
    let vector = &VECTORS[1];
    for (from, to) in [("us-east-1", "eu-west-1"), ("/service/", "/s3/"), ("20150830", "20150829")] {
        let headers = changed(vector, replace("Authorization", from, to));
        assert!(matches!(verify(vector, &headers, "", THEN), Err(SignatureError::Scope { .. })), "{to}");
    }
}

#[test]
fn an_unknown_key_or_token_is_refused() {
    let vector = &VECTORS[1];
    let headers = changed(vector, replace("Authorization", "AKIDEXAMPLE", "AKIDOTHER"));
    assert_eq!(verify(vector, &headers, "", THEN), Err(SignatureError::UnknownCaller));

    let with_token = VECTORS.last().unwrap();
    let headers = changed(with_token, replace("X-Amz-Security-Token", "6e86", "6e87"));
    assert_eq!(verify(with_token, &headers, "", THEN), Err(SignatureError::UnknownCaller));
    // A token where the caller has none.
    let unexpected = headers_of(with_token);
    let request = SignedRequest { method: "GET", path_and_query: "/", headers: &unexpected, body: b"" };
    assert_eq!(verifier(None).verify(&request, THEN).err(), Some(SignatureError::UnknownCaller));
}

#[test]
fn an_unsigned_target_or_host_is_refused() {
    let vector = &VECTORS[1];
    let unsigned = changed(vector, |headers| {
        headers.push(("X-Amz-Target".to_owned(), "TrentService.Decrypt".to_owned()));
    });
    assert!(matches!(verify(vector, &unsigned, "", THEN), Err(SignatureError::Incomplete(_))));
    let hostless = changed(vector, replace("Authorization", "host;", ""));
    assert!(matches!(verify(vector, &hostless, "", THEN), Err(SignatureError::Incomplete(_))));
    let twice = changed(vector, |headers| headers.push(headers[2].clone()));
    assert!(matches!(verify(vector, &twice, "", THEN), Err(SignatureError::Incomplete(_))));
    let none = changed(vector, |headers| headers.truncate(2));
    assert_eq!(verify(vector, &none, "", THEN), Err(SignatureError::Missing));
}

#[test]
fn dates_are_read_as_the_calendar_has_them() {
    assert_eq!(unix_from_basic_iso8601("19700101T000000Z"), Some(0));
    assert_eq!(unix_from_basic_iso8601("20000229T000000Z"), Some(951_782_400));
    assert_eq!(unix_from_basic_iso8601("20150830T123600Z"), Some(THEN));
    for wrong in ["20150830T123600", "2015-08-30T12:36Z", "20151330T123600Z", "20150830T243600Z", "1969123T1235959Z"] {
        assert_eq!(unix_from_basic_iso8601(wrong), None, "{wrong}");
    }
}
