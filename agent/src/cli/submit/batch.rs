//! From input to requests that are ready to be sent, or everything that is wrong with them.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::value::{RawValue, to_raw_value};
use sparkferry_shared::{Body, Id, Undecodable, decode};
use uuid::Uuid;

use super::input::{self, Entry, Place};
use super::set::Assignment;
use crate::cli::exit::Exit;
use crate::cli::problem::Problem;
use crate::cli::setup::no_such_connection;
use crate::config::Settings;

/// Faults that are told one by one; of more, their number.
const FAULTS_TOLD: usize = 20;

/// A request, checked as a worker would check it.
#[derive(Debug)]
pub(super) struct Ready {
    /// Where it stands in the input.
    pub(super) place: Place,
    /// Its id.
    pub(super) id: Id,
    /// It had none: this one is new.
    pub(super) fresh: bool,
    /// Where it goes.
    pub(super) connection: String,
    /// What goes there.
    pub(super) body: Bytes,
}

/// What the command line says about all requests.
#[derive(Debug)]
pub(super) struct Wishes<'a> {
    /// `--set`, in order.
    pub(super) set: &'a [Assignment],
    /// `--connection`.
    pub(super) connection: Option<&'a str>,
}

/// Reads all requests of the input; `source` is its name.
///
/// # Errors
/// Where one of them is wrong, all that is wrong is told and none is to be sent.
pub(super) fn read(
    source: &str,
    input: &[u8],
    wishes: &Wishes<'_>,
    settings: &Settings,
) -> Result<Vec<Ready>, Problem> {
    let refused = |faults: &str| {
        let text = format!("{faults}\nnothing was submitted");
        Err(Problem::told(Exit::Rejected, text))
    };
    let entries = match input::split(input) {
        Ok(entries) => entries,
        Err(why) => return refused(&format!("{source}: {why}")),
    };
    let mut batch: Vec<Ready> = Vec::with_capacity(entries.len());
    let mut known: HashMap<(String, Id), usize> = HashMap::new();
    let mut faults = Vec::new();
    for entry in entries {
        let ready = match read_one(&entry, wishes, settings) {
            Ok(ready) => ready,
            Err(Refusal::Request(why)) => {
                faults.push(format!("{source}: {}: {why}", entry.place));
                continue;
            }
            Err(Refusal::NoConnection) => return Err(no_connection(source, entry.place, settings)),
        };
        match known.get(&(ready.connection.clone(), ready.id.clone())) {
            None => {
                known.insert((ready.connection.clone(), ready.id.clone()), batch.len());
                batch.push(ready);
            }
            // Written twice, it is still one request.
            Some(&first) if batch[first].body == ready.body => {}
            Some(&first) => faults.push(format!(
                "{source}: {}: id: {} is the id of {} too, whose work is another; \
                 the same id is the same work",
                entry.place, ready.id, batch[first].place
            )),
        }
    }
    if faults.is_empty() {
        return Ok(batch);
    }
    let more = faults.len().saturating_sub(FAULTS_TOLD);
    faults.truncate(FAULTS_TOLD);
    if more > 0 {
        faults.push(format!("{source}: and {more} more"));
    }
    refused(&faults.join("\n"))
}

enum Refusal {
    /// The request is wrong: what, and which field.
    Request(String),
    /// Nothing says where it should go.
    NoConnection,
}

