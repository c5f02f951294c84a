//! What a request chooses about its run: the `sandbox.*` parameters, where they are looked for, and
//! the plan that they make. The words are documented in the module's own page.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{args::plain, ending::Ending, reply::Refusal};

/// What every choice begins with.
const PREFIX: &str = "sandbox.";
/// The same at the front of an argument in a list of parameters.
const ARGUMENT: &str = "--sandbox.";

/// How long a run works unless told otherwise, in milliseconds: long enough to be seen running by
/// a client that polls at once, short enough for a test.
const DURATION_MS: i64 = 200;
/// How long a cancelled task is TERMINATING, in milliseconds.
const CANCEL_MS: i64 = 50;

const KNOWN: [&str; 10] = [
    "setup_ms",
    "duration_ms",
    "cancel_ms",
    "outcome",
    "outcomes",
    "output",
    "logs",
    "error",
    "trace",
    "work",
];

/// Choices by name, without the prefix; later ones replace earlier ones.
#[derive(Debug, Clone, Default)]
pub(super) struct Choices(BTreeMap<String, String>);

impl Choices {
    /// Sets one choice.
    pub(super) fn set(&mut self, name: &str, value: String) {
        self.0.insert(name.to_owned(), value);
    }

    /// One choice.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Nothing is chosen.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lays other choices over these.
    pub(super) fn overlay(&mut self, over: &Self) {
        self.0.extend(
            over.0
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
    }

    /// Takes the choices out of a map of parameters.
    pub(super) fn take_map(&mut self, parameters: Option<&Value>) {
        for (name, value) in parameters.and_then(Value::as_object).into_iter().flatten() {
            if let (Some(name), Some(value)) = (name.strip_prefix(PREFIX), plain(value)) {
                self.set(name, value);
            }
        }
    }

    /// Takes the choices out of a list of arguments, `--sandbox.name=value` each.
    pub(super) fn take_list(&mut self, arguments: Option<&Value>) {
        for argument in arguments.and_then(Value::as_array).into_iter().flatten() {
            let choice = argument
                .as_str()
                .and_then(|text| text.strip_prefix(ARGUMENT));
            if let Some((name, value)) = choice.and_then(|choice| choice.split_once('=')) {
                self.set(name, value.to_owned());
            }
        }
    }

    /// The choices of one task as its definition states them: the tags of its new cluster, then its
    /// own parameters.
    pub(super) fn of_task(task: &Map<String, Value>, clusters: Option<&Value>) -> Self {
        let mut choices = Self::default();
        let key = task.get("job_cluster_key");
        let shared = clusters.and_then(Value::as_array).and_then(|all| {
            all.iter()
                .find(|cluster| key.is_some() && cluster.get("job_cluster_key") == key)
        });
        for cluster in [
            shared.and_then(|cluster| cluster.get("new_cluster")),
            task.get("new_cluster"),
        ] {
            choices.take_map(cluster.and_then(|cluster| cluster.get("custom_tags")));
        }
        choices.take_map(task.get("custom_tags"));
        for (kind, body) in task {
            if kind.ends_with("_task") {
                choices.take_map(body.get("base_parameters"));
                choices.take_map(body.get("named_parameters"));
                choices.take_map(body.get("job_parameters"));
                choices.take_map(body.get("parameters"));
                choices.take_list(body.get("parameters"));
            }
        }
        choices
    }

    /// The choices of a run-now, submit or repair request as a whole.
    pub(super) fn of_request(request: &Map<String, Value>) -> Self {
        let mut choices = Self::default();
        for name in [
            "job_parameters",
            "notebook_params",
            "python_named_params",
            "sql_params",
        ] {
            choices.take_map(request.get(name));
        }
        for name in ["python_params", "jar_params", "spark_submit_params"] {
            choices.take_list(request.get(name));
        }
        choices
    }

    /// The defaults that a job declares for its parameters.
    pub(super) fn of_job_parameters(settings: &Map<String, Value>) -> Self {
        let mut choices = Self::default();
        for parameter in settings
            .get("parameters")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let name = parameter.get("name").and_then(Value::as_str);
            let name = name.and_then(|name| name.strip_prefix(PREFIX));
            if let (Some(name), Some(value)) = (name, parameter.get("default").and_then(plain)) {
                choices.set(name, value);
            }
        }
        choices
    }

    /// The plan of a task's attempt; `nth` counts the runs and repairs that the same work has had
    /// before (0 for the first).
    pub(super) fn plan(&self, nth: usize) -> Result<Plan, Refusal> {
        if let Some(name) = self.0.keys().find(|name| !KNOWN.contains(&name.as_str())) {
            return Err(Refusal::invalid(format!(
                "Unknown parameter {PREFIX}{name}; the sandbox knows {}.",
                KNOWN.map(|known| format!("{PREFIX}{known}")).join(", ")
            )));
        }
        let word = match self.get("outcomes") {
            Some(list) => {
                let words: Vec<&str> = list.split(',').map(str::trim).collect();
                words.get(nth).or(words.last()).copied()
            }
            None => self.get("outcome"),
        };
        let own = |name: &str| self.get(name).map(str::to_owned);
        let mut ending = Ending::of_word(word.filter(|word| !word.is_empty()).unwrap_or("SUCCESS"));
        if !ending.succeeded() {
            ending.error = own("error").or(ending.error);
            ending.trace = own("trace");
        }
        Ok(Plan {
            setup_ms: self.millis("setup_ms", 0)?,
            duration_ms: self.millis("duration_ms", DURATION_MS)?,
            cancel_ms: self.millis("cancel_ms", CANCEL_MS)?,
            ending,
            output: own("output"),
            logs: own("logs"),
        })
    }

    fn millis(&self, name: &str, default: i64) -> Result<i64, Refusal> {
        let Some(text) = self.get(name) else {
            return Ok(default);
        };
        let millis = text.trim().parse::<u32>().map_err(|_| {
            Refusal::invalid(format!(
                "{PREFIX}{name} must be a whole number of milliseconds, got '{text}'."
            ))
        })?;
        Ok(i64::from(millis))
    }
}

/// The arguments of a list that are meant for the program and not for the sandbox.
pub(super) fn program_arguments(arguments: Option<&Value>) -> Vec<String> {
    arguments
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(plain)
        .filter(|text| !text.starts_with(ARGUMENT))
        .collect()
}

/// What will become of one attempt of one task.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// PENDING for so long.
    pub(super) setup_ms: i64,
    /// RUNNING for so long.
    pub(super) duration_ms: i64,
    /// TERMINATING for so long when cancelled.
    pub(super) cancel_ms: i64,
    /// How it ends, if nothing cuts it short.
    pub(super) ending: Ending,
    /// The notebook's result.
    pub(super) output: Option<String>,
    /// What the program printed.
    pub(super) logs: Option<String>,
}
