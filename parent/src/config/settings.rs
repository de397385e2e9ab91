//! Where values come from: one TOML file, and environment variables that win over it.

use std::collections::{BTreeMap, BTreeSet};

use super::ConfigError;
use super::keys::{self, KEYS, Key};

/// A value before it is understood.
#[derive(Debug, Clone, PartialEq)]
enum Raw {
    /// From the environment: text that means whatever the key wants.
    Text(String),
    /// From the file.
    Toml(toml::Value),
}

/// All values that were given.
#[derive(Debug)]
pub(super) struct Settings(BTreeMap<(&'static str, &'static str), Raw>);

impl Settings {
    /// Reads the file's text and asks `variable` for every key's environment variable.
    pub(super) fn read(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
            ConfigError::Syntax { line, message: error.message().to_owned() }
        })?;
        let mut values = BTreeMap::new();
        for (section, content) in table {
            let toml::Value::Table(content) = content else { return Err(unknown(&section)) };
            take_section(&section, "", content, &mut values)?;
        }
        for key in KEYS {
            if let Some(text) = variable(&key.variable()) {
                values.insert((key.section, key.name), Raw::Text(text));
            }
        }
        Ok(Self(values))
    }

    fn get(&self, section: &str, name: &str) -> (&'static Key, Option<&Raw>) {
        let key = keys::find(section, name);
        (key, self.0.get(&(key.section, key.name)))
    }

    /// A text that `parse` understands; `None` when it was not given.
    pub(super) fn text<T>(
        &self,
        section: &str,
        name: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let (key, raw) = self.get(section, name);
        match raw {
            None => Ok(None),
            Some(Raw::Text(text) | Raw::Toml(toml::Value::String(text))) => {
                parse(text).map(Some).ok_or_else(|| wrong(key, text))
            }
            Some(Raw::Toml(other)) => Err(wrong(key, &other.to_string())),
        }
    }

    /// As [`Settings::text`], for a key that must be given.
    pub(super) fn required<T>(
        &self,
        section: &str,
        name: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        self.text(section, name, parse)?.ok_or_else(|| {
            let key = keys::find(section, name);
            ConfigError::Missing { key: key.path(), variable: key.variable(), allowed: key.allowed }
        })
    }

    /// Yes or no: a boolean in the file, `true` or `false` in the environment. No when it was not given.
    pub(super) fn flag(&self, section: &str, name: &str) -> Result<bool, ConfigError> {
        let (key, raw) = self.get(section, name);
        match raw {
            None => Ok(false),
            Some(Raw::Toml(toml::Value::Boolean(flag))) => Ok(*flag),
            Some(Raw::Text(text)) => text.parse().map_err(|_| wrong(key, text)),
            Some(Raw::Toml(other)) => Err(wrong(key, &other.to_string())),
        }
    }

    /// A whole number within bounds.
    pub(super) fn number(&self, section: &str, name: &str, min: u64, max: u64) -> Result<Option<u64>, ConfigError> {
        let (key, raw) = self.get(section, name);
        let (number, shown) = match raw {
            None => return Ok(None),
            Some(Raw::Text(text)) => (text.parse().ok(), text.clone()),
            Some(Raw::Toml(value)) => (value.as_integer().and_then(|n| u64::try_from(n).ok()), value.to_string()),
        };
        match number {
            Some(number) if (min..=max).contains(&number) => Ok(Some(number)),
            _ => Err(wrong(key, &shown)),
        }
    }

    /// A list of texts, each understood by `parse`: an array or one text in the file, commas in the environment.
    pub(super) fn list<T>(
        &self,
        section: &str,
        name: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<Vec<T>>, ConfigError> {
        let (key, raw) = self.get(section, name);
        let texts: Vec<String> = match raw {
            None => return Ok(None),
            Some(Raw::Text(text) | Raw::Toml(toml::Value::String(text))) => split(text),
            Some(Raw::Toml(toml::Value::Array(values))) => values
                .iter()
                .map(|value| value.as_str().map(str::to_owned).ok_or_else(|| wrong(key, &value.to_string())))
                .collect::<Result<_, _>>()?,
            Some(Raw::Toml(other)) => return Err(wrong(key, &other.to_string())),
        };
        texts.iter().map(|text| parse(text).ok_or_else(|| wrong(key, text))).collect::<Result<_, _>>().map(Some)
    }

    /// A table of texts: a table in the file, `NAME=VALUE` with commas in the environment.
    pub(super) fn table<T>(
        &self,
        section: &str,
        name: &str,
        parse: impl Fn(&str, &str) -> Option<T>,
    ) -> Result<Vec<T>, ConfigError> {
        let (key, raw) = self.get(section, name);
        let entries: Vec<(String, String)> = match raw {
            None => return Ok(Vec::new()),
            Some(Raw::Text(text)) => split(text)
                .iter()
                .map(|entry| match entry.split_once('=') {
                    Some((name, value)) => Ok((name.trim().to_owned(), value.trim().to_owned())),
                    None => Err(wrong(key, entry)),
                })
                .collect::<Result<_, _>>()?,
            Some(Raw::Toml(toml::Value::Table(table))) => table
                .iter()
                .map(|(name, value)| match value.as_str() {
                    Some(text) => Ok((name.clone(), text.to_owned())),
                    None => Err(wrong(key, &value.to_string())),
                })
                .collect::<Result<_, _>>()?,
            Some(Raw::Toml(other)) => return Err(wrong(key, &other.to_string())),
        };
        entries
            .iter()
            .map(|(name, value)| parse(name, value).ok_or_else(|| wrong(key, &format!("{name} = {value}"))))
            .collect()
    }
}

fn split(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn take_section(
    section: &str,
    prefix: &str,
    content: toml::Table,
    values: &mut BTreeMap<(&'static str, &'static str), Raw>,
) -> Result<(), ConfigError> {
    if !KEYS.iter().any(|key| key.section == section) {
        return Err(unknown(section));
    }
    for (name, value) in content {
        let name = format!("{prefix}{name}");
        let known = KEYS.iter().find(|key| key.section == section && key.name == name);
        match (known, value) {
            (Some(key), value) => {
                values.insert((key.section, key.name), Raw::Toml(value));
            }
            (None, toml::Value::Table(content))
                if KEYS.iter().any(|key| key.section == section && key.name.starts_with(&format!("{name}."))) =>
            {
                take_section(section, &format!("{name}."), content, values)?;
            }
            (None, _) => return Err(unknown(&format!("{section}.{name}"))),
        }
    }
    Ok(())
}

/// A wrong value; values of secret keys are not repeated.
pub(super) fn wrong(key: &Key, value: &str) -> ConfigError {
    let is_secret = matches!(key.name, "secret_access_key" | "session_token");
    let value = if is_secret { "(not shown)".to_owned() } else { value.chars().take(120).collect() };
    ConfigError::Wrong { key: key.path(), value, allowed: key.allowed }
}

fn unknown(name: &str) -> ConfigError {
    let section = name.split('.').next().unwrap_or(name);
    let in_section: Vec<String> = KEYS.iter().filter(|key| key.section == section).map(Key::path).collect();
    let allowed = if in_section.is_empty() {
        let sections: BTreeSet<String> = KEYS.iter().map(|key| format!("[{}]", key.section)).collect();
        sections.into_iter().collect::<Vec<_>>().join(", ")
    } else {
        in_section.join(", ")
    };
    ConfigError::Unknown { key: name.chars().take(120).collect(), allowed }
}
