//! The key policy: IAM's language as far as our shipped policy speaks it, evaluated with deny over allow over nothing.
//!
//! The file is a template: `${NAME}` in any string is replaced by a value given at start, after the JSON was parsed, so
//! that a value cannot add structure. Whatever is not evaluated here (`NotAction`, an unknown operator, a placeholder
//! without a value, the account as a principal) refuses the policy: a rule that is ignored is worse than none.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::condition::{Condition, RequestContext};

const VERSION: &str = "2012-10-17";
/// AWS's own limit for a key policy document.
const MAX_POLICY_BYTES: usize = 32 * 1024;

/// Why a policy is not one that the stand-in enforces as AWS would.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Not JSON, or not a policy document.
    #[error("the key policy is not an IAM policy document: {0}")]
    Shape(String),
    /// Over AWS's limit.
    #[error("the key policy is larger than {MAX_POLICY_BYTES} bytes, AWS's limit")]
    TooLarge,
    /// A placeholder without a value.
    #[error("the key policy has the placeholder '${{{0}}}', which was given no value: pass --set {0}=…")]
    Placeholder(String),
    /// A value for a placeholder that the policy does not have.
    #[error("the key policy has no placeholder '${{{0}}}': drop --set {0}=…, or the policy is not the one meant")]
    UnusedValue(String),
    /// A condition operator that is not evaluated.
    #[error("the condition operator '{0}' is not one that the stand-in evaluates: add it to condition.rs first")]
    UnknownOperator(String),
    /// A condition key that is not supplied.
    #[error("the condition key '{0}' is not one that the stand-in supplies: check its spelling")]
    UnknownConditionKey(String),
    /// A multi-valued key without ForAllValues or ForAnyValue, or the reverse.
    #[error("'{0}' needs ForAllValues or ForAnyValue if it has several values, and neither if it has one")]
    Quantifier(String),
    /// A principal that is not a role, user or everybody.
    #[error("the principal '{0}' is not an IAM role or user ARN, and the stand-in has no IAM policies to delegate to")]
    Principal(String),
}

/// What the policy says of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Some statement allows it and none denies it.
    Allowed,
    /// The statement of this name denies it.
    DeniedBy(String),
    /// No statement allows it.
    NotAllowed,
}

