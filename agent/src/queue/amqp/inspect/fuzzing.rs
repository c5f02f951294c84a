//! A door for fuzzing: a message as a hostile producer would have the broker send it.

use amq_protocol::frame::{AMQPFrame, parse_frame};
use lapin::BasicProperties;

use super::fault::Fault;
use super::frames::Frames;

/// What the connection asks for, in bytes.
const FRAME_MAX: u32 = 32 << 10;

/// Has lapin's parser read a message whose content header holds these bytes, in place of its class, its
/// weight, its body's size and its properties; the frame arrives in two parts. Returns the fault that was
/// found.
///
/// # Panics
/// Where the parser can't read what comes out, or it is larger than agreed.
pub(crate) fn content_header(content: &[u8], cut: usize) -> Option<Fault> {
    let size = u32::try_from(content.len()).expect("it is in memory");
    let sent = [&[2, 0, 7], &size.to_be_bytes()[..], content, &[0xCE]].concat();
    let frame = parsed(&sent, cut);
    match frame {
        AMQPFrame::Header(7, header) => Fault::of(&header.properties),
        other => panic!("not a content header: {other:?}"),
    }
}

/// Has lapin's parser read a delivery with this routing key, and tells what it read.
///
/// # Panics
/// As [`content_header`].
pub(crate) fn delivery(routing_key: &[u8]) -> AMQPFrame {
    let key = &routing_key[..routing_key.len().min(255)];
    let length = u8::try_from(key.len()).expect("a short string is short");
    let fields = [
        &[0, 60, 0, 60, 1, b'c'],
        &7_u64.to_be_bytes()[..],
        &[0, 0, length],
        key,
    ]
    .concat();
    let size = u32::try_from(fields.len()).expect("a method is short");
    let sent = [&[1, 0, 7], &size.to_be_bytes()[..], &fields, &[0xCE]].concat();
    parsed(&sent, 0)
}

fn parsed(sent: &[u8], cut: usize) -> AMQPFrame {
    let mut frames = Frames::new(FRAME_MAX);
    let (first, second) = sent.split_at(cut.min(sent.len()));
    frames.feed(first);
    frames.feed(second);
    // What follows is read as the beginning of the next frame.
    let heartbeat = [8, 0, 0, 0, 0, 0, 0, 0xCE];
    frames.feed(&heartbeat);
    let mut passed = vec![0; sent.len() + 1024];
    let count = frames.read_into(&mut passed);
    let passed = &passed[..count];
    let (rest, frame) = parse_frame(passed).expect("lapin can parse it");
    assert_eq!(rest, heartbeat, "the next frame begins where this one ends");
    assert!(passed.len() - rest.len() <= FRAME_MAX as usize);
    frame
}

/// The properties of a content header, on the wire.
pub(crate) fn written(properties: &BasicProperties) -> Vec<u8> {
    let header = amq_protocol::frame::AMQPContentHeader {
        class_id: 60,
        body_size: 3,
        properties: properties.clone(),
    };
    let frame = AMQPFrame::Header(7, header);
    let written = amq_protocol::frame::gen_frame(&frame)(Vec::new().into());
    let (frame, _) = written.expect("it can be written").into_inner();
    frame[7..frame.len() - 1].to_vec()
}
