//! The shipped policy against everyone who would use the key, and the evaluator against what it must refuse to load.

use super::*;

const SHIPPED: &str = include_str!("../../../deploy/kms-key-policy.json");
const ROLE: &str = "arn:aws:iam::111122223333:role/casemate-enclave";
const ADMIN: &str = "arn:aws:iam::111122223333:role/casemate-admin";
const KEY: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

fn pcr(fill: &str) -> String {
    fill.repeat(48)
}

fn values() -> BTreeMap<String, String> {
    [
        ("ACCOUNT", "111122223333".to_owned()),
        ("ENCLAVE_ROLE_ARN", ROLE.to_owned()),
        ("ADMIN_ROLE_ARN", ADMIN.to_owned()),
        ("PCR0", pcr("a0")),
        ("PCR1", pcr("a1")),
        ("PCR2", pcr("a2")),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// The request of the genuine enclave, before a row of the table changes it.
fn genuine() -> RequestContext {
    let mut context = RequestContext::default();
    context.set("aws:PrincipalArn", vec![ROLE.to_owned()]);
    context.set("kms:CallerAccount", vec!["111122223333".to_owned()]);
    for (index, fill) in ["a0", "a1", "a2"].iter().enumerate() {
        context.set(&format!("kms:RecipientAttestation:PCR{index}"), vec![pcr(fill)]);
    }
    let keys = ["casemate:cluster", "casemate:generation", "casemate:shard"];
    for key in keys {
        context.set(&format!("kms:EncryptionContext:{key}"), vec!["1".to_owned()]);
    }
    context.set("kms:EncryptionContextKeys", keys.iter().map(|key| (*key).to_owned()).collect());
    context
}

fn judge(principal: &str, action: &str, change: impl Fn(&mut RequestContext)) -> Verdict {
    let policy = KeyPolicy::from_template(SHIPPED, &values()).unwrap();
    let mut context = genuine();
    context.set("aws:PrincipalArn", vec![principal.to_owned()]);
    change(&mut context);
    policy.judge(&PolicyRequest { principal, action, resource: KEY, context: &context })
}

fn denied_by(sid: &str) -> Verdict {
    Verdict::DeniedBy(sid.to_owned())
}

#[test]
fn the_attested_image_may_make_and_unseal() {
    for action in ["kms:Decrypt", "kms:GenerateDataKey"] {
        assert_eq!(judge(ROLE, action, |_| ()), Verdict::Allowed, "{action}");
    }
    let upper_case = |context: &mut RequestContext| {
        context.set("kms:RecipientAttestation:PCR0", vec![pcr("A0")]);
    };
    assert_eq!(judge(ROLE, "kms:Decrypt", upper_case), Verdict::Allowed);
    assert_eq!(judge(ROLE, "kms:DescribeKey", |_| ()), Verdict::Allowed);
}

#[test]
fn no_evidence_no_key() {
    let without = |context: &mut RequestContext| {
        for index in 0..3 {
            context.set(&format!("kms:RecipientAttestation:PCR{index}"), Vec::new());
        }
    };
    for action in ["kms:Decrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext"] {
        assert_eq!(judge(ROLE, action, without), denied_by("DenyUseWithoutEvidence"), "{action}");
    }
    assert_eq!(judge(ROLE, "kms:DescribeKey", without), Verdict::Allowed);
}

#[test]
fn each_measurement_alone_denies() {
    let sids = ["DenyUseByAnotherImage", "DenyUseByAnotherKernel", "DenyUseByAnotherApplication"];
    for (index, sid) in sids.into_iter().enumerate() {
        let key = format!("kms:RecipientAttestation:PCR{index}");
        for value in [pcr("ff"), pcr("00"), String::new()] {
            let verdict = judge(ROLE, "kms:Decrypt", |context| context.set(&key, vec![value.clone()]));
            assert_eq!(verdict, denied_by(sid), "PCR{index} = {value}");
        }
    }
}

#[test]
fn another_principal_is_denied() {
    for principal in [ADMIN, "arn:aws:iam::111122223333:role/other", "arn:aws:iam::111122223333:root"] {
        assert_eq!(judge(principal, "kms:Decrypt", |_| ()), denied_by("DenyUseByAnyoneButTheInstanceRole"));
    }
    let foreign = |context: &mut RequestContext| context.set("kms:CallerAccount", vec!["444455556666".to_owned()]);
    assert_eq!(judge(ROLE, "kms:DescribeKey", foreign), denied_by("DenyCallersOutsideTheAccount"));
}

#[test]
fn the_ways_around_are_denied_to_everyone() {
    let actions =
        ["kms:Encrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:CreateGrant", "kms:ReplicateKey", "KMS:encrypt"];
    for principal in [ROLE, ADMIN] {
        for action in actions {
            assert_eq!(judge(principal, action, |_| ()), denied_by("DenyEveryWayAroundTheEvidence"), "{action}");
        }
    }
}

#[test]
fn administrators_manage_and_the_role_does_not() {
    for action in ["kms:PutKeyPolicy", "kms:ScheduleKeyDeletion", "kms:DescribeKey"] {
        assert_eq!(judge(ADMIN, action, |_| ()), Verdict::Allowed, "{action}");
    }
    for action in ["kms:PutKeyPolicy", "kms:ScheduleKeyDeletion", "kms:DisableKey"] {
        assert_eq!(judge(ROLE, action, |_| ()), Verdict::NotAllowed, "{action}");
    }
}

#[test]
fn the_encryption_context_is_required_and_closed() {
    for key in ["casemate:cluster", "casemate:shard", "casemate:generation"] {
        let name = format!("kms:EncryptionContext:{key}");
        let verdict = judge(ROLE, "kms:Decrypt", |context| context.set(&name, Vec::new()));
        assert_eq!(verdict, Verdict::NotAllowed, "{key}");
    }
    let more = |context: &mut RequestContext| {
        context.set("kms:EncryptionContextKeys", vec!["casemate:cluster".to_owned(), "other".to_owned()]);
    };
    assert_eq!(judge(ROLE, "kms:GenerateDataKey", more), Verdict::NotAllowed);
    // IAM compares the names in condition keys without case; the list of keys is what is case-sensitive.
    let case = |context: &mut RequestContext| {
        context.set("kms:EncryptionContextKeys", vec!["Casemate:cluster".to_owned()]);
    };
    assert_eq!(judge(ROLE, "kms:GenerateDataKey", case), Verdict::NotAllowed);
}

#[test]
fn placeholders_are_filled_after_parsing_and_all_of_them() {
    let mut missing = values();
    missing.remove("PCR1");
    assert_eq!(KeyPolicy::from_template(SHIPPED, &missing).unwrap_err(), PolicyError::Placeholder("PCR1".to_owned()));
    let mut extra = values();
    extra.insert("PCR7".to_owned(), pcr("00"));
    assert_eq!(KeyPolicy::from_template(SHIPPED, &extra).unwrap_err(), PolicyError::UnusedValue("PCR7".to_owned()));
    // A value cannot break out of its string.
    let mut hostile = values();
    hostile.insert("PCR0".to_owned(), "\", \"x\": \"".to_owned());
    KeyPolicy::from_template(SHIPPED, &hostile).unwrap();
}

fn one_statement(rest: &str) -> Result<KeyPolicy, PolicyError> {
    let template = format!(
        "{{\"Version\":\"2012-10-17\",\"Statement\":[{{\"Sid\":\"s\",\"Effect\":\"Allow\",\"Resource\":\"*\",{rest}}}]}}"
    );
    KeyPolicy::from_template(&template, &BTreeMap::new())
}

#[test]
fn what_is_not_enforced_is_not_loaded() {
    let everybody = r#""Principal":"*","Action":"kms:*""#;
    assert!(one_statement(everybody).is_ok());
    let conditions = [
        (r#"{"StringLike":{"aws:PrincipalArn":"x"}}"#, PolicyError::UnknownOperator("StringLike".to_owned())),
        (
            r#"{"StringEqualsIfExists":{"aws:PrincipalArn":"x"}}"#,
            PolicyError::UnknownOperator("StringEqualsIfExists".to_owned()),
        ),
        (
            r#"{"Null":{"kms:RecipientAttestation:PCR32":"true"}}"#,
            PolicyError::UnknownConditionKey("kms:RecipientAttestation:PCR32".to_owned()),
        ),
        (
            r#"{"StringEquals":{"kms:RecipientAttestation:PRC0":"x"}}"#,
            PolicyError::UnknownConditionKey("kms:RecipientAttestation:PRC0".to_owned()),
        ),
        (
            r#"{"StringEquals":{"kms:EncryptionContextKeys":"x"}}"#,
            PolicyError::Quantifier("kms:EncryptionContextKeys".to_owned()),
        ),
    ];
    for (condition, error) in conditions {
        assert_eq!(one_statement(&format!("{everybody},\"Condition\":{condition}")).unwrap_err(), error);
    }
    for rest in [
        r#""NotPrincipal":"*","Action":"kms:*""#,
        r#""Principal":"*","NotAction":"kms:Decrypt""#,
        r#""Principal":{"Service":"ec2.amazonaws.com"},"Action":"kms:*""#,
        r#""Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"kms:*""#,
        r#""Principal":{"AWS":"arn:aws:iam::111122223333:role/*"},"Action":"kms:*""#,
    ] {
        assert!(one_statement(rest).is_err(), "{rest}");
    }
}

#[test]
fn quantifiers_follow_iam() {
    let policy = |condition: &str| {
        one_statement(&format!(r#""Principal":"*","Action":"kms:*","Condition":{condition}"#)).unwrap()
    };
    let judge = |policy: &KeyPolicy, keys: &[&str]| {
        let mut context = RequestContext::default();
        context.set("kms:EncryptionContextKeys", keys.iter().map(|key| (*key).to_owned()).collect());
        policy.judge(&PolicyRequest { principal: ROLE, action: "kms:Decrypt", resource: KEY, context: &context })
    };
    let all = policy(r#"{"ForAllValues:StringEquals":{"kms:EncryptionContextKeys":["a","b"]}}"#);
    let any = policy(r#"{"ForAnyValue:StringEquals":{"kms:EncryptionContextKeys":["a","b"]}}"#);
    let any_other = policy(r#"{"ForAnyValue:StringNotEquals":{"kms:EncryptionContextKeys":["a","b"]}}"#);
    let table: [(&[&str], bool, bool, bool); 5] = [
        (&[], true, false, false),
        (&["a"], true, true, false),
        (&["a", "b"], true, true, false),
        (&["a", "c"], false, true, true),
        (&["c"], false, false, true),
    ];
    for (keys, for_all, for_any, other) in table {
        assert_eq!(judge(&all, keys) == Verdict::Allowed, for_all, "all {keys:?}");
        assert_eq!(judge(&any, keys) == Verdict::Allowed, for_any, "any {keys:?}");
        assert_eq!(judge(&any_other, keys) == Verdict::Allowed, other, "other {keys:?}");
    }
}

#[test]
fn wildcards_are_iams() {
    for (pattern, text, matches) in [
        ("*", "", true),
        ("kms:generatedatakey*", "kms:generatedatakey", true),
        ("kms:generatedatakey*", "kms:generatedatakeypair", true),
        ("kms:*key", "kms:describekeykey", true),
        ("kms:decrypt", "kms:decrypts", false),
        ("kms:?ecrypt", "kms:decrypt", true),
        ("a*b*c", "axxbyyc", true),
        ("a*b*c", "axxbyy", false),
    ] {
        assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), matches, "{pattern} {text}");
    }
}
