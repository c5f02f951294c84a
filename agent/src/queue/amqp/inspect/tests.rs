//! What a hostile producer may put into a message, read by lapin's own parser.

use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::basic::AMQPMethod;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable};
use proptest::prelude::*;

use super::fault::Fault;
use super::frames::Frames;
use super::fuzzing::{content_header, delivery, written};

/// A content header with these properties, by their flags.
fn header(flags: u16, properties: &[&[u8]]) -> Vec<u8> {
    let prefix = [&[0, 60, 0, 0], &3_u64.to_be_bytes()[..]].concat();
    [&prefix[..], &flags.to_be_bytes(), &properties.concat()].concat()
}

fn long(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap();
    [&length.to_be_bytes(), content].concat()
}

const HEADERS: u16 = 1 << 13;
const CORRELATION_ID: u16 = 1 << 10;
const REPLY_TO: u16 = 1 << 9;
const MESSAGE_ID: u16 = 1 << 7;

/// What lapin reads after the inspection.
fn inspected(content: &[u8]) -> BasicProperties {
    let mut frames = Frames::new(32 << 10);
    let size = u32::try_from(content.len()).unwrap();
    frames.feed(&[&[2, 0, 1], &size.to_be_bytes()[..], content, &[0xCE]].concat());
    let mut passed = vec![0; content.len() + 1024];
    let count = frames.read_into(&mut passed);
    match amq_protocol::frame::parse_frame(&passed[..count]) {
        Ok((_, AMQPFrame::Header(1, header))) => {
            assert_eq!(header.body_size, 3, "the body follows all the same");
            header.properties
        }
        other => panic!("{other:?}"),
    }
}

/// A table that holds a table, and so on.
fn deep(levels: usize) -> Vec<u8> {
    (0..levels).fold(Vec::new(), |table, _| {
        [&b"\x01aF"[..], &long(&table)].concat()
    })
}

#[test]
fn what_is_well_formed_passes_byte_by_byte() {
    let mut deaths = FieldTable::default();
    deaths.insert("queue".into(), AMQPValue::LongString("q".into()));
    let mut headers = FieldTable::default();
    let latest = AMQPValue::FieldTable(deaths);
    headers.insert(
        "x-death".into(),
        AMQPValue::FieldArray(FieldArray::from(vec![latest])),
    );
    headers.insert(
        "not-utf-8".into(),
        AMQPValue::LongString(b"\xff".to_vec().into()),
    );
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_headers(headers)
        .with_message_id("möglich".into())
        .with_timestamp(7)
        .with_cluster_id("c".into());
    let content = written(&properties);
    assert_eq!(inspected(&content), properties);
    assert_eq!(content_header(&content, 5), None);
}

#[test]
fn headers_nested_too_deep_name_their_fault_and_keep_who_asked() {
    for levels in [33, 6_000] {
        let table = long(&deep(levels));
        let flags = HEADERS | CORRELATION_ID | REPLY_TO | MESSAGE_ID;
        let content = header(flags, &[&table, b"\x01c", b"\x01r", b"\x02id"]);
        let properties = inspected(&content);
        assert_eq!(Fault::of(&properties), Some(Fault::TooDeep));
        let texts = [
            properties.correlation_id(),
            properties.reply_to(),
            properties.message_id(),
        ];
        let texts = texts.map(|text| text.as_ref().map(|text| text.as_str().to_owned()));
        assert_eq!(texts, ["c", "r", "id"].map(|text| Some(text.to_owned())));
    }
    assert_eq!(
        content_header(&header(HEADERS, &[&long(&deep(32))]), 9),
        None
    );
}

#[test]
fn a_text_that_is_not_utf_8_is_left_out_and_named() {
    let content = header(REPLY_TO | MESSAGE_ID, &[b"\x01r", b"\x04caf\xe9"]);
    let properties = inspected(&content);
    let fault = Fault::of(&properties).unwrap();
    assert_eq!(fault.to_string(), "message_id is not UTF-8");
    assert_eq!(properties.message_id(), &None);
    assert_eq!(properties.reply_to().as_ref().unwrap().as_str(), "r");
}

#[test]
fn what_has_not_the_form_of_properties_is_told() {
    let fault = |content: &[u8]| content_header(content, 3).unwrap().to_string();
    let table = |entries: &[u8]| header(HEADERS, &[&long(entries)]);
    let malformed = "the headers are not as AMQP has them";
    assert_eq!(fault(&table(b"\x01aZ")), malformed);
    assert_eq!(fault(&table(b"\x01aS\0\0\0\x09short")), malformed);
    assert_eq!(fault(&table(b"\x01aF\0\0\0\x01\x05")), malformed);
    assert_eq!(fault(&table(b"\x01\xffV")), "a header's name is not UTF-8");
    let no_properties = "they are not as AMQP has them";
    assert_eq!(fault(&header(MESSAGE_ID, &[b"\x09short"])), no_properties);
    assert_eq!(fault(&header(0, &[b"more"])), no_properties);
    assert_eq!(fault(&header(1, &[])), no_properties);
    assert_eq!(fault(&[0; 12]), no_properties);
}

