//! Bytes that are not what they claim to be, and those that are.

use arrow_array::builder::{Int32Builder, ListBuilder, StringBuilder};
use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn compressed_batches_are_read_and_their_claims_checked() {
    let columns = || vec![column(StringArray::from_iter_values(["sparkferry"; 1000]))];
    let plain = read(&stream(columns())).unwrap();
    let mut packed = compressed(columns(), Some(CompressionType::ZSTD));
    assert_eq!(read(&packed).unwrap(), plain);
    // The text's buffer claims far more than it holds.
    let claim = 10_000_i64.to_le_bytes();
    let at = packed.windows(8).rposition(|bytes| bytes == claim).unwrap();
    packed[at..at + 8].copy_from_slice(&(i64::MAX / 2).to_le_bytes());
    let error = read(&packed).unwrap_err().to_string();
    assert!(error.contains("claims"), "{error}");
}

#[test]
fn damaged_streams_are_errors() {
    let whole = numbers(100);
    for length in 1..whole.len() - 8 {
        assert!(
            read(&whole[..length]).is_err(),
            "{length} of {}",
            whole.len()
        );
    }
    for bytes in [&b""[..], b"\xff\xff\xff\xff", b"not Arrow at all", &[0; 8]] {
        let error = read(bytes).unwrap_err().to_string();
        assert!(
            error.starts_with("the server's rows can't be read: "),
            "{error}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_arrow_writes_is_what_is_read(
        rows in prop::collection::vec((any::<Option<i64>>(), any::<Option<String>>(),
            any::<Option<f64>>(), prop::collection::vec(any::<Option<i32>>(), 0..5)), 0..50),
        limit in 0_u64..60,
    ) {
        let mut lists = ListBuilder::new(Int32Builder::new());
        for row in &rows {
            lists.append_value(row.3.iter().copied());
        }
        let bytes = stream(vec![
            column(rows.iter().map(|row| row.0).collect::<Int64Array>()),
            column(rows.iter().map(|row| row.1.clone()).collect::<StringArray>()),
            column(rows.iter().map(|row| row.2).collect::<Float64Array>()),
            column(lists.finish()),
        ]);
        let mut read = Rows::new(limit, 1 << 20);
        read.batch(&bytes).unwrap();
        let expected: Vec<Value> = rows
            .iter()
            .take(usize::try_from(limit).unwrap())
            .map(|(a, b, c, d)| json!([a, b, c.map(super::super::value::double), d]))
            .collect();
        let value = read.into_value();
        prop_assert_eq!(&value["rows"], &json!(expected));
        prop_assert_eq!(&value["row_count"], rows.len());
        prop_assert_eq!(&value["truncated"], rows.len() as u64 > limit);
    }

    #[test]
    fn no_damage_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        kind in 0_usize..3,
    ) {
        let mut lists = ListBuilder::new(StringBuilder::new());
        lists.append_value([Some("a"), None, Some("bc")]);
        let mut bytes = match kind {
            0 => stream(vec![column(lists.finish())]),
            1 => stream(vec![variant(&[2, 1, 0, 0, 2, 0x0c, 1], &[1, 1, 0, 1, b'a'])]),
            _ => compressed(
                vec![column(StringArray::from_iter_values(["sparkferry"; 100]))],
                Some(CompressionType::ZSTD),
            ),
        };
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        // Either is fine: rows that look whole, or an error.
        if let Ok(value) = read(&bytes) {
            prop_assert!(value["rows"].is_array());
        }
    }

    #[test]
    fn no_noise_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(read(&bytes).is_err());
    }

}
