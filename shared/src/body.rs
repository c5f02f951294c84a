//! Databricks' own request bodies, passed through untouched.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// A JSON object of which only the top-level names are known; every value is kept as the text that
/// the producer wrote. Numbers keep their digits, fields their order, and fields that Databricks
/// adds tomorrow pass through today.
#[derive(Debug, Clone, Default)]
pub struct Body(Vec<(String, Box<RawValue>)>);

impl Body {
    /// The value of a field, as the producer wrote it. Of a name given twice, the last one, as
    /// Databricks' own parser has it.
    pub fn get(&self, name: &str) -> Option<&RawValue> {
        self.0
            .iter()
            .rev()
            .find(|(field, _)| field == name)
            .map(|(_, value)| &**value)
    }

    /// A field's value read as `T`.
    ///
    /// # Errors
    /// Where the field is there and is no `T`.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, serde_json::Error> {
        self.get(name)
            .map(|value| serde_json::from_str(value.get()))
            .transpose()
    }

    /// Sets a field, in place of one with the same name if there is one.
    pub fn set(&mut self, name: &str, value: &impl Serialize) -> Result<(), serde_json::Error> {
        let value = serde_json::value::to_raw_value(value)?;
        self.remove(name);
        self.0.push((name.to_owned(), value));
        Ok(())
    }

    /// Takes a field out.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(field, _)| field != name);
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        let texts = |body: &Self| -> Vec<(String, String)> {
            let text = |(name, value): &(String, Box<RawValue>)| (name.clone(), value.get().into());
            body.0.iter().map(text).collect()
        };
        texts(self) == texts(other)
    }
}

impl Serialize for Body {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Body;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body, A::Error> {
                let mut fields = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    fields.push(entry);
                }
                // Thousands are held for hours.
                fields.shrink_to_fit();
                Ok(Body(fields))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

impl JsonSchema for Body {
    fn schema_name() -> Cow<'static, str> {
        "Body".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "propertyNames": { "not": { "const": "idempotency_token" } },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_the_text_that_the_producer_wrote() {
        let text = r#"{"job_id":12345678901234567890123,"x":1.10,"b":{"z":1,"a":[ 1 ]}}"#;
        let mut body: Body = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&body).unwrap(), text);

        body.set("x", &"new").unwrap();
        body.remove("b");
        assert_eq!(
            serde_json::to_string(&body).unwrap(),
            r#"{"job_id":12345678901234567890123,"x":"new"}"#
        );
    }

    #[test]
    fn deeply_nested_values_are_no_danger() {
        let deep = format!("{{\"x\":{}{}}}", "[".repeat(50_000), "]".repeat(50_000));
        let body: Body = serde_json::from_str(&deep).unwrap();
        assert_eq!(serde_json::to_string(&body).unwrap(), deep);
    }
}