#[test]
fn large_headers_are_reduced_to_what_is_read() {
    let mut headers = FieldTable::default();
    for number in 0..40 {
        let large = AMQPValue::LongString("x".repeat(3_000).into());
        headers.insert(format!("large-{number}").into(), large);
    }
    headers.insert("traceparent".into(), AMQPValue::LongString("00-1".into()));
    let large = AMQPValue::LongString("x".repeat(30_000).into());
    headers.insert("tracestate".into(), large);
    let properties = BasicProperties::default()
        .with_headers(headers)
        .with_priority(3)
        .with_message_id("id".into());
    let content = written(&properties);
    assert!(content.len() > 120_000);
    let read = inspected(&content);
    assert_eq!(Fault::of(&read), None);
    let mut left = FieldTable::default();
    left.insert("traceparent".into(), AMQPValue::LongString("00-1".into()));
    assert_eq!(read, properties.with_headers(left));

    // Few bytes, many values.
    let many = long(&[&b"\x01aA"[..], &long(&[b'V'; 7_000])].concat());
    assert_eq!(
        inspected(&header(HEADERS, &[&many])),
        BasicProperties::default()
    );
}

#[test]
fn what_is_larger_than_any_broker_lets_pass_is_dropped_on_the_way() {
    let sent = header(HEADERS | MESSAGE_ID, &[&long(&vec![0; 3 << 20]), b"\x02id"]);
    for cut in [0, 6, 7, 18, 19, 20, 1 << 20, sent.len() + 7] {
        assert_eq!(content_header(&sent, cut), Some(Fault::TooLarge));
    }
}

#[test]
fn nobody_else_can_say_that_properties_are_unreadable() {
    let entry = [&[23][..], Fault::HEADER.as_bytes(), b"B\x64"].concat();
    let content = header(HEADERS, &[&long(&entry)]);
    assert_eq!(content_header(&content, 0), None);
}

#[test]
fn a_frame_fits_what_the_broker_agreed_to() {
    let mut frames = Frames::new(32 << 10);
    // connection.tune: 2047 channels, frames of 4 KiB, a heartbeat every minute.
    let tune = b"\0\x0a\0\x1e\x07\xff\0\0\x10\0\0\x3c";
    frames.feed(&[&b"\x01\0\0\0\0\0\x0c"[..], tune, &[0xCE]].concat());
    let table = long(&[&b"\x01aS"[..], &long(&[b'x'; 5_000])].concat());
    let content = header(HEADERS | MESSAGE_ID, &[&table, b"\x02id"]);
    let size = u32::try_from(content.len()).unwrap();
    frames.feed(&[&[2, 0, 1], &size.to_be_bytes()[..], &content, &[0xCE]].concat());
    let mut passed = [0; 8192];
    let count = frames.read_into(&mut passed);
    assert!(count < 100, "{count}");
}

#[test]
fn names_of_others_are_made_readable() {
    let AMQPFrame::Method(7, AMQPClass::Basic(AMQPMethod::Deliver(told))) = delivery(b"a\xffb\xc3")
    else {
        panic!("a delivery");
    };
    assert_eq!((told.routing_key.as_str(), told.delivery_tag), ("a?b?", 7));
}

#[test]
fn the_broker_introduces_itself_once() {
    let mut frames = Frames::new(0);
    let greeting = b"\0\x0a\0\x0a\0\x09\0\0\0\x12\x07versionS\0\0\0\x055.0.1\0\0\0\0\0\0\0\0";
    let size = u32::try_from(greeting.len()).unwrap();
    frames.feed(&[&[1, 0, 0], &size.to_be_bytes()[..], greeting, &[0xCE]].concat());
    assert_eq!(frames.take_version().as_deref(), Some("5.0.1"));
    assert_eq!(frames.take_version(), None);
}

proptest! {
    #[test]
    fn whatever_the_properties_are_lapin_can_parse_them(
        flags in any::<u16>(),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        cut in 0_usize..400,
    ) {
        content_header(&header(flags, &[&bytes]), cut);
    }

    #[test]
    fn whatever_the_headers_are_lapin_can_parse_them(
        entries in prop::collection::vec((any::<u8>(), "[a-z]{0,3}", prop::collection::vec(any::<u8>(), 0..40)), 0..20),
        kinds in prop::collection::vec(prop::sample::select(b"tbBsUuIifDlLdTSxAFVZ".to_vec()), 20),
    ) {
        let table: Vec<u8> = entries.iter().zip(kinds).flat_map(|((_, name, value), kind)| {
            let length = u8::try_from(name.len()).unwrap();
            let value = if b"SxAF".contains(&kind) { long(value) } else { value.clone() };
            [&[length], name.as_bytes(), &[kind], &value].concat()
        }).collect();
        content_header(&header(HEADERS, &[&long(&table)]), 11);
    }

    #[test]
    fn whatever_a_routing_key_is_lapin_can_parse_it(key in prop::collection::vec(any::<u8>(), 0..300)) {
        delivery(&key);
    }

    /// However the bytes are cut, what comes out is the same.
    #[test]
    fn frames_come_out_whole(
        sizes in prop::collection::vec((prop::sample::select(vec![1_u8, 2, 3, 8]), 0_usize..200), 0..10),
        cuts in prop::collection::vec(1_usize..50, 1..100),
    ) {
        let sent: Vec<u8> = sizes.iter().flat_map(|(kind, size)| {
            let content = match kind {
                2 => header(0, &[]),
                // A method of no class that is known.
                _ => vec![9; *size],
            };
            let size = u32::try_from(content.len()).unwrap();
            [&[*kind, 0, 1], &size.to_be_bytes()[..], &content, &[0xCE]].concat()
        }).collect();
        let mut frames = Frames::new(32 << 10);
        let (mut came, mut at, mut buffer) = (Vec::new(), 0, [0; 64]);
        for cut in cuts.iter().cycle() {
            let end = (at + cut).min(sent.len());
            frames.feed(&sent[at..end]);
            at = end;
            let count = frames.read_into(&mut buffer);
            came.extend_from_slice(&buffer[..count]);
            if at == sent.len() && count == 0 {
                break;
            }
        }
        prop_assert_eq!(came, sent);
    }
}
