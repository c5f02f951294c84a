//! Rules posted to `/sandbox/rules`: choices for runs that don't choose themselves, and faults for
//! calls.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{choices::Choices, reply::Refusal};

/// A rule as it is posted; the fields are documented on the module's own page.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rule {
    call: Option<String>,
    job_name: Option<String>,
    run_name: Option<String>,
    task_key: Option<String>,

    setup_ms: Option<u32>,
    duration_ms: Option<u32>,
    cancel_ms: Option<u32>,
    outcome: Option<String>,
    outcomes: Option<String>,
    output: Option<String>,
    logs: Option<String>,
    error: Option<String>,
    trace: Option<String>,
    start_ms: Option<u32>,
    expires_in: Option<u32>,

    times: Option<u64>,
    probability: Option<f64>,
    seed: Option<u64>,

    #[serde(skip)]
    fault: Fault,
}

/// The fields of a rule that make it a fault.
const FAULT_FIELDS: [&str; 11] = [
    "status",
    "retry_after",
    "body",
    "html",
    "delay_ms",
    "reset",
    "lose_reply",
    "half_reply",
    "outage_seconds",
    "strange",
    "expire_tokens",
];

/// What a rule does to a call.
#[expect(
    clippy::struct_excessive_bools,
    reason = "the fields of a rule, as they are posted"
)]
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Fault {
    /// Answer this status in place of doing anything.
    pub(super) status: Option<u16>,
    /// With `Retry-After`, seconds.
    pub(super) retry_after: Option<u64>,
    /// And this body.
    pub(super) body: Option<Value>,
    /// And a page of HTML.
    pub(super) html: bool,
    /// The reply comes late by so much; the effect doesn't.
    pub(super) delay_ms: Option<u64>,
    /// The connection is reset before the effect.
    pub(super) reset: bool,
    /// The effect happens; the connection is closed without a reply.
    pub(super) lose_reply: bool,
    /// The effect happens; half of the reply is sent.
    pub(super) half_reply: bool,
    /// Every call is refused for so long, from the moment the rule is posted.
    pub(super) outage_seconds: Option<f64>,
    /// The effect happens; the reply has fields and states that nobody knows.
    pub(super) strange: bool,
    /// Every token issued so far expires.
    pub(super) expire_tokens: bool,
}

/// What a call or a run is about, as far as rules ask.
#[derive(Debug, Default)]
pub(super) struct Subject {
    /// The name of the job.
    pub(super) job_name: Option<String>,
    /// The name of the run.
    pub(super) run_name: Option<String>,
    /// The keys of the tasks.
    pub(super) task_keys: Vec<String>,
}

impl Rule {
    /// Reads a posted rule; an unknown field is an error that names it.
    fn read(posted: &Value) -> Result<Self, Refusal> {
        let Some(fields) = posted.as_object() else {
            return Err(Refusal::malformed("a rule is a JSON object"));
        };
        let (fault, rest): (Map<_, _>, Map<_, _>) = fields
            .clone()
            .into_iter()
            .partition(|(name, _)| FAULT_FIELDS.contains(&name.as_str()));
        let wrong = |error: serde_json::Error| Refusal::malformed(&format!("in a rule: {error}"));
        let rule: Self = serde_json::from_value(rest.into()).map_err(wrong)?;
        let fault: Fault = serde_json::from_value(fault.into()).map_err(wrong)?;
        if fault
            .status
            .is_some_and(|status| !(200..=599).contains(&status))
        {
            return Err(Refusal::invalid(
                "A rule's status must be between 200 and 599.",
            ));
        }
        Ok(Self { fault, ..rule })
    }

    fn is_fault(&self) -> bool {
        self.fault != Fault::default()
    }

    fn names_a_subject(&self) -> bool {
        self.job_name.is_some() || self.run_name.is_some() || self.task_key.is_some()
    }

    fn matches(&self, call: &str, subject: &Subject) -> bool {
        let named =
            |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || (wanted == found);
        self.call
            .as_deref()
            .is_none_or(|wanted| call_matches(wanted, call))
            && named(&self.job_name, &subject.job_name)
            && named(&self.run_name, &subject.run_name)
            && self
                .task_key
                .as_ref()
                .is_none_or(|key| subject.task_keys.contains(key))
    }

    fn choices(&self) -> Choices {
        let mut choices = Choices::default();
        let number = |value: Option<u32>| value.map(|value| value.to_string());
        for (name, value) in [
            ("setup_ms", number(self.setup_ms)),
            ("duration_ms", number(self.duration_ms)),
            ("cancel_ms", number(self.cancel_ms)),
            ("outcome", self.outcome.clone()),
            ("outcomes", self.outcomes.clone()),
            ("output", self.output.clone()),
            ("logs", self.logs.clone()),
            ("error", self.error.clone()),
            ("trace", self.trace.clone()),
        ] {
            if let Some(value) = value {
                choices.set(name, value);
            }
        }
        choices
    }
}

