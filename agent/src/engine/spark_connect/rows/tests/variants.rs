//! Values that carry their own types.

use serde_json::json;

use super::*;

#[test]
fn a_variant_is_what_it_holds() {
    // {"a": [1, "x", 2.5, null]}
    let value = [
        2, 1, 0, 0, 18, // an object: 1 field, id 0, from 0 to 18
        3, 4, 0, 2, 4, 10, 11, // a list: 4 items, from 0, 2, 4, 10 to 11
        0x0c, 1, // an 8-bit number
        0x05, b'x', // a short text
        0x20, 1, 25, 0, 0, 0, // a decimal of scale 1
        0, // null
    ];
    let metadata = [1, 1, 0, 1, b'a'];
    let (told, values) = one(variant(&value, &metadata));
    assert_eq!(
        (told.as_str(), &values[0]),
        ("variant", &json!({"a": [1, "x", 2.5, null]}))
    );

    let mut long = vec![0x28, 1];
    long.extend(12_345_678_901_234_567_890_i128.to_le_bytes());
    assert_eq!(one(variant(&long, &NO_NAMES)).1[0], "1234567890123456789.0");
    let mut instant = vec![12 << 2];
    instant.extend(1_000_000_i64.to_le_bytes());
    assert_eq!(
        one(variant(&instant, &NO_NAMES)).1[0],
        "1970-01-01T00:00:01Z"
    );
}

#[test]
fn a_variant_that_is_too_deep_or_unknown_is_null_and_said_so() {
    let mut deep = vec![0];
    for _ in 0..60 {
        let length = u8::try_from(deep.len()).unwrap();
        let mut list = vec![3, 1, 0, length];
        list.append(&mut deep);
        deep = list;
    }
    let unknown = vec![63 << 2];
    assert_eq!(
        read(&stream(vec![variant(&deep, &NO_NAMES)])).unwrap()["truncated"],
        false
    );
    for _ in 0..10 {
        let mut list = vec![
            7,
            1,
            0,
            0,
            u8::try_from(deep.len() & 255).unwrap(),
            u8::try_from(deep.len() >> 8).unwrap(),
        ];
        list[0] = 3 | 1 << 2;
        list.append(&mut deep);
        deep = list;
    }
    for value in [deep, unknown] {
        let value = read(&stream(vec![variant(&value, &NO_NAMES)])).unwrap();
        assert_eq!(value["truncated"], true);
        assert_eq!(value["rows"].as_array().unwrap().len(), 1);
    }
}
