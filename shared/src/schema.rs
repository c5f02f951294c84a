//! JSON Schemas of the messages, derived from the types.

use schemars::{Schema, generate::SchemaSettings};

use crate::cancel::Cancel;
use crate::event::Event;
use crate::request::Wire;
use crate::result::RunResult;

/// What a producer may publish. Unknown top-level fields are not allowed; what stands inside
/// `run_now` and `submit_run` is Databricks' own and left open.
pub fn request() -> Schema {
    // As read, not as written: what has a default need not be there.
    SchemaSettings::draft2020_12()
        .for_deserialize()
        .into_generator()
        .into_root_schema_for::<Wire>()
}

/// What a consumer of results can rely on. Fields may be added.
pub fn result() -> Schema {
    written::<RunResult>()
}

/// What a listener to events can rely on. Fields may be added.
pub fn event() -> Schema {
    written::<Event>()
}

/// What may be published to the control exchange.
pub fn cancel() -> Schema {
    schemars::schema_for!(Cancel)
}

fn written<T: schemars::JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<T>()
}
