//! The log: lines on stderr.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

use crate::config::{ConfigError, LogFormat, LogSettings};

/// The variable whose directives go over `log.level`.
const DIRECTIVES: &str = "RUST_LOG";

/// Off unless somebody asks for it: what the AMQP library logs about a lost connection is a line of
/// our own a moment later, in words.
const QUIET: &str = "lapin=off";

/// Starts the log: text on a terminal, JSON lines elsewhere, unless the settings say which.
/// The directives in `RUST_LOG`, if there are any, go over the setting `log.level`, and are taken by
/// the letter.
///
/// The first call in a process decides; later ones change nothing.
///
/// # Errors
/// Where the level, or `RUST_LOG`, is neither a level nor directives.
pub fn start(settings: &LogSettings) -> Result<(), ConfigError> {
    let filter = filter(&settings.level, std::env::var(DIRECTIVES).ok().as_deref())?;
    let terminal = stderr().is_terminal();
    let json = match settings.format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()));
    let started = if json {
        lines.json().flatten_event(true).try_init()
    } else {
        lines.try_init()
    };
    // The only error there is: a log had been started.
    drop(started);
    Ok(())
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