/// One request as the policy sees it.
#[derive(Debug, Clone)]
pub struct PolicyRequest<'a> {
    /// ARN of the calling role.
    pub principal: &'a str,
    /// The action, such as `kms:Decrypt`.
    pub action: &'a str,
    /// ARN of the key.
    pub resource: &'a str,
    /// Its condition keys.
    pub context: &'a RequestContext,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct RawPolicy {
    version: String,
    #[serde(rename = "Id")]
    _id: Option<String>,
    statement: Vec<RawStatement>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct RawStatement {
    sid: String,
    effect: Effect,
    principal: Value,
    action: Value,
    resource: Value,
    condition: Option<serde_json::Map<String, Value>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Effect {
    Allow,
    Deny,
}

#[derive(Debug, Clone)]
struct Statement {
    sid: String,
    effect: Effect,
    /// `None` is everybody.
    principals: Option<Vec<String>>,
    actions: Vec<String>,
    resources: Vec<String>,
    conditions: Vec<Condition>,
}

/// A parsed key policy with its placeholders filled in.
#[derive(Debug, Clone)]
pub struct KeyPolicy {
    statements: Vec<Statement>,
}

impl KeyPolicy {
    /// Parses `template` and replaces its placeholders by `values`.
    ///
    /// # Errors
    /// [`PolicyError`] for anything that would not be enforced as AWS enforces it.
    pub fn from_template(template: &str, values: &BTreeMap<String, String>) -> Result<Self, PolicyError> {
        if template.len() > MAX_POLICY_BYTES {
            return Err(PolicyError::TooLarge);
        }
        let shape = |error: serde_json::Error| PolicyError::Shape(error.to_string());
        let mut document: Value = serde_json::from_str(template).map_err(shape)?;
        let mut unused: Vec<&str> = values.keys().map(String::as_str).collect();
        fill(&mut document, values, &mut unused)?;
        if let Some(name) = unused.first() {
            return Err(PolicyError::UnusedValue((*name).to_owned()));
        }
        let raw: RawPolicy = serde_json::from_value(document).map_err(shape)?;
        if raw.version != VERSION {
            return Err(PolicyError::Shape(format!("Version must be {VERSION}")));
        }
        let statements = raw.statement.into_iter().map(Statement::from_raw).collect::<Result<_, _>>()?;
        Ok(Self { statements })
    }

    /// Judges one request: an explicit deny wins, then an allow, and nothing means no.
    pub fn judge(&self, request: &PolicyRequest<'_>) -> Verdict {
        let matching = |effect| self.statements.iter().find(|s| s.effect == effect && s.matches(request));
        if let Some(statement) = matching(Effect::Deny) {
            return Verdict::DeniedBy(statement.sid.clone());
        }
        match matching(Effect::Allow) {
            Some(_) => Verdict::Allowed,
            None => Verdict::NotAllowed,
        }
    }

    /// The measurements for which the request is denied, each with what was wanted. The real KMS does not tell.
    pub fn other_measurements(&self, request: &PolicyRequest<'_>) -> Vec<String> {
        let denying = self.statements.iter().filter(|s| s.effect == Effect::Deny && s.matches(request));
        denying.flat_map(|s| s.conditions.iter().filter_map(|c| c.measurement(request.context))).collect()
    }
}

impl Statement {
    fn from_raw(raw: RawStatement) -> Result<Self, PolicyError> {
        let list = |name: &str, value: &Value| {
            one_or_more(value)
                .ok_or_else(|| PolicyError::Shape(format!("{name} of '{}' must be a string or a list", raw.sid)))
        };
        let mut conditions = Vec::new();
        for (operator, keys) in raw.condition.iter().flatten() {
            conditions.extend(Condition::parse_operator(operator, keys)?);
        }
        Ok(Self {
            effect: raw.effect,
            principals: principals(&raw.principal)?,
            actions: list("Action", &raw.action)?.into_iter().map(|action| action.to_ascii_lowercase()).collect(),
            resources: list("Resource", &raw.resource)?,
            conditions,
            sid: raw.sid,
        })
    }

    fn matches(&self, request: &PolicyRequest<'_>) -> bool {
        let action = request.action.to_ascii_lowercase();
        self.principals.as_ref().is_none_or(|list| list.iter().any(|arn| arn == request.principal))
            && self.actions.iter().any(|pattern| glob(pattern.as_bytes(), action.as_bytes()))
            && self.resources.iter().any(|pattern| glob(pattern.as_bytes(), request.resource.as_bytes()))
            && self.conditions.iter().all(|condition| condition.holds(request.context))
    }
}

/// `"*"`, or `{"AWS": …}` of role and user ARNs. `None` is everybody.
fn principals(value: &Value) -> Result<Option<Vec<String>>, PolicyError> {
    if value == "*" {
        return Ok(None);
    }
    let shape = || PolicyError::Shape("Principal must be \"*\" or {\"AWS\": …}".to_owned());
    let object = value.as_object().filter(|object| object.len() == 1).ok_or_else(shape)?;
    let arns = object.get("AWS").and_then(one_or_more).ok_or_else(shape)?;
    if arns == ["*"] {
        return Ok(None);
    }
    for arn in &arns {
        let entity = arn.strip_prefix("arn:aws:iam::").and_then(|rest| rest.split_once(':')).map(|(_, entity)| entity);
        let named = entity.is_some_and(|entity| entity.starts_with("role/") || entity.starts_with("user/"));
        if !named || arn.contains('*') {
            return Err(PolicyError::Principal(arn.clone()));
        }
    }
    Ok(Some(arns))
}

/// A string, or a non-empty list of strings.
pub(crate) fn one_or_more(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(many) if !many.is_empty() => many.iter().map(|value| value.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// Replaces placeholders in every string of the document, names of condition keys aside.
fn fill<'a>(
    value: &mut Value,
    values: &'a BTreeMap<String, String>,
    unused: &mut Vec<&'a str>,
) -> Result<(), PolicyError> {
    match value {
        Value::String(text) => *text = fill_text(text, values, unused)?,
        Value::Array(list) => {
            for value in list {
                fill(value, values, unused)?;
            }
        }
        Value::Object(map) => {
            for value in map.values_mut() {
                fill(value, values, unused)?;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    Ok(())
}

fn fill_text<'a>(
    text: &str,
    values: &'a BTreeMap<String, String>,
    unused: &mut Vec<&'a str>,
) -> Result<String, PolicyError> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) =
            after.split_once('}').ok_or_else(|| PolicyError::Shape(format!("'{text}' has '${{' without '}}'")))?;
        let value = values.get(name).ok_or_else(|| PolicyError::Placeholder(name.to_owned()))?;
        unused.retain(|unused| *unused != name);
        filled.push_str(before);
        filled.push_str(value);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// IAM's wildcards: `*` for any run of characters, `?` for one. Linear in the text for each star.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((after_star, taken)) = retry else { return false };
                retry = Some((after_star, taken + 1));
                p = after_star;
                t = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