fn read_one(entry: &Entry, wishes: &Wishes<'_>, settings: &Settings) -> Result<Ready, Refusal> {
    let wrong = Refusal::Request;
    if !entry.text.get().starts_with('{') {
        return Err(wrong("a request is a JSON object".to_owned()));
    }
    let mut text = entry.text.clone();
    for assignment in wishes.set {
        text = assignment.apply(&text).map_err(wrong)?;
    }
    let (text, fresh) = with_id(text).map_err(wrong)?;
    let body = Bytes::from(Box::<str>::from(text).into_string());
    let limit = settings.queue.max_message_bytes;
    let request = decode(&body, None, None, limit).map_err(|error| match error {
        Undecodable::Reject { id, fault, .. } if fresh => {
            // The id is ours and tells its reader nothing.
            drop(id);
            wrong(fault.to_string())
        }
        Undecodable::Reject { id, fault, .. } => wrong(format!("request {id}: {fault}")),
        Undecodable::Bury(why) => wrong(why.to_string()),
    })?;
    let connection = match choose(request.connection.as_deref(), wishes.connection, settings) {
        Some(name) if settings.connections.contains_key(name) => name.to_owned(),
        Some(name) => {
            let why = no_such_connection(settings, name);
            return Err(wrong(format!("connection: {why}")));
        }
        None => return Err(Refusal::NoConnection),
    };
    Ok(Ready {
        place: entry.place,
        id: request.id,
        fresh,
        connection,
        body,
    })
}

/// The request's own word, else the command line's, else the default, else the only one there is.
fn choose<'a>(
    in_request: Option<&'a str>,
    wished: Option<&'a str>,
    settings: &'a Settings,
) -> Option<&'a str> {
    let only = || {
        let mut names = settings.connections.keys();
        names.next().filter(|_| names.next().is_none())
    };
    in_request
        .or(wished)
        .or(settings.default_connection.as_deref())
        .or_else(|| only().map(String::as_str))
}

fn no_connection(source: &str, place: Place, settings: &Settings) -> Problem {
    let names: Vec<_> = settings.connections.keys().map(String::as_str).collect();
    Problem::usage(format!(
        "{source}: {place}: nothing says which connection it goes to: name one with --connection, \
         in the request's field `connection`, or as `default_connection` in the configuration; \
         there are: {}\nnothing was submitted",
        names.join(", ")
    ))
}

