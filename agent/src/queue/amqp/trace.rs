//! The trace headers of a message, within the sizes of W3C's Trace Context. They are passed on into
//! the header of the result, so what is no trace context, or has no end, is dropped. Pure.

use sparkferry_ports::queue::TraceContext;

/// The longest `tracestate` that everybody must pass on, in bytes.
const STATE_BYTES: usize = 512;
/// The lengths of a `traceparent`'s parts: version, trace id, parent id, flags.
const PARTS: [usize; 4] = [2, 32, 16, 2];

/// The trace context of a message with these headers. Without a parent a state says nothing.
pub(super) fn context(parent: Option<String>, state: Option<String>) -> TraceContext {
    let parent = parent.filter(|parent| is_parent(parent));
    let state = state.filter(|state| parent.is_some() && is_state(state));
    TraceContext { parent, state }
}

/// `00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01`: lower-case hexadecimal digits; ids of
/// zeros and the version ff are invalid.
fn is_parent(text: &str) -> bool {
    let hex = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let zeros = |part: &str| part.bytes().all(|b| b == b'0');
    let mut parts = text.split('-');
    let is_whole = PARTS.iter().enumerate().all(|(place, length)| {
        parts.next().is_some_and(|part| {
            part.len() == *length
                && hex(part)
                && match place {
                    0 => part != "ff",
                    1 | 2 => !zeros(part),
                    _ => true,
                }
        })
    });
    is_whole && parts.next().is_none()
}

fn is_state(text: &str) -> bool {
    (1..=STATE_BYTES).contains(&text.len()) && text.bytes().all(|b| (b' '..=b'~').contains(&b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn read(parent: &str, state: &str) -> (bool, bool) {
        let context = context(Some(parent.to_owned()), Some(state.to_owned()));
        (context.parent.is_some(), context.state.is_some())
    }

    #[test]
    fn a_trace_context_is_passed_on_and_what_is_none_is_not() {
        let state = "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7";
        assert_eq!(read(PARENT, state), (true, true));
        assert_eq!(read(&PARENT.replacen("00", "cc", 1), ""), (true, false));
        for parent in [
            "",
            "00",
            &PARENT[1..],
            &format!("{PARENT}-"),
            &format!("{PARENT}{}", "0".repeat(32 << 10)),
            &PARENT.replacen("00", "ff", 1),
            &PARENT.to_uppercase(),
            &PARENT.replace('b', "ß"),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        ] {
            assert_eq!(read(parent, state), (false, false), "{parent:.80}");
        }
        assert_eq!(read(PARENT, &"a".repeat(512)), (true, true));
        for state in [&"a".repeat(513), "a=\u{7f}", "a=\n", "a=é"] {
            assert_eq!(read(PARENT, state), (true, false), "{state:.80}");
        }
    }

    proptest! {
        #[test]
        fn what_is_passed_on_is_bounded(parent in ".{0,80}|[0-9a-f-]{50,60}", state in ".{0,600}") {
            let context = context(Some(parent), Some(state));
            prop_assert!(context.parent.is_none_or(|parent| parent.len() == 55));
            prop_assert!(context.state.is_none_or(|state| state.len() <= 512 && state.is_ascii()));
        }

        #[test]
        fn every_trace_parent_is_passed_on(trace in "[0-9a-f]{31}[1-9a-f]", parent in "[1-9a-f][0-9a-f]{15}", flags in "[0-9a-f]{2}") {
            let text = format!("00-{trace}-{parent}-{flags}");
            prop_assert_eq!(context(Some(text.clone()), None).parent, Some(text));
        }
    }
}
