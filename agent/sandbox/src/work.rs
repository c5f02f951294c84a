//! The tasks of a job or of a one-time run: read once from the settings, checked, ordered.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{args::whole, choices::Choices, reply::Refusal};

/// The key of the one task of the older form, which has no `tasks`.
const ONLY_TASK: &str = "main";

/// Checked tasks.
#[derive(Debug)]
pub(super) struct Work {
    /// In the order of the request.
    pub(super) tasks: Vec<Task>,
    /// Positions in `tasks`, dependencies first.
    pub(super) order: Vec<usize>,
    /// The older form: one task's fields at the top level.
    pub(super) single: bool,
}

/// One task.
#[expect(clippy::struct_field_names, reason = "the names of the API")]
#[derive(Debug)]
pub(super) struct Task {
    /// Its key, unique in its run.
    pub(super) task_key: String,
    /// As the client gave it.
    pub(super) definition: Map<String, Value>,
    /// Positions of the tasks that it waits for.
    pub(super) depends_on: Vec<usize>,
    /// Nothing waits for it.
    pub(super) leaf: bool,
    /// When it runs, given how they ended.
    pub(super) run_if: String,
    /// Its own time limit.
    pub(super) timeout_ms: Option<i64>,
    /// What it chooses itself.
    pub(super) choices: Choices,
}

impl Work {
    /// Reads the tasks out of the settings of a job or of a submit body; `only` keeps some of them
    /// (run-now's `only`).
    pub(super) fn read(
        settings: &Map<String, Value>,
        only: Option<&[Value]>,
    ) -> Result<Self, Refusal> {
        let clusters = settings.get("job_clusters");
        let listed = settings
            .get("tasks")
            .and_then(Value::as_array)
            .filter(|tasks| !tasks.is_empty());
        let definitions: Vec<Map<String, Value>> = match listed {
            None => vec![single(settings)],
            Some(tasks) => tasks
                .iter()
                .filter(|task| {
                    only.is_none_or(|only| {
                        task.get("task_key").is_some_and(|key| only.contains(key))
                    })
                })
                .map(|task| task.as_object().cloned().unwrap_or_default())
                .collect(),
        };
        let mut places = HashMap::new();
        for (place, definition) in definitions.iter().enumerate() {
            let Some(key) = definition.get("task_key").and_then(Value::as_str) else {
                return Err(Refusal::missing(&format!("tasks[{place}].task_key")));
            };
            if places.insert(key.to_owned(), place).is_some() {
                return Err(Refusal::invalid(format!(
                    "Duplicate task_key '{key}' in the tasks of the job."
                )));
            }
        }
        if definitions.is_empty() {
            return Err(Refusal::invalid(
                "None of the tasks named in 'only' exists in the job.",
            ));
        }
        let mut tasks = Vec::with_capacity(definitions.len());
        for definition in definitions {
            tasks.push(Task::read(definition, &places, only.is_some(), clusters)?);
        }
        let waited_for: Vec<usize> = tasks
            .iter()
            .flat_map(|task| task.depends_on.clone())
            .collect();
        for place in waited_for {
            tasks[place].leaf = false;
        }
        let order = order(&tasks)?;
        Ok(Self {
            tasks,
            order,
            single: listed.is_none(),
        })
    }

    /// The position of a task.
    pub(super) fn place(&self, task_key: &str) -> Option<usize> {
        self.tasks.iter().position(|task| task.task_key == task_key)
    }
}

impl Task {
    fn read(
        definition: Map<String, Value>,
        places: &HashMap<String, usize>,
        partial: bool,
        clusters: Option<&Value>,
    ) -> Result<Self, Refusal> {
        let text = |name: &str| {
            definition
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let task_key = text("task_key");
        let mut depends_on = Vec::new();
        for upstream in definition
            .get("depends_on")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let key = upstream
                .get("task_key")
                .and_then(Value::as_str)
                .unwrap_or_default();
            match places.get(key) {
                Some(&place) => depends_on.push(place),
                None if partial => {}
                None => {
                    return Err(Refusal::invalid(format!(
                        "Task '{task_key}' depends on the task '{key}', which does not exist."
                    )));
                }
            }
        }
        let run_if = text("run_if");
        Ok(Self {
            depends_on,
            leaf: true,
            run_if: if run_if.is_empty() {
                "ALL_SUCCESS".into()
            } else {
                run_if
            },
            timeout_ms: timeout_ms(&definition),
            choices: Choices::of_task(&definition, clusters),
            task_key,
            definition,
        })
    }
}

/// `timeout_seconds` in milliseconds; none and 0 are no limit.
pub(super) fn timeout_ms(settings: &Map<String, Value>) -> Option<i64> {
    settings
        .get("timeout_seconds")
        .and_then(whole)
        .filter(|&seconds| seconds > 0)
        .map(|seconds| seconds.saturating_mul(1000))
}

/// The one task of the older form: those of the top-level fields that belong to a task.
fn single(settings: &Map<String, Value>) -> Map<String, Value> {
    let of_task = |name: &str| {
        name.ends_with("_task")
            || [
                "new_cluster",
                "existing_cluster_id",
                "libraries",
                "custom_tags",
            ]
            .contains(&name)
    };
    let mut task: Map<String, Value> = settings
        .iter()
        .filter(|(name, _)| of_task(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    task.insert("task_key".into(), ONLY_TASK.into());
    task
}

/// Dependencies first; a circle is refused.
fn order(tasks: &[Task]) -> Result<Vec<usize>, Refusal> {
    let mut waiting: Vec<usize> = tasks.iter().map(|task| task.depends_on.len()).collect();
    let mut dependents = vec![Vec::new(); tasks.len()];
    for (place, task) in tasks.iter().enumerate() {
        for &upstream in &task.depends_on {
            dependents[upstream].push(place);
        }
    }
    let mut order: Vec<usize> = (0..tasks.len())
        .filter(|&place| waiting[place] == 0)
        .collect();
    let mut next = 0;
    while next < order.len() {
        for &dependent in &dependents[order[next]] {
            waiting[dependent] -= 1;
            if waiting[dependent] == 0 {
                order.push(dependent);
            }
        }
        next += 1;
    }
    if order.len() < tasks.len() {
        return Err(Refusal::invalid(
            "The dependencies of the tasks form a cycle.",
        ));
    }
    Ok(order)
}
