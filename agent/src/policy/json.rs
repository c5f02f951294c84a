//! A body as the policy reads it: every object's names told apart, and a path for each value.
//!
//! What is judged must be what Databricks reads. Two fields of one name, a number written as text, a
//! name in other letters: of none of these is it certain what the other side makes of it, so none
//! of them passes.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use sparkferry_shared::Body;

use super::Breach;

/// Reads a body whose root is called `path`.
///
/// # Errors
/// Where a name stands twice in one object, or it is nested too deeply to be read.
pub(super) fn read(path: &str, body: &Body) -> Result<Value, Breach> {
    let text =
        serde_json::to_string(body).map_err(|error| Breach::unreadable(path, error.to_string()))?;
    let mut deserializer = serde_json::Deserializer::from_str(&text);
    let read = serde_path_to_error::deserialize::<_, Unambiguous>(&mut deserializer);
    read.map(|Unambiguous(value)| value).map_err(|error| {
        let inner = error.path().to_string();
        let place = match inner.as_str() {
            "." => path.to_owned(),
            inner => format!("{path}.{inner}"),
        };
        // The place in the text, which the parser adds, is that of a copy nobody sees.
        let why = error.inner().to_string();
        let why = why.split(" at line ").next().unwrap_or_default();
        Breach::unreadable(place, why)
    })
}

/// A JSON value in which no object has two fields of one name.
struct Unambiguous(Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Anything;

        impl<'de> Visitor<'de> for Anything {
            type Value = Unambiguous;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E: Error>(self) -> Result<Unambiguous, E> {
                Ok(Unambiguous(Value::Null))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Unambiguous, E> {
                Ok(Unambiguous(value.into()))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Unambiguous, E> {
                Ok(Unambiguous(value.into()))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Unambiguous, E> {
                Ok(Unambiguous(value.into()))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Unambiguous, E> {
                Ok(Unambiguous(value.into()))
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Unambiguous, E> {
                Ok(Unambiguous(value.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Unambiguous, A::Error> {
                let mut values = Vec::new();
                while let Some(Unambiguous(value)) = seq.next_element()? {
                    values.push(value);
                }
                Ok(Unambiguous(values.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unambiguous, A::Error> {
                let mut fields = Map::new();
                while let Some(name) = map.next_key::<String>()? {
                    if fields.contains_key(&name) {
                        return Err(A::Error::custom(format!(
                            "the field {} stands there twice",
                            shown(&name)
                        )));
                    }
                    let Unambiguous(value) = map.next_value()?;
                    fields.insert(name, value);
                }
                Ok(Unambiguous(fields.into()))
            }
        }

        deserializer.deserialize_any(Anything)
    }
}

/// A value and where it stands.
#[derive(Clone)]
pub(super) struct Node<'a> {
    pub(super) path: String,
    value: &'a Value,
}

impl<'a> Node<'a> {
    pub(super) fn new(path: impl Into<String>, value: &'a Value) -> Self {
        Self {
            path: path.into(),
            value,
        }
    }

    /// An object of which the policy knows every field.
    pub(super) fn object(&self, known: impl Fn(&str) -> bool) -> Result<Object<'a>, Breach> {
        let object = self.any_object()?;
        match object.fields.keys().find(|name| !known(name)) {
            None => Ok(object),
            Some(name) => Err(Breach::unreadable(
                format!("{}.{}", self.path, cut(name)),
                "is no field that this version's policies know (names are compared letter by letter)",
            )),
        }
    }

    /// An object with any fields.
    pub(super) fn any_object(&self) -> Result<Object<'a>, Breach> {
        match self.value {
            Value::Object(fields) => Ok(Object {
                path: self.path.clone(),
                fields,
            }),
            _ => Err(self.not("an object")),
        }
    }

    /// The items of a list.
    pub(super) fn items(&self) -> Result<Vec<Node<'a>>, Breach> {
        match self.value {
            Value::Array(items) => {
                let item = |(n, value)| Node::new(format!("{}[{n}]", self.path), value);
                Ok(items.iter().enumerate().map(item).collect())
            }
            _ => Err(self.not("a list")),
        }
    }

    /// A text.
    pub(super) fn text(&self) -> Result<&'a str, Breach> {
        self.value.as_str().ok_or_else(|| self.not("text"))
    }

    /// A whole number, written as one.
    pub(super) fn whole(&self) -> Result<i64, Breach> {
        self.value
            .as_i64()
            .ok_or_else(|| self.not("a whole number"))
    }

    /// True or false.
    pub(super) fn yes(&self) -> Result<bool, Breach> {
        self.value
            .as_bool()
            .ok_or_else(|| self.not("true or false"))
    }

    /// Every text in it, at any depth, names of fields apart.
    pub(super) fn texts(&self) -> Vec<(String, &'a str)> {
        match self.value {
            Value::String(text) => vec![(self.path.clone(), text)],
            Value::Array(_) => {
                let items = self.items().unwrap_or_default();
                items.iter().flat_map(Node::texts).collect()
            }
            Value::Object(fields) => fields
                .iter()
                .flat_map(|(name, value)| {
                    Node::new(format!("{}.{}", self.path, cut(name)), value).texts()
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    fn not(&self, wanted: &str) -> Breach {
        Breach::unreadable(&self.path, format!("must be {wanted}"))
    }
}

/// An object and where it stands.
pub(super) struct Object<'a> {
    pub(super) path: String,
    fields: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    /// A field that is there; null is as good as absent, to Databricks too.
    pub(super) fn get(&self, name: &str) -> Option<Node<'a>> {
        let value = self.fields.get(name).filter(|value| !value.is_null())?;
        Some(Node::new(self.at(name), value))
    }

    /// The names of the fields that are there.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        let there = self.fields.iter().filter(|(_, value)| !value.is_null());
        there.map(|(name, _)| name.as_str())
    }

    /// Where a field of this name stands, or would.
    pub(super) fn at(&self, name: &str) -> String {
        format!("{}.{}", self.path, cut(name))
    }
}

/// A producer's text as it stands in an error: in quotes, and not at any length.
pub(super) fn shown(text: &str) -> String {
    format!("{:?}", cut(text))
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(100)]
}
