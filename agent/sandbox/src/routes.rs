//! From an HTTP request to a call of the workspace: its name, its faults, who may make it, its
//! effect and its place in the books, all under one short lock.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, to_bytes},
    extract::{ConnectInfo, Request, State as Shares},
    http::{HeaderMap, Method, Response, header},
};
use serde_json::{Value, json};

use super::{
    Shared,
    args::Args,
    auth::Shown,
    exec,
    issue::Clients,
    line::{Cut, Switch},
    reply::{Answer, Payload, Refusal, Reply, stock_error},
    rules::{Fault, Subject},
    state::{State, now_ms},
};

/// The largest body that is read: Databricks' limit on a job's settings is 10 MB.
const BODY_BYTES: usize = 10 * 1024 * 1024;

/// The calls of the REST API without `/api/2.x/`, each with its method.
const CALLS: [(&str, Method); 25] = [
    ("jobs/run-now", Method::POST),
    ("jobs/runs/submit", Method::POST),
    ("jobs/runs/get", Method::GET),
    ("jobs/runs/list", Method::GET),
    ("jobs/runs/get-output", Method::GET),
    ("jobs/runs/cancel", Method::POST),
    ("jobs/runs/cancel-all", Method::POST),
    ("jobs/runs/delete", Method::POST),
    ("jobs/runs/repair", Method::POST),
    ("jobs/create", Method::POST),
    ("jobs/get", Method::GET),
    ("jobs/list", Method::GET),
    ("jobs/update", Method::POST),
    ("jobs/reset", Method::POST),
    ("jobs/delete", Method::POST),
    ("clusters/create", Method::POST),
    ("clusters/get", Method::GET),
    ("clusters/start", Method::POST),
    ("clusters/list", Method::GET),
    ("clusters/spark-versions", Method::GET),
    ("clusters/delete", Method::POST),
    ("clusters/permanent-delete", Method::POST),
    ("libraries/install", Method::POST),
    ("libraries/cluster-status", Method::GET),
    ("preview/scim/v2/Me", Method::GET),
];

/// What Entra ID's `/{tenant}/oauth2/token` is called.
const AZURE_TOKEN: &str = "azure/oauth2/token";

/// The calls outside `/api`, which need no token.
const OPEN_CALLS: [(&str, Method); 5] = [
    (".well-known/databricks-config", Method::GET),
    ("oidc/.well-known/oauth-authorization-server", Method::GET),
    ("oidc/v1/token", Method::POST),
    ("metadata/identity/oauth2/token", Method::GET),
    (AZURE_TOKEN, Method::POST),
];

/// A request, read.
struct Incoming {
    method: Method,
    path: String,
    query: Option<String>,
    shown: Shown,
    body: Vec<u8>,
}

/// What becomes of a call.
struct Outcome {
    reply: Reply,
    delay_ms: u64,
    cut: Option<Cut>,
}

/// Answers every request.
pub(super) async fn handle(
    Shares(shared): Shares<Arc<Shared>>,
    ConnectInfo(switch): ConnectInfo<Switch>,
    request: Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_BYTES).await else {
        let reply = Reply::json(
            413,
            json!({"error_code": "MAX_REQUEST_SIZE_EXCEEDED", "message": "The body is unreadable or larger than 10 MiB."}),
        );
        return reply.into_response();
    };
    let incoming = Incoming {
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().map(str::to_owned),
        shown: shown(&parts.headers),
        method: parts.method,
        body: body.into(),
    };
    let (outcome, launch) = {
        let mut state = shared.lock();
        let outcome = state.meet(&incoming, now_ms());
        (outcome, std::mem::take(&mut state.launch))
    };
    for (run, attempt) in launch {
        shared
            .processes
            .spawn(exec::keep(Arc::clone(&shared), run, attempt));
    }
    if outcome.delay_ms > 0 {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(outcome.delay_ms)) => {}
            () = shared.stop.cancelled() => {}
        }
    }
    if let Some(cut) = outcome.cut {
        switch.cut(cut);
    }
    outcome.reply.into_response()
}