/// The request with a fresh id, if it has none. Ids that are made later sort later.
fn with_id(text: Box<RawValue>) -> Result<(Box<RawValue>, bool), String> {
    let wrong = |e: serde_json::Error| e.to_string();
    let mut body: Body = serde_json::from_str(text.get()).map_err(wrong)?;
    if body.get("id").is_some_and(|id| id.get() != "null") {
        return Ok((text, false));
    }
    body.set("id", &Uuid::now_v7().to_string()).map_err(wrong)?;
    Ok((to_raw_value(&body).map_err(wrong)?, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"id":"a","run_now":{"job_id":1}}"#;

    fn settings(connections: &[&str], default: Option<&str>) -> Settings {
        let default = default.map_or_else(String::new, |name| {
            format!("default_connection = \"{name}\"\n")
        });
        let connections = connections.iter().map(|name| {
            format!(
                "[connections.{name}]\ntype = \"databricks\"\nhost = \"https://x.example\"\n\
                 auth = {{ type = \"pat\", token = \"t\" }}\n"
            )
        });
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), default + &connections.collect::<String>()).unwrap();
        crate::config::load(Some(file.path()), &HashMap::new()).unwrap()
    }

    fn read_with(
        input: &str,
        set: &[&str],
        connection: Option<&str>,
    ) -> Result<Vec<Ready>, Problem> {
        let set: Vec<Assignment> = set.iter().map(|text| text.parse().unwrap()).collect();
        let wishes = Wishes {
            set: &set,
            connection,
        };
        read(
            "requests.json",
            input.as_bytes(),
            &wishes,
            &settings(&["prod", "lake"], Some("prod")),
        )
    }

    fn refusal(input: &str, set: &[&str]) -> (Exit, String) {
        match read_with(input, set, None) {
            Err(Problem::Told { exit, text }) => (exit, text),
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    #[test]
    fn a_request_is_sent_as_it_was_written() {
        let batch = read_with(&format!("[ {GOOD} ]"), &[], None).unwrap();
        assert_eq!(batch[0].body, GOOD);
        assert_eq!(batch[0].id.as_str(), "a");
        assert!(!batch[0].fresh);
    }

    #[test]
    fn a_request_without_an_id_gets_one() {
        for text in [
            r#"{"run_now":{"job_id":1}}"#,
            r#"{"id":null,"run_now":{"job_id":1}}"#,
        ] {
            let batch = read_with(&format!("{text}\n{text}"), &[], None).unwrap();
            assert!(batch[0].fresh);
            assert_ne!(batch[0].id, batch[1].id);
            let sent: serde_json::Value = serde_json::from_slice(&batch[0].body).unwrap();
            assert_eq!(sent["id"], batch[0].id.as_str());
        }
    }

    #[test]
    fn every_fault_is_told_with_place_and_field_and_nothing_is_sent() {
        let input = format!("{GOOD}\n{{\"id\":\"b\"}}\n{{\"id\":\"c\",\"run_now\":{{}}}}\n5");
        let (exit, text) = refusal(&input, &[]);
        assert_eq!(exit, Exit::Rejected);
        for part in [
            "requests.json: line 2: request b: one of run_now",
            "requests.json: line 3: request c: run_now.job_id: ",
            "requests.json: line 4: a request is a JSON object",
            "nothing was submitted",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let (_, text) = refusal(r#"[{"run_now":{"job_id":1},"max_retry":1}]"#, &[]);
        assert!(
            text.contains("element 0: max_retry: unknown field"),
            "{text}"
        );
        let (_, text) = refusal(r#"{"id":"no spaces","run_now":{"job_id":1}}"#, &[]);
        assert!(text.contains("no usable id"), "{text}");
        let (_, text) = refusal(GOOD, &["run_now.job_id.x=1"]);
        assert!(text.contains("line 1: --set run_now.job_id.x"), "{text}");
    }

    #[test]
    fn the_same_id_is_the_same_work() {
        assert_eq!(
            read_with(&format!("{GOOD}{GOOD}"), &[], None)
                .unwrap()
                .len(),
            1
        );
        let other = GOOD.replace("1}", "2}");
        let (exit, text) = refusal(&format!("{GOOD}\n{other}"), &[]);
        assert_eq!(exit, Exit::Rejected);
        assert!(
            text.contains("line 2: id: a is the id of line 1 too"),
            "{text}"
        );
        // On another connection it is other work.
        let elsewhere = r#"{"id":"a","connection":"lake","run_now":{"job_id":2}}"#;
        assert_eq!(
            read_with(&format!("{GOOD}{elsewhere}"), &[], None)
                .unwrap()
                .len(),
            2
        );
    }

    #[test]
    fn the_connection_is_the_requests_the_command_lines_the_default_or_the_only_one() {
        let named = r#"{"id":"a","connection":"lake","run_now":{"job_id":1}}"#;
        let connection =
            |input, wished| read_with(input, &[], wished).unwrap()[0].connection.clone();
        assert_eq!(connection(named, Some("prod")), "lake");
        assert_eq!(connection(GOOD, Some("lake")), "lake");
        assert_eq!(connection(GOOD, None), "prod");
        assert_eq!(choose(None, None, &settings(&["only"], None)), Some("only"));
        assert_eq!(choose(None, None, &settings(&["a", "b"], None)), None);

        let (exit, text) = refusal(&named.replace("lake", "laek"), &[]);
        assert_eq!(exit, Exit::Rejected);
        assert!(
            text.contains("connection: there is no connection \"laek\"; there are: lake, prod")
        );
        let wishes = Wishes {
            set: &[],
            connection: None,
        };
        match read("-", GOOD.as_bytes(), &wishes, &settings(&["a", "b"], None)) {
            Err(Problem::Told {
                exit: Exit::Usage,
                text,
            }) => {
                assert!(
                    text.contains("--connection") && text.contains("a, b"),
                    "{text}"
                );
            }
            other => panic!("expected a usage problem, got {other:?}"),
        }
    }
}
