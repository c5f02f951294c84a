//! What is kept: of a step's rows, and of all steps together.

use proptest::prelude::*;
use serde_json::json;

use super::super::{fit, output};
use super::*;

#[test]
fn rows_beyond_the_limit_are_counted_and_not_kept() {
    let mut rows = Rows::new(5, 1 << 20);
    for _ in 0..3 {
        rows.batch(&numbers(4)).unwrap();
    }
    assert_eq!(rows.kept.len(), 5);
    let value = rows.into_value();
    assert_eq!(value["rows"], json!([[0], [1], [2], [3], [0]]));
    assert_eq!(
        (&value["row_count"], &value["truncated"]),
        (&json!(12), &json!(true))
    );

    let mut exactly = Rows::new(4, 1 << 20);
    exactly.batch(&numbers(4)).unwrap();
    assert_eq!(exactly.into_value()["truncated"], false);
}

#[test]
fn memory_is_bounded_by_the_byte_limit() {
    let mut rows = Rows::new(u64::MAX, 1000);
    for _ in 0..100 {
        rows.batch(&numbers(1000)).unwrap();
    }
    assert!(
        (100..=400).contains(&rows.kept.len()),
        "{}",
        rows.kept.len()
    );
    let value = rows.into_value();
    assert_eq!(
        (&value["row_count"], &value["truncated"]),
        (&json!(100_000), &json!(true))
    );

    // One value that is larger, and a list whose items take no memory in Arrow.
    let long = "x".repeat(2000);
    let nulls = ListArray::new(
        Arc::new(Field::new_list_field(Arrow::Null, true)),
        arrow_buffer::OffsetBuffer::new(vec![0, i32::MAX].into()),
        Arc::new(NullArray::new(i32::MAX as usize)),
        None,
    );
    for column in [column(StringArray::from(vec![long])), column(nulls)] {
        let mut rows = Rows::new(1000, 1000);
        rows.batch(&stream(vec![column])).unwrap();
        let value = rows.into_value();
        assert_eq!(
            (&value["rows"], &value["row_count"]),
            (&json!([]), &json!(1))
        );
        assert_eq!(value["truncated"], true);
    }
}

#[test]
fn outputs_fit_largest_steps_cut_first() {
    let step = |count: i64| {
        let mut rows = Rows::new(u64::MAX, 1 << 20);
        rows.batch(&numbers(count)).unwrap();
        rows.into_value()
    };
    assert_eq!(output(Vec::new(), 1000), None);
    let both = output(vec![step(1), step(2)], 1000).unwrap();
    assert_eq!(both, json!({"steps": [step(1), step(2)]}));

    let cut = output(vec![step(3), step(1000)], 1000).unwrap();
    assert!(
        (900..=1000).contains(&cut.to_string().len()),
        "{}",
        cut.to_string().len()
    );
    assert_eq!(
        (&cut["truncated"], &cut["steps"][0]),
        (&json!(true), &step(3))
    );
    assert_eq!(cut["steps"][1]["truncated"], true);
    assert_eq!(cut["steps"][1]["row_count"], 1000);

    let many = output(vec![step(1); 100], 1000).unwrap();
    let kept = many["steps"].as_array().unwrap().len();
    assert!(kept > 5 && many.to_string().len() <= 1000, "{many}");
    assert_eq!(
        (&many["steps_omitted"], &many["truncated"]),
        (&json!(100 - kept), &json!(true))
    );
}

/// Bytes that the steps take as JSON.
fn size(steps: &[Value]) -> usize {
    steps.iter().map(|step| step.to_string().len()).sum()
}

#[test]
fn what_is_kept_of_a_thousand_steps_is_bounded_and_what_an_output_would_keep_is_kept() {
    const LIMIT: usize = 4000;
    let step = |count: i64| {
        let mut rows = Rows::new(u64::MAX, 1 << 20);
        rows.batch(&numbers(count)).unwrap();
        rows.into_value()
    };
    let mut steps = Vec::new();
    for number in 1..=1000 {
        steps.push(step(number));
        fit(&mut steps, LIMIT);
        // Rows and columns never take more; what is left of a step is a few words and a number.
        assert!(
            size(&steps) <= LIMIT + steps.len() * 70,
            "{} bytes after step {number}",
            size(&steps)
        );
    }
    let counts: Vec<_> = steps.iter().map(|step| step["row_count"].clone()).collect();
    assert_eq!(counts, (1..=1000).map(Value::from).collect::<Vec<_>>());
    let whole = output(steps, LIMIT).unwrap();
    assert!(whole.to_string().len() <= LIMIT, "{whole}");
    assert_eq!(whole["truncated"], true);

    // Where all of it fits, nothing is cut on the way.
    let mut steps = Vec::new();
    for number in 1..=10 {
        steps.push(step(number));
        fit(&mut steps, LIMIT);
    }
    assert_eq!(steps, (1..=10).map(step).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_limit_of_an_output_holds(
        steps in prop::collection::vec(prop::collection::vec(any::<String>(), 0..20), 1..10),
        limit in 64_usize..5000,
    ) {
        let steps: Vec<Value> = steps
            .into_iter()
            .map(|texts| {
                let mut rows = Rows::new(100, 1 << 20);
                rows.batch(&stream(vec![column(StringArray::from(texts))])).unwrap();
                rows.into_value()
            })
            .collect();
        let whole = json!({"steps": steps}).to_string().len();
        let output = output(steps, limit).unwrap();
        prop_assert!(output.to_string().len() <= limit, "{} > {limit}", output.to_string().len());
        prop_assert!(whole > limit.saturating_sub(70) || output.get("truncated").is_none());
        prop_assert!(whole <= limit || output["truncated"] == true);
    }
}
