//! Conditions of a policy statement: IAM's operators over the keys that a KMS request carries.
//!
//! Closed on purpose: an operator or condition key that is not evaluated here refuses the policy at start, because a
//! condition that silently never matches turns a Deny into nothing.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::policy::PolicyError;

/// What a request says of itself, by condition key (lower case, as IAM compares them without case).
#[derive(Debug, Clone, Default)]
pub struct RequestContext {
    values: BTreeMap<String, Vec<String>>,
}

impl RequestContext {
    /// Sets a condition key to its value or values.
    pub fn set(&mut self, key: &str, values: Vec<String>) {
        self.values.insert(key.to_ascii_lowercase(), values);
    }

    fn get(&self, key: &str) -> &[String] {
        self.values.get(key).map_or(&[], Vec::as_slice)
    }
}

/// How the values of a request that has several are taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantifier {
    /// The key has one value.
    Single,
    /// Each value must match; true when there is none, as in IAM.
    ForAllValues,
    /// Some value must match.
    ForAnyValue,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equals,
    EqualsIgnoreCase,
    NotEquals,
    NotEqualsIgnoreCase,
    /// Key present ("false") or absent ("true").
    Null,
    Bool,
}

impl Comparison {
    fn is_negated(self) -> bool {
        matches!(self, Self::NotEquals | Self::NotEqualsIgnoreCase)
    }

    /// Whether one value of the request satisfies the operator against all the values of the policy.
    fn holds(self, value: &str, policy: &[String]) -> bool {
        let equal = |wanted: &String| match self {
            Self::Equals | Self::NotEquals => wanted == value,
            Self::EqualsIgnoreCase | Self::NotEqualsIgnoreCase | Self::Bool | Self::Null => {
                wanted.eq_ignore_ascii_case(value)
            }
        };
        policy.iter().any(equal) != self.is_negated()
    }
}

/// Before the index of a register.
const MEASUREMENT: &str = "kms:recipientattestation:pcr";

/// One operator over one key: `{"StringEquals": {"key": ["a", "b"]}}`.
#[derive(Debug, Clone)]
pub struct Condition {
    comparison: Comparison,
    quantifier: Quantifier,
    key: String,
    values: Vec<String>,
}

impl Condition {
    /// Reads one `operator: {key: values}` of a `Condition` block.
    pub(crate) fn parse_operator(operator: &str, keys: &Value) -> Result<Vec<Self>, PolicyError> {
        let unknown = || PolicyError::UnknownOperator(operator.to_owned());
        let (quantifier, name) = match operator.split_once(':') {
            None => (Quantifier::Single, operator),
            Some(("ForAllValues", name)) => (Quantifier::ForAllValues, name),
            Some(("ForAnyValue", name)) => (Quantifier::ForAnyValue, name),
            Some(_) => return Err(unknown()),
        };
        let comparison = match name {
            "StringEquals" => Comparison::Equals,
            "StringEqualsIgnoreCase" => Comparison::EqualsIgnoreCase,
            "StringNotEquals" => Comparison::NotEquals,
            "StringNotEqualsIgnoreCase" => Comparison::NotEqualsIgnoreCase,
            "Null" if quantifier == Quantifier::Single => Comparison::Null,
            "Bool" if quantifier == Quantifier::Single => Comparison::Bool,
            _ => return Err(unknown()),
        };
        let keys = keys.as_object().ok_or_else(|| PolicyError::Shape(format!("'{operator}' must hold an object")))?;
        keys.iter().map(|(key, values)| Self::parse_key(comparison, quantifier, key, values)).collect()
    }

    fn parse_key(
        comparison: Comparison,
        quantifier: Quantifier,
        key: &str,
        values: &Value,
    ) -> Result<Self, PolicyError> {
        let lower = key.to_ascii_lowercase();
        let Some(multi_valued) = cardinality(&lower) else {
            return Err(PolicyError::UnknownConditionKey(key.to_owned()));
        };
        // Over a key with several values, an operator without a quantifier means what nobody expects.
        if multi_valued == (quantifier == Quantifier::Single) && comparison != Comparison::Null {
            return Err(PolicyError::Quantifier(key.to_owned()));
        }
        let values = crate::policy::one_or_more(values)
            .ok_or_else(|| PolicyError::Shape(format!("the values of '{key}' must be one string or a list of them")))?;
        let booleans_only = matches!(comparison, Comparison::Null | Comparison::Bool);
        if booleans_only && !values.iter().all(|value| value == "true" || value == "false") {
            return Err(PolicyError::Shape(format!("'{key}' must be \"true\" or \"false\" here")));
        }
        Ok(Self { comparison, quantifier, key: lower, values })
    }

    /// Whether the request satisfies this condition.
    pub(crate) fn holds(&self, request: &RequestContext) -> bool {
        let present = request.get(&self.key);
        if self.comparison == Comparison::Null {
            return self.comparison.holds(if present.is_empty() { "true" } else { "false" }, &self.values);
        }
        let mut each = present.iter().map(|value| self.comparison.holds(value, &self.values));
        match self.quantifier {
            // An absent key fails a positive operator and satisfies a negated one: that is IAM's rule, and what makes the
            // shipped Deny statements cover requests that carry no evidence.
            Quantifier::Single if present.is_empty() => self.comparison.is_negated(),
            Quantifier::Single | Quantifier::ForAllValues => each.all(|holds| holds),
            Quantifier::ForAnyValue => each.any(|holds| holds),
        }
    }
}

impl Condition {
    /// For a condition that wants another measurement than the request's: which differs, what it is and what would be right.
    pub(crate) fn measurement(&self, request: &RequestContext) -> Option<String> {
        let register = self.key.strip_prefix(MEASUREMENT)?;
        let found = request.get(&self.key).first()?;
        let negated = matches!(self.comparison, Comparison::NotEquals | Comparison::NotEqualsIgnoreCase);
        (negated && self.holds(request))
            .then(|| format!("PCR{register} is {found}, wanted {}", self.values.join(" or ")))
    }
}

/// Whether a condition key is one that the stand-in supplies, and if so whether it has several values.
fn cardinality(key: &str) -> Option<bool> {
    const SINGLE: [&str; 4] =
        ["aws:principalarn", "aws:securetransport", "kms:calleraccount", "kms:recipientattestation:imagesha384"];
    if key == "kms:encryptioncontextkeys" {
        return Some(true);
    }
    if let Some(name) = key.strip_prefix("kms:encryptioncontext:") {
        return (!name.is_empty()).then_some(false);
    }
    if let Some(index) = key.strip_prefix(MEASUREMENT) {
        return index.parse::<u8>().is_ok_and(|index| index < 32).then_some(false);
    }
    SINGLE.contains(&key).then_some(false)
}