fn shown(headers: &HeaderMap) -> Shown {
    let text = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.map(str::to_owned)
    };
    Shown {
        authorization: text(header::AUTHORIZATION.as_str()),
        resource_id: text("x-databricks-azure-workspace-resource-id"),
        management: text("x-databricks-azure-sp-management-token"),
        metadata: text("metadata"),
    }
}

impl State {
    fn meet(&mut self, incoming: &Incoming, now: i64) -> Outcome {
        self.settle(now);
        if let Some(control) = incoming.path.strip_prefix("/sandbox/") {
            let reply = self.control(control, incoming, now).into();
            return Outcome {
                reply,
                delay_ms: 0,
                cut: None,
            };
        }
        let call = call_of(incoming);
        let name = call.unwrap_or("unknown");
        let fault = self
            .rules
            .strike(name, &self.subject_of(incoming), now)
            .unwrap_or_default();
        if fault.expire_tokens {
            self.tokens.expire();
        }
        let cut = match () {
            () if fault.reset => Some(Cut::Reset),
            () if fault.lose_reply => Some(Cut::Close),
            () if fault.half_reply => Some(Cut::Half),
            () => None,
        };
        let reply = match prescribed(&fault) {
            Some(reply) => reply,
            None if fault.reset => Reply::json(503, json!({})),
            None => match call {
                Some(call) => self.perform(call, incoming, now),
                None => Err(Refusal::no_endpoint(
                    incoming.method.as_str(),
                    &incoming.path,
                ))
                .into(),
            },
        };
        let reply = if fault.strange {
            reply.strange()
        } else {
            reply
        };
        match cut {
            Some(_) => self.stats.cut(name),
            None => self.stats.answered(name, reply.status),
        }
        Outcome {
            reply,
            delay_ms: fault.delay_ms.unwrap_or(0),
            cut,
        }
    }

    fn subject_of(&self, incoming: &Incoming) -> Subject {
        if !self.rules.ask_for_subjects() {
            return Subject::default();
        }
        let args = Args::read(incoming.query.as_deref(), &incoming.body);
        args.map(|args| self.subject(&args)).unwrap_or_default()
    }

    fn perform(&mut self, call: &str, incoming: &Incoming, now: i64) -> Reply {
        let shown = &incoming.shown;
        match call {
            ".well-known/databricks-config" => return Reply::json(200, self.databricks_config()),
            "oidc/.well-known/oauth-authorization-server" => {
                return Reply::json(200, self.authorization_server());
            }
            "oidc/v1/token" => return self.issue_token(shown, &incoming.body, now),
            "metadata/identity/oauth2/token" => {
                return self.issue_identity_token(shown, incoming.query.as_deref(), now);
            }
            AZURE_TOKEN => return self.issue_azure_token(&incoming.body, now),
            _ => {}
        }
        let args = self
            .tokens
            .check(shown, now)
            .and_then(|()| Args::read(incoming.query.as_deref(), &incoming.body));
        args.and_then(|args| self.effect(call, &args, now)).into()
    }

