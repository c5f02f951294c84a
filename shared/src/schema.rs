//! JSON Schemas of the messages, derived from the types.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value};

use crate::cancel::Cancel;
use crate::event::Event;
use crate::request::Wire;
use crate::result::RunResult;

/// What a producer may publish. Unknown top-level fields are not allowed; what stands inside
/// `run_now` and `submit_run` is Databricks' own and left open.
pub fn request() -> Schema {
    // As read, not as written: what has a default need not be there.
    read(SchemaSettings::draft2020_12()).into_root_schema_for::<Wire>()
}

/// What a consumer of results can rely on. Fields may be added.
pub fn result() -> Schema {
    written(SchemaSettings::draft2020_12()).into_root_schema_for::<RunResult>()
}

/// What a listener to events can rely on. Fields may be added.
pub fn event() -> Schema {
    written(SchemaSettings::draft2020_12()).into_root_schema_for::<Event>()
}

/// What may be published to the control exchange.
pub fn cancel() -> Schema {
    read(SchemaSettings::draft2020_12()).into_root_schema_for::<Cancel>()
}

/// All of them in one map, by the names of their types (`Request`, `Result`, `Event`, `Cancel` and
/// what they refer to), in draft-07 and with references to `#/components/schemas/`: the form that
/// AsyncAPI's own schemas have.
pub(crate) fn components() -> Map<String, Value> {
    fn add<T: JsonSchema>(all: &mut Map<String, Value>, mut generator: SchemaGenerator) {
        generator.subschema_for::<T>();
        all.append(&mut generator.take_definitions(true));
    }

    let settings =
        || SchemaSettings::draft07().with(|s| s.definitions_path = "/components/schemas".into());
    let mut all = Map::new();
    add::<Wire>(&mut all, read(settings()));
    add::<Cancel>(&mut all, read(settings()));
    add::<RunResult>(&mut all, written(settings()));
    add::<Event>(&mut all, written(settings()));
    all
}

fn read(settings: SchemaSettings) -> SchemaGenerator {
    settings
        .for_deserialize()
        .with_transform(RecursiveTransform(say_the_largest_number))
        .into_generator()
}

fn written(settings: SchemaSettings) -> SchemaGenerator {
    settings
        .for_serialize()
        .with_transform(RecursiveTransform(say_the_largest_number))
        .with_transform(RecursiveTransform(LeftOutNeverNull))
        .into_generator()
}

/// Formats such as `uint32` are hints that a validator passes over; a bound is not.
fn say_the_largest_number(schema: &mut Schema) {
    let largest = match schema.get("format").and_then(Value::as_str) {
        Some("uint32") => u64::from(u32::MAX),
        Some("uint64") => u64::MAX,
        _ => return,
    };
    schema.insert("maximum".to_owned(), largest.into());
}

/// What we write leaves a field out where there is nothing to say, so a field that need not be
/// there is never null.
#[derive(Clone)]
struct LeftOutNeverNull;

impl Transform for LeftOutNeverNull {
    fn transform(&mut self, schema: &mut Schema) {
        let required = match schema.get("required") {
            Some(Value::Array(names)) => names.clone(),
            _ => Vec::new(),
        };
        let Some(Value::Object(properties)) = schema.get_mut("properties") else {
            return;
        };
        for (name, property) in properties {
            if let Value::Object(property) = property
                && !required.iter().any(|required| required == name)
            {
                forget_null(property);
            }
        }
    }
}

fn forget_null(property: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = property.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            property.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = property.get_mut("anyOf") {
        choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            property.remove("anyOf");
            property.extend(only);
        }
    }
}
