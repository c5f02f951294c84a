//! The arguments of a call, read as leniently as the real API reads them: from the query and from
//! the JSON body alike (some clients send a GET with a body), ids as numbers or strings, booleans in
//! any case, and nulls and empty strings in the query as if they were absent.

use serde_json::{Map, Value};

use super::reply::Refusal;

/// The arguments of one call.
#[derive(Debug, Default)]
pub(super) struct Args(Map<String, Value>);

impl Args {
    /// Joins query and body; a name in the body wins. An unreadable body is Databricks' 400
    /// `MALFORMED_REQUEST`.
    pub(super) fn read(query: Option<&str>, body: &[u8]) -> Result<Self, Refusal> {
        let mut all = Map::new();
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !value.is_empty() {
                all.insert(name.into_owned(), Value::String(value.into_owned()));
            }
        }
        if !body.iter().all(u8::is_ascii_whitespace) {
            match serde_json::from_slice(body) {
                Ok(Value::Object(fields)) => all.extend(fields),
                Ok(_) => return Err(Refusal::malformed("the body must be a JSON object")),
                Err(error) => return Err(Refusal::malformed(&error.to_string())),
            }
        }
        drop_nulls(&mut all);
        Ok(Self(all))
    }

    /// All fields, nulls left out.
    pub(super) fn fields(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The field as it came.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// A text; numbers are taken as their digits. An empty text is absent.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.get(name)
            .and_then(plain)
            .filter(|text| !text.is_empty())
    }

    /// A text that must be there.
    pub(super) fn need_text(&self, name: &str) -> Result<String, Refusal> {
        self.text(name).ok_or_else(|| Refusal::missing(name))
    }

    /// A whole number, given as a number or as its digits.
    pub(super) fn int(&self, name: &str) -> Result<Option<i64>, Refusal> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => whole(value).map(Some).ok_or_else(|| {
                Refusal::invalid(format!(
                    "Invalid value for {name}: {value} is not an integer."
                ))
            }),
        }
    }

    /// A whole number that must be there.
    pub(super) fn need_int(&self, name: &str) -> Result<i64, Refusal> {
        self.int(name)?.ok_or_else(|| Refusal::missing(name))
    }

    /// A boolean in any case, as JSON or as text; absent is false.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(truthy)
    }

    /// A list; anything else is absent.
    pub(super) fn list(&self, name: &str) -> Option<&[Value]> {
        self.get(name).and_then(Value::as_array).map(Vec::as_slice)
    }
}

/// An explicit null is an absent field, however deep: some clients write every field they know.
fn drop_nulls(fields: &mut Map<String, Value>) {
    fields.retain(|_, value| !value.is_null());
    fields.values_mut().for_each(drop_nulls_within);
}

fn drop_nulls_within(value: &mut Value) {
    match value {
        Value::Object(fields) => drop_nulls(fields),
        Value::Array(items) => items.iter_mut().for_each(drop_nulls_within),
        _ => {}
    }
}

/// Text of a plain value: strings as they are, numbers and booleans as JSON writes them.
pub(super) fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// A whole number in any of the shapes clients send.
pub(super) fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// A boolean in any of the shapes clients send.
pub(super) fn truthy(value: &Value) -> bool {
    match value {
        Value::Bool(flag) => *flag,
        Value::String(text) => text.eq_ignore_ascii_case("true"),
        _ => false,
    }
}
