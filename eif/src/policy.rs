//! The key policy that an image implies: the one that ships, `deploy/kms-key-policy.json`, with this image's measurements.

use crate::measure::{Measurements, Pcr};

const TEMPLATE: &str = include_str!("../../deploy/kms-key-policy.json");

/// Why no policy can be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Not an account.
    #[error("{0:?} is no AWS account: it has twelve digits")]
    Account(String),
    /// Not a role.
    #[error("{0:?} is no role: give its name, or its ARN, such as arn:aws:iam::111122223333:role/casemate-enclave")]
    Role(String),
    /// A role elsewhere: the policy's last statement would deny it everything.
    #[error(
        "the role {role} is not in the account {account}, outside which the policy denies everybody: name a role of that account"
    )]
    OtherAccount {
        /// The role's ARN.
        role: String,
        /// The account of the key.
        account: String,
    },
    /// The measurements of every debug enclave.
    #[error(
        "{0} is zero, as in every debug enclave: whoever starts any image in debug mode would get the keys. Use the measurements that `build` wrote"
    )]
    Debug(&'static str),
}

/// Who may have the keys, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principals {
    account: String,
    enclave_role: String,
    admin_role: String,
}

impl Principals {
    /// The key's account, the role of the instances, and the role that manages the key without using it. Roles are names or ARNs.
    ///
    /// # Errors
    /// [`PolicyError`] for what AWS would not take, or what would lock everybody out.
    pub fn new(account: &str, enclave_role: &str, admin_role: &str) -> Result<Self, PolicyError> {
        if account.len() != 12 || !account.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(PolicyError::Account(account.to_owned()));
        }
        let [enclave_role, admin_role] = [arn(account, enclave_role)?, arn(account, admin_role)?];
        Ok(Self { account: account.to_owned(), enclave_role, admin_role })
    }
}

/// Attack stopped: a "role" with a quote in it that adds a statement, or with a `*` that lets everybody in.
fn arn(account: &str, role: &str) -> Result<String, PolicyError> {
    let invalid = || PolicyError::Role(role.chars().take(200).collect());
    let (partition, owner, path) = match role.split(':').collect::<Vec<_>>()[..] {
        [name] => ("aws", account, name),
        ["arn", partition @ ("aws" | "aws-us-gov" | "aws-cn"), "iam", "", owner, path] => {
            (partition, owner, path.strip_prefix("role/").ok_or_else(invalid)?)
        }
        _ => return Err(invalid()),
    };
    // IAM: the characters of a role's name and path.
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@_-/".contains(&byte);
    let parts = || path.split('/');
    if path.len() > 512
        || !path.bytes().all(allowed)
        || parts().any(str::is_empty)
        || parts().next_back().is_none_or(|name| name.len() > 64)
    {
        return Err(invalid());
    }
    let arn = format!("arn:{partition}:iam::{owner}:role/{path}");
    if owner == account { Ok(arn) } else { Err(PolicyError::OtherAccount { role: arn, account: account.to_owned() }) }
}

/// The whole policy of a KMS key that serves this image and no other, in JSON.
///
/// # Errors
/// Measurements of a debug enclave.
pub fn of(measurements: &Measurements, principals: &Principals) -> Result<String, PolicyError> {
    let Measurements { pcr0, pcr1, pcr2, .. } = measurements;
    for (name, pcr) in [("PCR0", pcr0), ("PCR1", pcr1), ("PCR2", pcr2)] {
        if *pcr == Pcr::ZERO {
            return Err(PolicyError::Debug(name));
        }
    }
    // The values are digits, letters and the characters of an ARN: none ends a string of JSON, none is a placeholder.
    let policy = TEMPLATE
        .replace("${ENCLAVE_ROLE_ARN}", &principals.enclave_role)
        .replace("${ADMIN_ROLE_ARN}", &principals.admin_role)
        .replace("${ACCOUNT}", &principals.account)
        .replace("${PCR0}", &pcr0.to_string())
        .replace("${PCR1}", &pcr1.to_string())
        .replace("${PCR2}", &pcr2.to_string());
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const ACCOUNT: &str = "111122223333";

    fn measurements() -> Measurements {
        Measurements { pcr0: Pcr([0xA0; 48]), pcr1: Pcr([0xA1; 48]), pcr2: Pcr([0xA2; 48]), pcr8: None }
    }

    #[test]
    fn the_shipped_policy_is_filled_and_nothing_is_left_open() {
        let principals = Principals::new(ACCOUNT, "enclave", "arn:aws:iam::111122223333:role/team/admin").unwrap();
        let policy = of(&measurements(), &principals).unwrap();
        assert!(!policy.contains("${"), "{policy}");
        let policy: Value = serde_json::from_str(&policy).unwrap();
        let template: Value = serde_json::from_str(TEMPLATE).unwrap();
        let statements = policy["Statement"].as_array().unwrap();
        assert_eq!(statements.len(), template["Statement"].as_array().unwrap().len());
        let by_sid = |sid: &str| statements.iter().find(|statement| statement["Sid"] == sid).unwrap();
        let allowed = by_sid("AllowTheAttestedImageToMakeAndUnsealShardKeys");
        assert_eq!(allowed["Principal"]["AWS"], "arn:aws:iam::111122223333:role/enclave");
        let pcrs = &allowed["Condition"]["StringEqualsIgnoreCase"];
        for (name, byte) in [("PCR0", "a0"), ("PCR1", "a1"), ("PCR2", "a2")] {
            assert_eq!(pcrs[format!("kms:RecipientAttestation:{name}")], byte.repeat(48), "{name}");
        }
        let admin = &by_sid("AllowAdministratorsToManageButNotToUse")["Principal"]["AWS"];
        assert_eq!(admin, "arn:aws:iam::111122223333:role/team/admin");
        assert_eq!(
            by_sid("DenyCallersOutsideTheAccount")["Condition"]["StringNotEquals"]["kms:CallerAccount"],
            ACCOUNT
        );
    }

    #[test]
    fn nobody_is_let_in_or_locked_out_by_a_slip() {
        let roles = |role: &str| Principals::new(ACCOUNT, role, "admin").map(|_| ());
        assert_eq!(Principals::new("11112222333", "r", "a").err(), Some(PolicyError::Account("11112222333".into())));
        assert_eq!(Principals::new("11112222333x", "r", "a").err(), Some(PolicyError::Account("11112222333x".into())));
        for role in
            ["", "*", "a b", "x\", \"y", "${PCR0}", "/r", "r/", "arn:aws:iam::111122223333:user/r", &"r".repeat(65)]
        {
            assert_eq!(roles(role), Err(PolicyError::Role(role.into())), "{role}");
        }
        assert_eq!(roles("arn:aws-us-gov:iam::111122223333:role/r"), Ok(()));
        assert!(matches!(roles("arn:aws:iam::999999999999:role/r"), Err(PolicyError::OtherAccount { .. })));
        assert!(matches!(roles("arn:aws:iam::*:role/r"), Err(PolicyError::OtherAccount { .. })));
    }

    #[test]
    fn debug_measurements_imply_no_policy() {
        let principals = Principals::new(ACCOUNT, "r", "a").unwrap();
        for (name, debug) in [
            ("PCR0", Measurements { pcr0: Pcr::ZERO, ..measurements() }),
            ("PCR1", Measurements { pcr1: Pcr::ZERO, ..measurements() }),
            ("PCR2", Measurements { pcr2: Pcr::ZERO, ..measurements() }),
        ] {
            assert_eq!(of(&debug, &principals), Err(PolicyError::Debug(name)));
        }
    }
}