/// `*`, the whole name, the name without `jobs/`, or a beginning followed by `*`.
fn call_matches(wanted: &str, call: &str) -> bool {
    let short = call.strip_prefix("jobs/").unwrap_or(call);
    match wanted.strip_suffix('*') {
        Some(start) => call.starts_with(start) || short.starts_with(start),
        None => wanted == call || wanted == short,
    }
}

/// A rule at work.
#[derive(Debug)]
struct Active {
    posted: Value,
    rule: Rule,
    random: fastrand::Rng,
    left: Option<u64>,
    until: Option<i64>,
    used: u64,
}

impl Active {
    fn use_up(&mut self) {
        self.used += 1;
        self.left = self.left.map(|left| left.saturating_sub(1));
    }

    fn spent(&self, now: i64) -> bool {
        self.left == Some(0) || self.until.is_some_and(|until| until <= now)
    }

    fn strikes(&mut self, now: i64) -> bool {
        if self.spent(now) {
            return false;
        }
        let strikes = self
            .rule
            .probability
            .is_none_or(|share| self.random.f64() < share);
        if strikes {
            self.use_up();
        }
        strikes
    }
}

/// All rules, oldest first.
#[derive(Debug, Default)]
pub(super) struct Rules(Vec<Active>);

impl Rules {
    /// Adds rules, a list or a single one; they apply from now on. If one of them is wrong, none is
    /// taken.
    pub(super) fn add(&mut self, posted: &Value, now: i64) -> Result<(), Refusal> {
        let list = posted
            .as_array()
            .map_or(std::slice::from_ref(posted), Vec::as_slice);
        let rules: Vec<Rule> = list.iter().map(Rule::read).collect::<Result<_, _>>()?;
        self.0.extend(list.iter().zip(rules).map(|(posted, rule)| {
            Active {
                posted: posted.clone(),
                random: rule
                    .seed
                    .map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed),
                left: rule.times,
                #[expect(clippy::cast_possible_truncation, reason = "seconds of an outage fit")]
                until: rule
                    .fault
                    .outage_seconds
                    .map(|seconds| now + (seconds * 1000.0) as i64),
                used: 0,
                rule,
            }
        }));
        Ok(())
    }

    /// Forgets all rules.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The rules as posted, each with how often it has been used.
    pub(super) fn show(&self) -> Value {
        self.0
            .iter()
            .map(|active| json!({"rule": active.posted, "used": active.used}))
            .collect()
    }

    /// Whether a fault rule asks for the names of a call's subject.
    pub(super) fn ask_for_subjects(&self) -> bool {
        self.0
            .iter()
            .any(|active| active.rule.is_fault() && active.rule.names_a_subject())
    }

    /// The first fault that strikes a call; an outage goes over everything else.
    pub(super) fn strike(&mut self, call: &str, subject: &Subject, now: i64) -> Option<Fault> {
        for outage in [true, false] {
            let rules = self.0.iter_mut();
            for active in rules.filter(|active| active.until.is_some() == outage) {
                let meant = active.rule.is_fault() && active.rule.matches(call, subject);
                if meant && active.strikes(now) {
                    return Some(active.rule.fault.clone());
                }
            }
        }
        None
    }

    /// The choices for each task of a new run or repair, later rules over earlier ones. A rule is
    /// used once for the run, however many of its tasks it matches.
    pub(super) fn choices(&mut self, call: &str, subject: &Subject, now: i64) -> Vec<Choices> {
        let mut all = vec![Choices::default(); subject.task_keys.len()];
        for active in &mut self.0 {
            if active.rule.is_fault() || !active.rule.matches(call, subject) {
                continue;
            }
            let choices = active.rule.choices();
            if choices.is_empty() || !active.strikes(now) {
                continue;
            }
            for (key, chosen) in subject.task_keys.iter().zip(&mut all) {
                if active
                    .rule
                    .task_key
                    .as_ref()
                    .is_none_or(|wanted| wanted == key)
                {
                    chosen.overlay(&choices);
                }
            }
        }
        all
    }

    /// `start_ms` for a cluster, from the latest rule that has one.
    pub(super) fn start_ms(&self) -> Option<i64> {
        self.0
            .iter()
            .rev()
            .find_map(|active| active.rule.start_ms)
            .map(i64::from)
    }

    /// `expires_in` for a token, from the latest rule that has one.
    pub(super) fn expires_in(&self) -> Option<i64> {
        self.0
            .iter()
            .rev()
            .find_map(|active| active.rule.expires_in)
            .map(i64::from)
    }
}
