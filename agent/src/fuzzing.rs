//! Doors for `agent/fuzz`: whatever comes from outside, in bytes. Each panics where a promise is
//! broken, and never else. Part of tests and of the feature `fuzzing` alone.

use std::collections::HashMap;

use sparkferry_shared::decode::identify;
use sparkferry_shared::{Undecodable, decode};

use crate::config::{Jobs, PolicySettings, parse};
use crate::engine::fuzzing as engines;
use crate::policy;
use crate::queue::fuzzing as queue;

/// The largest message, as by default.
const LIMIT: usize = 1 << 20;

/// A door, by the name of its seeds' folder.
pub type Door = (&'static str, fn(&[u8]));

/// All doors.
pub const DOORS: [Door; 5] = [
    ("properties", properties),
    ("requests", requests),
    ("replies", replies),
    ("rows", rows),
    ("configuration", configuration),
];

/// A message on the wire, as RabbitMQ sends it: its properties with their flags; its headers alone; its
/// routing key.
pub fn properties(data: &[u8]) {
    const BEFORE: [u8; 12] = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3];
    const HEADERS: [u8; 2] = [0x20, 0];
    let whole = [&BEFORE, data].concat();
    let length = u32::try_from(data.len()).expect("a fuzzer's input is short");
    let table = [&BEFORE[..], &HEADERS, &length.to_be_bytes(), data].concat();
    for content in [whole, table] {
        queue::content_header(&content, content.len() / 2);
    }
    queue::delivery(data);
}

/// A request from a queue.
pub fn requests(body: &[u8]) {
    for name in [None, Some("property"), Some("not an id")] {
        let identified = identify(body, name, LIMIT);
        match decode(body, name, Some("prod"), LIMIT) {
            Err(Undecodable::Bury(why)) => assert_eq!(identified, Err(why)),
            Err(Undecodable::Reject { id, .. }) => assert_eq!(identified, Ok(id)),
            Ok(request) => {
                assert_eq!(identified.as_ref(), Ok(&request.id));
                // As a producer of ours writes it, it is the same request.
                let written = serde_json::to_vec(&request).expect("a request is JSON");
                let again = decode(&written, None, Some("prod"), usize::MAX);
                assert_eq!(again.as_ref(), Ok(&request));
                engines::prepared(&request.work);
                for strict in [false, true] {
                    // A verdict either way.
                    let _ = policy::judge(&rules(strict), &request, false);
                }
            }
        }
    }
}

/// Every rule, or none but one.
fn rules(strict: bool) -> PolicySettings {
    if !strict {
        return PolicySettings {
            max_workers: Some(3),
            ..PolicySettings::default()
        };
    }
    PolicySettings {
        jobs: Some(Jobs::default()),
        serverless: Some(true),
        max_workers: Some(3),
        max_autotermination_minutes: Some(30),
        spot_only: true,
        max_timeout_seconds: Some(60),
        spark_confs: Some(["spark.a*".to_owned()].into()),
        ..PolicySettings::default()
    }
}

/// A reply of a Databricks workspace.
pub fn replies(body: &[u8]) {
    engines::reply(body);
}

/// The rows of a Spark Connect server.
pub fn rows(data: &[u8]) {
    engines::rows(data);
}

/// The configuration: a file's text, and after zeros variables, each as `NAME=value`.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut parts = text.split('\0');
    let file = parts.next().unwrap_or_default();
    let variables: HashMap<String, String> = parts
        .filter_map(|part| part.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    match parse(Some(("agent.toml".as_ref(), file)), &variables) {
        // Both are shown to people.
        Ok(settings) => drop(format!("{settings:?}")),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use fastrand::Rng;

    use super::*;

    /// So often is each seed bent.
    const BENT: usize = 100;

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds")
    }

    /// A door's seeds, by their places.
    fn seeds(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let files = fs::read_dir(folder().join(name)).expect("each door has seeds");
        let places = files.map(|file| file.expect("it can be listed").path());
        let mut seeds: Vec<_> = places
            .map(|place| (place.clone(), fs::read(place).expect("a seed is a file")))
            .collect();
        seeds.sort();
        seeds
    }

    #[test]
    fn every_seed_passes_its_door() {
        for (name, door) in DOORS {
            let seeds = seeds(name);
            assert!(seeds.len() >= 5, "only {} seeds of {name}", seeds.len());
            for (place, seed) in seeds {
                println!("{}", place.display());
                door(&seed);
            }
        }
        let folders = fs::read_dir(folder()).expect("it is there").count();
        assert_eq!(folders, DOORS.len(), "seeds of no door");
    }

    /// What libFuzzer does for hours, for a moment.
    #[test]
    fn a_seed_that_is_bent_passes_too() {
        let mut rng = Rng::with_seed(1);
        for (name, door) in DOORS {
            for (place, seed) in seeds(name) {
                for nth in 0..BENT {
                    let mut bent = seed.clone();
                    for _ in 0..rng.usize(1..4) {
                        let at = rng.usize(..bent.len());
                        match rng.u32(..4) {
                            0 => bent[at] = rng.u8(..),
                            1 => bent[at] ^= 1 << rng.u32(..8),
                            2 => bent.truncate(at.max(1)),
                            _ => bent.extend_from_within(at..),
                        }
                    }
                    println!("{}, {nth}: {}", place.display(), bent.escape_ascii());
                    door(&bent);
                }
            }
        }
    }
}