    fn effect(&mut self, call: &str, args: &Args, now: i64) -> Answer {
        match call {
            "jobs/run-now" => self.run_now(args, now),
            "jobs/runs/submit" => self.submit(args, now),
            "jobs/runs/get" => self.get_run(args, now),
            "jobs/runs/list" => self.list_runs(args, now),
            "jobs/runs/get-output" => self.get_output(args, now),
            "jobs/runs/cancel" => self.cancel_run(args, now),
            "jobs/runs/cancel-all" => self.cancel_all(args, now),
            "jobs/runs/delete" => self.delete_run(args, now),
            "jobs/runs/repair" => self.repair_run(args, now),
            "jobs/create" => self.create_job(args, now),
            "jobs/get" => self.get_job(args),
            "jobs/list" => self.list_jobs(args),
            "jobs/update" => self.change_job(args, false),
            "jobs/reset" => self.change_job(args, true),
            "jobs/delete" => self.delete_job(args, now),
            "clusters/create" => self.create_cluster(args, now),
            "clusters/get" => self.get_cluster(args, now),
            "clusters/start" => self.start_cluster(args, now),
            "clusters/list" => Ok(self.list_clusters(now)),
            "clusters/spark-versions" => Ok(Self::spark_versions()),
            "clusters/delete" => self.stop_cluster(args, now),
            "clusters/permanent-delete" => self.forget_cluster(args),
            "libraries/install" => self.install_libraries(args),
            "libraries/cluster-status" => self.library_status(args, now),
            "preview/scim/v2/Me" => Ok(Self::me()),
            other => Err(Refusal::no_endpoint("", other)),
        }
    }

    /// The sandbox's own pages.
    fn control(&mut self, page: &str, incoming: &Incoming, now: i64) -> Answer {
        match (page, incoming.method.as_str()) {
            ("stats", "GET") => Ok(self.stats.show(&self.runs, now)),
            ("stats", "DELETE") | ("reset", "POST") => {
                self.stats.reset(&self.runs);
                Ok(json!({}))
            }
            ("runs", "GET") => Ok(self.show_runs(now)),
            ("rules", "GET") => Ok(self.rules.show()),
            ("rules", "DELETE") => {
                self.rules.clear();
                Ok(json!({}))
            }
            ("rules", "POST") => {
                let posted: Value = serde_json::from_slice(&incoming.body)
                    .map_err(|error| Refusal::malformed(&error.to_string()))?;
                self.rules.add(&posted, now)?;
                Ok(self.rules.show())
            }
            ("clients", "POST") => {
                self.clients = Some(Clients::read(&incoming.body)?);
                Ok(json!({}))
            }
            ("clients", "DELETE") => {
                self.clients = None;
                Ok(json!({}))
            }
            (_, method) => Err(Refusal::no_endpoint(method, &incoming.path)),
        }
    }
}

/// The name of the call that a request makes, if the sandbox serves it.
fn call_of(incoming: &Incoming) -> Option<&'static str> {
    let find = |table: &'static [(&'static str, Method)], name: &str| {
        let call = table
            .iter()
            .find(|(call, method)| *call == name && *method == incoming.method);
        call.map(|(call, _)| *call)
    };
    let path = incoming.path.strip_prefix('/')?;
    let Some(versioned) = path.strip_prefix("api/") else {
        let tenant = path.strip_suffix("/oauth2/token");
        return match tenant.filter(|tenant| !tenant.is_empty() && !tenant.contains('/')) {
            Some(_) => find(&OPEN_CALLS, AZURE_TOKEN),
            None => find(&OPEN_CALLS, path),
        };
    };
    let (version, name) = versioned.split_once('/')?;
    let newest_is_for_jobs = name.starts_with("jobs/") || version != "2.2";
    (["2.0", "2.1", "2.2"].contains(&version) && newest_is_for_jobs)
        .then(|| find(&CALLS, name))
        .flatten()
}

/// The reply that a fault puts in place of the effect.
fn prescribed(fault: &Fault) -> Option<Reply> {
    let refuses = fault.status.is_some()
        || fault.html
        || fault.body.is_some()
        || fault.outage_seconds.is_some();
    if !refuses || fault.reset {
        return None;
    }
    let status = fault.status.unwrap_or(503);
    let payload = match &fault.body {
        Some(Value::String(text)) if fault.html => Payload::Html(text.clone()),
        Some(Value::String(text)) => Payload::Text(text.clone()),
        Some(body) => Payload::Json(body.clone()),
        None if fault.html => Payload::Html(format!(
            "<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>"
        )),
        None => Payload::Json(stock_error(status)),
    };
    Some(Reply {
        status,
        payload,
        retry_after: fault.retry_after,
    })
}
