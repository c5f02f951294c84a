//! What systemd is told: ready, reloading, stopping, alive, and a line for `systemctl status`.
//!
//! Where no `NOTIFY_SOCKET` is set (no systemd, or a unit without `Type=notify`) nothing is told.
//! Telling never fails for us: a service manager that does not listen changes nothing for the runs.

use std::fmt::Write;

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::runs::Readiness;

/// Tells that it is ready once the worker's loop turns for the first time, and from then on, at each
/// turn, that it is alive, and its status where that is new. Ends when `stop` is cancelled, having
/// told that.
///
/// Nothing but the worker's loop drives it: when that stands still, the watchdog is not fed.
pub async fn attend(
    mut turns: watch::Receiver<()>,
    status: impl Fn() -> String,
    stop: CancellationToken,
) {
    let mut told: Option<String> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            turned = turns.changed() => if turned.is_err() { break },
        }
        let now = status();
        let mut lines = match &told {
            None => vec![Line::Ready, Line::Alive],
            Some(_) => vec![Line::Alive],
        };
        if told.as_ref() != Some(&now) {
            lines.push(Line::Status(now.clone()));
        }
        tell(lines).await;
        told = Some(now);
    }
    let status = "handing everything back; runs go on".to_owned();
    tell(vec![Line::Stopping, Line::Status(status)]).await;
}

/// Tells that the configuration is being read again.
pub async fn reloading() {
    tell(vec![Line::Reloading]).await;
}

/// Tells that this is over, well or not, and the status since.
pub async fn reloaded(status: String) {
    tell(vec![Line::Ready, Line::Status(status)]).await;
}

/// The line for `systemctl status`: how much is under way, then whatever is wrong.
pub fn status(in_flight: usize, readiness: &Readiness) -> String {
    let connections = readiness.connections.len();
    let mut line = format!(
        "{in_flight} request{} under way, {connections} connection{}",
        plural(in_flight),
        plural(connections),
    );
    let mut say = |what: &str, trouble: &Option<String>| {
        if let Some(trouble) = trouble {
            // To write to a text can't fail.
            let _ = write!(line, "; {what}: {trouble}");
        }
    };
    say("queue", &readiness.queue);
    for (name, trouble) in &readiness.connections {
        say(name, trouble);
    }
    say("configuration refused", &readiness.configuration);
    // One line it must be: the next one would be read as another message.
    line.replace(char::is_control, " ")
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

enum Line {
    Ready,
    Reloading,
    Stopping,
    Alive,
    Status(String),
}

/// On a thread of its own: the other end may be busy.
async fn tell(lines: Vec<Line>) {
    let telling = tokio::task::spawn_blocking(move || {
        let mut states = Vec::new();
        for line in &lines {
            match line {
                Line::Ready => states.push(NotifyState::Ready),
                Line::Reloading => {
                    states.push(NotifyState::Reloading);
                    // systemd 253 and later tell an old reload from a new one by it.
                    states.extend(NotifyState::monotonic_usec_now());
                }
                Line::Stopping => states.push(NotifyState::Stopping),
                Line::Alive => states.push(NotifyState::Watchdog),
                Line::Status(text) => states.push(NotifyState::Status(text)),
            }
        }
        sd_notify::notify(&states)
    });
    match telling.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "systemd could not be told"),
        Err(panic) => tracing::error!("systemd could not be told: {panic}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_status_is_one_line_with_everything_that_is_wrong() {
        let connections = BTreeMap::from([
            ("lake".to_owned(), None),
            ("prod".to_owned(), Some("401:\nREADY=1".to_owned())),
        ]);
        let mut readiness = Readiness::new(None, connections, false);
        assert_eq!(
            status(1, &readiness),
            "1 request under way, 2 connections; prod: 401: READY=1"
        );
        readiness.queue = Some("broker: not connected".to_owned());
        readiness.configuration = Some("agent.toml: line 3".to_owned());
        assert_eq!(
            status(0, &readiness),
            "0 requests under way, 2 connections; queue: broker: not connected; \
             prod: 401: READY=1; configuration refused: agent.toml: line 3"
        );
    }
}
