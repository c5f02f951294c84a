//! The log: to systemd's journal where stderr is the journal's, else lines on stderr.

use std::fs::File;
use std::io::{self, IsTerminal, stderr};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::config::{ConfigError, LogFormat, LogSettings};

/// The variable whose directives go over `log.level`.
const DIRECTIVES: &str = "RUST_LOG";

/// Off unless somebody asks for it: what the AMQP library logs about a lost connection is a line of
/// our own a moment later, in words.
const QUIET: &str = "lapin=off";

/// What the log lets through. Can be changed while the program runs.
#[derive(Debug, Clone)]
pub struct Level(reload::Handle<EnvFilter, Registry>);

impl Level {
    /// Takes another level, or the directives in `RUST_LOG` again, which still go over it.
    ///
    /// # Errors
    /// Where it is neither a level nor directives: the old one stays.
    pub fn set(&self, settings: &LogSettings) -> Result<(), ConfigError> {
        let filter = filter_now(settings)?;
        // The only error there is: the log itself is gone.
        drop(self.0.reload(filter));
        Ok(())
    }
}

/// Starts the log. By itself it goes to the journal, each event with its fields, where systemd says
/// that stderr goes there; else it is text on a terminal and JSON lines elsewhere. The settings may
/// say which lines are to be written, and then they are. The directives in `RUST_LOG`, if there are
/// any, go over the setting `log.level`, and are taken by the letter.
///
/// The first call in a process decides; later ones change nothing.
///
/// # Errors
/// Where the level, or `RUST_LOG`, is neither a level nor directives.
pub fn start(settings: &LogSettings) -> Result<Level, ConfigError> {
    let (filter, handle) = reload::Layer::new(filter_now(settings)?);
    let started = tracing_subscriber::registry()
        .with(filter)
        .with(target(settings.format))
        .try_init();
    // The only error there is: a log had been started.
    drop(started);
    Ok(Level(handle))
}

/// One place alone: what systemd reads from stderr comes to the journal too.
fn target<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let terminal = stderr().is_terminal();
    let lines = fmt::layer()
        .with_writer(stderr)
        .with_ansi(terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()));
    match format {
        LogFormat::Auto if stderr_is_the_journals() => match tracing_journald::layer() {
            Ok(journal) => journal
                .with_syslog_identifier("sparkferry".to_owned())
                .with_field_prefix(Some("SPARKFERRY".to_owned()))
                .boxed(),
            Err(_) => lines.json().flatten_event(true).boxed(),
        },
        LogFormat::Auto if terminal => lines.boxed(),
        LogFormat::Auto | LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.boxed(),
    }
}

/// systemd names the journal's end of stderr, by device and inode, in a variable that children
/// inherit: theirs may go elsewhere.
fn stderr_is_the_journals() -> bool {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let own = || -> io::Result<String> {
        let file = File::from(stderr().as_fd().try_clone_to_owned()?).metadata()?;
        Ok(format!("{}:{}", file.dev(), file.ino()))
    };
    !named.is_empty() && own().is_ok_and(|own| own == named)
}

fn filter_now(settings: &LogSettings) -> Result<EnvFilter, ConfigError> {
    filter(&settings.level, std::env::var(DIRECTIVES).ok().as_deref())
}

fn filter(level: &str, directives: Option<&str>) -> Result<EnvFilter, ConfigError> {
    let (setting, text, filter) = match directives.filter(|text| !text.trim().is_empty()) {
        Some(text) => (DIRECTIVES, text, text.to_owned()),
        // In this order: what the setting says of the library itself holds.
        None => ("log.level", level, format!("{QUIET},{level}")),
    };
    EnvFilter::try_new(filter).map_err(|e| ConfigError::Value {
        setting: setting.to_owned(),
        why: format!(
            "{text:?} is no level (error, warn, info, debug, trace) and no list of directives \
             such as info,sparkferry_agent::queue=debug: {e}"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_goes_over_the_setting() {
        assert_eq!(filter("info", Some("debug")).unwrap().to_string(), "debug");
        for none in [None, Some(" ")] {
            let filter = filter("info", none).unwrap().to_string();
            assert_eq!(filter, "lapin=off,info");
        }
    }

    #[test]
    fn who_asks_for_the_librarys_lines_gets_them() {
        let filter = filter("info,lapin=debug", None).unwrap().to_string();
        assert_eq!(filter, "lapin=debug,info");
    }

    #[test]
    fn a_wrong_level_is_named() {
        let error = filter("info,x=loud", None).unwrap_err().to_string();
        assert!(
            error.contains("log.level") && error.contains("loud"),
            "{error}"
        );
        let error = filter("info", Some("x=loud")).unwrap_err().to_string();
        assert!(error.contains(DIRECTIVES), "{error}");
    }
}
